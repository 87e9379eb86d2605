"""Frames of the SMART notebook hold the numbers they were made from: costs, conflicts, changes, the sweep."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.runs.session import Results, RowResult
from common.results import smart
from common.declare.rows import row
from common.results.untrained import Baselines

AGAINST = Baselines({"sst_acc": 0.28, "para_acc": 0.63, "sts_corr": 0.0}, Results())
BASELINE, SMART, PCGRAD = "siar_baseline_sst", "siar_smart_sst_lam10", "siar_mtl_pcgrad"


def record(run_id: str, seed: int = 0, **fields: object) -> dict:
    values = {"sst_acc": 0.5, "para_acc": 0.6, "sts_corr": 0.3, "overall": 0.4}
    return {
        "run_id": run_id,
        "spec": {"seed": seed, "tasks": [{"name": name} for name in ("sst", "para", "sts")]},
        "metrics": {"dev": values, "train": {name: number + 0.1 for name, number in values.items()}},
        "history": [{"epoch": 1, "wall_s": 2.0, "dev": values}, {"epoch": 2, "wall_s": 4.0, "dev": values}],
        "counts": {"updates": 12, "examples": {"sst": 100, "para": 20}},
        "untrained_heads": {},
        "trace": {"tasks": ["sst", "para", "sts"], "pairs": ["para-sts", "sst-para", "sst-sts"]},
    } | fields


def result(row_id: str, *records: dict) -> RowResult:
    return RowResult(row(row_id), records)


def test_costs_are_epoch_seconds_over_updates_and_examples_and_a_failed_row_stays_as_a_hole() -> None:
    slow = record("b-s0", history=[{"epoch": 1, "wall_s": 24.0}])
    results = {
        BASELINE: result(BASELINE, record("a-s0")),
        SMART: result(SMART, slow, record("b-s1", 1)),
        PCGRAD: result(PCGRAD),
    }
    costs = smart.costs_frame(results)
    assert costs.loc[BASELINE, ["minutes quoted", "updates", "examples", "seconds"]].tolist() == [15, 12, 120, 6.0]
    assert costs.loc[BASELINE, "ms per update"] == 500.0 and costs.loc[BASELINE, "ms per example"] == 50.0
    assert costs.loc[SMART, "ms per update"] == (2000 + 500) / 2, "the mean over seeds"
    assert costs.loc[PCGRAD, "minutes quoted"] == 60 and costs.loc[PCGRAD].isna().sum() == 5
    ratios = smart.cost_ratios(costs, [(SMART, BASELINE), (PCGRAD, BASELINE)])
    assert ratios.iloc[0, 2:].tolist() == [2.0, 2.5, 2.5, 2.5]
    assert ratios.iloc[1]["as quoted"] == 4.0 and np.isnan(ratios.iloc[1]["per update"])
    assert ratios["over"].tolist() == [row(BASELINE).label] * 2


def test_sweep_puts_every_run_at_its_lambda_and_redraws_beside_it() -> None:
    drawn = record("b-s0", untrained_heads={"para_acc": [0.4, None, 0.5]})
    frame = smart.sweep_frame({BASELINE: result(BASELINE, record("a-s0")), SMART: result(SMART, drawn)}, AGAINST)
    assert frame.groupby("metric", sort=False)["constant"].first().tolist() == [0.28, 0.63, 0.0]
    ours = frame[frame["source"] == "here"].set_index(["lambda", "metric"])["value"]
    assert ours[0.0, "Quora accuracy"] == 0.6 and ours[10.0, "SST accuracy"] == 0.5
    others = frame[frame["source"] == "other heads"]
    assert others[["lambda", "metric", "head", "value", "run_id"]].values.tolist() == [
        [10.0, "Quora accuracy", 1, 0.4, "b-s0"],
        [10.0, "Quora accuracy", 3, 0.5, "b-s0"],
    ]
    table = smart.sweep_table(frame).set_index(("", "lambda"))
    assert table.loc["10", ("Quora accuracy", "other heads")] == pytest.approx(0.45)
    assert table.loc["10", ("Quora accuracy", "report")] == 0.617 and table.index.tolist() == ["0", "10"]


@pytest.fixture
def traces() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (40, 3)).astype(np.float32)
    cosines[3, 1] = np.nan  # a gradient of length zero
    return {"a-s0": cosines, "a-s1": rng.uniform(-1, 1, (40, 3)).astype(np.float32)}


def test_conflicts_keep_every_cosine_with_its_share_below_zero_and_a_running_mean(traces: dict) -> None:
    store = SimpleNamespace(probes=lambda run_id: {"trace_cosine": traces[run_id]})
    frame = smart.conflict_frame(store, {PCGRAD: result(PCGRAD, record("a-s0"), record("a-s1", 1))})
    part = frame[(frame["run_id"] == "a-s0") & (frame["pair"] == "sst-para")]
    expected = np.delete(traces["a-s0"][:, 1], 3)
    assert part["cosine"].to_numpy() == pytest.approx(expected) and 4 not in part["update"].tolist()
    both = np.concatenate([expected, traces["a-s1"][:, 1]])
    assert part["negative"].iloc[0] == pytest.approx(np.mean(both < 0))
    assert part["mean"].iloc[0] == pytest.approx(both.mean(), abs=1e-6)
    # Four updates a window, centred: two before, the update itself, one after.
    assert part["running"].iloc[20] == pytest.approx(expected[18:22].mean(), abs=1e-6)
    table = smart.conflict_table(frame).set_index("task")
    quora = [array[:, column] for array in traces.values() for column in (0, 1)]
    quora = np.concatenate(quora)
    quora = quora[np.isfinite(quora)]
    assert table.loc["Quora", "compared"] == len(quora) == 159
    assert table.loc["Quora", "share negative"] == pytest.approx(np.mean(quora < 0))
    assert table.loc["Quora", "mean cosine"] == pytest.approx(quora.mean(), abs=1e-6)


def test_runs_without_traces_give_an_empty_frame_with_its_columns() -> None:
    store = SimpleNamespace(probes=lambda run_id: {})
    frame = smart.conflict_frame(store, {PCGRAD: result(PCGRAD, record("a-s0"))})
    assert frame.empty and {"pair", "cosine", "running", "negative", "mean"} <= set(frame.columns)
    assert smart.conflict_table(frame).empty


def logits(classes: list[int], width: int) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[classes]


def test_changed_predictions_are_counted_by_which_way_they_went() -> None:
    labels = {
        "sst": np.array([0, 1, 2, 3]),
        "para": np.array([1, 1, 0, 0]),
        "sts": np.array([4.0, 1.0, 3.0]),
        "cfimdb": np.array([1]),
    }
    before = {"sst": logits([0, 2, 2, 0], 5), "para": np.array([-1.0, 1, 1, -1]), "sts": np.array([3.0, 2.0, 3.0])}
    # SST: became wrong, became right, as before, wrong both times. Quora: became right; became right. STS: nearer by 1,
    # further by 1, moved too little.
    after = {"sst": logits([1, 1, 2, 4], 5), "para": np.array([1.0, 1, -1, -1]), "sts": np.array([4.0, 3.0, 3.2])}
    stored = {"a-s0": before, "b-s0": after}
    store = SimpleNamespace(predictions=lambda run_id: stored[run_id])
    plain = result("siar_mtl_nocap", record("a-s0"), record("a-s7", 7))
    smooth = result("siar_mtl_smart", record("b-s0"), record("b-s8", 8))
    frame = smart.changed_frame(store, plain, smooth, labels).set_index("dev examples")
    assert frame["seed"].tolist() == [0] * 4, "only seeds that both rows have"
    columns = ["n", "changed", "better", "worse", "neither"]
    assert frame.loc["SST", columns].tolist() == [4, 3, 1, 1, 1] and frame.loc["SST", "share"] == 0.75
    assert frame.loc["Quora, paraphrases", columns].tolist() == [2, 1, 1, 0, 0]
    assert frame.loc["Quora, no paraphrases", columns].tolist() == [2, 1, 1, 0, 0]
    assert frame.loc["STS", columns].tolist() == [3, 2, 1, 1, 0]


def test_no_record_at_all_breaks_no_frame() -> None:
    results = {name: replace(result(name), records=()) for name in (BASELINE, SMART, PCGRAD)}
    store = SimpleNamespace(probes=None, predictions=None)
    assert set(smart.sweep_table(smart.sweep_frame(results, AGAINST)).columns.get_level_values(1)) == {
        "lambda",
        "report",
    }
    assert smart.conflict_frame(store, results).empty
    assert smart.changed_frame(store, results[BASELINE], results[SMART], {}).empty
    assert len(smart.costs_frame(results)) == 3
