"""Where models go wrong on Quora dev (Gu, section 6.2), and what else its claims need beside the printed tables.

Everything comes from records, stored scores and two cards, so it needs neither the data nor a model. A subset is known
by its row numbers alone: no sentence of a data set leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from common.errors import StudyError
from common.spec import RunSpec
from common.study import frames
from common.study.cards import card, labels_card
from common.study.reported import printed_values
from common.study.session import Results
from common.study.stats import TASK_NAMES, runs_of, value
from common.training.evaluate import predict

SECOND_PERSON = {"i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself"}
ALIKE, NEARLY_IDENTICAL = 0.7, 0.8
# How tables and figures name the subsets; the first is no subset.
SUBSETS = {
    "all": "all pairs",
    "persons": "one says I, the other you",
    "swaps": "only I and you swapped",
    "alike": f"word overlap of {ALIKE} or more",
    "nearly_identical": f"word overlap of {NEARLY_IDENTICAL} or more",
}
# True label -> its values, and the metric under which a report prints the accuracy on it.
TRUE_LABELS = {
    "both": ((0, 1), "para_acc"),
    "paraphrases": ((1,), "para_acc_paraphrases"),
    "non-paraphrases": ((0,), "para_acc_non_paraphrases"),
}
# Gu, section 6.2: which wrong answers are said to be common on which pairs.
ERRORS = {"missed paraphrases": ("paraphrases", "persons"), "false alarms": ("non-paraphrases", "alike")}


def subsets_card(lab) -> dict[str, np.ndarray]:
    """Subset -> its places among the scored Quora pairs of dev, ascending, as `quora_subsets` finds them."""

    def measure() -> dict[str, str]:
        found = quora_subsets(*lab.scored("para").texts)
        return {name: " ".join(map(str, rows)) for name, rows in found.items()}

    stored = card(lab, "subsets", measure)
    return {name: np.array(text.split(), dtype=np.int64) for name, text in stored.items()}


def quora_subsets(first: Iterable[str], second: Iterable[str]) -> dict[str, np.ndarray]:
    """Rows of question pairs by what their words say, whatever their case and punctuation.

    persons: one question is in the first person and the other in the second. swaps: and they differ in nothing else.
    alike, nearly_identical: the Jaccard overlap of their sets of words is at least 0.7, 0.8, and they are not equal.
    """
    pairs = [(_words(a), _words(b)) for a, b in zip(first, second, strict=True)]
    overlap = np.array([len(set(a) & set(b)) / max(1, len(set(a) | set(b))) for a, b in pairs])
    persons = np.array([{_persons(a), _persons(b)} == {"first", "second"} for a, b in pairs])
    found = {
        "persons": persons,
        "swaps": persons & np.array([_turned(a) == _turned(b) for a, b in pairs]),
        "alike": (overlap >= ALIKE) & (overlap < 1),
        "nearly_identical": (overlap >= NEARLY_IDENTICAL) & (overlap < 1),
    }
    return {name: np.flatnonzero(belongs) for name, belongs in found.items()}


def quora_answers(lab, record: dict) -> np.ndarray:
    """(N,) bool: which scored pairs of Quora dev a run answers correctly, by its stored half-precision scores.

    Raises:
        StudyError: E-STALE when the accuracy is not the record's, by more than the rounding of scores can explain.
    """
    labels, task = labels_card(lab)["para"], RunSpec.from_dict(record["spec"]).task("para")
    scores = lab.store.predictions(record["run_id"])["para"]
    scores = scores.reshape(len(scores), -1)  # (N, C)
    half = np.abs(np.spacing(scores.astype(np.float16))).astype(np.float32) / 2
    rounded = (predict(task, scores - half) != predict(task, scores + half)).mean()
    correct = predict(task, scores) == labels if len(scores) == len(labels) else np.full(len(scores), np.nan)
    if not abs(correct.mean() - record["metrics"]["dev"]["para_acc"]) <= rounded + 1e-9:
        what = f"the dev labels give another Quora accuracy to run {record['run_id']} than its record."
        raise StudyError("E-STALE", "cards/labels.json", what, "Delete this card and cards/subsets.json.")
    return correct


def subset_frame(lab, results: Results) -> pd.DataFrame:
    """Quora dev accuracy by model, seed, subset and true label; empty (NaN) where a subset has no such pair."""
    labels, printed, lines = labels_card(lab)["para"], printed_values(), []
    parts = {"all": np.arange(len(labels))} | subsets_card(lab)
    parts = {SUBSETS[name]: parts[name] for name in SUBSETS}
    for _, record, known in runs_of(results):
        correct = quora_answers(lab, record)
        for (name, rows), (of, (wanted, metric)) in product(parts.items(), TRUE_LABELS.items()):
            chosen = correct[rows[np.isin(labels[rows], wanted)]]
            theirs = printed.get((known["row"], "dev", metric), np.nan) if name == SUBSETS["all"] else np.nan
            ours = {"pairs": len(chosen), "accuracy": float(chosen.mean()) if len(chosen) else np.nan}
            lines.append(known | {"subset": name, "true label": of} | ours | {"reported": theirs})
    columns = ["row", "label", "method", "run_id", "seed", "subset", "true label", "pairs", "accuracy", "reported"]
    return pd.DataFrame(lines, columns=columns)


def subset_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per subset and true label, with its number of pairs and the accuracy (mean over seeds) of each model."""
    keys = ["subset", "true label", "pairs"]
    means = frame.groupby([*keys, "label"], sort=False)["accuracy"].mean().unstack("label")
    lines, models = pd.MultiIndex.from_frame(frame[keys].drop_duplicates()), frame["label"].unique()
    return means.reindex(index=lines, columns=models).rename_axis(columns=None).reset_index()


def label_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over all pairs and by true label, reported and here (Gu, Table 6), one line per model and label."""
    whole = frame[frame["subset"] == SUBSETS["all"]].rename(columns={"label": "model"})
    grouped = whole.groupby(["model", "true label", "pairs"], sort=False)
    table = grouped.agg(reported=("reported", "first"), here=("accuracy", "mean"), sd=("accuracy", "std"))
    return table.assign(difference=table["here"] - table["reported"], seeds=grouped.size()).reset_index()


def error_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Rates of the two kinds of errors over all pairs and on the subset where the report sees them, and their ratio."""
    rates = 1 - frame.groupby(["true label", "subset", "label"], sort=False)["accuracy"].mean()
    lines = [
        {"model": model, "error": error, "subset": SUBSETS[subset]}
        | {"rate over all": rates[of, SUBSETS["all"], model], "rate in subset": rates[of, SUBSETS[subset], model]}
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
    the best on dev; and the share of dev pairs with a negative cosine."""
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
        below = float((lab.store.predictions(record["run_id"])["para"] < 0).mean())
        lines.append(
            {"model": known["label"], "seed": known["seed"]} | own | train | best | {"negative cosines": below}
        )
    return pd.DataFrame(lines)


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


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _persons(words: list[str]) -> str:
    """Which of the two persons a question speaks in: none, first, second or both."""
    has_first, has_second = set(words) & set(SECOND_PERSON), set(words) & set(SECOND_PERSON.values())
    return ("both" if has_second else "first") if has_first else ("second" if has_second else "none")


def _turned(words: list[str]) -> list[str]:
    return [SECOND_PERSON.get(word, word) for word in words]
