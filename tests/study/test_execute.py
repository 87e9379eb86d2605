"""The pool and the broker, driven with a small worker script that obeys the label of a job."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from common.errors import StudyError
from common.study import execute
from common.study.execute import Broker, Job, Pool, default_jobs, results, run_remotely, thread_environment

# Trains by sleeping; keeps a line per training in the file `out`, so that a test can count and order them.
WORKER = """
import json, os, sys, threading, time, queue
lines = queue.SimpleQueue()
def listen():
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)
threading.Thread(target=listen, daemon=True).start()
def send(**event):
    print(json.dumps(event), flush=True)
while True:
    job = json.loads(lines.get())
    kind, _, seconds = job["label"].partition(" ")
    if kind == "busy" and not job["wait"]:
        send(event="busy")
        continue
    send(event="started")
    with open(job["out"], "a") as file:
        file.write(job["run_id"] + " " + str(os.getpid()) + " " + str(job["force"]) + "\\n")
    send(event="progress", done=1, total=2, note="")
    time.sleep(float(seconds or 0))
    if kind == "kill":
        os.kill(os.getpid(), 9)
    if kind == "exit":
        os._exit(3)
    if kind == "fail":
        send(event="failed", message="ValueError: broken", log=job["log"])
    elif kind == "memory":
        os._exit(137)
    else:
        send(event="finished", is_cached=False, wall_s=0.0)
