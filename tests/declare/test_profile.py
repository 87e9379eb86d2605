"""Profile: the size rule on 72 reported models, and what it may never change."""

import math
import re
from dataclasses import replace

import pytest
import yaml

from common.declare.profile import ENCODERS, PROFILES, REPORT_TRAIN, profile_named
from common.declare.spec import OptimizerSpec, RunSpec, ScheduleSpec, SurgerySpec, TaskSpec, WeightingSpec
from common.declare.tasks import TASKS
from common.errors import StudyError
from common.paths import ROOT

SST, PARA, STS = TaskSpec("sst", dropout=0.3), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SPEC = RunSpec((SST, PARA, STS), schedule=ScheduleSpec("interleaved", "random"), epochs=20)
FACTS = ROOT.parent / "shared" / "facts" / "experiments.yaml"


def test_unknown_profile_names_the_closest():
    with pytest.raises(StudyError, match="Did you mean 'quick'"):
        profile_named("quik")


def numbers(text):
    return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", text)]


def reported_specs():
    """The 72 models as schedule, sizes, epochs, batch and rate, read from the facts (other fields do not scale)."""
    if not FACTS.is_file():
        return []
    return [(e["id"], _spec_of(e)) for e in yaml.safe_load(FACTS.read_text())["experiments"]]


def _reading(value):
    return value["recommended"] if isinstance(value, dict) and "recommended" in value else value


def _spec_of(entry):
    names = [n for n in TASKS if n in entry["tasks"]] or ["sst"]
    caps = str(_reading(entry["data"].get("caps")))
    examples, drawn = dict.fromkeys(names), {}
    if "1,000 randomly selected batches of 8" in caps:
        drawn = {"para": 8000}
    elif "capped at 6,040" in caps:
        examples = dict.fromkeys(names, 6040)
    tasks = tuple(
        replace({"sst": SST, "para": PARA, "sts": STS, "cfimdb": TaskSpec("cfimdb")}[n], examples=examples[n])
        if n not in drawn
        else replace(PARA, per_epoch=drawn[n])
        for n in names
    )
    schedule = entry["schedule"]
    text = f"{schedule['type']} {_reading(schedule.get('epoch_length')) or ''}"
    kind = "joint" if "joint" in text else "interleaved" if "interleaved" in text else "round_robin"
    stop = "longest" if re.search("Quora|QQP|until", text) else "shortest"
    optimizer = entry["optimizer"] or {}
    return RunSpec(
        tasks,
        schedule=ScheduleSpec(kind, stop=stop),
        optimizer=OptimizerSpec(lr=float(_reading(optimizer.get("lr", 1e-5)))),
        batch_size=int(_reading(optimizer.get("batch_size", 8))),
        epochs=int(_reading(optimizer.get("epochs", 0))),
    )


SHORT = {20: 4, 10: 3, 3: 2}
EPOCHS = {"smoke": {20: 1, 10: 1, 3: 1}, "quick": {20: 10, 10: 7, 3: 4, 1: 1}, "cpu": SHORT, "gpu": {}, "paper": {}}
REPORTED = reported_specs()
needs_facts = pytest.mark.skipif(not REPORTED, reason="no folder ../shared/facts beside the checkout")


@needs_facts
def test_the_facts_hold_72_models():
    assert len(REPORTED) == 72


@needs_facts
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
@pytest.mark.parametrize("spec", [s for _, s in REPORTED], ids=[i for i, _ in REPORTED])
def test_profile_keeps_the_meaning_of_every_reported_schedule(profile, spec):
    applied = profile.apply(spec)
    before, after = spec.examples_per_epoch(REPORT_TRAIN), applied.examples_per_epoch(REPORT_TRAIN)
    for a in before:
        for b in before:
            assert (before[a] < before[b]) == (after[a] < after[b]), "the order of sizes survives"
        if (spec.task(a).examples or spec.task(a).per_epoch) and before[a] < REPORT_TRAIN[a]:
            assert after[a] < profile.scale(REPORT_TRAIN[a]), "a cap stays below the full set"
        assert (applied.task(a).per_epoch is None) == (spec.task(a).per_epoch is None), "what is redrawn stays redrawn"
    assert applied.batch_size == min(spec.batch_size, profile.max_batch or 10**9)
    assert applied.epochs == EPOCHS[profile.name].get(spec.epochs, spec.epochs)
    factor = applied.optimizer.lr / spec.optimizer.lr
    assert factor == pytest.approx(ENCODERS[profile.encoder].rate, rel=1e-3), "one factor for all rows"
    assert applied.schedule == spec.schedule and profile.apply(spec) == applied


