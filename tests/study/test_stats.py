"""Tables about runs: means and differences against hand calculation, and holes that say what they are."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.spec import to_dict
from common.study import reported, stats
from common.study.baselines import Baselines
from common.study.reported import claims as ledger
from common.study.rows import reports, row, rows
from common.study.session import Results, RowResult

NOTHING = Baselines({}, Results())
PAIR, APART, COSINE = "swissbert_pair", "swissbert_no_extension", "swissbert_cosine_similarity"


def record(row_id: str, seed: int, undefined: dict | None = None, **metrics: float | None) -> dict:
    spec = replace(row(row_id).specs[0], seed=seed)
    return {
        "run_id": f"{spec.run_id}",
        "spec": to_dict(spec),
        "share": 0.05,
        "under_trained": True,
        "metrics": {"dev": metrics},
        "undefined": {"dev": undefined or {}},
        "history": [{"epoch": 1, "train_loss": {"sst": 1.5}, "dev": metrics, "train": metrics}],
        "probes": {"examples": []},
    }


def predicting(row_id: str, seed: int, *examples: dict) -> dict:
    return {**record(row_id, seed), "probes": {"examples": list(examples)}}


def result(row_id: str, *records: dict, failures: tuple = (), coincides_with: str | None = None) -> RowResult:
    return RowResult(row(row_id), records, failures, coincides_with)


def failure(seed: int) -> SimpleNamespace:
    return SimpleNamespace(seed=seed, run_id=f"abc-s{seed}", message="E-NONFINITE: the loss is nan", log=None)


def test_comparison_is_mean_deviation_and_difference_over_seeds() -> None:
    records = [record(PAIR, seed, sts_corr=r) for seed, r in enumerate((0.80, 0.82, 0.87))]
    line = stats.comparison({PAIR: result(PAIR, *records)}, NOTHING, ("sts_corr",)).loc[PAIR, "STS Pearson r"]
    assert line["reported"] == 0.842
    assert line["here"] == pytest.approx(0.83)
    assert line["sd"] == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert line["difference"] == pytest.approx(0.83 - 0.842)


def test_numbers_stay_unrounded() -> None:
    frame = stats.comparison({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8123456789))}, NOTHING, ("sts_corr",))
    assert frame.loc[PAIR, ("STS Pearson r", "here")] == 0.8123456789


def test_one_seed_is_said_and_has_no_deviation() -> None:
    frame = stats.comparison({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8))}, NOTHING, ("sts_corr",))
    assert frame.loc[PAIR, ("runs", "seeds")] == "one seed"
    assert math.isnan(frame.loc[PAIR, ("STS Pearson r", "sd")])
    assert frame.loc[PAIR, ("runs", "notes")] == "under-trained"


def test_failed_seeds_are_counted_and_the_others_still_averaged() -> None:
    records = (record(PAIR, 0, sts_corr=0.8), record(PAIR, 2, sts_corr=0.9))
    frame = stats.comparison({PAIR: result(PAIR, *records, failures=(failure(1),))}, NOTHING, ("sts_corr",))
    assert frame.loc[PAIR, ("runs", "seeds")] == "failed, 1 of 3 seeds"
    assert frame.loc[PAIR, ("STS Pearson r", "here")] == pytest.approx(0.85)
    assert "seed 1 failed, see the log of run abc-s1" in frame.loc[PAIR, ("runs", "notes")]


def test_row_without_any_run_is_a_marked_hole() -> None:
    frame = stats.comparison({PAIR: result(PAIR, failures=(failure(0),))}, NOTHING)
    assert frame.loc[PAIR, ("STS Pearson r", "here")] == "failed"
    assert math.isnan(frame.loc[PAIR, ("STS Pearson r", "difference")])
    assert stats.mean({PAIR: result(PAIR, failures=(failure(0),))}, PAIR, "sts_corr") == "failed"


def test_undefined_metric_is_named_with_its_reason() -> None:
    bad = record(PAIR, 0, undefined={"sts_corr": "the model predicts a constant"}, sts_corr=None)
    frame = stats.comparison({PAIR: result(PAIR, bad, record(PAIR, 1, sts_corr=0.4))}, NOTHING, ("sts_corr",))
    assert frame.loc[PAIR, ("STS Pearson r", "here")] == 0.4
    assert "STS Pearson r undefined in 1 of 2 runs: the model predicts a constant" in frame.loc[PAIR, ("runs", "notes")]
    alone = stats.comparison({PAIR: result(PAIR, bad)}, NOTHING, ("sts_corr",))
    assert alone.loc[PAIR, ("STS Pearson r", "here")] == "undefined"


def test_overall_of_a_run_without_all_tasks_is_absent_and_not_undefined() -> None:
    name = "swissbert_zero_shot_cosine"
    partial = record(name, 0, undefined={"overall": "no value for sst"}, overall=None, sts_corr=0.8)
    frame = stats.comparison({name: result(name, partial)}, NOTHING, ("overall",))
    assert math.isnan(frame.loc[name, ("Overall, raw", "here")])
    assert "undefined" not in frame.loc[name, ("runs", "notes")]


def test_coinciding_row_is_marked() -> None:
    frame = stats.comparison(
        {PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8), coincides_with=APART)}, NOTHING, ("sts_corr",)
    )
    assert f"coincides with {APART}" in frame.loc[PAIR, ("runs", "notes")]


def test_both_overall_formulas_stand_side_by_side() -> None:
    values = {"overall": 0.7, "overall_normalised": 0.75}
    frame = stats.comparison(
        {PAIR: result(PAIR, record(PAIR, 0, **values))}, NOTHING, ("overall", "overall_normalised")
    )
    assert frame.loc[PAIR, ("Overall, raw", "here")] == 0.7
    assert frame.loc[PAIR, ("Overall, normalised", "here")] == 0.75


@pytest.mark.parametrize("table", ["table1", "table3", "table4"])
def test_an_overall_is_compared_in_the_formula_that_its_report_prints(table: str) -> None:
    """SlapBERT maps r to [0, 1] first: its printed overall is that mean of the three numbers beside it."""
    found = rows("slapbert", table)
    frame = stats.comparison({of.id: RowResult(of, ()) for of in found}, NOTHING)
    for of in found:
        sst, para, r = (of.reported[name] for name in ("sst_acc", "para_acc", "sts_corr"))
        normalised = frame.loc[of.id, ("Overall, normalised", "reported")]
        assert normalised == pytest.approx((sst + para + (r + 1) / 2) / 3, abs=0.002)
        assert np.isnan(frame.loc[of.id, ("Overall, raw", "reported")])
    assert "Overall, normalised" not in stats.comparison({PAIR: result(PAIR)}, NOTHING).columns.get_level_values(0)


def test_a_normalised_overall_differs_from_the_printed_one_and_not_from_the_raw_one() -> None:
    (of,) = rows("slapbert", "table2")
    here = record(of.id, 0, overall=0.45, overall_normalised=0.56)
    line = stats.comparison({of.id: RowResult(of, (here,))}, NOTHING).loc[of.id]
    assert line["Overall, normalised", "difference"] == pytest.approx(0.56 - 0.568)
    assert line["Overall, raw", "here"] == 0.45 and np.isnan(line["Overall, raw", "difference"])


def test_claims_show_the_printed_and_the_paired_difference_and_stay_undecided() -> None:
    results = {
        PAIR: result(PAIR, record(PAIR, 0, sst_acc=0.4, para_acc=0.8, sts_corr=0.8, overall=0.60)),
        # Seed 1 has no partner, so it must not move the difference.
        APART: result(
            APART,
            record(APART, 0, sst_acc=0.45, para_acc=0.7, sts_corr=0.3, overall=0.45),
            record(APART, 1, sst_acc=0.9, para_acc=0.9, sts_corr=0.9, overall=0.9),
        ),
    }
    claims = [claim for claim in ledger.load("swissbert") if claim.id == "swissbert_c08"]
    frame = stats.claims_frame(claims, results)
    assert set(frame["verdict"]) == {"undecided"}
    first = frame[frame["claim"] == "swissbert_c08"].iloc[0]
    assert first["printed difference"] == pytest.approx(0.506 - 0.508)
    assert first["our difference"] == pytest.approx(0.40 - 0.45)
    assert first["seeds"] == "one seed"


def test_changes_name_every_field_of_a_row_and_nothing_for_the_base() -> None:
    frame = stats.changes_frame([row(APART), row(PAIR)])
    assert frame[frame["model"] == row(PAIR).label][["field", "before", "after"]].values.tolist() == [
        ["tasks.para.pair_method", "separate", "pair"],
        ["tasks.sts.pair_method", "separate", "pair"],
    ]
    assert frame.iloc[0]["field"] == "the base of this table"


def test_examples_have_one_column_a_seed_and_classes_stay_whole() -> None:
    # As records of earlier runs have them: with a label and a prediction of the report, which are not read.
    text = "if steven soderbergh's 'solaris' is a failure it is a glorious failure."
    example = {"id": "swissbert_ex_sst_2", "task": "sst", "texts": [text], "label": 9.0, "reported": 9.0}
    texts = ["you should do it.", "you should prime it first."]
    score = {"id": "swissbert_ex_sts_2", "task": "sts", "texts": texts}
    records = [predicting(PAIR, seed, example | {"predicted": 3.0}, score | {"predicted": 1.5}) for seed in (0, 1)]
    frame = stats.examples_frame(result(PAIR, *records))
    pd.testing.assert_frame_equal(frame, stats.examples_frame({"": result(PAIR, *records)}, "swissbert"))
    assert list(frame.columns) == ["task", "text", "label", "reported", "here, seed 0", "here, seed 1"]
    assert len(frame) == 8
    assert frame.iloc[1].tolist() == ["SST", text, 4, 2, 3, 3] and type(frame.iloc[1]["label"]) is int
    assert frame.iloc[7].tolist() == ["STS", " / ".join(texts), 0.0, 2.3796, 1.5, 1.5]


def test_examples_of_two_models_stand_side_by_side_and_holes_say_why() -> None:
    waste = {"id": "siar_sst_example_3", "task": "sst", "texts": ["Don't waste your money."]}
    without, smart = "siar_mtl_nocap", "siar_mtl_smart"
    named = {
        "without SMART": result(without, predicting(without, 0, waste | {"predicted": 0.0})),
        "with SMART": result(smart, predicting(smart, 0, waste | {"predicted": 2.0, "texts": ["Another text."]})),
    }
    frame = stats.examples_frame(named, "siar").set_index("text")
    assert list(frame.columns) == [
        *("task", "label", "reported without SMART", "reported with SMART"),
        *("here without SMART, seed 0", "here with SMART, seed 0"),
    ]
    assert frame.loc["Don't waste your money."].tolist() == ["SST", "not printed", 1, 3, 0, "not predicted"]
    yuan = frame.loc["China yuan strengthens to 6.2689 against USD / Chinese yuan weakens to 6.2816 against USD"]
    assert yuan.tolist() == ["STS", "not printed", *["illegible"] * 2, *["not predicted"] * 2]


def test_a_sentence_that_a_report_shows_with_its_label_alone_has_no_prediction_of_it() -> None:
    """SlapBERT's Table 5 has samples of the data; its section 6 has predictions."""
    frame = stats.examples_frame({"": result("slapbert_setup2")}, "slapbert")
    assert frame["label"].tolist() == [2, 0, 0.6, 1, 1, 5]
    assert frame["reported"].tolist() == [4, 1, 3.5, *["not printed"] * 3]


