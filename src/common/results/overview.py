"""All rows of all reports beside each other: the scoreboard, what each method adds, what scores cost, and how much of
a score is the choice of the best epoch on the same dev set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd

from common.declare.effects import Effect
from common.declare.reported.contradictions import Contradiction
from common.results.compare import at_constant, summary
from common.results.intervals import estimate
from common.results.long import CONSTANT_LABEL, MAIN_METRICS, METRICS, Baselines, is_trained
from common.results.scoring import difference_error
from common.runs.session import Results, Study

EFFECTS = ["method", "a", "b", "label", "report", "also", "metric", "estimate", "low", "high", "seeds", "run_id"]
# The rule of the recipe, written before the runs: see DEVIATIONS D86.
ENTERS_ABOVE = 0.008  # the sampling error of the difference of two overalls (declare/reported/claims.py)
EXCLUDED_BY = {"pair encoding": ("cosine head", "mean pooling")}
RECIPE = ["method", "pairs", "mean", "worst high", "chosen pair", "enters"]
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
        here = [f"{e.method} ({e.report}): {e.estimate:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in part.itertuples()]
        said = "; ".join(f"{report}: {text}" for report, text in entry.positions.items())
        line = {"topic": entry.topic, "what they say": said, "what could make both right": " ".join(entry.explanations)}
        lines.append(line | {"decided by": entry.decided_by, "overall here": "; ".join(here)})
    return pd.DataFrame(lines)


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
