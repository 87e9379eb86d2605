"""Traces become figures and tables without losing what they say; totals agree with the weighting itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from made_runs import PCGRAD, named_run, result

from common.declare.rows import row
from common.declare.spec import TaskSpec
from common.methods.losses import LossWeights
from common.results import updates
from common.runs.session import RowResult

TASKS = ["sst", "para", "sts"]


def traced(kind: str, arrays: dict[str, np.ndarray], pairs: tuple[str, ...] = ()) -> tuple[SimpleNamespace, dict]:
    """A store with one run's traces, and the result it belongs to."""
    spec = {"seed": 0, "weighting": {"kind": kind}}
    record = {"run_id": "r-s0", "spec": spec, "trace": {"tasks": TASKS, "pairs": list(pairs)}}
    last = {task: float(place) for place, task in enumerate(TASKS, 1)}
    record["history"] = [{"epoch": 1, "train_loss": last, "dev": {}, "train": {}}]
    spec |= {"tasks": [{"name": t, "trained": True} for t in TASKS], "encoder": {"frozen": False}}
    name = "swissbert_pair_homoscedastic"
    return SimpleNamespace(probes=lambda run_id: arrays), {name: RowResult(row(name), (record,))}


@pytest.mark.parametrize("kind", ["linear", "uncertainty", "automatic", "dynamic"])
@pytest.mark.parametrize("half", [False, True])
def test_lowest_total_is_what_the_weighting_itself_would_minimise(kind: str, half: bool) -> None:
    losses = np.random.default_rng(0).uniform(0.01, 2, (5, 3))
    tasks = [TaskSpec("sst"), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")]
    weights = LossWeights(kind, tasks, regression_half=half and kind == "uncertainty")
    factors, totals = [], []
    for update in losses:
        factors.append(list(weights.factors().values()))
        with torch.no_grad():
            terms = [weights(t, torch.tensor(loss)) for t, loss in zip(TASKS, update, strict=True)]
            totals.append(float(sum(terms)))
            for number, step in zip(weights.learned.values(), (-0.7, 0.3, 0.4), strict=True):
                number += step / 4
    arrays = {"trace_factor": np.array(factors, np.float32), "trace_loss": losses.astype(np.float32)}
    table = updates.loss_weight_table(*traced(kind, arrays))
    assert table["lowest total"].tolist() == [pytest.approx(min(totals), abs=1e-5)] * 3
    assert table["task"].tolist() == ["SST", "Quora", "STS"]
    assert table["factor at start"].tolist() == pytest.approx(factors[0])
    assert table["factor at end"].tolist() == pytest.approx(factors[-1])
    assert table["training loss"].tolist() == [1.0, 2.0, 3.0]
    assert table["factor x loss"].tolist() == pytest.approx(np.multiply(factors[-1], [1, 2, 3]).tolist())


def test_uncertainty_that_goes_below_0_is_seen_and_absent_tasks_count_nothing() -> None:
    factors = np.array([[1, 1, 1], [20, 20, 20]], np.float32)
    losses = np.array([[1, 1, 1], [0.001, 0.001, np.nan]], np.float32)
    table = updates.loss_weight_table(*traced("uncertainty", {"trace_factor": factors, "trace_loss": losses}))
    assert table["lowest total"].iloc[0] == pytest.approx(2 * (0.02 - np.log(20) / 2), rel=1e-5)


def test_long_traces_are_thinned_but_keep_their_ends() -> None:
    factors = np.linspace(1, 2, 3 * 1000, dtype=np.float32).reshape(1000, 3)
    frame = updates.loss_weights(*traced("linear", {"trace_factor": factors}))
    first = frame[frame["of"] == "sst"]
    assert len(first) == updates.TRACE_POINTS and first["update"].tolist()[:: len(first) - 1] == [1, 1000]
    for line in first.itertuples():
        assert line.value == factors[line.update - 1, 0]


def test_conflicts_are_counted_by_pair_and_by_update() -> None:
    cosines = np.array([[0.5, -0.2], [-0.4, 0.1], [0.3, np.nan], [np.nan, np.nan]], np.float32)
    store, results = traced("fixed", {"trace_cosine": cosines}, ("sst-para", "sst-sts"))
    table = updates.conflict_table(store, results).set_index("pair")
    assert table["updates"].tolist() == [3, 3, 3], "an update without two tasks compares nothing"
    assert table.loc["SST and Quora", "share negative"] == pytest.approx(1 / 3)
    assert table.loc["SST and STS", "share negative"] == pytest.approx(1 / 2)
    assert table.loc["any pair", "share negative"] == pytest.approx(2 / 3)
    assert table.loc["SST and Quora", "mean removed"] == pytest.approx(0.4 / 3)
    assert table.loc["any pair", "mean cosine"] == pytest.approx((0.5 - 0.2 - 0.4 + 0.1 + 0.3) / 5)


def test_runs_without_a_trace_leave_empty_tables() -> None:
    store, results = traced("fixed", {})
    assert updates.loss_weights(store, results).empty and updates.loss_weight_table(store, results).empty
    assert updates.conflict_table(store, results).empty


@pytest.fixture
def traces() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (40, 3)).astype(np.float32)
    cosines[3, 1] = np.nan  # a gradient of length zero
    return {"a-s0": cosines, "a-s1": rng.uniform(-1, 1, (40, 3)).astype(np.float32)}


