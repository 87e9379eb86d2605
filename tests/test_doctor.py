"""The doctor: a table, and an exit code that says whether something needed is missing."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import doctor
from common.paths import ROOT


def test_a_sound_machine_passes_and_every_version_is_named(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GB", 0.0)
    monkeypatch.setattr(doctor, "NEEDED_DISK_GB", 0.0)
    assert doctor.main([]) == 0
    told = capsys.readouterr().out
    assert all(f"{name} " in told and importlib.metadata.version(name) in told for name in doctor.MODULES)
    assert "PROBLEM" not in told and str(tmp_path) in told and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("MODULES", ("torch", "no-such-package"), "no-such-package  missing. Run ./run_all.sh"),
        ("NEEDED_PYTHON", (99, 0), "Python 3.11 or later is needed"),
        ("NEEDED_DISK_GB", 1e9, "Free at least 1 GB"),
        ("NEEDED_MEMORY_GB", 1e9, "use --jobs 1"),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(setting: str, value: object, told: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(doctor, setting, value)
    assert doctor.main([]) == 3
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM"))
    assert told in line


def test_an_output_that_is_a_file_is_told(capsys, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out").write_text("")
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    assert doctor.main([]) == 3
    assert "set STUDY_OUT" in capsys.readouterr().out


def test_help_is_shown_and_nothing_is_checked(capsys, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_python", lambda: pytest.fail("the doctor ran"))
    with pytest.raises(SystemExit) as stopped:
        doctor.main(["--help"])
    assert stopped.value.code == 0 and "usage: doctor" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        doctor.main(["--helf"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("call", [["src/common/doctor.py"], ["-m", "common.doctor"]], ids=["file", "module"])
def test_a_machine_without_any_package_is_looked_at_too(call: list[str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("assets", "*.pyc"))
    # -S hides every installed package, -E what the environment adds to the path.
    here = tmp_path if call[0] != "-m" else tmp_path / "src"
    done = subprocess.run([sys.executable, "-E", "-S", *call], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if "missing" in line] == [line for line in lines if line.startswith("PROBLEM")]
    assert sum("missing" in line for line in lines) == len(doctor.MODULES)
    assert any(line.startswith("ok      disk") and str(tmp_path) in line for line in lines)
