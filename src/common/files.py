"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
import uuid
from pathlib import Path

from common.errors import StudyError

LEFT = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)
DAY_S = 86400.0


def atomic_write(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash or a full disk leaves either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            fix = "Free space or give write permission; everything written before is unchanged."
            raise StudyError("E-WRITE", str(path), f"cannot write: {error.strerror or error}.", fix) from error
        raise
    sync_folder(path.parent)


def replace_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Replace a folder by one of these files; a crash leaves the old one, none or the new one, never a part of one."""
    staged, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    try:
        for leftover in (staged, old):  # of a killed writer
            shutil.rmtree(leftover, ignore_errors=True)
        for name, content in contents.items():
            atomic_write(staged / name, content)
        if folder.exists():
            os.rename(folder, old)
        os.rename(staged, folder)
    except OSError as error:
        fix = "Free space or give write permission, and try again."
        raise StudyError("E-WRITE", folder, f"cannot be replaced: {error.strerror or error}.", fix) from error
    finally:
        for leftover in (staged, old):
            shutil.rmtree(leftover, ignore_errors=True)
    sync_folder(folder.parent)


def refuse_without_locks(folder: Path) -> None:
    """Two programs at once rely on locks, which some network file systems lack; StudyError there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lock-{uuid.uuid4().hex}"
    try:
        with open(path, "xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        fix = "Set STUDY_OUT to a folder on a local disk."
        raise StudyError("E-LOCK", str(folder), f"files cannot be locked here: {error.strerror}.", fix) from error
    finally:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left of `atomic_write`; a write lasts seconds, so a day's age is sure."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # another sweeps as well
            if LEFT.fullmatch(path.name) and time.time() - path.stat().st_mtime > DAY_S:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in that folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
