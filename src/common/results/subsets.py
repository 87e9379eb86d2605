"""What Gu's claims need beside the printed tables: accuracy by label, error rates, thresholds, conflicts.

Where models err by the words of a pair is in words.py. Everything comes from records, stored scores and cards.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from common.runs.session import Results
from common.declare.spec import RunSpec, TaskSpec
from common.results import frames
from common.results.stats import TASK_NAMES, runs_of, value
from common.results.words import SUBSETS

ALL = SUBSETS["para"]["all"]
# Gu, section 6.2: which wrong answers are said to be common on which pairs.
ERRORS = {"missed paraphrases": ("paraphrases", "persons"), "false alarms": ("non-paraphrases", "alike")}


def label_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Quora accuracy over all pairs and by true label, reported and here (Gu, Table 6), one line per model and label.

    Args:
        frame: of `words.subset_frame`.
    """
    whole = frame[frame["subset"] == ALL].rename(columns={"label": "model", "n": "pairs"})
    grouped = whole.groupby(["model", "true label", "pairs"], sort=False)
    table = grouped.agg(reported=("reported", "first"), here=("value", "mean"), sd=("value", "std"))
    return table.assign(difference=table["here"] - table["reported"], seeds=grouped.size()).reset_index()


def error_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Rates of the two kinds of errors over all pairs and on the subset where the report sees them, and their ratio."""
    rates = 1 - frame.groupby(["true label", "subset", "label"], sort=False)["value"].mean()
    names = SUBSETS["para"]
    lines = [
        {"model": model, "error": error, "subset": names[subset]}
        | {"rate over all": rates[of, ALL, model], "rate in subset": rates[of, names[subset], model]}
        for (error, (of, subset)), model in product(ERRORS.items(), frame["label"].unique())
    ]
    table = pd.DataFrame(lines, columns=["model", "error", "subset", "rate over all", "rate in subset"])
    return table.assign(ratio=table["rate in subset"] / table["rate over all"].where(table["rate over all"] > 0))


def pooling_curves(store, results: Results) -> pd.DataFrame:
    """Threshold curves of one model per pooling: of rows that differ in their threshold only, the last one's.

    marked is True at the threshold of each of those rows, where `reported` is what the report prints for it.
    """
    frame = frames.threshold_frame(store, results).astype({"threshold": float, "used": float})
    frame["pooling"] = frame["row"].map({n: r.row.specs[0].task("para").pooling for n, r in results.items()})
    frame["reported"] = frame["row"].map({n: r.row.reported.get("para_acc") for n, r in results.items()}).astype(float)
    key = ["method", "pooling", "seed", "threshold"]
    marks = frame.loc[np.isclose(frame["threshold"], frame["used"]), [*key, "reported"]].assign(marked=True)
    curves = frame.drop_duplicates(key, keep="last").drop(columns=["used", "reported"]).merge(marks, "left", key)
    return curves.assign(marked=curves["marked"].eq(True))


def threshold_table(lab, results: Results) -> pd.DataFrame:
    """Quora dev accuracy of each cosine model at its own threshold, at the one that is best on its train data, and at
    the best on dev."""
    lines = []
    for result, record, known in runs_of(results):
        grid, accuracy = lab.store.probes(record["run_id"])["para_threshold_curve"]
        chosen = value(record, "para_best_threshold", "train")
        found = np.nan if chosen is None else accuracy[np.abs(grid - chosen).argmin()]
        own = {
            "own threshold": result.row.specs[0].task("para").threshold,
            "accuracy": value(record, "para_acc"),
        }
        train = {"threshold from train": np.nan if chosen is None else chosen, "its accuracy": float(found)}
        best = {"best on dev": value(record, "para_best_threshold"), "best accuracy": float(accuracy.max())}
        lines.append({"model": known["label"], "seed": known["seed"]} | own | train | best)
    return pd.DataFrame(lines)


def negative_table(lab, results: Results) -> pd.DataFrame:
    """The share of dev pairs with a cosine of 0 or less, of Quora and of STS, means over seeds (Gu, section 4.2).

    The stored scores are cosines or a rising function of them, whose value at a cosine of 0 is known; a task that a
    model does not compare by cosine is left empty.
    """
    lines = []
    for _, record, known in runs_of(results):
        spec, line = RunSpec.from_dict(record["spec"]), {"model": known["label"], "seed": known["seed"]}
        for name in ("para", "sts"):
            task = next((t for t in spec.tasks if t.name == name and t.pair_method == "cosine"), None)
            scores = lab.store.predictions(record["run_id"]).get(name)
            line[TASK_NAMES[name]] = np.nan if task is None else float((scores <= _at_zero(task)).mean())
        lines.append(line)
    frame = pd.DataFrame(lines, columns=["model", "seed", *(TASK_NAMES[name] for name in ("para", "sts"))])
    means = frame.groupby("model", sort=False).agg({"Quora": "mean", "STS": "mean", "seed": "size"}).reset_index()
    return means.rename(columns={"seed": "runs"}).dropna(how="all", subset=["Quora", "STS"])


def _at_zero(task: TaskSpec) -> float:
    """The score of a cosine of 0."""
    return 2.5 if task.output in ("shifted_times_five", "sigmoid_times_five") else 0.0


def conflict_frame(results: Results) -> pd.DataFrame:
    """Gradients compared in training by model and task pair: how many, their mean cosine, how often it is below 0."""
    lines = [
        {"model": known["label"], "tasks": " and ".join(TASK_NAMES[task] for task in pair.split("-"))} | found
        for _, record, known in runs_of(results)
        for entry in record["history"]
        for pair, found in entry.get("conflicts", {}).items()
    ]
    frame = pd.DataFrame(lines, columns=["model", "tasks", "pairs", "cosine", "rate"])
    frame[["cosine", "rate"]] = frame[["cosine", "rate"]].astype(float).mul(frame["pairs"].astype(float), axis=0)
    sums = frame.groupby(["model", "tasks"], sort=False)[["pairs", "cosine", "rate"]].sum()
    means = {"mean cosine": sums["cosine"] / sums["pairs"], "rate of conflicts": sums["rate"] / sums["pairs"]}
    return sums[["pairs"]].assign(**means).rename(columns={"pairs": "compared"}).reset_index()
