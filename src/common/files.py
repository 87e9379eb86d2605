"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from common.errors import StudyError


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


def sync_folder(folder: Path) -> None:
    """Make a rename in that folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
