"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from common import files
from common.errors import StudyError
from common.files import atomic_write

pytestmark = pytest.mark.fault


def test_atomic_write_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a" / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match="No space left on device") as error:
        atomic_write(path, b"new")
    assert error.value.code == "E-WRITE" and path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights" / "run"
    files.replace_folder(folder, {"a": b"1", "b": b"2"})
    files.replace_folder(folder, {"a": b"3"})
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"3")]
    write = files.atomic_write

    def full(path: Path, content: bytes) -> None:
        if path.name == "b":
            raise StudyError("E-WRITE", path, "cannot write: No space left on device.", "Free space.")
        write(path, content)

    monkeypatch.setattr(files, "atomic_write", full)
    with pytest.raises(StudyError, match="No space left"):
        files.replace_folder(folder, {"a": b"4", "b": b"5"})
    assert [path.name for path in folder.parent.iterdir()] == ["run"] and (folder / "a").read_bytes() == b"3"


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(stat.S_ISDIR(os.fstat(number).st_mode)), sync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    atomic_write(tmp_path / "file", b"x")
    assert done == [False, "renamed", True]
