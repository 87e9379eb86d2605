"""One run: data and tokens, model, updates, evaluation after every epoch, and what its record holds.

One step, one epoch and one run are three functions. Nothing here knows a report, a profile or a path of the study.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from common.data.encoding import Batch, Encoded, encode, epoch_batches, input_limit, load_tokenizer, stateless_generator
from common.data.sources import fingerprint
from common.data.split import Split
from common.errors import StudyError
from common.methods.losses import LOSSES
from common.methods.sampling import SCHEDULES
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import WEIGHT_FILE, file_sha256
from common.spec import RunSpec
from common.training import evaluate
from common.training.optim import AdamW
from common.training.probes import Example, collect

# Not the data sources (the data has a hash of its own) and not the pretraining (so have the weights).
NUMERIC_SOURCES = ("spec.py", "data/encoding.py", "model/*.py", "methods/*.py", "training/[!p]*.py", "training/pro*.py")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Materials:
    """What runs share and never change: the corpus, the encoder's folder, the reports' example sentences."""

    corpus: dict[str, dict[str, Split]]
    encoder_folder: Path
    examples: tuple[Example, ...] = ()

    @functools.cached_property
    def data_hashes(self) -> dict[str, str]:
        """Task -> hash of its parsed rows."""
        return fingerprint(self.corpus)

    @functools.cached_property
    def weights_hash(self) -> str:
        return file_sha256(self.encoder_folder / WEIGHT_FILE)

    @functools.cached_property
    def encoded(self) -> dict[tuple, Encoded]:
        """Tokenised splits by (task, split, as_pair, longest input), filled as runs ask for them."""
        return {}

    def tokens(self, task: str, split: str, as_pair: bool, tokenizer: Tokenizer) -> Encoded:
        """A tokenised split, made once a process."""
        key = (task, split, as_pair, tokenizer.truncation["max_length"])
        if key not in self.encoded:
            self.encoded[key] = encode(self.corpus[task][split], tokenizer, as_pair)
        return self.encoded[key]


class Outcome(NamedTuple):
    """A finished run: the record's content, dev outputs per task (N, C), probe arrays, and the best weights."""

    record: dict
    predictions: dict[str, np.ndarray]
    probes: dict[str, np.ndarray]
    model: MultitaskModel


@dataclass
class _Run:
    """The moving parts of a run."""

    spec: RunSpec
    model: MultitaskModel
    optimizer: AdamW | None
    tokenizer: Tokenizer
    train: dict[str, Encoded]
    dev: dict[str, Encoded]
    report: Progress
    total: int
    done: int = 0
    updates: int = 0
    tokens: int = 0
    examples: dict[str, int] = field(default_factory=dict)


