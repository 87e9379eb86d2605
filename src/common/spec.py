"""What is trained (RunSpec) and what the machine can afford (Profile).

A RunSpec is written as the report has it: report set sizes, epochs, batch size and rate. `Profile.apply` is the only
place that turns it into something a given machine can run. Nothing here trains, reads a file or knows a path.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, replace

import numpy as np

from common.data.tasks import TASKS
from common.errors import StudyError

PAIR_METHODS = ("single", "separate", "pair", "cosine")
POOLINGS = ("pooler", "cls", "mean")
ACTIVATIONS = ("relu", "leaky_relu")
LOSSES = ("cross_entropy", "bce", "mse", "cosine_embedding")
OUTPUTS = ("raw", "times_five")
SCHEDULES = ("round_robin", "interleaved", "joint")
ORDERS = ("fixed", "random")
STOPS = ("shortest", "longest")
ADAMW_VARIANTS = ("starter", "torch")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class EncoderSpec:
    """The shared BERT: which checkpoint, what of it is trained, its inner dropout (starter default 0.1)."""

    checkpoint: str = "bert-base-uncased"
    frozen: bool = False
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1


@dataclass(frozen=True)
class TaskSpec:
    """How one task enters the encoder, leaves it, and is scored.

    pair_method: single (one sentence), separate (two encodings, concatenated), pair (both in one input with segment
    ids), cosine (two encodings, their cosine). threshold: a paraphrase is predicted when the probability (or the
    cosine) exceeds it. examples: training examples per epoch, drawn afresh each epoch; None is the whole set.
    shared_layer: tasks that name the same group share their first head layer.
    """

    name: str
    pair_method: str = "single"
    pooling: str = "pooler"
    head_layers: int = 1
    activation: str = "relu"
    shared_layer: str | None = None
    output: str = "raw"
    loss: str = "cross_entropy"
    dropout: float = 0.0
    threshold: float = 0.5
    examples: int | None = None


@dataclass(frozen=True)
class ScheduleSpec:
    """Which task is trained when.

    round_robin: every batch of one task, then of the next. interleaved: one update per task in turn. joint: one
    update on one batch of every task. stop: an interleaved or joint epoch ends with the first exhausted task, or goes
    on with the remaining tasks until the last is exhausted.
    """

    kind: str = "round_robin"
    order: str = "fixed"
    stop: str = "shortest"

    def updates_per_epoch(self, batches: dict[str, int]) -> int:
        """Optimiser updates of one epoch, given the number of batches of each task."""
        if self.kind == "round_robin":
            return sum(batches.values())
        if self.kind == "joint":
            return min(batches.values()) if self.stop == "shortest" else max(batches.values())
        return len(batches) * min(batches.values()) if self.stop == "shortest" else sum(batches.values())


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW (Loshchilov & Hutter 2019). variant: `starter` folds the bias correction into the step size and decays
    after the step; `torch` is `torch.optim.AdamW` (see training/optim.py)."""

    lr: float = 1e-5
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    variant: str = "starter"


