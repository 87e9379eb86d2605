"""Subsets of a dev set hold the examples that their names say, and scores on them count those alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common import open_study
from common.declare import reported
from common.declare.profile import profile_named
from common.declare.rows import row
from common.declare.strict import to_dict
from common.errors import StudyError
from common.results import subsets
from common.runs.record import Record
from common.runs.session import Failure, RowResult

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


REVIEWS = ["A fine film, but long.", "A buttery film.", "Such a Meaningless  downer though", "a glorious failure"]


PARA = "gu_para_cos_mean_t075"


class Lab(SimpleNamespace):
    """Two cards and stored scores; no data and no model."""

    report_only = True

    def card(self, name: str, measure: object) -> dict:
        return self.store.card(name)


def lab_with(
    scores: dict[str, np.ndarray | dict[str, np.ndarray]], labels: dict[str, np.ndarray] | np.ndarray = LABELS
) -> Lab:
    """Scores as the store gives them back: half precision, then float32; Quora's where no task is named."""
    held = {
        run_id: {task: s.astype(np.float16).astype(np.float32) for task, s in found.items()}
        for run_id, found in ((r, s if isinstance(s, dict) else {"para": s}) for r, s in scores.items())
    }
    labels = labels if isinstance(labels, dict) else {"para": labels, "sts": np.array([0.0, 1, 5])}
    found = {"para": subsets.pair_words(*zip(*QUESTIONS, strict=True), questions=True)}
    found["sts"] = subsets.pair_words(["a b", "a b", "a b"], ["c d", "a c", "a b"])
    found["sst"] = subsets.review_words(REVIEWS) | {"word_score": np.array([1.0, 3.0, 0.0, 2.0])}
    card = {f"{task} {name}": " ".join(map(str, v)) for task, parts in found.items() for name, v in parts.items()}
    cards = {"labels": {task: " ".join(map(str, v)) for task, v in labels.items()}, "words": card}
    return Lab(store=SimpleNamespace(card=cards.get, predictions=held.get))


def record(row_id: str, run_id: str, scores: np.ndarray, labels: np.ndarray = LABELS, seed: int = 0) -> dict:
    spec = profile_named("quick").apply(replace(row(row_id).specs[0], seed=seed))
    threshold = 0.0 if spec.task("para").loss == "bce" else spec.task("para").threshold
    accuracy = sum(bool(s > threshold) == bool(label) for s, label in zip(scores, labels, strict=True)) / len(labels)
    scores = {"dev": {"para_acc": accuracy, "sst_acc": 0.5}}
    return Record({"run_id": run_id, "row": {"id": row_id}, "spec": to_dict(spec), "metrics": scores})


def result(row_id: str, *records: dict) -> RowResult:
    return RowResult(row(row_id), records)


def test_subsets_hold_the_pairs_that_their_names_say() -> None:
    found = subsets.pair_words(*zip(*QUESTIONS, strict=True), questions=True)
    rows = {name: found[name].tolist() for name in ("persons", "swaps", "alike", "nearly_identical")}
    assert rows == {"persons": [0, 1], "swaps": [0], "alike": [3, 4], "nearly_identical": [3]}
    assert found["overlap"] == pytest.approx([4 / 8, 2 / 10, 1.0, 7 / 8, 3 / 4, 1.0, 0.0])
    assert found["high"].tolist() == [2, 3, 5] and found["low"].tolist() == [0, 1, 6]


def test_the_reports_own_examples_are_told_by_the_wider_subset_of_their_pattern() -> None:
    texts = {e["id"]: e["texts"] for e in reported.examples("gu")}
    pairs = [texts[f"gu_ex_para_{i}"] for i in (1, 2, 3)]
    found = subsets.pair_words(*zip(*pairs, strict=True), questions=True)
    assert found["persons"].tolist() == [0, 1] and found["alike"].tolist() == [2]
    assert not len(found["swaps"]) and not len(found["nearly_identical"])


@pytest.mark.parametrize(
    ("first", "second", "is_parted"),
    [
        ("Who is it?", "Who was it?", True),
        ('Is it "art"?', "Is it art", True),
        ('Who said "why?"', "Who said it?", True),
        ("Who is it", "Who was it?", False),
        ("Is it U.S. law? Or not?", "Is it law?", False),
        ("Who is it?", "He came. Who was it?", False),
        ("Is 2.5 more than 2?", "Is 2 less?", True),
    ],
)
def test_end_marks_part_two_questions_where_the_first_has_its_only_one_at_its_end(
    first: str, second: str, is_parted: bool
) -> None:
    found = subsets.pair_words([first], [second], questions=True)["unparted"]
    assert (not len(found)) == is_parted


def test_reviews_are_told_by_whole_words_and_quoted_phrases() -> None:
    found = {name: rows.tolist() for name, rows in subsets.review_words(REVIEWS).items()}
    assert found == {"contrast": [0, 2], "no_contrast": [1, 3], "plain": [2], "mixed": [3]}


