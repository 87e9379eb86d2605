"""What the stepwise search of BERT++ needs as plain numbers: ticks, curves, steps, random heads.

Frames stand beside their figures as CSV; a table is one of them, or is made from one. A run that failed, or a metric
that does not exist, leaves lines out. Nothing here trains or draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from common.data.tasks import TASKS
from common.study.frames import HERE, REPORT
from common.study.reported import printed
from common.study.rows import Row
from common.study.session import Results, RowResult
from common.study.stats import MAIN_METRICS, METRICS, TASK_NAMES, value
from common.training.evaluate import METRIC_NAMES, OVERALL_TASKS, overall

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
TICK, TOTAL_LOSS = "x", "total_loss"
BASELINE, BEST = "bertpp_baseline", "bertpp_model_h"
START, KEPT, LEFT = "start of the search", "kept by the search", "tried and left"
CURVE_COLUMNS = ["row", "label", "role", "run_id", "seed", "epoch", "metric", "scored_on", "value"]
STEP_COLUMNS = ["row", "label", "over", "role", "source", "seed", "start", "stop", "gain"]
HEAD_COLUMNS = ["run_id", "seed", "draw", "metric", "value", "best_model", "reported"]
HEAD_QUANTITIES = ["reported", "lowest", "middle", "highest"]


def tick_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Which extension is in which model (BERT++, Table 1), and what else differs between models without a tick."""
    lines = []
    for row in rows:
        spec = row.specs[0]
        line = {"model": row.label} | {name: TICK if is_in(spec) else "" for name, is_in in TICKS.items()}
        line["trained on"] = ", ".join(TASK_NAMES[task.name] for task in spec.trained_tasks)
        line["dropout"] = ", ".join(f"{TASK_NAMES[task.name]} {task.dropout:g}" for task in spec.tasks)
        lines.append(line | {"encoder frozen": str(spec.encoder.frozen), "batch": spec.batch_size})
    return pd.DataFrame(lines)


def curve_frame(results: Results, metric: str, best: str = BEST) -> pd.DataFrame:
    """One dev metric or training loss after every epoch, one line per model, seed and epoch (BERT++, Figures 2 to 8).

    Args:
        results: row id -> RowResult.
        metric: a dev metric, `<task>_loss` (mean over the epoch's examples, dropout on), or `total_loss`, the plain
            sum of the three; a run that trains fewer tasks has none.
        best: the row that the search ends at; role says which rows lie on its chain of bases.

    Returns:
        scored_on says what a loss is taken of: `cosines` where one of its tasks compares by cosine, else `logits`; the
        two have different ranges. An untrained head on a frozen encoder never changes, so its final dev score stands
        in every epoch.
    """
    lines, roles = [], _roles(results, best)
    for row_id, result in results.items():
        for record in result.runs:
            known = [row_id, result.row.label, roles[row_id], record["run_id"], record["spec"]["seed"]]
            scored_on = _scored_on(record, metric)
            for entry in record["history"]:
                lines.append([*known, entry["epoch"], metric, scored_on, _values(record, entry).get(metric)])
    return pd.DataFrame(lines, columns=CURVE_COLUMNS).astype({"value": float}).dropna(subset="value")


def step_frame(results: Results, best: str = BEST) -> pd.DataFrame:
    """Raw overall of every model and of the one it builds on, the report's and ours, ours one line a seed.

    start is the base's overall in the same seed (0 for the first model), stop the model's own, gain their difference.
    """
    lines, roles = [], _roles(results, best)
    for row_id, result in results.items():
        base = results.get(result.row.base)
        known = [row_id, result.row.label, base.row.label if base else "", roles[row_id]]
        starts = _overalls(base) if base else {}
        for key, stop in _overalls(result).items():
            if base is None or key in starts:
                start = starts.get(key, 0.0)
                lines.append([*known, *key, start, stop, stop - start])
    return pd.DataFrame(lines, columns=STEP_COLUMNS).astype({"seed": "Int64"})


