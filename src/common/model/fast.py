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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.data.encoding import Part
from common.model.bert import BertLayer, BertModel, BertOutput
from common.model.pals import ProjectedAttentionLayers

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
    in use is the leaf of the graph, and the table gets a sparse gradient. Outside an update the table itself is looked
    up.
    """

    def __init__(self, embedding: nn.Embedding):
        self.table = embedding.weight
        self.leaf: Tensor | None = None
        self.used: Tensor | None = None
        self.place = torch.zeros(len(self.table), dtype=torch.int64, device=self.table.device)

    def __call__(self, ids: Tensor) -> Tensor:
        """(...,) token ids -> (..., H)."""
        if self.leaf is None:
            return functional.embedding(ids, self.table)
        return functional.embedding(self.place[ids], self.leaf)

    def open(self, ids: Sequence[Tensor]) -> None:
        """Begin an update on these token ids."""
        self.place = self.place.to(self.table.device)  # the model may have moved
        self.used = torch.cat([some.flatten() for some in ids]).unique()
        self.place[self.used] = torch.arange(len(self.used), device=self.table.device)
        self.leaf = self.table.detach()[self.used].requires_grad_(self.table.requires_grad)

    def close(self) -> None:
        """End the passes: the table gets the gradient of the rows in use."""
        if self.leaf.grad is not None:
            rows, size = self.used.unsqueeze(0), self.table.shape
            self.table.grad = torch.sparse_coo_tensor(
                rows, self.leaf.grad, size, is_coalesced=True, check_invariants=False
            )
        self.leaf = None

    def stand_in(self, parameter: Tensor) -> Tensor:
        """The rows in use in place of the table, any other parameter as it is."""
        return self.leaf if parameter is self.table and self.leaf is not None else parameter


class Weights:
    """Linear layers' weights in the precision of matrix products: float32, or bfloat16 as under autocast.

    A cast is made again when its weight has changed. The optimiser asks for that (`renew`) while the weight is at hand,
    for at batches of 8 an update takes its time from reading and writing weights. During an update (`leaves`) casts are
    leaves of the graph, whose gradients `collect` gives to the weights.
    """

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.casts: dict[nn.Parameter, tuple[Tensor, list[int]]] = {}  # its rows in the cast; the version they are of
        self.wholes: dict[nn.Parameter, Tensor] = {}
        self.leaves: dict[nn.Parameter, tuple[Tensor, list[nn.Parameter]]] | None = None

    def __call__(self, *layers: nn.Linear) -> list[Tensor]:
        """Weight (out, in) and bias (out,) of layers side by side on the same input."""
        columns = [layer.weight for layer in layers], [layer.bias for layer in layers]
        if self.dtype == torch.float32 or (torch.is_grad_enabled() and self.leaves is None):
            return [(column[0] if len(column) == 1 else torch.cat(column)).to(self.dtype) for column in columns]
        return [self._cast(column) for column in columns]

    def renew(self, parameter: nn.Parameter) -> None:
        """Cast a weight again, if there is a cast of it. Fused optimisers change weights without counting it."""
        if parameter in self.casts:
            cast, version = self.casts[parameter]
            cast.copy_(parameter.detach())
            version[0] = parameter._version

    def collect(self, precise: bool) -> None:
        """After a backward pass: the weights get the gradients of their casts, in float32 where that is asked for."""
        for leaf, parameters in self.leaves.values():
            if leaf.grad is not None:
                for parameter, part in zip(parameters, leaf.grad.split([len(p) for p in parameters]), strict=True):
                    parameter.grad_dtype = None  # any
                    part = part.float() if precise else part
                    parameter.grad = part if parameter.grad is None else parameter.grad + part
                leaf.grad = None

    def _cast(self, parameters: list[nn.Parameter]) -> Tensor:
        first = parameters[0]
        if first not in self.wholes:
            with torch.inference_mode(False):
                rows = [len(parameter) for parameter in parameters]
                self.wholes[first] = torch.empty(sum(rows), *first.shape[1:], dtype=self.dtype, device=first.device)
                parts = self.wholes[first].split(rows)
                self.casts |= {p: (part, [-1]) for p, part in zip(parameters, parts, strict=True)}
        for parameter in parameters:
            if self.casts[parameter][1][0] != parameter._version:
                self.renew(parameter)
        if not torch.is_grad_enabled():
            return self.wholes[first]
        if first not in self.leaves:
            self.leaves[first] = self.wholes[first].detach().requires_grad_(first.requires_grad), parameters
        return self.leaves[first][0]


class Place(NamedTuple):
    """Where a part's real tokens stand: rows start..stop of the packed matrix, `index` of its padded (B * T) rows."""

    start: int
    stop: int
    index: Tensor
    shape: tuple[int, int]
    bias: Tensor  # (B, 1, T): 0 on real tokens, a large negative number on padding


