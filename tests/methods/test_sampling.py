"""Schedules as generators of groups: counts, order, what ends an epoch."""

from collections import Counter

import pytest
import torch

from common.methods.sampling import SCHEDULES
from common.rules import CHOICES
from common.spec import ScheduleSpec

BATCHES = {"sst": 3, "para": 7, "sts": 2}


def groups(seed=0, batches=BATCHES, **fields):
    spec = ScheduleSpec(**fields)
    return list(SCHEDULES[spec.kind](batches, spec, torch.Generator().manual_seed(seed)))


def test_every_kind_has_a_schedule():
    assert set(SCHEDULES) == set(KINDS)


def test_round_robin_finishes_one_task_before_the_next():
    assert groups(kind="round_robin") == [("sst",)] * 3 + [("para",)] * 7 + [("sts",)] * 2


def test_interleaved_stops_at_the_shortest_and_visits_each_task_once_an_iteration():
    found = groups(kind="interleaved", order="random", stop="shortest")
    assert Counter(found) == {("sst",): 2, ("para",): 2, ("sts",): 2}
    for start in range(0, len(found), 3):
        assert {task for (task,) in found[start : start + 3]} == set(BATCHES)


def test_interleaved_random_order_varies_and_follows_the_generator():
    many = {"sst": 50, "para": 50, "sts": 50}
    found = groups(batches=many, kind="interleaved", order="random")
    orders = Counter(tuple(found[i : i + 3]) for i in range(0, 150, 3))
    assert len(orders) == 6  # all orders of three tasks within 50 draws
    assert found == groups(batches=many, kind="interleaved", order="random")
    assert found != groups(seed=1, batches=many, kind="interleaved", order="random")


def test_longest_goes_on_with_the_tasks_that_are_left():
    assert groups(kind="joint", stop="longest") == ([("sst", "para", "sts")] * 2 + [("sst", "para")] + [("para",)] * 4)
    assert Counter(groups(kind="interleaved", stop="longest")) == {("sst",): 3, ("para",): 7, ("sts",): 2}


def test_joint_step_holds_every_task():
    assert groups(kind="joint", stop="shortest") == [("sst", "para", "sts")] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", ["shortest", "longest"])
def test_number_of_groups_is_what_the_spec_predicts(kind, stop):
    spec = ScheduleSpec(kind=kind, stop=stop)
    assert len(groups(kind=kind, stop=stop)) == spec.updates_per_epoch(BATCHES)