def test_conflicts_keep_every_cosine_with_its_share_below_zero_and_a_running_mean(traces: dict) -> None:
    store = SimpleNamespace(probes=lambda run_id: {"trace_cosine": traces[run_id]})
    frame = updates.conflicts(store, {PCGRAD: result(PCGRAD, named_run("a-s0"), named_run("a-s1", 1))})
    part = frame[(frame["run_id"] == "a-s0") & (frame["of"] == "sst-para")]
    expected = np.delete(traces["a-s0"][:, 1], 3)
    assert part["value"].to_numpy() == pytest.approx(expected) and 4 not in part["update"].tolist()
    both = np.concatenate([expected, traces["a-s1"][:, 1]])
    assert part["negative"].iloc[0] == pytest.approx(np.mean(both < 0))
    assert part["mean"].iloc[0] == pytest.approx(both.mean(), abs=1e-6)
    # Four updates a window, centred: two before, the update itself, one after.
    assert part["running"].iloc[20] == pytest.approx(expected[18:22].mean(), abs=1e-6)


def test_runs_without_traces_give_an_empty_frame_with_its_columns() -> None:
    store = SimpleNamespace(probes=lambda run_id: {})
    frame = updates.conflicts(store, {PCGRAD: result(PCGRAD, named_run("a-s0"))})
    assert frame.empty and {"of", "value", "running", "negative", "mean"} <= set(frame.columns)


def test_gradients_of_one_task_are_told_from_those_of_two() -> None:
    cosines = np.array([[0.2, 0.5], [-0.2, -0.5], [-0.2, 0.5], [np.nan, 0.5]])
    store, results = traced("fixed", {"trace_cosine": cosines}, ("sst-sts", "sst-sst"))
    table = updates.conflict_table(store, results).set_index("pair")
    assert table.loc["SST and STS", ["mean cosine", "share negative"]].tolist() == pytest.approx([-0.2 / 3, 2 / 3])
    assert table.loc["SST and SST", ["mean cosine", "share negative"]].tolist() == pytest.approx([0.25, 0.25])


