"""The estimate of a study's time: tokens counted by hand, and a rate that is measured."""

from dataclasses import replace

import pytest

from common import open_study
from common.declare.spec import RunSpec, ScheduleSpec, SmartSpec, TaskSpec
from common.runs import estimate
from common.runs.estimate import estimated_hours, measured_rate, passed_tokens

SST = TaskSpec("sst", examples=80)
SPEC = RunSpec((SST,), batch_size=8, epochs=2, dev_examples=10, final_examples=20, train_examples=5)


def test_tokens_of_a_small_run_are_those_counted_by_hand():
    updates, evaluations = 2 * 80 * 23 * 3, 2 * (10 + 5) * 23 + 20 * 23
    assert passed_tokens(SPEC) == updates + evaluations
    smart = replace(SPEC, smart=SmartSpec(1.0, ("sst",)))
    assert passed_tokens(smart) == 3 * updates + evaluations


def test_a_run_without_training_costs_its_evaluation_alone():
    assert passed_tokens(replace(SPEC, epochs=0)) == 20 * 23


def test_a_joint_step_draws_its_tasks_alike_and_a_round_robin_by_size():
    pair = TaskSpec("sts", "pair", loss="mse", examples=16)
    shared = {"batch_size": 8, "epochs": 1, "dev_examples": 1, "final_examples": 1, "train_examples": 1}
    evaluation = 2 * (23 + 31) + 23 + 31
    in_turn = RunSpec((SST, pair), **shared)
    assert passed_tokens(in_turn) == pytest.approx(3 * (80 * 23 + 16 * 31) + evaluation)
    joint = replace(in_turn, schedule=ScheduleSpec("joint"))
    assert passed_tokens(joint) == pytest.approx(3 * 16 * (23 + 31) + evaluation)


def test_the_rate_is_measured_on_this_machine_and_hours_follow_from_it(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    lab = open_study("smoke")
    first = measured_rate(lab)
    assert first > 0 and not list(tmp_path.rglob("record.json"))
    # The loop is timed by its own clock: an epoch said to take twice as long halves the rate.
    run = estimate.loop.run

    def slower(*args, **options):
        outcome = run(*args, **options)
        outcome.record["history"][0]["wall_s"] = 1000.0
        return outcome

    monkeypatch.setattr(estimate.loop, "run", slower)
    assert measured_rate(lab) < first
    assert estimated_hours([SPEC, SPEC], rate=passed_tokens(SPEC) / 3600, jobs=2) == pytest.approx(1.0)
