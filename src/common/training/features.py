"""A frozen encoder gives the same vector for a text whenever it is asked, so it is asked once."""

from __future__ import annotations

import numpy as np
import torch

from common.data.encoding import Batch, Encoded, sorted_batches
from common.model.heads import MultitaskModel
from common.training.evaluate import EVALUATION_TOKENS


class FrozenFeatures:
    """A tokenised split whose batches hold sentence vectors in place of tokens, encoded on first use and then kept.

    Stands where an Encoded stands: length, lengths, labels, batch. The encoder must not change while it is in use.
    """

    def __init__(self, model: MultitaskModel, task: str, encoded: Encoded):
        self.model, self.task, self.encoded = model, task, encoded
        self.lengths, self.labels, self.truncated = encoded.lengths, encoded.labels, encoded.truncated
        self.tokens = 0  # encoded so far
        self.vectors: torch.Tensor | None = None  # (N, parts, H)
        self.known = np.zeros(len(encoded), dtype=bool)

    def __len__(self) -> int:
        return len(self.encoded)

    def batch(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The given rows as a batch of vectors on a device; those not met before are encoded now."""
        self._encode(np.unique(rows[~self.known[rows]]))
        chosen = self.vectors[torch.from_numpy(rows)].to(device)  # (B, parts, H)
        return Batch((), self.encoded.batch_labels(rows, device), tuple(chosen.unbind(1)))

    @torch.no_grad()
    def _encode(self, rows: np.ndarray) -> None:
        for chosen in sorted_batches(self.lengths[rows], EVALUATION_TOKENS):
            batch = self.encoded.batch(rows[chosen], self.model.device)
            found = torch.stack(self.model.pooled([(self.task, batch)])[0], dim=1).cpu()  # (B, parts, H)
            if self.vectors is None:
                self.vectors = torch.empty(len(self), *found.shape[1:])
            self.vectors[torch.from_numpy(rows[chosen])] = found
            self.known[rows[chosen]] = True
            self.tokens += batch.tokens
