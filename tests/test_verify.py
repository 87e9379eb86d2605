"""`--verify` from the outside: it names what is not as the records make it, and touches nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.files import atomic_write
from common.paths import Places
from common.results.long import zero_shot_rows
from common.verify import DIFFERS, FOREIGN, MISSING, differences
from tests.test_runner import OPEN, ROWS, call_on, files, notebook, published

SHOW = f"""
from common.report import plots
from common.results import claims, compare, overview
results = lab.run([study.row(name) for name in {ROWS}])
claims.write(lab, claims.ledger(lab, results, claims.of("swissbert"))[0])
lab.table("01_scores", compare.comparison(results, compare.baselines(lab)), "Scores.")
lab.figure("01_costs", plots.costs, overview.cost_frame(results), "Costs.")
"""
COMMAND = ("--profile", "smoke", "--verify", "--jobs", "1")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a notebook, and where it was published with a table, a figure, claims and the page."""
    sources, out = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("out")
    rows = [*ROWS, *(each.id for each in zero_shot_rows())]
    notebook(sources / "01_shown.ipynb", [OPEN, SHOW.strip()], rows=rows, cards=["labels"])
    call_on(sources, out)("--profile", "smoke", "--jobs", "1")
    return sources, out


def test_what_follows_from_the_records_passes_and_is_left_as_it_was(study: tuple[Path, Path]) -> None:
    sources, out = study
    before = files(out)
    done = call_on(sources, out)(*COMMAND)
    assert "All files are what the records make." in done.stdout and "trained" not in done.stdout + done.stderr
    assert files(out) == before
    kinds = {Path(name).suffix for name in before} | {Path(name).name for name in before}
    assert {".md", ".tex", ".svg", ".png", "claims.csv", "index.html", "01_shown.ipynb", "01_costs.csv"} <= kinds


def test_a_changed_digit_a_missing_figure_and_a_foreign_file_are_named(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    sources, out = study[0], tmp_path / "out"
    shutil.copytree(study[1], out)
    results = published(out).parent
    table, figure = results / "tables" / "01_scores.csv", out / "build/smoke/figures/smoke/01_costs.png"
    text = table.read_text()
    place = max(at for at, letter in enumerate(text) if letter.isdigit())
    table.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    figure.unlink()
    (results / "tables" / "99_mine.csv").write_text("a,b\n")
    done = call_on(sources, out)(*COMMAND, expect=4)
    named = {tuple(line.split(maxsplit=1)) for line in done.stdout.splitlines() if str(out) in line}
    foreign = str(results / "tables" / "99_mine.csv")
    assert named == {("differs", str(table)), ("missing", str(figure)), ("foreign", foreign)}
    assert "3 files are not what the records make." in done.stdout
    assert not figure.exists(), "it is no repair"


def test_without_a_run_nothing_is_compared(study: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(study[1], tmp_path / "out")
    shutil.rmtree(next((published(tmp_path / "out").parent / "runs").iterdir()))
    done = call_on(study[0], tmp_path / "out")(*COMMAND, expect=4)
    assert "E-MISSING" in done.stderr and "Nothing was compared" in done.stdout


def test_of_some_notebooks_only_their_files_count(tmp_path: Path) -> None:
    here, there = (Places(tmp_path / name / "results", tmp_path / name / "figures", tmp_path) for name in "ab")
    atomic_write(here.tables / "01_a.csv", b"1")
    for name in ("tables/01_a.csv", "tables/02_b.csv", "claims.csv", "runs/0-s0/record.json", ".hidden"):
        atomic_write(there.results / name, b"2")
    changed = [(DIFFERS, here.tables / "01_a.csv")]
    assert differences(here, there, {"01"}) == changed
    every = [(MISSING, here.results / "claims.csv"), *changed, (MISSING, here.tables / "02_b.csv")]
    assert differences(here, there, None) == every
    assert differences(there, here, {"02"}) == [(FOREIGN, there.tables / "02_b.csv")]
