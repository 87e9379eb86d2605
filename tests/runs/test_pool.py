"""The pool, driven with a module that obeys the label of a job in place of the one that trains."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from multiprocessing import popen_spawn_posix
from pathlib import Path

import psutil
import pytest

from common.paths import Places
from common.runs import pool as pools
from common.runs.pool import Event, Job, Pool, cause_of_death, default_jobs, thread_environment
from common.runs.store import RunStore

TESTS = Path(__file__).resolve().parents[1]


def job(out: Path, number: int, label: str = "run", examples: int = 1, force: bool = False) -> Job:
    log = str(out.parent / "logs" / f"{number:012x}-s0.log")
    names = {"profile": "smoke", "data": str(out), "encoder": "", "log": log, "encoders": ""}
    names["checkpoint"] = str(out.parent / "checkpoint")
    return Job(f"{number:012x}-s0", {"id": label}, label, {}, {}, examples=examples, force=force, **names)


def lines(out: Path) -> list[list[str]]:
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


def trained(out: Path) -> list[int]:
    return [int(line[0].split("-")[0], 16) for line in lines(out)]


def processes(out: Path) -> set[int]:
    return {int(line[1]) for line in lines(out)}


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def outcomes(events: dict[str, Event]) -> dict[int, str]:
    return {int(run_id.split("-")[0], 16): event["event"] for run_id, event in events.items()}


def silent(event: Event) -> None:
    """Watch and say nothing."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "trained"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(Places(tmp_path / "results", tmp_path / "figures", tmp_path / "build"))


@pytest.fixture
def make() -> Iterator[Callable[..., Pool]]:
    made: list[Pool] = []

    def pool(jobs: int = 1, threads: int | None = 1, module: str = "obedient", **settings: object) -> Pool:
        made.append(Pool(jobs, threads, module=module, **settings))
        return made[-1]

    yield pool
    for each in made:
        each.close()


def test_workers_stay_alive_between_runs_and_end_with_the_pool(make, out: Path, store: RunStore) -> None:
    pool = make(2)
    for start in (1, 5):
        found = pool.run([job(out, number) for number in range(start, start + 4)], store, silent)
        assert outcomes(found) == dict.fromkeys(range(start, start + 4), "finished")
    pids = processes(out)
    assert sorted(trained(out)) == list(range(1, 9)) and len(pids) <= 2 and len(store.complete()) == 8
    assert all(is_running(pid) for pid in pids)
    pool.close()
    wait_until(lambda: not any(is_running(pid) for pid in pids), 5)


def test_the_longest_run_comes_first(make, out: Path, store: RunStore) -> None:
    make().run([job(out, n, examples=n) for n in (2, 9, 1, 5)], store, silent)
    assert trained(out) == [9, 5, 2, 1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("kill", "its worker was killed by signal 9 (SIGKILL)"),
        ("exit", "its worker ended with code 3 before the run did"),
        ("fail", "ValueError: broken"),
    ],
)
def test_a_failing_run_stops_no_other(make, out: Path, store: RunStore, label: str, message: str) -> None:
    pool = make(2)
    jobs = [job(out, 1, label, examples=50)] + [job(out, number, "run 0.1") for number in range(2, 6)]
    found = pool.run(jobs, store, silent)
    assert outcomes(found) == {1: "failed"} | dict.fromkeys(range(2, 6), "finished")
    failure = found["000000000001-s0"]
    assert message in failure["message"] and failure["label"] == label
    assert failure["log"] == (jobs[0].log if label == "fail" else None)
    assert outcomes(pool.run([job(out, 1)], store, silent)) == {1: "finished"}


def test_a_kill_for_lack_of_memory_is_told_from_other_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "oom_kills", lambda: 4)
    assert "for lack of memory. Close other" in cause_of_death(-9, 3)
    assert cause_of_death(-9, 4) == "its worker was killed by signal 9 (SIGKILL)."
    assert "perhaps for lack of memory" in cause_of_death(-9, None)
    assert cause_of_death(-11, 3) == "its worker was killed by signal 11 (SIGSEGV)."


