"""What is declared, as tables: what a row changes, what a profile changes, what a report claims. No run is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.reported import claims as ledger
from common.declare.reported.claims import Claim, Measure, Term
from common.declare.rows import Row, changes, reports, row
from common.declare.tasks import TASK_NAMES, TASKS
from common.errors import StudyError
from common.results.intervals import Estimate
from common.results.long import TASK_METRICS
from common.results.scoring import PARTS, TASK_OF
from common.runs.session import Study

# Short names for what claims compare, some of which no run here measures.
QUANTITIES = {
    "sst_acc": "SST",
    "para_acc": "Quora",
    "sts_corr": "STS r",
    "cfimdb_acc": "CFIMDB",
    "overall": "overall",
    "para_acc_paraphrases": "Quora paraphrases",
    "para_acc_non_paraphrases": "Quora non-paraphrases",
    "train_time_min": "minutes",
}
UNPRINTED = "not printed"
ABSENT = float("nan")
PrintedValues = dict[tuple[str, str, str], float]
# The columns of BERT++'s Table 1, each read from what is trained.
TICKS = {
    "AdjLayers": lambda spec: any(task.head_layers > 1 or task.projection for task in spec.tasks),
    "AddPretrain": lambda spec: spec.encoder.pretraining is not None,
    "MulFinetune": lambda spec: spec.schedule.kind == "joint",
    "GradSurg": lambda spec: spec.surgery.kind == "pcgrad",
    "CosSim": lambda spec: any(task.pair_method == "cosine" for task in spec.tasks),
    "HyperTune": lambda spec: spec.optimizer.rate.kind != "constant",
    "CycTrain": lambda spec: spec.schedule.stop == "cycle",
}
TICK = "x"


def changes_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per field in which a row differs from the row it is compared with."""
    lines = []
    for of in rows:
        if of.base is None:
            lines.append(
                {"model": of.label, "against": "", "field": "the base of this table", "before": "", "after": ""}
            )
            continue
        base = row(of.base)
        for name, (before, after) in changes(of, base).items():
            known = {"model": of.label, "against": base.label, "field": name}
            lines.append(known | {"before": str(before), "after": str(after)})
    return pd.DataFrame(lines)


def applied_frame(study: Study, of: Row) -> pd.DataFrame:
    """One line per field that the profile changes in a row: as the report has it, and as it runs here."""
    lines = []
    for written in of.specs:
        as_row = replace(of, specs=(written,))
        applied = replace(of, specs=(study.apply(written, written.seed),))
        differing = changes(applied, as_row).items()
        lines += [{"field": name, "report": str(a), "here": str(b)} for name, (a, b) in differing]
    return pd.DataFrame(lines, columns=["field", "report", "here"])


