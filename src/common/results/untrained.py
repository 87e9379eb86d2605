"""What every model is set against: the best constant answer to each task, and the untrained encoder's cosines.

A score says little by itself. Untrained MiniLM reaches an STS correlation that most trained cosine rows miss, and a
model that has learnt nothing stands at the share of the commonest label. So both lines are in every table and figure
that compares models, made here once. The labels come from a card, so neither needs the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.declare.tasks import TASKS
from common.runs.session import Results, Study
from common.results.cards import labels_card
from common.declare.rows import Row, reports, rows
from common.training.evaluate import METRIC_NAMES, OVERALL_TASKS, overall

CONSTANT_ROW, CONSTANT_LABEL = "constant", "best constant answer"


@dataclass(frozen=True)
class Baselines:
    """What scores without learning anything.

    constants: metric -> score on dev of the best single answer. No constant has a correlation: that of STS is put at 0,
    where a model that knows nothing stands. zero_shot: the cosine rows without training, one a pooling.
    """

    constants: dict[str, float]
    zero_shot: Results

    def is_at_constant(self, metric: str, score: float | None) -> bool:
        """Whether a dev score is no better than the constant's; an undefined one (None) is that of a constant."""
        if metric not in self.constants:
            return False
        return score is None or score <= self.constants[metric] + 1e-9


def baselines(lab: Study) -> Baselines:
    """Both lines on the dev examples that the study scores."""
    return Baselines(constant_scores(labels_card(lab)), lab.run(zero_shot_rows()))


def zero_shot_rows() -> list[Row]:
    """The rows of any report that compare by cosine without any training."""
    return [row for report in reports() for row in rows(report) if is_zero_shot(row)]


def is_zero_shot(row: Row) -> bool:
    """Whether the row is the encoder as it is, its sentences compared by their cosine."""
    return any(spec.epochs == 0 and any(t.pair_method == "cosine" for t in spec.tasks) for spec in row.specs)


def constant_scores(labels: dict[str, np.ndarray]) -> dict[str, float]:
    """Metric -> score of the best constant answer to these labels, and both overalls made of them."""
    scores = {METRIC_NAMES[task]: _constant(task, found) for task, found in labels.items()}
    scores |= overall(scores)[0] if set(OVERALL_TASKS) <= set(labels) else {}
    # A threshold above every cosine answers "no" to every pair, one below all answers "yes".
    return scores | ({"para_acc_best_threshold": scores["para_acc"]} if "para_acc" in scores else {})


def _constant(task: str, labels: np.ndarray) -> float:
    if TASKS[task].kind == "score":
        return 0.0
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))