def test_a_worker_that_hangs_is_ended_and_its_stack_is_in_the_log(make, out: Path, store: RunStore) -> None:
    found = make(2, silence_s=10).run([job(out, 1, "run 600", examples=9), job(out, 2), job(out, 3)], store, silent)
    assert outcomes(found) == {1: "failed", 2: "finished", 3: "finished"}
    failure = found["000000000001-s0"]
    assert failure["message"].startswith("no progress for 10 s") and "in attempt" in Path(failure["log"]).read_text()
    assert not any(is_running(int(pid)) for run_id, pid, _ in lines(out) if run_id == "000000000001-s0")


def test_a_stopped_worker_is_ended_too(make, out: Path, store: RunStore) -> None:
    def stop(event: Event) -> None:
        if event["label"] == "run 600" and event["event"] == "progress" and event["done"] == 1:
            os.kill(next(iter(processes(out))), signal.SIGSTOP)

    found = make(silence_s=10).run([job(out, 1, "run 600", examples=9), job(out, 2)], store, stop)
    assert outcomes(found) == {1: "failed", 2: "finished"}
    assert "in attempt" in Path(found["000000000001-s0"]["log"]).read_text()


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EAGAIN])
def test_a_worker_that_cannot_be_started_fails_its_run_and_the_next_run_has_a_worker(
    make, out: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    starts = []

    class Refused(popen_spawn_posix.Popen):
        def __init__(self, process: object):
            starts.append(1)
            if len(starts) <= pools.STARTS:
                raise OSError(code, os.strerror(code))
            super().__init__(process)

    monkeypatch.setattr(pools._Process, "_Popen", staticmethod(Refused))
    found = make().run([job(out, 1, examples=9), job(out, 2), job(out, 3)], store, silent)
    assert outcomes(found) == {1: "failed", 2: "finished", 3: "finished"}
    assert os.strerror(code) in found["000000000001-s0"]["message"]


def test_a_worker_whose_modules_are_missing_fails_every_run(make, out: Path, store: RunStore, capfd) -> None:
    found = make(module="no_such_module").run([job(out, 1), job(out, 2)], store, silent)
    assert outcomes(found) == {1: "failed", 2: "failed"}
    assert "no worker can be started: it ends with code 1" in found["000000000001-s0"]["message"]
    assert "No module named 'no_such_module'" in capfd.readouterr().err


def test_a_worker_killed_while_it_waits_costs_no_run(make, out: Path, store: RunStore) -> None:
    pool = make()
    pool.run([job(out, 1)], store, silent)
    os.kill(next(iter(processes(out))), signal.SIGKILL)
    assert outcomes(pool.run([job(out, 2)], store, silent)) == {2: "finished"}


def test_what_is_stored_is_not_trained_unless_forced(make, out: Path, store: RunStore) -> None:
    pool = make()
    first = pool.run([job(out, 1), job(out, 1)], store, silent)
    again = pool.run([job(out, 1)], store, silent)
    forced = pool.run([job(out, 1, force=True)], store, silent)
    events = [found["000000000001-s0"] for found in (first, again, forced)]
    assert [event["is_cached"] for event in events] == [False, True, False] and trained(out) == [1, 1]


def test_a_run_held_elsewhere_is_left_for_last(make, out: Path, store: RunStore) -> None:
    held = store.try_lock(f"{1:012x}-s0")

    # A lock of another thread is as good as one of another process.
    done: dict = {}
    jobs = [job(out, 1, examples=99), job(out, 2, examples=5), job(out, 3)]
    thread = threading.Thread(target=lambda: done.update(make().run(jobs, store, silent)))
    thread.start()
    wait_until(lambda: len(trained(out)) == 2)
    time.sleep(0.5)
    assert trained(out) == [2, 3]
    held.lock.release()
    thread.join(20)
    assert outcomes(done) == dict.fromkeys((1, 2, 3), "finished") and trained(out) == [2, 3, 1]


def test_a_watcher_that_fails_fails_the_call_and_not_the_pool(make, out: Path, store: RunStore) -> None:
    def broken(event: Event) -> None:
        if event["event"] == "progress":
            raise OSError("nobody reads this terminal any more")

    pool = make()
    with pytest.raises(OSError, match="terminal"):
        pool.run([job(out, 1, "run 600")], store, broken)
    assert not any(is_running(pid) for pid in processes(out))
    assert outcomes(pool.run([job(out, 2)], store, silent)) == {2: "finished"}


def test_closing_the_pool_wakes_whoever_waits_and_leaves_no_worker(make, out: Path, store: RunStore) -> None:
    pool, caught = make(2), []

    def run() -> None:
        try:
            pool.run([job(out, 1, "run 600", examples=9), job(out, 2, "run 600"), job(out, 3)], store, silent)
        except CancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(trained(out)) == 2)
    started = time.monotonic()
    pool.close()
    thread.join(5)
    assert not thread.is_alive() and len(caught) == 1 and time.monotonic() - started < 2
    assert not any(is_running(pid) for pid in processes(out)) and store.complete() == []