def head_frame(results: Results, baseline: str = BASELINE, best: str = BEST) -> pd.DataFrame:
    """Scores of the baseline with each of many random heads, and what a trained model gains over each, in percent.

    One draw gives the heads of all untrained tasks; overall is made of the draw's scores and the baseline's own for
    its trained task. gain_percent is missing where the score is not above 0: there is no ratio to such a baseline.
    """
    lines, trained = [], {record["spec"]["seed"]: record for record in results[best].records}
    for record in results[baseline].records:
        heads, seed = record["untrained_heads"], record["spec"]["seed"]
        for draw, drawn in enumerate(zip(*heads.values(), strict=True), start=1):
            scores = record["metrics"]["dev"] | dict(zip(heads, drawn, strict=True))
            scores |= overall(scores)[0]
            for name in MAIN_METRICS:
                reached = value(trained[seed], name) if seed in trained else None
                numbers = [scores[name], reached, results[baseline].row.reported.get(name)]
                lines.append([record["run_id"], seed, draw, name, *numbers])
    frame = pd.DataFrame(lines, columns=HEAD_COLUMNS).astype(dict.fromkeys(HEAD_COLUMNS[4:], float))
    frame["gain_percent"] = (100 * (frame["best_model"] / frame["value"] - 1)).where(frame["value"] > 0)
    return frame.dropna(subset="value")


def head_table(frame: pd.DataFrame, gains: Mapping[str, float]) -> pd.DataFrame:
    """The range of `head_frame` over the random heads, one line a metric: the scores, and the gains over them.

    Args:
        frame: as `head_frame` makes it.
        gains: the gains in percent that the report prints, as `pct_gain_<metric>_vs_baseline`.
    """
    lines = []
    for name, part in frame.groupby("metric", sort=False):
        scores, percents = (part[column].agg(["min", "median", "max"]) for column in ("value", "gain_percent"))
        printed = part["reported"].iloc[0], gains.get(f"pct_gain_{name}_vs_baseline")
        lines.append([METRICS[name], len(part), printed[0], *scores, printed[1], *percents])
    groups = pd.MultiIndex.from_product([["baseline", "gain in percent"], HEAD_QUANTITIES])
    columns = pd.MultiIndex.from_tuples([("", "metric"), ("", "random heads"), *groups])
    return pd.DataFrame(lines, columns=columns)


def batch_frame() -> pd.DataFrame:
    """How cycling multiplies the STS batches of an epoch: printed (section 5), and from set and batch sizes.

    With cycling, STS goes on until the Quora set is through. Section 5 names batch 8, Table 4 gives Model H 16.
    """
    stated = printed(BEST.partition("_")[0], "text_sec5", "train")[BEST]
    names = ("sts_batches_per_epoch_original", "sts_batches_per_epoch_cycled", "pct_increase_sts_batches")
    lines = ["batches without cycling", "batches with cycling", "increase in percent"]
    frame = pd.DataFrame({"an epoch of STS": lines, "printed": [round(stated[name]) for name in names]})
    for batch in (8, 16):
        once, cycled = (math.ceil(TASKS[task].report_train / batch) for task in ("sts", "para"))
        frame[f"at batch {batch}"] = [once, cycled, round(100 * (cycled / once - 1))]
    return frame


def _roles(results: Results, best: str) -> dict[str, str]:
    """Row id -> whether it lies on the chain of bases that leads to the best model."""
    chain, step = [], best
    while step in results:
        chain, step = [*chain, step], results[step].row.base
    roles = {name: KEPT if name in chain else LEFT for name in results}
    return roles | {name: START for name, result in results.items() if result.row.base is None}


def _scored_on(record: dict, metric: str) -> str:
    tasks = (task for task in record["spec"]["tasks"] if task["trained"])
    methods = {task["pair_method"] for task in tasks if metric in (f"{task['name']}_loss", TOTAL_LOSS)}
    return "cosines" if "cosine" in methods else "logits" if methods else "labels"


def _values(record: dict, entry: dict) -> dict[str, float | None]:
    """An epoch's dev scores and losses, completed by what cannot change or follows from them."""
    spec, losses = record["spec"], entry["train_loss"]
    fixed = [METRIC_NAMES[t["name"]] for t in spec["tasks"] if spec["encoder"]["frozen"] and not t["trained"]]
    values = entry["dev"] | {name: value(record, name) for name in fixed}
    values |= overall(values)[0] | {f"{task}_loss": loss for task, loss in losses.items()}
    return values | ({TOTAL_LOSS: sum(losses.values())} if losses.keys() >= set(OVERALL_TASKS) else {})


def _overalls(result: RowResult) -> dict[tuple[str, int | None], float]:
    """(source, seed) -> raw overall; the report's has no seed."""
    both = {(REPORT, None): result.row.reported.get("overall")}
    both |= {(HERE, record["spec"]["seed"]): value(record, "overall") for record in result.records}
    return {key: number for key, number in both.items() if number is not None}
