"""A run cut off at any update ends with the bytes of one that was not, for every schedule and method with state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.declare.spec import (
    EncoderSpec,
    OptimizerSpec,
    PalSpec,
    RateSpec,
    RunSpec,
    ScheduleSpec,
    SmartSpec,
    SurgerySpec,
    TaskSpec,
    WeightingSpec,
)
from common.declare.strict import canonical_json
from common.training import checkpoint, loop
from common.training.loop import Checkpoint, run

pytestmark = pytest.mark.fault
SST = TaskSpec("sst", dropout=0.3)
PARA, STS = TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "separate", loss="mse")
RATE = OptimizerSpec(lr=2e-3, weight_decay=0.01)
SPEC = RunSpec((SST, PARA, STS), EncoderSpec(), ScheduleSpec("joint"), RATE, batch_size=16, epochs=3)
SMART = SmartSpec(1.0, ("sst", "para"), bregman=1.0)
RATES = {
    kind: replace(SPEC, optimizer=replace(RATE, rate=RateSpec(kind, patience=0.1, factor=0.5)))
    for kind in ("linear", "step", "plateau")
}
KINDS = ("round_robin", "interleaved", "biased", "sequential", "staged")
CASES = RATES | {
    **{kind: replace(SPEC, schedule=ScheduleSpec(kind, order="random")) for kind in KINDS},
    "annealed": replace(SPEC, schedule=ScheduleSpec("annealed", updates=5)),
    "cycle": replace(SPEC, schedule=ScheduleSpec("joint", stop="cycle"), epochs=2),
    "surgery": replace(SPEC, surgery=SurgerySpec("pcgrad")),
    "weights": replace(SPEC, weighting=WeightingSpec("automatic", lr=1e-2)),
    "smart": replace(SPEC, smart=SMART),
    "adapters": replace(SPEC.with_tasks(sts={"pair_method": "pair"}), encoder=EncoderSpec(pals=PalSpec(8, 2))),
    "trained by one": replace(SPEC, encoder=EncoderSpec(trained_by=("sst",)), schedule=ScheduleSpec()),
    "shared layers": SPEC.with_tasks(sst={"shared_transformer": True}, sts={"shared_transformer": True}),
    "fast, bf16": replace(SPEC, engine="fast", precision="bf16", grouping=True),
    "torch's optimiser": replace(SPEC, optimizer=replace(RATE, variant="torch"), engine="fast"),
    "parts drawn anew": SPEC.with_tasks(para={"per_epoch": 40}),
}


class Killed(BaseException):
    """In place of a kill: nothing after it runs."""


def write(path, content):
    path.write_bytes(content)


def cut_off(spec, materials, kept, after):
    """Train until so many updates are done, then die."""
    calls = []

    def die(*call):
        calls.append(call)
        if len(calls) == after:
            raise Killed

    with pytest.raises(Killed):
        run(spec, materials, 1, die, kept=kept)


def told(outcome):
    """What a store would write: all but the seconds."""
    history = [{k: v for k, v in entry.items() if k != "wall_s"} for entry in outcome.record["history"]]
    rest = {k: v for k, v in outcome.record.items() if k not in ("wall_s", "history")}
    arrays = {**outcome.predictions, **outcome.probes}
    return canonical_json([history, rest]), {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_cut_off_twice_ends_as_if_it_had_not_been(name, materials, tmp_path):
    spec, kept = CASES[name], Checkpoint(tmp_path / "x", write, every_s=0.0)
    expected = run(spec, materials, 1)
    updates = expected.record["counts"]["updates"]
    cut_off(spec, materials, kept, updates // 3 + 1)
    cut_off(spec, materials, kept, updates // 3 + 1)
    torch.manual_seed(12345)  # another process has another global state
    calls = []
    resumed = run(spec, materials, 1, lambda *call: calls.append(call), kept=kept)
    assert len(calls) < updates, "it went on, it did not start anew"
    assert told(resumed) == told(expected)


@pytest.mark.parametrize("after", range(1, 13))
def test_it_may_be_cut_off_at_any_update(after, materials, tmp_path):
    kept = Checkpoint(tmp_path / "x", write, every_s=0.0)
    cut_off(CASES["plateau"], materials, kept, after)
    assert told(run(CASES["plateau"], materials, 1, kept=kept)) == told(run(CASES["plateau"], materials, 1))


def test_a_checkpoint_is_written_when_its_time_has_come_and_not_before(materials, tmp_path):
    run(SPEC, materials, 1, kept=Checkpoint(tmp_path / "never", write, every_s=3600))
    assert list(tmp_path.iterdir()) == []


def test_a_frozen_encoder_keeps_none(materials, tmp_path):
    spec = replace(SPEC, encoder=EncoderSpec(frozen=True))
    run(spec, materials, 1, kept=Checkpoint(tmp_path / "x", write, every_s=0.0))
    assert list(tmp_path.iterdir()) == []


DRIFTS = {
    "another spec": ({}, lambda spec: replace(spec, seed=1), "spec"),
    "other code": ({"code": "0" * 64}, lambda spec: spec, "code"),
    "another torch": ({"torch": "9.9"}, lambda spec: spec, "torch"),
    "other threads": ({"threads": 7}, lambda spec: spec, "threads"),
    "another processor": ({"cpu": "NONE"}, lambda spec: spec, "cpu"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_checkpoint_of_something_else_is_refused_with_what_differs(name, materials, tmp_path, monkeypatch, capsys):
    changed, respecified, said = DRIFTS[name]
    kept, spec = Checkpoint(tmp_path / "x", write, every_s=0.0), respecified(SPEC)
    cut_off(SPEC, materials, kept, 4)
    before = loop.environment
    monkeypatch.setattr(loop, "environment", lambda: before() | changed)
    calls = []
    run(spec, materials, 1, lambda *call: calls.append(call), kept=kept)
    assert f"made with another {said}. The run starts anew" in capsys.readouterr().err
    assert len(calls) == 12


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text"])
def test_a_damaged_checkpoint_is_not_used(damage, materials, tmp_path, capsys):
    kept = Checkpoint(tmp_path / "x", write, every_s=0.0)
    cut_off(SPEC, materials, kept, 4)
    whole = kept.path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    kept.path.write_bytes({"cut": whole[:-100], "bit": bytes(flipped), "empty": b"", "text": b"hello\nworld"}[damage])
    assert told(run(SPEC, materials, 1, kept=kept)) == told(run(SPEC, materials, 1))
    assert "it is damaged. The run starts anew" in capsys.readouterr().err


def test_tied_tensors_and_numbers_without_json_come_back(tmp_path):
    tied = torch.arange(4.0)
    checkpoint.save(tmp_path / "x", {"a": tied, "b": tied}, {"origin": {}, "best": float("-inf")}, write)
    tensors, facts = checkpoint.load(tmp_path / "x", {})
    assert torch.equal(tensors["a"], tensors["b"]) and facts["best"] == -np.inf
