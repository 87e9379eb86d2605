"""The lines that every comparison is set against come from the labels and from runs without training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.runs.session import Results
from common import open_study
from common.results.cards import data_card, labels_card
from common.results.frames import constant_frame
from common.declare.rows import row
from common.results.untrained import Baselines, baselines, constant_scores, is_zero_shot, zero_shot_rows


def test_constants_are_the_share_of_the_commonest_label_and_zero_for_a_correlation() -> None:
    labels = {"sst": np.array([0, 1, 1, 3]), "para": np.array([0, 0, 1]), "sts": np.array([2.5, 2.5, 2.5, 1.0])}
    scores = constant_scores(labels)
    assert (scores["sst_acc"], scores["para_acc"], scores["sts_corr"]) == (0.5, pytest.approx(2 / 3), 0.0)
    assert scores["overall"] == pytest.approx((0.5 + 2 / 3) / 3)
    assert scores["overall_normalised"] == pytest.approx((0.5 + 2 / 3 + 0.5) / 3)
    assert scores["para_acc_best_threshold"] == scores["para_acc"], "a threshold above all answers no to all"
    assert "overall" not in constant_scores({"sst": labels["sst"]})


def test_a_score_at_the_constant_below_it_or_undefined_is_no_better() -> None:
    against = Baselines({"sst_acc": 0.5}, Results())
    assert [against.is_at_constant("sst_acc", score) for score in (0.5, 0.49, None, 0.501)] == [True, True, True, False]
    assert not against.is_at_constant("cfimdb_acc", 0.1), "nothing is known of a task without labels"


def test_zero_shot_rows_are_those_that_compare_by_cosine_without_training() -> None:
    found = [of.id for of in zero_shot_rows()]
    assert "swissbert_zero_shot_cosine" in found and len(found) == len(set(found))
    assert not is_zero_shot(row("swissbert_pair_untrained")) and not is_zero_shot(row("swissbert_cosine_similarity"))


def test_both_lines_are_read_without_data_and_agree_with_the_data_card(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    monkeypatch.setenv("STUDY_PROFILE", "smoke")
    lab = open_study("smoke", jobs=1)
    labels_card(lab)
    shares = constant_frame(data_card(lab)).set_index("task")["accuracy"]
    made = baselines(lab)
    read = baselines(open_study("smoke", report_only=True))
    assert made.constants == read.constants and list(made.zero_shot) == list(read.zero_shot)
    assert made.constants["sst_acc"] == shares["SST"] and made.constants["para_acc"] == shares["Quora"]
    assert read.zero_shot["swissbert_zero_shot_cosine"].records[0]["history"] == []


def test_what_notebooks_import_is_there_whatever_was_imported_before() -> None:
    code = "import common.runs.session, common.results.untrained, common.study as s\n"
    code += "print([callable(getattr(s, name)) for name in s.__all__])"
    source = str(Path(__file__).resolve().parents[2] / "src")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source})
    assert "False" not in done.stdout and done.returncode == 0, done.stderr
