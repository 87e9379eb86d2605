"""Tables about runs: reported against reproduced, what a row changes, claims, example predictions, histories.

Numbers stay unrounded here; rounding belongs to `report/tables.py`. A cell that cannot hold a number says so in words
("failed", "undefined"), and the reason stands in the notes of its line, so a hole is never mistaken for a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from common.data.tasks import TASKS
from common.errors import StudyError
from common.study import reported
from common.study.baselines import CONSTANT_LABEL, CONSTANT_ROW, Baselines, is_zero_shot
from common.study.reported import claims as ledger
from common.study.reported import examples
from common.study.reported.claims import Claim, Measure, Term
from common.study.rows import Row, changes, row
from common.study.session import Results, RowResult, Study
from common.training.evaluate import OVERALL_TASKS, OVERALLS

TASK_NAMES = {"sst": "SST", "para": "Quora", "sts": "STS", "cfimdb": "CFIMDB"}
METRICS = {
    "sst_acc": "SST accuracy",
    "para_acc": "Quora accuracy",
    "sts_corr": "STS Pearson r",
    "cfimdb_acc": "CFIMDB accuracy",
    "para_acc_best_threshold": "Quora accuracy, best threshold",
    "para_best_threshold": "Best threshold",
    "overall": "Overall, raw",
    "overall_normalised": "Overall, normalised",
}
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
MAIN_METRICS = ("sst_acc", "para_acc", "sts_corr", "overall")
UNDECIDED = "undecided"
GAP_NAMES = {"reported": "reported gap", "here": "gap"}
FAILED, UNDEFINED = "failed", "undefined"
NOT_RUN = "not run here"
UNPRINTED, ILLEGIBLE, UNPREDICTED = "not printed", "illegible", "not predicted"
ABSENT = float("nan")
PrintedValues = dict[tuple[str, str, str], float]
AT_CONSTANT = "at constant"
REPORT, HERE = "report", "here"


def method(of: Row) -> str:
    """The family of a row's (first) model, which decides its colour in every figure."""
    if not of.specs:
        return "random answers"
    spec = of.specs[0]
    pairs = [task for task in spec.tasks if task.pair_method != "single"]
    if spec.epochs == 0:
        return "zero-shot cosine" if is_zero_shot(of) else "untrained"
    if spec.encoder.frozen:
        return "frozen encoder"
    if any(task.shared_layer for task in pairs):
        return "shared layer"
    return {"separate": "separate encoding", "pair": "pair encoding", "cosine": "cosine"}.get(
        pairs[0].pair_method if pairs else "single", "single sentences"
    )


def names_of(row_id: str, result: RowResult) -> dict:
    """What says in every line of a frame which row it is about."""
    return {"row": row_id, "label": result.row.label, "method": method(result.row)}


def runs_of(results: Results) -> Iterator[tuple[RowResult, dict, dict]]:
    """Every run of these rows: its row's result, its record, and what names row, run and seed in a line of a frame."""
    for row_id, result in results.items():
        for record in result.runs:
            yield (
                result,
                record,
                names_of(row_id, result) | {"run_id": record["run_id"], "seed": record["spec"]["seed"]},
            )


def value(record: dict, metric: str, split: str = "dev") -> float | None:
    """One metric of a record; None where it is undefined, or the run or the split does not have it."""
    return record["metrics"].get(split, {}).get(metric)


def mean(results: Results, row_id: str, metric: str, split: str = "dev") -> float | str:
    """The mean of a metric over the seeds of a row, or the word that says why there is none."""
    return _summary(results[row_id], metric, split)[0]


def main_metrics(results: Results) -> tuple[str, ...]:
    """The three tasks and their raw mean; where a row's report prints the normalised overall, that formula first."""
    if any(result.row.report in reported.NORMALISED_OVERALL for result in results.values()):
        return (*MAIN_METRICS[:-1], "overall_normalised", "overall")
    return MAIN_METRICS


