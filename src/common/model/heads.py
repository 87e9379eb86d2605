"""From an encoder to three tasks: how sentences enter, how they are pooled, and what predicts.

Each choice is a small function or class found by its name in a RunSpec. Dropout and heads run in float32 whatever the
encoder's precision: cosines near 1 need it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from common.data.encoding import Batch, Part
from common.declare.spec import RunSpec, TaskSpec
from common.declare.tasks import TASKS
from common.model.bert import BertModel, BertOutput
from common.model.fast import Weights, WordRows, encode_packed, use_fast_dropout
from common.model.pals import ProjectedAttentionLayers

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
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def joined(*vectors: Tensor) -> Tensor:
    """The sentence vectors side by side, (B, n H); one alone is itself."""
    return torch.cat(vectors, dim=-1)


def with_difference(first: Tensor, second: Tensor) -> Tensor:
    """Both vectors and the size of their difference, (B, 3 H) (Reimers & Gurevych 2019, section 3, classification)."""
    return torch.cat([first, second, (first - second).abs()], dim=-1)


FEATURES: dict[str, Callable[..., Tensor]] = {"concat": joined, "sbert": with_difference}
# What becomes of a cosine (B, 1): Gu's section 4 for 5 ReLU(cos); BERT++'s section 4.3.5 for the ReLU and the sigmoid.
OUTPUTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "raw": lambda cosine, scale: scale * cosine,
    "relu": lambda cosine, scale: scale * cosine.relu(),
    "times_five": lambda cosine, scale: 5 * cosine,
    "relu_times_five": lambda cosine, scale: 5 * cosine.relu(),
    "shifted_times_five": lambda cosine, scale: 2.5 * (1 + cosine),
    "sigmoid_times_five": lambda cosine, scale: 5 * torch.sigmoid(scale * cosine),
}


class Head(nn.Module):
    """From pooled sentence vectors (B, H) to an output (B, C)."""

    def training_scores(self, *vectors: Tensor) -> Tensor:
        """What the task's loss compares with the labels: the output itself, unless a head says otherwise."""
        return self(*vectors)


class LinearHead(Head):
    """Dropout, then one linear layer on the features (starter; swissBERT section 4.1)."""

    def __init__(self, in_size: int, out_size: int, dropout: float, features: Callable[..., Tensor] = joined):
        super().__init__()
        self.features, self.dropout, self.out = features, nn.Dropout(dropout), nn.Linear(in_size, out_size)

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(*vectors)))


class TwoLayerHead(Head):
    """Dropout, linear, activation, (dropout,) linear; `first` may be shared with another task.

    Sources: swissBERT, Weight Sharing; Gu section 4 with GELU; BERT++'s "fusion" layer, on projected vectors.
    """

    def __init__(self, first: nn.Linear, out_size: int, task: TaskSpec, dropout: float):
        super().__init__()
        self.features, self.dropout, self.first = FEATURES[task.features], nn.Dropout(dropout), first
        self.activation = ACTIVATIONS[task.activation]()
        self.inner_dropout = nn.Dropout(task.dropout if task.inner_dropout else 0.0)
        self.out = nn.Linear(first.out_features, out_size)

    def forward(self, *vectors: Tensor) -> Tensor:
        inner = self.activation(self.first(self.dropout(self.features(*vectors))))
        return self.out(self.inner_dropout(inner))


class CosineHead(Head):
    """The cosine of two sentence vectors, (B, 1), through `output`; no parameters (Reimers & Gurevych 2019)."""

    def __init__(self, output: str, scale: float):
        super().__init__()
        self.output, self.scale = OUTPUTS[output], scale

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        cosine = torch.cosine_similarity(first, second, dim=-1, eps=COSINE_EPS).unsqueeze(-1)
        return self.output(cosine, self.scale)


