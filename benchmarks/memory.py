"""What a study holds in memory: the runner and its workers, sampled while they train.

    python benchmarks/memory.py [--profile quick] [--data FOLDER] [--only 02,03] [--jobs 1] [--runs 50] [--json FILE]
                                [--markdown FILE]

Starts the runner in a folder of its own and adds up, once a second, the proportional set size (PSS) of the runner and
all its children: pages that several processes share count once. The runner is stopped after `--runs` finished runs.
With one job, growth from run to run is that of one worker.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from common.machine import processor
from common.paths import ROOT

EVERY_S = 1.0
PARTS = 5  # of the runs, one line of the table each


class Sample(NamedTuple):
    """At one moment: finished runs, MiB of the runner, MiB of each worker."""

    runs: int
    runner: float
    workers: tuple[float, ...]

    @property
    def all(self) -> float:
        return self.runner + sum(self.workers)


def samples(command: list[str], runs: int) -> Iterator[Sample]:
    """One a second, until the command ends or so many runs are finished."""
    with tempfile.TemporaryDirectory() as folder:
        process = psutil.Popen(command, cwd=ROOT, env=os.environ | {"STUDY_OUT": folder}, stdout=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                done = sum(1 for _ in Path(folder).rglob("runs/*/record.json"))
                if done >= runs:
                    break
                with_children = [process, *process.children(recursive=True)]
                sizes = [size for size in map(pss, with_children) if size is not None]
                if sizes:
                    yield Sample(done, sizes[0], tuple(sizes[1:]))
                time.sleep(EVERY_S)
            if process.poll():
                raise SystemExit(f"the runner failed with exit code {process.returncode}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()


def pss(process: psutil.Process) -> float | None:
    """MiB of a process; None when it has just ended."""
    try:
        return process.memory_full_info().pss / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def table(found: Sequence[Sample]) -> list[dict]:
    """For each part of the runs: the median and the most of all processes, and the median of the largest worker."""
    last = found[-1].runs + 1
    bounds = sorted({round(last * part / PARTS) for part in range(PARTS + 1)})
    lines = []
    for start, stop in pairwise(bounds):
        part = [sample for sample in found if start <= sample.runs < stop and sample.workers]
        if part:
            lines.append(
                {
                    "runs": f"{start} to {stop - 1}",
                    "all, median": statistics.median(sample.all for sample in part),
                    "all, most": max(sample.all for sample in part),
                    "largest worker, median": statistics.median(max(sample.workers) for sample in part),
                    "runner, median": statistics.median(sample.runner for sample in part),
                }
            )
    return lines


def markdown(lines: Sequence[dict]) -> str:
    """The table of the README, in MiB."""
    names = list(lines[0])
    told = ["| " + " | ".join(["Finished runs", *names[1:]]) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for line in lines:
        told.append("| " + " | ".join([line["runs"], *(f"{line[name]:.0f}" for name in names[1:])]) + " |")
    return "\n".join(told) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/memory.py", description=main.__doc__)
    parser.add_argument("--profile", default="quick", help="default: quick")
    parser.add_argument("--data", help="as the runner's")
    parser.add_argument("--only", default="02,03", help="notebooks whose rows are trained (default: 02,03)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: 1)")
    parser.add_argument("--runs", type=int, default=50, help="stop after so many (default: 50)")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "common.runner", "--profile", options.profile]
    command += ["--only", options.only, "--jobs", str(options.jobs)]
    command += ["--data", str(Path(options.data).resolve())] if options.data else []
    found = list(samples(command, options.runs))
    if not any(sample.workers for sample in found):
        raise SystemExit("no worker was seen: the study ended within a second")
    lines = table(found)
    print(f"{options.profile}, {options.jobs} at once, {found[-1].runs + 1} runs, MiB:\n{markdown(lines)}", end="")
    if options.json:
        asked = {"profile": options.profile, "jobs": options.jobs, "only": options.only, "cpu": processor()}
        options.json.write_text(json.dumps(asked | {"table": lines}, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
