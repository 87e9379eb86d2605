"""Rows that are not one run: merged metrics, and random answers against what chance gives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ConstantInputWarning

from common.runs.combine import per_task, random_answers
from common.runs.record import Record
from common.runs.session import open_study


def record(task, metric, value, seed=0, share=1.0):
    other = {"sst": "sts_corr", "para": "sst_acc", "sts": "para_acc"}[task]
    content = {
        "run_id": f"{task}-s{seed}",
        "spec": {"seed": seed, "tasks": [{"name": task, "trained": True}]},
        "metrics": {"dev": {metric: value, other: 0.9}},
        "undefined": {"dev": {metric: "constant"} if value is None else {}},
        "share": share,
        "under_trained": share < 0.1,
        "probes": {"examples": [{"id": task}]},
        "wall_s": 2.0,
    }
    return Record(content)


def test_each_metric_comes_from_the_run_that_trained_its_task():
    merged = per_task(
        [record("sst", "sst_acc", 0.5), record("para", "para_acc", 0.8, share=0.05), record("sts", "sts_corr", 0.4)]
    )
    values = merged["metrics"]["dev"]
    assert (values["sst_acc"], values["para_acc"], values["sts_corr"]) == (0.5, 0.8, 0.4)
    assert values["overall"] == pytest.approx(1.7 / 3) and values["overall_normalised"] == pytest.approx(2.0 / 3)
    assert merged["parts"] == ["sst-s0", "para-s0", "sts-s0"] and merged["wall_s"] == 6.0
    assert merged["share"] == 0.05 and merged["under_trained"]
    assert [e["id"] for e in merged["probes"]["examples"]] == ["sst", "para", "sts"]


def test_an_undefined_part_leaves_no_overall_and_says_why():
    merged = per_task([record("sst", "sst_acc", 0.5), record("para", "para_acc", 0.8), record("sts", "sts_corr", None)])
    assert merged["metrics"]["dev"]["overall"] is None
    assert merged["undefined"]["dev"]["sts_corr"] == "constant" and "sts" in merged["undefined"]["dev"]["overall"]


def test_random_answers_are_what_chance_gives(tmp_path, monkeypatch):
    """Over 20 seeds: a fifth of SST, half of Quora, no correlation; each within four standard errors."""
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    lab = open_study("smoke")
    sizes = {task: len(lab.corpus()[task]["dev"].labels) for task in ("sst", "para", "sts")}
    found = [random_answers(lab, seed)["metrics"]["dev"] for seed in range(20)]
    for metric, task, chance, spread in (
        ("sst_acc", "sst", 0.2, 0.4),
        ("para_acc", "para", 0.5, 0.5),
        ("sts_corr", "sts", 0.0, 1.0),
    ):
        mean = np.mean([values[metric] for values in found])
        assert abs(mean - chance) < 4 * spread / np.sqrt(20 * sizes[task]), metric
    assert len({values["sst_acc"] for values in found}) > 1
    again = random_answers(open_study("smoke", report_only=True), 3)  # from the card
    assert again["metrics"]["dev"] == found[3]


def test_random_answers_to_labels_that_are_all_alike_have_a_reason_in_place_of_a_correlation(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    lab = open_study("smoke")
    dev = lab.corpus()["sts"]["dev"]
    data = {**lab.corpus(), "sts": {"dev": replace(dev, labels=np.full(len(dev), 3.0))}}
    monkeypatch.setattr(type(lab), "corpus", lambda self: data)
    with pytest.warns(ConstantInputWarning):
        found = random_answers(lab, 0)
    assert found["metrics"]["dev"]["sts_corr"] is None
    assert found["undefined"]["dev"]["sts_corr"] == "the labels are constant"