def test_history_has_every_metric_and_loss_once_a_seed() -> None:
    frame = stats.history_frame({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8), record(PAIR, 1, sts_corr=None))})
    assert len(frame) == 6 and set(frame["trained"]) == {"SST"}
    assert set(frame["metric"]) == {"sts_corr", "sst_loss"}
    assert frame["value"].isna().sum() == 2
    assert stats.history_frame({PAIR: result(PAIR)}).empty


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
    assert stats.method(row(row_id)) == family


def test_every_row_of_the_study_has_a_family_with_a_colour() -> None:
    from common.report.plots import METHOD_COLOURS

    assert {stats.method(of) for report in reports() for of in rows(report)} <= set(METHOD_COLOURS)
    assert isinstance(stats.comparison({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.1))}, NOTHING), pd.DataFrame)


def test_a_table_printed_on_test_is_not_set_beside_dev_scores() -> None:
    of = rows("bertpp", "table3")[0]
    frame = stats.comparison({of.id: RowResult(of, (record(of.id, 0, sst_acc=0.4),))}, NOTHING)
    assert of.split == "test" and np.isnan(frame.loc[of.id, ("SST accuracy", "here")])
    assert frame.loc[of.id, ("SST accuracy", "reported")] == of.reported["sst_acc"]
    assert "printed on test" in frame.loc[of.id, ("runs", "notes")]


