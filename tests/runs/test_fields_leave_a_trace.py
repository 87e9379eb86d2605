"""Every field that a row sets can be read from what its run recorded: none is undone by its surroundings.

The rows run through the loop as a user's do, on a few examples. First what a record says is compared with the spec,
row by row; then each value that any row gives a field is put back to the default, and some number of the record must
change.
"""

import dataclasses
import functools
import math
import typing
from dataclasses import replace

import numpy as np
import pytest
from spec_fields import CHOICES

from common.declare.spec import RunSpec, ScheduleSpec, TaskSpec
from common.declare.strict import canonical_json, to_dict
from common.errors import StudyError
from common.training.evaluate import predict, sample
from common.training.loop import run
from common.training.optim import rate_multiplier
from tests.declare.test_all_rows import ROWS, SIZES, materials, small

__all__ = ["materials"]  # the fixture of those tests


def _small(spec: RunSpec) -> RunSpec:
    """A few updates, with caps that cut something, and enough epochs for a rate to move."""
    applied = replace(small(spec), dev_examples=6, train_examples=6, final_examples=7)
    moves = applied.epochs and applied.optimizer.rate.kind != "constant"
    schedule = replace(applied.schedule, updates=applied.schedule.updates and 40)
    return replace(applied, epochs=4 if moves else applied.epochs, schedule=schedule)


CASES = {f"{row.id}-{i}": _small(spec) for row in ROWS for i, spec in enumerate(row.specs)}
NAMES = {"data", "encoder.checkpoint"}  # what is loaded is in the materials; a spec only names it
TRIED = 6  # other values of one field, over rows, before it counts as dead
# Numbers to try beside the default, where that may decide alike on so few examples.
OTHERS = {"tasks.threshold": (0.5, 0.9, 0.99, 0.999)}
TINY = "the tiny encoder of these tests leaves one value that fits: its width is no multiple of another number of heads"
# A value whose change needs what these tests' random encoder does not give, and the test that shows it instead.
SHOWN_ELSEWHERE = {
    "tasks.output = relu": "no cosine is negative here; see test_relu_of_a_cosine_as_logit in tests/model/test_heads.py"
}
UNTESTED = {
    "encoder.pals.size": TINY,
    "encoder.pals.heads": TINY,
    "encoder.pretraining.corpora": "pretraining without a corpus is refused; the whole of it is taken away instead",
    "smart.tasks": "SMART without a task is refused; the whole of it is taken away instead",
    "smart.weight": "has no default; rows differ in it, and the whole of SMART is taken away instead",
}


@pytest.fixture(scope="module")
def outcome_of(materials):
    """Applied spec -> its outcome; each is trained once."""
    kept = {}

    def outcome(spec: RunSpec):
        key = canonical_json(to_dict(spec))
        if key not in kept:
            kept[key] = run(spec, materials, threads=1)
        return kept[key]

    return outcome


def _rates(spec: RunSpec, record: dict) -> list[float]:
    """The rate of every update over the spec's own, worked out from the spec and the dev scores alone."""
    rate, ends = spec.optimizer.rate, [entry["updates"] for entry in record["history"]]
    if rate.kind != "plateau":
        return [rate_multiplier(rate, done, ends[-1]) for done in range(ends[-1])]
    patience, factor, best, bad, found = max(1, round(rate.patience * spec.epochs)), 1.0, -math.inf, 0, []
    for entry, start in zip(record["history"], [0, *ends], strict=False):
        found += [factor] * (entry["updates"] - start)
        score = -math.inf if entry["selection"] is None else entry["selection"]
        best, bad = max(best, score), 0 if score > best else bad + 1
        if bad == patience:
            factor, bad = factor * rate.factor, 0
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_record_says_what_its_spec_asked_for(name, outcome_of, materials):
    spec = CASES[name]
    outcome = outcome_of(spec)
    record, live = outcome.record, outcome.record["live"]
    history, counts, trained = record["history"], record["counts"], [task.name for task in spec.trained_tasks]
    assert len(history) == spec.total_epochs and counts["updates"] == spec.total_updates(SIZES)
    if history:
        expected = np.array(_rates(spec, record))
        np.testing.assert_allclose(outcome.probes["trace_rate"], expected / expected.max(), rtol=1e-6)
        o, group = spec.optimizer, live["optimizer"][0]
        assert group["initial_lr"] == o.lr and group["weight_decay"] == o.weight_decay and group["eps"] == o.eps
        assert tuple(group["betas"]) == (o.beta1, o.beta2) and group["variant"] == o.variant
    assert (len(live["optimizer"]) == 2) == (spec.weighting.kind != "fixed")
    for group in live["optimizer"][1:]:
        assert group["initial_lr"] == (spec.optimizer.lr if spec.weighting.lr is None else spec.weighting.lr)
        assert history[0]["loss_factors"] != {t: 1.0 for t in trained} or len({e["updates"] for e in history}) < 2
    for task in spec.tasks:
        assert max(live["dropout"][task.name], default=0.0) == pytest.approx(task.dropout, abs=1e-4)
    assert set(np.round(live["dropout"]["encoder"], 3)) == {spec.encoder.hidden_dropout, spec.encoder.attention_dropout}
    assert (live["trained"]["encoder"] == 0) == spec.encoder.frozen
    assert (live["trained"]["pals"] > 0) == (spec.encoder.pals is not None)
    assert (live["trained"]["shared"] > 0) == any(task.shared_transformer for task in spec.tasks)
    assert (record["hashes"]["start"] is not None) == (spec.encoder.pretraining is not None)
    compared = {pair for entry in history for pair in entry.get("conflicts", {})}
    assert bool(compared) == (spec.surgery.kind != "none")
    assert {t for e in history for t in e.get("gradient_norms", {})} == (set(trained) if compared else set())
    assert {t for e in history for t in e.get("regulariser", {})} == set(spec.smart.tasks if spec.smart else ())
    sizes = spec.set_sizes(SIZES)
    for task in trained:
        assert counts["distinct"][task] <= sizes[task]
    assert counts["scored"] == {t.name: min(SIZES[t.name], spec.final_examples or SIZES[t.name]) for t in spec.tasks}
    for task in (task for task in spec.tasks if task.name == "para"):
        labels = materials.corpus["para"]["dev"].labels[sample(SIZES["para"], spec.final_examples, "para")]
        accuracy = (predict(task, outcome.predictions["para"]) == labels).mean()
        assert record["metrics"]["dev"]["para_acc"] == pytest.approx(accuracy)


