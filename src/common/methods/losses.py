"""Task losses, each a mean over the batch in nats or squared label units.

Every loss takes the head's output (B, C) and labels (B,), so a task chooses one by name in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy of (B, C) logits against class numbers (B,)."""
    return functional.cross_entropy(output, labels.long())


def bce(output: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of one logit (B, 1) against labels 0 or 1 (B,)."""
    return functional.binary_cross_entropy_with_logits(output.squeeze(-1), labels.to(output.dtype))


def mse(output: Tensor, labels: Tensor) -> Tensor:
    """Squared error of (B, 1) against real labels (B,): never cast to integers (the starter turns 4.6 into 4)."""
    return functional.mse_loss(output.squeeze(-1), labels.to(output.dtype))


def cosine_embedding(output: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """Cosine embedding loss on cosines (B, 1): 1 - cos for a paraphrase, max(0, cos - margin) otherwise.

    Labels 0 and 1 stand for the -1 and 1 of `torch.nn.CosineEmbeddingLoss`, where a 0 would contribute nothing.
    Source: swissBERT section 5.2; margin 0 is torch's default.
    """
    cosines = output.squeeze(-1)
    return torch.where(labels > 0, 1 - cosines, (cosines - margin).clamp(min=0)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
    "cosine_embedding": cosine_embedding,
}
