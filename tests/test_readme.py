"""The README names only what exists, and its table is the committed one."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README, BENCHMARKS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "benchmarks/README.md"))
FOREIGN = ("sbatch",)  # programs that are not ours
PLACES = ("results/<profile>/", "figures/<profile>/", "build/<profile>/")


def code_spans() -> list[str]:
    return re.findall(r"`([^`\n]+)`", README)


def commands() -> list[str]:
    return [line.strip().split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]


def test_every_named_file_exists() -> None:
    named = [span for span in code_spans() if re.search(r"\.(md|txt|cff|ipynb|sh|py)$|/$", span.split()[0])]
    kept = [span.split()[0] for span in named if not span.startswith(PLACES)]
    assert len(kept) >= 3
    for name in kept:
        assert (ROOT / name).exists(), name


def test_every_command_names_something_that_exists() -> None:
    assert len(commands()) >= 4
    for command in commands():
        program, *arguments = command.split()
        assert program.startswith((".venv/bin/", *FOREIGN)) or (ROOT / program).is_file(), command
        for argument in arguments:
            assert not argument.startswith("notebooks/") or (ROOT / argument).is_file(), command


def test_every_option_is_one_of_the_runner() -> None:
    text = "\n".join(line for line in README.splitlines() if not line.strip().startswith(FOREIGN))
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    shown = subprocess.run(
        [sys.executable, "-m", "common.runner", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert options and options <= set(re.findall(r"--[a-z][a-z-]+", shown.stdout))


def test_named_profiles_and_functions_exist() -> None:
    import common as study
    from common.declare import profile

    assert "`common.variant`" in README and callable(study.variant)
    assert {"quick", "cpu", "gpu", "paper"} <= set(profile.PROFILES)


PARTS = {"rows": None, "methods": None, "step": None, "scaling": "series", "study": "grid", "precision": "dev"}


@pytest.mark.parametrize(("name", "part"), PARTS.items())
def test_the_table_of_a_benchmark_is_what_its_record_says(name: str, part: str | None) -> None:
    folder = ROOT / "benchmarks" / "results"
    markdown = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))["markdown"]
    record = json.loads((folder / f"{name}.json").read_text())
    assert markdown(record[part] if part else record) == (folder / f"{name}.md").read_text()


@pytest.mark.parametrize(("name", "table"), [("step", "where"), ("methods", "where_pcgrad")])
def test_the_table_of_where_time_goes_is_what_its_record_says(name: str, table: str) -> None:
    folder = ROOT / "benchmarks" / "results"
    where = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))["where_markdown"]
    assert where(json.loads((folder / f"{name}.json").read_text())["where"]) == (folder / f"{table}.md").read_text()


@pytest.mark.parametrize(
    "name", ["README.md", "DEVIATIONS.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
)
def test_files_that_the_documents_name_exist(name: str) -> None:
    named = set(
        re.findall(r"`((?:src|tests|scripts|benchmarks|notebooks)/[\w/.]+)`", (ROOT / name).read_text(encoding="utf-8"))
    )
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_numbered_deviations_are_unique_and_those_in_the_code_exist() -> None:
    numbers = re.findall(r"^- \*\*(D\d+) ", (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(numbers) == len(set(numbers)) > 0
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.yaml")]:
        for cited in re.findall(r"DEVIATIONS\.md (D\d+)", path.read_text(encoding="utf-8")):
            assert cited in numbers, f"{path.name} cites {cited}"


@pytest.mark.parametrize(
    ("name", "shown"), re.findall(r"<!-- table:([\w/.]+) -->\n(.*?)<!-- /table -->", README + BENCHMARKS, flags=re.S)
)
def test_shown_table_is_the_committed_one(name: str, shown: str) -> None:
    table = ROOT / (name if "/" in name else f"results/cpu/tables/{name}.md")
    assert shown.strip() == table.read_text(encoding="utf-8").strip()
