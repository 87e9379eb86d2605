"""Metrics against numpy, and what is undefined says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from common.data.encoding import Layout, encode, load_tokenizer
from common.declare.spec import RunSpec, TaskSpec
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.training.evaluate import (
    UNTRAINED_DRAWS,
    metrics,
    predict,
    sample,
    selection_score,
    sentence_vectors,
    threshold_curve,
    untrained_heads,
)

SST, PARA, STS = TaskSpec("sst"), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
COSINE = TaskSpec("para", "cosine", loss="cosine_embedding", threshold=0.0)
ALL = RunSpec(tasks=(SST, PARA, STS))
OUTPUTS = {
    "sst": np.eye(5)[[0, 1, 2, 3]].astype(np.float32),
    "para": np.array([[2.0], [-1.0], [0.0], [0.5]], dtype=np.float32),
    "sts": np.array([[0.0], [1.0], [2.0], [4.0]], dtype=np.float32),
}
LABELS = {"sst": np.array([0, 1, 2, 4]), "para": np.array([1, 1, 0, 0]), "sts": np.array([0.0, 2.0, 1.0, 5.0])}


def test_metrics_equal_hand_computed_values():
    values, reasons = metrics(ALL, OUTPUTS, LABELS)
    r = np.corrcoef(OUTPUTS["sts"][:, 0], LABELS["sts"])[0, 1]
    assert values["sst_acc"] == 0.75
    assert values["para_acc"] == 0.5  # predictions 1, 0, 0 (exactly at the threshold), 1
    assert values["sts_corr"] == pytest.approx(r)
    assert values["overall"] == pytest.approx((0.75 + 0.5 + r) / 3)
    assert values["overall_normalised"] == pytest.approx((0.75 + 0.5 + (r + 1) / 2) / 3)
    assert reasons == {}


def test_probability_or_cosine_exactly_at_the_threshold_is_no_paraphrase():
    assert predict(PARA, np.array([[0.0]])).tolist() == [0]
    assert predict(COSINE, np.array([[0.0], [0.01], [-0.5]])).tolist() == [0, 1, 0]


def test_constant_prediction_has_no_correlation_and_no_overall():
    values, reasons = metrics(ALL, OUTPUTS | {"sts": np.full((4, 1), 2.5, dtype=np.float32)}, LABELS)
    assert values["sts_corr"] is None and values["overall"] is None
    assert "constant" in reasons["sts_corr"] and "sts" in reasons["overall"]
    assert selection_score(ALL, values) is None


def test_non_finite_predictions_are_undefined():
    values, reasons = metrics(ALL, OUTPUTS | {"sts": np.full((4, 1), np.nan, dtype=np.float32)}, LABELS)
    assert values["sts_corr"] is None and "non-finite" in reasons["sts_corr"]


def test_a_run_of_one_task_has_no_overall_but_can_be_selected():
    spec = RunSpec(tasks=(SST,))
    values, reasons = metrics(spec, {"sst": OUTPUTS["sst"]}, {"sst": LABELS["sst"]})
    assert values["overall"] is None and "para, sts" in reasons["overall"]
    assert selection_score(spec, values) == 0.75


def test_threshold_curve_counts_like_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = np.round(rng.uniform(-1, 1, 300), 2), rng.integers(0, 2, 300)
    for scale in (1.0, 5.0):  # a scaled cosine is a logit; thresholds are of the cosine itself
        thresholds, accuracies = threshold_curve(
            replace(COSINE, loss="bce", scale=scale), scale * scores[:, None], labels
        )
        for threshold, accuracy in zip(thresholds[::7], accuracies[::7], strict=True):
            assert accuracy == pytest.approx(np.mean((scores > threshold) == labels))


def test_best_threshold_of_a_cosine_task():
    spec = RunSpec(tasks=(COSINE,))
    scores, labels = np.array([[0.9], [0.8], [0.4], [0.3]], dtype=np.float32), np.array([1, 1, 0, 0])
    values, _ = metrics(spec, {"para": scores}, {"para": labels})
    assert values["para_acc"] == 0.5 and values["para_acc_best_threshold"] == 1.0
    assert 0.4 <= values["para_best_threshold"] < 0.8


def test_correlation_is_of_the_whole_set_not_a_mean_over_batches():
    """Two halves that each fall while the whole rises: a mean of their correlations would have the wrong sign."""
    outputs, labels = np.array([[1.0], [0.0], [5.0], [4.0]], dtype=np.float32), np.array([0.0, 1.0, 4.0, 5.0])
    values, _ = metrics(RunSpec(tasks=(STS,)), {"sts": outputs}, {"sts": labels})
    assert values["sts_corr"] == pytest.approx(np.corrcoef(outputs[:, 0], labels)[0, 1]) and values["sts_corr"] > 0.8
    halves = [np.corrcoef(outputs[i : i + 2, 0], labels[i : i + 2])[0, 1] for i in (0, 2)]
    assert np.mean(halves) == pytest.approx(-1)


def test_only_trained_tasks_select_the_epoch():
    spec = RunSpec(tasks=(SST, PARA)).with_tasks(para={"trained": False})
    values, _ = metrics(spec, {"sst": OUTPUTS["sst"]}, {"sst": LABELS["sst"]})
    assert selection_score(spec, values) == 0.75 and "para_acc" not in values


def test_best_threshold_of_a_rectified_cosine_is_on_the_cosine():
    """BERT++'s Model E decides on sigmoid(ReLU(cos)) > 0.5; the sweep is over the cosine itself."""
    spec = RunSpec(tasks=(TaskSpec("para", "cosine", loss="bce", output="relu"),))
    outputs = np.array([[0.9], [0.8], [0.3], [0.1]], dtype=np.float32)
    values, _ = metrics(spec, {"para": outputs}, {"para": np.array([1, 1, 0, 0])})
    assert values["para_acc"] == 0.5 and values["para_acc_best_threshold"] == 1.0
    assert 0.3 <= values["para_best_threshold"] < 0.8


