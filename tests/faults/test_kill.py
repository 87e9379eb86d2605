"""Processes killed at bad moments: nothing is left running, nothing half done counts, and a second call completes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import v4

import common as study
from common.runs.pool import Event, Job, Pool
from common.runs.session import Study
from common.training import loop

ROOT = Path(__file__).resolve().parents[2]
DRIVER = (
    "import sys; from pathlib import Path; from common import paths; paths.NOTEBOOKS = Path(sys.argv.pop(1));"
    "from common.runner import main; sys.exit(main())"
)
PARAMETERS = "profile = None\ndata = None\nencoder = None\nseeds = None\njobs = None\nreport_only = False"
CELL = (
    "import common as study\n"
    "lab = study.open_study(profile, data=data, encoder=encoder, seeds=seeds, jobs=jobs, report_only=report_only)\n"
    'lab.run(study.rows("swissbert", "table2"))'
)
pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]


def write_notebook(path: Path, cells: list[str], rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = [v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(v4.new_code_cell, cells)]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=code, metadata={"kernelspec": kernelspec, "study": {"rows": rows}}), path)


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "notebooks" / "01_rows.ipynb", [CELL], ["swissbert/table2"])
    return tmp_path / "notebooks"


def start(folder: Path, out: Path, *arguments: str, driver: str = DRIVER) -> subprocess.Popen:
    """A runner in a session of its own, as a terminal gives it one."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "STUDY_OUT": str(out), "PYTHONPATH": path}
    command = [sys.executable, "-c", driver, str(folder), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)


def wait_until(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def children_in_training(runner: subprocess.Popen, out: Path) -> list[psutil.Process]:
    """The processes of a runner, once its workers have taken up a run."""
    wait_until(lambda: list(out.glob("build/quick/logs/*.progress")) or runner.poll() is not None, 120)
    children = psutil.Process(runner.pid).children(recursive=True)
    names = [" ".join(child.cmdline()) for child in children]
    assert any("spawn_main" in name for name in names)
    return children


def are_gone(processes: list[psutil.Process]) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_runner_leaves_nothing_running_and_says_how_to_go_on(
    number: signal.Signals, notebooks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--profile", "quick", "--encoder", "tiny-random", "--jobs", "1")
    runner = start(notebooks, out, *arguments)
    children = children_in_training(runner, out)
    started = time.monotonic()
    os.killpg(runner.pid, number)
    _, errors = runner.communicate(timeout=30)
    assert runner.returncode == 128 + number and time.monotonic() - started < 5
    wait_until(lambda: are_gone(children), 1)
    assert "Finished runs are kept; to go on: ./run_all.sh " + " ".join(arguments) in errors
    assert "Traceback" not in errors and "FAILED" not in errors
    assert not list(out.glob("results/quick/runs/*/record.json")) and not list(out.glob("results/quick/notebooks/*"))


def test_no_process_outlives_a_killed_runner(notebooks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner = start(notebooks, out, "--profile", "quick", "--encoder", "tiny-random", "--jobs", "1")
    children = children_in_training(runner, out)
    runner.kill()
    runner.communicate(timeout=30)
    wait_until(lambda: are_gone(children), 5)


def test_a_kernel_that_hangs_is_ended_and_the_others_are_published(tmp_path: Path) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    stop = (
        "import os, signal, time\n\n\ndef stuck():\n    os.kill(os.getpid(), signal.SIGSTOP)\n    time.sleep(60)\n\n\n"
    )
    sleep = "import time\n\n\ndef asleep():\n    time.sleep(600)\n\n\nasleep()"
    for name, cell in (("01_stopped", stop + "\n\nstuck()"), ("02_asleep", sleep), ("03_sound", "print(1)")):
        write_notebook(folder / f"{name}.ipynb", [cell], rows=[])
    limit = "from common import notebooks; notebooks.SILENCE_S = 4; from common.runner"
    driver = DRIVER.replace("from common.runner", limit)
    runner = start(folder, out, "--profile", "smoke", "--jobs", "3", driver=driver)
    told, errors = runner.communicate(timeout=100)
    assert runner.returncode == 4 and "1 of 3 published" in told
    for name, function in (("01_stopped", "stuck"), ("02_asleep", "asleep")):
        assert f"FAILED {name}: cell In [3] (import " in errors and f"in {function}" in errors
    assert errors.count("No progress for 4 s: its kernel was ended.") == 2 and "Traceback" not in errors


@pytest.mark.slow
def test_two_runners_at_once_train_each_run_once(notebooks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pair = [start(notebooks, out, "--profile", "smoke", "--jobs", "1") for _ in range(2)]
    said = [runner.communicate(timeout=200) for runner in pair]
    assert [runner.returncode for runner in pair] == [0, 0], said
    lines = [line for _, errors in said for line in errors.splitlines() if " trained in " in line]
    trained = len(list(out.glob("build/smoke/results/smoke/runs/*/record.json")))
    assert trained == len(study.rows("swissbert", "table2")) and len(lines) == trained


def lab(monkeypatch: pytest.MonkeyPatch, out: Path) -> Study:
    monkeypatch.setenv("STUDY_OUT", str(out))
    return study.open_study("smoke", jobs=1)


def jobs_of(here: Study) -> list[Job]:
    return here.jobs_for(here.plan(study.rows("swissbert", "table2")[:3]))


def test_two_pools_on_one_store_train_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = lab(monkeypatch, tmp_path / "out")
    jobs, seen = jobs_of(here), []
    pools_ = [Pool(1, 1) for _ in range(2)]
    threads = [threading.Thread(target=pool.run, args=(jobs, here.store, seen.append)) for pool in pools_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    for pool in pools_:
        pool.close()
    cached = [event["is_cached"] for event in seen if event["event"] == "finished"]
    assert sorted(cached) == [False] * 3 + [True] * 3 and len(here.store.complete()) == 3


def test_a_killed_worker_fails_its_run_only_and_a_second_call_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = lab(monkeypatch, tmp_path / "out")
    jobs = jobs_of(here)
    victim, killed = jobs[0].run_id, threading.Event()

    def kill(event: Event) -> None:
        if event["run_id"] == victim and event["event"] == "progress" and event["done"] and not killed.is_set():
            killed.set()
            next(p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())).kill()

    pool = Pool(1, 1)
    events = pool.run(jobs, here.store, kill)
    outcomes = {run_id: event["event"] for run_id, event in events.items()}
    assert outcomes == {job.run_id: "failed" if job.run_id == victim else "finished" for job in jobs}
    assert "its worker was killed by signal 9 (SIGKILL)" in events[victim]["message"]
    assert here.store.complete() == sorted(job.run_id for job in jobs[1:])
    assert pool.run(jobs_of(here), here.store, kill)[victim]["event"] == "finished"
    pool.close()
    assert here.store.complete() == sorted(job.run_id for job in jobs)
    assert not list(here.places.checkpoints.glob("*"))

    # What was interrupted ends as if nothing had happened.
    spec = next(plan.applied for plan in here.plan(study.rows("swissbert", "table2")) if plan.run_id == victim)
    expected = loop.run(spec, loop.Materials(here.corpus(), here.encoder_folder()), threads=1)
    assert here.store.get(victim)["metrics"] == expected.record["metrics"]
