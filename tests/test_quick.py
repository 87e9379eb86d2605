"""What a newcomer's first run promises to show, over three seeds, through the profile that it goes through.

By default on rows that stand for the others; `--runslow` looks at every row of every report.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from common.data.sources import load
from common.data.split import Split
from common.declare.profile import PROFILES
from common.declare.rows import reports, row, rows
from common.declare.spec import RunSpec
from common.model.weights import resolve_encoder
from common.training.evaluate import METRIC_NAMES, sample
from common.training.loop import Materials, run

QUICK, SEEDS = PROFILES["quick"], (0, 1, 2)
STAND_INS = (
    "swissbert_pair",
    "swissbert_no_extension",
    "gu_sts_cos_mean",
    "siar_baseline_sst",
    "siar_sweep_sst_lam50",
    "bertpp_baseline",
    "bertpp_model_a",
)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """(row id, seed) -> its record, or those of its models, trained once."""
    folder = resolve_encoder("tiny-bert")
    materials = Materials(load("embedded"), folder, cache=tmp_path_factory.mktemp("encoders"))

    @cache
    def records(name: str, seed: int) -> tuple[dict, ...]:
        specs = [QUICK.apply(replace(spec, seed=seed)) for spec in row(name).specs]
        return tuple(run(spec, materials, threads=1).record | {"trained": _trained(spec)} for spec in specs)

    return records


def _trained(spec: RunSpec) -> list[str]:
    return [task.name for task in spec.trained_tasks] if spec.epochs else []


def constants() -> dict[str, float]:
    corpus = load("embedded")
    labels = {task: splits["dev"].labels for task, splits in corpus.items()}
    return {t: 0.0 if t == "sts" else np.bincount(found).max() / len(found) for t, found in labels.items()}


def cells(records: tuple[dict, ...]) -> list[tuple[str, float]]:
    """(task, dev metric) of every task that a model trained."""
    return [(task, r["metrics"]["dev"][METRIC_NAMES[task]] or 0.0) for r in records for task in r["trained"]]


def check_cells(found: list[tuple[str, float]]) -> None:
    lines = constants()
    above = [value >= lines[task] + 0.05 for task, value in found]
    assert np.mean(above) >= 0.9, f"{len(above) - sum(above)} of {len(above)} cells are no better than one answer"
    assert max(value for _, value in found) < 0.98


def test_most_cells_lie_above_the_constant_answer_and_none_is_perfect(record):
    names = [name for name in STAND_INS if "lam50" not in name]
    check_cells([cell for name in names for seed in SEEDS for cell in cells(record(name, seed))])


@pytest.mark.slow
def test_in_all_rows_nine_of_ten_cells_lie_above_the_constant_answer(record):
    names = [each.id for report in reports() for each in rows(report) if each.specs]
    check_cells([cell for name in names for seed in SEEDS for cell in cells(record(name, seed))])


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_read_together_beat_pairs_read_apart_on_similarity(seed, record):
    together, apart = (record(f"swissbert_{name}", seed)[0]["metrics"]["dev"] for name in ("pair", "no_extension"))
    assert together["sts_corr"] >= apart["sts_corr"] + 0.2


def test_the_steps_of_bertpp_are_not_flat(record):
    first, second = (
        np.mean([record(name, s)[0]["metrics"]["dev"]["overall"] for s in SEEDS])
        for name in ("bertpp_baseline", "bertpp_model_a")
    )
    assert abs(second - first) >= 0.05


def test_the_sweep_of_smart_is_not_flat(record):
    without, strong = (
        np.mean([record(name, s)[0]["metrics"]["dev"]["sst_acc"] for s in SEEDS])
        for name in ("siar_baseline_sst", "siar_sweep_sst_lam50")
    )
    assert abs(without - strong) >= 0.05


def test_a_model_that_overfits_shows_it(record):
    """swissBERT without its extensions learns by heart what it cannot compute: pairs that are read apart."""
    last = [record("swissbert_no_extension", seed)[0]["history"][-1] for seed in SEEDS]
    assert np.mean([entry["train"]["sts_corr"] - entry["dev"]["sts_corr"] for entry in last]) >= 0.15


def bag_of_words(task: str) -> float:
    """Dev metric of a linear model on the word counts of the examples that a run has; pairs as [|u - v|, u * v]."""
    train, dev = (load("embedded")[task][name] for name in ("train", "dev"))
    size = QUICK.apply(row("swissbert_pair").specs[0]).set_sizes({task: len(train) for task in METRIC_NAMES})[task]
    train = train.take(sample(len(train), size, task))
    counter = CountVectorizer(token_pattern=r"\S+").fit([text for column in train.texts for text in column])

    def features(split: Split) -> sparse.csr_matrix:
        columns = [counter.transform(column) for column in split.texts]
        if len(columns) == 1:
            return columns[0]
        return sparse.hstack([abs(columns[0] - columns[1]), columns[0].multiply(columns[1])]).tocsr()

    if task != "sts":
        return LogisticRegression(max_iter=2000).fit(features(train), train.labels).score(features(dev), dev.labels)
    fits = (Ridge(strength).fit(features(train), train.labels) for strength in (0.1, 1, 10, 100))
    return max(np.corrcoef(fit.predict(features(dev)), dev.labels)[0, 1] for fit in fits)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pair_run_is_not_below_a_bag_of_words_on_similarity(seed, record):
    assert record("swissbert_pair", seed)[0]["metrics"]["dev"]["sts_corr"] >= bag_of_words("sts")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task", ("sst", "para"))
def test_the_pair_run_beats_a_bag_of_words_and_the_constant_answer(task, seed, record):
    line = max(bag_of_words(task), constants()[task])
    assert record("swissbert_pair", seed)[0]["metrics"]["dev"][METRIC_NAMES[task]] >= line + 0.05
