"""Quantities that no table prints but claims speak of, each of one run (`declare/reported/quantities.yaml`).

A quantity that a run has no material for (no trace, no attention, a task it lacks) is None, and so is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score, silhouette_samples

from common.declare.profile import REPORT_TRAIN
from common.declare.spec import RunSpec
from common.results.attention import layers_of
from common.results.cosines import negative_cosines
from common.results.facts import labels_card
from common.results.intervals import accuracy_error
from common.results.long import constant_scores
from common.results.scoring import score_error, value
from common.results.subsets import answers, words_card
from common.results.updates import lowest_total
from common.runs.record import Record
from common.runs.session import Study
from common.training.probes import LABEL_ENDS

LABELS = {
    "any": lambda labels: np.ones(len(labels), dtype=bool),
    "paraphrases": lambda labels: labels == 1,
    "non_paraphrases": lambda labels: labels == 0,
    "similar": lambda labels: labels >= LABEL_ENDS["sts"][1],
    "dissimilar": lambda labels: labels <= LABEL_ENDS["sts"][0],
}
PAIRS = {"duplicates": ("para", "paraphrases"), "others": ("para", "non_paraphrases")}
PAIRS |= {"similar": ("sts", "similar"), "dissimilar": ("sts", "dissimilar")}
Of = Mapping[str, str]
DRAWS = 300


class Measured(NamedTuple):
    """A number of one run, and the standard error that so many dev examples leave it (0: none that is known)."""

    value: float
    error: float = 0.0


def measured(lab: Study, record: Record, quantity: str, of: Of) -> Measured | None:
    """The quantity of a run; None where the run has nothing to measure it on."""
    measure = QUANTITIES[quantity]
    try:
        found = measure(lab, record, of)
    except KeyError:  # an array, a trace or a task that this run does not have
        return None
    found = found if isinstance(found, Measured) else Measured(found)
    return None if found.value is None or not np.isfinite(found.value) else Measured(float(found.value), found.error)


def _known(number: float | None) -> float:
    return math.nan if number is None else number


def _history(record: Record) -> list[dict]:
    if not record["history"]:  # scored as it was given
        raise KeyError("history")
    return record["history"]


def _score(lab: Study, record: Record, of: Of) -> Measured:
    found = _known(value(lab, record, of["metric"], of["split"]))
    return Measured(found, score_error(lab, [record], of["metric"], of["split"]))


def _gap(lab: Study, record: Record, of: Of) -> Measured:
    metric, last = of["metric"], _history(record)[-1]
    errors = [score_error(lab, [record], metric, split) for split in ("train", "dev")]
    return Measured(_known(last["train"][metric]) - _known(last["dev"][metric]), float(np.hypot(*errors)))


def _lead(lab: Study, record: Record, of: Of) -> Measured:
    constant = constant_scores(labels_card(lab))[of["metric"]]
    return Measured(_known(record.value(of["metric"])) - constant, score_error(lab, [record], of["metric"]))


def _dev_curve(record: Record, of: Of) -> list[float]:
    return [_known(entry["dev"][of["metric"]]) for entry in _history(record)]


def _late(values: list[float]) -> list[float]:
    """Of the second half of the epochs, at least the last two."""
    return values[-max(2, (len(values) + 1) // 2) :]


def _slope(values: list[float]) -> float:
    return float(np.polyfit(range(len(values)), values, 1)[0]) if len(values) > 1 else math.nan


def _epoch_spread(lab: Study, record: Record, of: Of) -> float:
    values = _dev_curve(record, of)
    return float(np.std(values[max(1, len(values) // 5) :], ddof=1)) if len(values) > 2 else math.nan


def _loss_slope(lab: Study, record: Record, of: Of) -> float:
    return _slope(_late([entry["train_loss"][of["task"]] for entry in _history(record)]))


def _pairs_of(lab: Study, record: Record, of: Of, statistic: Callable[[np.ndarray], float]) -> float:
    """A statistic of the cosines of a pair of tasks, the mean over a task's pairs, or the highest of all."""
    cosines = lab.store.probes(record.run_id)["trace_cosine"].astype(float)  # (U, P)
    found = {n: statistic(c[np.isfinite(c)]) for n, c in zip(record["trace"]["pairs"], cosines.T, strict=True)}
    between = {name: value for name, value in found.items() if len(set(name.split("-"))) == 2}
    if of["between"] == "highest":
        return max(between.values())
    if "-" in of["between"]:
        return next(v for name, v in between.items() if set(name.split("-")) == set(of["between"].split("-")))
    return float(np.mean([value for name, value in between.items() if of["between"] in name.split("-")]))


