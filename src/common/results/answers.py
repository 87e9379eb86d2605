"""Single answers: the sentences that reports print, what another model answers otherwise, how far a miss is off."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.declare.reported import examples
from common.declare.spec import TaskSpec
from common.declare.tasks import TASK_NAMES, TASKS
from common.results.facts import labels_card
from common.results.long import runs_of
from common.runs.session import Results, RowResult, Study
from common.training.evaluate import predict

# An STS score, 0 to 5, that moved by no more than this counts as unchanged.
STS_CHANGE = 0.25
UNPRINTED, ILLEGIBLE, UNPREDICTED = "not printed", "illegible", "not predicted"


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
            column = f"here {name}".rstrip() + f", seed {record.seed}"
            line[column] = _shown(task, ours.get((example["id"], *texts)), UNPREDICTED)
        lines.append(line)
    frame = pd.DataFrame(lines, dtype=object)
    return frame.fillna({column: UNPRINTED for column in frame if column.startswith("reported")})


def _shown(task: str, number: float | None, otherwise: str) -> int | float | str:
    """A class as a whole number, a score as it is, or the word that says why there is none."""
    if number is None:
        return otherwise
    return int(number) if TASKS[task].kind == "classes" else float(number)


def changed_frame(lab: Study, before: RowResult, after: RowResult) -> pd.DataFrame:
    """How many dev predictions differ between two models of one seed, and which way; one line per seed and group.

    An STS score changed when it moved by more than STS_CHANGE, and is better when it is nearer to its label; a class is
    better when it became right, worse when it became wrong, and else wrong both times.
    """
    lines, first, labels = [], {record.seed: record for record in before.runs}, labels_card(lab)
    for record in (record for record in after.runs if record.seed in first):
        ids = [first[record.seed]["run_id"], record.run_id]
        scores = [lab.store.predictions(run_id) for run_id in ids]
        for task in (task for task in after.row.specs[0].tasks if task.name in labels):
            old, new = (_predicted(task, outputs[task.name]) for outputs in scores)
            for group, chosen in _groups(task.name, labels[task.name]).items():
                counts = _counts(task.name, old[chosen], new[chosen], labels[task.name][chosen])
                lines.append({"dev examples": group, "seed": record.seed} | counts)
    return pd.DataFrame(lines, columns=["dev examples", "seed", "n", "changed", "better", "worse", "neither", "share"])


def miss_table(lab: Study, results: Results) -> pd.DataFrame:
    """Wrong SST dev answers by how many classes they miss the label, one line a run.

    `1 away by chance` is the share that would be expected of answers drawn from the frequencies of the other labels.
    """
    lines, labels = [], labels_card(lab)["sst"]
    shares = np.bincount(labels) / len(labels)
    for result, record, _ in runs_of(results):
        answers = lab.store.predictions(record.run_id)["sst"].argmax(axis=1)
        wrong, missed = labels[answers != labels], np.abs(answers - labels)[answers != labels]
        near = (np.abs(np.arange(len(shares)) - wrong[:, None]) == 1) @ shares / (1 - shares[wrong])
        line = {"model": result.row.label, "seed": record.seed, "n": len(labels), "errors": len(wrong)}
        line |= {f"{miss} away": (missed == miss).sum() / max(len(wrong), 1) for miss in range(1, 5)}
        lines.append(line | {"1 away by chance": near.sum() / max(len(wrong), 1)})
    return pd.DataFrame(lines)


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
