"""From an encoder to three tasks: how sentences enter, how they are pooled, and what predicts.

Each choice is a small function or class found by its name in a RunSpec. Dropout and heads run in float32 whatever the
encoder's precision: cosines near 1 need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.data.encoding import Batch
from common.data.tasks import TASKS
from common.model.bert import BertModel, BertOutput
from common.spec import RunSpec, TaskSpec

COSINE_EPS = 1e-8


def pooler(output: BertOutput, mask: Tensor) -> Tensor:
    """The pretrained pooler: tanh of a dense layer on the first token, (B, H)."""
    return output.pooler_output


def first_token(output: BertOutput, mask: Tensor) -> Tensor:
    """The last state of the first token, (B, H); not the same "CLS" as `pooler`."""
    return output.last_hidden_state[:, 0]


def mean_pool(output: BertOutput, mask: Tensor) -> Tensor:
    """The mean of the last states over real tokens (mask (B, T) is 1 there), (B, H)."""
    weight = mask.to(output.last_hidden_state.dtype).unsqueeze(-1)  # (B, T, 1)
    return (output.last_hidden_state * weight).sum(1) / weight.sum(1).clamp(min=1)


POOLINGS: dict[str, Callable[[BertOutput, Tensor], Tensor]] = {"pooler": pooler, "cls": first_token, "mean": mean_pool}
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class LinearHead(nn.Module):
    """Dropout, then one linear layer on the joined sentence vectors (starter; swissBERT section 4.1)."""

    def __init__(self, in_size: int, out_size: int, dropout: float):
        super().__init__()
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(in_size, out_size)

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.out(self.dropout(torch.cat(vectors, dim=-1)))


class TwoLayerHead(nn.Module):
    """Dropout, linear, activation, linear; `first` may be shared with another task (swissBERT, Weight Sharing)."""

    def __init__(self, first: nn.Linear, out_size: int, dropout: float, activation: str):
        super().__init__()
        self.dropout, self.first = nn.Dropout(dropout), first
        self.activation, self.out = ACTIVATIONS[activation](), nn.Linear(first.out_features, out_size)

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.out(self.activation(self.first(self.dropout(torch.cat(vectors, dim=-1)))))


class CosineHead(nn.Module):
    """The cosine of two sentence vectors, (B, 1), times `factor`; no parameters (Reimers & Gurevych 2019)."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.factor * torch.cosine_similarity(first, second, dim=-1, eps=COSINE_EPS).unsqueeze(-1)


OUTPUT_FACTORS = {"raw": 1.0, "times_five": 5.0}


class MultitaskModel(nn.Module):
    """One encoder, one head per task. `forward(task, batch)` gives the head's output, (B, C) float32."""

    def __init__(self, encoder: BertModel, spec: RunSpec, generator: torch.Generator):
        super().__init__()
        self.encoder = encoder
        self.tasks = {task.name: task for task in spec.tasks}
        self.heads = build_heads(spec, encoder.config.hidden_size, generator)
        self.is_frozen = spec.encoder.frozen
        self.use_bf16 = spec.precision == "bf16"
        if self.is_frozen:
            encoder.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and batches must be."""
        return self.encoder.pooler["dense"].weight.device

    def forward(self, task: str, batch: Batch) -> Tensor:
        return self.heads[task](*self.sentence_vectors(task, batch))

    def sentence_vectors(self, task: str, batch: Batch) -> list[Tensor]:
        """The pooled vector of each part of the batch, each (B, H) float32."""
        pool = POOLINGS[self.tasks[task].pooling]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.use_bf16):
            return [pool(self.encoder(*part), part[1]).float() for part in batch.inputs]

    def train(self, mode: bool = True) -> MultitaskModel:
        """Training mode; a frozen encoder stays in evaluation mode, as features without dropout noise."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self


def build_heads(spec: RunSpec, hidden_size: int, generator: torch.Generator) -> nn.ModuleDict:
    """The heads of a run, initialised from the generator; tasks of one group get the same first layer."""
    shared: dict[str, nn.Linear] = {}
    heads = nn.ModuleDict({task.name: _build_head(task, hidden_size, shared) for task in spec.tasks})
    for layer in heads.modules():
        if isinstance(layer, nn.Linear):
            _reset_linear(layer, generator)
    return heads


def _build_head(task: TaskSpec, hidden_size: int, shared: dict[str, nn.Linear]) -> nn.Module:
    if task.pair_method == "cosine":
        return CosineHead(OUTPUT_FACTORS[task.output])
    in_size = hidden_size * (2 if task.pair_method == "separate" else 1)
    out_size = TASKS[task.name].num_classes if task.loss == "cross_entropy" else 1
    if task.head_layers == 1:
        return LinearHead(in_size, out_size, task.dropout)
    first = nn.Linear(in_size, hidden_size)
    if task.shared_layer is not None:
        first = shared.setdefault(task.shared_layer, first)
    return TwoLayerHead(first, out_size, task.dropout, task.activation)


def _reset_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Uniform in +-1/sqrt(in), torch's own default, but from our generator."""
    bound = 1 / math.sqrt(layer.in_features)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
