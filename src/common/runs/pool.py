"""Many runs at once on one machine: warm worker processes, each in a Pebble pool of its own.

So whatever happens to a worker concerns the one run that it trains: dead, stopped, or impossible to start. A worker
tells of its run in a small file that it replaces, which this process looks at; the file is the heartbeat too. How one
run is trained is train.py's business, what is trained session.py's.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import faulthandler
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import psutil
from pebble import ProcessExpired, ProcessPool

from common.errors import StudyError
from common.machine import oom_kills, usable_cores

if TYPE_CHECKING:  # a worker imports this module before anything else, and torch takes seconds
    from common.runs.store import RunStore

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Without these a worker keeps freed batches and a kernel for every shape it has met, over a gigabyte after some runs.
# Below 32 MiB, the most there is, fresh pages for each activation would cost a sixth of a step and, of texts of 128
# tokens, a quarter; huge pages save a tenth.
MEMORY_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
}
# Ctrl-C and the end of a terminal are for the owner, who then ends the workers.
OWNERS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SILENCE_S = 600.0  # longer than any evaluation between two updates
LOOK_EVERY_S = 0.25
TELL_EVERY_S = 0.5
DUMP_S = 1.0
STARTS = 2  # a machine under load fails to start one now and then

Event = dict[str, object]
Watch = Callable[[Event], None]
_starting = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One run to train, as plain values."""

    run_id: str
    row: dict[str, str]  # id, label and report of the row that asks for it
    label: str  # what logs and the terminal call it
    spec: dict  # as it runs here
    written: dict  # as the report has it
    profile: str
    data: str  # what to load, a name or a path; the specs hold only names
    encoder: str  # as data
    examples: int  # how many the run draws, the measure of its length
    log: str  # the file for prints and tracebacks
    encoders: str  # the folder of checkpoints that were pretrained further
    checkpoint: str  # the file that the run goes on from where it was cut off
    force: bool = False  # train even what is stored
    weights: str | None = None  # the folder that the model is kept in, where it is to be kept


