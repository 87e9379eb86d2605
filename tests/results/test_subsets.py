"""What Gu's tables say of subsets, thresholds, cosines and conflicts is what the stored runs hold."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.runs.session import Failure, RowResult
from common.declare.spec import profile_named, to_dict
from common.results import subsets, words
from common.declare.rows import row

LABELS = np.array([1, 1, 0, 0, 0, 1, 0])
PARA = "gu_para_cos_mean_t075"


class Lab(SimpleNamespace):
    """Two cards and stored scores; no data and no model."""

    report_only = True


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


def result(row_id: str, *records: dict) -> RowResult:
    kept = [{key: value for key, value in found.items() if key != "parts_of"} for found in records]
    return RowResult(row(row_id), tuple(kept))


@pytest.fixture
def frame() -> pd.DataFrame:
    first = np.array([0.9, 0.1, 0.2, 0.9, 0.1, 0.9, 0.4], dtype=np.float32)
    second = np.array([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.4], dtype=np.float32)
    lab = lab_with({"a-s0": first, "b-s1": second, "c-s0": -first})
    results = {
        PARA: result(PARA, record(PARA, "a-s0", first), record(PARA, "b-s1", second, seed=1)),
        "gu_final": result("gu_final", record("gu_final", "c-s0", -first)),
    }
    return words.subset_frame(lab, results, ("para",))


def test_accuracy_by_label_stands_beside_what_the_report_prints(frame: pd.DataFrame) -> None:
    table = subsets.label_table(frame).set_index(["model", "true label"])
    final = table.loc[row("gu_final").label]
    assert final["reported"].to_dict() == {"both": 0.888, "paraphrases": 0.857, "non-paraphrases": 0.906}
    assert final["here"].tolist() == [pytest.approx(4 / 7), 0.0, 1.0] and (final["seeds"] == 1).all()
    assert final["difference"].iloc[2] == pytest.approx(1.0 - 0.906)
    cosine = table.loc[row(PARA).label]
    assert cosine["seeds"].iloc[0] == 2 and cosine["sd"].iloc[1] == pytest.approx(np.std([2 / 3, 1.0], ddof=1))
    assert cosine["reported"].iloc[1:].isna().all()


def test_error_rates_compare_a_subset_with_all_pairs_of_its_label(frame: pd.DataFrame) -> None:
    table = subsets.error_frame(frame[frame["run_id"] == "a-s0"]).set_index("error")
    assert table.loc["missed paraphrases", "rate over all"] == pytest.approx(1 / 3)
    assert table.loc["missed paraphrases", "ratio"] == pytest.approx(0.5 / (1 / 3))
    assert table.loc["false alarms", "ratio"] == pytest.approx(0.5 / 0.25)
    never_wrong = subsets.error_frame(frame[frame["run_id"] == "c-s0"]).set_index("error").loc["false alarms"]
    assert never_wrong["rate over all"] == 0 and np.isnan(never_wrong["ratio"])


def curve(seed: int) -> np.ndarray:
    grid = np.linspace(-1, 1, 201)
    return np.stack([grid, 0.5 + 0.3 * np.exp(-((grid - 0.6 - seed / 100) ** 2))])


def cosine_results() -> tuple[SimpleNamespace, dict[str, RowResult]]:
    names = ["gu_para_cos_mean_t050", PARA, "gu_para_cos_cls_t050"]
    runs = {name: f"{i}-s0" for i, name in enumerate(names)}
    probes = {run_id: {"para_threshold_curve": curve(i)} for i, run_id in enumerate(runs.values())}
    scores = np.array([0.9, -0.8, 0.2, 0.3], dtype=np.float32)
    chosen = {"train": {"para_best_threshold": 0.31}, "dev": {"para_acc": 0.5, "para_best_threshold": 0.6}}
    results = {name: result(name, record(name, run, scores, np.ones(4), metrics=chosen)) for name, run in runs.items()}
    store = SimpleNamespace(probes=probes.get, predictions=lambda run_id: {"para": scores})
    return SimpleNamespace(store=store), results


def test_one_curve_a_pooling_marks_the_thresholds_of_all_its_rows() -> None:
    lab, results = cosine_results()
    frame = subsets.pooling_curves(lab.store, results)
    assert frame.groupby("pooling")["run_id"].agg(["nunique", "first", "size"]).values.tolist() == [
        [1, "2-s0", 201],
        [1, "1-s0", 201],
    ]
    marks = frame[frame["marked"]].set_index(["pooling", "threshold"])
    assert marks["reported"].to_dict() == {("mean", 0.5): 0.777, ("mean", 0.75): 0.811, ("cls", 0.5): 0.733}
    assert marks.loc[("mean", 0.5), "accuracy"] == pytest.approx(0.5 + 0.3 * np.exp(-((0.5 - 0.61) ** 2)))


def test_threshold_table_reads_the_dev_accuracy_at_the_threshold_from_train() -> None:
    lab, results = cosine_results()
    table = subsets.threshold_table(lab, results).set_index("model")
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
    results = {row_id: result(row_id, record(row_id, "a-s0", scores["para"], np.ones(4)))}
    results[plain.id] = result(plain.id, record(plain.id, "b-s0", scores["para"], np.ones(4)))
    table = subsets.negative_table(lab, results)
    assert table["model"].tolist() == [row(row_id).label], "a model without a cosine has no line"
    assert table[["Quora", "STS"]].values.tolist() == [[0.25, share]]


def test_a_failed_row_leaves_no_curve_and_no_line() -> None:
    lab, results = cosine_results()
    failed = RowResult(row(PARA), (), (Failure(0, "x-s0", "broke", None),))
    only = subsets.pooling_curves(lab.store, results | {PARA: failed})
    assert only.loc[only["pooling"] == "mean", "run_id"].unique().tolist() == ["0-s0"]
    assert subsets.pooling_curves(lab.store, {PARA: failed}).empty
    assert subsets.threshold_table(lab, {PARA: failed}).empty
    assert subsets.negative_table(lab, {PARA: failed}).empty
    frame = words.subset_frame(lab_with({}), {PARA: failed}, ("para",))
    assert subsets.label_table(frame).empty and subsets.error_frame(frame).empty
    assert subsets.conflict_frame({PARA: failed}).empty


def test_conflicts_weigh_epochs_by_what_they_compared_and_tell_tasks_apart() -> None:
    found = [
        {"sst-sts": {"cosine": 0.2, "rate": 0.0, "pairs": 1}, "sst-sst": {"cosine": 0.5, "rate": 0.25, "pairs": 4}},
        {"sst-sts": {"cosine": -0.2, "rate": 1.0, "pairs": 3}, "sst-sst": {"cosine": None, "rate": None, "pairs": 0}},
    ]
    scores = np.zeros(len(LABELS))
    ours = record("gu_pcgrad", "r-s0", scores, history=[{"epoch": i, "conflicts": c} for i, c in enumerate(found)])
    table = subsets.conflict_frame({"gu_pcgrad": result("gu_pcgrad", ours)}).set_index("tasks")
    assert table.loc["SST and STS", ["compared", "mean cosine", "rate of conflicts"]].tolist() == pytest.approx(
        [4, -0.1, 0.75]
    )
    assert table.loc["SST and SST", ["compared", "mean cosine", "rate of conflicts"]].tolist() == pytest.approx(
        [4, 0.5, 0.25]
    )
