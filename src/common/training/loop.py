"""One run: data and tokens, model, updates, evaluation after every epoch, and what its record holds.

One step, one epoch and one run are three functions. Nothing here knows a report, a profile or a path of the study.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
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

from common.data.encoding import (
    Batch,
    Encoded,
    Layout,
    encode,
    epoch_batches,
    input_limit,
    load_tokenizer,
)
from common.data.sources import fingerprint
from common.data.split import Split
from common.declare.rows import Example
from common.declare.spec import RunSpec
from common.declare.strict import to_dict
from common.errors import StudyError
from common.machine import processor
from common.methods.sampling import SCHEDULES, Epoch
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import encoder_hashes, hub_revision
from common.seeding import stateless_generator
from common.training import checkpoint, evaluate
from common.training.features import FrozenFeatures
from common.training.history import History
from common.training.pretrain import adapted_checkpoint
from common.training.probes import collect, kept_geometry
from common.training.step import Trainer

# What decides the numbers of a run on given data and weights. Not the data's readers nor the pretraining: data and
# weights have hashes of their own.
NUMERIC_SOURCES = {
    "declare": ("spec",),
    "data": ("encoding",),
    "model": ("bert", "fast", "heads", "pals", "weights"),
    "methods": ("gradients", "losses", "sampling", "smart"),
    "training": ("checkpoint", "evaluate", "features", "history", "loop", "optim", "probes", "step"),
    ".": ("seeding",),
}
Progress = Callable[[int, int, str], None]
# All seeds of a run start from one further pretrained checkpoint, as they do from one published checkpoint.
PRETRAINING_SEED = 0


@dataclass(frozen=True, eq=False)
class Materials:
    """What runs share and never change: the corpus, the encoder's folder, the reports' example sentences.

    source: where the corpus was loaded from, and text for additional pretraining is. cache: a folder for pretrained
    checkpoints, needed by runs with additional pretraining alone.
    """

    corpus: dict[str, dict[str, Split]]
    encoder_folder: Path
    examples: tuple[Example, ...] = ()
    source: str = "embedded"
    cache: Path | None = None

    @functools.cached_property
    def data_hashes(self) -> dict[str, str]:
        """Task -> hash of its parsed rows."""
        return fingerprint(self.corpus)

    @functools.cached_property
    def encoder_hashes(self) -> dict[str, str]:
        """Of weights, config and tokenizer."""
        return encoder_hashes(self.encoder_folder)

    @functools.cached_property
    def encoded(self) -> dict[tuple, Encoded]:
        """Tokenised splits by (task, split, layout, longest input), filled as runs ask for them."""
        return {}

    def tokens(self, task: str, split: str, layout: Layout, tokenizer: Tokenizer) -> Encoded:
        """A tokenised split, made once a process."""
        key = (task, split, layout, tokenizer.truncation["max_length"])
        if key not in self.encoded:
            self.encoded[key] = encode(self.corpus[task][split], tokenizer, layout)
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
    trainer: Trainer | None
    log: History
    tokenizer: Tokenizer
    train: dict[str, Encoded | FrozenFeatures]
    dev: dict[str, Encoded | FrozenFeatures]
    report: Progress
    total: int
    sets: dict[str, np.ndarray]  # task -> rows of its training set, the same in every epoch and for every seed
    draws: dict[str, np.ndarray]  # task -> (N,) how often each row was drawn
    fitted: dict[str, np.ndarray] = field(default_factory=dict)  # task -> rows, drawn before, of its train scores
    done: int = 0
    tokens: int = 0
    epoch: int = 1  # the one that is trained, from 1
    seen: dict[str, list[int]] = field(default_factory=dict)  # task -> examples of each of its batches in this epoch
    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best_train: tuple[dict, dict] | None = None  # its train metrics and why some are undefined, if of all tasks
    best_weights: dict[str, torch.Tensor] | None = None
    epoch_s: float = 0.0  # seconds of this epoch before a checkpoint was taken up


# What of a run goes into the JSON part of a checkpoint; the rest are tensors.
KEPT_AS_JSON = ("done", "tokens", "epoch", "seen", "history", "best_epoch", "best_train", "epoch_s")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its checkpoint, who writes files whole, and the seconds of training between two of them."""

    path: Path
    write: checkpoint.Write
    every_s: float = 60.0


