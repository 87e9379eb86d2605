"""Many machines: the jobs of a study on a Dask cluster that its user has started (README says how).

A worker has a checkout, data and an encoder of its own, with the hashes of the caller's, or it is refused. It keeps
finished runs in its own store and gives back the bytes of their files, so no folder is shared. A run whose worker dies
is trained again elsewhere; the scheduler gives it up after the third. Used as `pool.Pool` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import queue
import ssl
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import distributed
from distributed.scheduler import KilledWorker
from distributed.worker import thread_state

from common import paths
from common.errors import StudyError
from common.paths import places
from common.runs.pool import LOOK_EVERY_S, TELL_EVERY_S, Event, Job, Watch
from common.runs.progress import terminal
from common.runs.record import Record
from common.runs.store import RunStore
from common.runs.train import materials
from common.training.loop import code_hash

TOPIC = "study"
CONNECT_S = 10
COUNT_EVERY_S = 2.0
CLOSE_AFTER_S = 0.2  # what a refused worker has to say is then on its way


@dataclass(frozen=True)
class Origin:
    """What the caller's runs are trained with; a worker's must be the same."""

    profile: str
    source: str  # the data, a name or a path
    encoder: str  # as source
    data: dict[str, str]  # task -> hash
    encoder_hashes: dict[str, str]  # of weights, config and tokenizer
    code: str

    def here(self) -> Origin:
        """The same of this machine, where STUDY_DATA and STUDY_ENCODER may name other places.

        Raises:
            StudyError: data or encoder are not here.
        """
        source, encoder = os.environ.get("STUDY_DATA", self.source), os.environ.get("STUDY_ENCODER", self.encoder)
        shared = materials(source, encoder, places(self.profile).encoders)
        hashes = {"data": shared.data_hashes, "encoder_hashes": shared.encoder_hashes, "code": code_hash()}
        return replace(self, source=source, encoder=encoder, **hashes)

    def made(self, record: Record) -> bool:
        """Whether a record in a worker's store comes from here: its code may have been another when it was trained."""
        hashes = dict(record["hashes"])
        then = replace(self, data=hashes.pop("data"), encoder_hashes=hashes, code=record["environment"]["code"])
        return not then.differences(self)

    def differences(self, other: Origin) -> list[str]:
        """What of the other is not as here: code, encoder, or names of data sets."""
        names = [f"data of {name}" for name, digest in self.data.items() if other.data.get(name) != digest]
        names += [name for name, digest in self.encoder_hashes.items() if other.encoder_hashes.get(name) != digest]
        return names + ["code"] * (self.code != other.code)


class Cluster:
    """The workers of the scheduler at that address.

    Args:
        address: tls://host:port, or tcp://host:port for one without TLS.
        origin: what runs are trained with.
        module: as Pool's.
    """

    def __init__(self, address: str, origin: Origin, module: str = "common.runs.train"):
        self.address, self._origin, self._module = address, origin, module

    def run(self, jobs: Iterable[Job], store: RunStore, watch: Watch) -> dict[str, Event]:
        """Train all jobs into the store; the last event of each (`finished` or `failed`) by run id.

        Raises:
            StudyError: E-CLUSTER when the scheduler cannot be reached or is gone, or all workers are refused.
        """
        left = {job.run_id: job for job in jobs}
        told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        for job in left.values():
            watch({"event": "queued", "total": job.examples, "run_id": job.run_id, "label": job.label})
        with contextlib.closing(_connect(self.address)) as client:
            client.subscribe_topic(TOPIC, lambda event: told.put(event[1]))
            guard = Guard(self._origin)
            client.register_plugin(guard, name=guard.name)
            futures = {
                job.run_id: client.submit(work, job, guard, self._module, priority=job.examples, pure=False)
                for job in left.values()
            }
            try:
                return self._collect(client, futures, left, store, watch, told)
            finally:
                with contextlib.suppress(OSError, TimeoutError):  # a scheduler that is gone: that has been said
                    client.cancel(list(futures.values()))
                    client.unregister_worker_plugin(guard.name)

    def _collect(self, client, futures: dict, jobs: dict[str, Job], store: RunStore, watch: Watch, told) -> dict:
        events, started, refused, workers, next_look = {}, set(), {}, None, 0.0
        while futures:
            time.sleep(LOOK_EVERY_S)
            while not told.empty():
                self._pass_on(told.get(), jobs, events, started, refused, watch)
            if time.monotonic() > next_look:
                workers, next_look = self._workers(client, refused, workers), time.monotonic() + COUNT_EVERY_S
            for run_id in [run_id for run_id, future in futures.items() if future.done()]:
                event = self._settled(client, futures[run_id], jobs[run_id], store)
                watch({**event, "run_id": run_id, "label": jobs[run_id].label})
                events[run_id] = event | {"label": jobs[run_id].label}
                futures.pop(run_id).release()  # else it would be trained again when the worker that holds it dies
        return events

    def _workers(self, client: distributed.Client, refused: dict[str, str], before: int | None) -> int:
        """How many workers there are; says when that has changed, and refuses to wait where none will fit."""
        if client.status != "running":
            raise self._gone()
        count = len(client.nthreads())
        if refused and not count:
            what, problems = "no worker fits the caller.", tuple(f"{name}: {why}" for name, why in refused.items())
            raise StudyError("E-CLUSTER", self.address, what, "Mend and start the workers again.", problems)
        if count != before:
            print(f"Workers: {count or 'none yet, waiting for the first'}.", file=terminal())
        return count

    def _settled(self, client, future: distributed.Future, job: Job, store: RunStore) -> Event:
        """What became of a run; its files are then in the store, its traceback in its log."""
        try:
            event = {"is_cached": False, **future.result()}
            if "files" in event:
                with store.lock(job.run_id):
                    store.adopt(job.run_id, event.pop("files"))
            log, details = Path(job.log), event.pop("details", "")
            if details:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(details, encoding="utf-8")
            return event | ({"log": str(log) if details else None} if event["event"] == "failed" else {})
        except StudyError as error:  # its record cannot be written
            message = error.message()
        except KilledWorker as error:
            message = f"three workers died while they trained it, the last at {error.last_worker.address}."
        except Exception as error:  # what Dask could not do for this run
            if client.status != "running":
                raise self._gone() from error
            message = f"{type(error).__name__}: {error}".split("\n")[0]
        return {"event": "failed", "message": message, "log": None}

    def _gone(self) -> StudyError:
        fix = "Start it again, and this command: finished runs are kept, and workers keep theirs."
        return StudyError("E-CLUSTER", self.address, "the scheduler is gone.", fix)

    def _pass_on(self, event: Event, jobs: dict, events: dict, started: set, refused: dict, watch: Watch) -> None:
        """Tell what a worker told, where it is of ours."""
        if event["event"] == "refused":
            if event["worker"] not in refused:
                print(f"Worker {event['worker']} is refused: {event['reason']}", file=terminal())
            refused[event["worker"]] = event["reason"]
        elif (run_id := event["run_id"]) in jobs and run_id not in events:
            named = {"run_id": run_id, "label": jobs[run_id].label}
            if run_id not in started:
                started.add(run_id)
                watch({"event": "started", **named})
            watch(event | named)