@dataclass(frozen=True)
class RunSpec:
    """One trained model, as the report states it or as a profile applies it.

    epochs 0 evaluates the untrained model. dev_examples caps the per-epoch (never the final) evaluation of a task.
    """

    tasks: tuple[TaskSpec, ...]
    encoder: EncoderSpec = EncoderSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    batch_size: int = 32
    epochs: int = 10
    data: str = "cs224n"
    precision: str = "fp32"
    dev_examples: int | None = None
    seed: int = 0

    def __post_init__(self):
        _check_run(self)

    @property
    def run_id(self) -> str:
        """Hash of everything but the seed, then the seed, so that the seeds of one model stand together.

        Fields at their default are left out of the hash: a method added later does not rename runs without it.
        """
        content = to_dict(replace(self, seed=0), omit_defaults=True)
        return f"{hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]}-s{self.seed}"

    @staticmethod
    def from_dict(values: dict, where: str = "spec") -> RunSpec:
        """Build a RunSpec strictly: an unknown key, a wrong type or an impossible combination raises StudyError."""
        return build(RunSpec, values, where)

    def task(self, name: str) -> TaskSpec:
        """The TaskSpec of that name; StudyError when the run does not have it."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise StudyError("E-SPEC", "tasks", f"this run has no task {name!r}", f"It has {[t.name for t in self.tasks]}.")

    def with_tasks(self, **changes: dict) -> RunSpec:
        """A copy in which the named tasks have changed fields: `spec.with_tasks(para={"pair_method": "pair"})`."""
        for name in changes:
            self.task(name)
        return replace(self, tasks=tuple(replace(task, **changes.get(task.name, {})) for task in self.tasks))

    def examples_per_epoch(self, available: dict[str, int]) -> dict[str, int]:
        """Examples an epoch may draw of each task: its cap, or the whole set of that size."""
        return {t.name: t.examples if t.examples is not None else available[t.name] for t in self.tasks}

    def total_updates(self, available: dict[str, int]) -> int:
        """Optimiser updates of the whole run on sets of these sizes."""
        sizes = self.examples_per_epoch(available)
        batches = {name: math.ceil(size / self.batch_size) for name, size in sizes.items()}
        return self.epochs * self.schedule.updates_per_epoch(batches)

    def total_examples(self, available: dict[str, int]) -> int:
        """Examples the whole run draws (a partly filled last batch counted as full)."""
        groups = len(self.tasks) if self.schedule.kind == "joint" else 1
        if self.schedule.kind == "joint" and self.schedule.stop == "longest":
            return replace(self, schedule=replace(self.schedule, kind="interleaved")).total_examples(available)
        return self.total_updates(available) * groups * self.batch_size


# Encoders whose pooler was published untrained (MiniLM has an all-zero bias). There "the pooled output" of a report is
# the first token's state: a random layer in its place is nothing a report used. See DEVIATIONS.md D1.
UNTRAINED_POOLER = ("minilm-l6",)
REPORT_TRAIN = {name: task.report_train for name, task in TASKS.items()}


@dataclass(frozen=True)
class Profile:
    """What a machine can afford, and the one place where that changes a RunSpec.

    n_sts and n_para fix the two ends of the size rule `scale`; epochs maps the reports' epochs to ours; rate_limit is
    the largest factor on the learning rate; dev_examples caps per-epoch evaluation; under_trained is the share of the
    report's examples below which a run is marked.
    """

    name: str
    encoder: str
    data: str
    n_sts: int
    n_para: int
    epochs: tuple[tuple[int, int], ...] | None
    max_batch: int | None
    rate_limit: float
    dev_examples: int | None
    threads: int | None = 1
    device: str = "cpu"
    precision: str = "fp32"
    under_trained: float = 0.1
    seeds: tuple[int, ...] = (0,)

    def scale(self, examples: int) -> int:
        """phi(n) = n_sts (n / 6040)^g with g = ln(n_para / n_sts) / ln(141498 / 6040): keeps the order of sizes."""
        exponent = math.log(self.n_para / self.n_sts) / math.log(REPORT_TRAIN["para"] / REPORT_TRAIN["sts"])
        return max(1, round(self.n_sts * (examples / REPORT_TRAIN["sts"]) ** exponent))

    def scale_epochs(self, epochs: int) -> int:
        """Our number of epochs for the report's: the profile's table, straight lines between its entries."""
        if self.epochs is None or epochs == 0:
            return epochs
        theirs, ours = zip(*self.epochs, strict=True)
        return max(1, round(float(np.interp(epochs, theirs, ours))))

    def apply(self, spec: RunSpec, data: str | None = None, encoder: str | None = None) -> RunSpec:
        """The RunSpec this machine runs in place of the report's; data and encoder are names, never paths."""
        reference, checkpoint = spec.examples_per_epoch(REPORT_TRAIN), encoder or self.encoder
        tasks = tuple(
            replace(task, examples=self.scale(reference[task.name]), pooling=_pooling(task.pooling, checkpoint))
            for task in spec.tasks
        )
        batch_size = min(spec.batch_size, self.max_batch or spec.batch_size)
        applied = replace(
            spec,
            tasks=tasks,
            batch_size=batch_size,
            epochs=self.scale_epochs(spec.epochs),
            data=data or self.data,
            encoder=replace(spec.encoder, checkpoint=checkpoint),
            precision=self.precision,
            dev_examples=self.dev_examples,
        )
        factor = self.rate_factor(spec, applied)
        return replace(applied, optimizer=replace(spec.optimizer, lr=float(f"{spec.optimizer.lr * factor:.4g}")))

    def rate_factor(self, spec: RunSpec, applied: RunSpec) -> float:
        """clip(updates in the report / updates here, 1, rate_limit): keeps rate times updates."""
        here = applied.total_updates(REPORT_TRAIN)
        if here == 0:
            return 1.0
        return min(max(spec.total_updates(REPORT_TRAIN) / here, 1.0), self.rate_limit)

    def share(self, spec: RunSpec, applied: RunSpec) -> float:
        """Examples drawn here over examples drawn in the report; 1 for a run without training."""
        reported = spec.total_examples(REPORT_TRAIN)
        return applied.total_examples(REPORT_TRAIN) / reported if reported else 1.0


