"""Answers one by one: example sentences, answers that changed, and how far the wrong ones miss."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_runs import PAIR, Arrays, named_run, record, result, with_arrays

from common.results import answers


def predicting(row_id: str, seed: int, *examples: dict) -> dict:
    return {**record(row_id, seed), "probes": {"examples": list(examples)}}


def test_examples_have_one_column_a_seed_and_classes_stay_whole() -> None:
    # As records of earlier runs have them: with a label and a prediction of the report, which are not read.
    text = "if steven soderbergh's 'solaris' is a failure it is a glorious failure."
    example = {"id": "swissbert_ex_sst_2", "task": "sst", "texts": [text], "label": 9.0, "reported": 9.0}
    texts = ["you should do it.", "you should prime it first."]
    score = {"id": "swissbert_ex_sts_2", "task": "sts", "texts": texts}
    records = [predicting(PAIR, seed, example | {"predicted": 3.0}, score | {"predicted": 1.5}) for seed in (0, 1)]
    frame = answers.examples_frame(result(PAIR, *records))
    pd.testing.assert_frame_equal(frame, answers.examples_frame({"": result(PAIR, *records)}, "swissbert"))
    assert list(frame.columns) == ["task", "text", "label", "reported", "here, seed 0", "here, seed 1"]
    assert len(frame) == 8
    assert frame.iloc[1].tolist() == ["SST", text, 4, 2, 3, 3] and type(frame.iloc[1]["label"]) is int
    assert frame.iloc[7].tolist() == ["STS", " / ".join(texts), 0.0, 2.3796, 1.5, 1.5]


def test_examples_of_two_models_stand_side_by_side_and_holes_say_why() -> None:
    waste = {"id": "siar_sst_example_3", "task": "sst", "texts": ["Don't waste your money."]}
    without, smart = "siar_mtl_nocap", "siar_mtl_smart"
    named = {
        "without SMART": result(without, predicting(without, 0, waste | {"predicted": 0.0})),
        "with SMART": result(smart, predicting(smart, 0, waste | {"predicted": 2.0, "texts": ["Another text."]})),
    }
    frame = answers.examples_frame(named, "siar").set_index("text")
    assert list(frame.columns) == [
        *("task", "label", "reported without SMART", "reported with SMART"),
        *("here without SMART, seed 0", "here with SMART, seed 0"),
    ]
    assert frame.loc["Don't waste your money."].tolist() == ["SST", "not printed", 1, 3, 0, "not predicted"]
    yuan = frame.loc["China yuan strengthens to 6.2689 against USD / Chinese yuan weakens to 6.2816 against USD"]
    assert yuan.tolist() == ["STS", "not printed", *["illegible"] * 2, *["not predicted"] * 2]


def test_a_sentence_that_a_report_shows_with_its_label_alone_has_no_prediction_of_it() -> None:
    """SlapBERT's Table 5 has samples of the data; its section 6 has predictions."""
    frame = answers.examples_frame({"": result("slapbert_setup2")}, "slapbert")
    assert frame["label"].tolist() == [2, 0, 0.6, 1, 1, 5]
    assert frame["reported"].tolist() == [4, 1, 3.5, *["not printed"] * 3]


def logits(classes: list[int], width: int) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[classes]


def test_changed_predictions_are_counted_by_which_way_they_went(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {
        "sst": np.array([0, 1, 2, 3]),
        "para": np.array([1, 1, 0, 0]),
        "sts": np.array([4.0, 1.0, 3.0]),
        "cfimdb": np.array([1]),
    }
    before = {"sst": logits([0, 2, 2, 0], 5), "para": np.array([-1.0, 1, 1, -1]), "sts": np.array([3.0, 2.0, 3.0])}
    # SST: became wrong, became right, as before, wrong both times. Quora: became right; became right. STS: nearer by 1,
    # further by 1, moved too little.
    after = {"sst": logits([1, 1, 2, 4], 5), "para": np.array([1.0, 1, -1, -1]), "sts": np.array([4.0, 3.0, 3.2])}
    stored = {"a-s0": before, "b-s0": after}
    lab = SimpleNamespace(store=SimpleNamespace(predictions=lambda run_id: stored[run_id]))
    monkeypatch.setattr(answers, "labels_card", lambda lab: labels)
    plain = result("siar_mtl_nocap", named_run("a-s0"), named_run("a-s7", 7))
    smooth = result("siar_mtl_smart", named_run("b-s0"), named_run("b-s8", 8))
    frame = answers.changed_frame(lab, plain, smooth).set_index("dev examples")
    assert frame["seed"].tolist() == [0] * 4, "only seeds that both rows have"
    columns = ["n", "changed", "better", "worse", "neither"]
    assert frame.loc["SST", columns].tolist() == [4, 3, 1, 1, 1] and frame.loc["SST", "share"] == 0.75
    assert frame.loc["Quora, paraphrases", columns].tolist() == [2, 1, 1, 0, 0]
    assert frame.loc["Quora, no paraphrases", columns].tolist() == [2, 1, 1, 0, 0]
    assert frame.loc["STS", columns].tolist() == [3, 2, 1, 1, 0]


def test_misses_are_shares_of_the_errors_beside_those_of_random_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, given = np.array([0, 0, 1, 2, 4, 4, 3, 3]), np.array([0, 1, 1, 4, 0, 3, 3, 4])
    monkeypatch.setattr(answers, "labels_card", lambda lab: {"sst": labels})
    best = "slapbert_smart_annealed_slapbert"
    lab = SimpleNamespace(store=Arrays(a={"scores": np.eye(5)[given]}))
    line = answers.miss_table(lab, {best: with_arrays(best, "a")}).iloc[0]
    assert (line["n"], line["errors"]) == (8, 5)
    assert [line[f"{miss} away"] for miss in (1, 2, 3, 4)] == pytest.approx([3 / 5, 1 / 5, 0, 1 / 5])
    odds = []
    for label in (0, 2, 4, 4, 3):
        others = [other for other in labels if other != label]
        odds.append(sum(abs(other - label) == 1 for other in others) / len(others))
    assert line["1 away by chance"] == pytest.approx(sum(odds) / 5)