def _norm_ratio(lab: Study, record: Record, of: Of) -> float:
    norms = lab.store.probes(record.run_id)["trace_norm"].astype(float)
    return float(np.nanmedian(np.nanmax(norms, axis=1) / np.nanmin(norms, axis=1)))


def _loss_factor(lab: Study, record: Record, of: Of) -> float:
    factors = lab.store.probes(record.run_id)["trace_factor"].astype(float)
    moved = dict(zip(record["trace"]["tasks"], factors[-1] / factors[0], strict=True))
    return {"lowest": min(moved.values()), "highest": max(moved.values())}.get(of["factor"]) or moved[of["factor"]]


def _training_time(lab: Study, record: Record, of: Of) -> float:
    seconds = sum(entry["wall_s"] for entry in _history(record))
    written = RunSpec.from_dict(record["written"])
    return seconds / sum(record["counts"]["examples"].values()) * written.total_examples(REPORT_TRAIN)


def _head(masses: np.ndarray, of: Of) -> float:
    layer = layers_of(len(masses))[of["layer"]]
    if layer is None:
        raise KeyError(of["layer"])
    return float(masses[layer, 0] if of["head"] == "first" else masses[layer].mean())


def _attention_share(lab: Study, record: Record, of: Of) -> float:
    return _head(lab.store.probes(record.run_id)[f"{of['target']}_mass"], of)


def _match_preference(lab: Study, record: Record, of: Of) -> float:
    probes = lab.store.probes(record.run_id)
    match, cross = _head(probes["match_mass"], of), _head(probes["cross_mass"], of)
    even = probes["even_match"].item() / (probes["even_cross"] - probes["even_match"]).item()
    return match / (cross - match) / even


def _subset(lab: Study, task: str, of: Of) -> np.ndarray:
    labels = labels_card(lab)[task]
    chosen = LABELS[of["label"]](labels)
    if of.get("subset", "all") != "all":
        chosen &= np.isin(np.arange(len(labels)), words_card(lab)[task][of["subset"]])
    return np.flatnonzero(chosen)


def _subset_error(lab: Study, record: Record, of: Of) -> Measured:
    rows = _subset(lab, of["task"], of)
    wrong = (answers(lab, record, of["task"]) != labels_card(lab)[of["task"]])[rows].astype(float)
    return Measured(wrong.mean() if len(rows) else math.nan, accuracy_error(wrong[None]))


def _squared_error(lab: Study, record: Record, of: Of) -> Measured:
    rows = _subset(lab, "sts", of)
    squared = ((answers(lab, record, "sts") - labels_card(lab)["sts"]) ** 2)[rows]
    return Measured(squared.mean() if len(rows) else math.nan, accuracy_error(squared[None]))


def _drawn(statistic: Callable[..., float], *columns: np.ndarray) -> Measured:
    """A statistic of columns of the same examples, with its standard deviation over draws of them (Efron 1979)."""
    size, draws = len(columns[0]), np.random.default_rng(0)
    if size < 2:
        return Measured(math.nan)
    found = [statistic(*(column[i] for column in columns)) for i in draws.integers(size, size=(DRAWS, size))]
    known = [number for number in found if np.isfinite(number)]
    return Measured(statistic(*columns), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan)


def _overlap_correlation(lab: Study, record: Record, of: Of) -> Measured:
    task, rows = of["pair_task"], _subset(lab, of["pair_task"], of)
    found, labels = answers(lab, record, task), labels_card(lab)[task]
    error = found - labels if task == "sts" else ((found == 1) & (labels == 0)).astype(float)
    return _drawn(_correlation, words_card(lab)[task]["overlap"][rows], error[rows])


def _word_correlation(lab: Study, record: Record, of: Of) -> Measured:
    return _drawn(_correlation, words_card(lab)["sst"]["word_score"], answers(lab, record, "sst"))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def _off_by_one(lab: Study, record: Record, of: Of) -> Measured:
    missed = np.abs(answers(lab, record, "sst") - labels_card(lab)["sst"])
    near = (missed[missed > 0] == 1).astype(float)
    return Measured(near.mean() if len(near) else math.nan, accuracy_error(near[None]))