class Pool:
    """Up to `jobs` workers that stay alive between runs; longest run first, no run stops another.

    Args:
        jobs: number of workers.
        threads: threads each of them computes with; None leaves it to the libraries.
        silence_s: how long a run may show no progress before its worker is taken for hanging.
        module: whose `attempt(job, report)` and `watched` a worker calls.
    """

    def __init__(self, jobs: int, threads: int | None, silence_s: float = SILENCE_S, module: str = "common.runs.train"):
        self.jobs, self._is_closing = jobs, threading.Event()
        self._workers = [_Worker(threads, silence_s, module, self._is_closing) for _ in range(jobs)]

    def run(self, jobs: Iterable[Job], store: RunStore, watch: Watch) -> dict[str, Event]:
        """Train all jobs into the store; the last event of each (`finished` or `failed`) by run id.

        watch is told every event of every run, one at a time. What another process trains just now is left for last.
        """
        self._is_closing.clear()
        ordered = sorted({job.run_id: job for job in jobs}.values(), key=lambda job: -job.examples)
        telling = threading.Lock()

        def tell(job: Job, event: Event) -> None:
            with telling:
                watch({**event, "run_id": job.run_id, "label": job.label})

        for job in ordered:
            tell(job, {"event": "queued", "total": job.examples})
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            idle.put(worker)
        threads, events = ThreadPoolExecutor(self.jobs), dict.fromkeys(job.run_id for job in ordered)
        try:
            for wait in (False, True):
                left = [job for job in ordered if events[job.run_id] is None]
                settle = functools.partial(self._settle, store, tell, idle, wait)
                events |= zip((job.run_id for job in left), threads.map(settle, left), strict=True)
            return events
        except BaseException:
            self.close()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End the workers at once. What they had not finished is not in the store; the next `run` starts new ones."""
        self._is_closing.set()
        for worker in self._workers:
            worker.kill()

    def _settle(self, store: RunStore, tell: Callable, idle: queue.SimpleQueue, wait: bool, job: Job) -> Event | None:
        """See one job to its end; None when another process holds the run and `wait` is off."""
        while (lock := store.try_lock(job.run_id)) is None:
            if not wait:
                return None
            if self._is_closing.wait(LOOK_EVERY_S):
                raise CancelledError
        with lock:
            try:
                # Another process may have trained it since it was asked for.
                event = {"event": "finished", "is_cached": True}
                is_new = job.force or not store.has(job.run_id)
                if is_new or job.weights:
                    event = self._train(job, functools.partial(tell, job), idle) | {"is_cached": False}
                if files := event.pop("files", None):
                    if is_new:  # else it was trained for its weights alone
                        store.adopt(job.run_id, files)
                    Path(job.checkpoint).unlink(missing_ok=True)
            except StudyError as error:  # its record cannot be written
                event = {"event": "failed", "message": error.message(), "log": None}
        tell(job, event)
        return event | {"label": job.label}

    def _train(self, job: Job, tell: Watch, idle: queue.SimpleQueue) -> Event:
        worker = idle.get()
        try:
            return worker.train(job, tell)
        finally:
            idle.put(worker)


class _Worker:
    """One worker process, replaced when it has died; Pebble starts it, hands it jobs and notices its death."""

    def __init__(self, threads: int | None, silence_s: float, module: str, is_closing: threading.Event):
        self._context, self._silence_s, self._module = _Context(_worker_variables(threads)), silence_s, module
        self._pool, self._killing, self._is_closing = None, threading.Lock(), is_closing

    def train(self, job: Job, tell: Watch) -> Event:
        """Pass the job on, and what the worker tells of it; its last event."""
        log, kills_before = Path(job.log), oom_kills()
        for _ in range(STARTS):
            try:
                event = self._follow(job, _Pulse(job), tell)
                break
            except ProcessExpired as error:
                event = _failed(cause_of_death(error.exitcode, kills_before))
                break
            except BrokenProcessPool as error:  # there is no process that could take up the job
                reason = error.__cause__ or f"it ends with code {self._context.exit_code()}"
                event = _failed(f"no worker can be started: {reason}.")
                self.kill()
        _Pulse(job).path.unlink(missing_ok=True)
        if event["event"] == "failed":
            event["log"] = str(log) if log.exists() and log.stat().st_size else None
        return event

    def kill(self) -> None:
        """End the process, whatever it does, and clear away what Pebble holds for it."""
        with self._killing:
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.stop()
                self._context.kill()
                pool.join()

    def _follow(self, job: Job, pulse: _Pulse, tell: Watch) -> Event:
        if self._pool is None or not self._pool.active:
            self.kill()
            self._pool = ProcessPool(1, initializer=_begin, initargs=[self._module], context=self._context)
        future = self._pool.schedule(work, args=[job, str(pulse.path), self._module])
        while not future.done():
            concurrent.futures.wait([future], LOOK_EVERY_S)
            if self._is_closing.is_set():
                self.kill()
                raise CancelledError
            for event in pulse.news():
                tell(event)
            if pulse.silence_s() > self._silence_s and not future.done():
                self._context.dump_stack()
                self.kill()
                return _failed(
                    f"no progress for {self._silence_s:.0f} s, so it was ended. The log shows where it hung."
                )
        return future.result()


class _Context(SpawnContext):
    """How Pebble starts a worker's process: with settings of its own, and without the program that asks for it."""

    def __init__(self, variables: dict[str, str]):
        super().__init__()
        self._variables, self._process = variables, None

    def Process(self, *args: object, **named: object) -> _Process:  # noqa: N802 - what Pebble calls
        self._process = _Process(*args, **named)
        self._process.variables = self._variables
        return self._process

    def exit_code(self) -> int | None:
        return self._process.exitcode

    def dump_stack(self) -> None:
        """Have the process write where each of its threads is into its log, even where it was stopped."""
        for number in (signal.SIGUSR1, signal.SIGCONT):
            os.kill(self._process.pid, number)
        time.sleep(DUMP_S)

    def kill(self) -> None:
        if self._process is not None and self._process.pid is not None:
            self._process.kill()


class _Process(SpawnProcess):
    """A process in which nothing is imported but what its work asks for."""

    variables: dict[str, str]

    def start(self) -> None:
        """As Process.start; signals wait until the new process has a session of its own."""
        main = sys.modules["__main__"]
        with _starting:
            spec, main.__spec__ = main.__spec__, ModuleSpec("study.__main__", None)  # a name that is not imported again
            before = {name: os.environ.get(name) for name in self.variables}
            os.environ.update(self.variables)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, OWNERS_SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                main.__spec__ = spec
                for name in (name for name, value in before.items() if value is None):
                    del os.environ[name]
                os.environ.update({name: value for name, value in before.items() if value is not None})


