"""What a whole study costs: `quick` from start to end with where its time goes, and time against rows, seeds, workers.

    python benchmarks/study.py [--profile quick] [--grid] [--json FILE] [--markdown FILE]

The first part runs the runner as a person would, in a folder of its own, and takes wall and processor time of all its
processes; the records then say what training, evaluation and probes took. `--grid` trains growing sets of rows and
seeds with one worker and with two, and prints each beside a straight line through the first and the last. The rows of
the grid cost the same: they differ in how losses are weighted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scaling import straight_line

from common import open_study, row, rows
from common.declare.profile import PROFILES
from common.paths import ROOT
from common.runs.pool import local_pool

EQUALLY_LONG = (
    "swissbert_pair",
    "swissbert_pair_learnable_weights",
    "swissbert_pair_homoscedastic",
    "swissbert_pair_awl_lr1e5",
)
GRID = ((1, 1, 1), (2, 1, 1), (4, 1, 1), (4, 2, 1), (4, 4, 1), (1, 1, 2), (2, 1, 2), (4, 1, 2), (4, 2, 2), (4, 4, 2))


def whole(profile: str) -> dict:
    """Wall and processor seconds of the runner on an empty folder, and what the records say of it."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "common.runner", "--profile", profile]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"STUDY_OUT": folder}, capture_output=True, text=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"the runner failed:\n{done.stderr}")
        records = [json.loads(p.read_text()) for p in Path(folder).glob(f"results/{profile}/runs/*/record.json")]
    epochs = [entry for record in records for entry in record["history"]]
    return {
        "wall_s": wall,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "peak_process_mib": after.ru_maxrss / 1024,
        "runs": len(records),
        "runs_s": sum(record["wall_s"] for record in records),
        "epochs_s": sum(entry["wall_s"] for entry in epochs),
        "updates": sum(record["counts"]["updates"] for record in records),
        "examples": sum(sum(record["counts"]["examples"].values()) for record in records),
    }


def grid(profile: str) -> list[dict]:
    """Seconds to train so many rows and seeds with so many workers, the start of the workers told apart."""
    models = [row(name) for name in EQUALLY_LONG]
    found = []
    for count, seeds, jobs in GRID:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["STUDY_OUT"] = folder
            lab = open_study(profile, seeds=list(range(seeds)), jobs=jobs)
            lab.run(rows("swissbert", "controls")[:1])  # starts the workers and reads the data
            started = time.perf_counter()
            lab.run(models[:count])
            found.append({"rows": count, "seeds": seeds, "workers": jobs, "s": time.perf_counter() - started})
            print(found[-1], flush=True)
            local_pool(jobs, PROFILES[profile].threads).close()
            local_pool.cache_clear()
    return found


def report(found: dict) -> str:
    """The lines that are printed."""
    whole_ = found["whole"]
    runs, epochs = whole_["runs_s"], whole_["epochs_s"]
    lines = [
        f"{found['profile']}: {whole_['wall_s']:.0f} s wall, {whole_['user_s'] + whole_['system_s']:.0f} s of processor"
        f" ({whole_['system_s']:.0f} s of it in the system), {whole_['runs']} runs, {whole_['updates']} updates",
        f"  inside runs {runs:.0f} s: epochs {epochs:.0f} s; loading, final evaluation, probes {runs - epochs:.0f} s",
        f"  largest process {whole_['peak_process_mib']:.0f} MiB",
    ]
    for jobs in sorted({point["workers"] for point in found["grid"]}):
        points = [p | {"x": p["rows"] * p["seeds"]} for p in found["grid"] if p["workers"] == jobs]
        for point, line in zip(points, straight_line(points), strict=True):
            cells = f"{point['rows']} rows x {point['seeds']} seeds, {jobs} worker(s)"
            lines.append(f"  {cells}: {point['s']:.1f} s, straight line {line:.1f} s")
    return "\n".join(lines)


def markdown(grid: list[dict]) -> str:
    """The table of the README: the grid's times over that of its first point."""
    lines = ["| Rows | Seeds | Workers | Time | Per run and worker |", "|---:|---:|---:|---:|---:|"]
    for point in grid:
        times = point["s"] / grid[0]["s"]
        each = times * point["workers"] / (point["rows"] * point["seeds"])
        lines.append(f"| {point['rows']} | {point['seeds']} | {point['workers']} | {times:.2f} | {each:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/study.py", description=main.__doc__)
    parser.add_argument("--profile", default="quick", choices=("smoke", "quick"), help="default: quick")
    parser.add_argument("--grid", action="store_true", help="also time against rows, seeds and workers")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the grid as a table of ratios here")
    options = parser.parse_args(arguments)
    if options.markdown and not options.grid:
        parser.error("--markdown writes the grid: give --grid too")
    found = {"profile": options.profile, "whole": whole(options.profile), "grid": []}
    if options.grid:
        found["grid"] = grid(options.profile)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(found["grid"]), encoding="utf-8")


if __name__ == "__main__":
    main()
