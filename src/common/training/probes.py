"""What figures need from a trained model, taken while it is still in memory, so that no weights have to be kept.

Predictions for the reports' own example sentences; for models that read both sentences at once, attention: the maps of
one named pair, and how attention mass is spread over the similarity dev set (swissBERT section 6, Figures 1 to 3); for
models that read sentences apart, where their vectors lie (SlapBERT section 6, Figures 2 to 5 and 7).
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer

from common.data.encoding import Encoded, Layout, encode, sorted_batches
from common.data.split import Split
from common.declare.rows import Example
from common.declare.spec import RunSpec
from common.declare.tasks import TASKS
from common.model.heads import MultitaskModel
from common.training.evaluate import predict, score

ATTENTION_TOKENS = 1024
NEAR_TOKENS = 2
# Pairs at either end of the labels whose vectors are kept.
VECTOR_ENDS = 50
# Pair task -> the label up to which a pair belongs to the low end, and from which to the high end.
LABEL_ENDS = {"para": (0, 1), "sts": (1, 4)}
EVEN = ("even_cross", "even_match")
MASSES = ("cross_mass", "match_mass", "near_mass", "special_mass")


def example_predictions(
    model: MultitaskModel, spec: RunSpec, examples: tuple[Example, ...], tokenizer: Tokenizer
) -> list[dict]:
    """The model's predictions for the reports' examples of the tasks it was trained on."""
    found = []
    for task in spec.tasks:
        chosen = [example for example in examples if example.task == task.name]
        if not chosen:
            continue
        texts = tuple(zip(*(example.texts for example in chosen), strict=True))
        split = Split(tuple(example.id for example in chosen), texts, None)
        predictions = predict(task, score(model, task.name, encode(split, tokenizer, Layout.of(task))))
        found += [
            {"id": e.id, "task": e.task, "texts": list(e.texts), "predicted": float(p)}
            for e, p in zip(chosen, predictions, strict=True)
        ]
    return found


@torch.inference_mode()
def pair_attention(model: MultitaskModel, example: Example, tokenizer: Tokenizer) -> tuple[list[str], np.ndarray]:
    """Tokens of the named pair and its attention maps (L, A, T, T)."""
    model.eval()
    encoded = encode(Split((example.id,), tuple((text,) for text in example.texts), None), tokenizer, Layout(True))
    part = encoded.batch(np.array([0]), model.device).inputs[0]
    output = model.encode(example.task, part, output_attentions=True)
    T = int(part[1].sum())
    tokens = [tokenizer.id_to_token(int(i)) for i in part[0][0, :T]]
    return tokens, torch.cat(output.attentions)[..., :T, :T].float().cpu().numpy()


@torch.inference_mode()
def attention_mass(model: MultitaskModel, encoded: Encoded) -> dict[str, np.ndarray]:
    """Shares of the attention that sentence tokens give, each (L, A), averaged over the pairs of a split.

    cross_mass: to tokens of the other sentence. match_mass: to equal tokens of the other sentence. near_mass: to own
    tokens at distance 1 or 2. special_mass: to [CLS] and both [SEP]. even_cross, even_match: one number each, what the
    first two would be if attention were spread evenly. A pair counts once, whatever its length.
    """
    model.eval()
    totals: dict[str, np.ndarray | float] = dict.fromkeys((*MASSES, *EVEN), 0.0)
    for rows in sorted_batches(encoded.lengths, ATTENTION_TOKENS):
        ids, mask, types = encoded.batch(rows, model.device).inputs[0]
        output = model.encode("sts", (ids, mask, types), output_attentions=True)
        targets = _targets(ids, mask.bool(), types)
        givers = targets.pop("givers")  # (B, T), sums to 1 over a pair's sentence tokens
        attention = torch.stack(output.attentions).float()  # (L, B, A, T, T)
        for name, target in targets.items():
            received = torch.einsum("lbaij,bij,bi->la", attention, target.float(), givers)
            totals[name] = totals[name] + received.double().cpu().numpy()
        real = mask.sum(1)[:, None, None]
        for name in EVEN:  # what would fall there if every token got the same
            spread = targets[f"{name.removeprefix('even_')}_mass"] / real
            totals[name] = totals[name] + torch.einsum("bij,bi->", spread, givers).double().cpu().numpy()
    return {name: np.atleast_1d(total / len(encoded)) for name, total in totals.items()}


def geometry(task: str, vectors: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Where the vectors (N, parts, H) of the scored dev examples lie, with the labels they belong to.

    Pairs: the distance between their two sentences, Euclidean and cosine, and vectors of the first 50 pairs at either
    end of the labels (STS: at least 4, at most 1).
    """
    if len(TASKS[task].text_columns) == 1:
        return {f"{task}_vectors": vectors[:, 0], f"{task}_vector_labels": labels}
    first, second = vectors[:, 0], vectors[:, 1]
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    low, high = LABEL_ENDS[task]
    ends = np.concatenate([np.flatnonzero(end)[:VECTOR_ENDS] for end in (labels >= high, labels <= low)])
    return {
        f"{task}_distances": np.linalg.norm(first - second, axis=1),
        f"{task}_cosine_distances": 1 - (first * second).sum(1) / norms,
        f"{task}_distance_labels": labels,
        f"{task}_vectors": vectors[ends],
        f"{task}_vector_labels": labels[ends],
    }