def test_size_rule_meets_its_two_ends_and_the_paper_changes_nothing():
    for profile in PROFILES.values():
        assert profile.scale(6040) == profile.n_sts and profile.scale(141498) == profile.n_para
    paper = PROFILES["paper"].apply(SPEC)
    assert paper.examples_per_epoch(REPORT_TRAIN) == {name: REPORT_TRAIN[name] for name in ("sst", "para", "sts")}
    assert (paper.batch_size, paper.epochs, paper.optimizer) == (SPEC.batch_size, SPEC.epochs, SPEC.optimizer)


def test_quick_and_cpu_follow_the_epoch_table():
    for name, ours in {"quick": [10, 7, 4, 0], "cpu": [4, 3, 2, 0], "gpu": [20, 10, 3, 0]}.items():
        assert [PROFILES[name].scale_epochs(n) for n in (20, 10, 3, 0)] == ours


@pytest.mark.parametrize("profile", [p for p in PROFILES.values() if p.name != "paper"], ids=lambda p: p.name)
def test_learned_loss_weights_travel_as_far_as_in_the_report(profile):
    """Rate times updates is what Adam can move a scalar by; no limit holds it back."""
    for lr in (None, 1e-3):
        spec = replace(SPEC, weighting=WeightingSpec("automatic", lr=lr))
        applied = profile.apply(spec)
        there = (lr or spec.optimizer.lr) * spec.total_updates(REPORT_TRAIN)
        assert applied.weighting.lr * applied.total_updates(REPORT_TRAIN) == pytest.approx(there, rel=1e-3)


def test_sampling_keeps_the_report_s_own_sizes():
    spec = replace(SPEC, schedule=ScheduleSpec("annealed"))
    applied = PROFILES["cpu"].apply(spec)
    assert [task.sampling_size for task in applied.tasks] == [8544, 141498, 6040]
    assert {task.sampling_size for task in PROFILES["cpu"].apply(SPEC).tasks} == {None}


def test_an_exact_spec_keeps_everything_that_is_trained():
    spec = replace(SPEC.with_tasks(sst={"examples": 3600}), epochs=60, optimizer=OptimizerSpec(lr=3e-5), batch_size=64)
    applied = PROFILES["quick"].apply(spec, exact=True)
    assert (applied.epochs, applied.optimizer, applied.batch_size) == (60, spec.optimizer, 64)
    assert [task.examples for task in applied.tasks] == [3600, None, None]
    assert (applied.encoder.checkpoint, applied.data, applied.engine) == ("tiny-bert", "embedded", "fast")


def test_batches_are_grouped_by_length_only_where_no_method_looks_at_the_batch():
    ranked = SPEC.with_tasks(sts={"pair_method": "separate", "loss": "mnrl"})
    surgery = replace(SPEC, schedule=ScheduleSpec("joint"), surgery=SurgerySpec("measure"))
    assert [PROFILES["cpu"].apply(spec).grouping for spec in (SPEC, ranked, surgery)] == [True, False, False]
    with pytest.raises(StudyError, match="do not group it"):
        replace(surgery, grouping=True)


def test_the_paper_s_profile_evaluates_on_all_of_dev():
    paper = PROFILES["paper"].apply(SPEC)
    assert (paper.dev_examples, paper.final_examples) == (None, None)


def test_only_an_encoder_without_a_trained_pooler_is_pooled_by_its_first_token():
    spec = SPEC.with_tasks(sts={"pooling": "mean"})
    applied = {name: PROFILES["cpu"].apply(spec, encoder=name) for name in ("minilm-l6", "bert-base-uncased")}
    assert [task.pooling for task in applied["minilm-l6"].tasks] == ["cls", "cls", "mean"]
    assert [task.pooling for task in applied["bert-base-uncased"].tasks] == ["pooler", "pooler", "mean"]


def test_threads_do_not_depend_on_workers():
    assert [PROFILES[name].threads for name in ("smoke", "quick", "cpu")] == [1, 1, 1]


def test_share_is_examples_here_over_examples_there():
    spec = RunSpec((SST,), batch_size=32, epochs=20)
    profile = PROFILES["cpu"]
    here = 4 * math.ceil(profile.scale(8544) / 16) * 16
    assert profile.share(spec, profile.apply(spec)) == pytest.approx(here / (20 * 267 * 32))


def test_a_profile_is_checked_as_a_spec_is():
    with pytest.raises(StudyError, match="device: unknown value 'gpu'.* Known: cpu, cuda"):
        replace(PROFILES["cpu"], device="gpu")
    with pytest.raises(StudyError, match="n_sts: 0 is outside"):
        replace(PROFILES["cpu"], n_sts=0)
