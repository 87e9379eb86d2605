"""Frames that figures draw hold the numbers they were made from, each in its place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.declare.profile import profile_named
from common.declare.rows import row
from common.declare.strict import to_dict
from common.results import cosines, subsets
from common.runs.session import Failure, RowResult


class Store:
    """Probes of one run: attention that tells layer, head and place apart."""

    def __init__(self, layers: int):
        heads, tokens = 2, 3
        shape = (layers, heads, tokens, tokens)
        self.arrays = {
            "pair_attention": np.arange(np.prod(shape), dtype=np.float32).reshape(shape),
            "cross_mass": np.arange(layers * heads, dtype=np.float32).reshape(layers, heads),
            "near_mass": np.full((layers, heads), 0.5),
            "match_mass": np.linspace(0, 0.9, layers * heads).reshape(layers, heads),
            "para_threshold_curve": np.stack([np.linspace(-1, 1, 5), np.array([0.4, 0.4, 0.5, 0.8, 0.6])]),
        }

    def probes(self, run_id: str) -> dict[str, np.ndarray]:
        return self.arrays


def result(row_id: str) -> RowResult:
    record = {"run_id": "r-s0", "spec": {"seed": 0}, "probes": {"pair_tokens": ["[CLS]", "a", "[SEP]"]}}
    return RowResult(row(row_id), (record,))


def test_threshold_curve_keeps_its_points_and_the_rows_own_threshold() -> None:
    frame = cosines.threshold_curves(Store(2), {"swissbert_cosine_similarity": result("swissbert_cosine_similarity")})
    assert frame["threshold"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert frame["accuracy"].tolist() == [0.4, 0.4, 0.5, 0.8, 0.6]
    assert frame.loc[frame["marked"], "threshold"].tolist() == [0.0]



LABELS = np.array([1, 1, 0, 0, 0, 1, 0])


PARA = "gu_para_cos_mean_t075"


class Lab(SimpleNamespace):
    """Two cards and stored scores; no data and no model."""

    report_only = True

    def card(self, name: str, measure: object) -> dict:
        return self.store.card(name)


def lab_with(scores: dict[str, np.ndarray], labels: np.ndarray = LABELS, probes: dict | None = None) -> Lab:
    """Scores as the store gives them back: half precision, then float32."""
    held = {run_id: {"para": s.astype(np.float16).astype(np.float32)} for run_id, s in scores.items()}
    rows = {
        "persons": "0 1",
        "swaps": "0",
        "alike": "3 4",
        "nearly_identical": "3",
        "unparted": "",
        "low": "",
        "high": "",
    }
    cards = {
        "labels": {"para": " ".join(map(str, labels))},
        "words": {f"para {name}": found for name, found in rows.items()},
    }
    store = SimpleNamespace(card=cards.get, predictions=held.get, probes=lambda run_id: probes or {})
    return Lab(store=store)


def record(row_id: str, run_id: str, scores: np.ndarray, labels: np.ndarray = LABELS, seed: int = 0, **more) -> dict:
    spec = profile_named("quick").apply(replace(row(row_id).specs[0], seed=seed))
    threshold = 0.0 if scores.ndim == 1 and spec.task("para").loss == "bce" else spec.task("para").threshold
    accuracy = sum(bool(s > threshold) == bool(label) for s, label in zip(scores, labels, strict=True)) / len(labels)
    metrics = {"dev": {"para_acc": accuracy}} | more.pop("metrics", {})
    return {"run_id": run_id, "spec": to_dict(spec), "metrics": metrics, "history": [], "parts_of": None} | more


def result_subsets(row_id: str, *records: dict) -> RowResult:
    kept = [{key: value for key, value in found.items() if key != "parts_of"} for found in records]
    return RowResult(row(row_id), tuple(kept))


@pytest.fixture
def frame() -> pd.DataFrame:
    first = np.array([0.9, 0.1, 0.2, 0.9, 0.1, 0.9, 0.4], dtype=np.float32)
    second = np.array([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.4], dtype=np.float32)
    lab = lab_with({"a-s0": first, "b-s1": second, "c-s0": -first})
    results = {
        PARA: result_subsets(PARA, record(PARA, "a-s0", first), record(PARA, "b-s1", second, seed=1)),
        "gu_final": result_subsets("gu_final", record("gu_final", "c-s0", -first)),
    }
    return subsets.subset_frame(lab, results, ("para",))


def curve(seed: int) -> np.ndarray:
    grid = np.linspace(-1, 1, 201)
    return np.stack([grid, 0.5 + 0.3 * np.exp(-((grid - 0.6 - seed / 100) ** 2))])


def cosine_results() -> tuple[SimpleNamespace, dict[str, RowResult]]:
    names = ["gu_para_cos_mean_t050", PARA, "gu_para_cos_cls_t050"]
    runs = {name: f"{i}-s0" for i, name in enumerate(names)}
    probes = {run_id: {"para_threshold_curve": curve(max(1, i))} for i, run_id in enumerate(runs.values())}
    scores = np.array([0.9, -0.8, 0.2, 0.3], dtype=np.float32)
    chosen = {"train": {"para_best_threshold": 0.31}, "dev": {"para_acc": 0.5, "para_best_threshold": 0.6}}
    made = {name: record(name, run, scores, np.ones(4), metrics=dict(chosen)) for name, run in runs.items()}
    results = {name: result_subsets(name, found) for name, found in made.items()}
    store = SimpleNamespace(probes=probes.get, predictions=lambda run_id: {"para": scores})
    return SimpleNamespace(store=store), results


def test_one_curve_a_pooling_marks_the_thresholds_of_all_its_rows() -> None:
    lab, results = cosine_results()
    frame = cosines.threshold_curves(lab.store, results)
    assert frame.groupby("pooling")["run_id"].agg(["nunique", "first", "size"]).values.tolist() == [
        [1, "2-s0", 201],
        [1, "1-s0", 201],
    ]
    marks = frame[frame["marked"]].set_index(["pooling", "threshold"])
    assert marks["reported"].to_dict() == {("mean", 0.5): 0.777, ("mean", 0.75): 0.811, ("cls", 0.5): 0.733}
    assert marks.loc[("mean", 0.5), "accuracy"] == pytest.approx(0.5 + 0.3 * np.exp(-((0.5 - 0.61) ** 2)))


def test_rows_scored_at_other_epochs_keep_a_curve_each() -> None:
    lab, results = cosine_results()
    lab.store.probes("0-s0")["para_threshold_curve"] = curve(0)
    frame = cosines.threshold_curves(lab.store, results)
    assert frame.loc[frame["pooling"] == "mean", "run_id"].unique().tolist() == ["0-s0", "1-s0"]


def test_threshold_table_reads_the_dev_accuracy_at_the_threshold_from_train() -> None:
    lab, results = cosine_results()
    table = cosines.threshold_table(lab.store, results).set_index("model")
    ours = table.loc[row(PARA).label]
    assert ours["own threshold"] == 0.75 and ours["accuracy"] == 0.5
    assert ours["its accuracy"] == pytest.approx(0.5 + 0.3 * np.exp(-((0.31 - 0.61) ** 2)))
    assert ours["best accuracy"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("row_id", "sts", "share"),
    [
        ("swissbert_cosine_similarity", [-1.0, 0.5, 3.0, 4.0], 0.25),  # 5 cosine
        (PARA, [0.0, 0.0, 3.0, 4.0], 0.5),  # 5 ReLU(cosine): what was below 0 stands at 0
        ("bertpp_model_e", [2.4, 2.6, 3.0, 3.1], 0.25),  # 5 sigmoid(cosine): 2.5 at a cosine of 0
    ],
)
def test_negative_cosines_are_told_from_the_stored_scores_of_either_task(row_id: str, sts: list, share: float) -> None:
    scores = {"para": np.array([0.9, -0.8, 0.2, 0.3]), "sts": np.array(sts)}
    lab = SimpleNamespace(store=SimpleNamespace(predictions=lambda run_id: scores))
    plain = row("swissbert_no_extension")
    results = {row_id: result_subsets(row_id, record(row_id, "a-s0", scores["para"], np.ones(4)))}
    results[plain.id] = result_subsets(plain.id, record(plain.id, "b-s0", scores["para"], np.ones(4)))
    table = cosines.negative_shares(lab.store, results)
    assert table["model"].tolist() == [row(row_id).label], "a model without a cosine has no line"
    assert table[["Quora", "STS"]].values.tolist() == [[0.25, share]]


def test_a_failed_row_leaves_no_curve_and_no_line() -> None:
    lab, results = cosine_results()
    failed = RowResult(row(PARA), (), (Failure(0, "x-s0", "broke", None),))
    only = cosines.threshold_curves(lab.store, results | {PARA: failed})
    assert only.loc[only["pooling"] == "mean", "run_id"].unique().tolist() == ["0-s0"]
    assert cosines.threshold_curves(lab.store, {PARA: failed}).empty
    assert cosines.threshold_table(lab.store, {PARA: failed}).empty
    assert cosines.negative_shares(lab.store, {PARA: failed}).empty
    frame = subsets.subset_frame(lab_with({}), {PARA: failed}, ("para",))
    assert subsets.label_table(frame).empty and subsets.error_frame(frame).empty

