"""The benchmarks run and measure what they say; how fast anything is, is no test."""

import json
import runpy
import sys

import pytest

from common.paths import ROOT

METHODS = runpy.run_path(str(ROOT / "benchmarks" / "methods.py"))


def test_methods_prints_one_line_per_method_with_parameters_and_ratio(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["methods.py"])
    files = {"--json": tmp_path / "found.json", "--markdown": tmp_path / "found.md"}
    METHODS["main"](
        ["--encoder", "tiny-random", "--precision", "fp32", "--rounds", "2"]
        + [str(x) for p in files.items() for x in p]
    )
    found = json.loads(files["--json"].read_text())["methods"]
    names = METHODS["methods"]("tiny-random", "fp32")
    assert list(found) == list(names) and len(names) >= 15
    plain = found[METHODS["PLAIN"]]
    assert plain["ratio"] == 1 and plain["added"] == 0 and all(line["ms"] > 0 for line in found.values())
    # PALs of three tasks: 2 H s + 3 L s^2 weights and H + s + 3 L s biases each, with H = 128, s = 32, L = 2.
    assert found["PALs"]["added"] == 3 * (2 * 128 * 32 + 3 * 2 * 32**2 + 128 + 32 + 3 * 2 * 32)
    assert files["--markdown"].read_text() in capsys.readouterr().out


def test_a_single_round_is_refused(capsys):
    with pytest.raises(SystemExit):
        METHODS["main"](["--rounds", "1"])
    assert "at least 2" in capsys.readouterr().err
