"""How long runs will take here: tokens that pass the encoder, over a rate measured on this machine.

Tokens compare rows better than examples do: a pair has twice as many as a sentence, SMART passes them three times, and
evaluation passes them too. What is not counted (optimiser, small operations) is in the measured rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from common.declare.profile import REPORT_TRAIN
from common.declare.rows import row
from common.declare.spec import RunSpec
from common.declare.tasks import TASKS
from common.runs.session import Study
from common.training import loop

# Mean tokens of an example with its special ones, both sentences of a pair counted (measured on the starter's data).
TOKENS = {"sst": 23, "para": 31, "sts": 31, "cfimdb": 250}
BACKWARD = 3  # an update against a forward pass alone
SMART = 3  # an update with SMART against one without: measured in benchmarks/methods.py
CALIBRATION_ROW, CALIBRATION_EXAMPLES = "swissbert_pair", 160


def passed_tokens(spec: RunSpec) -> float:
    """Tokens that a run passes through the encoder, one of an update counted as BACKWARD of an evaluation."""
    trained = {task.name: TOKENS[task.name] for task in spec.trained_tasks}
    smart = spec.smart.tasks if spec.smart else ()
    is_even = spec.schedule.kind in ("joint", "interleaved", "biased") and spec.schedule.stop != "longest"
    drawn = spec.examples_per_epoch(REPORT_TRAIN)
    weights = {name: 1 if is_even else count for name, count in drawn.items()}
    passes = sum(weights[name] * trained[name] * (SMART if name in smart else 1) for name in trained)
    updates = BACKWARD * spec.total_examples(REPORT_TRAIN) * passes / max(1, sum(weights.values()))
    per_epoch = sum(
        count * (min(spec.dev_examples or TASKS[name].report_dev, TASKS[name].report_dev) + (spec.train_examples or 0))
        for name, count in trained.items()
    )
    final = sum(
        TOKENS[task.name] * min(spec.final_examples or TASKS[task.name].report_dev, TASKS[task.name].report_dev)
        for task in spec.tasks
    )
    return updates + spec.total_epochs * per_epoch + final


def measured_rate(study: Study) -> float:
    """Tokens a second of one run on this machine, from one short epoch of a joint pair model."""
    spec = replace(study.apply(row(CALIBRATION_ROW).specs[0], seed=0), epochs=1)
    spec = replace(spec, dev_examples=8, train_examples=8, final_examples=8)
    spec = spec.with_tasks(**{task.name: {"examples": CALIBRATION_EXAMPLES} for task in spec.tasks})
    materials = loop.Materials(study.corpus(), study.encoder_folder(), source=study.source)
    record = loop.run(spec, materials, study.profile.threads, device=study.profile.device).record
    return passed_tokens(spec) / record["history"][0]["wall_s"]


def estimated_hours(specs: Iterable[RunSpec], rate: float, jobs: int) -> float:
    """Hours that these runs take, `jobs` at once."""
    return sum(map(passed_tokens, specs)) / rate / jobs / 3600
