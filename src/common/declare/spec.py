"""RunSpec: what is trained, as a report states it or as a profile applies it.

Set sizes, epochs, batch size and rate are the report's; `profile.py` turns them into what a given machine can run.
Nothing here trains, reads a file or knows a path. Choices, ranges and impossible combinations stand by their fields.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from common.declare.strict import (
    Count,
    Dropout,
    Flag,
    Number,
    Share,
    Text,
    Weight,
    Whole,
    build,
    canonical_json,
    refuse,
    strict,
    to_dict,
)
from common.declare.tasks import TASKS
from common.errors import StudyError

Rate = Share  # a learning rate above 1 is a slip
Name = Literal["sst", "para", "sts", "cfimdb"]
Corpus = Literal["imdb", "mnli", "sick"]
Precision = Literal["fp32", "bf16"]
Engine = Literal["plain", "fast"]
TIMES_FIVE = ("times_five", "relu_times_five", "shifted_times_five", "sigmoid_times_five")


@strict
class PalSpec:
    """Projected attention layers, a stack a task beside BERT (Stickland & Murray 2019, section 3.3; model/pals.py)."""

    # Width of the attention between the two projections, and its heads.
    size: Annotated[Whole, Field(ge=1, le=100_000)] = 204
    heads: Annotated[Whole, Field(ge=1, le=1000)] = 12
    # The released code applies GELU after the second projection, the paper's formula does not.
    gelu: Flag = True
    # random, N(0, 0.02); zero: the second projection starts at 0 and so leaves BERT unchanged.
    start: Literal["random", "zero"] = "random"

    def __post_init__(self) -> None:
        refuse((self.size % self.heads > 0, "the size of the PALs is no multiple of their heads."))


@strict
class CorpusSpec:
    """Text for additional pretraining: the name of a corpus, and how many lines (or pairs) are drawn from it."""

    name: Corpus
    examples: Count


@strict
class PretrainingSpec:
    """Additional masked-language-model pretraining before the tasks (BERT++ section 4.3.2; training/pretrain.py).

    What the report leaves open (epochs, rate, batch, decay) is the recipe it cites, chapter 7.3 of the Hugging Face
    course.
    """

    corpora: tuple[CorpusSpec, ...]
    epochs: Annotated[Whole, Field(ge=1, le=1000)] = 3
    batch_size: Annotated[Whole, Field(ge=1, le=4096)] = 64
    lr: Rate = 2e-5
    weight_decay: Share = 0.01
    # Texts are joined and cut into blocks of so many tokens, of which a share is to be predicted.
    block: Annotated[Whole, Field(ge=8, le=512)] = 128
    mask_frac: Annotated[Number, Field(ge=0.01, le=0.99)] = 0.15

    def __post_init__(self) -> None:
        names = [corpus.name for corpus in self.corpora]
        refuse(
            (not names, "additional pretraining needs a corpus."),
            (len(set(names)) < len(names), f"a corpus appears twice: {names}."),
        )


@strict
class EncoderSpec:
    """The shared BERT: which checkpoint, what of it is trained, its inner dropout (starter default 0.1)."""

    checkpoint: Text = "bert-base-uncased"
    # Nothing of BERT is trained (its PALs are).
    frozen: Flag = False
    hidden_dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    # The embeddings and that many first layers are not trained.
    frozen_layers: Annotated[Whole, Field(ge=0, le=1000)] = 0
    # Only batches of these tasks train BERT's own weights; None is all of them.
    trained_by: tuple[Name, ...] | None = None
    pals: PalSpec | None = None
    pretraining: PretrainingSpec | None = None

    def __post_init__(self) -> None:
        refuse(
            (self.frozen and self.frozen_layers > 0, "a frozen encoder has no layers left to freeze."),
            (self.frozen and self.trained_by is not None, "a frozen encoder is trained by no task."),
        )


@strict
class TaskSpec:
    """How one task enters the encoder, leaves it, is trained and is scored."""

    name: Name
    # single (one sentence), separate (two encodings, joined), pair (both in one input), cosine (of two encodings).
    pair_method: Literal["single", "separate", "pair", "cosine"] = "single"
    pooling: Literal["pooler", "cls", "mean"] = "pooler"
    head_layers: Annotated[Whole, Field(ge=1, le=2)] = 1
    activation: Literal["relu", "leaky_relu", "gelu", "tanh"] = "relu"
    # Tasks that name the same group share their first head layer.
    shared_layer: Text | None = None
    # What becomes of a cosine; shifted_times_five is 2.5 (1 + cos).
    output: Literal["raw", "relu", "times_five", "relu_times_five", "shifted_times_five", "sigmoid_times_five"] = "raw"
    # mnrl, the multiple negatives ranking loss, acts on the cosines of separate encodings, whatever scores the pair:
    # their cosine, or a linear head that nothing trains.
    loss: Literal["cross_entropy", "bce", "mse", "cosine_embedding", "cosine_embedding_sts", "mnrl"] = "cross_entropy"
    dropout: Dropout = 0.0
    # A paraphrase is predicted when the probability (or the cosine) exceeds it.
    threshold: Annotated[Number, Field(ge=-1, le=1)] = 0.5
    # The training set is cut to so many, one fixed draw; None is the whole set.
    examples: Count | None = None
    # An epoch draws so many of them anew; None passes all.
    per_epoch: Count | None = None
    # Its N in annealed sampling; None is its set's size.
    sampling_size: Count | None = None
    # Whether a pair input has segment ids, and [SEP] in its middle.
    segments: Flag = True
    separator: Flag = True
    # What separate encodings are joined to: both, or both and their absolute difference (sbert).
    features: Literal["concat", "sbert"] = "concat"
    # Each sentence vector passes a dense layer of its task first.
    projection: Flag = False
    # Dropout before the last layer of the head as well.
    inner_dropout: Flag = False
    # The vectors pass one transformer layer that all such tasks share.
    shared_transformer: Flag = False
    # Multiplies the cosine before a sigmoid (also as the logit of bce), and the similarities of mnrl.
    scale: Annotated[Number, Field(ge=1e-3, le=1e3)] = 1.0
    # Fixed factor of its loss; its part in biased sampling.
    loss_weight: Weight = 1.0
    sampling_share: Annotated[Number, Field(ge=1e-6, le=1e6)] = 1.0
    # A head that is not trained keeps its random start and is only evaluated.
    trained: Flag = True

    def __post_init__(self) -> None:
        info, is_cosine = TASKS[self.name], self.pair_method == "cosine"
        is_pair, is_score = len(info.text_columns) == 2, info.kind == "score"
        scaled = self.output == "sigmoid_times_five" or self.loss == "mnrl" or (is_cosine and self.loss == "bce")
        refuse(
            (is_pair == (self.pair_method == "single"), f"pair_method {self.pair_method!r} does not fit a task of "
             f"{len(info.text_columns)} sentence(s)."),
            (not self._fits_labels(is_pair and is_cosine),
             f"loss {self.loss!r} does not fit labels of kind {info.kind!r}."),
            (is_cosine and (self.head_layers > 1 or self.shared_layer is not None), "a cosine has no head layers."),
            (self.shared_layer is not None and self.head_layers < 2, "a shared first layer needs head_layers 2."),
            (self.inner_dropout and self.head_layers < 2, "inner_dropout needs head_layers 2."),
            (self.loss.startswith("cosine_embedding") and not (is_cosine and self.output == "raw"),
             "the cosine embedding loss needs pair_method cosine and output raw."),
            (self.loss == "mnrl" and self.pair_method not in ("cosine", "separate"),
             "multiple negatives ranking compares two encodings: use cosine or separate."),
            (None not in (self.per_epoch, self.examples) and self.per_epoch > self.examples,
             f"per_epoch draws from a set of {self.examples} examples."),
            (self.loss == "bce" and info.num_classes != 2, "bce needs two classes."),
            (self.loss == "cross_entropy" and is_pair, "pair tasks have one logit: use bce."),
            (self.output in TIMES_FIVE and not (is_cosine and is_score),
             "times_five scales a cosine to the 0..5 range of STS."),
            (self.output == "relu" and not (is_cosine and self.loss == "bce"),
             "output relu turns a cosine into the logit of bce."),
            (self.scale != 1.0 and not scaled,
             "scale multiplies the cosine before a sigmoid, or in multiple negatives ranking."),
            (self.features == "sbert" and self.pair_method != "separate", "features sbert needs pair_method separate."),
            (not (self.segments and self.separator) and self.pair_method != "pair",
             "segments and separator belong to pair_method pair."),
        )  # fmt: skip

    def _fits_labels(self, is_cosine_of_pairs: bool) -> bool:
        if TASKS[self.name].kind == "score":
            return self.loss in ("mse", "cosine_embedding_sts", "mnrl")
        return self.loss != "cosine_embedding_sts" and (self.loss != "mse" or is_cosine_of_pairs)


@strict
class ScheduleSpec:
    """Which tasks make up each update (methods/sampling.py).

    round_robin: every batch of one task, then of the next. interleaved: one update per task in turn. joint: one
    update on a batch of every task. biased: one update on as many batches as there are tasks, each of a task drawn
    by its sampling_share. annealed: one task per update, drawn by its size. sequential: all epochs of one task, then
    of the next; staged: then once more as many epochs of all tasks, in round robin.
    """

    kind: Literal["round_robin", "interleaved", "joint", "biased", "annealed", "sequential", "staged"] = "round_robin"
    order: Literal["fixed", "random"] = "fixed"
    # An interleaved or joint epoch ends with the first exhausted task (shortest), goes on with the others until the
    # last is exhausted (longest), or until then with the short sets starting again (cycle).
    stop: Literal["shortest", "longest", "cycle"] = "shortest"
    # Of an annealed epoch; None is as many as there are batches.
    updates: Count | None = None
    # Batches of each task in a joint update, so that two batches of one task can be compared.
    repeats: Annotated[Whole, Field(ge=1, le=16)] = 1

    def __post_init__(self) -> None:
        refuse(
            (self.repeats > 1 and self.kind != "joint", "repeats needs schedule joint."),
            (self.updates is not None and self.kind != "annealed", "updates belongs to schedule annealed."),
        )

    @property
    def is_phased(self) -> bool:
        """Whether tasks are trained one after the other; such a run is scored after its last phase."""
        return self.kind in ("sequential", "staged")

    @property
    def is_grouped(self) -> bool:
        """Whether an update has batches of several tasks."""
        return self.kind in ("joint", "biased")

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
        return updates * (len(batches) * self.repeats if self.is_grouped else 1)


@strict
class RateSpec:
    """How the learning rate moves (training/optim.py). Lengths are shares of training, so that profiles keep them.

    constant; linear: to 0 after the last update; step: times `factor` after every `step` of training; plateau: times
    `factor` after `patience` of training without a better dev score (at least one epoch).
    """

    kind: Literal["constant", "linear", "step", "plateau"] = "constant"
    # The share of training in which the rate first rises from 0.
    warmup: Share = 0.0
    step: Annotated[Number, Field(ge=1e-3, le=1)] = 0.5
    factor: Annotated[Number, Field(ge=1e-6, le=1)] = 0.1
    patience: Share = 0.2

    def __post_init__(self) -> None:
        refuse((self.kind == "plateau" and self.warmup > 0, "a plateau schedule has no warm-up: one would undo the "
                "other's rate."))  # fmt: skip


@strict
class OptimizerSpec:
    """AdamW (Loshchilov & Hutter 2019)."""

    lr: Rate = 1e-5
    weight_decay: Share = 0.0
    beta1: Annotated[Number, Field(ge=0, le=0.9999)] = 0.9
    beta2: Annotated[Number, Field(ge=0, le=0.999999)] = 0.999
    eps: Annotated[Number, Field(ge=1e-12, le=1)] = 1e-6
    # `starter` folds the bias correction into the step size and decays after the step; `torch` is `torch.optim.AdamW`.
    variant: Literal["starter", "torch"] = "starter"
    rate: RateSpec = RateSpec()


@strict
class WeightingSpec:
    """How task losses are weighted (methods/losses.py): fixed, or by learned weights with a rate of their own."""

    kind: Literal["fixed", "linear", "uncertainty", "automatic", "dynamic"] = "fixed"
    # None is the model's.
    lr: Rate | None = None
    # With `uncertainty`, 1 / (2 sigma^2) for regression as Kendall et al. have it, where swissBERT prints 1 / sigma^2
    # for every task.
    regression_half: Flag = False

    def __post_init__(self) -> None:
        refuse(
            (self.lr is not None and self.kind == "fixed", "fixed weights have no learning rate."),
            (self.regression_half and self.kind != "uncertainty", "regression_half belongs to weighting uncertainty."),
        )


@strict
class SurgerySpec:
    """What is done with the gradients of an update's batches (methods/gradients.py)."""

    # measure: only their cosines; pcgrad: Yu et al. 2020, algorithm 1.
    kind: Literal["none", "measure", "pcgrad"] = "none"
    # sum, as the paper, or mean, as the packaged code.
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        refuse((self.kind == "none" and self.reduction != "sum", "without surgery nothing is reduced."))


