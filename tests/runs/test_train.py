"""One job in this process: what it gives back, and how an error is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import common as study
from common.errors import StudyError
from common.runs import train
from common.runs.pool import Job


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> study.Study:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    return study.open_study("smoke", jobs=1)


@pytest.fixture
def job(lab: study.Study) -> Job:
    return lab.jobs_for(lab.plan([study.row("swissbert_pair")]))[0]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(train.loop, "run", run)


def test_a_job_comes_back_as_files_and_writes_nothing(lab: study.Study, job: Job, tmp_path: Path) -> None:
    seen: list[tuple] = []
    event = train.attempt(job, lambda *told: seen.append(told))
    assert event["event"] == "finished" and not list(tmp_path.rglob("*.json"))
    record = lab.store.adopt(job.run_id, event["files"])
    assert record["run_id"] == job.run_id and record["spec"] == job.spec and record["written"] == job.written
    assert seen[-1][0] == seen[-1][1] == sum(record["counts"]["examples"].values())


def test_the_same_job_twice_gives_the_same_bytes(job: Job) -> None:
    first, second = (train.attempt(job, lambda *told: None)["files"] for _ in range(2))
    assert first.keys() == second.keys() and len(first) == 3
    times = ("wall_s", "sha256", "history", "untrained_heads")
    records = [json.loads(files.pop("record.json")) for files in (first, second)]
    assert first == second and len({str({k: v for k, v in r.items() if k not in times}) for r in records}) == 1


@pytest.mark.parametrize(
    ("error", "message", "has_details"),
    [
        (StudyError("E-DATA", "sst", "is missing.", "Bring it."), "sst: is missing. [E-DATA] Bring it.", False),
        (ValueError("odd shape\nmore"), "ValueError: odd shape", True),
        (MemoryError(), "out of memory (MemoryError: ). Use fewer --jobs.", True),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory (OutOfMemoryError: CUDA out of memory.)", True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "out of memory (RuntimeError: ", True),
        (RuntimeError("std::bad_alloc"), "out of memory (RuntimeError: std::bad_alloc)", True),
    ],
)
def test_an_error_is_one_line_and_the_unexpected_is_there_in_full(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str, has_details: bool
) -> None:
    failing(monkeypatch, error)
    event = train.attempt(job, lambda *told: None)
    assert event["event"] == "failed" and event["message"].startswith(message)
    assert ("Traceback" in event["details"]) is has_details


def test_memory_that_the_allocator_refuses_is_told_as_such(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.loop, "run", lambda *arguments, **named: torch.empty(2**60))
    assert train.attempt(job, lambda *told: None)["message"].startswith("out of memory (RuntimeError: ")


def test_weights_that_are_no_numbers_are_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = train.loop.run

    def run(*arguments: object, **named: object) -> object:
        outcome = real(*arguments, **named)
        outcome.record["metrics"]["dev"]["overall"] = float("nan")
        return outcome

    monkeypatch.setattr(train.loop, "run", run)
    message = train.attempt(job, lambda *told: None)["message"]
    assert "record.metrics.dev.overall" in message and "E-FINITE" in message


def test_progress_is_told_at_most_so_often_and_at_the_end() -> None:
    told: list[dict] = []
    report = train.watched(told.append, every_s=60)
    for done in range(1, 6):
        report(done, 5, "epoch 1/1")
    assert [event["done"] for event in told] == [1, 5] and told[0]["note"] == "epoch 1/1"