def _prediction_mean(lab: Study, record: Record, of: Of) -> Measured:
    return _drawn(np.mean, answers(lab, record, of["task"]).astype(float))


def _prediction_spread(lab: Study, record: Record, of: Of) -> Measured:
    columns = answers(lab, record, of["task"]).astype(float), labels_card(lab)[of["task"]].astype(float)
    return _drawn(lambda found, labels: found.std() / labels.std() if labels.std() else math.nan, *columns)


def _negative_share(lab: Study, record: Record, of: Of) -> Measured:
    return _drawn(np.mean, negative_cosines(lab.store, record)[of["pair_task"]].astype(float))


def _vectors(lab: Study, record: Record) -> tuple[np.ndarray, np.ndarray]:
    probes = lab.store.probes(record.run_id)
    return probes["sst_vectors"], probes["sst_vector_labels"]


def _silhouette(lab: Study, record: Record, of: Of) -> Measured:
    vectors, labels = _vectors(lab, record)
    return _drawn(np.mean, silhouette_samples(vectors, labels)[labels == int(of["class"])])


def _centre_distance(lab: Study, record: Record, of: Of) -> Measured:
    chosen = [int(label) for label in of["classes"].split("-")]

    def distance(vectors: np.ndarray, labels: np.ndarray) -> float:
        if not set(chosen) <= set(labels.tolist()):
            return math.nan
        return float(np.linalg.norm(np.subtract(*(vectors[labels == label].mean(0) for label in chosen))))

    return _drawn(distance, *_vectors(lab, record))


def _distances(lab: Study, record: Record, of: Of) -> np.ndarray:
    task, end = PAIRS[of["pairs"]]
    probes = lab.store.probes(record.run_id)
    return probes[f"{task}_distances"][LABELS[end](probes[f"{task}_distance_labels"])]


def _middle_half(lengths: np.ndarray) -> float:
    return float(np.subtract(*np.quantile(lengths, [0.75, 0.25])))


def _distance_auc(lab: Study, record: Record, of: Of) -> Measured:
    probes, (low, high) = lab.store.probes(record.run_id), LABEL_ENDS[of["pair_task"]]
    labels, lengths = (probes[f"{of['pair_task']}_{name}"] for name in ("distance_labels", "distances"))
    ends = (labels >= high) | (labels <= low)

    def area(is_high: np.ndarray, lengths: np.ndarray) -> float:
        return float(roc_auc_score(is_high, -lengths)) if len(set(is_high.tolist())) == 2 else math.nan

    return _drawn(area, labels[ends] >= high, lengths[ends])


QUANTITIES: dict[str, Callable[[Study, Record, Of], Measured | float]] = {
    "score": _score,
    "gap": _gap,
    "lead_over_constant": _lead,
    "epoch_spread": _epoch_spread,
    "score_slope": lambda lab, record, of: _slope(_late(_dev_curve(record, of))),
    "loss_slope": _loss_slope,
    "conflict_rate": lambda lab, record, of: _pairs_of(lab, record, of, lambda c: (c < 0).mean()),
    "mean_cosine": lambda lab, record, of: _pairs_of(lab, record, of, np.mean),
    "removed_share": lambda lab, record, of: _pairs_of(lab, record, of, lambda c: np.maximum(-c, 0).mean()),
    "gradient_norm_ratio": _norm_ratio,
    "loss_factor": _loss_factor,
    "lowest_total_loss": lambda lab, record, of: lowest_total(lab.store, record),
    "training_time": _training_time,
    "parameters": lambda lab, record, of: record["counts"]["parameters"],
    "attention_share": _attention_share,
    "match_preference": _match_preference,
    "subset_error": _subset_error,
    "subset_squared_error": _squared_error,
    "overlap_correlation": _overlap_correlation,
    "word_score_correlation": _word_correlation,
    "off_by_one_share": _off_by_one,
    "prediction_mean": _prediction_mean,
    "prediction_spread": _prediction_spread,
    "negative_cosine_share": _negative_share,
    "silhouette": _silhouette,
    "centre_distance": _centre_distance,
    "distance_median": lambda lab, record, of: _drawn(np.median, _distances(lab, record, of)),
    "distance_spread": lambda lab, record, of: _drawn(_middle_half, _distances(lab, record, of)),
    "distance_auc": _distance_auc,
}