def test_a_sample_of_a_sorted_file_is_like_the_whole_file():
    """The first rows are not: SST's training file begins with its positive sentences."""
    labels = np.sort(np.random.default_rng(0).integers(0, 5, 8544))
    rows = sample(len(labels), 1024, "sst")
    assert len(set(rows.tolist())) == 1024 and (np.diff(rows) > 0).all() and rows[-1] < 8544
    assert np.array_equal(rows, sample(8544, 1024, "sst")) and not np.array_equal(rows, sample(8544, 1024, "para"))
    counts = np.bincount(labels[rows], minlength=5)
    assert chisquare(counts, np.bincount(labels) * 1024 / 8544).pvalue > 1e-3
    assert np.array_equal(sample(7, None, "sst"), np.arange(7)) and np.array_equal(sample(7, 9, "sst"), np.arange(7))


def test_untrained_heads_are_fresh_draws_on_one_encoder(corpus, encoder_folder):
    tasks = (SST, TaskSpec("para", "separate", loss="bce", trained=False), TaskSpec("sts", "cosine", loss="mse"))
    spec = RunSpec(tasks=(*tasks[:2], TaskSpec("sts", "cosine", loss="mse", trained=False)), epochs=0)
    model = MultitaskModel(BertModel.from_pretrained(encoder_folder), spec, torch.Generator().manual_seed(0))
    tokenizer = load_tokenizer(encoder_folder, 48)
    dev = {t.name: encode(corpus[t.name]["dev"], tokenizer, Layout.of(t)) for t in spec.tasks}
    vectors = {name: sentence_vectors(model, name, encoded) for name, encoded in dev.items()}
    labels = {name: encoded.labels for name, encoded in dev.items()}
    found = untrained_heads(model, spec, vectors, labels)
    assert set(found) == {"para_acc"}  # SST is trained, a cosine has nothing to draw
    assert len(found["para_acc"]) == UNTRAINED_DRAWS and len(set(found["para_acc"])) > 1
    assert found == untrained_heads(model, spec, vectors, labels)
    few = [{name: values[:8] for name, values in given.items()} for given in (vectors, labels)]
    eight = untrained_heads(model, spec, *few)["para_acc"]
    assert all(value * 8 % 1 == 0 for value in eight)
    share = corpus["para"]["dev"].labels.mean()
    assert (
        min(found["para_acc"]) >= min(share, 1 - share) - 0.2 and max(found["para_acc"]) <= max(share, 1 - share) + 0.2
    )
