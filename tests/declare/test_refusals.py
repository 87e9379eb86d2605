"""What a RunSpec refuses: every impossible combination is told with its reason, every name and range is checked."""

from dataclasses import replace

import pytest
from spec_fields import CHOICES, FLAGS, RANGES, fields

from common.declare.spec import (
    CorpusSpec,
    EncoderSpec,
    OptimizerSpec,
    PalSpec,
    PretrainingSpec,
    RateSpec,
    RunSpec,
    ScheduleSpec,
    SmartSpec,
    SurgerySpec,
    TaskSpec,
    WeightingSpec,
)
from common.errors import StudyError

SST, PARA, STS = TaskSpec("sst"), TaskSpec("para", "separate", loss="bce"), TaskSpec("sts", "separate", loss="mse")
JOINT = RunSpec((SST, PARA, STS), schedule=ScheduleSpec("joint"))
COSINE = {"pair_method": "cosine"}
SMART = SmartSpec(1.0, ("sst",))
FROZEN = EncoderSpec(frozen=True)
IMDB = CorpusSpec("imdb", 10)

IMPOSSIBLE = {
    "smart on mnrl": (
        lambda: replace(JOINT.with_tasks(sts=COSINE | {"loss": "mnrl"}), smart=SmartSpec(1.0, ("sts",))),
        "the ranking loss of mnrl has none",
    ),
    "smart on an absent task": (lambda: replace(JOINT, smart=SmartSpec(1.0, ("cfimdb",))), "names \\['cfimdb'\\]"),
    "smart on an untrained task": (
        lambda: replace(JOINT.with_tasks(sst={"trained": False}), smart=SMART),
        "names \\['sst'\\]",
    ),
    "smart without tasks": (lambda: replace(JOINT, smart=SmartSpec(1.0, ())), "needs a task"),
    "smart on a frozen encoder": (lambda: replace(JOINT, encoder=FROZEN, smart=SMART), "a frozen one cannot change"),
    "cosine head on pair encoding": (
        lambda: JOINT.with_tasks(sts={"pair_method": "pair", "output": "times_five"}),
        "times_five scales a cosine",
    ),
    "cosine with head layers": (lambda: JOINT.with_tasks(sts=COSINE | {"head_layers": 2}), "no head layers"),
    "mnrl on one input": (
        lambda: JOINT.with_tasks(sts={"pair_method": "pair", "loss": "mnrl"}),
        "compares two encodings",
    ),
    "mse on classes": (lambda: JOINT.with_tasks(sst={"loss": "mse"}), "does not fit labels"),
    "mse on joined paraphrases": (lambda: JOINT.with_tasks(para={"loss": "mse"}), "does not fit labels"),
    "cosine embedding of scores on classes": (
        lambda: JOINT.with_tasks(para=COSINE | {"loss": "cosine_embedding_sts"}),
        "does not fit labels",
    ),
    "cosine embedding of scores on logits": (
        lambda: JOINT.with_tasks(sts={"loss": "cosine_embedding_sts"}),
        "needs pair_method cosine and output raw",
    ),
    "cosine embedding of a scaled cosine": (
        lambda: JOINT.with_tasks(sts=COSINE | {"loss": "cosine_embedding_sts", "output": "times_five"}),
        "needs pair_method cosine and output raw",
    ),
    "cross-entropy on scores": (lambda: JOINT.with_tasks(sts={"loss": "cross_entropy"}), "does not fit labels"),
    "more an epoch than the set holds": (
        lambda: JOINT.with_tasks(sst={"examples": 8, "per_epoch": 9}),
        "draws from a set of 8",
    ),
    "sizes without annealing": (lambda: JOINT.with_tasks(sst={"sampling_size": 9}), "belongs to schedule annealed"),
    "relu output without bce": (lambda: JOINT.with_tasks(sts=COSINE | {"output": "relu"}), "the logit of bce"),
    "scale without sigmoid": (lambda: JOINT.with_tasks(sts=COSINE | {"scale": 2.0}), "before a sigmoid"),
    "sbert features of one input": (
        lambda: JOINT.with_tasks(sts={"pair_method": "pair", "features": "sbert"}),
        "needs pair_method separate",
    ),
    "segments of single sentences": (lambda: JOINT.with_tasks(sst={"segments": False}), "belong to pair_method pair"),
    "no separator between encodings": (lambda: JOINT.with_tasks(sts={"separator": False}), "belong to pair_method"),
    "inner dropout of one layer": (lambda: JOINT.with_tasks(sst={"inner_dropout": True}), "needs head_layers 2"),
    "frozen with frozen layers": (
        lambda: replace(JOINT, encoder=EncoderSpec(frozen=True, frozen_layers=2)),
        "no layers left",
    ),
    "frozen and trained by": (
        lambda: replace(JOINT, encoder=EncoderSpec(frozen=True, trained_by=("sts",)), schedule=ScheduleSpec()),
        "trained by no task",
    ),
    "trained by nobody here": (
        lambda: replace(JOINT, encoder=EncoderSpec(trained_by=("cfimdb",)), schedule=ScheduleSpec()),
        "trained_by names \\['cfimdb'\\]",
    ),
    "trained by one task of a joint step": (
        lambda: replace(JOINT, encoder=EncoderSpec(trained_by=("sts",))),
        "all tasks in one update",
    ),
    "pals of broken size": (lambda: replace(JOINT, encoder=EncoderSpec(pals=PalSpec(10, 3))), "no multiple"),
    "pretraining on nothing": (
        lambda: replace(JOINT, encoder=EncoderSpec(pretraining=PretrainingSpec(()))),
        "needs a corpus",
    ),
    "pretraining on an unknown corpus": (
        lambda: replace(JOINT, encoder=EncoderSpec(pretraining=PretrainingSpec((CorpusSpec("wiki", 10),)))),
        "Known: imdb, mnli, sick",
    ),
    "pretraining twice on one corpus": (
        lambda: replace(JOINT, encoder=EncoderSpec(pretraining=PretrainingSpec((IMDB, IMDB)))),
        "appears twice",
    ),
    "pretraining on no examples": (
        lambda: replace(JOINT, encoder=EncoderSpec(pretraining=PretrainingSpec((CorpusSpec("imdb", 0),)))),
        "0 is outside 1 to",
    ),
    "surgery in a round robin": (
        lambda: replace(JOINT, schedule=ScheduleSpec(), surgery=SurgerySpec("pcgrad")),
        "round_robin has one task in each",
    ),
    "surgery on a frozen encoder": (
        lambda: replace(JOINT, encoder=FROZEN, surgery=SurgerySpec("pcgrad")),
        "no gradients to compare",
    ),
    "a mean of nothing": (lambda: replace(JOINT, surgery=SurgerySpec(reduction="mean")), "nothing is reduced"),
    "a rate for fixed weights": (lambda: replace(JOINT, weighting=WeightingSpec(lr=1e-3)), "no learning rate"),
    "half of a regression without uncertainty": (
        lambda: replace(JOINT, weighting=WeightingSpec("dynamic", regression_half=True)),
        "belongs to weighting uncertainty",
    ),
    "a learned weight of nothing": (
        lambda: replace(JOINT.with_tasks(sst={"loss_weight": 0.0}), weighting=WeightingSpec("dynamic")),
        "without bound",
    ),
    "warm-up before a plateau": (
        lambda: replace(JOINT, optimizer=OptimizerSpec(rate=RateSpec("plateau", warmup=0.1))),
        "undo the other's rate",
    ),
    "updates of a joint epoch": (lambda: replace(JOINT, schedule=ScheduleSpec("joint", updates=5)), "annealed"),
    "repeats in a round robin": (lambda: replace(JOINT, schedule=ScheduleSpec(repeats=2)), "needs schedule joint"),
    "training nothing": (lambda: RunSpec((replace(SST, trained=False),)), "no task is trained"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_combinations_are_refused_with_the_reason(name):
    make, reason = IMPOSSIBLE[name]
    with pytest.raises(StudyError, match=reason):
        make()


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_names_are_refused_and_the_known_ones_listed(field):
    with pytest.raises(StudyError, match="Known: "):
        _with(field, "nonsense")


@pytest.mark.parametrize("field", RANGES)
def test_numbers_out_of_range_are_refused_with_the_range(field):
    low, high = RANGES[field]
    for value in (low - 1, high + 1):
        with pytest.raises(StudyError, match="is outside"):
            _with(field, value)


def _with(field, value):
    """A spec that has every optional part, with one field replaced."""
    full = replace(
        JOINT,
        encoder=EncoderSpec(pals=PalSpec(), pretraining=PretrainingSpec((IMDB,))),
        smart=SMART,
        weighting=WeightingSpec("dynamic", lr=1e-3),
    )
    path = field.split(".")
    if path[0] == "tasks":
        tasks = (replace(full.tasks[0], **{path[1]: value}), *full.tasks[1:])
        return replace(full, tasks=tasks)
    return _replaced(full, path, value)


def _replaced(holder, path, value):
    new = value if len(path) == 1 else _replaced(getattr(holder, path[0]), path[1:], value)
    return replace(holder, **{path[0]: new})


def test_every_text_and_number_of_a_spec_is_checked():
    """A new field without a choice or a range would take anything."""
    free = {"tasks.shared_layer", "encoder.checkpoint", "data"}
    free |= {"encoder.pretraining.corpora", "encoder.trained_by", "smart.tasks"}
    names = {name for name, _ in fields()}
    assert len(names) > 70 and names == {*CHOICES, *RANGES, *FLAGS, *free}


def test_all_that_is_wrong_is_told_at_once_each_with_its_place():
    values = {"tasks": [{"name": "sst", "dropout": 2, "pooling": "cls_"}], "epochs": "3"}
    with pytest.raises(StudyError) as error:
        RunSpec.from_dict(values, "experiments/x.yaml: y")
    assert error.value.where == "experiments/x.yaml: y" and len(error.value.problems) == 3
    told = error.value.message()
    assert "tasks.sst.dropout: 2 is outside 0 to 0.99" in told and "epochs: expected int, got str '3'" in told
    assert "tasks.sst.pooling: unknown value 'cls_'. Did you mean 'cls'?" in told


def test_a_replaced_field_is_checked_like_a_written_one():
    with pytest.raises(StudyError, match="dropout: 1.5 is outside"):
        replace(SST, dropout=1.5)
    with pytest.raises(StudyError, match="lr: expected float, got bool"):
        replace(JOINT.optimizer, lr=True)
    assert replace(JOINT.optimizer, lr=1).lr == 1.0
