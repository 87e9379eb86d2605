"""Notebooks follow their template, what git tracks of them is clean, and published copies belong to their sources."""

from __future__ import annotations

import ast
import functools
import re
import statistics
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from common.declare.profile import profile_named
from common.declare.rows import row, rows
from common.notebooks import cards, planned
from common.results.long import zero_shot_rows
from common.runner import CARDS
from common.runs.estimate import passed_tokens

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = {"profile": None, "data": None, "encoder": None, "seeds": None, "jobs": None, "report_only": False}
CHECKED, METHOD, SETUP = "nbval-check-output", "method", "setup"
REPORTS = {"01": "bertpp", "02": "swissbert", "03": "gu", "04": "siar", "05": "slapbert"}
REFUSED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try)


def git(*arguments: str) -> str:
    """What git answers; a plain copy without its history has nothing that is tracked."""
    try:
        answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return answer.stdout


def tracked(pattern: str) -> list[str]:
    try:
        return git("ls-files", "--", pattern).splitlines()
    except pytest.skip.Exception:
        return []


@functools.cache
def read(path: str) -> NotebookNode:
    """A notebook as git tracks it, whatever somebody did to the working copy."""
    return nbformat.reads(git("show", f":{path}"), as_version=nbformat.NO_CONVERT)


SOURCES = tracked(":(glob)notebooks/*.ipynb")
PUBLISHED = tracked(":(glob)results/*/notebooks/*.ipynb")
each_source = pytest.mark.parametrize("path", SOURCES)
each_published = pytest.mark.parametrize(
    "path", PUBLISHED or [pytest.param("", marks=pytest.mark.skip("none is published"))]
)


def own(node: NotebookNode) -> list[NotebookNode]:
    """The cells without the first one with code, which is the same in all notebooks."""
    return [cell for cell in node.cells if SETUP not in cell.metadata.get("tags", [])]


def code(node: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in own(node) if cell.cell_type == "code"]


def lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


@each_source
def test_source_is_clean(path: str) -> None:
    node = read(path)
    nbformat.validate(node)
    assert set(node.metadata) == {"kernelspec", "language_info", "study"}
    assert node.metadata.kernelspec == {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert all(c.outputs == [] and c.execution_count is None for c in node.cells if c.cell_type == "code")
    assert all(set(cell.metadata) <= {"tags"} for cell in own(node))
    assert len({cell.id for cell in node.cells}) == len(node.cells)


@each_source
def test_cells_stand_in_the_order_of_the_template(path: str) -> None:
    cells = own(read(path))
    assert [cell.cell_type for cell in cells[:4]] == ["markdown", "markdown", "code", "code"]
    assert re.match(r"# \d\d \S.*\n\n> ", cells[0].source), "title and a one-line summary"
    assert cells[1].source.startswith("## "), "what is claimed or checked, and how it is judged, before running"
    for before, cell in zip(cells[3:], cells[4:], strict=False):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", "prose before every code cell"
    assert cells[-1].cell_type == "markdown"


@each_source
def test_parameters_are_plain_literals_that_the_runner_knows(path: str) -> None:
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.id for cell in tagged] == [own(read(path))[2].id]
    statements = ast.parse(tagged[0].source).body
    found = {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}
    assert found == PARAMETERS
    assert all(re.search(rf"\b{name}\b", own(read(path))[3].source) for name in PARAMETERS), "each one is used"


def setup_cell() -> str:
    return next(c.source for c in read(SOURCES[0]).cells if SETUP in c.metadata.get("tags", []))


@each_source
def test_the_first_cell_with_code_is_the_same_in_all_and_names_the_address_of_the_project(path: str) -> None:
    cell = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert cell.metadata == {"tags": [SETUP], "jupyter": {"source_hidden": True}}
    assert cell.source == setup_cell() and lines(cell) <= 15
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'REPOSITORY = "{project.get("urls", {}).get("Repository", "")}"' in cell.source


# The cell runs before these lines: what it leaves is seen by an import. pip is noted, git does its work.
ALONE = """
import subprocess, sys
real = subprocess.run
def run(command, check):
    if command[0] == "git":
        return real([*command[:2], "--quiet", *command[2:]], check=check)
    print(command[1:])
subprocess.run = run
exec(sys.argv[1])
import common
print(common.__file__)
"""


