"""All rows of all reports beside each other: the scoreboard, what each method adds, what scores cost, and how much of
a score is the choice of the best epoch on the same dev set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.declare.effects import Effect
from common.declare.reported.contradictions import Contradiction
from common.declare.tasks import TASKS
from common.results.compare import at_constant, summary
from common.results.facts import labels_card
from common.results.intervals import estimate, weighted_correlations
from common.results.long import CONSTANT_LABEL, MAIN_METRICS, METRICS, Baselines, is_trained
from common.results.scoring import difference_error
from common.results.subsets import answers
from common.runs.record import Record
from common.runs.session import Results, Study
from common.training.evaluate import OVERALL_TASKS

EFFECTS = ["method", "a", "b", "label", "report", "also", "metric", "estimate", "low", "high", "seeds", "run_id"]
# The rule of the recipe, written before the runs: see DEVIATIONS D86.
ENTERS_ABOVE = 0.008  # the sampling error of the difference of two overalls (declare/reported/claims.py)
EXCLUDED_BY = {"pair encoding": ("cosine head", "mean pooling")}
RECIPE = ["method", "pairs", "mean", "worst high", "chosen pair", "enters"]
CUTS = 1000  # of dev into two halves
CHOICE = ["model", "report", "seeds", "epochs", "last epoch", "best epoch", "gain of choosing"]


def scoreboard(results: Results, against: Baselines) -> pd.DataFrame:
    """Every row by the raw mean of its three dev scores, the best first; what needs no training stands among them.

    A row without all three tasks has no overall and stands at the end. `at constant` names its tasks that are no better
    than the best constant answer.
    """
    lines = []
    for result in results.values():
        line = {"model": result.row.label, "report": result.row.report, "seeds": len(result.records)}
        for metric in MAIN_METRICS:
            line |= dict(zip((METRICS[metric], f"{METRICS[metric]} sd"), summary(result, metric), strict=True))
        low = [METRICS[m] for m in MAIN_METRICS if is_trained(result.row, m) and at_constant(result, m, "dev", against)]
        lines.append(line | {"at constant": ", ".join(low)})
    constant = {METRICS[metric]: against.constants.get(metric, np.nan) for metric in MAIN_METRICS}
    frame = pd.DataFrame([*lines, {"model": CONSTANT_LABEL, "report": "", "at constant": ""} | constant])
    frame["seeds"] = frame["seeds"].astype("Int64")
    order = pd.to_numeric(frame[METRICS["overall"]], errors="coerce").sort_values(ascending=False, kind="stable")
    return frame.loc[order.index].reset_index(drop=True)


def effects_frame(lab: Study, results: Results, effects: Iterable[Effect]) -> pd.DataFrame:
    """What a method adds: the paired difference of two rows by metric, with its interval of 95 %.

    With one seed the interval has the dev examples' part alone.
    """
    lines = []
    for effect in effects:
        sides = [{r.seed: r for r in results[name].records} for name in (effect.a, effect.b) if name in results]
        pairs = [(sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]] if len(sides) == 2 else []
        for metric in MAIN_METRICS:
            known = [pair for pair in pairs if all(record.value(metric) is not None for record in pair)]
            if not known:
                continue
            differences = [a.value(metric) - b.value(metric) for a, b in known]
            found = estimate(differences, difference_error(lab, known, metric))
            of = results[effect.a].row
            line = asdict(effect) | {"label": of.label, "report": of.report, "metric": metric}
            line |= {"estimate": found.value, "seeds": found.seeds}
            line |= dict(zip(("low", "high"), found.interval(), strict=True))
            lines.append(line | {"run_id": "+".join(part for pair in known for r in pair for part in r.parts)})
    return pd.DataFrame(lines, columns=EFFECTS)


def settled(contradictions: Iterable[Contradiction], effects: pd.DataFrame) -> pd.DataFrame:
    """What reports disagree on, what could make both right, and the effects between those of our rows that speak to it.

    Args:
        contradictions: as declared.
        effects: of `effects_frame`.
    """
    effects, lines = effects[effects["metric"] == "overall"], []
    for entry in contradictions:
        part = effects[effects["a"].isin(entry.rows) & effects["b"].isin(entry.rows)]
        here = [
            f"{e.method} ({e.report}): {e.estimate:+.3f} [{e.low:+.3f}, {e.high:+.3f}], {_decided(e)}"
            for e in part.itertuples()
        ]
        said = "; ".join(f"{report}: {text}" for report, text in entry.positions.items())
        line = {"topic": entry.topic, "what they say": said, "what could make both right": " ".join(entry.explanations)}
        lines.append(line | {"decided by": entry.decided_by, "overall here": "; ".join(here)})
    return pd.DataFrame(lines)


def _decided(effect: NamedTuple) -> str:
    """The verdict on an effect in words; one seed decides nothing."""
    if effect.seeds == 1:
        return "one seed"
    return "a gain" if effect.low > 0 else "a loss" if effect.high < 0 else "inconclusive"


def recipe(effects: pd.DataFrame) -> pd.DataFrame:
    """Which methods the recipe combines, by the rule of D86: from dev alone, the most helpful first.

    Args:
        effects: of `effects_frame`; pairs that differ in more than the method, or have one seed, do not count.

    Returns:
        One line per method. `chosen pair` is its row that gained most, whose variant of the method is taken.
    """
    counted = effects[(effects["metric"] == "overall") & (effects["also"] == "") & (effects["seeds"] > 1)]
    lines = []
    for method, part in counted.groupby("method", sort=False):
        best, mean, worst = part.loc[part["estimate"].idxmax(), "a"], part["estimate"].mean(), part["high"].min()
        lines.append([method, len(part), mean, worst, best, bool(mean > ENTERS_ABOVE and worst >= 0)])
    frame = pd.DataFrame(lines, columns=RECIPE).sort_values("mean", ascending=False, kind="stable", ignore_index=True)
    for first, others in EXCLUDED_BY.items():
        rivals = frame[frame["enters"] & frame["method"].isin([first, *others])]
        winner = rivals["method"].iloc[0] if len(rivals) else ""
        beaten = others if winner == first else (first,) if winner else ()
        frame.loc[frame["method"].isin(beaten), "enters"] = False
    return frame


def cost_frame(results: Results) -> pd.DataFrame:
    """Seconds of training of every run beside its overall score, for rows that train all three tasks."""
    lines = []
    for row_id, result in results.items():
        if not is_trained(result.row, "overall"):
            continue
        for record in result.records:
            score, seconds = record.value("overall"), sum(epoch["wall_s"] for epoch in record["history"])
            if score is not None and seconds:
                known = {"row": row_id, "label": result.row.label, "report": result.row.report, "seed": record.seed}
                lines.append(known | {"seconds": seconds, "overall": score, "run_id": record.run_id})
    frame = pd.DataFrame(lines, columns=["row", "label", "report", "seed", "seconds", "overall", "run_id"])
    means = frame.groupby("row")[["seconds", "overall"]].mean().sort_values("seconds")
    best = means["overall"].cummax()
    frame["on the front"] = frame["row"].isin(means.index[(means["overall"] >= best)])
    return frame


def choice_of_epoch(results: Results) -> pd.DataFrame:
    """The overall of the last epoch beside that of the best one on the same dev set, means over seeds: what choosing
    adds to a score though nothing was learnt by it. The largest first."""
    lines = []
    for result in results.values():
        curves = [[epoch["dev"].get("overall") for epoch in record["history"]] for record in result.records]
        curves = [curve for curve in curves if len(curve) > 1 and all(score is not None for score in curve)]
        if curves:
            last, best = np.mean([c[-1] for c in curves]), np.mean([max(c) for c in curves])
            known = {"model": result.row.label, "report": result.row.report, "seeds": len(curves)}
            known |= {"epochs": max(map(len, curves)), "last epoch": last, "best epoch": best}
            lines.append(known | {"gain of choosing": best - last})
    frame = pd.DataFrame(lines, columns=CHOICE)
    return frame.sort_values("gain of choosing", ascending=False, kind="stable", ignore_index=True)


def choice_of_setting(lab: Study, results: Results) -> pd.DataFrame:
    """What choosing the best of several rows by their overall on dev adds that is not there on other examples.

    Dev is cut into random halves CUTS times. `lead where chosen` is that of the best row of one half over the mean of
    all rows, `lead elsewhere` that of the same row on the other half, `optimism` their difference, its interval the
    middle 95 % of the cuts. One line a seed that all rows have.
    """
    sides, lines = [{record.seed: record for record in result.runs} for result in results.values()], []
    for seed in (seed for seed in sides[0] if all(seed in side for side in sides)):
        halves = _on_halves(lab, [side[seed] for side in sides], np.random.default_rng(seed))
        first, second = (scores - scores.mean(1, keepdims=True) for scores in halves)  # (D, rows)
        chosen = (np.arange(CUTS), first.argmax(1))
        low, high = np.quantile(optimism := first[chosen] - second[chosen], [0.025, 0.975])
        line = {"seed": seed, "settings": len(sides), "lead where chosen": first[chosen].mean()}
        line |= {"lead elsewhere": second[chosen].mean(), "optimism": optimism.mean(), "low": low, "high": high}
        lines.append(line)
    return pd.DataFrame(lines)


def _on_halves(lab: Study, records: list[Record], draws: np.random.Generator) -> list[np.ndarray]:
    """Overalls of the records (CUTS, R) on either half of each cut; a correlation that is undefined counts as 0."""
    totals = [np.zeros((CUTS, len(records))) for _ in range(2)]
    for task in OVERALL_TASKS:
        labels, answered = labels_card(lab)[task], [answers(lab, record, task) for record in records]
        order = draws.random((CUTS, len(labels))).argsort(1)
        is_first = order < len(labels) // 2
        for total, half in zip(totals, (is_first, ~is_first), strict=True):
            for column, found in enumerate(answered):
                total[:, column] += _score(half.astype(float), found, labels, TASKS[task].kind) / len(OVERALL_TASKS)
    return totals


def _score(counts: np.ndarray, found: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """(D,) accuracy or correlation of the examples that each line of counts (D, N) takes."""
    if kind == "classes":
        return counts @ (found == labels) / counts.sum(1)
    return np.nan_to_num(weighted_correlations(counts, found, labels))