"""


def job(out: Path, number: int, label: str = "run", examples: int = 1) -> Job:
    names = {"profile": "smoke", "data": "embedded", "encoder": "tiny-random", "out": str(out), "log": "log"}
    return Job(run_id=f"{number:012x}-s0", label=label, spec={}, written={}, examples=examples, **names)


def trained(out: Path) -> list[int]:
    return [int(line.split("-")[0], 16) for line in out.read_text().splitlines()] if out.exists() else []


def processes(out: Path) -> set[int]:
    return {int(line.split()[1]) for line in out.read_text().splitlines()}


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "trained"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return [sys.executable, str(script)]


@pytest.fixture
def pool(command: list[str]) -> Iterator[Pool]:
    pool = Pool(2, 1, worker_command=command)
    yield pool
    pool.close()


def outcomes(results: dict[str, dict]) -> dict[int, str]:
    return {int(run_id.split("-")[0], 16): event["event"] for run_id, event in results.items()}


def test_workers_stay_alive_between_runs_and_end_with_the_pool(pool: Pool, out: Path) -> None:
    for _ in range(2):
        found = pool.run([job(out, number) for number in range(1, 5)])
        assert outcomes(found) == dict.fromkeys(range(1, 5), "finished")
    pids = processes(out)
    assert len(trained(out)) == 8 and len(pids) <= 2
    assert all(is_running(pid) for pid in pids)
    pool.close()
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_the_longest_run_comes_first(command: list[str], out: Path) -> None:
    pool = Pool(1, 1, worker_command=command)
    pool.run([job(out, 9, "run 0.3", examples=100)] + [job(out, n, examples=n) for n in (2, 7, 1, 5)])
    pool.close()
    assert trained(out) == [9, 7, 5, 2, 1]


def test_a_lower_rank_comes_before_a_longer_run(command: list[str], out: Path) -> None:
    pool = Pool(1, 1, worker_command=command)
    later = pool.submit([job(out, 9, "run 0.5", examples=900), job(out, 8, examples=500)], rank=2)
    wait_until(lambda: trained(out) == [9])  # begun when nothing else was there
    sooner = pool.submit([job(out, 1, examples=1), job(out, 2, examples=2)], rank=1)
    assert outcomes(results(sooner | later)) == dict.fromkeys((1, 2, 8, 9), "finished")
    pool.close()
    assert trained(out) == [9, 2, 1, 8]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("kill", "was killed, likely out of memory"),
        ("exit", "the worker ended with code 3 before the run did"),
        ("fail", "ValueError: broken"),
        ("memory", "was killed, likely out of memory"),
    ],
)
def test_a_failing_run_stops_no_other(pool: Pool, out: Path, label: str, message: str) -> None:
    jobs = [job(out, 1, label, examples=50)] + [job(out, number) for number in range(2, 6)]
    found = pool.run(jobs)
    assert outcomes(found) == {1: "failed"} | dict.fromkeys(range(2, 6), "finished")
    failure = found["000000000001-s0"]
    assert message in failure["message"] and failure["log"] == "log"
    assert outcomes(pool.run([job(out, 1)])) == {1: "finished"}


def test_a_worker_killed_from_outside_fails_its_run_only(pool: Pool, out: Path) -> None:
    killed = []

    def kill_first(event: dict) -> None:
        if event["event"] == "progress" and event["label"] == "run 5":
            line = next(line for line in out.read_text().splitlines() if line.startswith("000000000001"))
            killed.append(int(line.split()[1]))
            os.kill(killed[0], signal.SIGKILL)

    pool.watch = kill_first
    found = pool.run([job(out, 1, "run 5", examples=9), job(out, 2), job(out, 3)])
    assert outcomes(found) == {1: "failed", 2: "finished", 3: "finished"} and len(killed) == 1


def test_a_worker_that_cannot_start_fails_every_run(out: Path, capfd: pytest.CaptureFixture) -> None:
    pool = Pool(1, 1, worker_command=[sys.executable, "-c", "raise SystemExit('no such module')"])
    found = pool.run([job(out, 1), job(out, 2)])
    pool.close()
    assert outcomes(found) == {1: "failed", 2: "failed"}
    assert "ended with code 1" in found["000000000001-s0"]["message"]
    assert "no such module" in capfd.readouterr().err


def test_a_run_asked_for_twice_at_once_is_trained_once(pool: Pool, out: Path) -> None:
    found: list[dict[int, str]] = []

    def ask() -> None:
        found.append(outcomes(pool.run([job(out, 1, "run 0.5"), job(out, 1, "run 0.5")])))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert trained(out) == [1] and found == [{1: "finished"}] * 3


def test_a_run_held_elsewhere_is_left_for_last(command: list[str], out: Path) -> None:
    pool = Pool(1, 1, worker_command=command)
    found = pool.run([job(out, 1, "busy", examples=99), job(out, 2), job(out, 3)])
    pool.close()
    assert outcomes(found) == dict.fromkeys((1, 2, 3), "finished") and trained(out)[-1] == 1


def test_a_watcher_that_fails_fails_the_call_and_not_the_pool(command: list[str], out: Path) -> None:
    def broken(event: dict) -> None:
        if event["event"] == "progress":
            raise OSError("nobody reads this terminal any more")

    pool = Pool(1, 1, watch=broken, worker_command=command)
    with pytest.raises(OSError, match="terminal"):
        pool.run([job(out, 1)])
    pool.watch = None
    assert outcomes(pool.run([job(out, 2)])) == {2: "finished"}
    pool.close()


def test_closing_the_pool_wakes_whoever_waits(command: list[str], out: Path) -> None:
    pool = Pool(1, 1, worker_command=command)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            pool.run([job(out, 1, "run 600", examples=9), job(out, 2)])
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: trained(out) == [1])
    pool.close()
    thread.join(5)
    assert not thread.is_alive() and isinstance(caught[0], CancelledError)


def test_events_tell_the_whole_story_in_order(command: list[str], out: Path) -> None:
    seen: list[dict] = []
    pool = Pool(2, 1, watch=seen.append, worker_command=command)
    pool.run([job(out, 1)])
    pool.close()
    assert [event["event"] for event in seen] == ["queued", "started", "progress", "finished"]
    assert {event["run_id"] for event in seen} == {"000000000001-s0"}


def test_workers_get_the_threads_of_the_profile_and_a_session_of_their_own(out: Path) -> None:
    script = (
        "import json, os, sys; sys.stdin.readline()\n"
        "names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'TOKENIZERS_PARALLELISM')\n"
        "facts = [os.environ.get(n) for n in names] + [os.getsid(0) == os.getpid()]\n"
        "print(json.dumps({'event': 'failed', 'message': facts, 'log': None}), flush=True); sys.stdin.read()\n"
    )
    pool = Pool(1, 3, worker_command=[sys.executable, "-c", script])
    found = pool.run([job(out, 1)])
    pool.close()
    assert found["000000000001-s0"]["message"] == ["3", "3", "false", True]
    assert "OMP_NUM_THREADS" not in thread_environment(None)


def test_several_clients_share_the_pool(pool: Pool, out: Path) -> None:
    broker = Broker(pool)
    folder = Path(broker.address).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and len(broker.address) < 100
    found: dict[int, dict[int, str]] = {}

    def client(number: int) -> None:
        jobs = [job(out, n, "run 0.1") for n in (10 * number, 10 * number + 1, 99)]
        found[number] = outcomes(run_remotely(broker.address, jobs))

    threads = [threading.Thread(target=client, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    broker.close()
    assert found == {n: dict.fromkeys((10 * n, 10 * n + 1, 99), "finished") for n in (1, 2)}
    assert sorted(trained(out)) == [10, 11, 20, 21, 99]
    assert not folder.exists()


@pytest.mark.parametrize("label", ["run", "fail"])
def test_a_broker_trains_a_run_once_forced_or_failed(pool: Pool, out: Path, label: str) -> None:
    broker = Broker(pool)
    forced = replace(job(out, 1, label), force=True)
    found = [results(broker.submit([forced])), *(run_remotely(broker.address, [forced, forced]) for _ in range(2))]
    broker.close()
    outcome = "finished" if label == "run" else "failed"
    assert [event["event"] for events in found for event in events.values()] == [outcome] * 3
    assert all(event["label"] == label for events in found for event in events.values())
    assert [line.split()[2] for line in out.read_text().splitlines()] == ["True"]


def test_a_pool_that_is_gone_is_said_to_be_gone(pool: Pool, out: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as error:
        run_remotely(str(tmp_path / "none"), [job(out, 1)])
    assert error.value.code == "E-POOL"


def test_default_jobs_leaves_each_run_its_threads() -> None:
    assert default_jobs(None) == 1 and default_jobs(10**6) == 1
    assert 1 <= default_jobs(2) <= default_jobs(1) <= os.cpu_count()


def test_default_jobs_heeds_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(execute, "usable_cores", lambda: 3)
    assert (default_jobs(1), default_jobs(2), default_jobs(None)) == (3, 1, 1)


OWNER = """
import json, sys
from common.study.execute import Job, Pool
jobs = [Job(**values) for values in json.loads(sys.argv[1])]
Pool(2, 1, worker_command=json.loads(sys.argv[2])).run(jobs)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_no_worker_outlives_a_killed_owner(command: list[str], out: Path) -> None:
    jobs = [vars(job(out, n, "run 600")) for n in (1, 2)]
    argv = [sys.executable, "-c", OWNER, json.dumps(jobs), json.dumps(command)]
    source = str(Path(__file__).resolve().parents[2] / "src")
    owner = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": source})
    wait_until(lambda: len(trained(out)) == 2, 60)
    pids = processes(out)
    owner.kill()
    owner.wait()
    wait_until(lambda: not any(is_running(pid) for pid in pids), 5)