class _Pulse:
    """What the worker last told of a run, and since when it has told nothing."""

    def __init__(self, job: Job):
        self.path = Path(job.log).with_suffix(".progress")
        self.path.unlink(missing_ok=True)
        self._last, self._heard = None, time.monotonic()  # our own clock: that of files may be another machine's

    def news(self) -> list[Event]:
        """The events since the last look."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        if content == self._last:
            return []
        events = [{"event": "started"}] * (self._last is None) + [json.loads(content)]
        self._last, self._heard = content, time.monotonic()
        return events

    def silence_s(self) -> float:
        return time.monotonic() - self._heard


def work(job: Job, pulse: str, module: str) -> Event:
    """In a worker: train one job with its prints and traceback in its log, and tell of it in the file `pulse`."""
    train = importlib.import_module(module)
    path, beats = Path(pulse), itertools.count()

    def tell(event: Event) -> None:
        beat = path.with_suffix(".beat")
        beat.write_text(json.dumps({**event, "beat": next(beats)}))
        os.replace(beat, path)

    with _logged(Path(job.log)) as log:
        tell({"event": "progress", "done": 0, "total": job.examples, "note": ""})
        event = train.attempt(job, train.watched(tell, TELL_EVERY_S))
        log.write(event.pop("details", ""))
    return event


def cause_of_death(code: int, kills_before: int | None = None) -> str:
    """What ended a worker, told from its exit code and from the kills for lack of memory that the system counts."""
    if code >= 0:
        return f"its worker ended with code {code} before the run did."
    name = signal.Signals(-code).name
    if code == -signal.SIGKILL and kills_before is None:
        return f"its worker was killed ({name}), perhaps for lack of memory: this system does not count such kills."
    if code == -signal.SIGKILL and oom_kills() > kills_before:
        return "the system killed its worker for lack of memory. Close other programs or use fewer --jobs."
    return f"its worker was killed by signal {-code} ({name})."


@functools.cache
def local_pool(jobs: int, threads: int | None) -> Pool:
    """This process's own pool, made on first need and ended with the process."""
    pool = Pool(jobs, threads)
    atexit.register(pool.close)
    return pool


def become_worker() -> None:
    """Start this program again with the memory settings of a worker: what benchmarks measure is what workers do."""
    if not os.environ.items() >= MEMORY_VARIABLES.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MEMORY_VARIABLES})


def default_jobs(threads: int | None) -> int:
    """As many workers as fit on the cores this process may use; one when a run takes all of them."""
    allowed = usable_cores()
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    return max(1, cores // threads) if threads else 1


def thread_environment(threads: int | None) -> dict[str, str]:
    """Variables that fix the number of threads, and keep tokenizers from warning about forks."""
    counts = {name: str(threads) for name in THREAD_VARIABLES} if threads else {}
    return {**counts, "TOKENIZERS_PARALLELISM": "false"}


def _worker_variables(threads: int | None) -> dict[str, str]:
    ours = {name: value for name, value in MEMORY_VARIABLES.items() if name not in os.environ}
    return {**ours, **thread_environment(threads)}


def _failed(message: str) -> Event:
    return {"event": "failed", "message": message}


def _begin(module: str) -> None:
    """In a new worker: leave the owner's session, end when the owner does, print nothing to its standard output."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OWNERS_SIGNALS)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    _redirect(2)
    importlib.import_module(module)


def _end_with(owner: multiprocessing.process.BaseProcess) -> None:
    owner.join()
    os._exit(0)  # what is in the store is whole


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[TextIO]:
    """Send everything printed to that file, by whatever library, and stacks when asked; remove it if it stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    with open(path, "w", encoding="utf-8") as log:
        _redirect(log.fileno())
        faulthandler.enable(file=log)
        faulthandler.register(signal.SIGUSR1, file=log)
        try:
            yield log
        finally:
            faulthandler.unregister(signal.SIGUSR1)
            faulthandler.disable()
            _redirect(kept)
            os.close(kept)
    if path.stat().st_size == 0:
        path.unlink()


def _redirect(descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
