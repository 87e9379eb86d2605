"""Task losses, each a mean over the batch in nats or squared label units, and how several tasks' losses are weighted.

Every loss takes the head's output (B, C) and labels (B,), so a task chooses one by name in `LOSSES`. Every weighting
takes a task's loss L and its one learned number, so a run chooses one by name in `WEIGHTINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.declare.spec import TaskSpec
from common.errors import StudyError

SIMILAR_FROM = 3.0


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy of (B, C) logits against class numbers (B,)."""
    return functional.cross_entropy(output, labels.long())


def bce(output: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of one logit (B, 1) against labels 0 or 1 (B,)."""
    return functional.binary_cross_entropy_with_logits(output.squeeze(-1), labels.to(output.dtype))


def mse(output: Tensor, labels: Tensor) -> Tensor:
    """Squared error of (B, 1) against real labels (B,): never cast to integers (the starter turns 4.6 into 4).

    Paraphrase labels are 0 and 1: there it draws the cosine of a pair towards its label.
    """
    return functional.mse_loss(output.squeeze(-1), labels.to(output.dtype))


def cosine_embedding(output: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """Cosine embedding loss on cosines (B, 1): 1 - cos for a paraphrase, max(0, cos - margin) otherwise.

    Labels 0 and 1 stand for the -1 and 1 of `torch.nn.CosineEmbeddingLoss`, where a 0 would contribute nothing.
    Source: swissBERT section 5.2; margin 0 is torch's default.
    """
    cosines = output.squeeze(-1)
    return torch.where(labels > 0, 1 - cosines, (cosines - margin).clamp(min=0)).mean()


def cosine_embedding_sts(output: Tensor, labels: Tensor) -> Tensor:
    """Cosine embedding loss on cosines (B, 1) against similarities 0 to 5 (B,): a pair of 3 or more counts as alike.

    swissBERT section 4.2 gives this loss to both pair tasks and no mapping; on the scale of the data set a pair is
    "roughly equivalent" from 3 on (Agirre et al. 2013). Degrees on either side of 3 teach nothing.
    """
    return cosine_embedding(output, labels >= SIMILAR_FROM)


def mnrl(scores: Tensor, labels: Tensor) -> Tensor:
    """Multiple negatives ranking: -1/B sum_i [S_ii - log sum_j exp S_ij].

    Every pair of the batch is a positive and the second sentences of the others are its negatives, whatever the labels
    say: they are ignored. A batch of one pair has no negatives and a loss of 0.

    Args:
        scores: (B, B), S_ij compares the first sentence of pair i with the second of pair j.
        labels: (B,), ignored.

    Raises:
        ValueError: `scores` is not square.

    Source: Henderson et al. 2017; SlapBERT appendix, equation 7.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"`scores` must be (B, B), got {tuple(scores.shape)}")
    return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
    "cosine_embedding": cosine_embedding,
    "cosine_embedding_sts": cosine_embedding_sts,
    "mnrl": mnrl,
}


def fixed(loss: Tensor, unused: None = None) -> Tensor:
    """L: only the task's own constant factor weighs it."""
    return loss


def learnable_weights(loss: Tensor, w: Tensor) -> Tensor:
    """w L (swissBERT section 4.2, Automatic Weighted Loss).

    Nothing holds w: its gradient is L, so a positive loss lowers it for ever, in the end below 0.
    """
    return w * loss


def uncertainty(loss: Tensor, s: Tensor) -> Tensor:
    """L / sigma^2 + log sigma = exp(-s) L + s / 2, with s = log sigma^2; may go below 0. Best s: log 2 L.

    Source: Kendall et al. 2018, the form for classes; swissBERT section 4.2 prints it for every task.
    """
    return torch.exp(-s) * loss + s / 2


def automatic_weighted(loss: Tensor, c: Tensor) -> Tensor:
    """L / (2 c^2) + log(1 + c^2), with no L below 0 never below 0. Best c: L (1 + c^2) = 2 c^4.

    Raises:
        StudyError: c is 0, where this does not exist. A positive loss pushes c away from 0, so c only gets there by
            steps that are far too long; a floor would hide that behind an enormous weight, without a gradient.

    Source: Liebel & Koerner 2018; swissBERT section 4.2.
    """
    square = c.square()
    if not square:
        what, fix = "the learned c is 0, and the loss is divided by its square.", "Lower weighting.lr."
        raise StudyError("E-NONFINITE", "weighting.automatic", what, fix)
    return loss / (2 * square) + torch.log1p(square)


def dynamic(loss: Tensor, s: Tensor) -> Tensor:
    """exp(-s) L + s (SlapBERT section 4.2, equation 1). Best s: log L.

    Twice Kendall's regression form L / (2 sigma^2) + log sigma, with s = log sigma^2.
    """
    return torch.exp(-s) * loss + s


WEIGHTINGS: dict[str, Callable[..., Tensor]] = {
    "fixed": fixed,
    "linear": learnable_weights,
    "uncertainty": uncertainty,
    "automatic": automatic_weighted,
    "dynamic": dynamic,
}
# What the learned number starts from: a factor of 1 on the loss (automatic: 1/2). No report says; the package that
# swissBERT's automatic weighted loss comes from starts its c at 1. `fixed` learns none.
STARTS = {"linear": 1.0, "uncertainty": 0.0, "automatic": 1.0, "dynamic": 0.0}


class LossWeights(nn.Module):
    """One learned number per task, a scalar parameter of its own: a task that is not in an update leaves it alone.

    Args:
        kind: a name in `WEIGHTINGS`.
        tasks: the trained tasks; the `loss_weight` of each multiplies its raw loss in every kind.
        regression_half: with `uncertainty`, half the loss of every task trained on squared errors, which makes it
            L / (2 sigma^2) + log sigma (Kendall et al. 2018, the form for regression).

    Raises:
        ValueError: an unknown kind, or regression_half with another one than uncertainty.
    """

    def __init__(self, kind: str, tasks: Sequence[TaskSpec], regression_half: bool = False):
        super().__init__()
        if kind not in WEIGHTINGS:
            raise ValueError(f"`kind` must be one of {', '.join(WEIGHTINGS)}, got {kind!r}")
        if regression_half and kind != "uncertainty":
            raise ValueError(f"`regression_half` belongs to uncertainty, got kind {kind!r}")
        self.term = WEIGHTINGS[kind]
        self.scales = {t.name: t.loss_weight / (2 if regression_half and t.loss == "mse" else 1) for t in tasks}
        starts = {name: STARTS[kind] for name in self.scales if kind in STARTS}
        self.learned = nn.ParameterDict({name: nn.Parameter(torch.tensor(start)) for name, start in starts.items()})

    def forward(self, task: str, loss: Tensor) -> Tensor:
        """The weighted term of one task's raw loss, both scalars."""
        return self.term(self.scales[task] * loss, self.learned.get(task))

    @torch.no_grad()
    def factors(self) -> dict[str, float]:
        """Task -> what multiplies its raw loss now. Every term is a factor times L plus a part without L."""
        zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
        numbers = {name: self.learned[name].double().cpu() if name in self.learned else None for name in self.scales}
        return {
            name: (self.scales[name] * (self.term(one, n) - self.term(zero, n))).item() for name, n in numbers.items()
        }
