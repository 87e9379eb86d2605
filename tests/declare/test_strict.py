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
    with pytest.raises(StudyError, match=r"spec\.encoder\.pals\.sise.*Did you mean 'size'"):
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
