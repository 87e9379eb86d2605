"""Records of runs made by hand, for what reads records: nothing here is trained and nothing is a result."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from common import rows
from common.declare.profile import profile_named
from common.declare.rows import row
from common.declare.strict import to_dict
from common.runs.session import Results, RowResult

PAIR, APART, COSINE = "swissbert_pair", "swissbert_no_extension", "swissbert_cosine_similarity"
ZERO = "swissbert_zero_shot_cosine"
BASELINE, SMART, PCGRAD = "siar_baseline_sst", "siar_smart_sst_lam10", "siar_mtl_pcgrad"
METRIC_OF = {"sst": "sst_acc", "para": "para_acc", "sts": "sts_corr"}
MODELS = {row.id: row for row in rows("bertpp", "table2")}  # each builds on another: a chain with two side branches
HEADS = {"para_acc": [0.375, 0.5, 0.625], "sts_corr": [-0.1, 0.02, None]}


def record(row_id: str, seed: int, undefined: dict | None = None, **metrics: float | None) -> dict:
    """One epoch with these dev scores."""
    spec = replace(row(row_id).specs[0], seed=seed)
    return {
        "run_id": spec.run_id,
        "row": {"id": row_id, "label": row(row_id).label, "report": row(row_id).report},
        "spec": to_dict(spec),
        "share": 0.05,
        "under_trained": True,
        "metrics": {"dev": metrics},
        "undefined": {"dev": undefined or {}},
        "history": [{"epoch": 1, "train_loss": {"sst": 1.5}, "dev": metrics, "train": metrics}],
        "probes": {"examples": []},
    }


def result(row_id: str, *records: dict, failures: tuple = (), coincides_with: str | None = None) -> RowResult:
    return RowResult(row(row_id), records, failures, coincides_with)


def grown(row_id: str, seed: int, *epochs: tuple[str, float, float]) -> dict:
    """A record whose epochs are (task trained, train accuracy, dev accuracy) of SST."""
    history = [
        {"epoch": i, "train_loss": {task: 1.0}, "train": {"sst_acc": train}, "dev": {"sst_acc": dev}}
        for i, (task, train, dev) in enumerate(epochs, start=1)
    ]
    return record(row_id, seed) | {"history": history}


def named_run(run_id: str, seed: int = 0, **fields: object) -> dict:
    """Two epochs of one model of three tasks, under an id of the test's own."""
    values = {"sst_acc": 0.5, "para_acc": 0.6, "sts_corr": 0.3, "overall": 0.4}
    return {
        "run_id": run_id,
        "spec": {"seed": seed, "tasks": [{"name": name} for name in METRIC_OF]},
        "metrics": {"dev": values, "train": {name: number + 0.1 for name, number in values.items()}},
        "history": [{"epoch": 1, "wall_s": 2.0, "dev": values}, {"epoch": 2, "wall_s": 4.0, "dev": values}],
        "counts": {"updates": 12, "examples": {"sst": 100, "para": 20}},
        "untrained_heads": {},
        "trace": {"tasks": ["sst", "para", "sts"], "pairs": ["para-sts", "sst-para", "sst-sts"]},
    } | fields


def told_apart(number: int, seed: int, epoch: int) -> dict[str, float]:
    """Three metrics that tell model, seed and epoch apart."""
    base = 0.3 + 0.02 * number + 0.003 * seed + 0.001 * epoch
    return {"sst_acc": base, "para_acc": base + 0.2, "sts_corr": base - 0.1}


def with_overall(values: dict[str, float]) -> dict[str, float]:
    return values | {"overall": sum(values[name] for name in METRIC_OF.values()) / 3}


def study(seeds: tuple[int, ...] = (0, 1), epochs: int = 3, failed: tuple[str, ...] = ()) -> Results:
    """Every model of MODELS. An epoch holds the dev scores of the trained tasks alone, as a run writes it."""
    return Results(
        (name, RowResult(of, () if name in failed else tuple(_model(name, seed, epochs) for seed in seeds)))
        for name, of in MODELS.items()
    )


def _model(row_id: str, seed: int, epochs: int) -> dict:
    number, spec = list(MODELS).index(row_id), profile_named("quick").apply(MODELS[row_id].specs[0])
    trained = [task.name for task in spec.trained_tasks]
    history = []
    for epoch in range(1, epochs + 1):
        dev = {METRIC_OF[task]: told_apart(number, seed, epoch)[METRIC_OF[task]] for task in trained}
        dev["overall"] = with_overall(dev)["overall"] if len(trained) == 3 else None
        losses = {task: place + 1 / epoch + number for place, task in enumerate(trained)}
        history.append({"epoch": epoch, "train_loss": losses, "dev": dev, "train": {}})
    made = {"run_id": f"{row_id}-s{seed}", "spec": to_dict(spec) | {"seed": seed}, "history": history}
    made["metrics"] = {"dev": with_overall(told_apart(number, seed, epochs))}
    return made | {"untrained_heads": HEADS if len(trained) == 1 else {}}


class Arrays:
    """A store that holds arrays alone: `Arrays(**{"a-s0": {...}})`, or the same ones for every run."""

    def __init__(self, every: dict[str, np.ndarray] | None = None, **runs: dict[str, np.ndarray]):
        self.every, self.runs = every or {}, runs

    def probes(self, run_id: str) -> dict[str, np.ndarray]:
        return self.runs.get(run_id, self.every)

    def predictions(self, run_id: str) -> dict[str, np.ndarray]:
        return {"sst": self.runs[run_id]["scores"]}


def with_arrays(row_id: str, *run_ids: str, **fields: object) -> RowResult:
    """A row with one run a seed, of which only the arrays of a store are read."""
    records = [{"run_id": name, "spec": {"seed": seed}, **fields} for seed, name in enumerate(run_ids)]
    return RowResult(row(row_id), tuple(records))


def failure(seed: int) -> SimpleNamespace:
    return SimpleNamespace(seed=seed, run_id=f"abc-s{seed}", message="E-NONFINITE: the loss is nan", log=None)