def _targets(ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B, T, T) masks of who may receive from whom, and the weight (B, T) of each giving token."""
    last = mask.sum(1, keepdim=True) - 1
    position = torch.arange(ids.shape[1], device=ids.device)
    first_separator = (types == 0).logical_and(mask).sum(1, keepdim=True) - 1
    special = (position == 0) | (position == first_separator) | (position == last)  # (B, T)
    words = mask & ~special
    other = (types[:, :, None] != types[:, None, :]) & words[:, None, :]
    distance = (position[:, None] - position[None, :]).abs()
    near = (types[:, :, None] == types[:, None, :]) & words[:, None, :] & (distance > 0) & (distance <= NEAR_TOKENS)
    return {
        "cross_mass": other,
        "match_mass": other & (ids[:, :, None] == ids[:, None, :]),
        "near_mass": near,
        "special_mass": (special & mask)[:, None, :].expand_as(other),
        "givers": words / words.sum(1, keepdim=True).clamp(min=1),
    }


def collect(
    model: MultitaskModel, spec: RunSpec, dev: dict[str, Encoded], examples: tuple[Example, ...], tokenizer: Tokenizer
) -> tuple[dict, dict[str, np.ndarray]]:
    """What a run's examples and attention show: the JSON part for the record and the arrays beside it."""
    facts: dict = {"examples": example_predictions(model, spec, examples, tokenizer)}
    arrays: dict[str, np.ndarray] = {}
    if any(task.name == "sts" and Layout.of(task) == Layout(True) for task in spec.tasks):
        arrays |= attention_mass(model, dev["sts"])
        for example in examples:
            if example.draws_attention:
                facts["pair_tokens"], arrays["pair_attention"] = pair_attention(model, example, tokenizer)
    return facts, arrays


def kept_geometry(spec: RunSpec, vectors: dict[str, torch.Tensor], labels: dict[str, np.ndarray]) -> dict:
    """`geometry` of the models in question alone, for vectors are bulky: those with a layer over the vectors that all
    tasks share (SlapBERT draws its best, which is read as one of them), and frozen ones as their control."""
    if not (spec.encoder.frozen or all(task.shared_transformer for task in spec.tasks)):
        return {}
    apart = [task.name for task in spec.tasks if task.pair_method != "pair" and task.name != "cfimdb"]
    found = [geometry(name, vectors[name].cpu().numpy(), labels[name]) for name in apart]
    return {name: array for arrays in found for name, array in arrays.items()}
