"""What is declared is shown as the reports print it: changes, ticks and batches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from common.declare.profile import profile_named
from common.declare.rows import row, rows
from common.results import declared

PAIR, APART, COSINE = "swissbert_pair", "swissbert_no_extension", "swissbert_cosine_similarity"


def test_changes_name_every_field_of_a_row_and_nothing_for_the_base() -> None:
    frame = declared.changes_frame([row(APART), row(PAIR)])
    assert frame[frame["model"] == row(PAIR).label][["field", "before", "after"]].values.tolist() == [
        ["tasks.para.pair_method", "separate", "pair"],
        ["tasks.sts.pair_method", "separate", "pair"],
    ]
    assert frame.iloc[0]["field"] == "the base of this table"


MODELS = {row.id: row for row in rows("bertpp", "table2")}


# BERT++, Table 1, read off the page.
TABLE_1 = {
    "Baseline": "",
    "Model A": "AdjLayers",
    "Model B": "AdjLayers AddPretrain",
    "Model C": "AdjLayers MulFinetune",
    "Model D": "AdjLayers MulFinetune GradSurg",
    "Model E": "AdjLayers MulFinetune GradSurg CosSim",
    "Model F": "AdjLayers MulFinetune GradSurg HyperTune",
    "Model G": "AdjLayers AddPretrain MulFinetune GradSurg HyperTune",
    "Model H": "AdjLayers AddPretrain MulFinetune GradSurg HyperTune CycTrain",
}


def test_ticks_derived_from_the_specs_are_those_of_the_report() -> None:
    frame = declared.tick_frame(MODELS.values()).set_index("model")
    found = {model: " ".join(name for name in declared.TICKS if line[name]) for model, line in frame.iterrows()}
    assert found == TABLE_1


def test_tick_table_shows_what_changes_without_a_tick() -> None:
    frame = declared.tick_frame(MODELS.values()).set_index("model")
    assert frame["batch"].tolist() == [8, 8, 16, 8, 16, 16, 16, 16, 16]
    assert frame.loc["Model G", "dropout"] == "SST 0.3, Quora 0.8, STS 0.3"
    assert frame["trained on"].tolist() == ["SST", *["SST, Quora, STS"] * 8]


def test_batches_under_cycling_are_the_printed_ones_at_batch_eight() -> None:
    """141,498 pairs and 6,040 in batches of 8: 17,688 and 755, 22.43 times as many more."""
    frame = declared.batch_frame()
    assert frame["printed"].tolist() == frame["at batch 8"].tolist() == [755, 17688, 2243]
    assert frame["at batch 16"].tolist() == [378, 8844, 2240]


def test_what_a_profile_changes_stands_beside_what_the_report_has() -> None:
    quick, of = profile_named("quick"), row(PAIR)
    study = SimpleNamespace(apply=lambda spec, seed: replace(quick.apply(spec), seed=seed))
    frame = declared.applied_frame(study, of).set_index("field")
    written, applied = of.specs[0], quick.apply(of.specs[0])
    assert frame.loc["optimizer.lr"].tolist() == [str(written.optimizer.lr), str(applied.optimizer.lr)]
    assert frame.loc["epochs"].tolist() == [str(written.epochs), str(applied.epochs)]
    assert (frame["report"] != frame["here"]).all() and "tasks.sts.pair_method" not in frame.index
    unchanged = SimpleNamespace(apply=lambda spec, seed: spec)
    assert declared.applied_frame(unchanged, of).empty


def test_printed_differences_err_as_shares_correlations_and_their_means_do() -> None:
    gains = declared.printed_gains().set_index("comparison")
    accuracy = gains.loc["SST: Model D - Model C > 0.01"]  # 0.446 and 0.426 of 1,101
    assert accuracy["printed"] == pytest.approx(0.02) and not accuracy["exceeds"]
    assert accuracy["error"] == pytest.approx(((0.446 * 0.554 + 0.426 * 0.574) / 1101) ** 0.5)
    correlation = gains.loc["STS r: Model D - Model C > 0.01"]  # 0.332 and 0.121 of 863
    assert correlation["error"] == pytest.approx(((1 - 0.332**2) ** 2 + (1 - 0.121**2) ** 2) ** 0.5 / 860**0.5)
    assert correlation["exceeds"]
    overall = gains.loc["overall: Model D - Model C >= 0"]
    quora = gains.loc["Quora: Model D - Model C > 0", "error"]
    parts = [accuracy["error"], quora, correlation["error"]]
    assert overall["error"] == pytest.approx(sum(part**2 for part in parts) ** 0.5 / 3)


def test_printed_differences_are_counted_once_and_only_where_two_rows_are_compared_by_one_metric() -> None:
    gains = declared.printed_gains()
    assert not gains["comparison"].str.contains("minus|within|<=").any()
    assert not gains.assign(pair=gains["comparison"].str.rpartition(" ")[0]).duplicated(["report", "pair"]).any()
    counted = declared.gains_counted(pd.DataFrame({"report": ["a", "b", "a"], "exceeds": [True, True, False]}))
    assert counted.to_numpy().tolist() == [["a", 2, 1], ["b", 1, 1], ["all", 3, 2]]
