"""Schedules: which tasks make up each optimiser update of an epoch.

A schedule is a generator of groups; a group is the tasks whose next batches share one update. It knows numbers of
batches and a generator, never a model or data, so it is tested on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from common.spec import ScheduleSpec

Group = tuple[str, ...]


def round_robin(batches: dict[str, int], schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """All batches of one task, then of the next (BERT++ section 4.3, Gu section 4, the SMART report section 4)."""
    for task in _ordered(list(batches), schedule, generator):
        yield from [(task,)] * batches[task]


def interleaved(batches: dict[str, int], schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """One update per task in turn, each task once an iteration (swissBERT section 4.1, after Peng et al. 2020)."""
    for group in joint(batches, schedule, generator):
        yield from [(task,) for task in _ordered(list(group), schedule, generator)]


def joint(batches: dict[str, int], schedule: ScheduleSpec, generator: torch.Generator) -> Iterator[Group]:
    """One batch of every task that has one left, in one update (BERT++ Model C; swissBERT's weighted rows)."""
    steps = min(batches.values()) if schedule.stop == "shortest" else max(batches.values())
    for step in range(steps):
        yield tuple(task for task, count in batches.items() if step < count)


SCHEDULES: dict[str, Callable[[dict[str, int], ScheduleSpec, torch.Generator], Iterator[Group]]] = {
    "round_robin": round_robin,
    "interleaved": interleaved,
    "joint": joint,
}


def _ordered(tasks: list[str], schedule: ScheduleSpec, generator: torch.Generator) -> list[str]:
    if schedule.order == "fixed":
        return tasks
    return [tasks[i] for i in torch.randperm(len(tasks), generator=generator).tolist()]