def test_word_scores_follow_single_words_and_not_their_order() -> None:
    train, labels = ["good good film", "good film", "bad film", "bad bad film"] * 4, np.array([4, 3, 1, 0] * 4)
    scores = subsets.word_scores(train, labels, ["good film", "film good", "bad film", "unknown"])
    assert scores[0] == scores[1] > scores[3] > scores[2]


def test_real_dev_reviews_hold_163_words_of_contrast_and_each_quoted_phrase_once(cs224n) -> None:
    from common.data import sources

    found = subsets.review_words(sources.load(str(cs224n))["sst"]["dev"].texts[0])
    assert {name: len(rows) for name, rows in found.items()} == {
        **{"contrast": 163, "no_contrast": 1101 - 163, "plain": 5, "mixed": 2}
    }


def test_the_card_is_read_without_the_corpus_and_holds_no_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    lab = open_study("smoke")
    made, read = subsets.words_card(lab), subsets.words_card(open_study("smoke", report_only=True))
    for task, parts in read.items():
        assert set(subsets.SUBSETS[task]) - {"all"} <= set(parts) and parts.keys() == made[task].keys()
        assert all(parts[name].tolist() == made[task][name].tolist() for name in parts)
    assert len(read["sts"]["overlap"]) == len(lab.scored("sts")) and read["sst"]["word_score"].dtype == float
    content = json.loads((lab.places.cards / "words.json").read_text())["content"]
    assert all(re.fullmatch(r"[-0-9. e]*", text) for text in content.values()), "numbers alone"