def tick_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Which extension is in which model (BERT++, Table 1), and what else differs between models without a tick."""
    lines = []
    for of in rows:
        spec = of.specs[0]
        line = {"model": of.label} | {name: TICK if is_in(spec) else "" for name, is_in in TICKS.items()}
        line["trained on"] = ", ".join(TASK_NAMES[task.name] for task in spec.trained_tasks)
        line["dropout"] = ", ".join(f"{TASK_NAMES[task.name]} {task.dropout:g}" for task in spec.tasks)
        lines.append(line | {"encoder frozen": str(spec.encoder.frozen), "batch": spec.batch_size})
    return pd.DataFrame(lines)


def batch_frame() -> pd.DataFrame:
    """How cycling multiplies the STS batches of an epoch: printed (section 5), and from set and batch sizes.

    With cycling, STS goes on until the Quora set is through. Section 5 names batch 8, Table 4 gives Model H 16.
    """
    stated = reported.printed("bertpp", "text_sec5", "train")["bertpp_model_h"]
    names = ("sts_batches_per_epoch_original", "sts_batches_per_epoch_cycled", "pct_increase_sts_batches")
    lines = ["batches without cycling", "batches with cycling", "increase in percent"]
    frame = pd.DataFrame({"an epoch of STS": lines, "printed": [round(stated[name]) for name in names]})
    for batch in (8, 16):
        once, cycled = (math.ceil(TASKS[task].report_train / batch) for task in ("sts", "para"))
        frame[f"at batch {batch}"] = [once, cycled, round(100 * (cycled / once - 1))]
    return frame


def claims_table(report: str, ids: Iterable[str] | None = None) -> pd.DataFrame:
    """What a report claims, before any run: one line per claim, with its printed differences and what decides it.

    Args:
        report: its name.
        ids: of the claims to list; None lists all.

    Raises:
        StudyError: no such report, or no claim of that id.
    """
    found = {claim.id: claim for claim in ledger.load(report)}
    if unknown := set(ids or ()) - set(found):
        raise StudyError("E-CLAIM", report, f"no claims {', '.join(sorted(unknown))}.", f"Known: {', '.join(found)}.")
    values = reported.printed_values()
    chosen = [found[name] for name in (found if ids is None else ids)]
    lines = [
        [c.id, c.section, c.statement, _printed_text(c, values), f"Open. {c.open}" if c.open else c.rule]
        for c in chosen
    ]
    return pd.DataFrame(lines, columns=["claim", "section", "statement", "printed difference", "decided by"])


def _printed_text(claim: Claim, values: PrintedValues) -> str:
    """Such as `overall +0.168; STS r +0.350`; more than four differences of one quantity become a range.

    Comparisons with a control are left out, as no report prints it.
    """
    groups: dict[str, list[tuple[float, str]]] = {}
    for term in claim.terms:
        difference, digits = printed_difference(term, values), "g" if term.metric == "train_time_min" else ".3f"
        groups.setdefault(_quantity(term), []).append((difference, f"{round(difference, 3) + 0.0:+{digits}}"))
    for measure in claim.measures:
        number, sign = printed_measure(measure, values), "+" if _is_difference(measure) else ""
        groups.setdefault(_measured(measure), []).append((number, f"{number:{sign}.3f}"))
    texts = []
    for name, found in groups.items():
        numbers = [pair for pair in found if not np.isnan(pair[0])]
        if len(numbers) > 4:
            texts.append(f"{name} {min(numbers)[1]} to {max(numbers)[1]} ({len(numbers)} comparisons)")
        elif numbers:
            texts.append(f"{name} {', '.join(text for _, text in numbers)}")
    return "; ".join(texts) or UNPRINTED


def printed_difference(term: Term, values: PrintedValues) -> float:
    """value(a) - value(b) as printed, in the unit of the metric; NaN where one of them is not printed."""
    a, b = values.get((term.a, term.split, term.metric)), values.get((term.b, term.split_b, term.metric_b))
    return ABSENT if a is None or b is None else a - b


def printed_measure(measure: Measure, values: PrintedValues) -> float:
    """The measure of the printed numbers: scores, gaps and minutes where a report prints them, else NaN."""
    first, *others = (
        _printed_quantity(measure.quantity, of, row_id, values)
        for row_id, of in zip(measure.rows, (measure.of, measure.of | measure.of_b), strict=False)
    )
    if not others:
        return first
    return first / others[0] if measure.by == "ratio" else first - others[0]


def _printed_quantity(quantity: str, of: dict[str, str], row_id: str, values: PrintedValues) -> float:
    keys = {
        "score": [(of.get("split"), of.get("metric"))],
        "gap": [("train", of.get("metric")), ("dev", of.get("metric"))],
        "training_time": [("dev", "train_time_min")],
    }
    found = [values.get((row_id, *key), ABSENT) for key in keys.get(quantity, [])]
    return found[0] - sum(found[1:]) if found else ABSENT


def printed_gains() -> pd.DataFrame:
    """Every printed dev difference that a claim rests on, each once, and whether it exceeds sampling error.

    `error` is what two dev samples of the reports' size would differ by: binomial for an accuracy, Fisher's z for a
    correlation, the two rows as if on examples of their own (no report prints what pairing would need). `exceeds` is
    True where the 95 % interval leaves out 0. Claims that two things are alike rest on no difference of scores.
    """
    values, lines = reported.printed_values(), {}
    for claim in (claim for report in reports() for claim in ledger.load(report)):
        for term in claim.terms:
            sides = (term.a, term.split, term.metric), (term.b, term.split_b, term.metric_b)
            found = printed_difference(term, values)
            error = math.hypot(*(_printed_error(values, *side) for side in sides))
            is_gain = sides[0][1:] == sides[1][1:] and term.op not in ledger.EQUIVALENCES
            if not is_gain or math.isnan(found) or math.isnan(error):
                continue
            low, high = Estimate(found, error, math.inf, 1).interval()
            line = {"report": claim.id.partition("_")[0], "claim": claim.id, "comparison": demand(term)}
            line |= {"printed": found, "error": error, "exceeds": low > 0 or high < 0}
            lines.setdefault(frozenset(sides), line)
    return pd.DataFrame(lines.values())


def gains_counted(gains: pd.DataFrame) -> pd.DataFrame:
    """Of how many printed differences how many exceed what another dev sample would give, by report and in all."""
    table = gains.groupby("report", sort=False)["exceeds"].agg(["count", "sum"])
    table.loc["all"] = table.sum()
    return table.set_axis(["printed differences", "exceed sampling error"], axis=1).reset_index()


def _printed_error(values: PrintedValues, row_id: str, split: str, metric: str) -> float:
    """Standard error of a printed dev score; NaN where it, or a part of an overall, is not printed."""
    if metric == "overall":
        parts = PARTS["overall_normalised" if row(row_id).report in reported.NORMALISED_OVERALL else metric]
        errors = [_printed_error(values, row_id, split, name) for name in TASK_METRICS]
        return math.hypot(*(factor * error for factor, error in zip(parts, errors, strict=True))) / len(parts)
    score = values.get((row_id, split, metric), ABSENT)
    if split != "dev" or metric not in TASK_OF:
        return ABSENT
    n = TASKS[TASK_OF[metric]].report_dev
    return (1 - score**2) / math.sqrt(n - 3) if metric == "sts_corr" else math.sqrt(score * (1 - score) / n)


def _is_difference(measure: Measure) -> bool:
    return len(measure.rows) == 2 and measure.by == "difference"


def _quantity(term: Term) -> str:
    """What a term compares, in words: the metric, the split unless it is dev, and the other metric or split."""
    name, other = (QUANTITIES.get(metric, metric) for metric in (term.metric, term.metric_b))
    name = name if name == other else f"{name} minus {other}"
    if term.split != term.split_b:
        return f"{name} ({term.split} minus {term.split_b})"
    return name if term.split == "dev" else f"{name} ({term.split})"


def demand(term: Term) -> str:
    rows_compared = " - ".join(row(row_id).label for row_id in dict.fromkeys([term.a, term.b]))
    return f"{_quantity(term)}: {rows_compared} {_bound(term.op, term.margin)}"


def measure_demand(measure: Measure) -> str:
    """Such as `gap (overall): Setup 3 - Setup 2 < -0.1`."""
    sign = " / " if measure.by == "ratio" else " - "
    compared = sign.join(row(row_id).label for row_id in dict.fromkeys(measure.rows))
    return f"{_measured(measure)}: {compared} {_bound(measure.op, measure.margin, measure.value)}"


def _measured(measure: Measure) -> str:
    """The quantity in words, with what it is taken of, on both sides where that differs."""
    sides = (measure.of, measure.of | measure.of_b)[: len(measure.rows)]
    parts = dict.fromkeys(", ".join(QUANTITIES.get(part, part) for part in side.values()) for side in sides)
    text = f"{measure.quantity} ({' against '.join(parts)})" if measure.of else measure.quantity
    return text.replace("_", " ")


def _bound(op: str, margin: float, value: float = 0.0) -> str:
    if op == "~":
        return f"within ±{margin:g}" + (f" of {value:g}" if value else "")
    return f"{op} {value - margin if op == '<' else value + margin:g}"