def alone(source: str, folder: Path) -> subprocess.CompletedProcess:
    """Run the first cell with nothing but the standard library."""
    command = [sys.executable, "-I", "-S", "-c", ALONE, source]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_notebook_alone_clones_and_installs_its_repository_and_says_so(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    (remote / "src" / "common").mkdir(parents=True)
    (remote / "src" / "common" / "__init__.py").touch()
    for words in ("init", "add .", "-c user.name=x -c user.email=x@example.org commit -m x"):
        subprocess.run(["git", *words.split()], cwd=remote, check=True, capture_output=True)
    given = re.sub(r'REPOSITORY = ".*?"', f'REPOSITORY = "{remote.as_uri()}"', setup_cell())
    done = alone(given, tmp_path)
    installed, told, where = done.stdout.splitlines()
    assert installed == str(["-m", "pip", "install", "--quiet", "--editable", "study"])
    assert told.startswith(f"Cloned {remote.as_uri()} into ./study and installed it")
    assert (tmp_path / where).resolve() == tmp_path / "study" / "src" / "common" / "__init__.py"


def test_a_notebook_alone_without_an_address_says_what_to_do(tmp_path: Path) -> None:
    done = alone(re.sub(r'REPOSITORY = ".*?"', 'REPOSITORY = ""', setup_cell()), tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: This notebook needs the package `common` of its repository. Call")
    assert "./run_all.sh" in last and list(tmp_path.iterdir()) == []


def test_the_first_cell_does_nothing_where_the_package_is(monkeypatch, capsys) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: pytest.fail("it ran a command"))
    before = [*sys.path]
    exec(setup_cell(), {})
    assert capsys.readouterr() == ("", "") and sys.path == before


# Tokens a second of one thread: 130 runs of quick, and the first nine of cpu, on a busy machine of two cores.
RATES = {"quick": 106_000, "cpu": 6_000}


@each_source
def test_a_notebook_opens_with_what_it_needs_how_long_it_takes_and_what_it_writes(path: str) -> None:
    opening, number = read(path).cells[0].source, Path(path).name[:2]
    told = {line.split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in opening.splitlines() if " | " in line}
    assert [*told] == ["| profile", "| needs", "| takes, on two cores", "| writes"]
    assert told["| writes"] == [f"`results/{name}`, `figures/{name}`" for name in RATES]
    assert f"names that begin with {number}." in opening
    entries = planned(ROOT / path)
    announced = [each for entry in entries for each in (rows(*entry) if len(entry) == 2 else [row(*entry)])]
    for (name, rate), text in zip(RATES.items(), told["| takes, on two cores"], strict=True):
        profile = profile_named(name)
        specs = [replace(spec, seed=seed) for each in announced for spec in each.specs for seed in profile.seeds]
        ran = {spec.run_id: spec for spec in (profile.apply(s, profile.data, profile.encoder) for s in specs)}
        unit, seconds = ("minute", 60) if name == "quick" or not ran else ("hour", 3600)
        expected = sum(map(passed_tokens, ran.values())) / rate / 2 / seconds
        numbers = [int(word) for word in re.findall(r"\d+", text)] or [0]
        assert unit in text and numbers[0] / 1.4 <= expected <= 1.4 * numbers[-1], (name, expected)


@each_source
def test_limits(path: str) -> None:
    counts = [lines(cell) for cell in code(read(path))]
    assert max(counts) <= 15 and statistics.median(counts) <= 7 and sum(counts) <= 120


@each_source
def test_code_declares_and_shows_but_does_not_compute(path: str) -> None:
    for number, cell in enumerate(code(read(path))):
        tree = list(ast.walk(ast.parse(cell.source)))  # a magic or a shell line does not parse
        if METHOD not in cell.metadata.get("tags", []):
            assert not [node for node in tree if isinstance(node, REFUSED)], cell.source
        if number != 1:
            assert not [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)], cell.source
        texts = [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [text for text in texts if text.startswith(("/", "~", "http"))], cell.source


@each_source
def test_every_saved_table_is_checked_and_no_measured_number_is_typed(path: str) -> None:
    for cell in code(read(path)):
        assert ("lab.table(" in cell.source) == (CHECKED in cell.metadata.get("tags", [])), cell.source
        if "tables.reading(" in cell.source:
            template = ast.parse(cell.source).body[-1].value.args[0].value
            assert not re.search(r"\d\.\d", template), template


@each_source
def test_announced_rows_exist(path: str) -> None:
    for entry in planned(ROOT / path):
        assert rows(*entry) if len(entry) == 2 else row(*entry)


@each_source
def test_every_comparison_is_set_against_what_needs_no_training(path: str) -> None:
    report = REPORTS.get(Path(path).name[:2])
    if report is None:
        pytest.skip("the notebook of no report")
    calls = [
        node for cell in code(read(path)) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
    ]
    compared = [call for call in calls if ast.unparse(call.func).endswith((".comparison", ".bars", ".sweep"))]
    compared = [call for call in compared if not ast.unparse(call.func).startswith("plots.")]
    assert compared and all(ast.unparse(call.args[1]) == "against" for call in compared)
    announced = {entry[0] for entry in planned(ROOT / path) if len(entry) == 1}
    announced |= {of.id for entry in planned(ROOT / path) if len(entry) == 2 for of in rows(*entry)}
    assert {of.id for of in zero_shot_rows()} <= announced, "so the runner trains them before the kernel starts"


@each_source
def test_each_report_draws_a_model_of_its_own_from_its_spec(path: str) -> None:
    report = REPORTS.get(Path(path).name[:2])
    if report is None:
        pytest.skip("the notebook of no report")
    diagrams = [cell.source for cell in code(read(path)) if "lab.diagram(" in cell.source]
    assert len(diagrams) == 1


@each_source
def test_each_report_explains_a_method_by_the_function_that_runs_and_changes_one_thing(path: str) -> None:
    if Path(path).name[:2] not in REPORTS:
        pytest.skip("the notebook of no report")
    cells = read(path).cells
    titles = [cell.source.splitlines()[0] for cell in cells if cell.cell_type == "markdown"]
    assert sum(title.startswith("## The method in five lines") for title in titles) == 1
    shown = [cell.source for cell in cells if METHOD in cell.metadata.get("tags", [])]
    assert len(shown) == 2 and shown[0].startswith("lab.code(")
    place = next(i for i, cell in enumerate(cells) if "## Change one thing" in cell.source)
    assert "variant(row(" in cells[place + 1].source and CHECKED in cells[place + 1].metadata.tags


@each_source
def test_cards_that_a_notebook_names_are_announced(path: str) -> None:
    announced = cards(ROOT / path)
    named = {name for cell in code(read(path)) for name in re.findall(r"\b(\w+)_card\(", cell.source)}
    assert named <= set(announced) <= set(CARDS) and len(set(announced)) == len(announced)


@each_source
def test_claims_of_the_report_stand_before_its_runs(path: str) -> None:
    report = REPORTS.get(Path(path).name[:2])
    if report is None:
        pytest.skip("the notebook of no report")
    cells = own(read(path))
    assert [cell.cell_type for cell in cells[4:6]] == ["markdown", "code"]
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(cells[5].source)) if isinstance(node, ast.Call)]
    assert f"declared.claims_table({report!r})" in calls, "all claims of the report, from where they were written down"
    assert CHECKED in cells[5].metadata.tags, "the table is saved, shown and checked"


