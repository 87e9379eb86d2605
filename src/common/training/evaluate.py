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
from common.declare.spec import RunSpec, TaskSpec
from common.declare.tasks import TASKS
from common.model.heads import MultitaskModel, build_heads
from common.seeding import stateless_generator

# Padded tokens a batch; more is no faster on a CPU and costs memory.
EVALUATION_TOKENS = 2048
METRIC_NAMES = {"sst": "sst_acc", "para": "para_acc", "sts": "sts_corr", "cfimdb": "cfimdb_acc"}
# Tasks whose mean is the `overall` of the reports.
OVERALL_TASKS = ("sst", "para", "sts")
OVERALLS = ("overall", "overall_normalised")
COSINE_THRESHOLDS = np.linspace(-1.0, 1.0, 201)
UNTRAINED_DRAWS = 20


@torch.inference_mode()
def sentence_vectors(
    model: MultitaskModel, task: str, encoded: Encoded, rows: np.ndarray | None = None
) -> torch.Tensor:
    """(N, parts, H): the vectors that heads see in evaluation mode, in the order of the given rows or else the split's.

    They are what costs time: whatever is asked of a split is asked of one pass.
    """
    model.eval()
    rows = np.arange(len(encoded)) if rows is None else rows
    places = list(sorted_batches(encoded.lengths[rows], EVALUATION_TOKENS))
    batches = (encoded.batch(rows[chosen], model.device) for chosen in places)
    vectors = torch.cat([torch.stack(model.sentence_vectors(task, batch), dim=1) for batch in batches])
    return vectors[torch.from_numpy(np.argsort(np.concatenate(places))).to(vectors.device)]


@torch.inference_mode()
def outputs(head: torch.nn.Module, vectors: torch.Tensor) -> np.ndarray:
    """A head's outputs (N, C) float32 in evaluation mode."""
    return head.eval()(*vectors.unbind(1)).cpu().numpy()


def score(model: MultitaskModel, task: str, encoded: Encoded, rows: np.ndarray | None = None) -> np.ndarray:
    """The outputs (N, C) of the model's own head, in the order of the given rows or else the split's."""
    return outputs(model.heads[task], sentence_vectors(model, task, encoded, rows))


def sample(count: int, limit: int | None, name: str) -> np.ndarray:
    """Rows of a random sample of a split, sorted; the same in every run. limit None, or above the count, takes all.

    The first rows would be no sample: SST's training file is sorted in part.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(torch.randperm(count, generator=stateless_generator("sample", name))[:limit].numpy())


def predict(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """(N,) predictions: the likeliest class, 1 where the probability or cosine exceeds the threshold, or the score."""
    if TASKS[task.name].kind == "score":
        return outputs[:, 0]
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    return (positive_score(task, outputs) > task.threshold).astype(np.int64)


def positive_score(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """(N,) what a threshold is compared with: sigmoid of a logit in [0, 1], or the cosine in [-1, 1].

    BERT++'s Model E takes a cosine as the logit: above 0 is above one half.
    """
    raw = outputs[:, 0].astype(np.float64)
    return 1 / (1 + np.exp(-raw)) if task.loss == "bce" else raw


def metrics(spec: RunSpec, outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """All dev metrics of a run and the reasons for undefined ones.

    Args:
        spec: says how each task predicts.
        outputs: task -> (N, C), for all tasks of the run or some.
        labels: task -> (N,).

    Returns:
        Metric name -> value or None, and metric name -> reason for each None.
    """
    values, reasons = {}, {}
    for task in (task for task in spec.tasks if task.name in outputs):
        name = METRIC_NAMES[task.name]
        predictions = predict(task, outputs[task.name])
        values[name], reasons[name] = task_metric(task.name, predictions, labels[task.name])
        if task.name == "para" and task.pair_method == "cosine":
            values |= _best_threshold(task, outputs["para"], labels["para"])
    both, missing = overall(values)
    values, reasons = values | both, reasons | missing
    return values, {name: reason for name, reason in reasons.items() if values.get(name) is None}


def overall(values: dict) -> tuple[dict, dict]:
    """Both overall scores of a set of metrics, and why where one is None: `overall`, (sst + para + r) / 3, and
    SlapBERT's `overall_normalised`, (sst + para + (r + 1) / 2) / 3."""
    parts = {name: values.get(METRIC_NAMES[name]) for name in OVERALL_TASKS}
    missing = ", ".join(name for name, value in parts.items() if value is None)
    if missing:
        return dict.fromkeys(OVERALLS), dict.fromkeys(OVERALLS, f"no value for {missing}")
    accuracies, r = parts["sst"] + parts["para"], parts["sts"]
    return dict(zip(OVERALLS, ((accuracies + r) / 3, (accuracies + (r + 1) / 2) / 3), strict=True)), {}