def run(
    spec: RunSpec,
    materials: Materials,
    threads: int | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Outcome:
    """Train and evaluate one applied spec.

    Args:
        spec: what to train; its names of data and encoder are only recorded.
        materials: the corpus and encoder it is trained on.
        threads: CPU threads; part of what a result depends on. None leaves torch's own choice.
        progress: called with (examples done, examples in all, note) after every update.
        device: cpu or cuda.

    Raises:
        StudyError: the corpus lacks a task, the encoder cannot be read, the device is not there, or a loss is not
            finite.
    """
    started = time.perf_counter()
    with _controlled(spec.seed, threads, device):
        state = _prepare(spec, materials, progress or (lambda done, total, note: None), device)
        history, best_epoch = _train(state)
        outputs = {name: evaluate.score(state.model, name, encoded) for name, encoded in state.dev.items()}
        facts, arrays = collect(state.model, spec, state.dev, materials.examples, state.tokenizer)
        record = _describe(state, materials, history, best_epoch, outputs)
    record["probes"] = facts
    record["wall_s"] = round(time.perf_counter() - started, 3)
    if "para" in outputs and spec.task("para").pair_method == "cosine":
        scores = evaluate.positive_score(spec.task("para"), outputs["para"])
        arrays["para_threshold_curve"] = evaluate.threshold_curve(scores, state.dev["para"].labels)
    return Outcome(record, outputs, arrays, state.model)


def train_step(model: MultitaskModel, optimizer: AdamW, group: dict[str, Batch]) -> dict[str, float]:
    """One update on the sum of the losses of a group; returns each task's loss.

    Tasks are back-propagated one after another: the gradients add up to those of the sum, in the memory of one task.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    losses = {}
    for task, batch in group.items():
        loss = LOSSES[model.tasks[task].loss](model(task, batch), batch.labels)
        losses[task] = loss.item()
        if not math.isfinite(losses[task]):
            rate = optimizer.param_groups[0]["lr"]
            fix = "Lower the learning rate."
            raise StudyError("E-NONFINITE", f"task {task}", f"the loss is {losses[task]} at rate {rate:g}.", fix)
        if loss.requires_grad:
            loss.backward()
    optimizer.step()
    return losses


def code_hash() -> str:
    """Hash of the source that decides the numbers of a run on given data and weights."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for pattern in NUMERIC_SOURCES for path in root.glob(pattern)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _controlled(seed: int, threads: int | None, device: str) -> Iterator[None]:
    """Seed torch's dropout, fix the threads and flush denormals for one run, then put all three back.

    Second moments of rarely seen tokens sink into denormal floats, on which a CPU is over ten times slower.
    """
    if device == "cuda" and not torch.cuda.is_available():
        fix = "Use the profile cpu, or install a torch built for this machine's GPU."
        raise StudyError("E-DEVICE", "device", "this profile needs a CUDA GPU, and torch sees none.", fix)
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(before)


def _prepare(spec: RunSpec, materials: Materials, report: Progress, device: str) -> _Run:
    missing = [task.name for task in spec.tasks if task.name not in materials.corpus]
    if missing:
        raise StudyError(
            "E-DATA", spec.data, f"the data has no {', '.join(missing)}.", f"It has {', '.join(materials.corpus)}."
        )
    dropout = {
        "hidden_dropout_prob": spec.encoder.hidden_dropout,
        "attention_probs_dropout_prob": spec.encoder.attention_dropout,
    }
    encoder = BertModel.from_pretrained(materials.encoder_folder, **dropout)
    tokenizer = load_tokenizer(materials.encoder_folder, input_limit(encoder.config.max_position_embeddings))
    model = MultitaskModel(encoder, spec, stateless_generator(spec.seed, "heads")).to(device)
    train, dev = (
        {t.name: materials.tokens(t.name, split, t.pair_method == "pair", tokenizer) for t in spec.tasks}
        for split in ("train", "dev")
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    o = spec.optimizer
    optimizer = (
        AdamW(trained, o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay, variant=o.variant) if spec.epochs else None
    )
    total = spec.total_examples({name: len(encoded) for name, encoded in train.items()})
    return _Run(spec, model, optimizer, tokenizer, train, dev, report, total, examples=dict.fromkeys(train, 0))


def _train(state: _Run) -> tuple[list[dict], int]:
    """All epochs; leaves the weights of the best one in the model and returns the history and that epoch (0: none)."""
    history, best_score, best_epoch, best_weights = [], -math.inf, 0, None
    for epoch in range(1, state.spec.epochs + 1):
        started = time.perf_counter()
        losses = _train_epoch(state, epoch)
        limits = {name: state.spec.dev_examples for name in state.dev}
        outputs = {name: evaluate.score(state.model, name, enc, limits[name]) for name, enc in state.dev.items()}
        values, _ = evaluate.metrics(
            state.spec, outputs, {n: state.dev[n].labels[: len(o)] for n, o in outputs.items()}
        )
        entry = {"epoch": epoch, "updates": state.updates, "train_loss": losses, "dev": values}
        history.append(entry | {"wall_s": round(time.perf_counter() - started, 3)})
        selection = evaluate.selection_score(state.spec, values)
        if best_weights is None or (selection is not None and selection > best_score):
            best_score, best_epoch = selection if selection is not None else -math.inf, epoch
            best_weights = copy.deepcopy(state.model.state_dict())
    if best_weights is not None:
        state.model.load_state_dict(best_weights)
    return history, best_epoch


def _train_epoch(state: _Run, epoch: int) -> dict[str, float]:
    """One epoch of the schedule; returns the mean training loss of each task, over its examples."""
    spec = state.spec
    sizes = spec.examples_per_epoch({name: len(encoded) for name, encoded in state.train.items()})
    batches = {
        name: epoch_batches(encoded.lengths, sizes[name], spec.batch_size, (spec.seed, epoch, name))
        for name, encoded in state.train.items()
    }
    queues = {name: iter(rows) for name, rows in batches.items()}
    counts = {name: len(rows) for name, rows in batches.items()}
    generator = stateless_generator(spec.seed, epoch, "schedule")
    sums, seen = dict.fromkeys(batches, 0.0), dict.fromkeys(batches, 0)
    for tasks in SCHEDULES[spec.schedule.kind](counts, spec.schedule, generator):
        group = {task: state.train[task].batch(next(queues[task]), state.model.device) for task in tasks}
        for task, loss in train_step(state.model, state.optimizer, group).items():
            size = len(group[task].labels)
            sums[task], seen[task] = sums[task] + loss * size, seen[task] + size
        _count(state, group, epoch)
    return {task: sums[task] / seen[task] for task in batches if seen[task]}


def _count(state: _Run, group: dict[str, Batch], epoch: int) -> None:
    state.updates += 1
    for task, batch in group.items():
        state.examples[task] += len(batch.labels)
        state.tokens += batch.tokens
        state.done += len(batch.labels)
    state.report(min(state.done, state.total), state.total, f"epoch {epoch}/{state.spec.epochs}")


def _describe(state: _Run, materials: Materials, history: list[dict], best_epoch: int, outputs: dict) -> dict:
    """The record's content that follows from the run itself."""
    spec, model = state.spec, state.model
    values, undefined = evaluate.metrics(spec, outputs, {name: state.dev[name].labels for name in outputs})
    parameters = list(model.parameters())
    return {
        "environment": environment() | {"precision": spec.precision, "device": _device_name(model.device)},
        "hashes": {
            "data": {task.name: materials.data_hashes[task.name] for task in spec.tasks},
            "weights": materials.weights_hash,
        },
        "history": history,
        "best_epoch": best_epoch,
        "metrics": {"dev": values},
        "undefined": {"dev": undefined},
        "counts": {
            "dev": {name: len(encoded) for name, encoded in state.dev.items()},
            "train": {name: len(encoded) for name, encoded in state.train.items()},
            "examples": state.examples,
            "updates": state.updates,
            "tokens": state.tokens,
            "truncated": sum(encoded.truncated for encoded in [*state.train.values(), *state.dev.values()]),
            "parameters": sum(p.numel() for p in parameters),
            "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad) if spec.epochs else 0,
        },
    }


def environment() -> dict:
    """Versions and hardware that a result may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "code": code_hash(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