def comparison(
    results: Results, against: Baselines, metrics: tuple[str, ...] | None = None, split: str | None = None
) -> pd.DataFrame:
    """One line per row: each metric as reported, here (mean and standard deviation over seeds) and their difference.

    Args:
        results: row id -> RowResult, as `Study.run` returns it.
        against: its constant answer and zero-shot rows stand below rows on dev, as lines of their own.
        metrics: metric names; `overall` is the raw mean, `overall_normalised` maps r to [0, 1] first. None takes
            `main_metrics`.
        split: of our numbers; None takes the one that the row's table prints.

    Returns:
        Columns (group, quantity), index row id. `difference` is here minus reported. `sd` is empty for one seed.
        `at constant` is True where ours is no better than the best constant answer.
    """
    metrics = main_metrics(results) if metrics is None else metrics
    lines = {
        name: _comparison_line(result, metrics, split or result.row.split, against) for name, result in results.items()
    }
    if "dev" in {split or result.row.split for result in results.values()}:
        lines[CONSTANT_ROW] = _constant_line(against, metrics)
        apart = {name: result for name, result in against.zero_shot.items() if name not in results}
        lines |= {name: _comparison_line(result, metrics, "dev", against) for name, result in apart.items()}
    frame = pd.DataFrame(list(lines.values()), index=pd.Index(list(lines), name="row"))
    frame.columns = pd.MultiIndex.from_tuples(list(frame.columns))
    return frame


def _comparison_line(result: RowResult, metrics: tuple[str, ...], split: str, against: Baselines) -> dict:
    line: dict = {("", "model"): result.row.label}
    for metric in metrics:
        reported = result.row.reported.get(metric, ABSENT)
        here, sd = _summary(result, metric, split)
        difference = here - reported if isinstance(here, float) else ABSENT
        quantities = {"reported": reported, "here": here, "sd": sd}
        quantities |= {AT_CONSTANT: at_constant(result, metric, split, against), "difference": difference}
        line |= {(METRICS[metric], name): quantity for name, quantity in quantities.items()}
    shares = [record["share"] for record in result.records]
    line["runs", "seeds"] = _seeds(result)
    line["runs", "share of training"] = float(np.mean(shares)) if shares else ABSENT
    line["runs", "notes"] = "; ".join(_notes(result, metrics, split))
    return line


def at_constant(result: RowResult, metric: str, split: str, against: Baselines) -> bool:
    """Whether the mean over seeds of a dev metric is no better than the best constant answer; undefined is not."""
    here = _summary(result, metric, split)[0]
    if split != "dev" or here == FAILED or (isinstance(here, float) and np.isnan(here)):
        return False
    return against.is_at_constant(metric, None if here == UNDEFINED else here)


def _constant_line(against: Baselines, metrics: tuple[str, ...]) -> dict:
    line: dict = {("", "model"): CONSTANT_LABEL}
    for metric in metrics:
        line[METRICS[metric], "here"] = against.constants.get(metric, ABSENT)
        line[METRICS[metric], AT_CONSTANT] = False
    has_r = bool({"sts_corr", *OVERALLS} & set(metrics))
    line["runs", "notes"] = "a constant has no correlation: 0 stands for it" if has_r else ""
    return line


def _summary(result: RowResult, metric: str, split: str) -> tuple[float | str, float]:
    """Mean and standard deviation over the seeds that have the metric."""
    if not result.records:
        return FAILED, ABSENT
    if not any(_belongs(record, metric, split) for record in result.records):
        return ABSENT, ABSENT
    found = [value(record, metric, split) for record in result.records]
    found = [number for number in found if number is not None]
    if not found:
        return UNDEFINED, ABSENT
    return float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else ABSENT


def _belongs(record: dict, metric: str, split: str) -> bool:
    """Whether the run has what the metric is made of; an overall needs all three tasks."""
    tasks = {task["name"] for task in record["spec"]["tasks"]}
    is_whole = not metric.startswith("overall") or tasks >= set(OVERALL_TASKS)
    return is_whole and metric in record["metrics"].get(split, {})


def _seeds(result: RowResult) -> str:
    done, failed = len(result.records), len(result.failures)
    if failed:
        return f"failed, {failed} of {done + failed} seeds"
    return "one seed" if done == 1 else f"{done} seeds"


