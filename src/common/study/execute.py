"""Many runs at once: a pool of warm worker processes, and a broker that lends it to other processes.

One pool lives as long as a whole `run_all`. The runner owns it and serves it on a Unix socket, whose address the
notebook kernels find in `STUDY_POOL`; a notebook opened in Jupyter makes a pool of its own. Everything that crosses a
process is one JSON object a line. How one run is trained is worker.py's business, what is trained session.py's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import heapq
import itertools
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

import common
from common.errors import StudyError
from common.machine import usable_cores

WORKER = (sys.executable, "-m", "common.study.worker")
POOL, FORCE = "STUDY_POOL", "STUDY_FORCE"  # what a runner tells its kernels
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Without these a worker keeps freed batches and a kernel for every shape it has met, over a gigabyte after some runs.
# Below 32 MiB, the most there is, fresh pages for each activation would cost a sixth of a step and, of texts of 128
# tokens, a quarter; huge pages save a tenth.
MEMORY_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}
LONGEST_FOLDER = 80  # a socket's whole path holds 108 bytes on Linux, 104 on macOS
PATIENCE_S = 3.0

Event = dict[str, object]
Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Job:
    """One run to train, as plain values.

    data, encoder: what to load (a name or a path); the specs hold only names. out: the output root. log: where prints
    and tracebacks go. examples: how many the run draws, the measure of its length. force: train even what is stored.
    """

    run_id: str
    label: str
    spec: dict
    written: dict
    profile: str
    data: str
    encoder: str
    out: str
    log: str
    examples: int
    force: bool = False


class Pool:
    """Up to `jobs` worker processes that stay alive between runs; longest run first, no run stops another.

    Args:
        jobs: number of workers.
        threads: threads each of them computes with; None leaves it to the libraries.
        watch: is told every event of every run, one at a time.
        worker_command: what starts a worker.
    """

    def __init__(
        self, jobs: int, threads: int | None, watch: Tell | None = None, worker_command: Sequence[str] = WORKER
    ):
        self.jobs, self.threads, self.watch, self.worker_command = jobs, threads, watch, worker_command
        self._state = threading.Condition()
        self._order = itertools.count()
        self._queue: list[tuple[bool, int, int, int, Job]] = []
        self._active: dict[str, Future[Event]] = {}
        self._workers: set[_Worker] = set()
        self._slots: list[threading.Thread] = []
        self._is_closing = False

    def run(self, jobs: Iterable[Job]) -> dict[str, Event]:
        """Train all jobs; the last event of each (`finished` or `failed`) by run id.

        May be called from several threads: a run that is asked for twice is trained once.
        """
        return results(self.submit(jobs))

    def submit(self, jobs: Iterable[Job], rank: int = 0) -> dict[str, Future[Event]]:
        """What `run` waits for, by run id. Jobs of a lower rank go first; longer ones go first among equals."""
        with self._state:
            return {job.run_id: self._submit(job, rank) for job in jobs}

    def close(self) -> None:
        """End the workers at once. What they had not finished is not in the store."""
        with self._state:
            self._is_closing = True
            self._state.notify_all()
            for worker in self._workers:
                worker.kill()
            for future in self._active.values():
                future.cancel()
        for slot in self._slots:
            slot.join(PATIENCE_S)

    def _submit(self, job: Job, rank: int) -> Future[Event]:
        if job.run_id not in self._active:
            self._active[job.run_id] = Future()
            self._tell(job, {"event": "queued", "total": job.examples})
            self._push(job, rank, wait=False)
            if len(self._slots) < self.jobs:
                self._slots.append(threading.Thread(target=self._serve, daemon=True))
                self._slots[-1].start()
        return self._active[job.run_id]

    def _push(self, job: Job, rank: int, wait: bool) -> None:
        heapq.heappush(self._queue, (wait, rank, -job.examples, next(self._order), job))
        self._state.notify()

    def _serve(self) -> None:
        """One slot of the pool: a worker process and the thread that talks to it."""
        worker = None
        while (entry := self._next()) is not None:
            wait, rank, *_, job = entry
            if worker is None or not worker.is_alive():
                worker = self._exchange(worker)
            try:
                self._settle(job, rank, worker.train(job, wait, functools.partial(self._tell, job)))
            except Exception as error:  # raised by whoever watches; he who waits for the run must not wait for ever
                worker.close()
                self._active.pop(job.run_id).set_exception(error)
        self._exchange(worker)

    def _next(self) -> tuple[bool, int, int, int, Job] | None:
        with self._state:
            self._state.wait_for(lambda: self._queue or self._is_closing)
            return None if self._is_closing else heapq.heappop(self._queue)

    def _exchange(self, old: _Worker | None) -> _Worker | None:
        """Clear away a worker; a new one in its place, unless the pool is closing."""
        with self._state:
            if old is not None:
                self._workers.remove(old)
                old.close()
            if self._is_closing:
                return None
            new = _Worker(self.worker_command, self.threads)
            self._workers.add(new)
            return new

    def _settle(self, job: Job, rank: int, event: Event) -> None:
        with self._state:
            if event["event"] == "busy":  # another process trains it: look again when nothing else is left
                self._push(job, rank, wait=True)
            elif not self._is_closing:
                self._tell(job, event)
                self._active.pop(job.run_id).set_result({**event, "label": job.label})

    def _tell(self, job: Job, event: Event) -> None:
        with self._state:
            if self.watch is not None:
                self.watch({**event, "run_id": job.run_id, "label": job.label})


class _Worker:
    """One worker process; it ends by itself when this process is gone, because its input then ends."""

    def __init__(self, command: Sequence[str], threads: int | None):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        # In a session of its own, because Ctrl-C is for the owner, who then ends the workers.
        self._process = subprocess.Popen(command, start_new_session=True, env=_worker_environment(threads), **pipes)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def train(self, job: Job, wait: bool, tell: Tell) -> Event:
        """Send the job, pass its events on, and return the last one: finished, failed or busy."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({**asdict(job), "wait": wait}) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] in ("finished", "failed", "busy"):
                return event
            tell(event)
        return {"event": "failed", "message": self._cause_of_death(), "log": job.log}

    def kill(self) -> None:
        if self.is_alive():
            self._process.kill()

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(BrokenPipeError), self._process:
            """Leaving the context closes the pipes and waits for the end."""

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return "the worker was killed, likely out of memory. Close other programs or use fewer --jobs."
        return f"the worker ended with code {code} before the run did."