class Guard(distributed.WorkerPlugin):
    """Refuses a worker that would train something else than the caller: it says why and ends."""

    def __init__(self, origin: Origin):
        self.origin, self.name = origin, f"study-{uuid.uuid4().hex}"

    async def setup(self, worker: distributed.Worker) -> None:
        """Called on every worker, also on those that join later."""
        reason = await asyncio.to_thread(self.reason)
        if reason:
            told = {"event": "refused", "worker": worker.address, "reason": reason}
            worker.log_event(TOPIC, told)
            worker.loop.call_later(CLOSE_AFTER_S, worker.close, reason="study-refused")

    def reason(self) -> str | None:
        """Why this process must not train for the caller."""
        try:
            names = self.origin.differences(self.origin.here())
        except StudyError as error:
            return f"{error} (STUDY_DATA and STUDY_ENCODER say where they are on this machine)"
        return f"it has another {', '.join(names)}" if names else None


class _CancelledError(BaseException):
    """The caller does not want this run any more."""


def work(job: Job, guard: Guard, module: str) -> Event:
    """On a worker: take the run from the store here, or train it into that; its last event."""
    worker, key = distributed.get_worker(), thread_state.key
    if guard.reason():
        raise distributed.Reschedule
    out, train = places(job.profile), importlib.import_module(module)
    store, own = RunStore(out), guard.origin.here()
    if not job.force and store.has(job.run_id) and own.made(store.get(job.run_id)):
        return {"event": "finished", "files": store.files(job.run_id), "is_cached": True}
    names = {"data": own.source, "encoder": own.encoder, "encoders": str(out.encoders)}
    here = replace(job, **names, checkpoint=str(out.checkpoints / job.run_id))

    def tell(event: Event) -> None:
        worker.log_event(TOPIC, {**event, "run_id": job.run_id})

    tell({"event": "progress", "done": 0, "total": job.examples, "note": ""})
    event = train.attempt(here, _until_cancelled(worker, key, train.watched(tell, TELL_EVERY_S)))
    if event["event"] == "finished":
        with store.lock(job.run_id):
            store.adopt(job.run_id, event["files"])
        Path(here.checkpoint).unlink(missing_ok=True)
    return event


def _until_cancelled(worker: distributed.Worker, key: str, report: Callable) -> Callable:
    def told(done: int, total: int, note: str) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _CancelledError
        report(done, total, note)

    return told


def _connect(address: str) -> distributed.Client:
    try:
        client = distributed.Client(address, security=_security(address), timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, RuntimeError, ssl.SSLError) as error:
        fix = "Is it running, and are cluster.pem and cluster.key those that it was started with? See README."
        raise StudyError("E-CLUSTER", address, f"no scheduler answers: {error}.", fix) from error
    if client.run_on_scheduler(dask.config.get, "distributed.scheduler.worker-saturation") != 1.0:
        client.close()
        what = "the scheduler was started with other settings, under which one dead worker fails several runs."
        raise StudyError("E-CLUSTER", address, what, "Start it with DASK_CONFIG=scripts/cluster.yaml.")
    return client


def _security(address: str) -> distributed.Security:
    if address.startswith("tcp://"):
        return distributed.Security(require_encryption=False)
    usual = {"ca-file": "cluster.pem", "client.cert": "cluster.pem", "client.key": "cluster.key"}
    files = {key: paths.ROOT / (dask.config.get(f"distributed.comm.tls.{key}") or name) for key, name in usual.items()}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        what = f"the certificate of the cluster is not here: {', '.join(dict.fromkeys(missing))}."
        raise StudyError("E-CLUSTER", address, what, "Make it, or copy it from where it was made: see README.")
    ca_file, certificate, key = map(str, files.values())
    return distributed.Security(
        require_encryption=True, tls_ca_file=ca_file, tls_client_cert=certificate, tls_client_key=key
    )
