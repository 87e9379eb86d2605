"""Traces, one line an update, as what figures and tables need of them: learned loss weights, conflicts of gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from common.runs.session import Results
from common.runs.store import RunStore
from common.results.stats import TASK_NAMES, runs_of

# Points of a trace that a figure keeps of each run; more cannot be told apart.
TRACE_POINTS = 100
# What a learned weighting adds to factor x loss, from its factor relative to the start (methods/losses.py).
UNWEIGHTED_PARTS = {
    "linear": np.zeros_like,
    "uncertainty": lambda relative: -np.log(relative) / 2,
    "automatic": lambda relative: np.log1p(1 / relative),
    "dynamic": lambda relative: -np.log(relative),
}


def weight_frame(store: RunStore, results: Results) -> pd.DataFrame:
    """What multiplied each task's loss in the course of training, for rows that learn it; at most 100 points a run.

    Raw values: a factor that stays at its start was not learned, whatever its method is called.
    """
    lines = []
    for known, record, probes in _traced(store, results, "trace_factor"):
        factors = probes["trace_factor"]  # (U, K)
        updates = np.unique(np.linspace(0, len(factors) - 1, TRACE_POINTS).round().astype(int))
        for update in updates:
            place = known | {"update": int(update) + 1, "updates": len(factors)}
            named = zip(record["trace"]["tasks"], factors[update], strict=True)
            lines += [place | {"task": TASK_NAMES[task], "factor": float(factor)} for task, factor in named]
    columns = ["row", "label", "method", "run_id", "seed", "update", "updates", "task", "factor"]
    return pd.DataFrame(lines, columns=columns)


def weight_table(store: RunStore, results: Results) -> pd.DataFrame:
    """Where the learned factors start and end, and the lowest total loss of an update; means over seeds, lowest of
    all. The total is what was minimised: the weighted losses of an update's tasks, with the parts of the weighting that
    have no loss in them."""
    lines = []
    for known, record, probes in _traced(store, results, "trace_factor"):
        factors, kind = probes["trace_factor"].astype(float), record["spec"]["weighting"]["kind"]
        terms = factors * probes["trace_loss"] + UNWEIGHTED_PARTS[kind](factors / factors[0])  # (U, K)
        ends = {}
        for column, task in enumerate(TASK_NAMES[name] for name in record["trace"]["tasks"]):
            ends |= {("start", task): factors[0, column], ("end", task): factors[-1, column]}
        lines.append({"model": known["label"], "updates": len(factors)} | ends | {"lowest": np.nansum(terms, 1).min()})
    if not lines:
        return pd.DataFrame(columns=["model"])
    grouped = pd.DataFrame(lines).groupby("model", sort=False)
    table = grouped.mean().assign(lowest=grouped["lowest"].min(), updates=grouped["updates"].max()).reset_index()
    heads = {"model": ("", "model"), "updates": ("", "updates"), "lowest": ("total loss", "lowest")}
    return table.set_axis(pd.MultiIndex.from_tuples([heads.get(name, name) for name in table.columns]), axis=1)


def conflict_table(store: RunStore, results: Results) -> pd.DataFrame:
    """How often the gradients of two tasks point apart, per row and pair of tasks, over all updates and seeds.

    share negative: of the updates with a cosine below 0; the line `any pair` counts updates with at least one. mean
    removed: of the length of a task's gradient, what its projection against the other task's takes away (-cosine
    where that is above 0).
    """
    lines = []
    for known, record, probes in _traced(store, results, "trace_cosine"):
        cosines = pd.DataFrame(probes["trace_cosine"], columns=record["trace"]["pairs"]).dropna(how="all")
        values = {name: (cosines[name], cosines[name]) for name in cosines}
        values["any pair"] = cosines.min(axis=1), pd.Series(cosines.to_numpy().ravel())
        for pair, (lowest, every) in values.items():
            lines.append(
                {
                    "model": known["label"],
                    "pair": " and ".join(TASK_NAMES.get(task, task) for task in pair.split("-")),
                    "updates": float(len(cosines)),
                    "mean cosine": every.mean(),
                    "share negative": (lowest.dropna() < 0).mean(),
                    "mean removed": (-every.dropna()).clip(lower=0).mean(),
                }
            )
    frame = pd.DataFrame(lines, columns=["model", "pair", "updates", "mean cosine", "share negative", "mean removed"])
    means = frame.groupby(["model", "pair"], sort=False, as_index=False).mean()
    return means.assign(updates=means["updates"].round().astype(int))


def _traced(store: RunStore, results: Results, trace: str) -> Iterator[tuple[dict, dict, dict]]:
    """(what names the run, its record, its probes) for every run that holds the trace."""
    for _, record, known in runs_of(results):
        probes = store.probes(record["run_id"])
        if trace in probes:
            yield known, record, probes
