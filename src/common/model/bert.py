"""BERT from scratch (Devlin et al. 2019, section 3; Vaswani et al. 2017, section 3), in the order of the data.

Parameter names are those of the published checkpoints, so loading needs no table. Attention is written out as
matmul, softmax, matmul: that gives the attention maps, and on a CPU it is faster than the fused kernel for small heads.
Reference for the tests: `transformers.BertModel`. Not here: reading files (weights.py), heads (heads.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.errors import StudyError
from common.model import weights


@dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder, with the field names of a checkpoint's config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads


class BertOutput(NamedTuple):
    """last_hidden_state (B, T, H); pooler_output (B, H); attentions: per layer (B, A, T, T), or None."""

    last_hidden_state: Tensor
    pooler_output: Tensor
    attentions: tuple[Tensor, ...] | None


class BertEmbeddings(nn.Module):
    """Token plus position plus segment embedding, then LayerNorm and dropout."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        T = input_ids.shape[1]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        words = self.word_embeddings(input_ids)  # (B, T, H)
        positions = self.position_embeddings.weight[:T]  # (T, H)
        return self.dropout(self.LayerNorm(words + positions + self.token_type_embeddings(token_type_ids)))


class BertSelfAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden: Tensor, mask_bias: Tensor, is_fused: bool = False) -> tuple[Tensor, Tensor | None]:
        """hidden (B, T, H), mask_bias (B, 1, 1, T) -> context (B, T, H), attention before dropout (B, A, T, T).

        is_fused: torch's kernel, which is the fast one on a GPU and gives no attention.
        """
        query, key, value = (self._split(layer(hidden)) for layer in (self.query, self.key, self.value))
        if is_fused:
            dropped = self.dropout.p if self.training else 0.0
            bias = mask_bias.to(query.dtype)
            context = nn.functional.scaled_dot_product_attention(query, key, value, bias, dropped)
            return context.transpose(1, 2).flatten(2), None
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size)  # (B, A, T, T)
        attention = (scores + mask_bias).softmax(dim=-1)
        context = self.dropout(attention).to(value.dtype) @ value  # (B, A, T, D)
        return context.transpose(1, 2).flatten(2), attention  # (B, T, H)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)  # (B, A, T, D)


class BertResidualOutput(nn.Module):
    """LayerNorm(residual + dropout(dense(states))): how both halves of a layer end."""

    def __init__(self, config: BertConfig, in_size: int):
        super().__init__()
        self.dense = nn.Linear(in_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(states)))


class BertLayer(nn.Module):
    """Attention, then a feed-forward block with GELU, each with residual and LayerNorm after it.

    What `added` holds joins the second sum: LN(h_att + FFN(h_att) + added) (Stickland & Murray 2019, section 3.3).
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        attention = {"self": BertSelfAttention(config), "output": BertResidualOutput(config, config.hidden_size)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = BertResidualOutput(config, config.intermediate_size)

    def forward(
        self, hidden: Tensor, mask_bias: Tensor, added: Tensor | None = None, is_fused: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        context, attention = self.attention["self"](hidden, mask_bias, is_fused)
        attended = self.attention["output"](context, hidden)  # (B, T, H)
        expanded = nn.functional.gelu(self.intermediate["dense"](attended))  # (B, T, 4H)
        return self.output(expanded, attended if added is None else attended + added), attention


class BertModel(nn.Module):
    """The encoder with its pooler (tanh of a dense layer on the first token, as in next-sentence prediction)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **overrides: float) -> BertModel:
        """Load a published checkpoint (folder or hub id, safetensors only); overrides replace config fields.

        Raises:
            StudyError: no such checkpoint, another architecture, or weights that are missing or misshapen.
        """
        folder = weights.resolve_encoder(str(path_or_id))
        model = BertModel(config_of(folder, **overrides))
        state = weights.read_state(folder, {name: tuple(p.shape) for name, p in model.state_dict().items()})
        model.load_state_dict(state)
        return model

    def reset_parameters(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Random weights as Devlin et al. start: N(0, 0.02), zero biases, LayerNorm at identity."""
        for name, parameter in self.named_parameters():
            if "LayerNorm.weight" in name:
                nn.init.ones_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=std, generator=generator)

    def freeze_first(self, layers: int) -> None:
        """Stop training the embeddings and the first `layers` layers; StudyError when there are fewer."""
        stack = self.encoder["layer"]
        if layers > len(stack):
            what, fix = f"the encoder has {len(stack)} layers, not {layers}.", f"Freeze at most {len(stack)}."
            raise StudyError("E-ENCODER", "encoder.frozen_layers", what, fix)
        nn.ModuleList([self.embeddings, *stack[:layers]]).requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        output_attentions: bool = False,
        *,
        noise: Tensor | None = None,
        pals: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    ) -> BertOutput:
        """Encode a padded batch.

        Args:
            input_ids: (B, T) int.
            attention_mask: (B, T), 1 or True where the token is real.
            token_type_ids: (B, T) int segment ids, all zero when None.
            output_attentions: also return every layer's attention, before dropout.
            noise: (B, T, H), added to the finished embeddings (after LayerNorm and dropout).
            pals: what each layer adds to its last sum, (B, T, H), given its index, its input (B, T, H) and the mask
                as a bias (B, 1, 1, T): 0 where the token is real, -1e9 elsewhere. See pals.py.

        Raises:
            ValueError: the mask has another shape, or T exceeds the position embeddings.
        """
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` {tuple(attention_mask.shape)} must match `input_ids` {tuple(input_ids.shape)}"
            )
        if input_ids.shape[1] > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"`input_ids` has {input_ids.shape[1]} tokens, the encoder {limit} positions")
        hidden = self.embeddings(input_ids, token_type_ids)  # (B, T, H)
        hidden = hidden if noise is None else hidden + noise
        mask_bias = torch.zeros(attention_mask.shape, device=hidden.device).masked_fill(~attention_mask.bool(), -1e9)
        mask_bias, attentions = mask_bias[:, None, None, :], []  # (B, 1, 1, T)
        for index, layer in enumerate(self.encoder["layer"]):
            added = None if pals is None else pals(index, hidden, mask_bias)
            hidden, attention = layer(hidden, mask_bias, added, is_fused=hidden.is_cuda and not output_attentions)
            if output_attentions:
                attentions.append(attention)
        pooled = torch.tanh(self.pooler["dense"](hidden[:, 0]))  # (B, H)
        return BertOutput(hidden, pooled, tuple(attentions) if output_attentions else None)


def config_of(folder: Path, **overrides: float) -> BertConfig:
    """The BertConfig in a checkpoint folder; an encoder that is not a plain BERT is refused."""
    raw = weights.read_config(folder)
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if raw.get(key, value) != value:
            fix = "Choose a BERT checkpoint."
            raise StudyError(
                "E-ENCODER", folder / "config.json", f"{key} is {raw[key]!r}, this code is {value!r}.", fix
            )
    known = {name: raw[name] for name in BertConfig.__dataclass_fields__ if name in raw}
    try:
        return BertConfig(**{**known, **overrides})
    except TypeError as error:
        raise StudyError(
            "E-ENCODER", folder / "config.json", f"sizes are missing: {error}.", "Use a complete config.json."
        ) from error
