"""A worker process: reads one job a line, trains it, answers with events, keeps corpus and tokens for the next.

Started by `execute.Pool`; it ends when its input ends, so none outlives its owner. Whatever libraries print, and the
traceback of an unexpected error, goes to the log of the run; standard output carries events only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from common.data import sources
from common.errors import StudyError
from common.model.weights import resolve_encoder
from common.paths import places
from common.spec import RunSpec, profile_named, to_dict
from common.study.rows import examples
from common.study.store import BusyError, RunStore, atomic_write
from common.training import loop

PROGRESS_EVERY_S = 0.5
OUT_OF_MEMORY = 137  # the exit code of a process that the system killed for lack of memory

Send = Callable[[dict], None]


def main() -> None:
    """Serve jobs until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    _redirect(2)

    def send(event: dict) -> None:
        answers.write(json.dumps(event) + "\n")
        answers.flush()

    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        send(serve(json.loads(requests.get()), send))
        gc.collect()  # a model and its optimiser refer to each other: two of them would not fit beside a third


def serve(request: dict, send: Send) -> dict:
    """Train one job; its last event. Only this job fails, whatever happens."""
    log = Path(request["log"])
    try:
        return _train(request, log, send)
    except BusyError:
        return {"event": "busy"}
    except StudyError as error:
        return {"event": "failed", "message": error.message(), "log": None}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # a fresh worker takes the next job
    except Exception as error:  # the boundary of one run: told in one line here, in full in the log
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        return {"event": "failed", "message": line, "log": str(log) if log.exists() else None}


def _train(request: dict, log: Path, send: Send) -> dict:
    os.environ["STUDY_OUT"] = request["out"]
    store, started = RunStore(places(request["profile"])), time.monotonic()
    with store.lock(request["run_id"], wait=request["wait"]):
        # Another process may have trained it since it was asked for.
        is_cached = store.present(request["run_id"]) and not request["force"]
        if is_cached:
            store.get(request["run_id"])
        else:
            send({"event": "started"})
            with _logged(log):
                _run(request, store, send)
    return {"event": "finished", "is_cached": is_cached, "wall_s": time.monotonic() - started}


def _run(request: dict, store: RunStore, send: Send) -> None:
    profile = profile_named(request["profile"])
    spec, written = RunSpec.from_dict(request["spec"]), RunSpec.from_dict(request["written"])
    materials = _materials(request["data"], request["encoder"], places(profile.name).encoders)
    kept = loop.Checkpoint(places(profile.name).checkpoints / request["run_id"], atomic_write)
    outcome = loop.run(spec, materials, profile.threads, _throttled(send), profile.device, kept)
    described = {
        "run_id": request["run_id"],
        "spec": to_dict(spec),
        "written": to_dict(written),
        "profile": profile.name,
        "share": profile.share(written, spec),
    }
    store.write(outcome.record | described, outcome.predictions, outcome.probes)
    kept.path.unlink(missing_ok=True)


@functools.cache
def _materials(data: str, encoder: str, cache: Path) -> loop.Materials:
    return loop.Materials(sources.load(data), resolve_encoder(encoder), examples(), data, cache)


def _throttled(send: Send) -> loop.Progress:
    last = 0.0

    def progress(done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY_S or done >= total:
            last = time.monotonic()
            send({"event": "progress", "done": done, "total": total, "note": note})

    return progress


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send everything printed, and the traceback of an error, to that file; remove it when it stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    with open(path, "w", encoding="utf-8") as log:
        _redirect(log.fileno())
        faulthandler.enable(file=log)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, StudyError):
                traceback.print_exc(file=log)
            raise
        finally:
            faulthandler.disable()
            _redirect(kept)
            os.close(kept)
    if path.stat().st_size == 0:
        path.unlink()


def _redirect(descriptor: int) -> None:
    """Send everything that is printed from now on to that file, by whatever library."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _listen(requests: queue.SimpleQueue[str]) -> None:
    """Queue what is asked; when the owner is gone, end at once (what is in the store is whole)."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