def selection_score(spec: RunSpec, values: dict) -> float | None:
    """What picks the best epoch: the raw mean of the metrics of the trained tasks; None when one is undefined."""
    parts = [values[METRIC_NAMES[task.name]] for task in spec.trained_tasks]
    return None if any(part is None for part in parts) else sum(parts) / len(parts)


def is_still_rising(spec: RunSpec, history: list[dict], scored: dict[str, int]) -> bool:
    """Whether a run was under-trained: its last epoch beat all earlier ones by more than a dev sample's own error.

    The error is that of the mean of the metrics in a sample of `scored` examples a task, sqrt(p (1 - p) / n) for an
    accuracy and (1 - r^2) / sqrt(n) for a correlation. A single epoch cannot show that it was enough.
    """
    last = history[-spec.epochs :] if spec.epochs else []
    scores = [-math.inf if entry["selection"] is None else entry["selection"] for entry in last]
    if len(scores) < 2 or scores[-1] == -math.inf:
        return bool(scores)
    values = {name: (last[-1]["dev"][METRIC_NAMES[name]], count) for name, count in scored.items()}
    squares = [
        value * (1 - value) / n if TASKS[name].metric == "accuracy" else (1 - value**2) ** 2 / n
        for name, (value, n) in values.items()
    ]
    return scores[-1] - max(scores[:-1]) > math.sqrt(sum(squares)) / len(squares)


def untrained_heads(
    model: MultitaskModel, spec: RunSpec, vectors: dict[str, torch.Tensor], labels: dict[str, np.ndarray]
) -> dict[str, list[float | None]]:
    """Metric name -> its values over UNTRAINED_DRAWS random heads on the run's encoder, for each untrained head.

    Args:
        model, spec: the run's.
        vectors: task -> (N, parts, H) of the examples that they are scored on.
        labels: task -> (N,).

    One random head says nothing about an encoder: BERT++ and the SMART report compare single draws. A head without
    parameters has one value, which is among the run's metrics.
    """
    untrained = [t for t in spec.tasks if not t.trained and list(model.heads[t.name].parameters())]
    found: dict[str, list[float | None]] = {METRIC_NAMES[task.name]: [] for task in untrained}
    for number in range(UNTRAINED_DRAWS if untrained else 0):
        heads = build_heads(spec, model.encoder.config.hidden_size, _draw(spec, number)).to(model.device)
        for task in untrained:
            predictions = predict(task, outputs(heads[task.name], vectors[task.name]))
            found[METRIC_NAMES[task.name]].append(task_metric(task.name, predictions, labels[task.name])[0])
    return found


def threshold_curve(task: TaskSpec, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(2, 201) cosine thresholds from -1 to 1 and the accuracy at each, all on one trained model."""
    scores = outputs[:, 0] / task.scale
    ranked = np.sort(scores[labels > 0]), np.sort(scores[labels <= 0])
    positives = len(ranked[0]) - np.searchsorted(ranked[0], COSINE_THRESHOLDS, side="right")
    negatives = np.searchsorted(ranked[1], COSINE_THRESHOLDS, side="right")
    return np.stack([COSINE_THRESHOLDS, (positives + negatives) / len(labels)])


def _draw(spec: RunSpec, number: int) -> torch.Generator:
    return stateless_generator(spec.seed, "untrained heads", number)


def _best_threshold(task: TaskSpec, outputs: np.ndarray, labels: np.ndarray) -> dict:
    thresholds, accuracies = threshold_curve(task, outputs, labels)
    best = int(accuracies.argmax())
    return {"para_acc_best_threshold": float(accuracies[best]), "para_best_threshold": float(thresholds[best])}


def task_metric(task: str, predictions: np.ndarray, labels: np.ndarray) -> tuple[float | None, str]:
    """Accuracy or Pearson r of (N,) predictions, or None and why it does not exist."""
    if not np.isfinite(predictions).all():
        return None, "the model predicts non-finite values"
    if TASKS[task].metric == "accuracy":
        return float(accuracy_score(labels.astype(np.int64), predictions)), ""
    if np.ptp(predictions) <= 1e-6 * max(1.0, float(np.abs(predictions).max())):
        return None, "the model predicts a constant, so the correlation does not exist"
    correlation = float(pearsonr(predictions.astype(np.float64), labels).statistic)
    return (correlation, "") if math.isfinite(correlation) else (None, "the labels are constant")