def run(
    spec: RunSpec,
    materials: Materials,
    threads: int | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    kept: Checkpoint | None = None,
) -> Outcome:
    """Train and evaluate one applied spec.

    Args:
        spec: what to train; its names of data and encoder are only recorded.
        materials: the corpus and encoder it is trained on.
        threads: CPU threads; part of what a result depends on. None leaves torch's own choice.
        progress: called with (examples done, examples in all, note) after every update.
        device: cpu or cuda.
        kept: go on from its checkpoint, where one fits, and write new ones; the result is the same to the byte. A
            checkpoint that does not fit is not used, and standard error says what differs. A frozen encoder keeps none:
            its run is short, and its features would be made anew in other batches.

    Raises:
        StudyError: the corpus lacks a task, the encoder cannot be read, the device is not there, or a loss is not
            finite.
    """
    started = time.perf_counter()
    report = progress or (lambda done, total, note: None)
    with _controlled(PRETRAINING_SEED, threads, device):  # apart, so that a cached checkpoint changes nothing below
        folder = _encoder_folder(spec, materials, report, device)
    with _controlled(spec.seed, threads, device):
        state = _prepare(spec, materials, folder, report, device)
        _train(state, None if spec.encoder.frozen else kept, materials)
        record, outputs, arrays = _final(state, materials)
        record["hashes"]["start"] = folder.name if spec.encoder.pretraining else None
    arrays |= state.log.arrays() if state.history else {}
    record["wall_s"] = round(time.perf_counter() - started, 3)
    return Outcome(record, outputs, arrays, state.model)