def encode_packed(
    encoder: BertModel,
    words: Callable[[Tensor], Tensor],
    parts: Sequence[Part],
    noises: Sequence[Tensor | None],
    weights: Weights,
    pals: Sequence[ProjectedAttentionLayers] | None = None,
) -> list[BertOutput]:
    """What the encoder gives for each part, computed on the real tokens of all parts at once.

    Args:
        encoder: its weights and dropout are used; nothing is stored in it.
        words: token ids -> their embeddings: the encoder's own table, or WordRows on it.
        parts: (input_ids, attention_mask, token_type_ids), each (B, T).
        noises: per part (B, T, H) added to the embeddings, or None.
        weights: gives the layers' weights, and with them the precision of products; sums and norms stay in float32.
        pals: per part the projected attention layers of its task.

    Returns:
        Per part a BertOutput without attentions; padded positions hold zeros.
    """
    places = _places(parts, weights.dtype)
    ids, types, positions = (_gathered(columns, places) for columns in zip(*map(_columns, parts), strict=True))
    e = encoder.embeddings
    summed = words(ids) + e.position_embeddings.weight[positions] + e.token_type_embeddings(types)
    hidden = e.dropout(e.LayerNorm(summed))  # (N, H)
    if any(noise is not None for noise in noises):
        given = [_or_zeros(noise, place, hidden) for noise, place in zip(noises, places, strict=True)]
        hidden = hidden + _gathered(given, places)
    for index, layer in enumerate(encoder.encoder["layer"]):
        added = None
        if pals is not None:
            parted = [
                _pal(pal, index, hidden[p.start : p.stop], p, weights) for pal, p in zip(pals, places, strict=True)
            ]
            added = _with_spare(parted, len(hidden))
        hidden = _layer(layer, hidden, places, weights, added)
    outputs = [_padded(hidden[p.start : p.stop], p) for p in places]
    dense = encoder.pooler["dense"]
    pooled = [torch.tanh(_linear(output[:, 0], weights, dense)).float() for output in outputs]
    return [BertOutput(output, pool, None) for output, pool in zip(outputs, pooled, strict=True)]


def _layer(layer: BertLayer, hidden: Tensor, places: Sequence[Place], weights: Weights, added: Tensor | None) -> Tensor:
    """BertLayer on packed rows: (N, H) -> (N, H), both float32."""
    attention, own, output = layer.attention["self"], layer.attention["output"], layer.output
    mixed = _linear(hidden, weights, attention.query, attention.key, attention.value)  # (N, 3H)
    context = _with_spare([_attend(attention, mixed[p.start : p.stop], p) for p in places], len(hidden))  # (N, H)
    attended = own.LayerNorm(hidden + own.dropout(_linear(context, weights, own.dense)))
    expanded = functional.gelu(_linear(attended, weights, layer.intermediate["dense"]))  # (N, 4H)
    residual = attended if added is None else attended + added
    return output.LayerNorm(residual + output.dropout(_linear(expanded, weights, output.dense)))


def _pal(pal: ProjectedAttentionLayers, index: int, hidden: Tensor, place: Place, weights: Weights) -> Tensor:
    """What projected attention adds to a layer, on one part's packed rows: (n, H) -> (n, H)."""
    attention = pal.layer[index]
    mixed = _linear(_linear(hidden, weights, pal.down), weights, attention.query, attention.key, attention.value)
    return pal.activation(_linear(_attend(attention, mixed, place), weights, pal.up))


def _attend(attention: nn.Module, mixed: Tensor, place: Place) -> Tensor:
    """Attention of one part: packed query, key and value (n, 3H) -> packed context (n, H)."""
    B, T = place.shape
    A, D = attention.num_heads, attention.head_size
    padded = _padded(mixed, place).view(B, T, 3, A, D).permute(2, 0, 3, 1, 4)  # (3, B, A, T, D)
    query, key, value = padded.reshape(3, B * A, T, D)
    bias = place.bias.repeat_interleave(A, 0)  # (B * A, 1, T)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(D))  # (B * A, T, T)
    shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)  # the bfloat16 kernel is the slower one
    context = attention.dropout(shares) @ value  # (B * A, T, D)
    return context.view(B, A, T, D).transpose(1, 2).reshape(B * T, A * D).index_select(0, place.index)


def _linear(states: Tensor, weights: Weights, *layers: nn.Linear) -> Tensor:
    return functional.linear(states.to(weights.dtype), *weights(*layers))


def _places(parts: Sequence[Part], dtype: torch.dtype) -> list[Place]:
    places, start = [], 0
    for _, mask, _ in parts:
        index = mask.flatten().nonzero().squeeze(1)
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask == 0, -1e9)
        places.append(Place(start, start + len(index), index, tuple(mask.shape), bias.unsqueeze(1)))
        start += len(index)
    return places


def _columns(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, segment ids and positions of a part, each (B, T)."""
    ids, _, types = part
    return ids, types, torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)


def _gathered(padded: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """The real rows of padded (B, T, ...) tensors, one part after another."""
    rows = [tensor.flatten(0, 1).index_select(0, p.index) for tensor, p in zip(padded, places, strict=True)]
    return _with_spare(rows, rounded(places[-1].stop))


def _with_spare(rows: list[Tensor], count: int) -> Tensor:
    """Packed rows of all parts and as many of zeros as make `count`; no part reads those."""
    return torch.cat([*rows, rows[0].new_zeros(count - sum(map(len, rows)), *rows[0].shape[1:])])


def rounded(count: int) -> int:
    """Rows of a packed matrix: at most an eighth more than are needed, so that few shapes occur.

    The library of products builds a kernel for every new shape, which takes longer than ten products of a small batch.
    """
    grain = max(8, (1 << count.bit_length()) >> 4)
    return -(-count // grain) * grain


def _padded(packed: Tensor, place: Place) -> Tensor:
    """Packed rows (n, C) at their places in (B, T, C), zeros elsewhere."""
    B, T = place.shape
    rows = packed.new_zeros(B * T, packed.shape[1]).index_copy(0, place.index, packed)
    return rows.view(B, T, packed.shape[1])


def _or_zeros(noise: Tensor | None, place: Place, like: Tensor) -> Tensor:
    return like.new_zeros(*place.shape, like.shape[1]) if noise is None else noise
