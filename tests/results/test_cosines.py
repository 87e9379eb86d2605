"""Cosine models: curves over the threshold, marked where a row decides, and the sign of cosines."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from made_runs import COSINE, Arrays, record, result, with_arrays

from common.declare.rows import row
from common.results import cosines
from common.runs.session import Failure, RowResult


def test_threshold_curve_keeps_its_points_and_the_rows_own_threshold() -> None:
    points = {"para_threshold_curve": np.stack([np.linspace(-1, 1, 5), np.array([0.4, 0.4, 0.5, 0.8, 0.6])])}
    frame = cosines.threshold_curves(Arrays(points), {COSINE: with_arrays(COSINE, "r-s0")})
    assert frame["threshold"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert frame["accuracy"].tolist() == [0.4, 0.4, 0.5, 0.8, 0.6]
    assert frame.loc[frame["marked"], "threshold"].tolist() == [0.0]


PARA = "gu_para_cos_mean_t075"


def curve(seed: int) -> np.ndarray:
    grid = np.linspace(-1, 1, 201)
    return np.stack([grid, 0.5 + 0.3 * np.exp(-((grid - 0.6 - seed / 100) ** 2))])


def scored(row_id: str, run_id: str) -> dict:
    return record(row_id, 0) | {"run_id": run_id}


def cosine_results() -> tuple[SimpleNamespace, dict[str, RowResult]]:
    names = ["gu_para_cos_mean_t050", PARA, "gu_para_cos_cls_t050"]
    runs = {name: f"{i}-s0" for i, name in enumerate(names)}
    probes = {run_id: {"para_threshold_curve": curve(max(1, i))} for i, run_id in enumerate(runs.values())}
    scores = np.array([0.9, -0.8, 0.2, 0.3], dtype=np.float32)
    chosen = {"train": {"para_best_threshold": 0.31}, "dev": {"para_acc": 0.5, "para_best_threshold": 0.6}}
    results = {name: result(name, scored(name, run) | {"metrics": chosen}) for name, run in runs.items()}
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


def test_models_of_another_pooling_or_another_seed_keep_a_curve_each_however_alike() -> None:
    mean, cls = "gu_para_cos_mean_t050", "gu_para_cos_cls_t050"
    results = {
        name: result(name, *(record(name, seed) | {"run_id": f"{name}-s{seed}"} for seed in (0, 1)))
        for name in (mean, PARA, cls)
    }
    frame = cosines.threshold_curves(Arrays({"para_threshold_curve": curve(1)}), results)
    assert frame["run_id"].unique().tolist() == [*(f"{PARA}-s{seed}" for seed in (0, 1)), f"{cls}-s0", f"{cls}-s1"]
    assert set(frame["label"]) == {row(PARA).label, row(cls).label}, "one curve has the name of the last of its rows"
    marks = frame[frame["marked"]].groupby("run_id", sort=False)["threshold"].agg(list)
    assert marks.tolist() == [[0.5, 0.75], [0.5, 0.75], [0.5], [0.5]]


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
    results = {row_id: result(row_id, scored(row_id, "a-s0"))}
    results[plain.id] = result(plain.id, scored(plain.id, "b-s0"))
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
