"""The encoder and its dropout with fewer passes over memory. What is computed is what bert.py computes.

Two things cost a plain step on a CPU more than its matrix products deserve: drawing dropout masks one number at a time,
and running three padded batches through every layer one after another. Here masks come from 16-bit integers of a fast
generator, and the real tokens of all parts of an update stand in one matrix, so linear layers and norms see no padding
and run once. Attention alone is done part by part on padded tensors.

`RunSpec.engine` "plain" leaves all of it out. Tests hold the packed encoder equal to BertModel, values and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.data.encoding import Part
from common.model.bert import BertLayer, BertModel, BertOutput

LEVELS = 1 << 16  # of a mask's random integers


class Dropout(nn.Dropout):
    """nn.Dropout whose masks on a CPU come from 16-bit integers: the probability is the next multiple of 1 / 65,536.

    torch's generator seeds every mask, so a run's seed decides them as it does torch's own.
    """

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return states
        if states.device.type != "cpu":
            return functional.dropout(states, self.p)
        return states * keep_mask(states.shape, self.p, states.dtype)


def keep_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """A tensor of that shape: 0 with probability p, else the factor that keeps the mean; float32 or bfloat16."""
    count, dropped = math.prod(shape), round(p * LEVELS)
    factor = torch.tensor(LEVELS / (LEVELS - dropped), dtype=dtype)
    words = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-count // 4))
    kept = words.view(np.uint16)[:count] >= dropped
    # The factor's bits times 0 or 1 are the bits of 0 or of the factor: one pass instead of a cast and a product.
    bits = {4: np.uint32, 2: np.uint16}[factor.element_size()]
    as_integer = {4: torch.int32, 2: torch.int16}[factor.element_size()]
    pattern = bits(factor.view(as_integer).item() & int(np.iinfo(bits).max))
    return torch.from_numpy((kept * pattern).view(bits)).view(dtype).view(shape)


def use_fast_dropout(module: nn.Module) -> None:
    """Replace every nn.Dropout below a module by ours, with its probability."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        else:
            use_fast_dropout(child)


class WordRows:
    """Word embeddings in training: an update works on the rows that its texts use.

    A gradient of all 30,522 rows would be made, filled with zeros and added up for every part. Here a copy of the rows
    in use is the leaf of the graph, and one kept tensor, zero elsewhere, carries its gradient to the optimiser, which
    goes on moving all rows. So what is computed stays the same. Outside an update the table itself is looked up.
    """

    def __init__(self, embedding: nn.Embedding):
        self.table = embedding.weight
        self.leaf: Tensor | None = None
        self.used: Tensor | None = None
        self.gradient: Tensor | None = None
        self.place = torch.zeros(len(self.table), dtype=torch.int64, device=self.table.device)

    def __call__(self, ids: Tensor) -> Tensor:
        """(...,) token ids -> (..., H)."""
        if self.leaf is None:
            return functional.embedding(ids, self.table)
        return functional.embedding(self.place[ids], self.leaf)

    def open(self, ids: Sequence[Tensor]) -> None:
        """Begin an update on these token ids."""
        self._wipe()
        self.place = self.place.to(self.table.device)  # the model may have moved
        self.used = torch.cat([some.flatten() for some in ids]).unique()
        self.place[self.used] = torch.arange(len(self.used), device=self.table.device)
        self.leaf = self.table.detach()[self.used].requires_grad_(self.table.requires_grad)

    def close(self) -> None:
        """End the passes: the table gets the gradient, zero where no text had a word."""
        if self.leaf.grad is not None:
            if self.gradient is None:
                self.gradient = torch.zeros_like(self.table)
            self.table.grad = self.gradient.index_copy_(0, self.used, self.leaf.grad)
        self.leaf = None

    def stand_in(self, parameter: Tensor) -> Tensor:
        """The rows in use in place of the table, any other parameter as it is."""
        return self.leaf if parameter is self.table and self.leaf is not None else parameter

    def _wipe(self) -> None:
        if self.gradient is not None and self.used is not None:
            self.gradient.index_fill_(0, self.used, 0.0)


@dataclass
class Weights:
    """Linear layers' weights in the precision of matrix products: float32, or bfloat16 as under autocast.

    kept: a dictionary during an update, so that weights are cast once however many passes it makes, as autocast does.
    """

    dtype: torch.dtype
    kept: dict[object, tuple[Tensor, ...]] | None = None

    def __call__(self, *layers: nn.Linear) -> tuple[Tensor, ...]:
        """Weight (out, in) and bias (out,) of layers side by side on the same input."""
        kept, key = {} if self.kept is None else self.kept, (layers, torch.is_grad_enabled())
        if key not in kept:
            columns = [layer.weight for layer in layers], [layer.bias for layer in layers]
            kept[key] = tuple((c[0] if len(c) == 1 else torch.cat(c)).to(self.dtype) for c in columns)
        return kept[key]


