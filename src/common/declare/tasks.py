"""The tasks of the study: their columns, label ranges and metrics.

Source: the CS224N default project (SST-5, Quora question pairs, STS benchmark) and its CFIMDB warm-up set.
Not here: reading (`sources.py`) and the number of examples a profile uses (`profile.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What every part of the study needs to know about one task.

    Args:
        name: key in `TASKS`, in records and in tables.
        text_columns: one column (a sentence task) or two (a pair task), as the starter's files name them.
        label_column: name of the label column in the starter's files.
        kind: "classes" for whole labels, "score" for a real number.
        num_classes: number of classes; `None` for a score.
        low: smallest label allowed.
        high: largest label allowed.
        metric: "accuracy" (fraction) or "pearson" (r in [-1, 1]).
        report_train: size of the train set that the five reports used.
        report_dev: size of its dev set, without two malformed rows of Quora.
    """

    name: str
    text_columns: tuple[str, ...]
    label_column: str
    kind: str
    num_classes: int | None
    low: float
    high: float
    metric: str
    report_train: int
    report_dev: int


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst", ("sentence",), "sentiment", "classes", 5, 0, 4, "accuracy", 8544, 1101),
        Task("para", ("sentence1", "sentence2"), "is_duplicate", "classes", 2, 0, 1, "accuracy", 141498, 20212),
        Task("sts", ("sentence1", "sentence2"), "similarity", "score", None, 0, 5, "pearson", 6040, 863),
        Task("cfimdb", ("sentence",), "sentiment", "classes", 2, 0, 1, "accuracy", 1707, 245),
    )
}

# How tables and figures name them.
TASK_NAMES = {"sst": "SST", "para": "Quora", "sts": "STS", "cfimdb": "CFIMDB"}
# What the whole labels mean, from 0.
CLASS_NAMES = {
    "sst": ("very negative", "negative", "neutral", "positive", "very positive"),
    "para": ("not duplicate", "duplicate"),
    "cfimdb": ("negative", "positive"),
}
