"""Cards: measured once, stored, and read back without data or encoder."""

import numpy as np
import pytest

from common.errors import StudyError
from common.study import open_study
from common.study.cards import _off_steps, data_card, labels_card, parity_card


@pytest.fixture
def lab(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    return open_study("smoke")


def test_data_card_counts_what_the_corpus_holds(lab):
    card, corpus = data_card(lab), lab.corpus()
    for task, splits in corpus.items():
        assert card["counts"][task] == {name: len(split) for name, split in splits.items()}
        for name, split in splits.items():
            assert sum(card["labels"][task][name].values()) == len(split)
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
