"""The error of a score over examples is that of the stored predictions, paired where two rows have them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from common.declare.rows import row
from common.declare.spec import to_dict
from common.results import scoring
from common.runs.record import Record

SPEC = to_dict(row("swissbert_pair").specs[0])
SIZE = 400


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Answers of two rows to 400 examples a task; the second row errs where the first does, and a little more."""
    rng = np.random.default_rng(0)
    labels = {"sst": rng.integers(0, 5, SIZE), "para": rng.integers(0, 2, SIZE), "sts": rng.uniform(0, 5, SIZE)}
    given: dict[tuple[str, str], np.ndarray] = {}
    for task, truth in labels.items():
        hard = rng.random(SIZE) < 0.4
        noise = rng.normal(0, 1, SIZE)
        for run, more in (("a-s0", 0.0), ("a-s1", 0.02), ("b-s0", 0.05), ("b-s1", 0.07)):
            wrong = hard | (rng.random(SIZE) < more)
            classes = np.where(wrong, (truth + 1) % (5 if task == "sst" else 2), truth)
            given[run, task] = truth + noise * (1 + more) if task == "sts" else classes
    monkeypatch.setattr(scoring, "labels_card", lambda lab: labels)
    monkeypatch.setattr(scoring, "answers", lambda lab, record, task: given[record.run_id, task])
    return SimpleNamespace(labels=labels, given=given)


def record(run_id: str, **more: object) -> Record:
    scores = {"sst_acc": 0.5, "para_acc": 0.8, "sts_corr": 0.6}
    content = {"run_id": run_id, "spec": SPEC | {"seed": int(run_id[-1])}, "metrics": {"dev": scores, "train": scores}}
    return Record(content | {"counts": {"train": {"sst": 900, "para": 900, "sts": 900}, "scored": {}}} | more)


PAIRS = [(record("a-s0"), record("b-s0")), (record("a-s1"), record("b-s1"))]


def test_an_accuracy_errs_as_the_mean_of_its_examples(lab: SimpleNamespace) -> None:
    right = np.stack([lab.given[run, "sst"] == lab.labels["sst"] for run in ("a-s0", "a-s1")]).mean(0)
    found = scoring.score_error(lab, [record("a-s0"), record("a-s1")], "sst_acc")
    assert found == pytest.approx(right.std(ddof=1) / math.sqrt(SIZE))


@pytest.mark.parametrize("metric", ["sst_acc", "para_acc", "sts_corr", "overall"])
def test_what_two_rows_share_cancels_in_their_difference(lab: SimpleNamespace, metric: str) -> None:
    paired = scoring.difference_error(lab, PAIRS, metric)
    alone = [scoring.score_error(lab, side, metric) for side in zip(*PAIRS, strict=True)]
    assert 0 < paired < 0.6 * math.hypot(*alone)


def test_an_overall_errs_as_a_mean_of_three_independent_scores(lab: SimpleNamespace) -> None:
    parts = [scoring.difference_error(lab, PAIRS, name) for name in ("sst_acc", "para_acc", "sts_corr")]
    raw, normalised = (scoring.difference_error(lab, PAIRS, name) for name in ("overall", "overall_normalised"))
    assert raw == pytest.approx(math.sqrt(sum(part**2 for part in parts)) / 3)
    assert normalised == pytest.approx(math.sqrt(parts[0] ** 2 + parts[1] ** 2 + (parts[2] / 2) ** 2) / 3)


def test_where_no_prediction_is_kept_a_share_errs_as_so_many_examples_do(lab: SimpleNamespace) -> None:
    found = scoring.score_error(lab, [record("a-s0")], "sst_acc", "train")
    assert found == pytest.approx(math.sqrt(0.5 * 0.5 / 900))
    assert scoring.score_error(lab, [record("a-s0")], "sts_corr", "train") == pytest.approx(0.64 / math.sqrt(897))


def test_a_row_of_several_models_errs_by_the_one_that_trained_the_task(lab: SimpleNamespace) -> None:
    several = record("a-s0+b-s0", parts=["a-s0", "b-s0"])
    stored = {"a-s0": record("a-s0", spec=only("sst")), "b-s0": record("b-s0", spec=only("para"))}
    lab.store = SimpleNamespace(get=stored.get)
    assert scoring.score_error(lab, [several], "para_acc") == scoring.score_error(lab, [record("b-s0")], "para_acc")
    assert scoring.score_error(lab, [several], "sst_acc") == scoring.score_error(lab, [record("a-s0")], "sst_acc")


def only(task: str) -> dict:
    return SPEC | {"seed": 0, "tasks": [t | {"trained": t["name"] == task} for t in SPEC["tasks"]]}
