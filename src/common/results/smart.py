"""What the SMART study's notebook shows beside the shared tables: the sweep of lambda, costs, conflicts, what changed.

Frames are long tables of plain numbers; a run that failed, or has no such array, leaves its lines out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from common.declare.tasks import TASKS
from common.runs.session import Results, RowResult
from common.runs.store import RunStore
from common.declare.spec import TaskSpec
from common.results.frames import HERE, REPORT, metric_frame
from common.results.stats import METRICS, TASK_NAMES, runs_of
from common.results.untrained import Baselines
from common.training.evaluate import METRIC_NAMES, predict

TASK_OF = {METRIC_NAMES[task]: task for task in ("sst", "para", "sts")}
SCORES = tuple(TASK_OF)
# An STS score, 0 to 5, that moved by no more than this counts as unchanged.
STS_CHANGE = 0.25
# The running mean of a conflict trace covers this share of the updates.
WINDOW = 0.1
OTHER_HEADS = "other heads"
PER = ("per update", "per example")
COSTS = ("updates", "examples", "seconds", *(f"ms {per}" for per in PER))
RATIOS = {"minutes quoted": "as quoted", "seconds": "whole training"} | {f"ms {per}": per for per in PER}


def sweep_frame(results: Results, against: Baselines) -> pd.DataFrame:
    """The three metrics against lambda (0 where a row has no SMART), a line per row, metric and seed.

    constant is what the best constant answer scores.

    A head that no training touched has, beside its own line (head 0), one for every other random head that was measured
    on the same encoder (source `other heads`, head 1, 2, ...).
    """
    metrics = metric_frame(results, against, SCORES)
    lines = metrics[metrics["source"].isin([REPORT, HERE])].assign(head=0).to_dict("records")
    for row_id, result in results.items():
        for record in result.records:
            known = {"row": row_id, "source": OTHER_HEADS, "seed": record["spec"]["seed"], "run_id": record["run_id"]}
            for metric, scores in record["untrained_heads"].items():
                drawn = enumerate(scores, start=1)
                lines += [known | {"metric": METRICS[metric], "head": head, "value": score} for head, score in drawn]
    smart = {row_id: result.row.specs[0].smart for row_id, result in results.items()}
    unused = ["label", "method", "trained", "at_constant"]
    frame = pd.DataFrame(lines).drop(columns=unused).astype({"value": float, "seed": "Int64"})
    frame["constant"] = frame["metric"].map({METRICS[metric]: against.constants[metric] for metric in SCORES})
    frame.insert(1, "lambda", [smart[row].weight if smart[row] else 0.0 for row in frame["row"]])
    return frame.dropna(subset="value", ignore_index=True)


def sweep_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per lambda: per metric the printed value, ours, and the mean over other random heads."""
    table = frame.pivot_table("value", "lambda", ["metric", "source"], sort=False).sort_index()
    table = table[[column for metric in SCORES for column in table if column[0] == METRICS[metric]]]
    table.insert(0, ("", "lambda"), [f"{weight:g}" for weight in table.index])
    return table


def costs_frame(results: Results) -> pd.DataFrame:
    """Cost of training per row (index row id), means over seeds, beside the minutes that the report quotes.

    Seconds are those of all epochs, each with its evaluation on dev.
    """
    lines = []
    for row_id, result in results.items():
        quoted = result.row.reported.get("train_time_min", np.nan)
        known = {"row": row_id, "model": result.row.label, "minutes quoted": quoted}
        lines += [known | cost for cost in map(_cost, result.records)] or [known]
    frame = pd.DataFrame(lines).groupby(["row", "model"], sort=False).mean().reset_index("model")
    frame = frame.reindex(columns=["model", "minutes quoted", *COSTS])
    return frame.astype(dict.fromkeys(("minutes quoted", "updates", "examples"), "Int64"))


