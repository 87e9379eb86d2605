"""Models that compare by cosine: the threshold above which a pair counts as a paraphrase, and the sign of cosines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from common.declare.spec import TaskSpec
from common.declare.tasks import TASK_NAMES
from common.results.long import runs_of
from common.runs.record import Record
from common.runs.session import Results
from common.runs.store import RunStore

CURVE_COLUMNS = ["row", "label", "method", "run_id", "seed", "pooling", "threshold", "accuracy", "marked", "reported"]


def threshold_curves(store: RunStore, results: Results) -> pd.DataFrame:
    """Quora accuracy against the cosine threshold, swept on each trained model, one line a threshold.

    Rows that differ in their threshold only are one model and one curve, under the last one's name. marked is True at
    the threshold of each of them, where `reported` is what the report prints for it.
    """
    curves: dict[tuple, pd.DataFrame] = {}
    for result, record, known in runs_of(results):
        curve = store.probes(record.run_id).get("para_threshold_curve")
        if curve is None:
            continue
        task, points = result.row.specs[0].task("para"), curve.astype(float)
        key = (known["method"], task.pooling, known["seed"], points[1].tobytes())
        fresh = {"threshold": points[0].round(3), "accuracy": points[1], "marked": False, "reported": np.nan}
        part = curves.get(key, pd.DataFrame(fresh)).assign(**known, pooling=task.pooling)
        used = np.isclose(part["threshold"], task.threshold)
        part.loc[used, "marked"] = True
        part.loc[used, "reported"] = result.row.reported.get("para_acc", np.nan)
        curves[key] = part
    if not curves:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    return pd.concat(curves.values(), ignore_index=True)[CURVE_COLUMNS]


def threshold_table(store: RunStore, results: Results) -> pd.DataFrame:
    """Quora dev accuracy of each cosine model at its own threshold, at the one that is best on its train data, and at
    the best on dev."""
    lines = []
    for result, record, known in runs_of(results):
        grid, accuracy = store.probes(record.run_id)["para_threshold_curve"]
        chosen = record.value("para_best_threshold", "train")
        found = np.nan if chosen is None else accuracy[np.abs(grid - chosen).argmin()]
        own = {"own threshold": result.row.specs[0].task("para").threshold, "accuracy": record.value("para_acc")}
        train = {"threshold from train": np.nan if chosen is None else chosen, "its accuracy": float(found)}
        best = {"best on dev": record.value("para_best_threshold"), "best accuracy": float(accuracy.max())}
        lines.append({"model": known["label"], "seed": known["seed"]} | own | train | best)
    return pd.DataFrame(lines)


def negative_shares(store: RunStore, results: Results) -> pd.DataFrame:
    """The share of dev pairs with a cosine of 0 or less, of Quora and of STS, means over seeds.

    The stored scores are cosines or a rising function of them, whose value at a cosine of 0 is known; a task that a
    model does not compare by cosine is left empty.
    """
    lines = []
    for result in results.values():
        runs = [negative_cosines(store, record) for record in result.runs]
        parts = [{task: float(is_negative.mean()) for task, is_negative in run.items()} for run in runs]
        means = pd.DataFrame(parts, columns=["para", "sts"], dtype=float).mean()
        lines.append({"model": result.row.label} | means.rename(TASK_NAMES).to_dict() | {"runs": len(parts)})
    frame = pd.DataFrame(lines, columns=["model", "Quora", "STS", "runs"])
    return frame.dropna(how="all", subset=["Quora", "STS"], ignore_index=True)


def negative_cosines(store: RunStore, record: Record) -> dict[str, np.ndarray]:
    """Task -> (N,) which dev pairs have a cosine of 0 or less, of tasks that a run compares by cosine."""
    tasks = [task for task in record.spec.tasks if task.pair_method == "cosine"]
    scores = store.predictions(record.run_id)
    return {task.name: scores[task.name] <= _at_zero(task) for task in tasks}


def _at_zero(task: TaskSpec) -> float:
    """The score of a cosine of 0."""
    return 2.5 if task.output in ("shifted_times_five", "sigmoid_times_five") else 0.0