@functools.cache
def _defaults(cls: type) -> dict[str, object]:
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def _set_fields(value: object, cls: type, path: tuple) -> typing.Iterator[tuple[tuple, object]]:
    """(path, default) of every field that is not at its default; a path names tasks by their place."""
    for field in dataclasses.fields(cls):
        mine, place = getattr(value, field.name), (*path, field.name)
        if field.name == "tasks" and cls is RunSpec:
            for i, task in enumerate(mine):
                yield from _set_fields(task, TaskSpec, (*place, i))
        elif field.name in _defaults(cls) and mine != _defaults(cls)[field.name]:
            yield place, _defaults(cls)[field.name]
        if dataclasses.is_dataclass(mine):
            yield from _set_fields(mine, type(mine), place)


def _dotted(path: tuple) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _alternatives(spec: RunSpec, path: tuple, default: object) -> list[RunSpec]:
    """The spec with one field at its default, and with each other value that a choice offers, where that can be."""
    others = (*CHOICES.get(_dotted(path), ()), *OTHERS.get(_dotted(path), ()))
    if path == ("schedule", "kind"):  # what belongs to the one kind goes with it
        tasks = tuple(replace(task, sampling_size=None) for task in spec.tasks)
        found = (_built(lambda kind=kind: replace(spec, tasks=tasks, schedule=ScheduleSpec(kind))) for kind in others)
        return [other for other in found if other and other.schedule.kind != spec.schedule.kind]
    return [found for value in (default, *others) if (found := _put(spec, path, value)) and found != spec]


def _put(spec: RunSpec, path: tuple, value: object) -> RunSpec | None:
    """The spec with one field changed, None where that cannot be."""

    def changed(holder, rest):
        first, *more = rest
        inner = holder[first] if isinstance(first, int) else getattr(holder, first)
        new = changed(inner, more) if more else value
        if isinstance(first, int):
            return (*holder[:first], new, *holder[first + 1 :])
        return replace(holder, **{first: new})

    return _built(lambda: changed(spec, path))


def _built(make: typing.Callable[[], RunSpec]) -> RunSpec | None:
    try:
        return make()
    except (StudyError, TypeError):
        return None


def _by_field() -> dict[str, list[tuple[RunSpec, tuple, object]]]:
    """Dotted field and value -> every place in which a row sets it."""
    found: dict[str, list] = {}
    for spec in CASES.values():
        for path, default in _set_fields(spec, RunSpec, ()):
            value = spec
            for part in path:
                value = value[part] if isinstance(part, int) else getattr(value, part)
            if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(default):
                continue  # its parts are looked at one by one
            shown = type(value).__name__ if dataclasses.is_dataclass(value) else value
            found.setdefault(f"{_dotted(path)} = {shown}", []).append((spec, path, default))
    return found


BY_FIELD = _by_field()


def _numbers(outcome) -> str:
    record = outcome.record
    kept = {name: record[name] for name in ("history", "metrics", "counts", "untrained_heads")}
    history = [{k: v for k, v in entry.items() if k != "wall_s"} for entry in kept.pop("history")]
    outputs = {name: array.tobytes().hex() for name, array in outcome.predictions.items()}
    return repr((history, kept, outputs))


@pytest.mark.parametrize("field", [f for f in BY_FIELD if f.split(" = ")[0] not in NAMES])
def test_a_field_put_back_to_its_default_changes_a_number_of_the_record(field, outcome_of):
    places = [(spec, other) for spec, *place in BY_FIELD[field] for other in _alternatives(spec, *place)]
    changed = (_numbers(outcome_of(spec)) != _numbers(outcome_of(other)) for spec, other in places[:TRIED])
    if field in SHOWN_ELSEWHERE:
        assert not any(changed), "it changes a number after all: take it off the list"
    elif places:
        assert any(changed), f"{field}: ran in other ways and nothing changed"
    else:
        assert field.split(" = ")[0] in UNTESTED, f"{field} has no other value that fits"
