"""Removes, in copies of the module, one guard after another, and shows that the tests notice each time.

    python -m tests.faults.mutants [NAME ...]

A guard whose removal no test notices is not guarded against a later clean-up. Exit codes: 0 all noticed, 1 one was not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "scripts", "notebooks", "benchmarks", "pyproject.toml", "run_all.sh", "run_tests.sh")


class Mutant(NamedTuple):
    """A text of a module that stands once, what takes its place, and the tests that must notice."""

    module: str
    text: str
    instead: str
    tests: tuple[str, ...]


FILES = ("tests/test_files.py",)
STORE = ("tests/runs/test_store.py",)
RESUME = ("tests/training/test_checkpoint.py",)
PAGE = ("tests/faults/test_surroundings.py", "tests/report/test_page.py")
MUTANTS = {
    "fsync": Mutant("files.py", "            os.fsync(file.fileno())\n", "", FILES),
    "rename": Mutant("files.py", "os.replace(temporary, path)", "path.write_bytes(content)", FILES),
    "fsync of the folder": Mutant("files.py", "    sync_folder(path.parent)\n", "", FILES),
    "hash of a file": Mutant("runs/store.py", "hexdigest() != digest:", "hexdigest() == None:", STORE),
    "hash of a record": Mutant("runs/store.py", "    if not is_sound:\n", "    if False:\n", STORE),
    "lock of a run": Mutant(
        "runs/store.py", '{run_id}.lock").acquire(', '{os.urandom(8).hex()}.lock").acquire(', STORE
    ),
    "hash of a checkpoint": Mutant(
        "training/checkpoint.py", "hexdigest().encode() != digest:", "hexdigest() == None:", RESUME
    ),
    "origin of a checkpoint": Mutant("training/checkpoint.py", "    if differing:\n", "    if False:\n", RESUME),
    "generator of torch": Mutant(
        "training/checkpoint.py", '    torch.set_rng_state(tensors["generator.torch"])\n', "", RESUME
    ),
    "generators of surgery and noise": Mutant(
        "training/checkpoint.py",
        '        generator.set_state(tensors[f"generator.{name}"])\n',
        "        pass\n",
        RESUME,
    ),
    "cells escaped on the page": Mutant(
        "report/page.py", ".map(lambda value: Markup.escape(value))", ".map(lambda value: value)", PAGE
    ),
    "headers escaped on the page": Mutant("report/page.py", "text.rename(columns=Markup.escape)", "text", PAGE),
    "template escapes": Mutant("report/page.py", "autoescape=True", "autoescape=False", PAGE),
    "formulas in CSV": Mutant("report/tables.py", "if value.startswith(FORMULA)", "if False", PAGE[:1]),
}


def is_noticed(mutant: Mutant) -> bool:
    """Whether a test fails on a copy in which the text is replaced."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
        module = copy / "src" / "common" / mutant.module
        text = module.read_text(encoding="utf-8")
        if text.count(mutant.text) != 1:
            raise SystemExit(f"{mutant.module} does not hold {mutant.text!r} once: mend the mutant.")
        module.write_text(text.replace(mutant.text, mutant.instead), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
        command = [sys.executable, "-m", "pytest", "-x", "-q", *mutant.tests]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.returncode == 1


def main(chosen: list[str]) -> int:
    """Try the mutants of these names, or all; one line each."""
    outcomes = {}
    for name in chosen or MUTANTS:
        outcomes[name] = is_noticed(MUTANTS[name])
        print(f"{'noticed' if outcomes[name] else 'NOT NOTICED':12} {name}", flush=True)
    return int(not all(outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
