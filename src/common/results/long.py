"""The long frames: scores, history and traces, made once from the records, one number a line.

Every table is a pivot of them and every figure a drawing of them, whichever report asks.

    scores   row, label, method, report, split, metric, source, seed, run_id, value
    history  row, label, method, report, seed, run_id, epoch, last, trained, split, metric, value
    traces   row, label, method, report, seed, run_id, update, updates, quantity, of, value

The source of a score is `reported` (what the row's table prints; it has no seed), `here`, `constant` (the best answer
that reads no text) or `zero-shot` (the encoder as it is, its sentences compared by their cosine). The last two are what
every comparison is set against: untrained MiniLM reaches a correlation that most trained cosine rows miss, and a model
that has learnt nothing stands at the share of the commonest label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.rows import Row, reports, rows
from common.declare.tasks import TASK_NAMES, TASKS
from common.runs.record import Record
from common.runs.session import Results, RowResult
from common.runs.store import RunStore
from common.training.evaluate import METRIC_NAMES, OVERALL_TASKS, overall

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
TASK_METRICS = ("sst_acc", "para_acc", "sts_corr")
MAIN_METRICS = (*TASK_METRICS, "overall")
BOTH_OVERALLS = ("overall", "overall_normalised")
REPORTED, HERE, CONSTANT, ZERO_SHOT = "reported", "here", "constant", "zero-shot"
CONSTANT_LABEL = "best constant answer"
TOTAL_LOSS = "total_loss"
RUN = ["row", "label", "method", "report", "seed", "run_id"]
SCORES = ["row", "label", "method", "report", "split", "metric", "source", "seed", "run_id", "value"]
HISTORY = [*RUN, "epoch", "last", "trained", "split", "metric", "value"]
TRACES = [*RUN, "update", "updates", "quantity", "of", "value"]
# Quantity -> the record's names of its columns: one of a task, of a pair of tasks, or of the whole update.
TRACED = {"loss": "tasks", "factor": "tasks", "norm": "tasks", "cosine": "pairs", "rate": ""}


@dataclass(frozen=True)
class Baselines:
    """What scores without learning anything.

    constants: metric -> score on dev of the best single answer. No constant has a correlation: that of STS is put at 0,
    where a model that knows nothing stands. zero_shot: the cosine rows without training, one a pooling.
    """

    constants: dict[str, float]
    zero_shot: Results

    def is_at_constant(self, metric: str, score: float | None) -> bool:
        """Whether a dev score is no better than the constant's; an undefined one (None) is that of a constant."""
        if metric not in self.constants:
            return False
        return score is None or score <= self.constants[metric] + 1e-9


def zero_shot_rows() -> list[Row]:
    """The rows of any report that compare by cosine without any training."""
    return [row for report in reports() for row in rows(report) if is_zero_shot(row)]


def is_zero_shot(row: Row) -> bool:
    """Whether the row is the encoder as it is, its sentences compared by their cosine."""
    return any(spec.epochs == 0 and any(t.pair_method == "cosine" for t in spec.tasks) for spec in row.specs)


def constant_scores(labels: dict[str, np.ndarray]) -> dict[str, float]:
    """Metric -> score of the best constant answer to these labels, and both overalls made of them."""
    shares = {task: float(np.unique(found, return_counts=True)[1].max() / len(found)) for task, found in labels.items()}
    scores = {METRIC_NAMES[task]: 0.0 if TASKS[task].kind == "score" else share for task, share in shares.items()}
    scores |= overall(scores)[0] if set(OVERALL_TASKS) <= set(labels) else {}
    # A threshold above every cosine answers "no" to every pair, one below all answers "yes".
    return scores | ({"para_acc_best_threshold": scores["para_acc"]} if "para_acc" in scores else {})


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
    of = result.row
    return {"row": row_id, "label": of.label, "method": method(of), "report": of.report}


def runs_of(results: Results) -> Iterator[tuple[RowResult, dict, dict]]:
    """Every run of these rows: its row's result, its record, and what names row, run and seed in a line of a frame."""
    for row_id, result in results.items():
        for record in result.runs:
            known = {"seed": record.seed, "run_id": record.run_id}
            yield result, record, names_of(row_id, result) | known


def is_trained(of: Row, metric: str) -> bool:
    """Whether the row trains the task of a metric, or all tasks of an overall."""
    trained = {task.name for spec in of.specs if spec.epochs for task in spec.trained_tasks}
    tasks = [task for task, name in METRIC_NAMES.items() if metric.startswith(name.split("_")[0])]
    return trained >= set(tasks or OVERALL_TASKS)


def printed_score(of: Row, metric: str, split: str) -> float:
    """What the row's table prints, or of another split than its own, any table of its report; NaN where none does.

    `overall` is the raw mean and `overall_normalised` SlapBERT's; a report prints one of the two.
    """
    if split == of.split:
        return of.reported.get(metric, np.nan)
    formula = "overall_normalised" if of.report in reported.NORMALISED_OVERALL else "overall"
    if metric in BOTH_OVERALLS and metric != formula:
        return np.nan
    name = "overall" if metric == formula else metric
    return reported.printed_values().get((of.id, split, name), np.nan)


