"""Comparisons of rows: pivots of the long frames, each written once for all reports.

Numbers stay unrounded here; rounding belongs to `report/tables.py`. A cell that cannot hold a number says so in words
("failed", "undefined"), and the reason stands in the notes of its line, so a hole is never mistaken for a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.tasks import TASK_NAMES
from common.results.facts import labels_card
from common.results.long import (
    CONSTANT,
    CONSTANT_LABEL,
    HERE,
    MAIN_METRICS,
    METRICS,
    REPORTED,
    TASK_METRICS,
    Baselines,
    constant_scores,
    history,
    is_trained,
    names_of,
    paired,
    printed_score,
    runs_of,
    scores,
    zero_shot_rows,
)
from common.runs.record import Record
from common.runs.session import Results, RowResult, Study
from common.training.evaluate import OVERALLS, overall

FAILED, UNDEFINED = "failed", "undefined"
ABSENT = float("nan")
AT_CONSTANT = "at constant"
START, KEPT, LEFT = "start of the search", "kept by the search", "tried and left"
OTHER_HEADS = "other heads"
HEAD_QUANTITIES = ["reported", "lowest", "middle", "highest"]
COSTS = ("updates", "examples", "seconds", "ms per update", "ms per example")
RATIOS = {"minutes quoted": "as quoted", "seconds": "whole training", "ms per update": "per update"}
RATIOS |= {"ms per example": "per example"}


def baselines(lab: Study) -> Baselines:
    """What scores without learning, on the dev examples that the study scores; the data need not be there."""
    return Baselines(constant_scores(labels_card(lab)), lab.run(zero_shot_rows()))


def main_metrics(results: Results) -> tuple[str, ...]:
    """The three tasks and their raw mean; where a row's report prints the normalised overall, that formula first."""
    if any(result.row.report in reported.NORMALISED_OVERALL for result in results.values()):
        return (*TASK_METRICS, "overall_normalised", "overall")
    return MAIN_METRICS


def printed_metrics(results: Results) -> tuple[str, ...]:
    """The three tasks, and the overall in the formula that the rows' report prints."""
    return main_metrics(results)[: len(MAIN_METRICS)]


def summary(result: RowResult, metric: str, split: str = "dev") -> tuple[float | str, float]:
    """Mean and standard deviation over the seeds that have the metric, or the word that says why there is none."""
    if not result.records:
        return FAILED, ABSENT
    found = [record.value(metric, split) for record in result.records if record.has(metric, split)]
    if not found:
        return ABSENT, ABSENT
    known = [number for number in found if number is not None]
    if not known:
        return UNDEFINED, ABSENT
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else ABSENT


def mean(results: Results, row_id: str, metric: str, split: str = "dev") -> float | str:
    """The mean of a metric over the seeds of a row, or the word that says why there is none."""
    return summary(results[row_id], metric, split)[0]


def numbers(results: Results) -> dict[str, float | str]:
    """What a sentence about results may name: `pair_sts_corr` is the mean over seeds of row swissbert_pair on dev (or
    the word that says why there is none), `pair_sts_corr_reported` what its table prints."""
    found: dict[str, float | str] = {}
    for row_id, result in results.items():
        name = row_id.removeprefix(f"{result.row.report}_")
        found |= {f"{name}_{metric}": mean(results, row_id, metric) for metric in METRICS}
        found |= {f"{name}_{metric}_reported": number for metric, number in result.row.reported.items()}
    return found


def at_constant(result: RowResult, metric: str, split: str, against: Baselines) -> bool:
    """Whether the mean over seeds of a dev metric is no better than the best constant answer; undefined is not."""
    here = summary(result, metric, split)[0]
    if split != "dev" or here == FAILED or (isinstance(here, float) and np.isnan(here)):
        return False
    return against.is_at_constant(metric, None if here == UNDEFINED else here)


