"""What this machine has and lacks for the study, as a plain table: python -m common.doctor. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

from common import paths

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
# Name, what was found, and what to do where it is not enough.
Check = tuple[str, str, str | None]


def main() -> int:
    """Print the table; 0 when everything needed is there, 3 otherwise."""
    checks = _python()
    if not any(problem for _, _, problem in checks):
        checks += _machine() + _optional()
    width = max(len(name) for name, _, _ in checks)
    for name, found, problem in checks:
        print(f"{'PROBLEM' if problem else 'ok':8}{name:{width}}  {found}{f'. {problem}' if problem else ''}")
    return 3 if any(problem for _, _, problem in checks) else 0


def _python() -> list[Check]:
    is_old = sys.version_info < NEEDED_PYTHON
    fix = "Python 3.11 or later is needed: install it, remove .venv, and run ./run_all.sh."
    version = ("python", f"{platform.python_version()} ({sys.executable})", fix if is_old else None)
    return [version, *map(_module, MODULES)]


def _module(name: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return name, "missing", "Run ./run_all.sh, which installs it, or pip install -r requirements.txt."
    return name, importlib.metadata.version(name), None


def _machine() -> list[Check]:
    import psutil

    from common.study.execute import default_jobs  # needs the packages that were just found

    root = paths.output_root()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    disk, memory = (count / 2**30 for count in (shutil.disk_usage(existing).free, psutil.virtual_memory().available))
    is_writable = existing.is_dir() and os.access(existing, os.W_OK)
    return [
        ("runs at once", f"{default_jobs(1)} with one thread each", None),
        ("memory", f"{memory:.1f} GB free", None if memory >= NEEDED_MEMORY_GB else "2 GB are needed; use --jobs 1."),
        ("disk", f"{disk:.1f} GB free at {existing}", None if disk >= NEEDED_DISK_GB else "Free at least 1 GB."),
        ("output", str(root), None if is_writable else "It cannot be written: set STUDY_OUT to another folder."),
    ]


def _optional() -> list[Check]:
    """What only some profiles use; its absence is no problem."""
    import torch

    from common.model.weights import MINILM_PACKAGE

    has_minilm = any(importlib.metadata.distributions(name=MINILM_PACKAGE))
    places = (paths.ROOT / "data", paths.ROOT.parent / "shared" / "data" / "cs224n")
    data = next((str(folder) for folder in places if folder.is_dir()), "none beside the checkout; name one with --data")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; smoke, quick and cpu need none"
    return [
        ("MiniLM encoder", "installed" if has_minilm else "not yet; fetched when the cpu profile first asks", None),
        ("data folder", data, None),
        ("GPU", gpu, None),
    ]


if __name__ == "__main__":
    sys.exit(main())
