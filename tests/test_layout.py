"""The house rules that a reader relies on: size, direction of imports, length of functions, a test file per module."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import common
from common.paths import ROOT

SOURCE = Path(common.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
# The way of the data: a room imports from rooms to its left, and from the foundations.
WAY = ["declare", "data", "model", "methods", "training", "runs", "results", "report", "runner"]
FOUNDATIONS = {"errors", "files", "seeding", "machine", "paths"}
TOP = {"runner", "cli", "notebooks", "doctor", "predict", "verify"}
# What the module is allowed; it is above both, which the mark on the test says.
CORE_LINES, ALL_LINES, FUNCTION_LINES = 1990, 7300, 60


def room(module):
    """Which room a dotted module name lies in; what stands at the top of the package serves the runner."""
    first = module.split(".")[1] if "." in module else ""
    return "runner" if first in TOP else first


def dotted(path):
    return ".".join(["common", *path.relative_to(SOURCE).with_suffix("").parts])


def docstring_lines(tree):
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and ast.get_docstring(node)]
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def code_lines(path):
    """Lines that hold code: no blanks, comments, docstrings."""
    text = path.read_text()
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in silent]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - docstring_lines(ast.parse(text)))


@pytest.mark.xfail(
    strict=True, reason="verdicts, a cluster and the answer came in, and less went than came: the module has to shrink"
)
def test_the_module_stays_thin():
    sizes = {path: code_lines(path) for path in MODULES}
    core = sum(n for path, n in sizes.items() if room(dotted(path)) in ("model", "methods", "training"))
    assert core <= CORE_LINES and sum(sizes.values()) <= ALL_LINES


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path):
    tree = ast.parse(path.read_text())
    names = [
        n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("common.")
    ]
    here = room(dotted(path))
    for name in names:
        there = room(name)
        if there in FOUNDATIONS or there == here:
            continue
        assert here not in FOUNDATIONS and WAY.index(there) < WAY.index(here), f"{dotted(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_are_short_and_modules_say_what_they_are_for(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > FUNCTION_LINES] == []


def test_every_module_has_a_test_file():
    tested = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    # progress is seen by test_session, notebooks by test_runner.
    elsewhere = {"progress", "notebooks", "errors", "paths", "tasks", "split"}
    missing = [
        p.stem for p in MODULES if p.stem != "__init__" and f"test_{p.stem}" not in tested and p.stem not in elsewhere
    ]
    assert missing == []


def test_no_analysis_and_no_drawing_is_for_one_report_or_one_method():
    names = ["bertpp", "swissbert", "gu", "siar", "slapbert", "smart", "pcgrad", "pals", "stepwise"]
    found = [path.stem for path in MODULES if room(dotted(path)) in ("results", "report")]
    assert len(found) > 10 and not [stem for stem in found if set(stem.split("_")) & set(names)]


def test_the_linter_leaves_no_module_and_no_test_out():
    command = [sys.executable, "-m", "ruff", "check", "--show-files", str(ROOT)]
    shown = set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines())
    assert {str(p) for folder in ("src", "tests") for p in (ROOT / folder).rglob("*.py")} <= shown


def test_no_loader_of_pickles_and_no_shell():
    banned = re.compile(
        r"pickle\.load|torch\.load\(|joblib\.load|shell=True|yaml\.load\(|trust_remote_code=True|\beval\(\s*[\"']"
    )
    assert [dotted(p) for p in MODULES if banned.search(p.read_text())] == []
