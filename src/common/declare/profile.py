"""Profile: what a machine can afford, and the one place where that changes a RunSpec.

The rule, so that what is tested survives a smaller budget: a scaled set is a fixed subset that every epoch passes; the
order of sizes survives; rates are multiplied by one factor for all rows; sampling formulas keep the report's sizes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from common.declare.spec import EncoderSpec, Engine, Precision, PretrainingSpec, RunSpec, TaskSpec
from common.declare.strict import Count, Flag, Text, Whole, meant, strict
from common.declare.tasks import TASKS
from common.errors import StudyError

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
    "minilm-l6": Encoder(6, 384, 12, rate=6.0),
    "tiny-bert": Encoder(2, 128, 4, rate=40.0),
    "tiny-random": Encoder(2, 128, 4, rate=40.0),
}
REPORT_TRAIN = {name: task.report_train for name, task in TASKS.items()}


@strict
class Profile:
    """What a machine can afford."""

    name: Text
    encoder: Text
    data: Text
    # The two ends of the size rule: examples of STS and of Quora.
    n_sts: Count
    n_para: Count
    # The reports' epochs and ours, with straight lines between; None keeps the reports'.
    epochs: tuple[tuple[Count, Count], ...] | None
    max_batch: Count | None
    # Caps on evaluation: each epoch's, the last one's, and of scores on training examples; None takes all.
    dev_examples: Count | None
    final_examples: Count | None
    # Of a run; a constant, so that results do not depend on how many run at once. None leaves it to the libraries.
    threads: Count | None = 1
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    engine: Engine = "fast"
    # Batches of like length save padding.
    grouping: Flag = True
    train_examples: Count | None = 1024
    seeds: tuple[Whole, ...] = (0,)

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


_EMBEDDED = {"data": "embedded", "final_examples": None}
_REAL = {"data": "cs224n", "precision": "bf16", "seeds": (0, 1, 2)}
_GPU = _REAL | {
    **{"device": "cuda", "threads": None, "engine": "plain", "grouping": False},
    **{"max_batch": None, "epochs": None, "final_examples": None},
}
_ALL = (
    Profile(
        "smoke", "tiny-random", n_sts=40, n_para=160, epochs=((1, 1), (20, 1)), max_batch=8,
        dev_examples=64, train_examples=64, **_EMBEDDED,
    ),
    # All rows fit into ten minutes on two cores; sets are small and passed often enough for overfitting to show.
    Profile(
        "quick", "tiny-bert", n_sts=200, n_para=530, epochs=((1, 1), (3, 4), (10, 7), (20, 10)), max_batch=16,
        dev_examples=120, train_examples=120, **_EMBEDDED,
    ),
    # A pilot chose them (DEVIATIONS.md D74): smaller sets cap the dev scores, fewer passes hide overfitting, and larger
    # batches leave rows that train all tasks in one update with too few updates.
    Profile(
        "cpu", "minilm-l6", n_sts=1000, n_para=3200, epochs=((1, 1), (3, 2), (10, 3), (20, 4)), max_batch=8,
        dev_examples=500, final_examples=5000, train_examples=500, **_REAL,
    ),
    Profile("gpu", "minilm-l6", n_sts=2400, n_para=24000, dev_examples=1000, **_GPU),
    Profile("paper", "bert-base-uncased", n_sts=6040, n_para=141498, dev_examples=None, **_GPU),
)  # fmt: skip
PROFILES = {profile.name: profile for profile in _ALL}


def profile_named(name: str) -> Profile:
    """The profile of that name; StudyError with the known names otherwise."""
    if name not in PROFILES:
        what, fix = f"unknown profile {name!r}.{meant(name, PROFILES)}", f"Known: {', '.join(PROFILES)}."
        raise StudyError("E-PROFILE", "profile", what, fix)
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