class Place(NamedTuple):
    """Where a part's real tokens stand: rows start..stop of the packed matrix, `index` of its padded (B * T) rows."""

    start: int
    stop: int
    index: Tensor
    shape: tuple[int, int]
    bias: Tensor  # (B * A, 1, T): 0 on real tokens, a large negative number on padding


def encode_packed(
    encoder: BertModel,
    words: Callable[[Tensor], Tensor],
    parts: Sequence[Part],
    noises: Sequence[Tensor | None],
    weights: Weights,
) -> list[BertOutput]:
    """What the encoder gives for each part, computed on the real tokens of all parts at once.

    Args:
        encoder: its weights and dropout are used; nothing is stored in it.
        words: token ids -> their embeddings: the encoder's own table, or WordRows on it.
        parts: (input_ids, attention_mask, token_type_ids), each (B, T).
        noises: per part (B, T, H) added to the embeddings, or None.
        weights: gives the layers' weights, and with them the precision of products; sums and norms stay in float32.

    Returns:
        Per part a BertOutput without attentions; padded positions hold zeros.
    """
    places = _places(parts, encoder.config.num_attention_heads, weights.dtype)
    ids, types, positions = (_gathered(columns, places) for columns in zip(*map(_columns, parts), strict=True))
    e = encoder.embeddings
    summed = words(ids) + e.position_embeddings.weight[positions] + e.token_type_embeddings(types)
    hidden = e.dropout(e.LayerNorm(summed))  # (N, H)
    if any(noise is not None for noise in noises):
        given = [_or_zeros(noise, place, hidden) for noise, place in zip(noises, places, strict=True)]
        hidden = hidden + _gathered(given, places)
    for layer in encoder.encoder["layer"]:
        hidden = _layer(layer, hidden, places, weights)
    outputs = [_padded(hidden[p.start : p.stop], p) for p in places]
    dense = encoder.pooler["dense"]
    pooled = [torch.tanh(_linear(output[:, 0], weights, dense)).float() for output in outputs]
    return [BertOutput(output, pool, None) for output, pool in zip(outputs, pooled, strict=True)]


def _layer(layer: BertLayer, hidden: Tensor, places: Sequence[Place], weights: Weights) -> Tensor:
    """BertLayer on packed rows: (N, H) -> (N, H), both float32."""
    attention, own = layer.attention["self"], layer.attention["output"]
    mixed = _linear(hidden, weights, attention.query, attention.key, attention.value)  # (N, 3H)
    context = torch.cat([_attend(attention, mixed[p.start : p.stop], p) for p in places])  # (N, H)
    attended = own.LayerNorm(hidden + own.dropout(_linear(context, weights, own.dense)))
    expanded = functional.gelu(_linear(attended, weights, layer.intermediate["dense"]))  # (N, 4H)
    return layer.output.LayerNorm(attended + layer.output.dropout(_linear(expanded, weights, layer.output.dense)))


def _attend(attention: nn.Module, mixed: Tensor, place: Place) -> Tensor:
    """Attention of one part: packed query, key and value (n, 3H) -> packed context (n, H)."""
    B, T = place.shape
    A, D = attention.num_heads, attention.head_size
    padded = _padded(mixed, place).view(B, T, 3, A, D).permute(2, 0, 3, 1, 4)  # (3, B, A, T, D)
    query, key, value = padded.reshape(3, B * A, T, D)
    scores = torch.baddbmm(place.bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(D))  # (B * A, T, T)
    shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)  # the bfloat16 kernel is the slower one
    context = attention.dropout(shares) @ value  # (B * A, T, D)
    return context.view(B, A, T, D).transpose(1, 2).reshape(B * T, A * D).index_select(0, place.index)


def _linear(states: Tensor, weights: Weights, *layers: nn.Linear) -> Tensor:
    return functional.linear(states.to(weights.dtype), *weights(*layers))


def _places(parts: Sequence[Part], heads: int, dtype: torch.dtype) -> list[Place]:
    places, start = [], 0
    for _, mask, _ in parts:
        index = mask.flatten().nonzero().squeeze(1)
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask == 0, -1e9)
        bias = bias.repeat_interleave(heads, 0).unsqueeze(1)  # (B * A, 1, T)
        places.append(Place(start, start + len(index), index, tuple(mask.shape), bias))
        start += len(index)
    return places


def _columns(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, segment ids and positions of a part, each (B, T)."""
    ids, _, types = part
    return ids, types, torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)


def _gathered(padded: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """The real rows of padded (B, T, ...) tensors, one part after another."""
    rows = [tensor.flatten(0, 1).index_select(0, p.index) for tensor, p in zip(padded, places, strict=True)]
    return torch.cat(rows)


def _padded(packed: Tensor, place: Place) -> Tensor:
    """Packed rows (n, C) at their places in (B, T, C), zeros elsewhere."""
    B, T = place.shape
    rows = packed.new_zeros(B * T, packed.shape[1]).index_copy(0, place.index, packed)
    return rows.view(B, T, packed.shape[1])


def _or_zeros(noise: Tensor | None, place: Place, like: Tensor) -> Tensor:
    return like.new_zeros(*place.shape, like.shape[1]) if noise is None else noise