def test_spread_over_epochs_leaves_out_the_first_fifth_and_the_first() -> None:
    values = {0: [9.0, 9.0, *[0.1, 0.3] * 4], 1: [9.0, 9.0, *[0.2, 0.6] * 4]}
    lines = [
        {"label": "m", "seed": seed, "epoch": epoch, "split": split, "metric": metric, "value": number * scale * times}
        for metric, scale in (("sst_acc", 1.0), ("para_acc", 2.0), ("para_loss", 5.0))
        for seed, numbers in values.items()
        for epoch, number in enumerate(numbers, 1)
        for split, times in (("dev", 1), ("train", 7))
    ]
    frame = pd.DataFrame(lines)
    before = frame.copy(deep=True)
    table = stats.epoch_spread(frame, ("para_acc", "sst_acc"))
    assert table.columns.tolist()[:2] == [("", "model"), ("Quora accuracy", "sd over epochs")] and len(table) == 1
    line = table.iloc[0]
    expected = np.mean([np.std(numbers[2:], ddof=1) for numbers in values.values()])
    assert line["SST accuracy", "sd over epochs"] == pytest.approx(expected)
    assert line["Quora accuracy", "sd over epochs"] == pytest.approx(2 * expected)
    assert line["SST accuracy", "sd over seeds"] == pytest.approx(np.std([0.3, 0.6], ddof=1))
    assert (line["", "model"], line["", "epochs"], line["", "seeds"]) == ("m", 8, 2)
    pd.testing.assert_frame_equal(frame, before)
    short = stats.epoch_spread(frame[frame["epoch"] <= 4], ("sst_acc",)).iloc[0]  # a fifth of 4 is no whole epoch
    assert short["", "epochs"] == 3
    one = stats.epoch_spread(frame[(frame["epoch"] == 1) & (frame["seed"] == 0)], ("sst_acc",)).iloc[0]
    assert one["", "model"] == "m" and np.isnan(one["SST accuracy", "sd over epochs"])
    assert np.isnan(one["SST accuracy", "sd over seeds"])


