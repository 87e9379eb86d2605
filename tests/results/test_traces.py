"""Traces become figures and tables without losing what they say; totals agree with the weighting itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.methods.losses import LossWeights
from common.runs.session import RowResult
from common.declare.spec import TaskSpec
from common.results import traces
from common.declare.rows import row

TASKS = ["sst", "para", "sts"]


def traced(kind: str, arrays: dict[str, np.ndarray], pairs: tuple[str, ...] = ()) -> tuple[SimpleNamespace, dict]:
    """A store with one run's traces, and the result it belongs to."""
    spec = {"seed": 0, "weighting": {"kind": kind}}
    record = {"run_id": "r-s0", "spec": spec, "trace": {"tasks": TASKS, "pairs": list(pairs)}}
    name = "swissbert_pair_homoscedastic"
    return SimpleNamespace(probes=lambda run_id: arrays), {name: RowResult(row(name), (record,))}


@pytest.mark.parametrize("kind", ["linear", "uncertainty", "automatic", "dynamic"])
@pytest.mark.parametrize("half", [False, True])
def test_lowest_total_is_what_the_weighting_itself_would_minimise(kind: str, half: bool) -> None:
    losses = np.random.default_rng(0).uniform(0.01, 2, (5, 3))
    tasks = [TaskSpec(name=name, loss="mse" if name == "sts" else "cross_entropy") for name in TASKS]
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
    table = traces.weight_table(*traced(kind, arrays))
    assert table["total loss", "lowest"].tolist() == [pytest.approx(min(totals), abs=1e-5)]
    assert table["start", "STS"].tolist() == [pytest.approx(factors[0][2])]
    assert table["end", "Quora"].tolist() == [pytest.approx(factors[-1][1])]


def test_uncertainty_that_goes_below_0_is_seen_and_absent_tasks_count_nothing() -> None:
    factors = np.array([[1, 1, 1], [20, 20, 20]], np.float32)
    losses = np.array([[1, 1, 1], [0.001, 0.001, np.nan]], np.float32)
    table = traces.weight_table(*traced("uncertainty", {"trace_factor": factors, "trace_loss": losses}))
    assert table["total loss", "lowest"].tolist() == [pytest.approx(2 * (0.02 - np.log(20) / 2), rel=1e-5)]


def test_long_traces_are_thinned_but_keep_their_ends() -> None:
    factors = np.linspace(1, 2, 3 * 1000, dtype=np.float32).reshape(1000, 3)
    frame = traces.weight_frame(*traced("linear", {"trace_factor": factors}))
    first = frame[frame["task"] == "SST"]
    assert len(first) == traces.TRACE_POINTS and first["update"].tolist()[:: len(first) - 1] == [1, 1000]
    for line in first.itertuples():
        assert line.factor == factors[line.update - 1, 0]


def test_conflicts_are_counted_by_pair_and_by_update() -> None:
    cosines = np.array([[0.5, -0.2], [-0.4, 0.1], [0.3, np.nan], [np.nan, np.nan]], np.float32)
    store, results = traced("fixed", {"trace_cosine": cosines}, ("sst-para", "sst-sts"))
    table = traces.conflict_table(store, results).set_index("pair")
    assert table["updates"].tolist() == [3, 3, 3], "an update without two tasks compares nothing"
    assert table.loc["SST and Quora", "share negative"] == pytest.approx(1 / 3)
    assert table.loc["SST and STS", "share negative"] == pytest.approx(1 / 2)
    assert table.loc["any pair", "share negative"] == pytest.approx(2 / 3)
    assert table.loc["SST and Quora", "mean removed"] == pytest.approx(0.4 / 3)
    assert table.loc["any pair", "mean cosine"] == pytest.approx((0.5 - 0.2 - 0.4 + 0.1 + 0.3) / 5)


def test_runs_without_a_trace_leave_empty_tables() -> None:
    store, results = traced("fixed", {})
    assert traces.weight_frame(store, results).empty and traces.weight_table(store, results).empty
    assert traces.conflict_table(store, results).empty
