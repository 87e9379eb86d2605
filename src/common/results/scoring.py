"""How far dev examples decide a score: the standard error of scores and of differences, from the stored predictions.

Differences are taken on the same examples, so what makes an example hard cancels. Where a run kept no predictions of a
split, or answered at random, an accuracy errs as a share of so many examples does, a correlation as Fisher's z says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.declare.tasks import TASKS
from common.results.facts import labels_card
from common.results.intervals import accuracy_error, bootstrap_error, weighted_correlations
from common.results.long import TASK_METRICS
from common.results.subsets import TRUE_LABELS, answers
from common.runs.record import Record
from common.runs.session import Study
from common.training.evaluate import METRIC_NAMES

TASK_OF = {metric: task for task, metric in METRIC_NAMES.items()}
# A correlation counts half in SlapBERT's overall, which maps it to [0, 1] first.
PARTS = {"overall": (1.0, 1.0, 1.0), "overall_normalised": (1.0, 1.0, 0.5)}
ONE_LABEL = {metric: labels[0] for labels, metric in TRUE_LABELS.values() if len(labels) == 1}
Pair = tuple[Record, Record]


def value(lab: Study, record: Record, metric: str, split: str = "dev") -> float | None:
    """A metric of a run, also those that its stored answers say and its record does not; None where it is undefined."""
    right = _right(lab, record, metric) if metric in ONE_LABEL and split == "dev" else None
    return record.value(metric, split) if right is None else float(right.mean())


def difference_error(lab: Study, pairs: Sequence[Pair], metric: str, split: str = "dev") -> float:
    """Standard error over examples of the mean over seeds of a metric's difference, paired example by example."""
    if metric in PARTS:
        parts = zip(TASK_METRICS, PARTS[metric], strict=True)
        return _joined([factor * difference_error(lab, pairs, name, split) for name, factor in parts])
    columns = [(_answers(lab, a, metric), _answers(lab, b, metric)) for a, b in pairs]
    if split != "dev" or any(column is None for pair in columns for column in pair):
        sides = ([record for record, _ in pairs], [record for _, record in pairs])
        return float(np.hypot(*(score_error(lab, side, metric, split) for side in sides)))
    first, second = (np.stack(side) for side in zip(*columns, strict=True))  # (S, N)
    return _error(metric, labels_card(lab)[TASK_OF[metric]], first, second)


def score_error(lab: Study, records: Sequence[Record], metric: str, split: str = "dev") -> float:
    """Standard error over examples of the mean over seeds of a metric."""
    if not records:
        return 0.0
    if metric in PARTS:
        parts = zip(TASK_METRICS, PARTS[metric], strict=True)
        return _joined([factor * score_error(lab, records, name, split) for name, factor in parts])
    if metric in ONE_LABEL and split == "dev":
        rights = [_right(lab, record, metric) for record in records]
        return math.nan if any(right is None for right in rights) else accuracy_error(np.stack(rights))
    columns = [_answers(lab, record, metric) if split == "dev" else None for record in records]
    if any(column is None for column in columns):
        return _binomial(records, metric, split)
    return _error(metric, labels_card(lab)[TASK_OF[metric]], np.stack(columns))


def _error(metric: str, labels: np.ndarray, first: np.ndarray, second: np.ndarray | None = None) -> float:
    """Of answers (S, N), or of the difference to other answers of the same seeds."""
    if TASKS[TASK_OF[metric]].kind == "classes":
        right = (first == labels).astype(float)
        return accuracy_error(right if second is None else right - (second == labels))

    def mean(counts: np.ndarray) -> np.ndarray:
        r = [weighted_correlations(counts, answered, labels) for answered in first]
        others = [weighted_correlations(counts, answered, labels) for answered in (() if second is None else second)]
        return np.mean(r, axis=0) - (np.mean(others, axis=0) if others else 0.0)

    return bootstrap_error(mean, len(labels))


def _answers(lab: Study, record: Record, metric: str) -> np.ndarray | None:
    """(N,) what a run, or the one of several that has the task, answers to the scored dev examples; None unknown."""
    task = TASK_OF.get(metric)
    for run_id in record.parts if task else ():
        part = record if run_id == record.run_id else lab.store.get(run_id)
        if task in {t["name"] for t in part["spec"]["tasks"] if t["trained"] or run_id == record.run_id}:
            return answers(lab, part, task)
    return None


def _right(lab: Study, record: Record, metric: str) -> np.ndarray | None:
    """(N,) whether the examples of one true label are answered right."""
    found, labels = _answers(lab, record, METRIC_NAMES["para"]), labels_card(lab)["para"]
    return None if found is None else (found == labels)[labels == ONE_LABEL[metric]].astype(float)


def _binomial(records: Sequence[Record], metric: str, split: str) -> float:
    task = TASK_OF.get(metric, "para")  # the other metrics are Quora's
    values = [record.value(metric, split) for record in records if record.value(metric, split) is not None]
    counts = [record.get("counts", {}).get("scored" if split == "dev" else split, {}).get(task) for record in records]
    n = min((count for count in counts if count), default=0)
    if split == "train" and records[0].spec.train_examples:
        n = min(n, records[0].spec.train_examples)
    if n < 4 or not values:
        return 0.0
    value = float(np.mean(values))
    return (1 - value**2) / math.sqrt(n - 3) if metric == "sts_corr" else math.sqrt(value * (1 - value) / n)


def _joined(parts: Sequence[float]) -> float:
    """The error of a mean of three scores on dev sets of their own."""
    return math.sqrt(sum(part**2 for part in parts)) / len(parts)