@strict
class SmartSpec:
    """Smoothness-inducing regularisation (Jiang et al. 2020; methods/smart.py)."""

    # lambda; 0 is off.
    weight: Weight
    # Whose losses get the term.
    tasks: tuple[Name, ...]
    # `paper` keeps the noise in a ball of radius epsilon around the embeddings; `mt_dnn` rescales it to size 1 per
    # token, as the public code does (there epsilon only guards a division).
    variant: Literal["paper", "mt_dnn"] = "mt_dnn"
    steps: Annotated[Whole, Field(ge=1, le=100)] = 1
    step_size: Weight = 1e-3
    # Standard deviation of the start.
    noise: Annotated[Number, Field(ge=0, le=1e3)] = 1e-5
    epsilon: Annotated[Number, Field(ge=1e-12, le=1e3)] = 1e-6
    # Weight of the proximal term towards a moving average of the weights with this factor; 0 is off.
    bregman: Weight = 0.0
    bregman_decay: Share = 0.99

    def __post_init__(self) -> None:
        refuse((not self.tasks, "SMART needs a task."))

    @property
    def is_on(self) -> bool:
        """Whether any of its terms counts; with both weights 0 a run is exactly the run without it."""
        return bool(self.weight or self.bregman)


@strict
class RunSpec:
    """One trained model."""

    tasks: tuple[TaskSpec, ...]
    encoder: EncoderSpec = EncoderSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    batch_size: Annotated[Whole, Field(ge=1, le=4096)] = 32
    # 0 evaluates the untrained model. A phased schedule gives so many to every phase.
    epochs: Annotated[Whole, Field(ge=0, le=1000)] = 10
    data: Text = "cs224n"
    # The machine's: products in bf16; the engine that does the same in fewer passes over memory (model/fast.py), plain
    # as it is written down in model/bert.py; batches cut from sentences of like length, where no method depends on who
    # is in a batch.
    precision: Precision = "fp32"
    engine: Engine = "plain"
    grouping: Flag = False
    # Caps on the examples of a task in the evaluation of an epoch, in the last one, and in scores on training data;
    # None takes all.
    dev_examples: Count | None = None
    final_examples: Count | None = None
    train_examples: Count | None = 1024
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    weighting: WeightingSpec = WeightingSpec()
    surgery: SurgerySpec = SurgerySpec()
    smart: SmartSpec | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        twice = [name for name, count in Counter(names).items() if count > 1]
        refuse((not names, "a run needs at least one task."), (bool(twice), f"a task appears twice: {names}."))
        self._check_encoder()
        self._check_updates()
        self._check_smart()
        self._check_groups()

    def _check_encoder(self) -> None:
        names = {task.name for task in self.trained_tasks}
        others, kind = sorted(set(self.encoder.trained_by or ()) - names), self.schedule.kind
        refuse(
            (bool(others), f"trained_by names {others}, the trained tasks are {sorted(names)}."),
            (self.encoder.trained_by is not None and self.schedule.is_grouped,
             f"trained_by says whose updates train BERT: {kind} has all tasks in one update."),
            (self.surgery.kind != "none" and self.encoder.frozen, "a frozen encoder has no gradients to compare."),
        )  # fmt: skip

    def _check_updates(self) -> None:
        kind, trained = self.schedule.kind, self.trained_tasks
        refuse(
            (not trained and self.epochs > 0, "no task is trained: give epochs 0."),
            (kind != "annealed" and any(task.sampling_size is not None for task in self.tasks),
             "sampling_size belongs to schedule annealed."),
            (self.grouping and self.depends_on_company,
             "surgery and multiple negatives ranking depend on who is in a batch: do not group it by length."),
            (self.surgery.kind != "none" and not self.schedule.is_grouped,
             f"surgery compares the gradients of one update: {kind} has one task in each."),
            (self.weighting.kind != "fixed" and any(task.loss_weight == 0 for task in trained),
             "a learned weight of a loss that counts nothing would grow without bound."),
        )  # fmt: skip

    def _check_smart(self) -> None:
        trained = {task.name: task for task in self.trained_tasks}
        chosen = self.smart.tasks if self.smart else ()
        unknown = [name for name in chosen if name not in trained]
        ranking = [name for name in chosen if name in trained and trained[name].loss == "mnrl"]
        refuse(
            (bool(unknown), f"SMART names {unknown}, the trained tasks are {list(trained)}."),
            (bool(ranking), "SMART compares predictions: the ranking loss of mnrl has none of its own."),
            (bool(chosen) and self.encoder.frozen, "SMART smooths the encoder: a frozen one cannot change."),
        )

    def _check_groups(self) -> None:
        """Tasks that share a head layer must enter it with one width."""
        groups: dict[str, set] = {}
        for task in self.tasks:
            groups.setdefault(task.shared_layer, set()).add((task.pair_method, task.features, task.pooling))
        unlike = [name for name, widths in groups.items() if name and len(widths) > 1]
        refuse((bool(unlike), f"tasks of one group enter it with unlike widths: {unlike}. Give them one pair method, "
                "features and pooling."))  # fmt: skip

    @property
    def run_id(self) -> str:
        """Hash of everything but the seed, then the seed, so that the seeds of one model stand together.

        Fields at their default are left out of the hash: a method added later does not rename runs without it.
        """
        content = to_dict(self, omit_defaults=True)
        content.pop("seed", None)
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
