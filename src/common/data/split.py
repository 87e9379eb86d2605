"""One split of one task: what every data source hands over and everything after it reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Examples of one task in one split, column by column.

    Args:
        ids: one unique name per example.
        texts: one column of texts (a sentence task) or two parallel ones (a pair task).
        labels: one number per example; `None` where the labels are withheld.
        left_out: ids that the source holds but that could not be used.
    """

    ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray | None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) not in (1, 2):
            raise ValueError(f"texts: one or two columns expected, {len(self.texts)} found")
        columns = [len(column) for column in self.texts]
        labels = [] if self.labels is None else [len(self.labels)]
        if any(length != len(self.ids) for length in columns + labels):
            raise ValueError(f"ids, texts and labels differ in length: {len(self.ids)}, {columns}, {labels or None}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Split:
        """The given rows as a split of their own."""
        texts = tuple(tuple(column[row] for row in rows) for column in self.texts)
        return Split(tuple(self.ids[row] for row in rows), texts, None if self.labels is None else self.labels[rows])
