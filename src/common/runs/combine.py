"""Rows that are not one run: Gu's separate models per task, swissBERT's Table 1, and SlapBERT's random answers.

Each comes out in the form of a record, so that tables need not know; `parts` names the runs behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.declare.tasks import TASKS
from common.runs.record import Record
from common.seeding import stateless_generator
from common.training.evaluate import METRIC_NAMES, OVERALL_TASKS, overall, task_metric

if TYPE_CHECKING:  # it imports this file
    from common.runs.session import Study

SCORES = (0.0, 5.0)  # the range of STS labels


def per_task(records: list[Record]) -> Record:
    """One record out of several runs of one seed: each metric from the run that trained its task.

    share is the smallest of the runs', and the row is under-trained when one of them is.
    """
    values, undefined, tasks = {}, {}, []
    for record in records:
        for task in (task for task in record["spec"]["tasks"] if task["trained"]):
            name = METRIC_NAMES[task["name"]]
            values[name] = record.scores()[name]
            undefined |= {n: reason for n, reason in record["undefined"]["dev"].items() if n == name}
            tasks.append(task)
    several = {
        "run_id": "+".join(record.run_id for record in records),
        "parts": [record.run_id for record in records],
        "share": min(record["share"] for record in records),
        "under_trained": any(record["under_trained"] for record in records),
        "probes": {"examples": [e for record in records for e in record["probes"]["examples"]]},
        "wall_s": sum(record["wall_s"] for record in records),
    }
    return _record(values, undefined, tasks, records[0].seed, several)


def random_answers(lab: Study, seed: int) -> Record:
    """Arbitrary answers to every scored dev example (SlapBERT's RandBERT): a class, a coin, a score, each uniform.

    They are measured once on the labels at hand and kept as a card. The report's 0.375 on Quora is the share of
    paraphrases there: its generator answered "paraphrase" nearly always; a fair coin gives one half.
    """
    measured = lab.card(f"random-s{seed}", lambda: _measure_random(lab, seed))
    tasks = [{"name": name, "trained": False} for name in OVERALL_TASKS]
    none = {
        "run_id": f"random-s{seed}",
        "parts": [],
        "share": 1.0,
        "under_trained": False,
        "probes": {"examples": []},
        "wall_s": 0.0,
    }
    return _record(measured["dev"], measured.get("undefined", {}), tasks, seed, none)


def _measure_random(lab: Study, seed: int) -> dict:
    values, undefined = {}, {}
    for name in OVERALL_TASKS:
        labels, generator = lab.scored(name).labels, stateless_generator(seed, "random answers", name)
        draws = np.random.default_rng(generator.initial_seed())
        if TASKS[name].kind == "score":
            answers = draws.uniform(*SCORES, len(labels))
        else:
            answers = draws.integers(0, TASKS[name].num_classes, len(labels))
        values[METRIC_NAMES[name]], reason = task_metric(name, answers, labels)
        undefined |= {METRIC_NAMES[name]: reason} if reason else {}
    return {"dev": values} | ({"undefined": undefined} if undefined else {})


def _record(values: dict, undefined: dict, tasks: list[dict], seed: int, known: dict) -> Record:
    both, reasons = overall(values)
    scores = {"metrics": {"dev": values | both}, "undefined": {"dev": undefined | reasons}}
    return Record(scores | {"spec": {"seed": seed, "tasks": tasks}, "history": []} | known)
