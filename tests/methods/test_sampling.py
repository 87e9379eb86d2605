"""Schedules as generators of groups: counts, order, what ends an epoch, frequencies against the formula."""

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare
from spec_fields import CHOICES

from common.declare.spec import ScheduleSpec
from common.methods.sampling import SCHEDULES, Epoch, annealed_probabilities

BATCHES = {"sst": 3, "para": 7, "sts": 2}
KINDS = CHOICES["schedule.kind"]


def groups(seed=0, batches=BATCHES, sizes=None, shares=None, epoch=1, epochs=3, **fields):
    spec = ScheduleSpec(**fields)
    plan = Epoch(batches, sizes or batches, shares or dict.fromkeys(batches, 1.0), epoch, epochs)
    return list(SCHEDULES[spec.kind](plan, spec, torch.Generator().manual_seed(seed)))


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


def test_cycled_steps_hold_every_task_until_the_longest_is_used_up():
    assert groups(kind="joint", stop="cycle") == [("sst", "para", "sts")] * 7
    assert Counter(groups(kind="interleaved", stop="cycle")) == {("sst",): 7, ("para",): 7, ("sts",): 7}


def test_repeats_put_several_batches_of_each_task_into_one_update():
    assert groups(kind="joint", repeats=2) == [("sst", "sst", "para", "para", "sts", "sts")]
    assert groups(kind="joint", repeats=2, stop="cycle") == [("sst", "sst", "para", "para", "sts", "sts")] * 3


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("sequential", "staged")])
@pytest.mark.parametrize("stop", ["shortest", "longest", "cycle"])
def test_number_of_groups_and_batches_is_what_the_spec_predicts(kind, stop):
    spec = ScheduleSpec(kind=kind, stop=stop)
    found = groups(kind=kind, stop=stop)
    assert len(found) == spec.updates_per_epoch(BATCHES)
    assert sum(map(len, found)) == spec.batches_per_epoch(BATCHES)


def test_sequential_gives_every_task_its_own_phase_of_equal_length():
    epochs = [set(groups(kind="sequential", epoch=e, epochs=6)) for e in range(1, 7)]
    assert epochs == [{("sst",)}] * 2 + [{("para",)}] * 2 + [{("sts",)}] * 2
    spec = ScheduleSpec("sequential")
    counted = sum(len(groups(kind="sequential", epoch=e, epochs=6)) for e in range(1, 7))
    assert counted == 2 * spec.updates_per_epoch(BATCHES)


def test_staged_adds_a_phase_of_all_tasks_to_the_phases_of_each():
    epochs = [groups(kind="staged", epoch=e, epochs=8) for e in range(1, 9)]
    alone = [groups(kind="sequential", epoch=e, epochs=6) for e in range(1, 7)]
    assert epochs == [*alone, *[groups(kind="round_robin")] * 2]
    assert sum(map(len, epochs)) == 2 * ScheduleSpec("staged").updates_per_epoch(BATCHES)


@pytest.mark.parametrize("seed", range(3))
def test_biased_frequencies_match_the_shares(seed):
    shares = {"sst": 1.0, "para": 1.7, "sts": 1.0}
    found = groups(seed, dict.fromkeys(shares, 4000), shares=shares, kind="biased")
    assert all(len(group) == 3 for group in found)
    counts = Counter(itertools.chain.from_iterable(found))
    expected = [12000 * share / 3.7 for share in shares.values()]
    assert chisquare([counts[task] for task in shares], expected).pvalue > 1e-3
    assert any(len(set(group)) < 3 for group in found)  # tasks with repetition


def test_biased_shares_decide(seed=0):
    """Equal shares draw another sequence than 1 : 1.7 : 1 from the same generator."""
    many = dict.fromkeys(BATCHES, 50)
    unequal = groups(seed, many, shares={"sst": 1.0, "para": 1.7, "sts": 1.0}, kind="biased")
    assert unequal != groups(seed, many, kind="biased")


def test_annealed_probabilities_are_the_formula():
    sizes = [8544, 141498, 6040]
    for epoch, alpha in ((1, 1.0), (6, 1 - 0.8 * 5 / 9), (10, 0.2)):
        powers = [n**alpha for n in sizes]
        expected = [p / sum(powers) for p in powers]
        assert annealed_probabilities(sizes, epoch, 10).tolist() == pytest.approx(expected, rel=1e-12)


def test_annealed_first_epoch_is_proportional_and_flattens_to_the_last():
    sizes = [10, 1000, 100]
    spread = [float(p.max() / p.min()) for p in (annealed_probabilities(sizes, e, 5) for e in range(1, 6))]
    assert spread[0] == pytest.approx(100) and spread[-1] == pytest.approx(100**0.2)
    assert spread == sorted(spread, reverse=True)


def test_annealed_single_epoch_is_proportional_and_does_not_divide_by_zero():
    assert annealed_probabilities([1, 3], 1, 1).tolist() == [0.25, 0.75]
    with pytest.raises(ValueError, match="`epoch`"):
        annealed_probabilities([1, 3], 2, 1)


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_annealed_frequencies_match_the_formula(epoch):
    sizes = {"sst": 8544, "para": 141498, "sts": 6040}
    found = groups(3, sizes=sizes, epoch=epoch, epochs=5, kind="annealed", updates=20_000)
    counts = Counter(task for (task,) in found)
    expected = 20_000 * annealed_probabilities(list(sizes.values()), epoch, 5)
    assert chisquare([counts[task] for task in sizes], expected.tolist()).pvalue > 1e-3


def test_annealed_draws_every_task_not_the_first_alone():
    """The released code's `rr` sampling never advances; ours must reach all tasks, in any number of them."""
    assert {task for (task,) in groups(kind="annealed", updates=200)} == set(BATCHES)
    two = groups(batches={"sst": 3, "sts": 3}, kind="annealed", updates=50)
    assert {task for (task,) in two} == {"sst", "sts"} and len(two) == 50


def test_annealed_without_a_number_of_updates_has_one_per_batch():
    assert len(groups(kind="annealed")) == sum(BATCHES.values())
