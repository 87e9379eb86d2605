"""Scores of a model on a dev split, and the metrics made from them.

Metrics come from scikit-learn and scipy over the whole split, never averaged over batches. A metric that does not exist
(correlation of a constant, a mean with a missing part) is None and has a reason.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score

from common.data.encoding import Encoded, sorted_batches
from common.data.tasks import TASKS
from common.model.heads import MultitaskModel
from common.spec import RunSpec, TaskSpec

# Padded tokens a batch; more is no faster on a CPU and costs memory.
EVALUATION_TOKENS = 2048
METRIC_NAMES = {"sst": "sst_acc", "para": "para_acc", "sts": "sts_corr", "cfimdb": "cfimdb_acc"}
# Tasks whose mean is the `overall` of the reports.
OVERALL_TASKS = ("sst", "para", "sts")
COSINE_THRESHOLDS = np.linspace(-1.0, 1.0, 201)


@torch.inference_mode()
def score(model: MultitaskModel, task: str, encoded: Encoded, limit: int | None = None) -> np.ndarray:
    """Head outputs (N, C) float32 on the first `limit` examples, in the split's own order, in evaluation mode."""
    model.eval()
    count = len(encoded) if limit is None else min(limit, len(encoded))
    outputs: np.ndarray | None = None
    for rows in sorted_batches(encoded.lengths[:count], EVALUATION_TOKENS):
        batch_output = model(task, encoded.batch(rows, model.device)).cpu().numpy()
        if outputs is None:
            outputs = np.empty((count, batch_output.shape[1]), dtype=np.float32)
        outputs[rows] = batch_output
    return outputs


def predict(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """(N,) predictions: the likeliest class, 1 where the probability or cosine exceeds the threshold, or the score."""
    if TASKS[task.name].kind == "score":
        return outputs[:, 0]
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    return (positive_score(task, outputs) > task.threshold).astype(np.int64)


def positive_score(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """(N,) what a threshold is compared with: sigmoid of the logit in [0, 1], or the cosine in [-1, 1]."""
    raw = outputs[:, 0].astype(np.float64)
    return raw if task.pair_method == "cosine" else 1 / (1 + np.exp(-raw))


def metrics(spec: RunSpec, outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """All dev metrics of a run and the reasons for undefined ones.

    Args:
        spec: says how each task predicts.
        outputs: task -> (N, C).
        labels: task -> (N,).

    Returns:
        Metric name -> value or None, and metric name -> reason for each None. `overall` is (sst + para + r) / 3,
        `overall_normalised` SlapBERT's (sst + para + (r + 1) / 2) / 3.
    """
    values, reasons = {}, {}
    for task in spec.tasks:
        name = METRIC_NAMES[task.name]
        values[name], reasons[name] = _task_metric(task, outputs[task.name], labels[task.name])
        if task.name == "para" and task.pair_method == "cosine":
            values |= _best_threshold(positive_score(task, outputs["para"]), labels["para"])
    parts = {name: values.get(METRIC_NAMES[name]) for name in OVERALL_TASKS}
    missing = [name for name, value in parts.items() if value is None]
    for name, shift in (("overall", 0.0), ("overall_normalised", 1.0)):
        if missing:
            values[name], reasons[name] = None, f"no value for {', '.join(missing)}"
        else:
            correlation = (parts["sts"] + shift) / (1 + shift)
            values[name] = (parts["sst"] + parts["para"] + correlation) / 3
    return values, {name: reason for name, reason in reasons.items() if values.get(name) is None}


def selection_score(spec: RunSpec, values: dict) -> float | None:
    """What picks the best epoch: the raw mean of the metrics of the run's tasks; None when one is undefined."""
    parts = [values[METRIC_NAMES[task.name]] for task in spec.tasks]
    return None if any(part is None for part in parts) else sum(parts) / len(parts)


def threshold_curve(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(2, 201) cosine thresholds from -1 to 1 and the accuracy at each, all on one trained model."""
    ranked = np.sort(scores[labels > 0]), np.sort(scores[labels <= 0])
    positives = len(ranked[0]) - np.searchsorted(ranked[0], COSINE_THRESHOLDS, side="right")
    negatives = np.searchsorted(ranked[1], COSINE_THRESHOLDS, side="right")
    return np.stack([COSINE_THRESHOLDS, (positives + negatives) / len(labels)])


def _best_threshold(scores: np.ndarray, labels: np.ndarray) -> dict:
    thresholds, accuracies = threshold_curve(scores, labels)
    best = int(accuracies.argmax())
    return {"para_acc_best_threshold": float(accuracies[best]), "para_best_threshold": float(thresholds[best])}


def _task_metric(task: TaskSpec, outputs: np.ndarray, labels: np.ndarray) -> tuple[float | None, str]:
    predictions = predict(task, outputs)
    if not np.isfinite(predictions).all():
        return None, "the model predicts non-finite values"
    if TASKS[task.name].metric == "accuracy":
        return float(accuracy_score(labels.astype(np.int64), predictions)), ""
    if np.ptp(predictions) <= 1e-6 * max(1.0, float(np.abs(predictions).max())):
        return None, "the model predicts a constant, so the correlation does not exist"
    correlation = float(pearsonr(predictions.astype(np.float64), labels).statistic)
    return (correlation, "") if math.isfinite(correlation) else (None, "the labels are constant")