_SHORT_EPOCHS = ((1, 1), (3, 2), (10, 4), (20, 5))
_EMBEDDED = {"data": "embedded", "rate_limit": 60.0, "dev_examples": None}
_REAL = {"data": "cs224n", "rate_limit": 10.0, "dev_examples": 2000, "precision": "bf16", "seeds": (0, 1, 2)}
_GPU = _REAL | {"device": "cuda", "threads": None, "max_batch": None}
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", "tiny-random", n_sts=40, n_para=160, epochs=((1, 1), (20, 1)), max_batch=8, **_EMBEDDED),
        Profile("quick", "tiny-bert", n_sts=480, n_para=1440, epochs=_SHORT_EPOCHS, max_batch=16, **_EMBEDDED),
        Profile("cpu", "minilm-l6", n_sts=960, n_para=2880, epochs=_SHORT_EPOCHS, max_batch=16, **_REAL),
        Profile("gpu", "minilm-l6", n_sts=2400, n_para=24000, epochs=_SHORT_EPOCHS, **_GPU),
        Profile("paper", "bert-base-uncased", n_sts=6040, n_para=141498, epochs=None, **_GPU | {"rate_limit": 1.0}),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of that name; StudyError with the known names otherwise."""
    if name not in PROFILES:
        raise StudyError(
            "E-PROFILE",
            "profile",
            f"unknown profile {name!r}.{_meant(name, PROFILES)}",
            f"Known: {', '.join(PROFILES)}.",
        )
    return PROFILES[name]


def to_dict(value: object, omit_defaults: bool = False) -> object:
    """Dataclasses as plain dicts and lists; optionally without fields that hold their default."""
    if isinstance(value, tuple):
        return [to_dict(item, omit_defaults) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = dataclasses.fields(value)
    kept = [f for f in fields if not (omit_defaults and getattr(value, f.name) == f.default)]
    return {f.name: to_dict(getattr(value, f.name), omit_defaults) for f in kept}


def canonical_json(value: object) -> str:
    """The one spelling of a value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def build(cls: type, values: object, where: str):
    """Fill a frozen dataclass from plain values, strictly; `where` names the place in messages."""
    if not isinstance(values, dict):
        raise StudyError("E-SPEC", where, f"expected named fields, got {values!r}.", f"Give fields of {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise StudyError(
                "E-SPEC", f"{where}.{key}", f"unknown field.{_meant(key, hints)}", f"Known: {', '.join(hints)}."
            )
    required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    for name in required:
        if name not in values:
            raise StudyError("E-SPEC", f"{where}.{name}", "required field is missing.", "Add it.")
    converted = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except StudyError as error:
        raise StudyError(error.code, f"{where}: {error.where}", error.what, error.fix) from None


