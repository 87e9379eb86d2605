"""Dev and test predictions of rows or runs, as the leaderboard of the CS224N starter reads them, made on demand.

They come from kept weights; what these answer on dev must be what the store holds. Source of names and lines:
`multitask_classifier.py` of the starter; the spelling and the blanks are its own. We differ: test rows stand in the
file's order, where the starter shuffles them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common.data.sources import FILES
from common.data.split import Split
from common.declare.spec import TaskSpec
from common.errors import StudyError
from common.files import atomic_write
from common.runs import models
from common.runs.record import Record
from common.runs.session import Planned, Study
from common.training import evaluate, loop

HEADERS = {
    "sst": "id \t Predicted_Sentiment ",
    "para": "id \t Predicted_Is_Paraphrase ",
    "sts": "id \t Predicted_Similiary ",
}
SPLITS = ("dev", "test")
HALF = np.finfo(np.float16)


def export(study: Study, name: str) -> list[Path]:
    """Write `{sst,para,sts}-{dev,test}-output.csv` of a row, for each of the study's seeds, or of one stored run.

    A model that is not kept is trained first. Says what it writes and what it leaves out.

    Returns:
        The folders of the files, `predictions/<run_id>` beside the profile's runs.

    Raises:
        StudyError: as `Study.find` and `Study.keep`; E-DIFFERENT where the model is not the one in the store (nothing
            is written).
    """
    plans = study.find(name)
    runs = models.load_runs(study, plans)
    torch.set_num_threads(study.profile.threads or torch.get_num_threads())  # sums depend on it
    return [_export(study, plan, run) for plan, run in zip(plans, runs, strict=True)]


def _export(study: Study, plan: Planned, run: models.KeptRun) -> Path:
    corpus, folder, spec = study.corpus(), study.places.predictions / plan.run_id, run.record.spec
    splits = {split: {t: corpus[t][split] for t in HEADERS if split in corpus.get(t, {})} for split in SPLITS}
    print(plan, flush=True)
    outputs = {
        split: {task: run.outputs(task, rows) for task, rows in found.items() if task in run.record.tasks}
        for split, found in splits.items()
    }
    _refuse_another(plan, study, outputs["dev"])
    for task in HEADERS:
        if task not in outputs["dev"]:
            print(f"{task}: not written, the run has no such task.")
            continue
        for split in SPLITS:
            _write(folder, spec.task(task), split, splits[split].get(task), outputs[split].get(task))
    return folder


def _changed(study: Study, record: Record) -> str:
    """What is not as it was when the run was trained, in words; empty where nothing differs."""
    then, now = record["environment"], loop.environment()
    names = [name for name in now if name != "threads" and then.get(name) != now[name]]
    return ", ".join([*study.stale(record), *names])


def _refuse_another(plan: Planned, study: Study, dev: dict[str, np.ndarray]) -> None:
    """Compare with the stored dev scores, which are in half precision: one unit in its last place is let pass."""
    stored, differing = study.store.predictions(plan.run_id), []
    for task, everything in dev.items():
        scores = everything[evaluate.sample(len(everything), study.profile.final_examples, task)]
        then = stored[task].reshape(len(stored[task]), -1)
        if scores.shape != then.shape:
            differing.append(f"{task} ({len(then)} examples then, {len(scores)} now)")
        elif not np.isclose(scores, then, rtol=HALF.eps, atol=HALF.smallest_subnormal).all():
            differing.append(f"{task} (by up to {np.abs(scores - then).max():.3g})")
    if differing:
        what = f"the dev scores of its weights are not the stored ones: {', '.join(differing)}."
        changed = _changed(study, study.store.get(plan.run_id))
        cause = f"Not as it was then: {changed}. " if changed else ""
        fix = f"{cause}Train it anew on this machine: ./run_all.sh --profile {study.profile.name} --force"
        raise StudyError("E-DIFFERENT", str(plan), what, fix)


def _write(folder: Path, task: TaskSpec, split: str, source: Split | None, outputs: np.ndarray | None) -> None:
    name, left_out = f"{task.name}-{split}-output.csv", ""
    if source is None:
        print(f"{name}: not written, the data have no such split; a folder has it in {FILES[task.name][split]}.")
        return
    values = evaluate.predict(task, outputs)
    values = values.astype(np.float32) if task.name == "para" else values  # the starter rounds a probability: 1.0
    lines = [HEADERS[task.name], *(f"{key} , {value} " for key, value in zip(source.ids, values, strict=True)), ""]
    atomic_write(folder / name, "\n".join(lines).encode())
    if source.left_out:
        left_out = f"; without rows that the source has broken: {', '.join(source.left_out)}"
    print(f"{name}: {len(source):,} rows{left_out}")
