"""Frames that figures draw hold the numbers they were made from, each in its place."""

from __future__ import annotations

import numpy as np
import pytest

from common import open_study
from common.data import sources
from common.errors import StudyError
from common.results import facts
from common.results.facts import _off_steps, data_card, labels_card, parity_card

CARD = {
    "counts": {"sst": {"train": 10, "dev": 4}, "para": {"train": 8, "dev": 4}, "sts": {"train": 5}},
    "labels": {
        "sst": {"train": {"0": 1, "1": 3, "2": 2, "3": 3, "4": 1}, "dev": {"0": 1, "1": 3}},
        "para": {"train": {"0": 6, "1": 2}, "dev": {"0": 1, "1": 3}},
        "sts": {"train": {"0 to 1": 2, "4 to 5": 3}},
        "cfimdb": {"dev": {"0": 2, "1": 2}},
    },
    "off_steps": {"sts": {"train": 2, "dev": 1}},
    "lengths": {
        task: {"bins": [3.0, 5.0, 9.0], "counts": [6, 2], "max": 9, "mean": 4.5}
        for task in ("sst", "para", "sts", "cfimdb")
    },
    "truncated": {"sst": 2},
    "max_tokens": 512,
    "left_out": {"sst": {}, "para": {"dev": ["a", "b"]}},
}


def test_stated_counts_stand_beside_ours_with_their_difference() -> None:
    frame = facts.stated_frame(CARD)
    found = frame[(frame["corpus"] == "Quora") & (frame["part"] == "train")].set_index("what")
    assert found.loc["rows", "stated"] == 141506 and found.loc["rows", "here"] == 8
    assert found.loc["label 1", "here"] == 2 and found.loc["label 1", "difference"] == 2 - 52273
    assert found.loc["label 0", "stated"] + found.loc["label 1", "stated"] == 141498
    test = frame[(frame["corpus"] == "Quora") & (frame["part"] == "test")]
    assert test["here"].isna().all(), "a split that is not there is no zero"


def test_a_whole_corpus_is_counted_where_all_its_parts_are_there() -> None:
    card = CARD | {"counts": {"sst": {"train": 10, "dev": 4, "test": 3}, "para": {"train": 8, "dev": 4}}}
    whole = facts.stated_frame(card).query("part == 'all'").drop_duplicates(["corpus", "what"])
    found = whole.set_index(["corpus", "what"])["here"]
    assert found["SST", "rows"] == 17 and found["STS", "scores off steps of 0.2"] == 3
    uncounted = set(found.index) - {("SST", "rows"), ("STS", "scores off steps of 0.2")}
    assert found[list(uncounted)].isna().all() and ("SST", "phrases") in uncounted and ("MultiNLI", "rows") in uncounted


def test_sizes_of_the_courses_files_are_what_the_reports_state_or_differ_by_what_is_known(cs224n) -> None:
    corpus = sources.load(cs224n)
    card = {"counts": {task: {name: len(part) for name, part in parts.items()} for task, parts in corpus.items()}}
    labelled = {name: part.labels for name, part in corpus["sts"].items() if part.labels is not None}
    card |= {"labels": {}, "off_steps": {"sts": {name: facts._off_steps(labels) for name, labels in labelled.items()}}}
    assert card["off_steps"]["sts"] == {"train": 725, "dev": 97}
    rows = facts.stated_frame(card).query("what == 'rows'").set_index(["report", "corpus", "part"])["difference"]
    for report in ("bertpp", "gu", "siar", "slapbert"):
        assert rows[report, "SST", "all"] == rows[report, "STS", "all"] == 0
    assert rows["siar", "CFIMDB", "all"] == 6 and rows["slapbert", "SST", "dev"] == 0
    parts = ("train", "dev", "test")
    assert [rows["bertpp", "STS", part] for part in parts] == [-1, -1, -1]
    assert [rows["bertpp", "SST", part] for part in parts] == [0, 1101 - 245, 2210 - 488]


def test_label_shares_add_up_to_one_for_each_source() -> None:
    frame = facts.label_frame(CARD)
    assert frame.groupby(["task", "source"])["share"].sum().to_numpy() == pytest.approx(1.0)
    theirs = frame[(frame["task"] == "sst") & (frame["source"] == "reported")]
    assert theirs["count"].tolist() == [1092, 2218, 1624, 2322, 1288]


def test_length_histogram_keeps_its_edges_and_the_share_cut() -> None:
    frame = facts.length_frame(CARD)
    first = frame[frame["task"] == "sst"]
    assert first[["from_tokens", "below_tokens", "count"]].values.tolist() == [[3.0, 5.0, 6], [5.0, 9.0, 2]]
    assert first["share_truncated"].iloc[0] == 2 / 8


