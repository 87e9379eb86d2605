"""One update: the losses of a group of batches, their weights and regularisers, gradients combined, the optimiser.

What each method does is in methods/; here they are only put in order. No graph is kept for a second backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from common.data.encoding import Batch
from common.declare.spec import RunSpec
from common.errors import StudyError
from common.methods.gradients import combine, cosines, gramian, put_gradients, take_gradients
from common.methods.losses import LOSSES, LossWeights
from common.methods.smart import DIVERGENCES, BregmanAverage, smart_loss
from common.model.heads import MultitaskModel
from common.seeding import stateless_generator
from common.training.optim import AdamW, RateSchedule

TaskPair = tuple[str, str]


@dataclass(frozen=True)
class Update:
    """What one update saw.

    losses: (task, loss without regularisers) per batch, on a GPU still as tensors. regularisers: (task, weighted SMART
    and proximal terms), likewise. factors: task -> what multiplied its loss. rate: of the model's parameters. cosines:
    (task pair, cosine of the two shared gradients) per pair of batches, and norms: (task, length of its shared
    gradient) per batch, when the run compares them.
    """

    losses: list[tuple[str, float | Tensor]]
    regularisers: list[tuple[str, float | Tensor]]
    factors: dict[str, float]
    rate: float
    cosines: list[tuple[TaskPair, float]]
    norms: list[tuple[str, float]]


class Trainer:
    """The model with everything that changes it: optimiser, rate, loss weights, surgery, SMART."""

    def __init__(self, model: MultitaskModel, spec: RunSpec, updates: int):
        self.model, self.spec = model, spec
        self.weights = LossWeights(spec.weighting.kind, spec.trained_tasks, spec.weighting.regression_half)
        self.weights.to(model.device)
        self.optimizer = make_optimizer(model, self.weights, spec)
        self.rate = RateSchedule(self.optimizer, spec.optimizer.rate, updates, spec.epochs)
        self.surgery_generator = stateless_generator(spec.seed, "surgery")
        self.noise_generator = stateless_generator(spec.seed, "smart")
        self.smart = spec.smart if spec.smart and spec.smart.is_on else None
        self.compares = spec.surgery.kind != "none"
        self.average = BregmanAverage(model, self.smart.bregman_decay) if self.smart and self.smart.bregman else None

    def update(self, group: Iterable[tuple[str, Batch]]) -> Update:
        """One update on a group of batches, each of one task.

        Raises:
            StudyError: a loss is not finite; the message names task and rate.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses, regularisers, taken, group = [], [], [], list(group)
        self.model.prepare_update(group)
        shared = self.model.shared_parameters() if self.compares else []
        for together in self._passes(group):
            terms = []
            for (task, batch), output in zip(together, self.model.training_scores(together), strict=True):
                loss, regulariser = self._losses(task, batch, output)
                losses.append((task, self._number(loss)))
                if regulariser is not None:
                    regularisers.append((task, self._number(regulariser)))
                    loss = loss + regulariser
                terms.append(self.weights(task, loss))
                self._refuse_non_finite(f"task {task}", "the loss", self._number(terms[-1]))
            if terms[0].requires_grad:
                sum(terms).backward()
                self.model.weights.collect(precise=self.compares)
            if self.compares:
                taken.append(take_gradients(shared))
        factors = self.weights.factors()
        rate = self.optimizer.param_groups[0]["lr"]
        compared = self._combine([task for task, _ in losses], shared, taken) if taken else ([], [])
        self.model.finish_update()
        self.optimizer.step()
        self.rate.end_update()
        if self.average:
            self.average.update(self.model)
        return Update(losses, regularisers, factors, rate, *compared)

    def _passes(self, group: list[tuple[str, Batch]]) -> list[list[tuple[str, Batch]]]:
        """The batches that are encoded and back-propagated together: all at once where the engine packs them and no
        method looks at the gradient of a single one, else one after another."""
        is_one = self.model.is_packed and not self.compares
        return [group] if is_one else [[item] for item in group]

    def _losses(self, task: str, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The task's loss on the model's output, and its weighted regularisers where the run has them."""
        loss = LOSSES[self.model.tasks[task].loss](output, batch.labels)
        if self.smart is None or task not in self.smart.tasks:
            return loss, None
        smart, terms = self.smart, []
        divergence = DIVERGENCES[self.model.tasks[task].loss]
        if smart.weight:
            masks, width = [mask for _, mask, _ in batch.inputs], self.model.encoder.config.hidden_size
            predict = lambda noise: self.model(task, batch, noise)  # noqa: E731
            terms.append(
                smart.weight * smart_loss(predict, output, masks, width, smart, divergence, self.noise_generator)
            )
        if self.average:
            with torch.no_grad():
                before = self.average.module(task, batch)
            terms.append(smart.bregman * divergence(output, before))
        return loss, sum(terms)

    def _combine(
        self, tasks: list[str], shared: list[Tensor], taken: list[tuple[Tensor | None, ...]]
    ) -> tuple[list[tuple[TaskPair, float]], list[tuple[str, float]]]:
        """Put the combined gradient of the shared parameters in place; cosines of all pairs of batches, and norms."""
        inner = gramian(taken)
        self._refuse_non_finite("surgery", "an inner product of gradients", inner.sum().item())
        put_gradients(shared, taken, combine(inner, self.spec.surgery, self.surgery_generator))
        values = cosines(inner)
        pairs = [((tasks[i], tasks[j]), values[i, j].item()) for i, j in combinations(range(len(tasks)), 2)]
        return pairs, list(zip(tasks, inner.diagonal().sqrt().tolist(), strict=True))

    def _number(self, value: Tensor) -> float | Tensor:
        """The value as a float; on a GPU as it is, for asking would make the host wait in every update."""
        return value.detach() if value.is_cuda else value.item()

    def _refuse_non_finite(self, where: str, name: str, value: float | Tensor) -> None:
        """Raise now; values still on a GPU are looked at when the epoch ends (history.py)."""
        if isinstance(value, float) and not math.isfinite(value):
            what = f"{name} is {value} at rate {self.optimizer.param_groups[0]['lr']:g}."
            raise StudyError("E-NONFINITE", where, what, "Lower the learning rate.")


def make_optimizer(model: MultitaskModel, weights: LossWeights, spec: RunSpec) -> AdamW:
    """AdamW on the trained parameters, and on the loss weights in a group of their own: own rate, no decay."""
    o = spec.optimizer
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if learned := list(weights.parameters()):
        rate = o.lr if spec.weighting.lr is None else spec.weighting.lr
        groups.append({"params": learned, "lr": rate, "weight_decay": 0.0})
    for group in groups:
        group["initial_lr"] = group.get("lr", o.lr)  # what the schedule starts from, for the record
    is_fused = spec.engine == "fast"
    return AdamW(
        groups,
        o.lr,
        (o.beta1, o.beta2),
        o.eps,
        o.weight_decay,
        variant=o.variant,
        fused=is_fused,
        moved=model.weights.renew,
    )
