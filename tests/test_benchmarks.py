"""The benchmarks run and measure what they say; how fast anything is, is no test."""

import json
import runpy
import sys

import pytest
import torch

from common.paths import ROOT

METHODS = runpy.run_path(str(ROOT / "benchmarks" / "methods.py"))


def test_methods_prints_one_line_per_method_with_parameters_and_ratio(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["methods.py"])
    files = {"--json": tmp_path / "found.json", "--markdown": tmp_path / "found.md", "--where": tmp_path / "where.md"}
    METHODS["main"](
        ["--encoder", "tiny-random", "--precision", "fp32", "--rounds", "2"]
        + [str(x) for p in files.items() for x in p]
    )
    record = json.loads(files["--json"].read_text())
    found, inner = record["methods"], record["where"]["inner products of gradients"]
    names = METHODS["methods"]("tiny-random", "fp32")
    assert [METHODS["PLAIN"], *found] == list(names) and len(names) >= 15
    assert all(line["ms"] > 0 and line["plain_ms"] > 0 for line in found.values())
    assert all(low <= line["ratio"] <= high for line in found.values() for low, high in [line["range"]])
    assert found["uncertainty weights"]["added"] == 0 < found["separate encoding"]["added"]
    # PALs of three tasks: 2 H s + 3 L s^2 weights and H + s + 3 L s biases each, with H = 128, s = 32, L = 2.
    assert found["PALs"]["added"] == 3 * (2 * 128 * 32 + 3 * 2 * 32**2 + 128 + 32 + 3 * 2 * 32)
    assert inner["PCGrad"] > inner[METHODS["PLAIN"]] == 0
    printed = capsys.readouterr().out
    assert files["--markdown"].read_text() in printed and files["--where"].read_text() in printed


def test_methods_run_on_the_engine_that_is_asked_for():
    for engine in ("plain", "fast"):
        assert {spec.engine for spec in METHODS["methods"]("tiny-random", "fp32", engine).values()} == {engine}


def test_a_single_round_is_refused(capsys):
    with pytest.raises(SystemExit):
        METHODS["main"](["--rounds", "1"])
    assert "at least 2" in capsys.readouterr().err


def test_step_trains_every_contestant_on_the_same_examples_to_the_same_loss(tmp_path, capsys, monkeypatch):
    """Without dropout noise in the way of a few updates the three ways of one update agree on the loss."""
    step = runpy.run_path(str(ROOT / "benchmarks" / "step.py"))
    # A processor without AVX-512 takes many seconds for one bfloat16 product of the size that is measured.
    monkeypatch.setitem(step["measure"].__globals__, "peak_flops", lambda dtype: step["peak_flops"](dtype, 128))
    record, where = tmp_path / "step.json", tmp_path / "where.md"
    options = ["--encoder", "tiny-random", "--rounds", "2", "--threads", "1", "--learn", "12"]
    step["main"]([*options, "--json", str(record), "--where", str(where)])
    told, found = capsys.readouterr().out, json.loads(record.read_text())
    assert "ours over (a)" in told and "ours over (b)" in told and "evaluation" in told
    assert {len(seconds) for seconds in found["step"]["seconds"].values()} == {2}
    first = [curve[0] for curve in found["curves"].values()]
    assert max(first) - min(first) < 0.1 * max(first)  # same start and examples; dropout and bf16 differ
    assert all(curve[-1] < curve[0] for curve in found["curves"].values())
    *parts, at_the_peak = found["where"].values()
    assert sum(parts) == pytest.approx(1) and min(parts[:-1]) > 0 and 0 < at_the_peak < 1
    assert where.read_text().count("\n") == len(parts) + 3


def test_step_counts_six_operations_per_weight_and_token():
    step = runpy.run_path(str(ROOT / "benchmarks" / "step.py"))
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    assert step["matmul_flops"](model, 10) == 6 * (15 + 10) * 10


