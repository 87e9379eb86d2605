"""What a RunSpec refuses, each with the reason: unknown names, numbers out of range, combinations without a meaning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from common.declare.strict import meant
from common.declare.tasks import TASKS
from common.errors import StudyError

if TYPE_CHECKING:
    from common.declare.spec import RunSpec, TaskSpec

CORPORA = ("imdb", "mnli", "sick")
# Dotted field -> the names it may hold; `tasks.` stands for every task.
CHOICES = {
    "tasks.name": tuple(TASKS),
    "tasks.pair_method": ("single", "separate", "pair", "cosine"),
    "tasks.pooling": ("pooler", "cls", "mean"),
    "tasks.activation": ("relu", "leaky_relu", "gelu", "tanh"),
    "tasks.output": (*("raw", "relu", "times_five", "relu_times_five", "shifted_times_five", "sigmoid_times_five"),),
    "tasks.loss": ("cross_entropy", "bce", "mse", "cosine_embedding", "cosine_embedding_sts", "mnrl"),
    "tasks.features": ("concat", "sbert"),
    "schedule.kind": ("round_robin", "interleaved", "joint", "biased", "annealed", "sequential", "staged"),
    "schedule.order": ("fixed", "random"),
    "schedule.stop": ("shortest", "longest", "cycle"),
    "optimizer.variant": ("starter", "torch"),
    "optimizer.rate.kind": ("constant", "linear", "step", "plateau"),
    "weighting.kind": ("fixed", "linear", "uncertainty", "automatic", "dynamic"),
    "surgery.kind": ("none", "measure", "pcgrad"),
    "surgery.reduction": ("sum", "mean"),
    "smart.variant": ("paper", "mt_dnn"),
    "encoder.pals.start": ("random", "zero"),
    "precision": ("fp32", "bf16"),
    "engine": ("plain", "fast"),
}
# Dotted field -> smallest and largest value; a None is left alone.
RANGES = {
    "tasks.head_layers": (1, 2),
    "tasks.dropout": (0.0, 0.99),
    "tasks.threshold": (-1.0, 1.0),
    "tasks.examples": (1, 10**9),
    "tasks.per_epoch": (1, 10**9),
    "tasks.sampling_size": (1, 10**9),
    "tasks.scale": (1e-3, 1e3),
    "tasks.loss_weight": (0.0, 1e6),
    "tasks.sampling_share": (1e-6, 1e6),
    "schedule.updates": (1, 10**9),
    "schedule.repeats": (1, 16),
    "optimizer.lr": (0.0, 1.0),
    "optimizer.weight_decay": (0.0, 1.0),
    "optimizer.eps": (1e-12, 1.0),
    "optimizer.rate.warmup": (0.0, 1.0),
    "optimizer.rate.step": (1e-3, 1.0),
    "optimizer.rate.factor": (1e-6, 1.0),
    "optimizer.rate.patience": (0.0, 1.0),
    "weighting.lr": (0.0, 1.0),
    "smart.weight": (0.0, 1e6),
    "smart.steps": (1, 100),
    "smart.step_size": (0.0, 1e6),
    "smart.noise": (0.0, 1e3),
    "smart.epsilon": (1e-12, 1e3),
    "smart.bregman": (0.0, 1e6),
    "smart.bregman_decay": (0.0, 1.0),
    "encoder.hidden_dropout": (0.0, 0.99),
    "encoder.attention_dropout": (0.0, 0.99),
    "encoder.frozen_layers": (0, 1000),
    "encoder.pals.size": (1, 100_000),
    "encoder.pals.heads": (1, 1000),
    "encoder.pretraining.epochs": (1, 1000),
    "encoder.pretraining.batch_size": (1, 4096),
    "encoder.pretraining.lr": (0.0, 1.0),
    "encoder.pretraining.weight_decay": (0.0, 1.0),
    "encoder.pretraining.block": (8, 512),
    "encoder.pretraining.mask_frac": (0.01, 0.99),
    "batch_size": (1, 4096),
    "dev_examples": (1, 10**9),
    "final_examples": (1, 10**9),
    "train_examples": (1, 10**9),
    "epochs": (0, 1000),
    "seed": (0, 2**31 - 1),
}


def check(spec: RunSpec) -> None:
    """Raise StudyError for the first thing in a RunSpec that cannot be."""
    if not spec.tasks:
        raise StudyError("E-SPEC", "tasks", "a run needs at least one task.", f"Known: {', '.join(TASKS)}.")
    names = [task.name for task in spec.tasks]
    if len(set(names)) < len(names):
        raise StudyError("E-SPEC", "tasks", f"a task appears twice: {names}.", "Name each task once.")
    for field, known in CHOICES.items():
        for where, value in _values(spec, field):
            if value not in known:
                what = f"unknown value {value!r}.{meant(value, known)}"
                raise StudyError("E-SPEC", where, what, f"Known: {', '.join(known)}.")
    for field, (low, high) in RANGES.items():
        for where, value in _values(spec, field):
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise StudyError("E-SPEC", where, f"{value!r} is outside {low} to {high}.", "Choose a value inside.")
    for task in spec.tasks:
        _refuse(f"tasks.{task.name}", _impossible_task(task))
    _refuse("encoder", _impossible_encoder(spec))
    _refuse("schedule", _impossible_schedule(spec))
    _refuse("smart", _impossible_smart(spec))
    _check_groups(spec)


def _values(spec: RunSpec, field: str) -> list[tuple[str, object]]:
    """Where a dotted field stands and its value; nothing where a part on the way is absent."""
    first, *rest = field.split(".")
    holders = [(f"tasks.{task.name}", task) for task in spec.tasks] if first == "tasks" else [("", spec)]
    path = rest if first == "tasks" else [first, *rest]
    found = []
    for where, value in holders:
        for name in path:
            value = getattr(value, name) if value is not None else None
            where = f"{where}.{name}".lstrip(".")
        if value is not None:
            found.append((where, value))
    return found


def _refuse(where: str, found: list[tuple[bool, str]]) -> None:
    for broken, reason in found:
        if broken:
            raise StudyError("E-SPEC", where, reason, "Change one of the two fields.")


def _impossible_task(task: TaskSpec) -> list[tuple[bool, str]]:
    """Combinations that cannot mean anything, each with the reason."""
    info = TASKS[task.name]
    is_pair, is_cosine, is_score = len(info.text_columns) == 2, task.pair_method == "cosine", info.kind == "score"
    fits_score = task.loss in ("mse", "cosine_embedding_sts", "mnrl")
    fits_class = task.loss != "cosine_embedding_sts" and (task.loss != "mse" or (is_pair and is_cosine))
    return [
        (
            is_pair == (task.pair_method == "single"),
            f"pair_method {task.pair_method!r} does not fit a task of {len(info.text_columns)} sentence(s).",
        ),
        (is_cosine and (task.head_layers > 1 or task.shared_layer is not None), "a cosine has no head layers."),
        (task.shared_layer is not None and task.head_layers < 2, "a shared first layer needs head_layers 2."),
        (task.inner_dropout and task.head_layers < 2, "inner_dropout needs head_layers 2."),
        (
            not (fits_score if is_score else fits_class),
            f"loss {task.loss!r} does not fit labels of kind {info.kind!r}.",
        ),
        (
            task.loss.startswith("cosine_embedding") and not (is_cosine and task.output == "raw"),
            "the cosine embedding loss needs pair_method cosine and output raw.",
        ),
        (
            task.loss == "mnrl" and task.pair_method not in ("cosine", "separate"),
            "multiple negatives ranking compares two encodings: use cosine or separate.",
        ),
        (
            task.per_epoch is not None and task.examples is not None and task.per_epoch > task.examples,
            f"per_epoch draws from a set of {task.examples} examples.",
        ),
        (task.loss == "bce" and info.num_classes != 2, "bce needs two classes."),
        (task.loss == "cross_entropy" and is_pair, "pair tasks have one logit: use bce."),
        (
            task.output.endswith("times_five") and not (is_cosine and is_score),
            "times_five scales a cosine to the 0..5 range of STS.",
        ),
        (
            task.output == "relu" and not (is_cosine and task.loss == "bce"),
            "output relu turns a cosine into the logit of bce.",
        ),
        (
            task.scale != 1.0
            and not (task.output == "sigmoid_times_five" or task.loss == "mnrl" or (is_cosine and task.loss == "bce")),
            "scale multiplies the cosine before a sigmoid, or in multiple negatives ranking.",
        ),
        (task.features == "sbert" and task.pair_method != "separate", "features sbert needs pair_method separate."),
        (
            not (task.segments and task.separator) and task.pair_method != "pair",
            "segments and separator belong to pair_method pair.",
        ),
    ]


def _impossible_encoder(spec: RunSpec) -> list[tuple[bool, str]]:
    encoder, names = spec.encoder, {task.name for task in spec.trained_tasks}
    pals, pretraining = encoder.pals, encoder.pretraining
    corpora = [corpus.name for corpus in pretraining.corpora] if pretraining else []
    return [
        (encoder.frozen and encoder.frozen_layers > 0, "a frozen encoder has no layers left to freeze."),
        (encoder.frozen and encoder.trained_by is not None, "a frozen encoder is trained by no task."),
        (
            not set(encoder.trained_by or ()) <= names,
            f"trained_by names {sorted(set(encoder.trained_by or ()) - names)}, the trained tasks are {sorted(names)}.",
        ),
        (pals is not None and pals.size % pals.heads > 0, "the size of the PALs is no multiple of their heads."),
        (pretraining is not None and not corpora, "additional pretraining needs a corpus."),
        (
            not set(corpora) <= set(CORPORA),
            f"unknown corpus in {corpora}. Known: {', '.join(CORPORA)}.",
        ),
        (len(set(corpora)) < len(corpora), f"a corpus appears twice: {corpora}."),
        (any(c.examples < 1 for c in (pretraining.corpora if pretraining else ())), "a corpus needs examples."),
    ]


def _impossible_schedule(spec: RunSpec) -> list[tuple[bool, str]]:
    schedule, grouped = spec.schedule, spec.schedule.kind in ("joint", "biased")
    return [
        (not spec.trained_tasks and spec.epochs > 0, "no task is trained: give epochs 0."),
        (schedule.repeats > 1 and schedule.kind != "joint", "repeats needs schedule joint."),
        (schedule.updates is not None and schedule.kind != "annealed", "updates belongs to schedule annealed."),
        (
            schedule.kind != "annealed" and any(task.sampling_size is not None for task in spec.tasks),
            "sampling_size belongs to schedule annealed.",
        ),
        (
            spec.grouping and spec.depends_on_company,
            "surgery and multiple negatives ranking depend on who is in a batch: do not group it by length.",
        ),
        (
            spec.surgery.kind != "none" and not grouped,
            f"surgery compares the gradients of one update: {schedule.kind} has one task in each.",
        ),
        (spec.surgery.kind == "none" and spec.surgery.reduction != "sum", "without surgery nothing is reduced."),
        (spec.surgery.kind != "none" and spec.encoder.frozen, "a frozen encoder has no gradients to compare."),
        (
            spec.encoder.trained_by is not None and grouped,
            f"trained_by says whose updates train BERT: {schedule.kind} has all tasks in one update.",
        ),
        (
            spec.optimizer.rate.kind == "plateau" and spec.optimizer.rate.warmup > 0,
            "a plateau schedule has no warm-up: one would undo the other's rate.",
        ),
        (spec.weighting.lr is not None and spec.weighting.kind == "fixed", "fixed weights have no learning rate."),
        (
            spec.weighting.kind != "fixed" and any(task.loss_weight == 0 for task in spec.trained_tasks),
            "a learned weight of a loss that counts nothing would grow without bound.",
        ),
        (
            spec.weighting.regression_half and spec.weighting.kind != "uncertainty",
            "regression_half belongs to weighting uncertainty.",
        ),
    ]


def _impossible_smart(spec: RunSpec) -> list[tuple[bool, str]]:
    if spec.smart is None:
        return []
    trained = {task.name: task for task in spec.trained_tasks}
    unknown = [name for name in spec.smart.tasks if name not in trained]
    ranking = [name for name in spec.smart.tasks if name in trained and trained[name].loss == "mnrl"]
    return [
        (not spec.smart.tasks, "SMART needs a task."),
        (bool(unknown), f"SMART names {unknown}, the trained tasks are {list(trained)}."),
        (bool(ranking), "SMART compares predictions: the ranking loss of mnrl has none of its own."),
        (spec.encoder.frozen, "SMART smooths the encoder: a frozen one cannot change."),
    ]


def _check_groups(spec: RunSpec) -> None:
    """Tasks that share a head layer must enter it with one width."""
    for task in spec.tasks:
        group = {
            t.name: (t.pair_method, t.features, t.pooling) for t in spec.tasks if t.shared_layer == task.shared_layer
        }
        if task.shared_layer and len(set(group.values())) > 1:
            what = f"tasks of one group enter it with unlike widths: {group}."
            raise StudyError("E-SPEC", "shared_layer", what, "Give them one pair method, features and pooling.")
