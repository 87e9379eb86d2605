"""The same rows in plain ways: the library's encoder and optimiser with the habits of a course project.

Heads, losses, schedules and methods stay ours, so that everybody trains the same model on the same examples. `library`:
bfloat16 autocast, PyTorch's fused AdamW, tokens prepared once. `starter`: float32, sentences tokenised whenever a batch
is drawn, an AdamW in Python. Both pad batches as they are drawn to their longest and evaluate in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from common.data import encoding
from common.declare.spec import RunSpec
from common.model import bert
from common.training import evaluate, loop, step

EVALUATION_BATCH = {"library": 64, "starter": 16}


class Library(nn.Module):
    """transformers.BertModel with the call and the names of ours."""

    def __init__(self, folder: Path, hidden_dropout_prob: float = 0.1, attention_probs_dropout_prob: float = 0.1):
        super().__init__()
        dropout = {
            "hidden_dropout_prob": hidden_dropout_prob,
            "attention_probs_dropout_prob": attention_probs_dropout_prob,
        }
        model = transformers.BertModel.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, **dropout
        )
        self.config, self.embeddings, self.layers = bert.config_of(folder), model.embeddings, model.encoder.layer
        self.pooler = nn.ModuleDict({"dense": model.pooler.dense})

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        types: Tensor | None = None,
        output_attentions: bool = False,
        *,
        noise: Tensor | None = None,
        pals: object = None,
    ) -> bert.BertOutput:
        hidden = self.embeddings(input_ids=ids, token_type_ids=types)
        hidden = hidden if noise is None else hidden + noise
        bias = torch.zeros(mask.shape).masked_fill(~mask.bool(), -1e9)[:, None, None, :]
        attentions = []
        for index, layer in enumerate(self.layers):
            added = 0 if pals is None else pals(index, hidden, bias)
            context, attention = layer.attention.self(hidden, attention_mask=bias)[:2]
            attended = layer.attention.output(context, hidden)
            hidden = layer.output(layer.intermediate(attended), attended + added)
            attentions.append(attention)
        pooled = torch.tanh(self.pooler["dense"](hidden[:, 0]))
        return bert.BertOutput(hidden, pooled, tuple(attentions) if output_attentions else None)


class StarterAdamW(torch.optim.Optimizer):
    """The starter's: a loop over parameters, several passes over memory and fresh tensors for each."""

    def __init__(self, groups: list, lr: float, betas: tuple, eps: float, weight_decay: float, **_: object):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            (beta1, beta2), eps = group["betas"], group["eps"]
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state.update(step=0, m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
                state["step"] += 1
                state["m"].mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                size = group["lr"] * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
                parameter.addcdiv_(state["m"], state["v"].sqrt().add_(eps), value=-size)
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])


class FusedAdamW(torch.optim.AdamW):
    """PyTorch's own in one pass over memory."""

    def __init__(self, groups: list, lr: float, betas: tuple, eps: float, weight_decay: float, **_: object):
        super().__init__(groups, lr, betas, eps, weight_decay, fused=True)


class Texts:
    """An Encoded whose batches are tokenised when they are drawn, as in a collate function."""

    def __init__(self, split: object, tokenizer: object, layout: encoding.Layout):
        self.split, self.tokenizer, self.layout = split, tokenizer, layout
        self.encoded = encoding.encode(split, tokenizer, layout)
        self.labels, self.lengths, self.truncated = split.labels, self.encoded.lengths, self.encoded.truncated

    def __len__(self) -> int:
        return len(self.encoded)

    def batch(self, rows: np.ndarray, device: str = "cpu") -> encoding.Batch:
        return encoding.encode(self.split.take(rows), self.tokenizer, self.layout).batch(np.arange(len(rows)), device)


def install(way: str, spec: RunSpec) -> RunSpec:
    """Put a way's encoder, optimiser and habits in the place of ours; the spec that its runs have."""
    by_eights = encoding.Ragged.padded

    def padded(ragged: encoding.Ragged, rows: np.ndarray) -> encoding.Part:
        return tuple(tensor[:, : int(ragged.lengths[rows].max())] for tensor in by_eights(ragged, rows))

    def in_file_order(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
        return iter(
            np.split(np.arange(len(lengths)), range(EVALUATION_BATCH[way], len(lengths), EVALUATION_BATCH[way]))
        )

    encoding.Ragged.padded = padded
    bert.BertModel.from_pretrained = staticmethod(Library)
    evaluate.sorted_batches = in_file_order
    step.AdamW = FusedAdamW if way == "library" else StarterAdamW
    if way == "starter":
        loop.encode = Texts
    return replace(spec, engine="plain", grouping=False, precision="bf16" if way == "library" else "fp32")
