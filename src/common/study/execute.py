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
import select
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

import common
from common.errors import StudyError

WORKER = (sys.executable, "-m", "common.study.worker")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes on Linux, 104 on macOS
PATIENCE_S = 3.0

Event = dict[str, object]
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Job:
    """One run to train, as plain values.

    examples: how many it will draw, the measure of its length. data, encoder: what to load (a name or a path); the
    specs hold only names. out: the output root. log: where its prints and its traceback go. force: train even if the
    store holds it.
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


@dataclass
class _Task:
    """A job in the pool, with everyone who waits for it."""

    job: Job
    wait: bool = False  # whether a worker may block on the lock that another process holds
    is_queued: bool = True
    listeners: list[Listener] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    result: Event = field(default_factory=dict)


class Pool:
    """Up to `jobs` worker processes that stay alive between runs; longest run first, no run stops another.

    Args:
        jobs: number of workers.
        threads: threads each of them computes with; None leaves it to the libraries.
        force: train a run even if the store holds it, once in the life of the pool.
        watch: sees every event of every run.
        worker_command: what starts a worker.
    """

    def __init__(
        self,
        jobs: int,
        threads: int | None,
        force: bool = False,
        watch: Listener | None = None,
        worker_command: Sequence[str] = WORKER,
    ):
        self.jobs, self.threads, self.force, self.worker_command = jobs, threads, force, tuple(worker_command)
        self.watch = watch
        self._state = threading.Condition()
        self._emitting = threading.Lock()
        self._order = itertools.count()
        self._queue: list[tuple[bool, int, int, _Task]] = []
        self._active: dict[str, _Task] = {}
        self._forced: set[str] = set()
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._is_closing = False

    def run(self, jobs: Iterable[Job], on_event: Listener | None = None) -> dict[str, Event]:
        """Train all jobs; the last event of each (`finished` or `failed`) by run id."""
        tasks = self.submit(jobs, on_event)
        try:
            for task in tasks:
                task.done.wait()
        except BaseException:
            self.withdraw(tasks, on_event)
            raise
        return {task.job.run_id: task.result for task in tasks}

    def submit(self, jobs: Iterable[Job], on_event: Listener | None = None) -> list[_Task]:
        """Queue the jobs; one that is queued or running already gets one more listener instead."""
        tasks = []
        for job in jobs:
            with self._state:
                is_new = job.run_id not in self._active
                tasks.append(self._add(job, on_event))
            if is_new:
                self._emit(tasks[-1], {"event": "queued", "total": job.examples})
        with self._state:
            while len(self._threads) < min(self.jobs, len(self._active)):
                self._threads.append(threading.Thread(target=self._serve, daemon=True))
                self._threads[-1].start()
            self._state.notify_all()
        return tasks

    def withdraw(self, tasks: Iterable[_Task], on_event: Listener | None) -> None:
        """Stop listening; a job that nobody else asked for and that has not begun is dropped."""
        with self._state:
            for task in tasks:
                if on_event in task.listeners:
                    task.listeners.remove(on_event)
                if task.is_queued and not task.listeners:
                    self._queue = [entry for entry in self._queue if entry[-1] is not task]
                    self._active.pop(task.job.run_id, None)
            heapq.heapify(self._queue)

    def close(self) -> None:
        """End the workers at once. What they had not finished is not in the store."""
        with self._state:
            self._is_closing = True
            self._state.notify_all()
            workers = list(self._workers)
        for worker in workers:
            worker.kill()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _add(self, job: Job, on_event: Listener | None) -> _Task:
        task = self._active.get(job.run_id)
        if task is None:
            task = _Task(replace(job, force=job.force or (self.force and job.run_id not in self._forced)))
            self._active[job.run_id] = task
            self._push(task)
        task.listeners.append(on_event or _ignore)
        return task

    def _push(self, task: _Task) -> None:
        task.is_queued = True
        heapq.heappush(self._queue, (task.wait, -task.job.examples, next(self._order), task))

    def _next(self) -> _Task | None:
        with self._state:
            self._state.wait_for(lambda: self._queue or self._is_closing)
            if self._is_closing:
                return None
            task = heapq.heappop(self._queue)[-1]
            task.is_queued = False
            return task

    def _serve(self) -> None:
        """One slot of the pool: a worker process and the thread that talks to it."""
        with contextlib.ExitStack() as open_worker:
            worker = None
            while (task := self._next()) is not None:
                if worker is None or not worker.is_alive():
                    open_worker.close()
                    worker = self._start_worker()
                    open_worker.callback(worker.close)
                event: Event = {}
                for event in worker.train(task):
                    if event["event"] != "busy" and not self._is_closing:
                        self._emit(task, event)
                self._settle(task, event)

    def _start_worker(self) -> _Worker:
        with self._state:
            self._workers = [worker for worker in self._workers if worker.is_alive()]
            self._workers.append(_Worker(self.worker_command, self.threads))
            if self._is_closing:
                self._workers[-1].kill()
            return self._workers[-1]

    def _settle(self, task: _Task, event: Event) -> None:
        with self._state:
            if event["event"] == "busy":
                task.wait = True
                self._push(task)
                self._state.notify()
                return
            if event["event"] == "finished":
                self._forced.add(task.job.run_id)
            self._active.pop(task.job.run_id, None)
            task.result = event
            task.done.set()

    def _emit(self, task: _Task, event: Event) -> None:
        with self._state:
            listeners = list(task.listeners)
        with self._emitting:
            for listener in [*listeners, self.watch or _ignore]:
                listener({**event, "run_id": task.job.run_id, "label": task.job.label})


class _Worker:
    """One worker process; it ends by itself when this process is gone, because its input then ends."""

    def __init__(self, command: Sequence[str], threads: int | None):
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the owner, who ends the workers himself
            env=_worker_environment(threads),
        )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def train(self, task: _Task) -> Iterator[Event]:
        """Send the job, hand on its events; the last one is finished, failed or busy."""
        request = {**asdict(task.job), "wait": task.wait}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            event = json.loads(line)
            yield event
            if event["event"] in ("finished", "failed", "busy"):
                if event.get("is_last"):
                    self._process.wait()
                return
        yield {"event": "failed", "message": self._cause_of_death(), "log": task.job.log}

    def kill(self) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and give its pipes back; only the thread that reads from it may call this."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return "the worker was killed, likely out of memory. Close other programs or use fewer --jobs."
        if code < 0:
            return f"the worker was ended by {signal.Signals(-code).name}."
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        return f"the worker ended with code {code}. " + next((line for line in reversed(lines) if line.strip()), "")


class Broker:
    """Serves a pool on a Unix socket in a folder of its own that only this user can enter."""

    def __init__(self, pool: Pool):
        self._folder = private_folder()
        self.address = str(Path(self._folder.name) / "pool")
        self._server = _Server(self.address, _Client)
        self._server.pool = pool
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    pool: Pool


class _Client(socketserver.StreamRequestHandler):
    """One connection is one batch: a greeting, the client's jobs on one line, events until `end`."""

    def handle(self) -> None:
        pool = self.server.pool
        self._send({"event": "hello", "force": pool.force})
        line = self.rfile.readline()
        if not line:
            return
        tasks = pool.submit([Job(**job) for job in json.loads(line)], self._send)
        while not all(task.done.wait(0) for task in tasks):
            if select.select([self.connection], [], [], 0.1)[0] and not self.connection.recv(1):
                pool.withdraw(tasks, self._send)
                return
        results = {task.job.run_id: task.result for task in tasks}
        self._send({"event": "end", "results": results})

    def _send(self, event: Event) -> None:
        # A client that has gone is noticed by `handle`; its runs may be wanted by others.
        with contextlib.suppress(OSError):
            self.connection.sendall((json.dumps(event) + "\n").encode())


