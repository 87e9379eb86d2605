"""The doctor: a table, and an exit code that says whether something needed is missing."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from common import doctor


def test_a_sound_machine_passes_and_every_version_is_named(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GB", 0.0)
    monkeypatch.setattr(doctor, "NEEDED_DISK_GB", 0.0)
    assert doctor.main() == 0
    told = capsys.readouterr().out
    assert all(f"{name} " in told and importlib.metadata.version(name) in told for name in doctor.MODULES)
    assert "PROBLEM" not in told and str(tmp_path) in told and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("MODULES", ("torch", "no_such_package"), "no_such_package  missing. Run ./run_all.sh"),
        ("NEEDED_PYTHON", (99, 0), "Python 3.11 or later is needed"),
        ("NEEDED_DISK_GB", 1e9, "Free at least 1 GB"),
        ("NEEDED_MEMORY_GB", 1e9, "use --jobs 1"),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(setting: str, value: object, told: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(doctor, setting, value)
    assert doctor.main() == 3
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM"))
    assert told in line


def test_an_output_that_is_a_file_is_told(capsys, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out").write_text("")
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    assert doctor.main() == 3
    assert "set STUDY_OUT" in capsys.readouterr().out
