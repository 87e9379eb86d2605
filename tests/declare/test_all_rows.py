"""Every row of every report trains under smoke, and no two rows that differ in a training field end up the same."""

import dataclasses
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.sources import load
from common.data.split import Split
from common.declare.profile import PROFILES, REPORT_TRAIN
from common.declare.rows import reports, rows
from common.declare.spec import RunSpec, TaskSpec
from common.declare.strict import canonical_json, to_dict
from common.model.weights import resolve_encoder
from common.training.loop import Materials, run

SMOKE = PROFILES["smoke"]
ROWS = [row for report in reports() for row in rows(report) if row.specs]
# What is evaluated, not trained: rows that differ in nothing else are one training.
UNTRAINED_FIELDS = ("threshold",)
# No cosine of the smoke encoder is negative, so clamping does nothing there; test_heads.py tells the two apart.
CLAMPED = {"siar_cosine_sts", "siar_cosine_sts_unclamped"}
# Examples per split: a few updates of eight, of unlike sizes so that every schedule has a shortest and a longest set.
SIZES = {"sst": 24, "para": 32, "sts": 16, "cfimdb": 8}


def cut(split: Split, size: int) -> Split:
    return split.take(np.arange(size))


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    corpus = {t: {n: cut(split, SIZES[t]) for n, split in splits.items()} for t, splits in load("embedded").items()}
    return Materials(corpus, resolve_encoder("tiny-random"), cache=tmp_path_factory.mktemp("encoders"))


def small(spec: RunSpec) -> RunSpec:
    """The spec as smoke applies it, cut to a few updates."""
    applied = SMOKE.apply(spec)
    tasks = tuple(_cut(t) if t.trained else t for t in applied.tasks)
    updates = applied.schedule.updates and 12  # enough for every task to be drawn
    return replace(applied, tasks=tasks, schedule=replace(applied.schedule, updates=updates), batch_size=8)


def _cut(task: TaskSpec) -> TaskSpec:
    # A set below what there is and a part below the set, so that each of the two acts.
    size = SIZES[task.name] - 8 if task.per_epoch or task.examples < SMOKE.scale(REPORT_TRAIN[task.name]) else None
    return replace(task, examples=size, per_epoch=task.per_epoch and 8)


def training_fields(spec: RunSpec) -> str:
    if spec.total_epochs == 1 and spec.optimizer.rate.kind == "plateau":  # one epoch has no second to be worse
        spec = replace(spec, optimizer=replace(spec.optimizer, rate=replace(spec.optimizer.rate, kind="constant")))
    tasks = [{k: v for k, v in to_dict(task).items() if k not in UNTRAINED_FIELDS} for task in spec.tasks]
    return canonical_json(to_dict(spec) | {"tasks": tasks})


@pytest.fixture(scope="module")
def outcomes(materials):
    """Row id and number of the spec -> outcome; specs that train alike are trained once."""
    found, by_fields = {}, {}
    for row in ROWS:
        for number, spec in enumerate(row.specs):
            key = training_fields(small(spec))
            if key not in by_fields:
                by_fields[key] = run(small(spec), materials, threads=1)
            found[row.id, number] = by_fields[key]
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_trains_under_smoke(row, outcomes):
    for number, spec in enumerate(row.specs):
        record = outcomes[row.id, number].record
        assert record["counts"]["updates"] > 0 or spec.epochs == 0
        for entry in record["history"]:
            assert all(math.isfinite(loss) for loss in entry["train_loss"].values())
        values, reasons = record["metrics"]["dev"], record["undefined"]["dev"]
        assert all(value is not None and math.isfinite(value) for n, value in values.items() if n not in reasons)
        assert all(values[name] is None and reason for name, reason in reasons.items())


def test_any_two_rows_that_differ_in_a_training_field_differ_in_their_parameters(outcomes):
    """A field that changes nothing would be a dead field.

    Two rows are compared where they train the same tasks on the same data; those whose fields coincide after smoke is
    applied (a rate at its limit, a size that rounds alike) are one training.
    """
    specs = {(row.id, i): small(spec) for row in ROWS for i, spec in enumerate(row.specs)}
    compared = 0
    for a, b in itertools.combinations(specs, 2):
        same_tasks = [t.name for t in specs[a].trained_tasks] == [t.name for t in specs[b].trained_tasks]
        trains = specs[a].epochs or specs[b].epochs  # models without training differ in what is evaluated alone
        if not (same_tasks and trains) or training_fields(specs[a]) == training_fields(specs[b]):
            continue
        if {a[0], b[0]} == CLAMPED:
            continue
        one, two = outcomes[a].model.state_dict(), outcomes[b].model.state_dict()
        alike = one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
        assert not alike, (a, b)
        compared += 1
    assert compared > 1000


def test_rows_that_differ_in_a_threshold_alone_are_one_training(outcomes):
    """Gu's 0.5 and 0.75 rows: what separates them is the decision, and the record of each has its own."""
    low, high = (outcomes[f"gu_para_cos_mean_t0{t}", 0] for t in ("50", "75"))
    assert low is high
    assert np.array_equal(low.predictions["para"], high.predictions["para"])


def test_the_fields_left_out_of_the_comparison_exist():
    names = {field.name for field in dataclasses.fields(ROWS[0].specs[0].tasks[0])}
    assert set(UNTRAINED_FIELDS) <= names