def test_constant_answer_is_the_most_frequent_dev_label() -> None:
    frame = facts.constant_frame(CARD).set_index("task")
    assert frame.loc["SST", "label"] == "1" and frame.loc["SST", "accuracy"] == 0.75
    assert frame.loc["SST", "balanced accuracy"] == 0.5, "one of the two classes that occur"


def test_left_out_rows_are_named_and_none_is_said() -> None:
    assert facts.left_out_frame(CARD)[["task", "split", "rows left out", "ids"]].values.tolist() == [
        ["Quora", "dev", 2, "a, b"]
    ]
    assert facts.left_out_frame({"left_out": {}})["rows left out"].tolist() == [0]


def test_parity_has_a_line_for_every_difference_that_was_measured() -> None:
    card = {"bert": {"random": {"hidden": 1e-7}, "stored": {"pooled": 2e-7}}, "adamw": {"decay": 3e-8}, "steps": 10}
    frame = facts.parity_frame(card)
    assert frame["largest difference"].tolist() == [1e-7, 2e-7, 3e-8]
    assert frame["what"].tolist() == [
        *("BertModel, hidden, random weights", "BertModel, pooled, stored weights"),
        "AdamW (decay), weights after 10 steps",
    ]
    assert frame["against"].tolist() == [*["transformers.BertModel"] * 2, "torch.optim.AdamW"]


@pytest.fixture
def lab(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    return open_study("smoke")


def test_data_card_counts_what_the_corpus_holds(lab):
    card, corpus = data_card(lab), lab.corpus()
    for task, splits in corpus.items():
        assert card["counts"][task] == {name: len(split) for name, split in splits.items()}
        assert card["labels"][task].keys() == {"train", "dev"}, "test labels are withheld"
        for name in ("train", "dev"):
            assert sum(card["labels"][task][name].values()) == len(splits[name])
        lengths = card["lengths"][task]
        assert sum(lengths["counts"]) == len(splits["train"])
        assert lengths["bins"][0] <= lengths["mean"] <= lengths["max"] < lengths["bins"][-1]
    found = card["labels"]["sts"]["dev"]["4 to 5"]
    assert found == int((corpus["sts"]["dev"].labels >= 4).sum())
    assert card["off_steps"].keys() == {"sts"}
    scores = [round(5 * score, 3) for score in corpus["sts"]["train"].labels.tolist()]
    assert card["off_steps"]["sts"]["train"] == sum(not score.is_integer() for score in scores)
    assert card["labels"]["sst"]["dev"]["2"] == int((corpus["sst"]["dev"].labels == 2).sum())


def test_scores_off_the_steps_are_told_from_rounding():
    scores = np.array([0, 0.2, 0.6, 0.6000001, 4.8, 5, 3.75, 3.333, 0.5])
    assert _off_steps(scores) == 3 and _off_steps(scores.astype(np.float32)) == 3


def test_parity_card_holds_float32_rounding_and_nothing_more(lab):
    card = parity_card(lab)
    for where in ("random", "encoder"):
        assert 0 < card["bert"][where]["hidden"] < 1e-5 and card["bert"][where]["pooler"] < 1e-5
    assert card["adamw"]["torch"] < 1e-6 and 0 < card["adamw"]["starter"] < 1e-2


def test_cards_are_read_back_in_report_only_mode_and_missed_aloud(lab):
    only = open_study("smoke", report_only=True)
    with pytest.raises(StudyError, match="without --report-only"):
        data_card(only)
    written = data_card(lab)
    assert data_card(only) == written and np.isfinite(written["lengths"]["sst"]["mean"])


def test_labels_card_holds_every_dev_label_exactly_and_in_order_without_the_corpus(lab):
    with pytest.raises(StudyError, match="without --report-only"):
        labels_card(open_study("smoke", report_only=True))
    labels_card(lab)
    read = labels_card(open_study("smoke", report_only=True))
    for task, splits in lab.corpus().items():
        assert read[task].tolist() == splits["dev"].labels.tolist()
    assert read["sst"].dtype == np.int64 and read["sts"].dtype == np.float64


def test_labels_card_takes_a_line_a_task(lab):
    labels_card(lab)
    path = lab.places.cards / "labels.json"
    assert len(path.read_text().splitlines()) < 12
    assert path.stat().st_size < 2 * sum(len(s["dev"]) for s in lab.corpus().values()) + 4 * 1000