def _notes(result: RowResult, metrics: tuple[str, ...], split: str) -> list[str]:
    notes = []
    if any(record["under_trained"] for record in result.records):
        notes.append("under-trained")
    if split not in {name for record in result.records for name in record["metrics"]} and result.records:
        notes.append(f"printed on {split}, which has no labels here")
    if result.coincides_with:
        notes.append(f"coincides with {result.coincides_with}")
    for metric in metrics:
        present = [record for record in result.records if _belongs(record, metric, split)]
        reasons = [record["undefined"][split][metric] for record in present if value(record, metric, split) is None]
        if reasons:
            notes.append(f"{METRICS[metric]} undefined in {len(reasons)} of {len(result.records)} runs: {reasons[0]}")
    return notes + [f"seed {failure.seed} failed, see the log of run {failure.run_id}" for failure in result.failures]


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


def run_ids(results: Results) -> list[str]:
    """Ids of all runs behind these rows."""
    records = [record for result in results.values() for record in result.records]
    return [run_id for record in records for run_id in record.get("parts", [record["run_id"]])]


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
        difference, digits = _printed_difference(term, values), "g" if term.metric == "train_time_min" else ".3f"
        groups.setdefault(_quantity(term), []).append((difference, f"{round(difference, 3) + 0.0:+{digits}}"))
    for measure in claim.measures:
        number, sign = _printed_measure(measure, values), "+" if _is_difference(measure) else ""
        groups.setdefault(_measured(measure), []).append((number, f"{number:{sign}.3f}"))
    texts = []
    for name, found in groups.items():
        numbers = [pair for pair in found if not np.isnan(pair[0])]
        if len(numbers) > 4:
            texts.append(f"{name} {min(numbers)[1]} to {max(numbers)[1]} ({len(numbers)} comparisons)")
        elif numbers:
            texts.append(f"{name} {', '.join(text for _, text in numbers)}")
    return "; ".join(texts) or UNPRINTED


def _printed_difference(term: Term, values: PrintedValues) -> float:
    """value(a) - value(b) as printed, in the unit of the metric; NaN where one of them is not printed."""
    a, b = values.get((term.a, term.split, term.metric)), values.get((term.b, term.split_b, term.metric_b))
    return ABSENT if a is None or b is None else a - b


def _printed_measure(measure: Measure, values: PrintedValues) -> float:
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


def _is_difference(measure: Measure) -> bool:
    return len(measure.rows) == 2 and measure.by == "difference"


def _quantity(term: Term) -> str:
    """What a term compares, in words: the metric, the split unless it is dev, and the other metric or split."""
    name, other = (QUANTITIES.get(metric, metric) for metric in (term.metric, term.metric_b))
    name = name if name == other else f"{name} minus {other}"
    if term.split != term.split_b:
        return f"{name} ({term.split} minus {term.split_b})"
    return name if term.split == "dev" else f"{name} ({term.split})"


