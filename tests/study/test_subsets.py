"""Subsets of Quora dev hold what they name; answers, rates, curves and cosines are those of the stored runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.errors import StudyError
from common.spec import profile_named, to_dict
from common.study import open_study, reported, subsets
from common.study.rows import row
from common.study.session import Failure, RowResult

QUESTIONS = [
    ("How do I mend my bike?", "how do you mend your bike"),  # swapped
    ("How do I mend a bike?", "Can you mend your old bike"),  # persons, in other words
    ("Do you think I can win?", "Do I think you can win?"),  # both persons on both sides: who does what is exchanged
    ("Why do cats like a warm spot?", "Why do cats like a warm spot so?"),  # 7 of 8 words
    ("Why do cats sleep", "Do cats sleep"),  # 3 of 4
    ("Why do cats sleep", "sleep, cats do why"),  # equal sets
    ("", ""),
]
LABELS = np.array([1, 1, 0, 0, 0, 1, 0])
PARA = "gu_para_cos_mean_t075"


class Lab(SimpleNamespace):
    """Two cards and stored scores; no data and no model."""

    report_only = True


def lab_with(scores: dict[str, np.ndarray], labels: np.ndarray = LABELS, probes: dict | None = None) -> Lab:
    """Scores as the store gives them back: half precision, then float32."""
    held = {run_id: {"para": s.astype(np.float16).astype(np.float32)} for run_id, s in scores.items()}
    found = subsets.quora_subsets(*zip(*QUESTIONS, strict=True))
    cards = {
        "labels": {"para": " ".join(map(str, labels))},
        "subsets": {name: " ".join(map(str, rows)) for name, rows in found.items()},
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


def test_subsets_hold_the_pairs_that_their_names_say() -> None:
    found = {name: rows.tolist() for name, rows in subsets.quora_subsets(*zip(*QUESTIONS, strict=True)).items()}
    assert found == {"persons": [0, 1], "swaps": [0], "alike": [3, 4], "nearly_identical": [3]}


def test_the_reports_own_examples_are_told_by_the_wider_subset_of_their_pattern() -> None:
    texts = {e["id"]: e["texts"] for e in reported.examples("gu")}
    pairs = [texts[f"gu_ex_para_{i}"] for i in (1, 2, 3)]
    found = subsets.quora_subsets(*zip(*pairs, strict=True))
    assert found["persons"].tolist() == [0, 1] and found["alike"].tolist() == [2]
    assert not len(found["swaps"]) and not len(found["nearly_identical"])


def test_subsets_card_is_read_without_the_corpus_and_names_every_subset(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    lab = open_study("smoke")
    subsets.subsets_card(lab)
    read = subsets.subsets_card(open_study("smoke", report_only=True))
    assert set(read) == set(subsets.SUBSETS) - {"all"}
    expected = subsets.quora_subsets(*lab.corpus()["para"]["dev"].texts)
    assert all(read[name].tolist() == rows.tolist() for name, rows in expected.items())
    assert not set((lab.places.cards / "subsets.json").read_text()) & set("?"), "no sentences"


@pytest.mark.parametrize("row_id", [PARA, "gu_para_cos_cls_t050", "gu_para_concat_sep_cls_1l"])
def test_answers_from_half_precision_agree_with_the_accuracy_of_full_precision(row_id: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    scores = np.clip(rng.normal(0.6 + 0.2 * labels, 0.15), -1, 1).astype(np.float32)
    if row_id == "gu_para_concat_sep_cls_1l":
        scores = ((scores - 0.7) * 20).astype(np.float32)
    ours = record(row_id, "r-s0", scores, labels)
    correct = subsets.quora_answers(lab_with({"r-s0": scores}, labels), ours)
    assert correct.mean() == pytest.approx(ours["metrics"]["dev"]["para_acc"], abs=1e-3)


def test_scores_that_half_precision_rounds_onto_the_threshold_are_no_mismatch() -> None:
    scores = np.array([0.75004, 0.75004, 0.2, 0.3, 0.1, 0.9, 0.4], dtype=np.float32)
    ours = record(PARA, "r-s0", scores)
    assert ours["metrics"]["dev"]["para_acc"] == 1.0 and np.float16(scores[0]) == 0.75
    assert subsets.quora_answers(lab_with({"r-s0": scores}), ours).tolist() == [False, False, *[True] * 5]


@pytest.mark.parametrize("labels", [1 - LABELS, LABELS[:-1]])
def test_labels_of_other_data_are_refused(labels: np.ndarray) -> None:
    scores = np.array([0.9, 0.8, 0.2, 0.3, 0.1, 0.9, 0.4], dtype=np.float32)
    with pytest.raises(StudyError, match="E-STALE.*cards/subsets.json"):
        subsets.quora_answers(lab_with({"r-s0": scores}, labels), record(PARA, "r-s0", scores))


@pytest.fixture
def frame() -> pd.DataFrame:
    first = np.array([0.9, 0.1, 0.2, 0.9, 0.1, 0.9, 0.4], dtype=np.float32)
    second = np.array([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.4], dtype=np.float32)
    lab = lab_with({"a-s0": first, "b-s1": second, "c-s0": -first})
    results = {
        PARA: result(PARA, record(PARA, "a-s0", first), record(PARA, "b-s1", second, seed=1)),
        "gu_final": result("gu_final", record("gu_final", "c-s0", -first)),
    }
    return subsets.subset_frame(lab, results)


def test_subset_accuracies_count_only_their_own_pairs(frame: pd.DataFrame) -> None:
    ours = frame[frame["run_id"] == "a-s0"].set_index(["subset", "true label"])
    assert len(frame) == 3 * 5 * 3 and not frame.duplicated(["run_id", "subset", "true label"]).any()
    assert ours.loc[("all pairs", "both"), "accuracy"] == pytest.approx(5 / 7)
    assert ours.loc[("all pairs", "paraphrases"), ["pairs", "accuracy"]].tolist() == [3, pytest.approx(2 / 3)]
    assert ours.loc[("one says I, the other you", "paraphrases"), "accuracy"] == 0.5
    assert ours.loc[("word overlap of 0.7 or more", "non-paraphrases"), "accuracy"] == 0.5
    empty = ours.loc[("only I and you swapped", "non-paraphrases")]
    assert empty["pairs"] == 0 and np.isnan(empty["accuracy"])


def test_subset_table_has_a_line_a_subset_and_label_and_a_column_a_model(frame: pd.DataFrame) -> None:
    table = subsets.subset_table(frame)
    assert table[["subset", "true label"]].drop_duplicates().shape[0] == len(table) == 15
    assert table["subset"].drop_duplicates().tolist() == list(subsets.SUBSETS.values())
    label = row(PARA).label
    persons = table[(table["subset"] == "one says I, the other you") & (table["true label"] == "paraphrases")]
    assert persons[label].item() == pytest.approx((0.5 + 1.0) / 2) and persons["pairs"].item() == 2


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
    assert ours["own threshold"] == 0.75 and ours["accuracy"] == 0.5 and ours["negative cosines"] == 0.25
    assert ours["its accuracy"] == pytest.approx(0.5 + 0.3 * np.exp(-((0.31 - 0.61) ** 2)))
    assert ours["best accuracy"] == pytest.approx(0.8)


def test_a_failed_row_leaves_no_curve_and_no_line() -> None:
    lab, results = cosine_results()
    failed = RowResult(row(PARA), (), (Failure(0, "x-s0", "broke", None),))
    only = subsets.pooling_curves(lab.store, results | {PARA: failed})
    assert only.loc[only["pooling"] == "mean", "run_id"].unique().tolist() == ["0-s0"]
    assert subsets.pooling_curves(lab.store, {PARA: failed}).empty
    assert subsets.threshold_table(lab, {PARA: failed}).empty
    frame = subsets.subset_frame(lab_with({}), {PARA: failed})
    assert frame.empty and subsets.subset_table(frame).empty
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