@pytest.mark.parametrize("row_id", [PARA, "gu_para_cos_cls_t050", "gu_para_concat_sep_cls_1l"])
def test_answers_from_half_precision_agree_with_the_accuracy_of_full_precision(row_id: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    scores = np.clip(rng.normal(0.6 + 0.2 * labels, 0.15), -1, 1).astype(np.float32)
    if row_id == "gu_para_concat_sep_cls_1l":
        scores = ((scores - 0.7) * 20).astype(np.float32)
    ours = record(row_id, "r-s0", scores, labels)
    correct = subsets.answers(lab_with({"r-s0": scores}, labels), ours, "para") == labels
    assert correct.mean() == pytest.approx(ours["metrics"]["dev"]["para_acc"], abs=1e-3)


def test_scores_that_half_precision_rounds_onto_the_threshold_are_no_mismatch() -> None:
    scores = np.array([0.75004, 0.75004, 0.2, 0.3, 0.1, 0.9, 0.4], dtype=np.float32)
    ours = record(PARA, "r-s0", scores)
    assert ours["metrics"]["dev"]["para_acc"] == 1.0 and np.float16(scores[0]) == 0.75
    found = subsets.answers(lab_with({"r-s0": scores}), ours, "para") == LABELS
    assert found.tolist() == [False, False, *[True] * 5]


def test_classes_that_half_precision_makes_equal_are_no_mismatch_and_others_are() -> None:
    logits = np.eye(5, dtype=np.float32)[[0, 1, 1, 2]]
    logits[0, 1], labels = 0.9999, {"sst": np.array([0, 1, 3, 3])}
    ours = Record(record(PARA, "r-s0", np.zeros(7)) | {"metrics": {"dev": {"sst_acc": 0.5}}})
    assert subsets.answers(lab_with({"r-s0": {"sst": logits}}, labels), ours, "sst").tolist() == [0, 1, 1, 2]
    with pytest.raises(StudyError, match="E-STALE"):
        subsets.answers(lab_with({"r-s0": {"sst": np.eye(5)[[3, 1, 3, 3]]}}, labels), ours, "sst")


@pytest.mark.parametrize("labels", [1 - LABELS, LABELS[:-1]])
def test_labels_of_other_data_are_refused(labels: np.ndarray) -> None:
    scores = np.array([0.9, 0.8, 0.2, 0.3, 0.1, 0.9, 0.4], dtype=np.float32)
    with pytest.raises(StudyError, match=f"to {PARA}, seed 0 .r-s0.*E-STALE.*cards/words.json"):
        subsets.answers(lab_with({"r-s0": scores}, labels), record(PARA, "r-s0", scores), "para")


@pytest.fixture
def frame() -> pd.DataFrame:
    first = np.array([0.9, 0.1, 0.2, 0.9, 0.1, 0.9, 0.4], dtype=np.float32)
    second = np.array([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.4], dtype=np.float32)
    lab = lab_with({"a-s0": first, "b-s1": second, "c-s0": -first})
    results = {
        PARA: result(PARA, record(PARA, "a-s0", first), record(PARA, "b-s1", second, seed=1)),
        "gu_final": result("gu_final", record("gu_final", "c-s0", -first)),
    }
    return subsets.subset_frame(lab, results, ("para",))


def test_subset_accuracies_count_only_their_own_pairs(frame: pd.DataFrame) -> None:
    ours = frame[frame["run_id"] == "a-s0"].set_index(["subset", "true label"])
    assert len(frame) == 3 * 8 * 3 and not frame.duplicated(["run_id", "subset", "true label"]).any()
    assert ours.loc[("all pairs", "both"), "value"] == pytest.approx(5 / 7)
    assert ours.loc[("all pairs", "paraphrases"), ["n", "value"]].tolist() == [3, pytest.approx(2 / 3)]
    assert ours.loc[("one says I, the other you", "paraphrases"), "value"] == 0.5
    assert ours.loc[("word overlap of 0.7 or more", "non-paraphrases"), "value"] == 0.5
    empty = ours.loc[("only I and you swapped", "non-paraphrases")]
    assert empty["n"] == 0 and np.isnan(empty["value"]) and np.isnan(empty["low"])


def test_accuracies_carry_wilsons_interval(frame: pd.DataFrame) -> None:
    """Two of three: 0.2077 to 0.9385 (Wilson 1927; the values of statsmodels' proportion_confint, method wilson)."""
    line = frame[(frame["run_id"] == "a-s0") & (frame["true label"] == "paraphrases")].iloc[0]
    assert (line["low"], line["high"]) == pytest.approx((0.2077, 0.9385), abs=2e-4)


def test_subset_table_has_a_line_a_subset_and_label_and_a_column_a_model(frame: pd.DataFrame) -> None:
    table = subsets.subset_table(frame)
    assert table[["subset", "true label"]].drop_duplicates().shape[0] == len(table) == 24
    assert table["subset"].drop_duplicates().tolist() == list(subsets.SUBSETS["para"].values())
    persons = table[(table["subset"] == "one says I, the other you") & (table["true label"] == "paraphrases")]
    assert persons[row(PARA).label].item() == pytest.approx((0.5 + 1.0) / 2) and persons["n"].item() == 2
    assert "task" not in table.columns, "one task needs no column"
    thirds = subsets.subset_table(frame, ("low", "high"))
    assert thirds["subset"].drop_duplicates().tolist() == ["lower third of word overlap", "upper third of word overlap"]


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


def test_scores_and_reviews_are_judged_by_their_own_quantities() -> None:
    labels = {"sst": np.array([0, 1, 2, 3]), "sts": np.array([0.0, 1, 5]), "para": LABELS}
    scores = {"sst": np.eye(5)[[0, 1, 1, 2]], "sts": np.array([1.0, 1, 4])}
    ours = record(PARA, "r-s0", np.zeros(7)) | {"metrics": {"dev": {"sst_acc": 0.5}}}
    results = {PARA: result(PARA, ours)}
    frame = subsets.subset_frame(lab_with({"r-s0": scores}, labels), results, ("sst", "sts"))
    found = frame.set_index(["task", "subset", "quantity"])["value"]
    assert found["SST", "says but, though or yet", "accuracy"] == 0.5
    assert found["SST", "plain phrase that swissBERT quotes", "accuracy"] == 0.0
    assert found["STS", "all pairs", "prediction minus label"] == pytest.approx(0.0)
    assert found["STS", "all pairs", "squared error"] == pytest.approx(2 / 3)
    assert found["STS", "lower third of word overlap", "prediction minus label"] == 1.0
    table = subsets.correlation_table(
        subsets.correlation_frame(
            lab_with({"r-s0": scores | {"para": np.ones(7)}}, labels),
            {PARA: result(PARA, ours | {"metrics": {"dev": {"sst_acc": 0.5, "para_acc": 3 / 7}}})},
        )
    )
    r = table.set_index("question")[row(PARA).label]
    assert r["overlap with prediction minus label, all pairs"] == pytest.approx(
        np.corrcoef([0, 1 / 3, 1], [1, 0, -1])[0, 1]
    )
    assert r["score of single words with the prediction, all reviews"] == pytest.approx(
        np.corrcoef([1, 3, 0, 2], [0, 1, 1, 2])[0, 1]
    )
    assert np.isnan(r["overlap with a false paraphrase, pairs that are none"]), "it answers the same to all"
    assert table["n"].tolist() == [4, 7, 2, 3, 4]


def test_a_failed_row_leaves_no_line() -> None:
    failed = {PARA: RowResult(row(PARA), (), (Failure(0, "x-s0", "broke", None),))}
    frame = subsets.subset_frame(lab_with({}), failed)
    assert frame.empty and subsets.subset_table(frame).empty
    assert subsets.label_table(frame).empty and subsets.error_frame(frame).empty
    assert subsets.correlation_table(subsets.correlation_frame(lab_with({}), failed)).empty
