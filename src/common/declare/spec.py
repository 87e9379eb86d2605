"""What is trained (RunSpec) and what the machine can afford (Profile).

A RunSpec is written as the report has it: report set sizes, epochs, batch size and rate. `Profile.apply` is the only
place that turns it into something a given machine can run. Nothing here trains, reads a file or knows a path. What a
RunSpec refuses, and why, is in rules.py; strict loading from plain values is in strict.py.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from common.declare import rules
from common.declare.strict import build, canonical_json, meant, to_dict
from common.declare.tasks import TASKS
from common.errors import StudyError


@dataclass(frozen=True)
class PalSpec:
    """Projected attention layers, one stack per task beside BERT (Stickland & Murray 2019, section 3.3; model/pals.py).

    size and heads: of the attention between the two projections. gelu: the released code applies GELU after the
    second projection, the paper's formula does not. start: random, N(0, 0.02), or zero, where the second projection
    starts at 0 and so leaves BERT unchanged.
    """

    size: int = 204
    heads: int = 12
    gelu: bool = True
    start: str = "random"


@dataclass(frozen=True)
class CorpusSpec:
    """Text for additional pretraining: the name of a corpus, and how many lines (or pairs) are drawn from it."""

    name: str
    examples: int


@dataclass(frozen=True)
class PretrainingSpec:
    """Additional masked-language-model pretraining before the tasks (BERT++ section 4.3.2; training/pretrain.py).

    Texts are joined and cut into blocks of `block` tokens, of which mask_frac are to be predicted. What the report
    leaves open (epochs, rate, batch, decay) is the recipe it cites, chapter 7.3 of the Hugging Face course.
    """

    corpora: tuple[CorpusSpec, ...]
    epochs: int = 3
    batch_size: int = 64
    lr: float = 2e-5
    weight_decay: float = 0.01
    block: int = 128
    mask_frac: float = 0.15


@dataclass(frozen=True)
class EncoderSpec:
    """The shared BERT: which checkpoint, what of it is trained, its inner dropout (starter default 0.1).

    frozen: nothing of BERT is trained (its PALs are). frozen_layers: the embeddings and that many first layers are
    not. trained_by: only batches of these tasks train BERT's own weights; None is all of them.
    """

    checkpoint: str = "bert-base-uncased"
    frozen: bool = False
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    frozen_layers: int = 0
    trained_by: tuple[str, ...] | None = None
    pals: PalSpec | None = None
    pretraining: PretrainingSpec | None = None


@dataclass(frozen=True)
class TaskSpec:
    """How one task enters the encoder, leaves it, is trained and is scored.

    pair_method: single (one sentence), separate (two encodings, joined), pair (both in one input), cosine (two
    encodings, their cosine). segments and separator: whether a pair input has segment ids, and [SEP] in its middle.
    features: what separate encodings are joined to: both, or both and their absolute difference (sbert).
    shared_transformer: the vectors pass one transformer layer that all such tasks share. projection: each sentence
    vector passes a dense layer of its task first. head_layers, activation, dropout, inner_dropout (also before the
    last layer): the head. shared_layer: tasks that name the same group share their first head layer.
    output: what becomes of a cosine: raw, relu, times_five, relu_times_five, shifted_times_five (2.5 (1 + cos)),
    sigmoid_times_five; scale multiplies the cosine before a sigmoid (also as the logit of bce), and the similarities of
    the multiple negatives ranking loss. That loss (mnrl) acts on the cosines of separate encodings, whatever scores
    the pair: their cosine, or a linear head that nothing trains.
    threshold: a paraphrase is predicted when the probability (or the cosine) exceeds it. examples: the training set is
    cut to so many, one fixed draw; None is the whole set. per_epoch: an epoch draws so many of them anew; None passes
    all. loss_weight: fixed factor of its loss. sampling_share: its part in biased sampling, sampling_size: its N in
    annealed sampling (None is its set's size). trained False: its head keeps its random start and is only evaluated.
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
    per_epoch: int | None = None
    sampling_size: int | None = None
    segments: bool = True
    separator: bool = True
    features: str = "concat"
    projection: bool = False
    inner_dropout: bool = False
    shared_transformer: bool = False
    scale: float = 1.0
    loss_weight: float = 1.0
    sampling_share: float = 1.0
    trained: bool = True


@dataclass(frozen=True)
class ScheduleSpec:
    """Which tasks make up each update (methods/sampling.py).

    round_robin: every batch of one task, then of the next. interleaved: one update per task in turn. joint: one
    update on a batch of every task. biased: one update on as many batches as there are tasks, each of a task drawn
    by its sampling_share. annealed: one task per update, drawn by its size. sequential: all epochs of one task, then
    of the next; staged: then once more as many epochs of all tasks, in round robin.
    stop: an interleaved or joint epoch ends with the first exhausted task (shortest), goes on with the others until
    the last is exhausted (longest), or until then with the short sets starting again (cycle).
    updates: of an annealed epoch; None is as many as there are batches. repeats: batches of each task in a joint
    update, so that two batches of one task can be compared.
    """

    kind: str = "round_robin"
    order: str = "fixed"
    stop: str = "shortest"
    updates: int | None = None
    repeats: int = 1

    @property
    def is_phased(self) -> bool:
        """Whether tasks are trained one after the other; such a run is scored after its last phase."""
        return self.kind in ("sequential", "staged")

    def updates_per_epoch(self, batches: dict[str, int]) -> int:
        """Optimiser updates of one epoch (of one epoch of every phase), given each task's batches."""
        counts = batches.values()
        turns = min(counts) if self.stop == "shortest" else max(counts)
        per_kind = {
            "joint": turns // self.repeats,
            "staged": 2 * sum(counts),
            "biased": min(counts),
            "annealed": self.updates or sum(counts),
            "interleaved": sum(counts) if self.stop == "longest" else len(counts) * turns,
        }
        return per_kind.get(self.kind, sum(counts))

    def batches_per_epoch(self, batches: dict[str, int]) -> int:
        """Task batches that go into the updates of one epoch."""
        updates = self.updates_per_epoch(batches)
        if self.kind == "joint" and self.stop == "longest":
            return sum(batches.values())
        grouped = {"joint": len(batches) * self.repeats, "biased": len(batches)}
        return updates * grouped.get(self.kind, 1)


@dataclass(frozen=True)
class RateSpec:
    """How the learning rate moves (training/optim.py). Lengths are shares of training, so that profiles keep them.

    constant; linear: to 0 after the last update; step: times `factor` after every `step` of training; plateau: times
    `factor` after `patience` of training without a better dev score (at least one epoch). warmup: the share that first
    rises from 0.
    """

    kind: str = "constant"
    warmup: float = 0.0
    step: float = 0.5
    factor: float = 0.1
    patience: float = 0.2


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
    rate: RateSpec = RateSpec()


@dataclass(frozen=True)
class WeightingSpec:
    """How task losses are weighted (methods/losses.py): fixed, or by learned weights with a rate of their own.

    lr None is the model's. regression_half: with `uncertainty`, 1 / (2 sigma^2) for regression as Kendall et al. have
    it, where swissBERT prints 1 / sigma^2 for every task.
    """

    kind: str = "fixed"
    lr: float | None = None
    regression_half: bool = False


@dataclass(frozen=True)
class SurgerySpec:
    """What is done with the gradients of an update's batches (methods/gradients.py): none, measure (only their
    cosines), or pcgrad (Yu et al. 2020, algorithm 1). reduction: sum, as the paper, or mean, as the packaged code."""

    kind: str = "none"
    reduction: str = "sum"


@dataclass(frozen=True)
class SmartSpec:
    """Smoothness-inducing regularisation (Jiang et al. 2020; methods/smart.py).

    weight: lambda, 0 is off. tasks: whose losses get the term. variant: `paper` keeps the noise in a ball of radius
    epsilon around the embeddings; `mt_dnn` rescales it to size 1 per token, as the public code does (there epsilon
    only guards a division). noise: standard deviation of the start. bregman: weight of the proximal term towards a
    moving average of the weights, with factor bregman_decay; 0 is off.
    """

    weight: float
    tasks: tuple[str, ...]
    variant: str = "mt_dnn"
    steps: int = 1
    step_size: float = 1e-3
    noise: float = 1e-5
    epsilon: float = 1e-6
    bregman: float = 0.0
    bregman_decay: float = 0.99

    @property
    def is_on(self) -> bool:
        """Whether any of its terms counts; with both weights 0 a run is exactly the run without it."""
        return bool(self.weight or self.bregman)


@dataclass(frozen=True)
class RunSpec:
    """One trained model, as the report states it or as a profile applies it.

    epochs 0 evaluates the untrained model. A phased schedule gives `epochs` to every phase. dev_examples caps the
    per-epoch evaluation of a task, final_examples the last one, train_examples its metrics on training data; None takes
    all. precision, engine and grouping are the machine's: fast does the same in fewer passes over memory
    (model/fast.py), plain as it is written down in model/bert.py; grouping cuts batches from sentences of like length,
    where no method depends on who is in a batch.
    """

    tasks: tuple[TaskSpec, ...]
    encoder: EncoderSpec = EncoderSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    batch_size: int = 32
    epochs: int = 10
    data: str = "cs224n"
    precision: str = "fp32"
    engine: str = "plain"
    grouping: bool = False
    dev_examples: int | None = None
    final_examples: int | None = None
    train_examples: int | None = 1024
    seed: int = 0
    weighting: WeightingSpec = WeightingSpec()
    surgery: SurgerySpec = SurgerySpec()
    smart: SmartSpec | None = None

    def __post_init__(self):
        rules.check(self)

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

    @property
    def trained_tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks that are trained, not only evaluated."""
        return tuple(task for task in self.tasks if task.trained)

    @property
    def total_epochs(self) -> int:
        """Epochs as the loop counts them: a phased schedule has one per phase and epoch."""
        is_staged = self.schedule.kind == "staged"
        return self.epochs * (len(self.trained_tasks) + is_staged if self.schedule.is_phased else 1)

    @property
    def depends_on_company(self) -> bool:
        """Whether a method looks at a batch as a whole, so that batches of like length would change it."""
        return self.surgery.kind != "none" or any(task.loss == "mnrl" for task in self.trained_tasks)

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

    def set_sizes(self, available: dict[str, int]) -> dict[str, int]:
        """Examples in the training set of each trained task: its cap, at most the whole set of that size."""
        return {t.name: min(t.examples or available[t.name], available[t.name]) for t in self.trained_tasks}

    def examples_per_epoch(self, available: dict[str, int]) -> dict[str, int]:
        """Examples an epoch may draw of each trained task: a part of its set, or all of it."""
        sizes = self.set_sizes(available)
        return {t.name: min(t.per_epoch or sizes[t.name], sizes[t.name]) for t in self.trained_tasks}

    def batches_per_epoch(self, available: dict[str, int]) -> dict[str, int]:
        """Batches of each trained task in one pass over what an epoch may draw of it."""
        return {name: math.ceil(size / self.batch_size) for name, size in self.examples_per_epoch(available).items()}

    def total_updates(self, available: dict[str, int]) -> int:
        """Optimiser updates of the whole run on sets of these sizes."""
        return self.epochs * self.schedule.updates_per_epoch(self.batches_per_epoch(available))

    def total_examples(self, available: dict[str, int]) -> int:
        """Examples the whole run draws (a partly filled last batch counted as full)."""
        return self.epochs * self.schedule.batches_per_epoch(self.batches_per_epoch(available)) * self.batch_size


# Encoders whose pooler was published untrained (MiniLM has an all-zero bias). There "the pooled output" of a report is
# the first token's state: a random layer in its place is nothing a report used. See DEVIATIONS.md D1.
UNTRAINED_POOLER = ("minilm-l6",)


class Encoder(NamedTuple):
    """Layers, hidden width and attention heads of a known encoder, and the factor on every learning rate with it.

    The reports' rates are BERT-base's. A smaller encoder wants a higher one, and here it has fewer updates; the factor
    is one constant for all rows, so that rows which are compared keep the ratio of their rates (DEVIATIONS.md D2).
    """

    layers: int
    width: int
    heads: int
    rate: float = 1.0


ENCODERS = {
    "bert-base-uncased": Encoder(12, 768, 12),
    "minilm-l6": Encoder(6, 384, 12, rate=4.5),
    "tiny-bert": Encoder(2, 128, 4, rate=40.0),
    "tiny-random": Encoder(2, 128, 4, rate=40.0),
}
REPORT_TRAIN = {name: task.report_train for name, task in TASKS.items()}


@dataclass(frozen=True)
class Profile:
    """What a machine can afford, and the one place where that changes a RunSpec.

    n_sts and n_para fix the two ends of the size rule `scale`; epochs maps the reports' epochs to ours; dev_examples,
    final_examples and train_examples cap evaluation; grouping saves padding.
    """

    name: str
    encoder: str
    data: str
    n_sts: int
    n_para: int
    epochs: tuple[tuple[int, int], ...] | None
    max_batch: int | None
    dev_examples: int | None
    final_examples: int | None
    threads: int | None = 1
    device: str = "cpu"
    precision: str = "fp32"
    engine: str = "fast"
    grouping: bool = True
    train_examples: int | None = 1024
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

    def apply(self, spec: RunSpec, data: str | None = None, encoder: str | None = None, exact: bool = False) -> RunSpec:
        """The RunSpec this machine runs in place of the report's; data and encoder are names, never paths.

        exact changes nothing of what is trained: only the names, and how the machine computes and evaluates it.
        """
        checkpoint = encoder or self.encoder
        machine = replace(
            spec,
            tasks=tuple(replace(task, pooling=_pooling(task.pooling, checkpoint)) for task in spec.tasks),
            data=data or self.data,
            encoder=replace(spec.encoder, checkpoint=checkpoint),
            precision=self.precision,
            engine=self.engine,
            grouping=self.grouping and not spec.depends_on_company,
            dev_examples=self.dev_examples,
            final_examples=self.final_examples,
            train_examples=self.train_examples,
            # So lambda 0 is the run without SMART and is trained once.
            smart=spec.smart if spec.smart and spec.smart.is_on else None,
        )
        return machine if exact else self._smaller(machine)

    def _smaller(self, spec: RunSpec) -> RunSpec:
        """Fixed subsets, fewer epochs and a higher rate."""
        batch_size, rate = min(spec.batch_size, self.max_batch or spec.batch_size), _rate(spec.encoder.checkpoint)
        applied = replace(
            spec,
            tasks=self._tasks(spec),
            batch_size=batch_size,
            epochs=self.scale_epochs(spec.epochs),
            encoder=self._encoder(spec.encoder),
            schedule=replace(spec.schedule, updates=self._updates(spec, batch_size)),
            optimizer=replace(spec.optimizer, lr=_times(spec.optimizer.lr, rate)),
        )
        if spec.weighting.kind == "fixed":
            return applied
        # Adam moves a scalar by about its rate in every update: so the weights travel as far as in the report.
        travel = _ratio(spec.total_updates(REPORT_TRAIN), applied.total_updates(REPORT_TRAIN))
        lr = spec.optimizer.lr if spec.weighting.lr is None else spec.weighting.lr
        return replace(applied, weighting=replace(spec.weighting, lr=_times(lr, travel)))

    def _tasks(self, spec: RunSpec) -> tuple[TaskSpec, ...]:
        """Sets and parts of sets by the size rule; sampling formulas keep the report's own sizes."""
        sets, drawn = spec.set_sizes(REPORT_TRAIN), spec.examples_per_epoch(REPORT_TRAIN)
        return tuple(
            replace(
                task,
                examples=self.scale(sets[task.name]),
                per_epoch=None if task.per_epoch is None else self.scale(drawn[task.name]),
                sampling_size=drawn[task.name] if spec.schedule.kind == "annealed" else None,
            )
            if task.trained
            else task
            for task in spec.tasks
        )

    def _updates(self, spec: RunSpec, batch_size: int) -> int | None:
        if spec.schedule.updates is None:
            return None
        return max(1, round(self.scale(spec.schedule.updates * spec.batch_size) / batch_size))

    def _encoder(self, encoder: EncoderSpec) -> EncoderSpec:
        """Layers and PALs in proportion to the encoder's size; an encoder of unknown size counts as BERT-base."""
        base, here = ENCODERS["bert-base-uncased"], ENCODERS.get(encoder.checkpoint)
        layers, pals = encoder.frozen_layers, encoder.pals
        if here and layers:
            layers = max(1, round(layers * here.layers / base.layers))
        if here and pals:
            heads = min(pals.heads, here.heads)
            pals = replace(pals, heads=heads, size=max(1, round(pals.size * here.width / base.width / heads)) * heads)
        pretraining = encoder.pretraining and self._pretraining(encoder.pretraining, _rate(encoder.checkpoint))
        return replace(encoder, frozen_layers=layers, pals=pals, pretraining=pretraining)

    def _pretraining(self, spec: PretrainingSpec, rate: float) -> PretrainingSpec:
        """Fewer texts and epochs, and the rate raised as everywhere."""
        corpora = tuple(replace(corpus, examples=self.scale(corpus.examples)) for corpus in spec.corpora)
        epochs, batch_size = self.scale_epochs(spec.epochs), min(spec.batch_size, self.max_batch or spec.batch_size)
        return replace(spec, corpora=corpora, epochs=epochs, batch_size=batch_size, lr=_times(spec.lr, rate))

    def share(self, spec: RunSpec, applied: RunSpec) -> float:
        """Examples drawn here over examples drawn in the report; 1 for a run without training."""
        reported = spec.total_examples(REPORT_TRAIN)
        return applied.total_examples(REPORT_TRAIN) / reported if reported else 1.0


_SHORT_EPOCHS = ((1, 1), (3, 2), (10, 3), (20, 4))
_EMBEDDED = {"data": "embedded", "final_examples": None}
_REAL = {"data": "cs224n", "precision": "bf16", "seeds": (0, 1, 2)}
_GPU = _REAL | {
    **{"device": "cuda", "threads": None, "engine": "plain", "grouping": False},
    **{"max_batch": None, "epochs": None, "final_examples": None},
}
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "tiny-random",
            n_sts=40,
            n_para=160,
            epochs=((1, 1), (20, 1)),
            max_batch=8,
            dev_examples=64,
            train_examples=64,
            **_EMBEDDED,
        ),
        # All rows fit into ten minutes on two cores; sets are small and passed often enough for overfitting to show.
        Profile(
            "quick",
            "tiny-bert",
            n_sts=200,
            n_para=530,
            epochs=((1, 1), (3, 4), (10, 7), (20, 10)),
            max_batch=16,
            dev_examples=120,
            train_examples=120,
            **_EMBEDDED,
        ),
        # A pilot chose the sizes (DEVIATIONS.md D2): smaller sets cap the dev scores, fewer passes hide overfitting.
        Profile(
            "cpu",
            "minilm-l6",
            n_sts=1600,
            n_para=4800,
            epochs=_SHORT_EPOCHS,
            max_batch=16,
            dev_examples=500,
            final_examples=5000,
            train_examples=500,
            **_REAL,
        ),
        Profile("gpu", "minilm-l6", n_sts=2400, n_para=24000, dev_examples=1000, **_GPU),
        Profile("paper", "bert-base-uncased", n_sts=6040, n_para=141498, dev_examples=None, **_GPU),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of that name; StudyError with the known names otherwise."""
    if name not in PROFILES:
        raise StudyError(
            "E-PROFILE",
            "profile",
            f"unknown profile {name!r}.{meant(name, PROFILES)}",
            f"Known: {', '.join(PROFILES)}.",
        )
    return PROFILES[name]


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else float(f"{rate * factor:.4g}")


def _rate(checkpoint: str) -> float:
    """The factor on learning rates with an encoder; one that is not known counts as BERT-base."""
    return ENCODERS[checkpoint].rate if checkpoint in ENCODERS else 1.0


def _ratio(there: int, here: int) -> float:
    return there / here if here else 1.0


def _pooling(pooling: str, checkpoint: str) -> str:
    return "cls" if pooling == "pooler" and checkpoint in UNTRAINED_POOLER else pooling
