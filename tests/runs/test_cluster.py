"""A scheduler and workers in folders of their own, as a user starts them; needs the extra `cluster` and openssl."""

from __future__ import annotations

import _thread
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import common as study
from common.errors import StudyError
from common.paths import ROOT
from common.runs.pool import Event, Job, local_pool
from common.runs.session import Study

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
dask = pytest.importorskip("dask")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificate", allow_module_level=True)

from common.runs import cluster  # noqa: E402 - needs the extra

SCRIPT = ("bash", "scripts/cluster.sh")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class Machines:
    """Starts the programs of scripts/cluster.sh in a folder, and ends them."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        (folder / "scripts").mkdir()
        for name in ("cluster.sh", "cluster.yaml"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts")
        # In place of the one that makes an environment.
        (folder / "scripts" / "bootstrap.sh").write_text(f'ROOT="{folder}" STUDY_PYTHON="{sys.executable}"')
        subprocess.run([*SCRIPT, "key"], cwd=folder, check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tls://127.0.0.1:{free.getsockname()[1]}"

    def start(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": path, "STUDY_OUT": str(self.folder / name), "TMPDIR": str(self.folder)}
        with open(self.folder / f"{name}.log", "w") as log:
            environment = {**os.environ, **own, **variables}
            streams = {"stdout": log, "stderr": log}
            self.processes.append(subprocess.Popen([*SCRIPT, *arguments], cwd=self.folder, env=environment, **streams))
        return self.processes[-1]

    def scheduler(self) -> subprocess.Popen:
        return self.start("scheduler", "scheduler", "127.0.0.1", self.address.rpartition(":")[2])

    def worker(self, name: str, **variables: str) -> subprocess.Popen:
        return self.start(name, "worker", self.address, **variables)

    def end(self) -> None:
        for process in self.processes:
            with_children = [psutil.Process(process.pid)] if process.poll() is None else []
            for each in [child for p in with_children for child in p.children(recursive=True)] + with_children:
                each.kill()
            process.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    names = {"ca-file": "cluster.pem", "client.cert": "cluster.pem", "client.key": "cluster.key"}
    with dask.config.set({f"distributed.comm.tls.{key}": str(tmp_path / name) for key, name in names.items()}):
        yield made
    made.end()


@pytest.fixture
def lab(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("STUDY_OUT", str(machines.folder / "caller"))
    return study.open_study("smoke", jobs=1, scheduler=machines.address)


def jobs_of(lab: Study, labels: list[str]) -> list[Job]:
    """Jobs for tests/obedient.py, which trains nothing: it obeys the label and counts in a file."""
    names = {"profile": "smoke", "data": "embedded", "encoder": "tiny-random", "encoders": "", "checkpoint": "none"}
    logs = lab.places.logs
    return [
        Job(f"{n:012x}-s0", {"id": label}, label, {}, {}, examples=100 - n, log=str(logs / f"{n}.log"), **names)
        for n, label in enumerate(labels, start=1)
    ]


def obedient(lab: Study) -> cluster.Cluster:
    made = lab._workers()
    made._module = "obedient"
    return made


def silent(event: Event) -> None:
    """Watch and say nothing."""


def results(events: dict[str, Event]) -> list[str]:
    return [events[run_id]["event"] for run_id in sorted(events)]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def lines(folder: Path) -> list[list[str]]:
    return [line.split() for path in sorted(folder.glob("counts-*")) for line in path.read_text().splitlines()]


def test_runs_are_the_same_on_two_workers_with_folders_of_their_own(machines: Machines, lab: Study) -> None:
    machines.scheduler()
    for name in ("first", "second"):
        machines.worker(name)
    rows = study.rows("swissbert", "table2")[:4]
    trained = lab.run(rows)
    alone = study.open_study("smoke", jobs=1)
    alone = replace(alone, places=replace(alone.places, results=machines.folder / "alone", build=machines.folder / "b"))
    alone = replace(alone, store=type(alone.store)(alone.places))
    expected = alone.run(rows)
    local_pool(1, 1).close()
    for row in rows:
        (ours,), (theirs,) = trained[row.id].records, expected[row.id].records
        assert ours["files"] == theirs["files"] and ours["metrics"] == theirs["metrics"]
        assert ours["hashes"] == theirs["hashes"]
    kept = [len(list((machines.folder / name).rglob("record.json"))) for name in ("first", "second")]
    assert sum(kept) == 4 and 0 not in kept


def test_a_run_whose_worker_is_killed_is_trained_elsewhere(machines: Machines, lab: Study) -> None:
    machines.scheduler()
    workers = [machines.worker(name, COUNTS=str(machines.folder / f"counts-{name}")) for name in ("first", "second")]
    killed: list[int] = []

    def kill(event: Event) -> None:
        if event["event"] == "progress" and event["done"] == 1 and event["label"] == "run 3" and not killed:
            killed.append(next(int(pid) for run_id, pid, _ in lines(machines.folder) if run_id == event["run_id"]))
            nanny = psutil.Process(killed[0]).parent()
            os.kill(killed[0], signal.SIGKILL)
            nanny.kill()

    events = obedient(lab).run(jobs_of(lab, ["run 3", "run", "run", "run"]), lab.store, kill)
    assert results(events) == ["finished"] * 4 and len(killed) == 1 and len(lab.store.complete()) == 4
    assert [run_id for run_id, _, _ in lines(machines.folder)].count(f"{1:012x}-s0") == 2
    assert sum(worker.poll() is None for worker in workers) == 1


def test_a_run_that_kills_three_workers_has_failed_and_the_others_go_on(machines: Machines, lab: Study) -> None:
    machines.scheduler()
    machines.worker("first")
    events = obedient(lab).run(jobs_of(lab, ["kill 3", "run", "fail", "run"]), lab.store, silent)
    assert results(events) == ["failed", "finished", "failed", "finished"]
    assert "three workers died while they trained it" in events[f"{1:012x}-s0"]["message"]
    failure = events[f"{3:012x}-s0"]
    assert failure["message"] == "ValueError: broken" and Path(failure["log"]).read_text() == "Traceback\n"


def test_a_worker_with_other_data_is_refused_and_ends(machines: Machines, lab: Study) -> None:
    machines.scheduler()
    wrong = machines.worker("wrong", STUDY_DATA="/no/such/folder")
    client = cluster._connect(machines.address)
    wait_until(client.nthreads)
    client.close()
    with pytest.raises(StudyError, match="no worker fits the caller") as error:
        obedient(lab).run(jobs_of(lab, ["run"]), lab.store, silent)
    assert "no such folder" in error.value.problems[0] and error.value.code == "E-CLUSTER"
    wait_until(lambda: wrong.poll() is not None)  # its nanny starts no other


def test_workers_may_join_later_and_a_wrong_one_is_refused_then_too(
    machines: Machines, lab: Study, capfd: pytest.CaptureFixture
) -> None:
    scheduler = machines.scheduler()
    seen, caught = [], []

    def run() -> None:
        try:
            obedient(lab).run(jobs_of(lab, ["run 600"]), lab.store, seen.append)
        except StudyError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    machines.worker("right")
    late = machines.worker("late", STUDY_ENCODER="tiny-bert")
    wait_until(lambda: late.poll() is not None)
    wait_until(lambda: [event["event"] for event in seen] == ["queued", "started", "progress", "progress"])
    scheduler.kill()
    thread.join(30)
    assert "is gone" in caught[0].what
    told = capfd.readouterr().err
    assert "is refused: it has another weights" in told and "Workers: " in told


def test_ctrl_c_leaves_no_task_behind(machines: Machines, lab: Study) -> None:
    machines.scheduler()
    machines.worker("first")

    def interrupt(event: Event) -> None:
        if event["event"] == "progress" and event["done"] == 1:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        obedient(lab).run(jobs_of(lab, ["beat 600", "run"]), lab.store, interrupt)
    client = cluster._connect(machines.address)
    wait_until(lambda: not any(client.processing().values()) and client.nthreads(), 20)
    events = obedient(lab).run(jobs_of(lab, ["run", "run"]), lab.store, silent)
    client.close()
    assert results(events) == ["finished", "finished"]  # the worker is free


def test_a_scheduler_that_is_gone_is_said_to_be_gone(machines: Machines, lab: Study) -> None:
    scheduler = machines.scheduler()
    machines.worker("first")

    def kill(event: Event) -> None:
        if event["event"] == "progress":
            scheduler.kill()

    with pytest.raises(StudyError, match="the scheduler is gone") as error:
        obedient(lab).run(jobs_of(lab, ["run 600"]), lab.store, kill)
    assert error.value.code == "E-CLUSTER"


def test_nobody_enters_without_the_key(machines: Machines, lab: Study, tmp_path: Path) -> None:
    machines.scheduler()
    for name in ("cluster.pem", "cluster.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    (tmp_path / "other").mkdir()
    Machines(tmp_path / "other")  # with a key of its own
    cluster._connect(machines.address).close()
    with (
        dask.config.set(
            {
                f"distributed.comm.tls.client.{n}": str(tmp_path / "other" / f"cluster.{e}")
                for n, e in (("cert", "pem"), ("key", "key"))
            }
        ),
        pytest.raises(StudyError) as error,
    ):
        cluster._connect(machines.address)
    assert error.value.code == "E-CLUSTER"
    with pytest.raises(StudyError):
        cluster._connect(machines.address.replace("tls", "tcp"))


def test_a_certificate_that_is_not_here_is_named(tmp_path: Path) -> None:
    with dask.config.set({"distributed.comm.tls.ca-file": "no-such.pem"}), pytest.raises(StudyError) as error:
        cluster._connect("tls://127.0.0.1:9")
    assert "no-such.pem" in error.value.what


def test_what_differs_is_named() -> None:
    ours = cluster.Origin("smoke", "embedded", "tiny-random", {"sst": "1", "sts": "2"}, {"weights": "3"}, "4")
    assert ours.differences(replace(ours, data=ours.data | {"cfimdb": "9"})) == []
    other = replace(ours, data={"sst": "1"}, encoder_hashes={"weights": "x"}, code="y")
    assert ours.differences(other) == ["data of sts", "weights", "code"]


def test_what_a_worker_stored_with_other_code_is_trained_again() -> None:
    ours = cluster.Origin("smoke", "embedded", "tiny-random", {"sst": "1", "sts": "2"}, {"weights": "3"}, "4")
    record = {"hashes": {"data": {"sst": "1"}, "weights": "3"}, "environment": {"code": "4"}}
    assert ours.made(record)
    for changes in ({"environment": {"code": "5"}}, {"hashes": {"data": {"sst": "9"}, "weights": "3"}}):
        assert not ours.made(record | changes)