def _convert(hint: object, value: object, where: str) -> object:
    """Check one value against its type hint; ints are accepted for floats, lists for tuples, nothing else bends."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in args if arg is not types.NoneType]
        return None if value is None else _convert(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise StudyError("E-SPEC", where, f"expected a list, got {value!r}.", "Write it as a list.")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        fix = "YAML reads 2e-5 as text: write 2.0e-5." if hint is float else "Correct the value."
        raise StudyError("E-SPEC", where, f"expected {hint.__name__}, got {type(value).__name__} {value!r}.", fix)
    return value


def _pooling(pooling: str, checkpoint: str) -> str:
    return "cls" if pooling == "pooler" and checkpoint in UNTRAINED_POOLER else pooling


def _meant(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_choice(where: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise StudyError(
            "E-SPEC", where, f"unknown value {value!r}.{_meant(value, known)}", f"Known: {', '.join(known)}."
        )


def _check_range(where: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise StudyError("E-SPEC", where, f"{value!r} is outside {low} to {high}.", "Choose a value inside.")


def _check_run(spec: RunSpec) -> None:
    if not spec.tasks:
        raise StudyError("E-SPEC", "tasks", "a run needs at least one task.", f"Known: {', '.join(TASKS)}.")
    names = [task.name for task in spec.tasks]
    if len(set(names)) < len(names):
        raise StudyError("E-SPEC", "tasks", f"a task appears twice: {names}.", "Name each task once.")
    for task in spec.tasks:
        _check_task(task)
    _check_choice("schedule.kind", spec.schedule.kind, SCHEDULES)
    _check_choice("schedule.order", spec.schedule.order, ORDERS)
    _check_choice("schedule.stop", spec.schedule.stop, STOPS)
    _check_choice("optimizer.variant", spec.optimizer.variant, ADAMW_VARIANTS)
    _check_choice("precision", spec.precision, PRECISIONS)
    _check_range("optimizer.lr", spec.optimizer.lr, 0.0, 1.0)
    _check_range("optimizer.weight_decay", spec.optimizer.weight_decay, 0.0, 1.0)
    _check_range("optimizer.eps", spec.optimizer.eps, 1e-12, 1.0)
    for name in ("hidden_dropout", "attention_dropout"):
        _check_range(f"encoder.{name}", getattr(spec.encoder, name), 0.0, 0.99)
    _check_range("batch_size", spec.batch_size, 1, 4096)
    _check_range("epochs", spec.epochs, 0, 1000)
    _check_range("seed", spec.seed, 0, 2**31 - 1)
    for task in spec.tasks:
        group = {t.name: (t.pair_method, t.pooling) for t in spec.tasks if t.shared_layer == task.shared_layer}
        if task.shared_layer and len(set(group.values())) > 1:
            raise StudyError(
                "E-SPEC",
                "shared_layer",
                f"tasks of one group enter it with unlike widths: {group}.",
                "Give them one pair method and pooling.",
            )


def _check_task(task: TaskSpec) -> None:
    where = f"tasks.{task.name}"
    _check_choice(where, task.name, tuple(TASKS))
    for name, known in (
        ("pair_method", PAIR_METHODS),
        ("pooling", POOLINGS),
        ("activation", ACTIVATIONS),
        ("output", OUTPUTS),
        ("loss", LOSSES),
    ):
        _check_choice(f"{where}.{name}", getattr(task, name), known)
    _check_range(f"{where}.head_layers", task.head_layers, 1, 2)
    _check_range(f"{where}.dropout", task.dropout, 0.0, 0.99)
    _check_range(f"{where}.threshold", task.threshold, -1.0, 1.0)
    if task.examples is not None:
        _check_range(f"{where}.examples", task.examples, 1, 10**9)
    for broken, reason in _impossible(task):
        if broken:
            raise StudyError("E-SPEC", where, reason, "Change one of the two fields.")


def _impossible(task: TaskSpec) -> list[tuple[bool, str]]:
    """Combinations that cannot mean anything, each with the reason."""
    info = TASKS[task.name]
    is_pair, is_cosine = len(info.text_columns) == 2, task.pair_method == "cosine"
    regression = info.kind == "score"
    return [
        (
            is_pair == (task.pair_method == "single"),
            f"pair_method {task.pair_method!r} does not fit a task of {len(info.text_columns)} sentence(s).",
        ),
        (is_cosine and (task.head_layers > 1 or task.shared_layer is not None), "a cosine has no head layers."),
        (task.shared_layer is not None and task.head_layers < 2, "a shared first layer needs head_layers 2."),
        (regression != (task.loss == "mse"), f"loss {task.loss!r} does not fit labels of kind {info.kind!r}."),
        (task.loss == "cosine_embedding" and not is_cosine, "the cosine embedding loss needs pair_method cosine."),
        (task.loss == "bce" and info.num_classes != 2, "bce needs two classes."),
        (task.loss == "cross_entropy" and is_pair, "pair tasks have one logit: use bce."),
        (is_cosine and task.loss == "bce", "a cosine is not a logit: use cosine_embedding."),
        (
            task.output != "raw" and not (is_cosine and regression),
            "times_five scales a cosine to the 0..5 range of STS.",
        ),
    ]