def faults(node: NotebookNode) -> list[str]:
    """What is wrong with an executed copy: a checked cell without its stored table, an error, a warning."""
    found = []
    for cell in code(node):
        kinds = [output.output_type for output in cell.outputs]
        if CHECKED in cell.metadata.get("tags", []) and kinds[-1:] != ["execute_result"]:
            found.append(f"no table: {cell.source}")
        if "error" in kinds or any(output.get("name") == "stderr" for output in cell.outputs):
            found.append(f"error or warning: {cell.source}")
    return found


@each_published
def test_published_copy_holds_the_code_and_the_tags_of_its_source(path: str) -> None:
    both = [read(path).cells, read(f"notebooks/{Path(path).name}").cells]
    kept = [[(c.source, {*c.metadata.get("tags", [])}) for c in cells if c.cell_type == "code"] for cells in both]
    assert [cell for cell in kept[0] if "injected-parameters" not in cell[1]] == kept[1]


@each_published
def test_published_copy_has_every_checked_output_and_no_warning(path: str) -> None:
    assert faults(read(path)) == []


def test_a_copy_without_a_stored_table_or_with_a_warning_is_found() -> None:
    table = v4.new_output("execute_result", {"text/plain": "0.5"})
    seen = v4.new_output("stream", name="stdout", text="1 run")
    warned = v4.new_output("stream", name="stderr", text="careful")
    failed = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    for outputs, fault in (
        ([seen, table], []),
        ([seen], ["no table"]),
        ([], ["no table"]),
        ([table, seen], ["no table"]),
    ):
        cell = v4.new_code_cell("lab.table(name, frame)", outputs=outputs, metadata={"tags": [CHECKED]})
        assert [text.partition(":")[0] for text in faults(v4.new_notebook(cells=[cell]))] == fault
    for outputs, count in (([seen], 0), ([warned], 1), ([failed], 1)):
        assert len(faults(v4.new_notebook(cells=[v4.new_code_cell("1 + 1", outputs=outputs)]))) == count
