"""What this machine has and lacks for the study, as a plain table: python -m common.doctor. Nothing is changed.

It also runs before anything is installed, with any Python 3.8 or newer: python3 src/common/doctor.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

MODULES = (
    "torch",
    "transformers",
    "tokenizers",
    "papermill",
    "ipykernel",
    "pandas",
    "pyarrow",
    "safetensors",
    "psutil",
)
NEEDED_PYTHON, NEEDED_DISK_GB, NEEDED_MEMORY_GB = (3, 11), 1.0, 2.0


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when everything needed is there, 3 otherwise."""
    about = "Tell what this machine has and lacks for the study. Nothing is changed."
    epilog = "exit codes: 0 everything needed is there, 3 something is missing"
    argparse.ArgumentParser(prog="doctor", description=about, epilog=epilog).parse_args(arguments)
    packages, machine = _python(), _machine()
    if not any(problem for _, _, problem in packages):
        machine += _memory() + _optional()
    checks = packages + machine
    width = max(len(name) for name, _, _ in checks)
    for name, found, problem in checks:
        print(f"{'PROBLEM' if problem else 'ok':8}{name:{width}}  {found}{f'. {problem}' if problem else ''}")
    return 3 if any(problem for _, _, problem in checks) else 0


# Each check is a name, what was found, and what to do where that is not enough.
def _python() -> list[tuple[str, str, str | None]]:
    is_old = sys.version_info < NEEDED_PYTHON
    fix = "Python 3.11 or later is needed: install it, remove .venv, and run ./run_all.sh."
    version = ("python", f"{platform.python_version()} ({sys.executable})", fix if is_old else None)
    return [version, *map(_module, MODULES)]


def _module(name: str) -> tuple[str, str, str | None]:
    try:
        return name, importlib.metadata.version(name), None
    except importlib.metadata.PackageNotFoundError:
        return name, "missing", "Run ./run_all.sh, which installs it into .venv, or pip install -r requirements.txt."


def _machine() -> list[tuple[str, str, str | None]]:
    """What the standard library can tell."""
    from common import machine, paths

    root = paths.output_root()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    disk = shutil.disk_usage(existing).free / 2**30
    is_writable = existing.is_dir() and os.access(existing, os.W_OK)
    return [
        ("cores", f"{machine.usable_cores()} may be used", None),
        ("disk", f"{disk:.1f} GB free at {existing}", None if disk >= NEEDED_DISK_GB else "Free at least 1 GB."),
        ("output", str(root), None if is_writable else "It cannot be written: set STUDY_OUT to another folder."),
    ]


def _memory() -> list[tuple[str, str, str | None]]:
    import psutil

    from common.runs.pool import default_jobs

    memory = psutil.virtual_memory().available / 2**30
    return [
        ("runs at once", f"{default_jobs(1)} with one thread each", None),
        ("memory", f"{memory:.1f} GB free", None if memory >= NEEDED_MEMORY_GB else "2 GB are needed; use --jobs 1."),
    ]


def _optional() -> list[tuple[str, str, str | None]]:
    """What only some profiles use; its absence is no problem."""
    import torch

    from common import paths
    from common.model.weights import MINILM_PACKAGE

    has_minilm = any(importlib.metadata.distributions(name=MINILM_PACKAGE))
    folder = paths.ROOT / "data"
    data = str(folder) if folder.is_dir() else "none in the checkout; name one with --data"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; smoke, quick and cpu need none"
    return [
        ("MiniLM encoder", "installed" if has_minilm else "not yet; fetched when the cpu profile first asks", None),
        ("data folder", data, None),
        ("GPU", gpu, None),
    ]


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # called as a file, Python looks beside it, not above
    sys.exit(main())
