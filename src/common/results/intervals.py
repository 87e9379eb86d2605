"""Verdicts: what an interval says of a demand, how far dev examples decide a score, and how often all of it is wrong.

A difference has two kinds of noise: between seeds, and between dev examples, on which all seeds are scored. Their
variances add up; degrees of freedom by Welch (1947) and Satterthwaite (1946), intervals by Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

REPRODUCED, CONTRADICTED, INCONCLUSIVE = "reproduced", "contradicted", "inconclusive"
LEVEL = 0.95  # of intervals
ALPHA = 1 - LEVEL
EQUIVALENCES = ("<=", "~")  # each of two one-sided tests at ALPHA (Schuirmann 1987): a 90 % interval
FALSE_SHARE = 0.05  # of all verdicts, at most (Benjamini & Hochberg 1995)
DRAWS, CHUNK = 1000, 100


@dataclass(frozen=True)
class Estimate:
    """The mean of the seeds' differences, its standard error and degrees of freedom; inf where examples alone err."""

    value: float
    error: float
    freedom: float
    seeds: int

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Its two ends; without noise both are the value."""
        half = self.error * stats.t.ppf((1 + level) / 2, self.freedom) if self.error else 0.0
        return self.value - half, self.value + half

    def above(self, bound: float) -> float:
        """p of the data if the truth were `bound` or less: small where it lies above."""
        if not self.error:
            return 0.0 if self.value > bound else 1.0
        return float(stats.t.sf((self.value - bound) / self.error, self.freedom))

    def below(self, bound: float) -> float:
        """p of the data if the truth were `bound` or more."""
        return Estimate(-self.value, self.error, self.freedom, self.seeds).above(-bound)


@dataclass(frozen=True)
class Verdict:
    """reproduced: the whole interval meets the demand; contradicted: all of it lies against it; else inconclusive.

    met and against are the p-values of the two, each to be held against ALPHA: two-sided, but for met of an
    equivalence. With one seed neither decides, and `kind` stays inconclusive. clear_by says how far the whole interval
    lies on one side of the demand's bound; below 0 where it holds the bound.
    """

    kind: str
    estimate: float
    low: float
    high: float
    n: int
    met: float
    against: float
    clear_by: float = math.nan


def estimate(differences: Sequence[float], example_error: float) -> Estimate:
    """The two parts of the standard error, added in squares.

    Args:
        differences: of each seed, paired.
        example_error: standard error of their mean that dev examples alone would give, 0 where there is none.
    """
    seeds = len(differences)
    between = float(np.var(differences, ddof=1)) / seeds if seeds > 1 else 0.0
    whole = between + example_error**2
    freedom = (seeds - 1) * (whole / between) ** 2 if between else math.inf
    return Estimate(float(np.mean(differences)), math.sqrt(whole), freedom, seeds)


def verdict(
    differences_by_seed: Sequence[float], example_standard_error: float, op: str, margin: float, value: float = 0.0
) -> Verdict:
    """What seeds and examples say of one demand (operators as in `declare/reported/claims.py`).

    Args:
        differences_by_seed: paired.
        example_standard_error: of their mean, over dev examples.
        op: > and >= demand at least `margin` above `value`, < at most `margin` below, <= no more than `margin` above,
            ~ no further than `margin` from it.
        margin: at least 0.
        value: what the difference is compared with.
    """
    found = estimate(differences_by_seed, example_standard_error)
    met, against = _tests(found, op, margin, value)
    is_equivalence = op in EQUIVALENCES
    met, against = min(1.0, met if is_equivalence else 2 * met), min(1.0, 2 * against)
    kind = REPRODUCED if met <= ALPHA else CONTRADICTED if against <= ALPHA else INCONCLUSIVE
    kind = kind if found.seeds > 1 else INCONCLUSIVE
    level = 1 - 2 * ALPHA if is_equivalence and kind != CONTRADICTED else LEVEL
    ends = found.interval(level)
    return Verdict(kind, found.value, *ends, found.seeds, met, against, _clear_by(*ends, op, margin, value))


def _clear_by(low: float, high: float, op: str, margin: float, value: float) -> float:
    top = value - margin if op == "<" else value + margin
    bottom = value - margin if op == "~" else -math.inf
    return max(low - top, bottom - high, min(low - bottom, top - high))


def _tests(found: Estimate, op: str, margin: float, value: float) -> tuple[float, float]:
    low, high = value - margin, value + margin
    if op in (">", ">="):
        return found.above(high), found.below(high)
    if op == "<":
        return found.below(low), found.above(low)
    if op == "<=":
        return found.below(high), found.above(high)
    return max(found.above(low), found.below(high)), min(found.above(high), found.below(low))


def joined(verdicts: Sequence[Verdict], missing: int = 0) -> tuple[str, float]:
    """The verdict of a claim of several terms, and its p-value, to be held against ALPHA.

    Reproduced when all terms are (the largest p decides; Berger 1982), contradicted when one is after Holm's correction
    over the terms, whose first step is the smallest p times their number (Holm 1979).

    Args:
        verdicts: at least one.
        missing: terms beside them that nothing is known of; they leave a claim open, unless another term is against it.
    """
    against = min(1.0, (len(verdicts) + missing) * min(v.against for v in verdicts))
    met = 1.0 if missing else max(v.met for v in verdicts)
    kind = REPRODUCED if met <= ALPHA else CONTRADICTED if against <= ALPHA else INCONCLUSIVE
    return (kind if all(v.n > 1 for v in verdicts) else INCONCLUSIVE), min(met, against)


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """The share of false verdicts among all with a p at most as large (Benjamini & Hochberg 1995)."""
    return list(stats.false_discovery_control(p_values)) if len(p_values) else []


def is_printed_compatible(printed: float, differences: Sequence[float], example_error: float) -> bool:
    """Whether a report's difference, which is one run on other examples of its own noise, could be one of ours.

    Both parts of the variance count twice: for its run and for our mean (a prediction interval for one run).

    Args:
        printed: the report's difference.
        differences: of at least two seeds; one shows nothing of how far runs lie apart.
        example_error: standard error of their mean that dev examples alone would give.
    """
    seeds = len(differences)
    between = float(np.var(differences, ddof=1)) * (1 + 1 / seeds)
    whole = between + 2 * example_error**2
    freedom = (seeds - 1) * (whole / between) ** 2 if between else math.inf
    low, high = Estimate(float(np.mean(differences)), math.sqrt(whole), freedom, seeds).interval()
    return low <= printed <= high


def accuracy_error(correct: np.ndarray) -> float:
    """Standard error over examples of the mean of 0/1 answers or of their differences, (S, N) seeds by examples.

    The mean over seeds of each example is one number; examples are independent, seeds are not.
    """
    means = correct.mean(0)
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else 0.0


def bootstrap_error(statistic: Callable[[np.ndarray], np.ndarray], size: int, seed: int = 0) -> float:
    """Standard deviation of a statistic over 1,000 draws of the dev examples with replacement.

    Args:
        statistic: (D, N) how often each example was drawn -> (D,) values, nan where a draw has none.
        size: N, the number of examples.
        seed: of the draws.

    Returns:
        nan for a statistic that is not there in every tenth draw, such as Pearson's r of a constant.
    """
    draws = np.random.default_rng(seed)
    counts = (draws.multinomial(size, np.full(size, 1 / size), CHUNK) for _ in range(DRAWS // CHUNK))
    values = np.concatenate([statistic(drawn) for drawn in counts])
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) >= DRAWS / 10 else math.nan


def weighted_correlations(counts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(D,) Pearson's r of two columns (N,) for each line of how often each example counts (D, N)."""
    first, second = first - first.mean(), second - second.mean()
    sums = {name: counts @ column / counts.sum(1) for name, column in (
        ("x", first), ("y", second), ("xy", first * second), ("xx", first**2), ("yy", second**2))}  # fmt: skip
    spread = (sums["xx"] - sums["x"] ** 2) * (sums["yy"] - sums["y"] ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums["xy"] - sums["x"] * sums["y"]) / np.sqrt(spread)