def test_events_tell_the_whole_story_in_order(make, out: Path, store: RunStore) -> None:
    seen: list[Event] = []
    make(2).run([job(out, 1, "run 0.6")], store, seen.append)
    kinds = [event["event"] for event in seen]
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["queued", "started", "progress", "finished"]
    assert {event["run_id"] for event in seen} == {"000000000001-s0"} and "files" not in seen[-1]
    assert not list((out.parent / "logs").iterdir())  # neither an empty log nor the file that told of progress


def test_what_a_worker_prints_is_in_the_log_of_its_run(make, out: Path, store: RunStore, capfd) -> None:
    made = job(out, 1, "print")
    make().run([made], store, silent)
    assert Path(made.log).read_text().split("\n")[:2] == ["printed by a library", "printed by Python"]
    captured = capfd.readouterr()
    assert captured.out == "" and "printed" not in captured.err


def test_workers_get_their_settings_and_nothing_of_the_program_that_asks(make, out: Path, store: RunStore) -> None:
    before = dict(os.environ)
    found = make(threads=3).run([job(out, 1, "facts")], store, silent)
    assert found["000000000001-s0"]["message"] == ["3", "3", "false", str(2**25), True, True, None, False]
    assert dict(os.environ) == before and "OMP_NUM_THREADS" not in thread_environment(None)


def test_default_jobs_leaves_each_run_its_threads() -> None:
    assert default_jobs(None) == 1 and default_jobs(10**6) == 1
    assert 1 <= default_jobs(2) <= default_jobs(1) <= os.cpu_count()


def test_default_jobs_heeds_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(pools, "usable_cores", lambda: 3)
    assert (default_jobs(1), default_jobs(2), default_jobs(None)) == (3, 1, 1)


# Without the guard that multiprocessing asks for: nothing of the script may be run again in a worker.
OWNER = """
import json, sys
from pathlib import Path
from common.paths import Places
from common.runs.pool import Job, Pool
from common.runs.store import RunStore
jobs = [Job(**values) for values in json.loads(sys.argv[1])]
root = Path(sys.argv[2])
Pool(2, 1, module="obedient").run(jobs, RunStore(Places(root, root, root)), lambda event: None)
"""


def owner(out: Path, jobs: list[Job]) -> subprocess.Popen:
    script = out.parent / "owner.py"
    script.write_text(OWNER)
    argv = [sys.executable, str(script), json.dumps([vars(each) for each in jobs]), str(out.parent / "results")]
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}, start_new_session=True)


def test_a_script_without_a_guard_may_train(out: Path) -> None:
    assert owner(out, [job(out, n) for n in (1, 2)]).wait(60) == 0
    assert sorted(trained(out)) == [1, 2]


def test_no_worker_outlives_a_killed_owner(out: Path) -> None:
    killed = owner(out, [job(out, n, "run 600") for n in (1, 2)])
    wait_until(lambda: len(trained(out)) == 2, 60)
    killed.kill()
    killed.wait()
    wait_until(lambda: not any(is_running(pid) for pid in processes(out)), 5)
