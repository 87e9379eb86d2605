"""Schedules: which tasks make up each optimiser update of an epoch.

A schedule is a generator of groups; a group names the task of each batch that goes into one update. It knows numbers
of batches and a generator, never a model or data, so it is tested on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.declare.spec import ScheduleSpec

Group = tuple[str, ...]


@dataclass(frozen=True)
class Epoch:
    """What a schedule may know of an epoch.

    batches: task -> batches in one pass over what the epoch may draw. sizes: task -> N_i of annealed sampling. shares:
    task -> its part in biased sampling. number: from 1 to `total`, the epochs of the run.
    """

    batches: dict[str, int]
    sizes: dict[str, int]
    shares: dict[str, float]
    number: int
    total: int


Schedule = Callable[[Epoch, ScheduleSpec, torch.Generator], Iterator[Group]]


def round_robin(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """All batches of one task, then of the next (BERT++ section 4.3, Gu section 4, the SMART report section 4)."""
    for task in _ordered(list(epoch.batches), schedule, generator):
        yield from [(task,)] * epoch.batches[task]


def interleaved(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """One update per task in turn, each task once an iteration (swissBERT section 4.1, after Peng et al. 2020)."""
    for group in joint(epoch, schedule, generator):
        yield from [(task,) for task in _ordered(list(group), schedule, generator)]


def joint(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """One batch of every task in one update (BERT++ Model C; swissBERT's weighted rows).

    With stop `longest` a task drops out when it is used up, with `cycle` it starts again (BERT++ Model H).
    """
    counts, repeats = epoch.batches.values(), schedule.repeats
    turns = min(counts) if schedule.stop == "shortest" else max(counts)
    for step in range(turns // repeats):
        left = [t for t, count in epoch.batches.items() if schedule.stop == "cycle" or step * repeats < count]
        yield tuple(task for task in left for _ in range(repeats))


def biased(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """As many batches an update as there are tasks, the task of each drawn by its share (swissBERT section 4.2).

    An epoch has as many updates as the shortest set has batches; a set that is used up before starts again.
    """
    tasks = list(epoch.batches)
    shares = torch.tensor([epoch.shares[task] for task in tasks], dtype=torch.float64)
    for _ in range(schedule.updates_per_epoch(epoch.batches)):
        drawn = torch.multinomial(shares, len(tasks), replacement=True, generator=generator)
        yield tuple(tasks[i] for i in drawn.tolist())


def annealed(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """One task per update, drawn with the epoch's `annealed_probabilities` (Stickland & Murray 2019, section 4.1)."""
    tasks = list(epoch.batches)
    sizes = [epoch.sizes[task] for task in tasks]
    updates = schedule.updates_per_epoch(epoch.batches)
    probabilities = annealed_probabilities(sizes, epoch.number, epoch.total)
    for i in torch.multinomial(probabilities, updates, replacement=True, generator=generator).tolist():
        yield (tasks[i],)


def sequential(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """All epochs of one task, then of the next (SlapBERT's individual pre-training): phases of equal length."""
    tasks = list(epoch.batches)
    task = tasks[(epoch.number - 1) * len(tasks) // epoch.total]
    yield from [(task,)] * epoch.batches[task]


def staged(epoch: Epoch, schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """`sequential`, then as many epochs of all tasks in round robin (SlapBERT section 3: pre-train, then multitask)."""
    phases = len(epoch.batches) + 1
    if (epoch.number - 1) * phases // epoch.total == len(epoch.batches):
        yield from round_robin(epoch, schedule, generator)
    else:
        alone = epoch.total * len(epoch.batches) // phases
        yield from sequential(replace(epoch, total=alone), schedule, generator)


def annealed_probabilities(sizes: list[int], epoch: int, epochs: int) -> Tensor:
    """(K,) float64 probabilities p_i ~ N_i^alpha, alpha = 1 - 0.8 (e - 1) / (E - 1) (Stickland & Murray 2019, eq. 6).

    Args:
        sizes: N_i, examples of each task.
        epoch: e, from 1.
        epochs: E; with a single epoch alpha is 1, where the formula divides by zero.
    """
    if not 1 <= epoch <= epochs:
        raise ValueError(f"`epoch` must be in 1 to {epochs}, got {epoch}")
    alpha = 1 - 0.8 * (epoch - 1) / (epochs - 1) if epochs > 1 else 1.0
    powers = torch.tensor(sizes, dtype=torch.float64) ** alpha
    return powers / powers.sum()


SCHEDULES: dict[str, Schedule] = {
    "round_robin": round_robin,
    "interleaved": interleaved,
    "joint": joint,
    "biased": biased,
    "annealed": annealed,
    "sequential": sequential,
    "staged": staged,
}


def _ordered(tasks: list[str], schedule: ScheduleSpec, generator: torch.Generator) -> list[str]:
    if schedule.order == "fixed":
        return tasks
    return [tasks[i] for i in torch.randperm(len(tasks), generator=generator).tolist()]
