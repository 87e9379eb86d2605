"""Strict loading: what is written comes back the same, and what does not fit is refused by name."""

import json
import math
from dataclasses import replace

import pytest

from common.declare.spec import EncoderSpec, PalSpec, RunSpec, ScheduleSpec, SmartSpec, TaskSpec
from common.declare.strict import build, canonical_json, to_dict
from common.errors import StudyError

SST, PARA, STS = TaskSpec("sst", dropout=0.3), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SPEC = RunSpec((SST, PARA, STS), schedule=ScheduleSpec("interleaved", "random"), epochs=20)


def test_round_trip_through_json_keeps_spec_and_id():
    again = RunSpec.from_dict(json.loads(json.dumps(to_dict(SPEC))))
    assert again == SPEC and again.run_id == SPEC.run_id


def test_optional_parts_come_back_as_what_they_are():
    spec = replace(SPEC, encoder=EncoderSpec(pals=PalSpec(8, 2)), smart=SmartSpec(1.0, ("sst",)))
    again = RunSpec.from_dict(json.loads(canonical_json(to_dict(spec))))
    assert again == spec and isinstance(again.encoder.pals, PalSpec)
    assert build(RunSpec, to_dict(SPEC), "spec").smart is None


def test_an_unknown_field_of_an_optional_part_is_named_with_its_place():
    with pytest.raises(StudyError, match=r"spec: encoder\.pals\.sise.*Did you mean 'size'"):
        RunSpec.from_dict(to_dict(SPEC) | {"encoder": {"pals": {"sise": 8}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"epochs": "3"}, "expected int, got str"),
        ({"epochs": True}, "expected int, got bool"),
        ({"epochs": -1}, "outside 0 to 1000"),
        ({"optimizer": {"lr": "2e-5"}}, "write 2.0e-5"),
        ({"optimizer": {"lr": math.inf}}, "outside"),
        ({"optimizer": {"lr": math.nan}}, "outside"),
        ({"schedule": {"kind": "interleave"}}, "Did you mean 'interleaved'"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": [{"name": "sst"}, {"name": "sst"}]}, "appears twice"),
        ({"tasks": [{"name": "sts", "pair_method": "pair", "loss": "cross_entropy"}]}, "does not fit labels"),
        ({"tasks": [{"name": "sst", "pair_method": "pair"}]}, "does not fit a task of 1"),
        ({"tasks": [{"name": "para", "pair_method": "single", "loss": "bce"}]}, "does not fit a task of 2"),
        ({"tasks": [{"name": "para", "pair_method": "pair", "loss": "cosine_embedding"}]}, "needs pair_method cosine"),
        ({"tasks": [{"name": "para", "pair_method": "pair", "loss": "bce", "shared_layer": "x"}]}, "head_layers 2"),
        ({"tasks": {"sst": {}}}, "expected a list"),
        ({"tasks": [{"pair_method": "single"}]}, "required field is missing"),
    ],
)
def test_bad_specs_are_refused_with_the_reason(change, message):
    with pytest.raises(StudyError, match=message):
        RunSpec.from_dict(to_dict(SPEC) | change)


def test_every_problem_is_one_line_with_its_place_and_its_remedy():
    with pytest.raises(StudyError) as caught:
        RunSpec.from_dict(to_dict(SPEC) | {"epochs": -1, "batch": 8}, "here")
    assert caught.value.where == "here" and caught.value.problems == (
        "epochs: -1 is outside 0 to 1000. Choose a value inside.",
        f"batch: unknown field. Did you mean 'batch_size'? Known: {', '.join(to_dict(SPEC))}.",
    )


def test_what_is_no_name_of_a_field_is_refused_as_one():
    with pytest.raises(StudyError, match="spec: 3: unknown field"):
        RunSpec.from_dict(to_dict(SPEC) | {3: 1})
    with pytest.raises(StudyError, match=r"spec: expected named fields, got list \[1\]"):
        RunSpec.from_dict([1])


def test_fields_given_by_their_position_are_named_and_too_many_refused():
    with pytest.raises(StudyError, match="pair_method: unknown value 'sinlge'. Did you mean 'single'"):
        TaskSpec("sst", "sinlge")
    with pytest.raises(TypeError, match="ScheduleSpec has 5 fields, got 6"):
        ScheduleSpec("joint", "fixed", "cycle", None, 1, 1)
