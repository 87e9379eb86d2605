"""Cards: small measured facts that are not runs, kept beside the records so that notebooks can be re-derived from them.

The data card counts what a profile's data holds; the labels card keeps the dev labels, which error analyses need where
the data is not there; the parity card measures our BERT and AdamW against the reference libraries. All are made once,
stored with a hash, and read back in report-only mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from tqdm import TqdmWarning

from common.data.encoding import Layout, encode, input_limit, load_tokenizer, stateless_generator
from common.data.sources import fingerprint
from common.data.split import Split
from common.data.tasks import TASKS
from common.errors import StudyError
from common.model.bert import BertConfig, BertModel, config_of
from common.training.loop import environment
from common.training.optim import AdamW

LENGTH_BINS = 24
SCORE_STEP = 0.2  # the granularity that Gu (section 5.1) gives for STS labels
PARITY_STEPS = 50
RANDOM_CONFIG = BertConfig(97, 48, 3, 4, 64, max_position_embeddings=40, layer_norm_eps=1e-12)


def data_card(lab) -> dict:
    """What the data of this study holds, per task and split.

    counts, labels (label or score bin -> n), off_steps (scores off multiples of SCORE_STEP -> n), lengths (tokens with
    special ones, both sentences of a pair in one input: bins, counts, max, mean), truncated, left_out (ids),
    fingerprint.
    """
    return card(lab, "data", lambda: _measure_data(lab))


def labels_card(lab) -> dict[str, np.ndarray]:
    """Task -> (N,) labels of the scored dev examples, in their order: whole classes, or STS scores in [0, 5]."""
    stored = card(lab, "labels", lambda: {task: _written(lab.scored(task).labels, task) for task in lab.corpus()})
    kinds = {task: float if TASKS[task].kind == "score" else np.int64 for task in stored}
    return {task: np.array(text.split(), dtype=kinds[task]) for task, text in stored.items()}


def parity_card(lab) -> dict:
    """Largest absolute differences from the reference libraries, and where they were measured.

    bert: {"random": ..., "encoder": ...}, each with hidden and pooler, against `transformers.BertModel`. adamw: after
    50 steps, both of our variants against `torch.optim.AdamW`.
    """
    return card(lab, "parity", lambda: _measure_parity(lab))


def card(lab, name: str, measure: Callable[[], dict]) -> dict:
    """The card of that name, measured on first need and stored; in report-only mode it must be there."""
    found = lab.store.card(name)
    if found is None:
        if lab.report_only:
            fix = "Run the profile without --report-only once."
            raise StudyError("E-MISSING", f"cards/{name}.json", "there is no such card.", fix)
        lab.store.write_card(name, measure())
        found = lab.store.card(name)
    return found


def _measure_data(lab) -> dict:
    corpus, folder = lab.corpus(), lab.encoder_folder()
    tokenizer = load_tokenizer(folder, input_limit(config_of(folder).max_position_embeddings))
    card: dict = {key: {} for key in ("counts", "labels", "off_steps", "lengths", "truncated", "left_out")}
    for task, splits in corpus.items():
        card["counts"][task] = {name: len(split) for name, split in splits.items()}
        card["left_out"][task] = {name: list(split.left_out) for name, split in splits.items() if split.left_out}
        labelled = {name: split for name, split in splits.items() if split.labels is not None}
        card["labels"][task] = {name: _label_counts(task, split.labels) for name, split in labelled.items()}
        if TASKS[task].kind == "score":
            card["off_steps"][task] = {name: _off_steps(split.labels) for name, split in labelled.items()}
        card["lengths"][task], card["truncated"][task] = _lengths(splits["train"], tokenizer)
    return card | {"max_tokens": tokenizer.truncation["max_length"], "fingerprint": fingerprint(corpus)}


def _written(labels: np.ndarray, task: str) -> str:
    """All labels on one line; a list would take a line for each of them."""
    kind = float if TASKS[task].kind == "score" else int
    return " ".join(repr(kind(label)) for label in labels)


def _label_counts(task: str, labels: np.ndarray) -> dict[str, int]:
    """Class -> n, or score bin -> n with unit bins whose last is closed, plus the mean of scores."""
    if TASKS[task].kind == "classes":
        return {str(label): int((labels == label).sum()) for label in range(TASKS[task].num_classes)}
    counts, edges = np.histogram(labels, bins=np.arange(TASKS[task].low, TASKS[task].high + 1))
    return {f"{int(low)} to {int(low) + 1}": int(n) for low, n in zip(edges[:-1], counts, strict=True)}


def _off_steps(scores: np.ndarray) -> int:
    """How many scores lie between two multiples of the step, by more than rounding."""
    steps = scores.astype(float) / SCORE_STEP
    return int((np.abs(steps - steps.round()) > 1e-4).sum())


def _lengths(split: Split, tokenizer) -> tuple[dict, int]:
    encoded = encode(split, tokenizer, Layout(len(split.texts) == 2))
    lengths = encoded.lengths
    # Whole numbers of tokens as edges: finer bins would stand empty between them.
    edges = np.unique(np.linspace(lengths.min(), lengths.max() + 1, LENGTH_BINS + 1).round().astype(int))
    counts, _ = np.histogram(lengths, bins=edges)
    facts = {"bins": edges.tolist(), "counts": counts.tolist(), "max": int(lengths.max())}
    return facts | {"mean": round(float(lengths.mean()), 3)}, encoded.truncated


def _measure_parity(lab) -> dict:
    with warnings.catch_warnings():
        # Its progress bars look for widgets that a plain kernel does not have; nothing is lost without them.
        warnings.simplefilter("ignore", TqdmWarning)
        from transformers import BertConfig as ReferenceConfig
        from transformers import BertModel as Reference
        from transformers.utils import logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it would list the pretraining heads that it leaves out
    ours = BertModel(RANDOM_CONFIG)
    ours.reset_parameters(stateless_generator("parity"))
    reference = Reference(ReferenceConfig(**vars(RANDOM_CONFIG), attn_implementation="eager"))
    reference.load_state_dict(ours.state_dict())
    bert = {"random": _bert_difference(ours, reference)}
    folder = lab.encoder_folder()
    published = Reference.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    bert["encoder"] = _bert_difference(BertModel.from_pretrained(folder), published)
    variants = {
        name: _optimised(lambda p, v=name: AdamW(p, variant=v, weight_decay=0.01)) for name in ("torch", "starter")
    }
    library = _optimised(lambda p: torch.optim.AdamW(p, weight_decay=0.01))
    adamw = {name: float((found - library).abs().max()) for name, found in variants.items()}
    return {"bert": bert, "adamw": adamw, "steps": PARITY_STEPS, "environment": environment()}


@torch.inference_mode()
def _bert_difference(ours: BertModel, reference: torch.nn.Module) -> dict[str, float]:
    """Largest differences on a padded batch with two segments; padding itself is not compared."""
    generator = stateless_generator("parity", "batch")
    ids = torch.randint(1, ours.config.vocab_size, (4, 24), generator=generator)
    mask = (torch.arange(24) < torch.tensor([[24], [17], [9], [3]])).long()
    types = (torch.arange(24) >= 8).long().expand(4, -1)
    mine = ours.eval()(ids, mask, types)
    theirs = reference.eval()(ids, attention_mask=mask, token_type_ids=types)
    hidden = (mine.last_hidden_state - theirs.last_hidden_state)[mask.bool()]
    return {
        "hidden": float(hidden.abs().max()),
        "pooler": float((mine.pooler_output - theirs.pooler_output).abs().max()),
    }


def _optimised(make: Callable) -> torch.Tensor:
    """A small regression after PARITY_STEPS steps of an optimiser, always from the same start."""
    generator = stateless_generator("parity", "adamw")
    weights = torch.randn(12, generator=generator).requires_grad_()
    inputs, targets = torch.randn(64, 12, generator=generator), torch.randn(64, generator=generator)
    optimizer = make([weights])
    for _ in range(PARITY_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(inputs @ weights, targets).backward()
        optimizer.step()
    return weights.detach()