def comparison(
    results: Results,
    against: Baselines,
    metrics: tuple[str, ...] | None = None,
    split: str | None = None,
    printed: str | None = None,
) -> pd.DataFrame:
    """One line per row: each metric as reported, here (mean and standard deviation over seeds) and their difference.

    Args:
        results: row id -> RowResult, as `Study.run` returns it.
        against: its constant answer and zero-shot rows stand below rows on dev, as lines of their own.
        metrics: metric names; `overall` is the raw mean, `overall_normalised` maps r to [0, 1] first. None takes
            `main_metrics`.
        split: of both sides; None takes the one that the row's table prints.
        printed: the split of the printed numbers where ours stand in for them, as dev does for test.

    Returns:
        Columns (group, quantity), index row id. `difference` is here minus reported. `sd` is empty for one seed.
        `at constant` is True where ours is no better than the best constant answer.
    """
    metrics = main_metrics(results) if metrics is None else metrics
    splits = {name: (split or result.row.split, printed or split) for name, result in results.items()}
    mixed = mixed_kinds(results)
    lines = {name: _line(r, metrics, *splits[name], against, mixed.get(name, {})) for name, r in results.items()}
    if "dev" in {split or result.row.split for result in results.values()}:
        lines[CONSTANT] = _constant_line(against, metrics)
        apart = {name: result for name, result in against.zero_shot.items() if name not in results}
        lines |= {name: _line(result, metrics, "dev", None, against, {}) for name, result in apart.items()}
    return _grouped(list(lines.values()), pd.Index(list(lines), name="row"))


def _line(
    result: RowResult,
    metrics: tuple[str, ...],
    split: str,
    printed_split: str | None,
    against: Baselines,
    mixed: dict[str, str],
) -> dict:
    line: dict = {("", "model"): result.row.label}
    for metric in metrics:
        printed = printed_score(result.row, metric, printed_split or result.row.split)
        here, sd = summary(result, metric, split)
        difference = here - printed if isinstance(here, float) else ABSENT
        quantities = {"reported": printed, "here": here, "sd": sd}
        quantities |= {AT_CONSTANT: at_constant(result, metric, split, against), "difference": difference}
        line |= {(METRICS[metric], name): quantity for name, quantity in quantities.items()}
    shares = [record["share"] for record in result.records]
    line["runs", "seeds"] = _seeds(result)
    line["runs", "share of training"] = float(np.mean(shares)) if shares else ABSENT
    line["runs", "notes"] = "; ".join(_notes(result, metrics, split, mixed))
    return line


def mixed_kinds(results: Results) -> dict[str, dict[str, str]]:
    """Row id -> what of how its runs were made is not the same in all rows; empty where no row differs from another.

    A table that mixes runs of two programs, processors, encoders or data says so in the notes of its lines.
    """
    kinds = {name: [record.kind for record in result.runs] for name, result in results.items()}
    found = pd.DataFrame([kind for every in kinds.values() for kind in every])
    differing = [name for name in found if found[name].dropna().nunique() > 1]
    return {
        name: {field: ", ".join(sorted({kind[field] for kind in every if field in kind})) for field in differing}
        for name, every in kinds.items()
    }


def _constant_line(against: Baselines, metrics: tuple[str, ...]) -> dict:
    line: dict = {("", "model"): CONSTANT_LABEL}
    for metric in metrics:
        line[METRICS[metric], "here"] = against.constants.get(metric, ABSENT)
        line[METRICS[metric], AT_CONSTANT] = False
    has_r = bool({"sts_corr", *OVERALLS} & set(metrics))
    line["runs", "notes"] = "a constant has no correlation: 0 stands for it" if has_r else ""
    return line


def _seeds(result: RowResult) -> str:
    done, failed = len(result.records), len(result.failures)
    if failed:
        return f"failed, {failed} of {done + failed} seeds"
    return "one seed" if done == 1 else f"{done} seeds"


def _notes(result: RowResult, metrics: tuple[str, ...], split: str, mixed: dict[str, str]) -> list[str]:
    notes = []
    if any(record["under_trained"] for record in result.records):
        notes.append("under-trained")
    if split not in {name for record in result.records for name in record["metrics"]} and result.records:
        notes.append(f"printed on {split}, which has no labels here")
    if result.coincides_with:
        notes.append(f"coincides with {result.coincides_with}")
    notes += [f"{name} {value}" for name, value in mixed.items()]
    for metric in metrics:
        present = [record for record in result.records if record.has(metric, split)]
        reasons = [record["undefined"][split][metric] for record in present if record.value(metric, split) is None]
        if reasons:
            notes.append(f"{METRICS[metric]} undefined in {len(reasons)} of {len(result.records)} runs: {reasons[0]}")
    return notes + [f"seed {failure.seed} failed, see the log of run {failure.run_id}" for failure in result.failures]


