"""Dev and test predictions of a finished run, as the leaderboard of the CS224N starter reads them, made on demand.

No weights are kept, but a run is deterministic: it is trained again from its record, and what the model then answers on
dev must be what the store holds. Source of names and lines: `multitask_classifier.py` of the starter; the spelling and
the blanks are its own. We differ: test rows stand in the file's order, where the starter shuffles them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common import paths
from common.data.encoding import Layout, input_limit, load_tokenizer
from common.data.sources import FILES
from common.data.split import Split
from common.declare.profile import PROFILES
from common.declare.spec import RunSpec, TaskSpec
from common.declare.strict import meant
from common.errors import StudyError
from common.files import atomic_write
from common.model.heads import MultitaskModel
from common.runs.progress import Progress
from common.runs.record import Record
from common.runs.session import Study
from common.training import evaluate, loop

HEADERS = {
    "sst": "id \t Predicted_Sentiment ",
    "para": "id \t Predicted_Is_Paraphrase ",
    "sts": "id \t Predicted_Similiary ",
}
SPLITS = ("dev", "test")
HALF = np.finfo(np.float16)


def export(study: Study, run_id: str) -> Path:
    """Train a finished run again and write `{sst,para,sts}-{dev,test}-output.csv`; says what it writes and leaves out.

    Returns:
        The folder of the files, `predictions/<run_id>` beside the profile's runs.

    Raises:
        StudyError: E-MISSING where the profile holds no such run, E-DATA where it was trained with another source or
            encoder, E-DIFFERENT where the model trained again is not the one in the store (nothing is written).
    """
    record = _find(study, run_id)
    spec = record.spec
    _check_names(study, run_id, spec)
    corpus, folder = study.corpus(), study.places.predictions / run_id
    materials = loop.Materials(corpus, study.encoder_folder(), source=study.source, cache=study.places.encoders)
    changed = _changed(study, record)
    print(f"Training {run_id} again{changed and f', though not all is as it was then: {changed}'}.", flush=True)
    model = _train(study, spec, materials)
    torch.set_num_threads(study.profile.threads or torch.get_num_threads())  # sums depend on it
    outputs = {split: _score(model, spec, materials, split) for split in SPLITS}
    _refuse_another(run_id, study, outputs["dev"], changed)
    for task in HEADERS:
        if task not in outputs["dev"]:
            print(f"{task}: not written, the run has no such task.")
            continue
        for split in SPLITS:
            _write(folder, spec.task(task), split, corpus[task].get(split), outputs[split].get(task))
    return folder


def _find(study: Study, run_id: str) -> dict:
    """The record; an unknown id is answered with the profile that has it, or those like it."""
    runs = {name: sorted(path.name for path in paths.places(name).runs.glob("*-s*")) for name in PROFILES}
    name = study.profile.name
    if run_id in runs[name]:
        return study.store.get(run_id)
    owner = next((profile for profile, ids in runs.items() if run_id in ids), None)
    what = f"profile {name} holds no such run{f', profile {owner} does' if owner else ''}."
    listed = f"The ids are the names of the folders in {study.places.runs}.{meant(run_id, runs[name])}"
    raise StudyError("E-MISSING", run_id, what, f"Add --profile {owner}." if owner else listed)


def _check_names(study: Study, run_id: str, spec: RunSpec) -> None:
    then, here = (spec.data, spec.encoder.checkpoint), (study.data, study.encoder)
    if then != here:
        what = f"its data and encoder were {' and '.join(then)}; here they are {' and '.join(here)}."
        raise StudyError("E-DATA", run_id, what, "Give --data and --encoder as they were for its training.")


def _changed(study: Study, record: Record) -> str:
    """What is not as it was when the run was trained, in words; empty where nothing differs."""
    then, now = record["environment"], loop.environment()
    names = [name for name in now if name != "threads" and then.get(name) != now[name]]
    return ", ".join([*study.stale(record), *names])


def _train(study: Study, spec: RunSpec, materials: loop.Materials) -> MultitaskModel:
    event, watch = {"event": "progress", "run_id": spec.run_id}, Progress(title=spec.run_id)

    def progress(done: int, total: int, note: str) -> None:
        watch({**event, "done": done, "total": total})

    try:
        return loop.run(spec, materials, study.profile.threads, progress, study.profile.device).model
    finally:
        watch.close()


def _score(model: MultitaskModel, spec: RunSpec, materials: loop.Materials, split: str) -> dict[str, np.ndarray]:
    """Task -> (N, C) head outputs in the order of the source; without the tasks whose source lacks the split."""
    tokenizer = load_tokenizer(materials.encoder_folder, input_limit(model.encoder.config.max_position_embeddings))
    tasks = [task for task in spec.tasks if task.name in HEADERS and split in materials.corpus[task.name]]
    tokens = {task.name: materials.tokens(task.name, split, Layout.of(task), tokenizer) for task in tasks}
    return {name: evaluate.score(model, name, encoded) for name, encoded in tokens.items()}


def _refuse_another(run_id: str, study: Study, dev: dict[str, np.ndarray], changed: str) -> None:
    """Compare with the stored dev scores, which are in half precision: one unit in its last place is let pass."""
    stored, differing = study.store.predictions(run_id), []
    for task, everything in dev.items():
        scores = everything[evaluate.sample(len(everything), study.profile.final_examples, task)]
        then = stored[task].reshape(len(stored[task]), -1)
        if scores.shape != then.shape:
            differing.append(f"{task} ({len(then)} examples then, {len(scores)} now)")
        elif not np.isclose(scores, then, rtol=HALF.eps, atol=HALF.smallest_subnormal).all():
            differing.append(f"{task} (by up to {np.abs(scores - then).max():.3g})")
    if differing:
        what = f"trained again, its dev scores are not the stored ones: {', '.join(differing)}."
        cause = f"Not as it was then: {changed}. " if changed else ""
        fix = f"{cause}Train it anew on this machine: ./run_all.sh --profile {study.profile.name} --force"
        raise StudyError("E-DIFFERENT", run_id, what, fix)


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
