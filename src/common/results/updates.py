"""What the updates of a run saw: conflicts between the tasks' gradients, and learned weights of their losses.

Both are pivots of the traces, for every report alike.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from common.declare.tasks import TASK_NAMES
from common.results.long import history, runs_of, traces
from common.runs.record import Record
from common.runs.session import Results
from common.runs.store import RunStore

# The running mean of a trace covers this share of the updates; more points than these cannot be told apart in a figure.
WINDOW, TRACE_POINTS = 0.1, 100
ANY_PAIR = "any pair"
# What a learned weighting adds to factor x loss, from its factor relative to the start (methods/losses.py).
UNWEIGHTED_PARTS = {
    "linear": np.zeros_like,
    "uncertainty": lambda relative: -np.log(relative) / 2,
    "automatic": lambda relative: np.log1p(1 / relative),
    "dynamic": lambda relative: -np.log(relative),
}


def named(of: str) -> str:
    """A task, or a pair of tasks, as tables name it."""
    return " and ".join(TASK_NAMES.get(task, task) for task in of.split("-"))


def conflicts(store: RunStore, results: Results) -> pd.DataFrame:
    """The cosine of two tasks' gradients on the shared parameters at every update that compared them, with its running
    mean, and over all updates and seeds of the row its mean and the share below 0."""
    frame = traces(store, results, ("cosine",)).astype({"value": float})
    runs, whole = (frame.groupby(keys, sort=False)["value"] for keys in (["row", "run_id", "of"], ["row", "of"]))
    running = runs.transform(lambda c: c.rolling(max(1, round(WINDOW * len(c))), center=True, min_periods=1).mean())
    return frame.assign(
        running=running, mean=whole.transform("mean"), negative=whole.transform(lambda c: (c < 0).mean())
    )


def conflict_table(store: RunStore, results: Results) -> pd.DataFrame:
    """How often the gradients of two tasks point apart, per row and pair of tasks; means over seeds.

    share negative: of the updates with a cosine below 0; the line `any pair` counts updates with at least one. mean
    removed: of the length of a task's gradient, what its projection against the other task's takes away (-cosine
    where that is above 0).
    """
    frame, lines = traces(store, results, ("cosine",)), []
    for (of, label, _), part in frame.groupby(["row", "label", "run_id"], sort=False):
        wide = part.pivot(index="update", columns="of", values="value").astype(float)
        for pair, lowest in ({pair: wide[pair] for pair in wide} | {ANY_PAIR: wide.min(axis=1)}).items():
            every = wide.to_numpy().ravel() if pair == ANY_PAIR else lowest.to_numpy()
            known = {"row": of, "model": label, "pair": named(pair), "updates": float(len(wide))}
            found = {"mean cosine": np.nanmean(every), "share negative": (lowest.dropna() < 0).mean()}
            lines.append(known | found | {"mean removed": np.nanmean(np.maximum(-every, 0))})
    columns = ["row", "model", "pair", "updates", "mean cosine", "share negative", "mean removed"]
    means = pd.DataFrame(lines, columns=columns).groupby(columns[:3], sort=False, as_index=False).mean()
    return means.drop(columns="row").assign(updates=means["updates"].round().astype(int))


def loss_weights(store: RunStore, results: Results) -> pd.DataFrame:
    """What multiplied each task's loss in the course of training, for rows that learn it; at most 100 points a run.

    Raw values: a factor that stays at its start was not learned, whatever its method is called.
    """
    frame = traces(store, results, ("factor",))
    kept = [set(np.linspace(1, n, TRACE_POINTS).round().astype(int)) for n in frame["updates"]]
    return frame[[update in points for update, points in zip(frame["update"], kept, strict=True)]]


def loss_weight_table(store: RunStore, results: Results) -> pd.DataFrame:
    """Learned factors at the first and the last update beside the last epoch's mean loss, one line a row and task;
    means over seeds.

    A squared error on 0 to 5 is the largest loss, so its factor falls for its scale alone: what a task really gets is
    factor x loss. lowest total is the lowest value, over the updates and seeds, of what was minimised: the weighted
    losses of an update's tasks, with the parts of the weighting that have no loss in them.
    """
    factors, curves = traces(store, results, ("factor",)), history(results)
    lowest = {r.run_id: lowest_total(store, r) for _, r, _ in runs_of(results) if r.run_id in set(factors["run_id"])}
    if factors.empty:
        return pd.DataFrame(columns=["model", "task"])
    ends = factors.groupby(["row", "label", "run_id", "of"], sort=False)["value"].agg(["first", "last"])
    last = curves[curves["epoch"] == curves["last"]].groupby(["run_id", "metric"])["value"].first()
    table = ends.reset_index().assign(task=lambda f: f["of"].map(TASK_NAMES))
    table["training loss"] = [
        last.get((run, f"{task}_loss"), np.nan) for run, task in zip(table["run_id"], table["of"], strict=True)
    ]
    table["factor x loss"] = table["last"] * table["training loss"]
    table["lowest total"] = table["run_id"].map(lowest)
    means = table.groupby(["row", "label", "task"], sort=False)
    found = means[["first", "last", "training loss", "factor x loss"]].mean()
    found = found.assign(**{"lowest total": means["lowest total"].min()}).reset_index().drop(columns="row")
    return found.rename(columns={"label": "model", "first": "factor at start", "last": "factor at end"})


def lowest_total(store: RunStore, record: Record) -> float:
    """The lowest total loss of an update of a run that learns its weights; KeyError where it does not."""
    probes, kind = store.probes(record.run_id), record["spec"]["weighting"]["kind"]
    factors = probes["trace_factor"].astype(float)  # (U, K)
    totals = factors * probes["trace_loss"] + UNWEIGHTED_PARTS[kind](factors / factors[0])
    return float(np.nansum(totals, axis=1).min())