def cost_ratios(costs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Costs of the first row of each pair over those of the second: as quoted, and here in three units."""
    first, second = (costs.loc[list(rows)].reset_index(drop=True) for rows in zip(*pairs, strict=True))
    ratios = (first[list(RATIOS)] / second[list(RATIOS)]).rename(columns=RATIOS)
    return pd.concat([first["model"], second["model"].rename("over"), ratios], axis=1)


def conflict_frame(store: RunStore, results: Results) -> pd.DataFrame:
    """Cosine of the gradients of two tasks at every update that compared them (Figure A.4), with its running mean.

    negative and mean are the pair's share of negative cosines and its mean, over all updates and seeds of the row.
    """
    columns = ["row", "label", "run_id", "seed", "pair", "update", "cosine", "running"]
    parts = [pd.DataFrame(columns=columns)]
    for _, record, known in runs_of(results):
        cosines = store.probes(record["run_id"]).get("trace_cosine", np.empty((0, 0)))  # (U, P)
        for pair, trace in reversed(list(zip(record["trace"]["pairs"], cosines.T, strict=False))):  # SST first
            part = pd.DataFrame({"update": np.arange(1, len(trace) + 1), "cosine": trace}).dropna()
            window = part["cosine"].rolling(max(1, round(WINDOW * len(trace))), center=True, min_periods=1)
            parts.append(part.assign(**known, pair=pair, running=window.mean()))
    frame = pd.concat(parts[1:] or parts, ignore_index=True)[columns]
    groups = frame.groupby(["row", "pair"])["cosine"]
    return frame.assign(negative=groups.transform(lambda c: (c < 0).mean()), mean=groups.transform("mean"))


def conflict_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per row and task: its cosines with both other tasks, their mean and the share below 0."""
    single = frame.assign(task=frame["pair"].str.split("-")).explode("task")
    single["task"] = single["task"].map(TASK_NAMES)
    groups = single.groupby(["label", "task"], sort=False)["cosine"]
    table = groups.agg(compared="size", mean="mean", share=lambda c: (c < 0).mean())
    names = {"label": "model", "mean": "mean cosine", "share": "share negative"}
    return table.reset_index().rename(columns=names)


def changed_frame(
    store: RunStore, without: RowResult, with_smart: RowResult, labels: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """How many dev predictions differ between two models of one seed, and which way; one line per seed and group.

    An STS score changed when it moved by more than STS_CHANGE, and is better when it is nearer to its label; a class is
    better when it became right, worse when it became wrong, and else wrong both times.
    """
    lines, before = [], {record["spec"]["seed"]: record for record in without.runs}
    for record in (record for record in with_smart.runs if record["spec"]["seed"] in before):
        ids = [before[record["spec"]["seed"]]["run_id"], record["run_id"]]
        scores = [store.predictions(run_id) for run_id in ids]
        for task in (task for task in with_smart.row.specs[0].tasks if task.name in labels):
            old, new = (_predicted(task, outputs[task.name]) for outputs in scores)
            for group, chosen in _groups(task.name, labels[task.name]).items():
                counts = _counts(task.name, old[chosen], new[chosen], labels[task.name][chosen])
                lines.append({"dev examples": group, "seed": record["spec"]["seed"]} | counts)
    return pd.DataFrame(lines, columns=["dev examples", "seed", "n", "changed", "better", "worse", "neither", "share"])


def _cost(record: dict) -> dict[str, float]:
    counts, seconds = record["counts"], sum(epoch["wall_s"] for epoch in record["history"])
    numbers = {"updates": counts["updates"], "examples": sum(counts["examples"].values())}
    per = {f"ms per {name[:-1]}": 1000 * seconds / number for name, number in numbers.items()}
    return numbers | {"seconds": seconds} | per


def _predicted(task: TaskSpec, scores: np.ndarray) -> np.ndarray:
    return predict(task, scores.reshape(len(scores), -1))


def _groups(task: str, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The dev examples of a task; Quora's by label, for they err in opposite directions."""
    if task == "para":
        return {"Quora, paraphrases": labels == 1, "Quora, no paraphrases": labels == 0}
    return {TASK_NAMES[task]: np.ones(len(labels), dtype=bool)}


def _counts(task: str, old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> dict:
    is_score = TASKS[task].kind == "score"
    changed = np.abs(new - old) > (STS_CHANGE if is_score else 0)
    errors = [np.abs(found - labels) if is_score else found != labels for found in (old, new)]
    gain = changed * (errors[0].astype(float) - errors[1])
    counts = {"n": len(labels), "changed": changed.sum(), "better": (gain > 0).sum(), "worse": (gain < 0).sum()}
    counts["neither"] = counts["changed"] - counts["better"] - counts["worse"]
    return {name: int(number) for name, number in counts.items()} | {"share": float(changed.mean())}