class RankedHead(Head):
    """Predicts with another head; is trained on the cosines of all pairs of a batch (Henderson et al. 2017, section 4).

    The loss never reaches the parameters of the other head: a linear one keeps its random start.
    """

    def __init__(self, head: Head, scale: float):
        super().__init__()
        self.head, self.scale = head, scale

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.head(*vectors)

    def training_scores(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, B): scale times the cosine of first sentence i with second sentence j."""
        first, second = (nn.functional.normalize(v, dim=-1, eps=COSINE_EPS) for v in (first, second))
        return self.scale * first @ second.T


class ProjectedHead(Head):
    """Each sentence vector through dropout, one dense layer of the task and an activation, then a head.

    Source: BERT++ section 4.3.5 and section 5, "further learning the embeddings"; both sentences pass one layer.
    """

    def __init__(self, size: int, task: TaskSpec, head: Head):
        super().__init__()
        dense = nn.Sequential(nn.Dropout(task.dropout), nn.Linear(size, size), ACTIVATIONS[task.activation]())
        self.projection, self.head = dense, head

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.head(*(self.projection(vector) for vector in vectors))

    def training_scores(self, *vectors: Tensor) -> Tensor:
        return self.head.training_scores(*(self.projection(vector) for vector in vectors))


class SharedTransformer(nn.Module):
    """One transformer layer over the sentence vectors of an example, shared by its tasks (SlapBERT section 4.4).

    The report gives the width alone: 8 heads, a feed-forward block of 2048 in 768 and ReLU are torch's defaults and
    examples. There are no positions, so the layer itself does not know which sentence came first.
    """

    def __init__(self, size: int, heads: int = 8):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(size, heads, size * 2048 // 768, batch_first=True)

    def forward(self, vectors: list[Tensor]) -> list[Tensor]:
        """n vectors (B, H) -> n vectors (B, H), each having attended to all n."""
        return list(self.layer(torch.stack(vectors, dim=1)).unbind(dim=1))


class MultitaskModel(nn.Module):
    """One encoder, one head per task. `forward(task, batch)` gives the head's output, (B, C) float32."""

    def __init__(self, encoder: BertModel, spec: RunSpec, generator: torch.Generator):
        super().__init__()
        size = encoder.config.hidden_size
        self.encoder = encoder
        self.tasks = {task.name: task for task in spec.tasks}
        self.heads = build_heads(spec, size, generator)
        self.shared = None
        if any(task.shared_transformer for task in spec.tasks):
            self.shared = SharedTransformer(size)
            _reset(self.shared, generator)
        pals = spec.encoder.pals
        self.pals = nn.ModuleDict(
            {t.name: ProjectedAttentionLayers(encoder.config, pals, generator) for t in spec.tasks} if pals else {}
        )
        self.is_frozen = spec.encoder.frozen
        self.use_bf16 = spec.precision == "bf16" and has_bf16()
        self.is_packed = spec.engine == "fast"
        encoder.requires_grad_(not self.is_frozen)
        if spec.encoder.frozen_layers:
            encoder.freeze_first(spec.encoder.frozen_layers)
        if spec.engine == "fast":
            use_fast_dropout(self)
        self.trained_by = spec.encoder.trained_by
        self.encoder_trained = [p for p in encoder.parameters() if p.requires_grad]
        self.train()
        words = encoder.embeddings.word_embeddings
        self.rows = WordRows(words) if self.is_packed and words.weight.requires_grad else None
        self.weights = Weights(torch.bfloat16 if self.use_bf16 else torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and batches must be."""
        return self.encoder.pooler["dense"].weight.device

    def forward(self, task: str, batch: Batch, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The head's output; noise, one (B, T, H) per part, is added to the embeddings."""
        return self.heads[task](*self.sentence_vectors(task, batch, noise))

    def training_scores(self, group: Sequence[tuple[str, Batch]]) -> list[Tensor]:
        """What each batch's loss takes: the output (B, C), or for a ranking loss the scores of all pairs (B, B)."""
        vectors = self.group_vectors(group)
        return [self.heads[task].training_scores(*found) for (task, _), found in zip(group, vectors, strict=True)]

    def sentence_vectors(self, task: str, batch: Batch, noise: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The vector of each part of the batch that the head sees, each (B, H) float32."""
        return self.group_vectors([(task, batch)], noise)[0]

    def group_vectors(
        self, group: Sequence[tuple[str, Batch]], noise: Sequence[Tensor] | None = None
    ) -> list[list[Tensor]]:
        """`sentence_vectors` of several batches, encoded in one pass where the engine can; noise: one per part."""
        is_known = all(batch.vectors is not None for _, batch in group)
        found = [list(batch.vectors) for _, batch in group] if is_known else self.pooled(group, noise)
        return [
            self.shared(vectors) if self.tasks[task].shared_transformer else vectors
            for (task, _), vectors in zip(group, found, strict=True)
        ]

    def pooled(self, group: Sequence[tuple[str, Batch]], noise: Sequence[Tensor] | None = None) -> list[list[Tensor]]:
        """What the encoder alone gives for each batch of a group: per part (B, H) float32."""
        parts = [part for _, batch in group for part in batch.inputs]
        noises = noise or [None] * len(parts)
        owners = [task for task, batch in group for _ in batch.inputs]
        if self.is_packed:
            words = self.rows or self.encoder.embeddings.word_embeddings
            pals = [self.pals[task] for task in owners] if self.pals else None
            outputs = encode_packed(self.encoder, words, parts, noises, self.weights, pals)
        else:
            outputs = [self.encode(t, part, noise=n) for t, part, n in zip(owners, parts, noises, strict=True)]
        left = iter(zip(outputs, parts, strict=True))
        return [
            [POOLINGS[self.tasks[task].pooling](o, p[1]).float() for o, p in itertools.islice(left, len(batch.inputs))]
            for task, batch in group
        ]

    def encode(self, task: str, part: Part, **options: object) -> BertOutput:
        """One part through the encoder with the task's own PALs, if it has any."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.use_bf16):
            return self.encoder(*part, pals=self.pals[task] if self.pals else None, **options)

    def shared_parameters(self) -> list[Tensor]:
        """Trained parameters that more than one task uses: BERT, the shared layer, a head layer of a group.

        Within an update of the fast engine the rows in use stand for the word embeddings.
        """
        uses = Counter(p for head in self.heads.values() for p in set(head.parameters()))
        shared = [p for p, count in uses.items() if count > 1]
        encoder = [self.rows.stand_in(p) if self.rows else p for p in self.encoder_trained]
        return encoder + (list(self.shared.parameters()) if self.shared else []) + shared

    def prepare_update(self, group: Sequence[tuple[str, Batch]]) -> None:
        """Before the passes of an update: BERT's own weights take part only where a task trains it."""
        if self.trained_by is not None:
            for parameter in self.encoder_trained:
                parameter.requires_grad_(any(task in self.trained_by for task, _ in group))
        self.weights.leaves = {}
        if self.rows:
            self.rows.open([part[0] for _, batch in group for part in batch.inputs])

    def finish_update(self) -> None:
        """After the passes, before the optimiser: gradients of single rows become those of the word embeddings."""
        self.weights.leaves = None
        if self.rows:
            self.rows.close()

    def train(self, mode: bool = True) -> MultitaskModel:
        """Training mode; a frozen encoder stays in evaluation mode, as features without dropout noise."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self


def has_bf16() -> bool:
    """Whether products in bfloat16 are faster than in float32 here; without instructions for them they take 70 times as
    long. Told from the processor, not measured, so that results are the same on every machine of one kind."""
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def build_heads(spec: RunSpec, hidden_size: int, generator: torch.Generator) -> nn.ModuleDict:
    """The heads of a run, initialised from the generator; tasks of one group get the same first layer."""
    shared: dict[str, nn.Linear] = {}
    heads = nn.ModuleDict({task.name: _build_head(task, hidden_size, shared) for task in spec.tasks})
    _reset(heads, generator)
    return heads


def _build_head(task: TaskSpec, hidden_size: int, shared: dict[str, nn.Linear]) -> Head:
    dropout = 0.0 if task.projection else task.dropout  # a projected vector has had its dropout
    in_size = hidden_size * {"concat": 2, "sbert": 3}[task.features] if task.pair_method == "separate" else hidden_size
    out_size = TASKS[task.name].num_classes if task.loss == "cross_entropy" else 1
    if task.pair_method == "cosine":
        head = CosineHead(task.output, 1.0 if task.loss == "mnrl" else task.scale)
    elif task.head_layers == 1:
        head = LinearHead(in_size, out_size, dropout, FEATURES[task.features])
    else:
        first = nn.Linear(in_size, hidden_size)
        if task.shared_layer is not None:
            first = shared.setdefault(task.shared_layer, first)
        head = TwoLayerHead(first, out_size, task, dropout)
    if task.loss == "mnrl":
        head = RankedHead(head, task.scale)
    return ProjectedHead(hidden_size, task, head) if task.projection else head


def _reset(module: nn.Module, generator: torch.Generator) -> None:
    """torch's own starts, but from our generator: linear layers uniform in +-1/sqrt(in), attention Xavier uniform."""
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention):
            nn.init.xavier_uniform_(layer.in_proj_weight, generator=generator)
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