CONSTANTS = {"sst_acc": 0.29, "para_acc": 0.63, "sts_corr": 0.0, "overall": 0.307}
ZERO = "swissbert_zero_shot_cosine"


def against() -> Baselines:
    partial = {"overall": "no value for sst"}
    zero = record(ZERO, 0, undefined=partial, overall=None, para_acc=0.37, sts_corr=0.838)
    return Baselines(CONSTANTS, Results({ZERO: result(ZERO, zero)}))


def test_every_comparison_shows_the_constant_and_the_zero_shot_line_below_its_rows() -> None:
    frame = stats.comparison({PAIR: result(PAIR, record(PAIR, 0, sts_corr=0.8))}, against(), ("sst_acc", "sts_corr"))
    assert frame.index.tolist() == [PAIR, "constant", ZERO]
    assert frame.loc["constant", ("SST accuracy", "here")] == 0.29
    assert frame.loc["constant", ("STS Pearson r", "here")] == 0.0
    assert "0 stands for it" in frame.loc["constant", ("runs", "notes")]
    assert frame.loc[ZERO, ("STS Pearson r", "here")] == 0.838
    own = stats.comparison({ZERO: against().zero_shot[ZERO]}, against(), ("sts_corr",))
    assert own.index.tolist() == [ZERO, "constant"], "a row that is there already is not repeated"


