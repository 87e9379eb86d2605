"""One run, from a job to the files of its record: what a worker does, on this machine or on another.

Corpus and tokens stay in the process for the next job. Who calls this writes the files into the store and deletes the
run's checkpoint.
"""

from __future__ import annotations

import functools
import gc
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from common.data import sources
from common.declare.profile import profile_named
from common.declare.rows import examples
from common.declare.spec import RunSpec
from common.declare.strict import to_dict
from common.errors import StudyError
from common.files import atomic_write
from common.model.weights import resolve_encoder
from common.runs import models
from common.runs.pool import Event, Job
from common.runs.store import RECORD, packed
from common.training import loop

# What the allocators of C libraries and the system say when there is no memory left.
NO_MEMORY = ("can't allocate memory", "bad_alloc", "Cannot allocate memory")


def train(job: Job, report: loop.Progress) -> dict[str, bytes]:
    """The files of the record of a run, by name.

    Args:
        job: what to train.
        report: called with (examples done, examples in all, note) after every update.
    """
    profile = profile_named(job.profile)
    spec, written = RunSpec.from_dict(job.spec), RunSpec.from_dict(job.written)
    kept = loop.Checkpoint(Path(job.checkpoint), atomic_write)
    outcome = loop.run(
        spec, materials(job.data, job.encoder, Path(job.encoders)), profile.threads, report, profile.device, kept
    )
    described = {
        "run_id": job.run_id,
        "row": job.row,
        "spec": to_dict(spec),
        "written": to_dict(written),
        "profile": profile.name,
        "share": profile.share(written, spec),
    }
    files = packed(outcome.record | described, outcome.predictions, outcome.probes)
    if job.weights:
        models.save(Path(job.weights), outcome.model, json.loads(files[RECORD]), resolve_encoder(job.encoder))
    return files


@functools.cache
def materials(data: str, encoder: str, cache: Path) -> loop.Materials:
    """What all runs on that data and encoder share; loaded once a process."""
    loaded = loop.Materials(sources.load(data), resolve_encoder(encoder), examples(), data, cache)
    gc.collect()
    gc.freeze()  # it lives as long as the process: the collections between runs need not look at it
    return loaded


def attempt(job: Job, report: loop.Progress) -> Event:
    """Train a job; `finished` with its files, or `failed` with one line and the traceback of what nobody expected."""
    started, details = time.monotonic(), ""
    try:
        return {"event": "finished", "files": train(job, report), "wall_s": time.monotonic() - started}
    except StudyError as error:
        message = error.message()
    except Exception as error:  # the boundary of one run: only this one fails, whatever happens
        details, line = traceback.format_exc(), f"{type(error).__name__}: {error}".split("\n")[0]
        message = f"out of memory ({line}). Use fewer --jobs." if _lacks_memory(error) else line
    finally:
        gc.collect()  # a model and its optimiser refer to each other: two of them would not fit beside a third
    return {"event": "failed", "message": message, "details": details}


def watched(tell: Callable[[Event], None], every_s: float) -> loop.Progress:
    """What to call after each update, so that `tell` hears of it at most so often."""
    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s or done >= total:
            last = time.monotonic()
            tell({"event": "progress", "done": done, "total": total, "note": note})

    return report


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in NO_MEMORY)