def claims_frame(claims: str | Iterable[Claim], results: Results) -> pd.DataFrame:
    """One line per comparison of a report's claims (or of the given ones): its demand, both differences, its verdict.

    A row without results, or one that no run here can score, leaves our difference empty; so does a measure, which has
    its demand alone. Our overall is made by the formula of the report that prints the rows. Verdicts need intervals
    over seeds and examples; until those are computed, every claim is undecided.
    """
    values, lines = reported.printed_values(), []
    for claim in ledger.load(claims) if isinstance(claims, str) else claims:
        common = {"claim": claim.id, "verdict": UNDECIDED}
        for term in claim.terms:
            known = {"comparison": _demand(term), "printed difference": _printed_difference(term, values)}
            lines.append(common | known | _ours(term, results))
        measured = [(_measure_demand(measure), _printed_measure(measure, values)) for measure in claim.measures]
        for text, number in [*measured, *([(claim.open, ABSENT)] if claim.open else [])]:
            known = {"comparison": text, "printed difference": number}
            lines.append(common | known | {"our difference": ABSENT, "seeds": ""})
    columns = ["claim", "comparison", "printed difference", "our difference", "seeds", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _demand(term: Term) -> str:
    rows_compared = " - ".join(row(row_id).label for row_id in dict.fromkeys([term.a, term.b]))
    return f"{_quantity(term)}: {rows_compared} {_bound(term.op, term.margin)}"


def _measure_demand(measure: Measure) -> str:
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


def _ours(term: Term, results: Results) -> dict:
    if not {term.a, term.b} <= set(results):
        return {"our difference": ABSENT, "seeds": NOT_RUN}
    pairs = _paired(term, results)
    seeds = {0: "none", 1: "one seed"}.get(len(pairs), f"{len(pairs)} seeds")
    return {"our difference": float(np.mean(pairs)) if pairs else ABSENT, "seeds": seeds}


def _paired(term: Term, results: Results) -> list[float]:
    """Differences a - b over the seeds that both rows have."""
    first = _by_seed(results[term.a], term.metric, term.split)
    second = _by_seed(results[term.b], term.metric_b, term.split_b)
    shared = [seed for seed in first if first[seed] is not None and second.get(seed) is not None]
    return [first[seed] - second[seed] for seed in shared]


def _by_seed(result: RowResult, metric: str, split: str) -> dict[int, float | None]:
    is_normalised = metric == "overall" and result.row.report in reported.NORMALISED_OVERALL
    name = "overall_normalised" if is_normalised else metric
    return {record["spec"]["seed"]: value(record, name, split) for record in result.records}


def examples_frame(results: RowResult | Mapping[str, RowResult], report: str | None = None) -> pd.DataFrame:
    """The sentences a report prints: true label, the report's prediction of each model, and ours, one column a seed.

    Args:
        results: one model, or several side by side, each under the name that its columns carry.
        report: whose sentences, labels and predictions (a record holds only what was predicted here); None takes the
            report that the first model is a row of.

    Returns:
        One line per sentence. A cell without a number says why: not printed, illegible (a damaged scan), or not
        predicted (the model was not trained on the task, or the sentence was not yet among the examples).
    """
    named = results if isinstance(results, Mapping) else {"": results}
    lines = []
    for example in examples(report or next(iter(named.values())).row.report):
        task, texts = example["task"], example["texts"]
        line = {"task": TASK_NAMES[task], "text": " / ".join(texts), "label": _shown(task, example["label"], UNPRINTED)}
        for model, number in example["reported"].items():
            line[f"reported {model}".rstrip()] = _shown(task, number, ILLEGIBLE)
        for name, record in ((name, record) for name, result in named.items() for record in result.records):
            ours = {(e["id"], *e["texts"]): e["predicted"] for e in record["probes"]["examples"]}
            column = f"here {name}".rstrip() + f", seed {record['spec']['seed']}"
            line[column] = _shown(task, ours.get((example["id"], *texts)), UNPREDICTED)
        lines.append(line)
    frame = pd.DataFrame(lines, dtype=object)
    return frame.fillna({column: UNPRINTED for column in frame if column.startswith("reported")})


def _shown(task: str, number: float | None, otherwise: str) -> int | float | str:
    """A class as a whole number, a score as it is, or the word that says why there is none."""
    if number is None:
        return otherwise
    return int(number) if TASKS[task].kind == "classes" else float(number)


def history_frame(results: Results) -> pd.DataFrame:
    """Scores on dev and on training examples and the training losses after every epoch, one number a line.

    split is dev or train (losses: train). trained names the tasks of the epoch's updates: of the phase, where tasks are
    trained one after the other. last is the run's last epoch.
    """
    lines = []
    for _, record, known in runs_of(results):
        for entry in record["history"]:
            losses = {f"{task}_loss": loss for task, loss in entry["train_loss"].items()}
            names = ", ".join(TASK_NAMES[task] for task in TASK_NAMES if task in entry["train_loss"])
            place = known | {"epoch": entry["epoch"], "last": record["history"][-1]["epoch"], "trained": names}
            for split, numbers in (("dev", entry["dev"]), ("train", {**entry["train"], **losses})):
                lines += [place | {"split": split, "metric": name, "value": x} for name, x in numbers.items()]
    columns = ["row", "label", "method", "run_id", "seed", "epoch", "last", "trained", "split", "metric", "value"]
    return pd.DataFrame(lines, columns=columns).astype({"value": float})


def gap_frame(history: pd.DataFrame, results: Results | None = None) -> pd.DataFrame:
    """Train minus dev of every metric after every epoch, one line a run, epoch and metric that both splits have.

    Args:
        history: of `history_frame`. Both scores are of samples: of examples that the run had drawn, and of dev.
        results: rows whose printed scores on both splits are to stand beside ours (source report, no seed, epoch 0).
    """
    keys = ["row", "label", "method", "run_id", "seed", "epoch", "last", "metric"]
    parts = (history[history["split"] == split].set_index(keys)["value"].rename(split) for split in ("train", "dev"))
    ours = pd.concat(parts, axis=1, join="inner").dropna().reset_index()
    ours = ours.assign(gap=ours["train"] - ours["dev"], source=HERE)
    theirs = [
        names_of(row_id, result) | {"epoch": 0, "last": 0, "metric": metric, "source": REPORT} | printed
        for row_id, result in (results or {}).items()
        for metric in (*MAIN_METRICS, "overall_normalised")
        if not np.isnan((printed := _printed_fit(result.row, metric))["gap"])
    ]
    return pd.concat([ours, pd.DataFrame(theirs, columns=ours.columns)], ignore_index=True) if theirs else ours


def gap_table(results: Results, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Scores on train and on dev after the last epoch and the gap, train minus dev; means over seeds, one line a row.

    The gap has its standard deviation over seeds where there are several, and the printed gap beside it where the
    report prints both scores. A small gap is worth something beside a good dev score: a model that has learnt nothing
    has none.
    """
    metrics = main_metrics(results) if metrics is None else metrics
    gaps = gap_frame(history_frame(results))
    last, lines = gaps[gaps["epoch"] == gaps["last"]], []
    for row_id, result in results.items():
        line: dict = {("", "model"): result.row.label}
        for metric in metrics:
            found = last[(last["row"] == row_id) & (last["metric"] == metric)]
            means = {name: found[name].mean() for name in ("train", "dev")}
            quantities = means | {"reported": _printed_fit(result.row, metric)["gap"]}
            quantities |= {"here": found["gap"].mean(), "sd": found["gap"].std()}
            line |= {(METRICS[metric], GAP_NAMES.get(name, name)): number for name, number in quantities.items()}
        lines.append(line | {("runs", "seeds"): _seeds(result)})
    frame = pd.DataFrame(lines, index=pd.Index(list(results), name="row"))
    frame = frame.set_axis(pd.MultiIndex.from_tuples(list(frame.columns)), axis=1)
    unprinted = [c for c in frame if c[1] == GAP_NAMES["reported"] and frame[c].isna().all()]
    return frame.drop(columns=unprinted)


def _printed_fit(of: Row, metric: str) -> dict[str, float]:
    """A metric on train and dev as the row's report prints both, in whatever tables; NaN where it does not."""
    is_normalised = of.report in reported.NORMALISED_OVERALL
    names = {"overall_normalised": "overall", "overall": "no raw overall"} if is_normalised else {}
    values, name = reported.printed_values(), names.get(metric, metric)
    found = {split: values.get((of.id, split, name), ABSENT) for split in ("train", "dev")}
    return found | {"gap": found["train"] - found["dev"]}


def epoch_spread(history: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """How far dev metrics move late in training, one line a model: standard deviation over the epochs after the first
    fifth, and after the first (mean over seeds; Gu judges epochs 3 to 10 of 10), and over the seeds of the last epoch.

    Args:
        history: of `history_frame`.
        metrics: keys of METRICS that every model has.
    """
    part = history[history["metric"].isin(metrics) & (history["split"] == "dev")]
    last, keys = part["epoch"].max(), ["label", "metric"]
    late = part[part["epoch"] > max(1, last / 5)]
    over_epochs = late.groupby([*keys, "seed"], sort=False)["value"].std().groupby(keys, sort=False).mean()
    over_seeds = part[part["epoch"] == last].groupby(keys, sort=False)["value"].std()
    spreads = pd.DataFrame({"sd over epochs": over_epochs, "sd over seeds": over_seeds})
    table = spreads.unstack("metric").swaplevel(axis=1).rename(columns=METRICS, level=0)
    columns = pd.MultiIndex.from_product([[METRICS[metric] for metric in metrics], spreads.columns])
    table = table.reindex(list(dict.fromkeys(part["label"])), columns=columns)
    table.insert(0, ("", "model"), table.index)
    table["", "epochs"], table["", "seeds"] = late["epoch"].nunique(), part["seed"].nunique()
    return table
