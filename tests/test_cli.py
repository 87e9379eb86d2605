"""The options of run_all.sh, and their help, which must be there before anything is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import cli
from common.declare import profile

ROOT = Path(__file__).resolve().parents[1]


def said(*command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "COLUMNS": "100"}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True).stdout


def test_help_is_one_text_whoever_is_asked() -> None:
    assert said(str(ROOT / "run_all.sh"), "--only", "01", "--help") == said(str(ROOT / "run_all.sh"), "-h")
    runner = f"import sys; sys.path[:0] = ['{ROOT / 'src'}']; from common.runner import main; main(['--help'])"
    assert said(sys.executable, "-c", runner) == said(str(ROOT / "run_all.sh"), "--help")


def test_help_needs_the_standard_library_only() -> None:
    # -S hides every installed package, -I the folder of the file; an import of another module of ours fails too.
    assert "usage: run_all.sh" in said(sys.executable, "-I", "-S", str(ROOT / "src/common/cli.py"), "--help")


def test_help_names_every_profile() -> None:
    assert ", ".join(profile.PROFILES) in " ".join(cli.parser().format_help().split())


def test_the_examples_are_accepted() -> None:
    examples = re.findall(r"^  \./run_all\.sh(.*?)(?:   |$)", cli.EPILOG, flags=re.M)
    assert len(examples) == 6
    for example in examples:
        cli.parser().parse_args(example.split())


SEEDS, JOBS = "expected different whole numbers from 0 such as 0,1,2", "expected a whole number from 1"
WRONG = [("--seeds", text, SEEDS) for text in ("a,b", "1,", "1.5", "", "-1", "1,1", "1,01", "²")]
WRONG += [("--jobs", text, JOBS) for text in ("a", "", "0", "-1", "1.5")]
WRONG += [("--only", text, "expected numbers or names such as 00,02") for text in ("", " ", "01,", ",")]


@pytest.mark.parametrize(("option", "text", "words"), WRONG)
def test_a_wrong_value_is_refused_in_plain_words(option: str, text: str, words: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args([option, text])
    assert f"argument {option}: {words}, got {text!r}" in capsys.readouterr().err


def test_right_values_are_read() -> None:
    options = cli.parser().parse_args(["--seeds", "0, 2", "--jobs", "3", "--only", "01, 02_x"])
    assert (options.seeds, options.jobs, options.only) == ([0, 2], 3, ["01", "02_x"])
