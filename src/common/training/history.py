"""What a run's updates saw: means per epoch for the record, and one line per update for the figures."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from common.errors import StudyError
from common.training.step import TaskPair, Update


class History:
    """Collects updates; a task has one column in every trace, a pair of tasks one in the trace of cosines."""

    def __init__(self, tasks: list[str], is_weighted: bool):
        self.tasks, self.is_weighted = tasks, is_weighted
        self.updates: list[Update] = []
        self.epoch_start = 0

    def add(self, update: Update) -> None:
        self.updates.append(update)

    def end_epoch(self, sizes: dict[str, list[int]]) -> dict:
        """The epoch's entry: mean losses over examples, and what the run's methods did.

        Args:
            sizes: task -> examples of each of its batches in this epoch, in order.

        Returns:
            train_loss; with SMART `regulariser` (mean weighted term); with learned weights `loss_factors` as they
            stand at the last update; with gradients compared `conflicts`: pair -> mean cosine, share of negative
            cosines, and how many were compared, and `gradient_norms`: task -> mean length of its shared gradient.
        """
        updates = self.updates[self.epoch_start :]
        self.epoch_start = len(self.updates)
        losses, regularisers = _by_name(u.losses for u in updates), _by_name(u.regularisers for u in updates)
        entry = {"train_loss": {t: float(np.average(losses[t], weights=sizes[t])) for t in self.tasks if t in losses}}
        for task, loss in entry["train_loss"].items():
            if not math.isfinite(loss):
                what, fix = f"the loss became {loss} in this epoch.", "Lower the learning rate."
                raise StudyError("E-NONFINITE", f"task {task}", what, fix)
        if regularisers:
            entry["regulariser"] = {t: float(np.mean(values)) for t, values in regularisers.items()}
        if self.is_weighted:
            entry["loss_factors"] = updates[-1].factors
        if pairs := _by_name(([(_name(pair), c) for pair, c in u.cosines]) for u in updates):
            entry["conflicts"] = {name: _conflict(np.array(values)) for name, values in pairs.items()}
            norms = _by_name(u.norms for u in updates)
            entry["gradient_norms"] = {task: float(np.mean(values)) for task, values in norms.items()}
        return entry

    def arrays(self) -> dict[str, np.ndarray]:
        """Traces with one row per update, NaN where a task took no part: trace_rate (U,), the rate over the largest
        one; trace_loss, trace_factor and trace_norm (U, K) float32, and trace_cosine (U, P), its columns as `pairs`
        names them."""
        rates = np.array([u.rate for u in self.updates])
        traces = {"trace_rate": (rates / max(rates.max(initial=0.0), 1e-300)).astype(np.float32)}
        traces["trace_loss"] = _table([u.losses for u in self.updates], self.tasks)
        if self.is_weighted:
            traces["trace_factor"] = _table([list(u.factors.items()) for u in self.updates], self.tasks)
        if self.pairs:
            rows = [[(_name(pair), cosine) for pair, cosine in u.cosines] for u in self.updates]
            traces["trace_cosine"] = _table(rows, self.pairs)
            traces["trace_norm"] = _table([u.norms for u in self.updates], self.tasks)
        return traces

    @property
    def pairs(self) -> list[str]:
        """Names of the task pairs whose gradients were compared, such as `sst-para`."""
        return sorted({_name(pair) for update in self.updates for pair, _ in update.cosines})


def _name(pair: TaskPair) -> str:
    return "-".join(pair)


def _by_name(updates) -> dict[str, list[float]]:
    found = defaultdict(list)
    for update in updates:
        for name, value in update:
            found[name].append(float(value))
    return dict(found)


def _conflict(cosines: np.ndarray) -> dict:
    """A gradient of length zero has no direction: it counts neither way."""
    known = cosines[np.isfinite(cosines)]
    if not len(known):
        return {"cosine": None, "rate": None, "pairs": 0}
    return {"cosine": float(known.mean()), "rate": float((known < 0).mean()), "pairs": len(known)}


def _table(rows: list[list[tuple[str, float]]], names: list[str]) -> np.ndarray:
    """(U, len(names)) float32, the mean where a name stands several times in a row, NaN where it does not."""
    table = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    for i, row in enumerate(rows):
        for name, values in _by_name([row]).items():
            table[i, names.index(name)] = np.mean(values)
    return table
