"""The long frames hold every number once, in its place; the baselines come from the labels."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_runs import APART, COSINE, MODELS, PAIR, ZERO, grown, record, result, study, told_apart, with_overall

from common.declare.rows import reports, row, rows
from common.results import compare, long
from common.results.long import Baselines, constant_scores, is_zero_shot, zero_shot_rows
from common.runs.session import Results, RowResult

NOTHING = Baselines({}, Results())


def test_history_has_every_metric_and_loss_once_a_seed() -> None:
    frame = long.history({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8), record(PAIR, 1, sts_corr=None))})
    assert set(frame["trained"]) == {"SST"}
    found = frame[["seed", "split", "metric", "value"]].values.tolist()
    assert found == [
        [0, "dev", "sts_corr", 0.8],
        [0, "train", "sts_corr", 0.8],
        [0, "train", "sst_loss", 1.5],
        [1, "train", "sst_loss", 1.5],
    ], "an undefined score has no line"
    assert long.history({PAIR: result(PAIR)}).empty


@pytest.mark.parametrize(
    ("row_id", "family"),
    [
        ("swissbert_baseline_frozen", "frozen encoder"),
        (APART, "separate encoding"),
        ("swissbert_layer_sharing", "shared layer"),
        (COSINE, "cosine"),
        (PAIR, "pair encoding"),
        ("swissbert_zero_shot_cosine", "zero-shot cosine"),
        ("swissbert_pair_untrained", "untrained"),
        ("slapbert_randbert", "random answers"),
    ],
)
def test_each_row_belongs_to_its_family(row_id: str, family: str) -> None:
    assert long.method(row(row_id)) == family


def test_every_row_of_the_study_has_a_family_with_a_colour() -> None:
    from common.report.plots import METHOD_COLOURS

    assert {long.method(of) for report in reports() for of in rows(report)} <= set(METHOD_COLOURS)
    assert isinstance(compare.comparison({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.1))}, NOTHING), pd.DataFrame)


def test_phases_of_a_sequential_run_stand_in_its_history() -> None:
    of = grown("slapbert_individual_pretrain", 0, ("para", 0.2, 0.2), ("sst", 0.9, 0.5), ("sts", 0.2, 0.2))
    frame = long.history({of["run_id"]: RowResult(row("slapbert_individual_pretrain"), (of,))})
    scores = frame[(frame["metric"] == "sst_acc") & (frame["split"] == "dev")]
    assert scores[["epoch", "trained", "value"]].values.tolist() == [
        [1, "Quora", 0.2],
        [2, "SST", 0.5],
        [3, "STS", 0.2],
    ]
    assert set(frame["last"]) == {3}


@pytest.mark.parametrize("metric", ["sst_acc", "sts_corr", "overall", "sst_loss", "sts_loss", "total_loss"])
@pytest.mark.parametrize(("seeds", "epochs"), [((0, 1), 3), ((0,), 1)])
def test_curves_have_one_line_per_model_seed_and_epoch_with_its_value(metric: str, seeds: tuple, epochs: int) -> None:
    frame = long.history(study(seeds, epochs))
    frame = frame[(frame["metric"] == metric) & (frame["split"] == ("train" if metric.endswith("loss") else "dev"))]
    expected = {}
    for number, name in enumerate(MODELS):
        has_all_losses = number > 0
        for seed in seeds:
            for epoch in range(1, epochs + 1):
                dev = with_overall(told_apart(number, seed, epoch))
                if number == 0:  # two heads are untrained: they stay where they end
                    final = told_apart(0, seed, epochs)
                    dev = with_overall(dev | {"para_acc": final["para_acc"], "sts_corr": final["sts_corr"]})
                losses = {"sst_loss": 1 / epoch + number}
                if has_all_losses:
                    losses |= {"sts_loss": 2 + 1 / epoch + number, "total_loss": 3 * (1 + 1 / epoch + number)}
                if metric in dev | losses:
                    expected[name, seed, epoch] = (dev | losses)[metric]
    found = {(line.row, line.seed, line.epoch): line.value for line in frame.itertuples()}
    assert len(found) == len(frame) and found == pytest.approx(expected)


def test_a_constant_score_without_correlation_leaves_a_hole_and_no_zero() -> None:
    results = study((0,), 2)
    results["bertpp_model_a"].records[0]["history"][0]["dev"] |= {"sts_corr": None, "overall": None}
    for name in ("sts_corr", "overall"):
        frame = long.history(results)
        frame = frame[(frame["split"] == "dev") & (frame["metric"] == name)]
        assert frame[frame["row"] == "bertpp_model_a"]["epoch"].tolist() == [2]


def test_constants_are_the_share_of_the_commonest_label_and_zero_for_a_correlation() -> None:
    labels = {"sst": np.array([0, 1, 1, 3]), "para": np.array([0, 0, 1]), "sts": np.array([2.5, 2.5, 2.5, 1.0])}
    scores = constant_scores(labels)
    assert (scores["sst_acc"], scores["para_acc"], scores["sts_corr"]) == (0.5, pytest.approx(2 / 3), 0.0)
    assert scores["overall"] == pytest.approx((0.5 + 2 / 3) / 3)
    assert scores["overall_normalised"] == pytest.approx((0.5 + 2 / 3 + 0.5) / 3)
    assert scores["para_acc_best_threshold"] == scores["para_acc"], "a threshold above all answers no to all"
    assert "overall" not in constant_scores({"sst": labels["sst"]})


def test_a_score_at_the_constant_below_it_or_undefined_is_no_better() -> None:
    against = Baselines({"sst_acc": 0.5}, Results())
    assert [against.is_at_constant("sst_acc", score) for score in (0.5, 0.49, None, 0.501)] == [True, True, True, False]
    assert not against.is_at_constant("cfimdb_acc", 0.1), "nothing is known of a task without labels"


def test_zero_shot_rows_are_those_that_compare_by_cosine_without_training() -> None:
    found = [of.id for of in zero_shot_rows()]
    assert "swissbert_zero_shot_cosine" in found and len(found) == len(set(found))
    assert not is_zero_shot(row("swissbert_pair_untrained")) and not is_zero_shot(row("swissbert_cosine_similarity"))


def test_scores_hold_what_is_printed_what_was_measured_and_the_baselines() -> None:
    against = Baselines({"sts_corr": 0.0}, Results({ZERO: result(ZERO, record(ZERO, 0, sts_corr=0.83))}))
    frame = long.scores({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8), record(PAIR, 1, sts_corr=None))}, against)
    lines = frame[frame["metric"] == "sts_corr"][["row", "source", "seed", "value"]].values.tolist()
    assert [line[:2] for line in lines] == [
        [PAIR, "reported"],
        [PAIR, "here"],
        [PAIR, "here"],
        ["constant", "constant"],
        [ZERO, "zero-shot"],
    ]
    assert [line[3] for line in lines] == pytest.approx([0.842, 0.8, math.nan, 0.0, 0.83], nan_ok=True)
    assert frame[(frame["source"] == "reported") & (frame["split"] == "train")].empty, "swissBERT prints no train score"


def test_a_score_of_another_split_is_what_any_table_of_the_report_prints() -> None:
    of = row("slapbert_setup1")
    assert long.printed_score(of, "sst_acc", "train") == 0.984 and long.printed_score(of, "sst_acc", "dev") == 0.511
    assert math.isnan(long.printed_score(of, "overall", "train")), "SlapBERT prints the other formula"
    assert math.isnan(long.printed_score(row(PAIR), "sst_acc", "train"))


def test_a_row_of_several_runs_is_scored_once_and_its_parts_are_no_runs_of_the_row() -> None:
    joined = record(PAIR, 0, sst_acc=0.5) | {"run_id": "a-s0+b-s0", "parts": ["a-s0", "b-s0"]}
    results = {PAIR: result(PAIR, joined)}
    frame = long.scores(results, metrics=("sst_acc",))
    assert frame.loc[frame["source"] == "here", ["run_id", "value"]].values.tolist() == [["a-s0+b-s0", 0.5]]
    assert long.history(results).empty and long.traces(SimpleNamespace(probes=None), results).empty


@pytest.mark.parametrize(
    ("row_id", "trained"),
    [
        ("siar_baseline_sst", ["sst_acc"]),
        (PAIR, ["sst_acc", "para_acc", "para_acc_best_threshold", "sts_corr", "overall", "overall_normalised"]),
        (ZERO, []),
        ("slapbert_randbert", []),
    ],
)
def test_a_metric_is_trained_where_its_task_is_and_an_overall_where_all_three_are(row_id: str, trained: list) -> None:
    metrics = ["sst_acc", "para_acc", "para_acc_best_threshold", "sts_corr", "overall", "overall_normalised"]
    assert [metric for metric in metrics if long.is_trained(row(row_id), metric)] == trained


def test_pairs_are_of_one_seed_and_lines_without_a_partner_are_left_out() -> None:
    base = result(APART, *(record(APART, seed, sts_corr=r) for seed, r in ((0, 0.1), (1, 0.2), (3, None))))
    other = result(PAIR, *(record(PAIR, seed, sts_corr=r) for seed, r in ((0, 0.4), (1, 0.7), (2, 0.9), (3, 0.9))))
    found = long.paired(long.scores({APART: base, PAIR: other}, metrics=("sts_corr",)), APART)
    ours = found[found["source"] == "here"]
    assert ours["seed"].tolist() == [0, 1] and ours["difference"].tolist() == pytest.approx([0.3, 0.5])
    assert found.loc[found["source"] == "reported", "difference"].tolist() == pytest.approx([0.842 - 0.492])


def test_pairs_are_of_one_metric_split_and_epoch() -> None:
    """The two rows differ by another amount in every line that the frame tells apart."""
    base = grown(APART, 0, ("sst", 0.1, 0.2), ("sst", 0.3, 0.4))
    other = grown(PAIR, 0, ("sst", 0.11, 0.22), ("sst", 0.33, 0.44))
    both = long.history({APART: result(APART, base), PAIR: result(PAIR, other)})
    found = long.paired(both[both["metric"] == "sst_acc"], APART).sort_values(["epoch", "split"])
    assert set(found["row"]) == {PAIR} and found["base_value"].tolist() == [0.2, 0.1, 0.4, 0.3]
    assert found[["epoch", "split"]].values.tolist() == [[1, "dev"], [1, "train"], [2, "dev"], [2, "train"]]
    assert found["difference"].tolist() == pytest.approx([0.02, 0.01, 0.04, 0.03])
    assert long.paired(both, COSINE).empty, "a base that is not there has no partners"


def test_every_score_names_its_row_its_split_and_its_run() -> None:
    of, made = row("slapbert_setup1"), record("slapbert_setup1", 4)
    made |= {"metrics": {"dev": {"sst_acc": 0.5, "overall": 0.4}, "train": {"sst_acc": 0.9}}}
    frame = long.scores({of.id: RowResult(of, (made,))}, metrics=("sst_acc", "overall"))
    known = [of.id, of.label, long.method(of), "slapbert"]
    assert frame.astype(object).where(frame.notna(), None).values.tolist() == [
        [*known, "dev", "sst_acc", "reported", None, None, 0.511],
        [*known, "dev", "sst_acc", "here", 4, made["run_id"], 0.5],
        [*known, "dev", "overall", "here", 4, made["run_id"], 0.4],
        [*known, "train", "sst_acc", "reported", None, None, 0.984],
        [*known, "train", "sst_acc", "here", 4, made["run_id"], 0.9],
    ]


def test_traces_name_every_update_task_and_pair_and_leave_out_what_was_not_measured() -> None:
    arrays = {"trace_loss": np.array([[1.0, np.nan], [2.0, 3.0]]), "trace_rate": np.array([1.0, 0.5])}
    arrays["trace_cosine"] = np.array([[0.1], [-0.2]])
    store = SimpleNamespace(probes=lambda run_id: arrays)
    made = record(PAIR, 0) | {"trace": {"tasks": ["sst", "sts"], "pairs": ["sst-sts"]}}
    frame = long.traces(store, {PAIR: result(PAIR, made)})
    assert frame[["quantity", "of", "update", "value"]].values.tolist() == [
        ["loss", "sst", 1, 1.0],
        ["loss", "sst", 2, 2.0],
        ["loss", "sts", 2, 3.0],
        ["cosine", "sst-sts", 1, 0.1],
        ["cosine", "sst-sts", 2, -0.2],
        ["rate", "all", 1, 1.0],
        ["rate", "all", 2, 0.5],
    ]
    assert set(frame["updates"]) == {2} and long.traces(store, {PAIR: result(PAIR, made)}, ("factor",)).empty