def test_scaling_times_every_point_of_every_series(tmp_path, capsys, monkeypatch):
    scaling = runpy.run_path(str(ROOT / "benchmarks" / "scaling.py"))
    few = {
        "batch size": [(2, 8, None), (4, 8, None)],
        "length": [(2, 8, None), (2, 16, None)],
        "layers": [(2, 8, 1), (2, 8, 2)],
    }
    monkeypatch.setitem(scaling["measure"].__globals__, "SERIES", few)
    files = ["--json", str(tmp_path / "x.json"), "--markdown", str(tmp_path / "x.md")]
    scaling["main"](["--encoder", "tiny-random", "--threads", "1", "--rounds", "2", *files])
    found = json.loads((tmp_path / "x.json").read_text())["series"]
    assert {name: [p["x"] for p in points] for name, points in found.items()} == {
        "batch size": [2, 4],
        "length": [8, 16],
        "layers": [1, 2],
    }
    assert capsys.readouterr().out.count("straight line") == 6
    assert (
        scaling["markdown"]({"length": [{"x": 8, "s": 2.0}, {"x": 16, "s": 2.5}, {"x": 32, "s": 5.0}]}).splitlines()[-1]
        == "| length | 8, 16, 32 | 1.00, 1.25, 2.50 | 1.00, 1.50, 2.50 |"
    )
    assert (tmp_path / "x.md").read_text() == scaling["markdown"](found)


def test_study_shows_its_grid_as_ratios():
    study = runpy.run_path(str(ROOT / "benchmarks" / "study.py"))
    grid = [{"rows": 1, "seeds": 1, "workers": 1, "s": 4.0}, {"rows": 4, "seeds": 2, "workers": 2, "s": 20.0}]
    assert study["markdown"](grid).splitlines()[2:] == ["| 1 | 1 | 1 | 1.00 | 1.00 |", "| 4 | 2 | 2 | 5.00 | 1.25 |"]


def test_precision_shows_the_difference_beside_the_spread_over_seeds(capsys):
    precision = runpy.run_path(str(ROOT / "benchmarks" / "precision.py"))
    found = {"bf16": [0.50, 0.54], "fp32": [0.51, 0.55]}
    text = precision["markdown"]({name: dict.fromkeys(precision["METRICS"], values) for name, values in found.items()})
    assert text.splitlines()[2] == "| sst_acc | 0.5200 | 0.5300 | -0.0100 | 0.0283 | 0.0283 |"
    with pytest.raises(SystemExit):
        precision["main"](["--data", "x", "--seeds", "1"])
    assert "at least two" in capsys.readouterr().err


def test_memory_that_others_freed_counts_as_growth():
    blocks = [b"x" * 2**16 for _ in range(1600)]
    last = blocks.pop()  # keeps the heap from shrinking by itself when the others go
    blocks.clear()
    step = runpy.run_path(str(ROOT / "benchmarks" / "step.py"))
    grown = step["memory_peak"](lambda: [b"y" * 2**16 for _ in range(800)])
    assert 45 * 2**20 < grown < 60 * 2**20 and last


def test_rows_times_every_part_of_a_row_beside_plain_ways(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    rows = runpy.run_path(str(ROOT / "benchmarks" / "rows.py"))
    files = ["--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "rows.md")]
    rows["main"](["--profile", "smoke", "--cut", "4", "--rounds", "1", "--rows", "siar_smart_sst_lam10", *files])
    found = json.loads((tmp_path / "rows.json").read_text())
    runs = {way: one for way, (one,) in found["rows"]["siar_smart_sst_lam10"].items()}
    assert list(runs) == ["ours", "library", "starter"]
    assert len({one["examples"] for one in runs.values()}) == 1  # everybody trains the same examples
    trained = ("start", "updates", "optimiser", "scores of epochs", "final scores", "random heads")
    assert all(one["seconds"][part] > 0 for one in runs.values() for part in trained)
    text = (tmp_path / "rows.md").read_text()
    assert text in capsys.readouterr().out and text == rows["markdown"](found) and "library, training" in text
    shares = [float(cell.strip(" %")) for cell in text.splitlines()[2].split("|")[4:-1]]
    assert sum(shares) == pytest.approx(100, abs=5)


def test_memory_counts_the_runner_and_its_workers_run_by_run(tmp_path, capsys):
    memory = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))
    files = {"--json": tmp_path / "found.json", "--markdown": tmp_path / "found.md"}
    memory["main"](["--profile", "smoke", "--only", "03", "--runs", "4"] + [str(x) for p in files.items() for x in p])
    lines = json.loads(files["--json"].read_text())["table"]
    assert lines[0]["runs"].startswith("0 to ")
    for line in lines:  # a process with torch in it holds a hundred MiB and more
        assert line["all, most"] >= line["all, median"] > line["runner, median"] > 100
        assert line["largest worker, median"] > 100
    assert files["--markdown"].read_text() in capsys.readouterr().out


def test_memory_says_when_the_runner_fails():
    memory = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))
    with pytest.raises(SystemExit, match="exit code 2"):
        memory["main"](["--profile", "smok"])