def test_a_score_no_better_than_the_constant_is_marked_and_one_above_it_is_not() -> None:
    records = [record(PAIR, seed, sst_acc=s, para_acc=p) for seed, (s, p) in enumerate([(0.20, 0.7), (0.38, 0.7)])]
    bad = record(COSINE, 0, undefined={"sts_corr": "constant"}, sst_acc=0.3, para_acc=0.63, sts_corr=None)
    results = {PAIR: result(PAIR, *records), COSINE: result(COSINE, bad), APART: result(APART, failures=(failure(0),))}
    frame = stats.comparison(results, against(), ("sst_acc", "para_acc", "sts_corr"))
    marks = frame.xs("at constant", axis=1, level=1)
    assert marks.loc[PAIR].tolist() == [True, False, False], "the mean over seeds 0.29 is the constant's"
    assert marks.loc[COSINE].tolist() == [False, True, True], "an undefined correlation is a constant's"
    assert not marks.loc[[APART, "constant"]].any(axis=None)
    assert marks.loc[ZERO].tolist() == [False, True, False]


def test_scores_on_train_and_on_test_are_not_set_against_devs_constant() -> None:
    of = record(PAIR, 0, sst_acc=0.1) | {"metrics": {"train": {"sst_acc": 0.1}, "dev": {}}}
    frame = stats.comparison({PAIR: result(PAIR, of)}, against(), ("sst_acc",), "train")
    assert frame.index.tolist() == [PAIR] and not frame["SST accuracy", "at constant"].any()


def grown(row_id: str, seed: int, *epochs: tuple[str, float, float]) -> dict:
    """A record whose epochs are (task trained, train accuracy, dev accuracy) of SST."""
    history = [
        {"epoch": i, "train_loss": {task: 1.0}, "train": {"sst_acc": train}, "dev": {"sst_acc": dev}}
        for i, (task, train, dev) in enumerate(epochs, start=1)
    ]
    return record(row_id, seed) | {"history": history}


def test_gap_is_train_minus_dev_of_every_epoch_and_the_table_takes_the_last() -> None:
    first = grown(PAIR, 0, ("sst", 0.5, 0.4), ("sst", 0.9, 0.3))
    second = grown(PAIR, 1, ("sst", 0.5, 0.5), ("sst", 0.7, 0.5))
    results = {PAIR: result(PAIR, first, second), APART: result(APART)}
    frame = stats.gap_frame(stats.history_frame(results))
    assert frame.sort_values(["seed", "epoch"])["gap"].tolist() == pytest.approx([0.1, 0.6, 0.0, 0.2])
    table = stats.gap_table(results, ("sst_acc",))
    line = table.loc[PAIR, "SST accuracy"]
    assert line["train"] == pytest.approx(0.8) and line["dev"] == pytest.approx(0.4)
    assert line["gap"] == pytest.approx(0.4) and line["sd"] == pytest.approx(np.std([0.6, 0.2], ddof=1))
    assert table.loc[APART, "SST accuracy"].isna().all() and "reported gap" not in table["SST accuracy"].columns


def test_a_printed_gap_is_the_difference_of_both_printed_scores_in_the_reports_formula() -> None:
    values, setup1 = reported.printed_values(), {"slapbert_setup1": result("slapbert_setup1"), PAIR: result(PAIR)}
    frame = stats.gap_frame(stats.history_frame(setup1), setup1)
    assert set(frame["row"]) == {"slapbert_setup1"} and set(frame["source"]) == {"report"}, "swissBERT prints no train"
    found = frame.set_index("metric")
    for metric, name in (("sst_acc", "sst_acc"), ("overall_normalised", "overall")):
        expected = values["slapbert_setup1", "train", name] - values["slapbert_setup1", "dev", name]
        assert found.loc[metric, "gap"] == pytest.approx(expected) and expected > 0
    assert "overall" not in found.index, "its raw overall is not printed"
    line = stats.gap_table(setup1).loc["slapbert_setup1"]
    assert line["SST accuracy", "reported gap"] == pytest.approx(0.984 - 0.511)


def test_phases_of_a_sequential_run_stand_in_its_history() -> None:
    of = grown("slapbert_individual_pretrain", 0, ("para", 0.2, 0.2), ("sst", 0.9, 0.5), ("sts", 0.2, 0.2))
    frame = stats.history_frame({of["run_id"]: RowResult(row("slapbert_individual_pretrain"), (of,))})
    scores = frame[(frame["metric"] == "sst_acc") & (frame["split"] == "dev")]
    assert scores[["epoch", "trained", "value"]].values.tolist() == [
        [1, "Quora", 0.2],
        [2, "SST", 0.5],
        [3, "STS", 0.2],
    ]
    assert set(frame["last"]) == {3}
