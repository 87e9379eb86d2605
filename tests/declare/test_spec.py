"""RunSpec: strict loading and identity."""

from dataclasses import fields, is_dataclass, replace

import pytest

from common.declare.spec import OptimizerSpec, RunSpec, ScheduleSpec, TaskSpec
from common.declare.strict import build, canonical_json, to_dict
from common.errors import StudyError

SST, PARA, STS = TaskSpec("sst", dropout=0.3), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SPEC = RunSpec((SST, PARA, STS), schedule=ScheduleSpec("interleaved", "random"), epochs=20)


def test_run_id_is_pinned():
    """A change of this id renames every stored run: it must be a decision, not an accident."""
    assert RunSpec((SST,)).run_id == "84283b71a3fe-s0"


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, epochs=19),
        replace(SPEC, batch_size=16),
        replace(SPEC, data="embedded"),
        replace(SPEC, precision="bf16"),
        replace(SPEC, encoder=replace(SPEC.encoder, frozen=True)),
        replace(SPEC, optimizer=OptimizerSpec(lr=2e-5)),
        replace(SPEC, schedule=ScheduleSpec("joint")),
        SPEC.with_tasks(sst={"dropout": 0.1}),
    ],
)
def test_every_changed_field_is_another_run(changed):
    assert changed.run_id.split("-")[0] != SPEC.run_id.split("-")[0]


def test_seeds_of_one_model_share_the_first_part_of_the_id():
    first, second = SPEC.run_id, replace(SPEC, seed=7).run_id
    assert first.split("-")[0] == second.split("-")[0] and second.endswith("-s7")


def test_id_leaves_out_fields_at_their_default():
    """So a method added later, off by default, does not rename the runs that do not use it."""
    assert "hidden_dropout" not in canonical_json(to_dict(SPEC, omit_defaults=True))
    assert "hidden_dropout" in canonical_json(to_dict(SPEC))


def test_shared_layer_needs_one_input_width():
    shared = {"head_layers": 2, "shared_layer": "pairs"}
    with pytest.raises(StudyError, match="unlike widths"):
        RunSpec((TaskSpec("para", "separate", loss="bce", **shared), TaskSpec("sts", "pair", loss="mse", **shared)))


def test_every_field_reaches_the_dict():
    def names(cls):
        return {f.name for f in fields(cls)}

    as_dict = to_dict(SPEC)
    assert set(as_dict) == names(RunSpec)
    for value in vars(SPEC).values():
        if is_dataclass(value):
            assert build(type(value), to_dict(value), "x") == value