class RemotePool:
    """The runner's pool, seen from a kernel; the same two names as Pool."""

    def __init__(self, address: str):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise _pool_gone(address) from error
        self._lines = self._socket.makefile(encoding="utf-8")
        self.force = bool(self._read()["force"])

    def run(self, jobs: Iterable[Job], on_event: Listener | None = None) -> dict[str, Event]:
        """Train all jobs there; one call per connection."""
        with self._socket, self._lines:
            self._socket.sendall((json.dumps([asdict(job) for job in jobs]) + "\n").encode())
            while (event := self._read())["event"] != "end":
                (on_event or _ignore)(event)
        return event["results"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> Event:
        line = self._lines.readline()
        if not line:
            raise _pool_gone("STUDY_POOL")
        return json.loads(line)


@functools.cache
def local_pool(jobs: int, threads: int | None) -> Pool:
    """This process's own pool, made on first need and ended with the process."""
    pool = Pool(jobs, threads)
    atexit.register(pool.close)
    return pool


def default_jobs(threads: int | None) -> int:
    """As many workers as fit on the cores this process may use; one when a run takes all of them."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    return max(1, cores // threads) if threads else 1


def thread_environment(threads: int | None) -> dict[str, str]:
    """Variables that fix the number of threads, and keep tokenizers from warning about forks."""
    counts = {name: str(threads) for name in THREAD_VARIABLES} if threads else {}
    return {**counts, "TOKENIZERS_PARALLELISM": "false"}


def private_folder() -> tempfile.TemporaryDirectory:
    """A new folder that only this user can enter, with a path short enough for sockets in it."""
    root = tempfile.gettempdir()
    is_short = len(os.fsencode(root)) + len("/study-12345678/kernel-1") < LONGEST_SOCKET_PATH
    return tempfile.TemporaryDirectory(prefix="study-", dir=root if is_short else "/tmp")


def _worker_environment(threads: int | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "STUDY_POOL"}
    # The worker runs this very code, also where `common` is not installed.
    source = str(Path(common.__file__).resolve().parents[1])
    path = os.pathsep.join([source, *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path, **thread_environment(threads)}


def _pool_gone(where: str) -> StudyError:
    return StudyError("E-POOL", where, "the runner that trains for this notebook is gone.", "Start run_all again.")


def _ignore(event: Event) -> None:
    """Nobody listens."""