def _final(state: _Run, materials: Materials) -> tuple[dict, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the finished model says: the record, dev outputs and arrays; one pass of the encoder serves all of it."""
    spec, model = state.spec, state.model
    rows = {name: evaluate.sample(len(s), spec.final_examples, name) for name, s in state.dev.items()}
    labels = {name: split.labels[rows[name]] for name, split in state.dev.items()}
    vectors = {n: evaluate.sentence_vectors(model, n, split, rows[n]) for n, split in state.dev.items()}
    outputs = {name: evaluate.outputs(model.heads[name], found) for name, found in vectors.items()}
    tokens = {n: split.encoded if _is_kept(split) else split for n, split in state.dev.items()}
    record = _describe(state, materials)
    record["probes"], arrays = collect(model, spec, tokens, materials.examples, state.tokenizer)
    arrays |= kept_geometry(spec, vectors, labels)
    record["counts"]["scored"] = {name: len(chosen) for name, chosen in rows.items()}
    record["untrained_heads"] = evaluate.untrained_heads(model, spec, vectors, labels)
    both = {"dev": evaluate.metrics(spec, outputs, labels), "train": state.best_train or _train_scores(state)}
    record["metrics"] = {split: values for split, (values, _) in both.items()}
    record["undefined"] = {split: reasons for split, (_, reasons) in both.items()}
    if "para" in outputs and spec.task("para").pair_method == "cosine":
        arrays["para_threshold_curve"] = evaluate.threshold_curve(spec.task("para"), outputs["para"], labels["para"])
    return record, outputs, arrays


def code_hash() -> str:
    """Hash of the source that decides the numbers of a run on given data and weights."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for name in (f"{room}/{name}.py" for room, names in NUMERIC_SOURCES.items() for name in names):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes().replace(b"\r\n", b"\n"))
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


def _prepare(spec: RunSpec, materials: Materials, folder: Path, report: Progress, device: str) -> _Run:
    missing = [task.name for task in spec.tasks if task.name not in materials.corpus]
    if missing:
        raise StudyError(
            "E-DATA", spec.data, f"the data has no {', '.join(missing)}.", f"It has {', '.join(materials.corpus)}."
        )
    dropout = {
        "hidden_dropout_prob": spec.encoder.hidden_dropout,
        "attention_probs_dropout_prob": spec.encoder.attention_dropout,
    }
    encoder = BertModel.from_pretrained(folder, **dropout)
    tokenizer = load_tokenizer(folder, input_limit(encoder.config.max_position_embeddings))
    model = MultitaskModel(encoder, spec, stateless_generator(spec.seed, "heads")).to(device)
    train = {t.name: materials.tokens(t.name, "train", Layout.of(t), tokenizer) for t in spec.trained_tasks}
    dev = {t.name: materials.tokens(t.name, "dev", Layout.of(t), tokenizer) for t in spec.tasks}
    if spec.encoder.frozen and not model.pals:
        train, dev = ({n: FrozenFeatures(model, n, e) for n, e in split.items()} for split in (train, dev))
    sizes = {name: len(encoded) for name, encoded in train.items()}
    trainer = Trainer(model, spec, spec.total_updates(sizes)) if spec.epochs else None
    log = History(list(train), spec.weighting.kind != "fixed")
    sets = {name: evaluate.sample(sizes[name], limit, name) for name, limit in spec.set_sizes(sizes).items()}
    draws = {name: np.zeros(size, dtype=np.int64) for name, size in sizes.items()}
    total = spec.total_examples(sizes)
    return _Run(spec, model, trainer, log, tokenizer, train, dev, report, total, sets, draws)


def _encoder_folder(spec: RunSpec, materials: Materials, report: Progress, device: str) -> Path:
    """The checkpoint that the run starts from: the encoder's own, or one pretrained further on texts of the source."""
    pretraining = spec.encoder.pretraining
    if pretraining is None:
        return materials.encoder_folder
    if materials.cache is None:
        raise ValueError("`materials.cache` is needed by a run with additional pretraining")
    base, source, cache = materials.encoder_folder, materials.source, materials.cache
    return adapted_checkpoint(base, source, pretraining, cache, report, seed=PRETRAINING_SEED, device=device)


def _train(state: _Run, kept: Checkpoint | None, materials: Materials) -> None:
    """All epochs that are left; leaves the weights of the best one in the model.

    A phased run has no best epoch: what later phases made the model forget belongs to its result.
    """
    origin = _origin(state, materials) if kept else {}
    skipped = _take_up(state, kept, origin) if kept and state.spec.epochs else 0
    last = time.monotonic()

    def keep_if_due() -> None:
        nonlocal last
        if kept and time.monotonic() - last >= kept.every_s:
            _keep(state, kept, origin)
            last = time.monotonic()

    while state.epoch <= state.spec.total_epochs:
        started = time.perf_counter() - state.epoch_s
        entry = {"epoch": state.epoch} | _train_epoch(state, skipped, started, keep_if_due)
        _end_epoch(state, entry, started)
        skipped = 0
        keep_if_due()
    if state.best_weights is not None:
        state.model.load_state_dict(state.best_weights)


def _end_epoch(state: _Run, entry: dict, started: float) -> None:
    """Score the epoch, tell the rate schedule, keep the weights if they are the best, and go on to the next."""
    spec, dev = state.spec, {task.name: state.dev[task.name] for task in state.spec.trained_tasks}
    rows = {name: evaluate.sample(len(split), spec.dev_examples, name) for name, split in dev.items()}
    values, _ = evaluate.metrics(spec, *_scores(state, dev, rows))
    train = _train_scores(state)
    selection = evaluate.selection_score(spec, values)
    state.trainer.rate.end_epoch(selection)
    best = state.history[state.best_epoch - 1]["selection"] if state.best_epoch else None
    is_better = selection is not None and (best is None or selection > best)
    if state.best_epoch == 0 or is_better or spec.schedule.is_phased:
        state.best_epoch, is_complete = state.epoch, len(state.fitted) == len(state.train)
        state.best_train = train if is_complete else None
        is_last = state.epoch == spec.total_epochs
        state.best_weights = None if is_last else copy.deepcopy(state.model.state_dict())
    wall_s = round(time.perf_counter() - started, 3)
    state.history.append(entry | {"dev": values, "train": train[0], "selection": selection, "wall_s": wall_s})
    state.epoch, state.seen, state.epoch_s = state.epoch + 1, {}, 0.0


def _origin(state: _Run, materials: Materials) -> dict:
    """What a checkpoint must have been made on."""
    facts = {name: value for name, value in environment().items() if name != "python"}
    hashes = {"data": [materials.data_hashes[t.name] for t in state.spec.tasks], **materials.encoder_hashes}
    machine = {"device": state.model.device.type, "precision": precision_of(state.model)}
    return {"spec": to_dict(state.spec), **machine, **facts, **hashes}


def _keep(state: _Run, kept: Checkpoint, origin: dict) -> None:
    """Write everything that the rest of the run follows from."""
    tensors, facts = checkpoint.trainer_state(state.trainer, state.log)
    tensors |= {f"best.{name}": tensor for name, tensor in (state.best_weights or {}).items()}
    tensors |= checkpoint.counted(state.draws, "draws.") | checkpoint.counted(state.fitted, "fitted.")
    facts |= {name: getattr(state, name) for name in KEPT_AS_JSON} | {"origin": origin}
    checkpoint.save(kept.path, tensors, facts, kept.write)


def _take_up(state: _Run, kept: Checkpoint, origin: dict) -> int:
    """Go on from the checkpoint, where one fits; the updates of the present epoch that it has behind it."""
    found = checkpoint.load(kept.path, origin)
    if found is None or isinstance(found, str):
        if found:
            print(f"{kept.path.name}: the checkpoint is not used, {found}. The run starts anew.", file=sys.stderr)
        return 0
    tensors, facts = found
    checkpoint.restore_trainer(state.trainer, state.log, tensors, facts)
    for name in KEPT_AS_JSON:
        setattr(state, name, facts[name])
    state.draws, state.fitted = (checkpoint.arrays_below(tensors, prefix) for prefix in ("draws.", "fitted."))
    best = checkpoint.tensors_below(tensors, "best.")
    state.best_weights = {name: tensor.to(state.model.device) for name, tensor in best.items()} or None
    return len(state.log.updates) - state.log.epoch_start


def _scores(
    state: _Run, splits: dict[str, Encoded | FrozenFeatures], rows: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs and labels of the given rows, for each task that has any."""
    outputs = {name: evaluate.score(state.model, name, splits[name], chosen) for name, chosen in rows.items()}
    return outputs, {name: splits[name].labels[chosen] for name, chosen in rows.items()}


def _train_scores(state: _Run) -> tuple[dict, dict]:
    """Metrics on the rows of the train scores, and why some are undefined."""
    return evaluate.metrics(state.spec, *_scores(state, state.train, _fitted(state)))


def _fitted(state: _Run) -> dict[str, np.ndarray]:
    """Rows of the train scores: a sample of what the task's first epoch drew; of its set, where nothing is trained.

    Scores of examples that a run never saw would say nothing about what it learnt by heart.
    """
    for name, draws in state.draws.items():
        drawn = np.flatnonzero(draws) if state.spec.epochs else state.sets[name]
        if name not in state.fitted and len(drawn):
            state.fitted[name] = drawn[evaluate.sample(len(drawn), state.spec.train_examples, name)]
    return state.fitted


def _train_epoch(state: _Run, skipped: int, started: float, keep_if_due: Callable[[], None]) -> dict:
    """One epoch of the schedule, without its first `skipped` updates; what the record says of it."""
    spec, epoch = state.spec, state.epoch
    available = {name: len(encoded) for name, encoded in state.train.items()}
    drawn, counts = spec.examples_per_epoch(available), spec.batches_per_epoch(available)
    queues = {name: _batches(state, name, drawn[name], epoch) for name in state.train}
    sizes = {task.name: task.sampling_size or drawn[task.name] for task in spec.trained_tasks}
    shares = {task.name: task.sampling_share for task in spec.trained_tasks}
    plan = Epoch(counts, sizes, shares, epoch, spec.total_epochs)
    groups = SCHEDULES[spec.schedule.kind](plan, spec.schedule, stateless_generator(spec.seed, epoch, "schedule"))
    for place, tasks in enumerate(groups):
        chosen = [(task, next(queues[task])) for task in tasks]
        if place < skipped:
            continue  # orders follow from the seed alone: what was trained before the checkpoint is only passed over
        state.log.add(state.trainer.update(_loaded(state, chosen)))
        state.report(min(state.done, state.total), state.total, f"epoch {epoch}/{spec.total_epochs}")
        state.epoch_s = time.perf_counter() - started
        keep_if_due()
    rate = state.log.updates[-1].rate
    return {"updates": len(state.log.updates), "rate": rate} | state.log.end_epoch(state.seen)


def _loaded(state: _Run, chosen: list[tuple[str, np.ndarray]]) -> list[tuple[str, Batch]]:
    """The batches of an update, counted as they are drawn."""
    group = [(task, state.train[task].batch(rows, state.model.device)) for task, rows in chosen]
    for (task, rows), (_, batch) in zip(chosen, group, strict=True):
        state.draws[task][rows] += 1
        state.seen.setdefault(task, []).append(len(rows))
        state.tokens += batch.tokens
        state.done += len(rows)
    return group


def _batches(state: _Run, name: str, examples: int, epoch: int) -> Iterator[np.ndarray]:
    """Rows of the batches of an epoch, and when a schedule asks for more than one pass holds, of fresh draws after it.

    All come from the task's fixed set.
    """
    spec, rows = state.spec, state.sets[name]
    lengths = state.train[name].lengths[rows]
    for pass_ in itertools.count():
        key = (spec.seed, epoch, name) if pass_ == 0 else (spec.seed, epoch, name, pass_)
        for places in epoch_batches(lengths, examples, spec.batch_size, key, spec.grouping):
            yield rows[places]


def _describe(state: _Run, materials: Materials) -> dict:
    """The record's content that follows from the training itself."""
    spec, model = state.spec, state.model
    parameters = list(model.parameters())
    scored = {name: min(len(state.dev[name]), spec.dev_examples or len(state.dev[name])) for name in state.train}
    return {
        "environment": environment()
        | {"precision": precision_of(model), "device": _device_name(model.device)}
        | {"revision": hub_revision(materials.encoder_folder)},
        "hashes": {
            "data": {task.name: materials.data_hashes[task.name] for task in spec.tasks},
            **materials.encoder_hashes,
        },
        "history": state.history,
        "trace": {"tasks": state.log.tasks, "pairs": state.log.pairs},
        "best_epoch": state.best_epoch,
        "under_trained": evaluate.is_still_rising(spec, state.history, scored),
        "live": _live(state),
        "counts": {
            "dev": {name: len(encoded) for name, encoded in state.dev.items()},
            "train": {name: len(encoded) for name, encoded in state.train.items()},
            "examples": {name: int(draws.sum()) for name, draws in state.draws.items()},
            "distinct": {name: int((draws > 0).sum()) for name, draws in state.draws.items()},
            "updates": len(state.log.updates),
            "tokens": state.tokens + sum(split.tokens for split in state.train.values() if _is_kept(split)),
            "truncated": sum(encoded.truncated for encoded in [*state.train.values(), *state.dev.values()]),
            "parameters": sum(p.numel() for p in parameters),
            "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad) if spec.epochs else 0,
        },
    }


def _live(state: _Run) -> dict:
    """What the spec came to in the objects that trained: dropout probabilities, optimiser settings, trained sizes."""
    model = state.model
    parts = {"encoder": model.encoder, "pals": model.pals, "shared": model.shared, **model.heads}
    modules = {name: list(part.modules()) if part else [] for name, part in parts.items()}
    dropout = {n: sorted({m.p for m in found if isinstance(m, torch.nn.Dropout)}) for n, found in modules.items()}
    trained = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad) if part else 0
        for name, part in parts.items()
    }
    groups = state.trainer.optimizer.param_groups if state.trainer else []
    settings = ("initial_lr", "betas", "eps", "weight_decay", "variant")
    optimizer = [{name: group[name] for name in settings if name in group} for group in groups]
    return {"dropout": dropout, "trained": trained, "optimizer": optimizer}


def _is_kept(split: Encoded | FrozenFeatures) -> bool:
    return isinstance(split, FrozenFeatures)


def environment() -> dict:
    """Versions and hardware that a result may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "code": code_hash(),
    }


def precision_of(model: MultitaskModel) -> str:
    """Of the encoder's products as they were computed here."""
    return "bf16" if model.use_bf16 else "fp32"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