def test_a_table_of_conflicts_is_a_hand_calculation_for_each_seed_and_their_mean() -> None:
    traces = {
        # Updates 2 and 3 have one pair alone, update 4 has none and is not counted.
        "a-s0": np.array([[0.5, -0.2], [-0.4, np.nan], [np.nan, 0.3], [np.nan, np.nan]]),
        "a-s1": np.array([[0.1, -0.6], [0.2, 0.4], [0.0, 0.2], [0.1, -0.2], [-0.3, -0.1]]),
        "b-s0": np.array([[-1.0, 1.0]]),
    }
    store = SimpleNamespace(probes=lambda run_id: {"trace_cosine": traces[run_id]})
    pairs = {"trace": {"tasks": TASKS, "pairs": ["sst-para", "para-sts"]}}
    first, second, other = (named_run(name, int(name[-1])) | pairs for name in traces)
    joint = "siar_joint"
    table = updates.conflict_table(store, {PCGRAD: result(PCGRAD, first, second), joint: result(joint, other)})
    # Columns: updates, mean cosine, share negative, mean removed.
    sst_para = [4, np.mean([0.1 / 2, 0.1 / 5]), np.mean([1 / 2, 1 / 5]), np.mean([0.4 / 2, 0.3 / 5])]
    para_sts = [4, np.mean([0.1 / 2, -0.3 / 5]), np.mean([1 / 2, 3 / 5]), np.mean([0.2 / 2, 0.9 / 5])]
    any_pair = [4, np.mean([0.2 / 4, -0.2 / 10]), np.mean([2 / 3, 3 / 5]), np.mean([0.6 / 4, 1.2 / 10])]
    expected = [
        *([row(PCGRAD).label, "SST and Quora", *sst_para], [row(PCGRAD).label, "Quora and STS", *para_sts]),
        *([row(PCGRAD).label, "any pair", *any_pair], [row(joint).label, "SST and Quora", 1, -1.0, 1.0, 1.0]),
        *([row(joint).label, "Quora and STS", 1, 1.0, 0.0, 0.0], [row(joint).label, "any pair", 1, 0.0, 1.0, 0.5]),
    ]
    wanted = pd.DataFrame(expected, columns=table.columns).set_index(["model", "pair"])
    pd.testing.assert_frame_equal(table.set_index(["model", "pair"]).loc[wanted.index], wanted)
    assert len(table) == len(expected)


def test_rows_of_two_reports_with_one_label_stay_two_rows() -> None:
    traces = {"a-s0": np.array([[0.5], [-0.5]]), "b-s0": np.array([[0.4], [0.2]])}
    store = SimpleNamespace(probes=lambda run_id: {"trace_cosine": traces[run_id]})
    pairs = {"trace": {"tasks": TASKS, "pairs": ["sst-sts"]}}
    names = dict(zip(("gu_joint", "siar_joint"), traces, strict=True))
    assert len({row(name).label for name in names}) == 1
    table = updates.conflict_table(store, {of: result(of, named_run(run) | pairs) for of, run in names.items()})
    assert table.loc[table["pair"] == "SST and STS", "mean cosine"].tolist() == pytest.approx([0.0, 0.3])


def test_two_rows_that_are_one_run_show_the_same_numbers() -> None:
    """A profile may make two rows coincide; the running mean and the training loss are of the run, not of both."""
    arrays = {"trace_cosine": np.linspace(-1, 1, 60).reshape(20, 3), "trace_loss": np.ones((20, 3))}
    arrays["trace_factor"] = np.linspace(1, 2, 60).reshape(20, 3)
    store, found = traced("linear", arrays, ("sst-para", "sst-sts", "para-sts"))
    (one,) = found.values()
    both = found | {"swissbert_pair_awl_lr1e5": RowResult(row("swissbert_pair_awl_lr1e5"), one.records)}
    frame = updates.conflicts(store, both)
    first, second = (part.drop(columns=["row", "label"]).reset_index(drop=True) for _, part in frame.groupby("row"))
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, updates.conflicts(store, found).drop(columns=["row", "label"]))
    table = updates.loss_weight_table(store, both)
    assert table["model"].tolist() == [of.row.label for of in both.values() for _ in TASKS]
    assert table["task"].tolist() == ["SST", "Quora", "STS"] * 2 and table["training loss"].tolist() == [1, 2, 3] * 2