class Broker(socketserver.ThreadingUnixStreamServer):
    """Serves a pool on a Unix socket in a folder of its own that only this user can enter.

    While it serves, a run is trained once, whoever asks for it again: neither forced nor, after a failure, tried twice.
    """

    daemon_threads = True

    def __init__(self, pool: Pool):
        self._folder = private_folder()
        self.address = str(Path(self._folder.name) / "pool")
        self.pool, self.asked, self._lock = pool, {}, threading.Lock()
        super().__init__(self.address, _Client)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def submit(self, jobs: Iterable[Job], rank: int = 0) -> dict[str, Future[Event]]:
        """As Pool.submit."""
        jobs = list(jobs)
        with self._lock:
            self.asked |= self.pool.submit((job for job in jobs if job.run_id not in self.asked), rank)
            return {job.run_id: self.asked[job.run_id] for job in jobs}

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._folder.cleanup()


class _Client(socketserver.StreamRequestHandler):
    """One connection is one batch: the jobs on one line, their results on another."""

    def handle(self) -> None:
        jobs = [Job(**values) for values in json.loads(self.rfile.readline() or "[]")]
        with contextlib.suppress(OSError, CancelledError):  # the kernel or the pool has ended; the runner says so
            found = results(self.server.submit(jobs))
            self.wfile.write(json.dumps(found).encode() + b"\n")


def results(futures: dict[str, Future[Event]]) -> dict[str, Event]:
    """Wait for runs: the last event of each (`finished` or `failed`) by run id."""
    return {run_id: future.result() for run_id, future in futures.items()}


def run_remotely(address: str, jobs: Iterable[Job]) -> dict[str, Event]:
    """Pool.run in the process that serves this address."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps([asdict(job) for job in jobs]) + "\n")
                stream.flush()
                return json.loads(stream.readline())
    except (OSError, json.JSONDecodeError) as error:
        what = "the runner that trains for this notebook is gone."
        raise StudyError("E-POOL", POOL, what, "Start run_all again.") from error


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


def private_folder() -> tempfile.TemporaryDirectory:
    """A new folder that only this user can enter, with a path short enough for sockets in it."""
    root = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="study-", dir=root if len(os.fsencode(root)) < LONGEST_FOLDER else "/tmp")


def _worker_environment(threads: int | None) -> dict[str, str]:
    """Ours, with the threads fixed, and with this very code first, also where `common` is not installed."""
    source = str(Path(common.__file__).resolve().parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**MEMORY_VARIABLES, **os.environ, "PYTHONPATH": path, **thread_environment(threads)}