def scores(
    results: Results,
    against: Baselines | None = None,
    metrics: Iterable[str] = tuple(METRICS),
    splits: Iterable[str] = ("dev", "train", "test"),
) -> pd.DataFrame:
    """Every printed and measured score of these rows, and on dev those of the baselines.

    An undefined score of a run is a line without a value; a metric or a split that a run does not have is no line.
    """
    metrics, splits, lines = tuple(metrics), tuple(splits), []
    for row_id, result in results.items():
        lines += _row_scores(row_id, result, HERE, metrics, splits)
    if against and "dev" in splits:
        known = {"row": CONSTANT, "label": CONSTANT_LABEL, "split": "dev", "source": CONSTANT}
        lines += [known | {"metric": m, "value": against.constants[m]} for m in metrics if m in against.constants]
        for row_id, result in against.zero_shot.items():
            lines += _row_scores(row_id, result, ZERO_SHOT, metrics, ("dev",))
    return pd.DataFrame(lines, columns=SCORES).astype({"value": float, "seed": "Int64"})


def _row_scores(
    row_id: str, result: RowResult, source: str, metrics: tuple[str, ...], splits: tuple[str, ...]
) -> Iterator[dict]:
    for split in splits:
        for metric in metrics:
            known = names_of(row_id, result) | {"split": split, "metric": metric}
            printed = printed_score(result.row, metric, split)
            if source == HERE and not np.isnan(printed):
                yield known | {"source": REPORTED, "value": printed}
            for record in result.records:
                if record.has(metric, split):
                    run = {"source": source, "seed": record.seed, "run_id": record.run_id}
                    yield known | run | {"value": record.value(metric, split)}


def history(results: Results) -> pd.DataFrame:
    """Scores on dev and on training examples and the training losses after every epoch.

    split is dev or train (losses, mean over the epoch's examples with dropout on: train). trained names the tasks of
    the epoch's updates: of the phase, where tasks are trained one after the other. last is the run's last epoch. Where
    all three tasks are trained, total_loss is the plain sum of their losses. The untrained head of a frozen encoder
    never changes, so its final dev score stands in every epoch.
    """
    lines = []
    for _, record, known in runs_of(results):
        lines += history_lines(record, known)
    return pd.DataFrame(lines, columns=HISTORY).astype({"value": float}).dropna(subset="value", ignore_index=True)


def history_lines(record: Record, known: dict) -> Iterator[dict]:
    """The lines of one run, each with what is `known` of it."""
    for entry in record["history"]:
        names = ", ".join(TASK_NAMES[task] for task in TASK_NAMES if task in entry["train_loss"])
        place = known | {"epoch": entry["epoch"], "last": record["history"][-1]["epoch"], "trained": names}
        for split, numbers in (("dev", _dev_scores(record, entry)), ("train", entry["train"] | _losses(entry))):
            yield from (place | {"split": split, "metric": name, "value": x} for name, x in numbers.items())


def _dev_scores(record: Record, entry: dict) -> dict[str, float | None]:
    spec = record["spec"]
    fixed = [METRIC_NAMES[t["name"]] for t in spec["tasks"] if spec["encoder"]["frozen"] and not t["trained"]]
    found = entry["dev"] | {name: record.value(name) for name in fixed}
    return found | (overall(found)[0] if fixed else {})


def _losses(entry: dict) -> dict[str, float]:
    losses = entry["train_loss"]
    found = {f"{task}_loss": loss for task, loss in losses.items()}
    return found | ({TOTAL_LOSS: sum(losses.values())} if losses.keys() >= set(OVERALL_TASKS) else {})


def traces(store: RunStore, results: Results, quantities: Iterable[str] = tuple(TRACED)) -> pd.DataFrame:
    """What every update saw: each task's loss, its factor and the length of its gradient on the shared parameters, the
    cosine of two tasks' gradients, and the rate. A quantity that a run did not measure has no line."""
    parts = []
    for _, record, known in runs_of(results):
        probes = store.probes(record.run_id)
        for quantity in quantities:
            if f"trace_{quantity}" in probes:
                table = probes[f"trace_{quantity}"].astype(float)  # (U, K or P), or (U,)
                names = record["trace"].get(TRACED[quantity], ["all"])
                wide = pd.DataFrame(table.reshape(len(table), -1), columns=names).rename_axis("update").reset_index()
                long = wide.melt("update", var_name="of").dropna(subset="value")
                parts.append(long.assign(update=long["update"] + 1, updates=len(wide), quantity=quantity, **known))
    return pd.concat(parts, ignore_index=True)[TRACES] if parts else pd.DataFrame(columns=TRACES)


def paired(frame: pd.DataFrame, base: str) -> pd.DataFrame:
    """Each row's value minus that of the row `base` in the same seed (the printed ones, which have none, among
    themselves), line by line of whatever else the frame tells apart; lines without a partner are left out.

    Args:
        frame: a long frame, or a part of one.
        base: the row that the others are compared with.

    Returns:
        The lines of the other rows, with `base_value` beside `value` and `difference`, value minus base_value.
    """
    keys = [name for name in ("split", "metric", "source", "seed", "epoch") if name in frame]
    partners = frame.loc[frame["row"] == base, [*keys, "value"]].rename(columns={"value": "base_value"})
    both = frame[frame["row"] != base].merge(partners, on=keys)
    return both.assign(difference=both["value"] - both["base_value"]).dropna(subset="difference")