def bars(results: Results, against: Baselines, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The dev scores of `long.scores` as a picture of them needs them: with what marks a bar.

    trained says whether training touched what the metric is made of, at_constant whether ours is no better than the
    best constant answer.
    """
    frame = scores(results, against, printed_metrics(results) if metrics is None else metrics, ("dev",))
    trained, low = pd.Series(False, frame.index), pd.Series(False, frame.index)
    for (name, metric), part in frame[frame["source"].isin([HERE, REPORTED])].groupby(["row", "metric"]):
        trained[part.index] = is_trained(results[name].row, metric)
        low[part.index] = (part["source"] == HERE) & at_constant(results[name], metric, "dev", against)
    return frame.assign(trained=trained, at_constant=low)


def differences(results: Results, base: str, metrics: tuple[str, ...] = MAIN_METRICS) -> pd.DataFrame:
    """Each row minus the row `base`: as printed, and ours as the mean over the seeds that both have."""
    pairs = paired(scores(results, metrics=metrics, splits=("dev",)), base)
    means = pairs.groupby(["row", "metric", "source"])["difference"].mean()
    names, lines = {REPORTED: "printed difference", HERE: "our difference"}, []
    for row_id, result in results.items():
        if row_id != base:
            found = {
                (METRICS[metric], name): means.get((row_id, metric, source), ABSENT)
                for metric in metrics
                for source, name in names.items()
            }
            lines.append({("", "model"): result.row.label} | found)
    return _grouped(lines).dropna(axis=1, how="all")


def steps(results: Results, metric: str = "overall") -> pd.DataFrame:
    """Every model's score beside that of the one it builds on, printed and ours, ours one line a seed.

    start is the base's score in the same seed (0 for a first model), stop the model's own, gain their difference. role
    says which models lie on the chain of bases that leads to the last one.
    """
    frame, roles = scores(results, metrics=(metric,), splits=("dev",)), _roles(results)
    parts = []
    for row_id, result in results.items():
        base = results.get(result.row.base)
        part = frame[frame["row"].isin([row_id, result.row.base])]
        part = paired(part, result.row.base) if base else part.assign(base_value=0.0, difference=part["value"])
        parts.append(part.assign(over=base.row.label if base else "", role=roles[row_id]))
    names = {"base_value": "start", "value": "stop", "difference": "gain"}
    columns = ["row", "label", "over", "role", "source", "seed", "run_id", *names.values()]
    return pd.concat(parts, ignore_index=True).rename(columns=names)[columns].dropna(subset="stop")


def _roles(results: Results) -> dict[str, str]:
    """Row id -> whether it lies on the chain of bases that leads to the last row."""
    chain, step = [], list(results)[-1]
    while step in results:
        chain, step = [*chain, step], results[step].row.base
    roles = {name: KEPT if name in chain else LEFT for name in results}
    return roles | {name: START for name, result in results.items() if result.row.base not in results}


def gaps(results: Results, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Train minus dev after the last epoch, one line a run and metric; and what a report prints of both splits.

    Both scores are of samples: of examples that the run had drawn, and of dev.
    """
    metrics = printed_metrics(results) if metrics is None else metrics
    curves = history(results)
    last = curves[(curves["epoch"] == curves["last"]) & curves["metric"].isin(metrics)]
    keys = [name for name in last if name not in ("split", "value", "epoch", "last", "trained")]
    ours = last.set_index([*keys, "split"])["value"].unstack("split").dropna().reset_index().assign(source=HERE)
    printed = [
        names_of(row_id, result) | {"metric": metric, "source": REPORTED}
        | {split: printed_score(result.row, metric, split) for split in ("train", "dev")}
        for row_id, result in results.items()
        for metric in metrics
    ]  # fmt: skip
    both = pd.concat([ours, pd.DataFrame(printed).dropna()], ignore_index=True).rename_axis(columns=None)
    order = {name: place for place, name in enumerate(results)}
    both = both.assign(gap=both["train"] - both["dev"]).astype({"seed": "Int64"})
    return both.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def gap_table(results: Results, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Scores on train and on dev after the last epoch and the gap, train minus dev; means over seeds, one line a row.

    The gap has its standard deviation over seeds where there are several, and the printed gap beside it where the
    report prints both scores. A small gap is worth something beside a good dev score: a model that has learnt nothing
    has none.
    """
    metrics, lines = printed_metrics(results) if metrics is None else metrics, []
    frame = gaps(results, metrics)
    for row_id, result in results.items():
        line: dict = {("", "model"): result.row.label}
        for metric in metrics:
            part = frame[(frame["row"] == row_id) & (frame["metric"] == metric)]
            ours, printed = (part[part["source"] == source] for source in (HERE, REPORTED))
            quantities = {"train": ours["train"].mean(), "dev": ours["dev"].mean()}
            quantities |= {"reported gap": printed["gap"].mean(), "gap": ours["gap"].mean(), "sd": ours["gap"].std()}
            line |= {(METRICS[metric], name): number for name, number in quantities.items()}
        lines.append(line | {("runs", "seeds"): _seeds(result)})
    table = _grouped(lines, pd.Index(list(results), name="row"))
    return table.drop(columns=[c for c in table if c[1] == "reported gap" and table[c].isna().all()])


def epoch_spread(curves: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """How far dev metrics move late in training, one line a model: standard deviation over the epochs after the first
    fifth, and after the first (mean over seeds; Gu judges epochs 3 to 10 of 10), and over the seeds of the last epoch.

    Args:
        curves: of `long.history`.
        metrics: keys of METRICS that every model has.
    """
    part = curves[curves["metric"].isin(metrics) & (curves["split"] == "dev")]
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


def random_heads(results: Results, baseline: str, best: str) -> pd.DataFrame:
    """Scores of a row whose heads are not trained with each of many random heads, and what `best` gains over each.

    One draw gives the heads of all untrained tasks; overall is made of the draw's scores and the row's own for its
    trained task. gain_percent is missing where the score is not above 0: there is no ratio to such a baseline.
    """
    lines, trained = [], {record.seed: record for record in results[best].records}
    for record in results[baseline].runs:
        heads, known = record["untrained_heads"], {"seed": record.seed, "run_id": record.run_id}
        for draw, drawn in enumerate(zip(*heads.values(), strict=True), start=1):
            found = record.scores() | dict(zip(heads, drawn, strict=True))
            found |= overall(found)[0]
            for name in MAIN_METRICS:
                reached = trained[known["seed"]].value(name) if known["seed"] in trained else None
                line = {"draw": draw, "metric": name, "value": found[name], "best_model": reached}
                lines.append(known | line | {"reported": results[baseline].row.reported.get(name)})
    columns = ["run_id", "seed", "draw", "metric", "value", "best_model", "reported"]
    frame = pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(columns[4:], float))
    frame["gain_percent"] = (100 * (frame["best_model"] / frame["value"] - 1)).where(frame["value"] > 0)
    return frame.dropna(subset="value")


def random_heads_table(frame: pd.DataFrame, gains: Mapping[str, float]) -> pd.DataFrame:
    """The range of `random_heads` over the draws, one line a metric: the scores, and the gains over them.

    Args:
        frame: as `random_heads` makes it.
        gains: the gains in percent that the report prints, as `pct_gain_<metric>_vs_baseline`.
    """
    lines = []
    for name, part in frame.groupby("metric", sort=False):
        ranges = [part[column].agg(["min", "median", "max"]) for column in ("value", "gain_percent")]
        printed = part["reported"].iloc[0], gains.get(f"pct_gain_{name}_vs_baseline")
        lines.append([METRICS[name], len(part), printed[0], *ranges[0], printed[1], *ranges[1]])
    groups = pd.MultiIndex.from_product([["baseline", "gain in percent"], HEAD_QUANTITIES])
    columns = pd.MultiIndex.from_tuples([("", "metric"), ("", "random heads"), *groups])
    return pd.DataFrame(lines, columns=columns)


def sweep(results: Results, against: Baselines, metrics: tuple[str, ...] = TASK_METRICS) -> pd.DataFrame:
    """Dev scores against the strength of SMART (lambda, 0 where a row has none).

    constant is what the best constant answer scores. A head that no training touched has, beside its own line (head
    0), one for every other random head that was measured on the same encoder (source `other heads`, head 1, 2, ...).
    """
    parts = [scores(results, metrics=metrics, splits=("dev",)).assign(head=0)]
    for _, record, known in runs_of(results):
        for metric, drawn in record["untrained_heads"].items():
            heads = {"head": range(1, len(drawn) + 1), "value": drawn}
            parts.append(pd.DataFrame(heads).assign(**known, metric=metric, source=OTHER_HEADS, split="dev"))
    frame = pd.concat(parts, ignore_index=True).dropna(subset="value", ignore_index=True)
    smart = {row_id: result.row.specs[0].smart for row_id, result in results.items()}
    strength = [smart[row].weight if smart[row] else 0.0 for row in frame["row"]]
    return frame.assign(**{"lambda": strength, "constant": frame["metric"].map(against.constants)})


def sweep_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per lambda: per metric the printed value, ours, and the mean over other random heads."""
    sources = [name for name in (REPORTED, HERE, OTHER_HEADS) if name in set(frame["source"])]
    table = frame.pivot_table("value", "lambda", ["metric", "source"], sort=False).sort_index()
    order = [(metric, source) for metric in dict.fromkeys(frame["metric"]) for source in sources]
    table = table[[column for column in order if column in table]].rename(columns=METRICS, level=0)
    table.insert(0, ("", "lambda"), [f"{weight:g}" for weight in table.index])
    return table


def costs(results: Results) -> pd.DataFrame:
    """Cost of training per row (index row id), means over seeds, beside the minutes that the report quotes.

    Seconds are those of all epochs, each with its evaluation on dev.
    """
    lines = []
    for row_id, result in results.items():
        known = {"row": row_id, "model": result.row.label}
        known["minutes quoted"] = result.row.reported.get("train_time_min", ABSENT)
        lines += [known | cost for cost in map(_cost, result.records)] or [known]
    frame = pd.DataFrame(lines).groupby(["row", "model"], sort=False).mean().reset_index("model")
    frame = frame.reindex(columns=["model", "minutes quoted", *COSTS])
    return frame.astype(dict.fromkeys(("minutes quoted", "updates", "examples"), "Int64"))


def _cost(record: Record) -> dict[str, float]:
    counts, seconds = record["counts"], sum(epoch["wall_s"] for epoch in record["history"])
    found = {"updates": counts["updates"], "examples": sum(counts["examples"].values())}
    per = {f"ms per {name[:-1]}": 1000 * seconds / number for name, number in found.items()}
    return found | {"seconds": seconds} | per


def cost_ratios(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Costs of the first row of each pair over those of the second: as quoted, and here in three units."""
    first, second = (frame.loc[list(rows)].reset_index(drop=True) for rows in zip(*pairs, strict=True))
    ratios = (first[list(RATIOS)] / second[list(RATIOS)]).rename(columns=RATIOS)
    return pd.concat([first["model"], second["model"].rename("over"), ratios], axis=1)


def ranking(results: Results) -> pd.DataFrame:
    """Places of the rows by either overall formula, in the printed numbers and in ours; 1 is the best."""
    found = {}
    for row_id, result in results.items():
        theirs = [result.row.reported.get(metric, ABSENT) for metric in (*TASK_METRICS, "overall_normalised")]
        ours = [mean(results, row_id, metric) for metric in ("overall_normalised", "overall")]
        places = [theirs[-1], np.mean(theirs[:-1]), *(x if isinstance(x, float) else ABSENT for x in ours)]
        names = [(source, formula) for source in ("printed", "here") for formula in ("normalised", "raw")]
        found[row_id] = dict(zip(names, places, strict=True))
    table = pd.DataFrame.from_dict(found, orient="index").rank(ascending=False, method="min").astype("Int64")
    table.insert(0, ("", "model"), [result.row.label for result in results.values()])
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1).rename_axis("row")


def runs_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One line per record, by the row it is of: how it scored, what was trained, on what, and what it cost."""
    lines = []
    for record in sorted(records, key=lambda record: (record["row"]["id"], record.seed)):
        spec, metrics = record["spec"], record.scores()
        encoder = spec["encoder"]["checkpoint"] + (" (frozen)" if spec["encoder"]["frozen"] else "")
        pairs = ", ".join(f"{TASK_NAMES[t['name']]} {t['pair_method']}" for t in spec["tasks"])
        line = {"row": record["row"]["id"], "model": record["row"]["label"], "seed": spec["seed"]}
        line |= {METRICS[name]: metrics.get(name) for name in MAIN_METRICS}
        line |= {"tasks": pairs, "encoder": encoder, "epochs": spec["epochs"]}
        line |= {"learning rate": f"{spec['optimizer']['lr']:g}", "share of training": record["share"]}
        lines.append(line | {"minutes": record["wall_s"] / 60, "run": record.run_id})
    return pd.DataFrame(lines)


def _grouped(lines: list[dict], index: pd.Index | None = None) -> pd.DataFrame:
    """Lines whose keys are (group, quantity) as a table with two lines of column names."""
    frame = pd.DataFrame(lines, index=index)
    return frame.set_axis(pd.MultiIndex.from_tuples(list(frame.columns)), axis=1)
