"""Every quantity that a claim may speak of, on a run whose numbers can be checked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from common.declare.reported.claims import load, quantities
from common.declare.rows import reports, row
from common.declare.spec import to_dict
from common.results import measures
from common.runs.record import Record

LABELS = {
    "sst": np.array([0, 1, 2, 3, 4, 0]),
    "para": np.array([1, 1, 0, 0]),
    "sts": np.array([0.0, 1.0, 3.0, 4.0, 5.0]),
}
ANSWERS = {
    "sst": np.array([0, 2, 2, 1, 4, 4]),
    "para": np.array([1, 0, 1, 0]),
    "sts": np.array([1.0, 1.0, 3.0, 4.0, 3.0]),
}
WORDS = {
    "sst": {"contrast": np.array([1, 3]), "word_score": np.array([0.0, 1, 2, 3, 4, 5])},
    "para": {"alike": np.array([2]), "overlap": np.array([0.9, 0.1, 0.8, 0.2])},
    "sts": {"high": np.array([0, 4]), "overlap": np.array([0.5, 0.2, 0.3, 0.4, 0.1])},
}
PROBES = {
    "trace_cosine": np.array([[0.5, -0.5, 0.1], [-0.1, -0.3, np.nan]]),
    "trace_norm": np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 2.0]]),
    "trace_factor": np.array([[1.0, 1.0, 1.0], [0.5, 2.0, 1.0]]),
    "trace_loss": np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]),
    "cross_mass": np.array([[0.2, 0.4], [0.3, 0.5]]),
    "match_mass": np.array([[0.1, 0.2], [0.15, 0.25]]),
    "even_cross": np.array([0.4]),
    "even_match": np.array([0.1]),
    "sst_vectors": np.array([[0.0, 0], [0, 1], [3, 0], [3, 1]]),
    "sst_vector_labels": np.array([0, 0, 1, 1]),
    "sts_distances": np.array([1.0, 2.0, 5.0, 3.0]),
    "sts_distance_labels": np.array([4.5, 5.0, 0.5, 2.0]),
    "para_distances": np.array([1.0, 4.0]),
    "para_distance_labels": np.array([1, 0]),
}
EXPECTED = {
    ("score", "metric=sst_acc split=dev"): 0.4,
    ("gap", "metric=sst_acc"): 0.9 - 0.5,
    ("lead_over_constant", "metric=sst_acc"): 0.4 - 2 / 6,
    ("epoch_spread", "metric=sst_acc"): np.std([0.4, 0.5, 0.5], ddof=1),
    ("score_slope", "metric=sst_acc"): 0.0,
    ("loss_slope", "task=sst"): -1.0,
    ("conflict_rate", "between=sst-para"): 0.5,
    ("conflict_rate", "between=highest"): 1.0,
    ("mean_cosine", "between=sst"): np.mean([0.2, 0.1]),
    ("removed_share", "between=para-sts"): 0.4,
    ("gradient_norm_ratio", ""): 3.5,
    ("loss_factor", "factor=para"): 2.0,
    ("loss_factor", "factor=lowest"): 0.5,
    ("lowest_total_loss", ""): 3.0,
    ("training_time", ""): 6.0 / 120 * 1000,
    ("parameters", ""): 77,
    ("attention_share", "target=cross layer=first head=first"): 0.2,
    ("attention_share", "target=match layer=last head=mean"): 0.2,
    ("match_preference", "layer=first head=first"): (0.1 / 0.1) / (0.1 / 0.3),
    ("subset_error", "task=sst label=any subset=contrast"): 1.0,
    ("subset_error", "task=para label=non_paraphrases subset=alike"): 1.0,
    ("subset_error", "task=para label=paraphrases subset=all"): 0.5,
    ("subset_squared_error", "label=similar subset=high"): 4.0,
    ("overlap_correlation", "pair_task=para label=any"): np.corrcoef([0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0])[0, 1],
    ("overlap_correlation", "pair_task=sts label=any"): np.corrcoef([0.5, 0.2, 0.3, 0.4, 0.1], [1, 0, 0, 0, -2])[0, 1],
    ("word_score_correlation", ""): np.corrcoef([0, 1, 2, 3, 4, 5], [0, 2, 2, 1, 4, 4])[0, 1],
    ("off_by_one_share", ""): 1 / 3,
    ("prediction_mean", "task=sts"): 2.4,
    ("prediction_spread", "task=sts"): np.std([1, 1, 3, 4, 3]) / np.std([0, 1, 3, 4, 5]),
    ("negative_cosine_share", "pair_task=sts"): 0.25,
    ("silhouette", "class=0"): 1 - 1 / ((3 + np.sqrt(10)) / 2),
    ("centre_distance", "classes=0-1"): 3.0,
    ("distance_median", "pairs=similar"): 1.5,
    ("distance_spread", "pairs=similar"): 0.5,
    ("distance_auc", "pair_task=sts"): 1.0,
}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(measures, "labels_card", lambda lab: LABELS)
    monkeypatch.setattr(measures, "words_card", lambda lab: WORDS)
    monkeypatch.setattr(measures, "answers", lambda lab, record, task: ANSWERS[task])
    monkeypatch.setattr(measures, "score_error", lambda *arguments: 0.01)
    negative = {"sts": np.array([True, False, False, False])}
    monkeypatch.setattr(measures, "negative_cosines", lambda store, record: negative)
    return SimpleNamespace(store=SimpleNamespace(probes=lambda run_id: PROBES))


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    scores = [{"sst_acc": x} for x in (0.3, 0.4, 0.5, 0.5)]
    history = [
        {"dev": dev, "train": {"sst_acc": 0.9}, "train_loss": {"sst": 5.0 - epoch}, "wall_s": 1.5}
        for epoch, dev in enumerate(scores)
    ]
    spec = row("swissbert_pair").specs[0]
    monkeypatch.setattr(type(spec), "total_examples", lambda self, sizes: 1000)
    return Record(
        {
            "run_id": "a-s0",
            "row": {"id": "swissbert_pair"},
            "spec": to_dict(spec) | {"weighting": {"kind": "linear"}},
            "written": to_dict(spec),
            "metrics": {"dev": {"sst_acc": 0.4}},
            "history": history,
            "trace": {"tasks": ["sst", "para", "sts"], "pairs": ["sst-para", "para-sts", "sst-sts"]},
            "counts": {"examples": {"sst": 100, "para": 20}, "parameters": 77},
        }
    )


@pytest.mark.parametrize(("quantity", "of"), EXPECTED, ids=lambda part: part.replace(" ", ","))
def test_a_quantity_is_what_its_definition_says(lab, record: Record, quantity: str, of: str) -> None:
    found = measures.measured(lab, record, quantity, dict(part.split("=") for part in of.split()))
    assert found.value == pytest.approx(EXPECTED[quantity, of])


def test_every_quantity_of_the_vocabulary_is_measured_and_checked_here() -> None:
    assert set(measures.QUANTITIES) == set(quantities()) == {quantity for quantity, _ in EXPECTED}
    asked = {measure.quantity for report in reports() for claim in load(report) for measure in claim.measures}
    assert asked <= set(measures.QUANTITIES)


@pytest.mark.parametrize(
    ("quantity", "of"),
    [
        ("attention_share", {"target": "cross", "layer": "middle", "head": "first"}),  # two layers have none between
        ("score", {"metric": "sst_acc", "split": "test"}),
        ("loss_slope", {"task": "cfimdb"}),
        ("subset_error", {"task": "para", "label": "any", "subset": "unparted"}),
    ],
)
def test_a_run_without_the_material_is_undecided_and_no_error(lab, record: Record, quantity: str, of: dict) -> None:
    assert measures.measured(lab, record, quantity, of) is None


def test_shares_of_examples_carry_the_error_of_so_many(lab, record: Record) -> None:
    found = measures.measured(lab, record, "subset_error", {"task": "sst", "label": "any", "subset": "all"})
    wrong = np.array([0, 1, 0, 1, 0, 1])
    assert found.error == pytest.approx(wrong.std(ddof=1) / np.sqrt(6))
