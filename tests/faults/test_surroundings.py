"""Places, settings and hostile texts that others bring along: one clear line, or no effect at all."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import matplotlib as mpl
import nbformat
import pandas as pd
import pytest
from filelock import FileLock
from matplotlib.figure import Figure
from nbformat import v4

import common as study
from common import files, notebooks, paths, runner
from common.data import hub, texts
from common.data.tables import read_table
from common.declare.tasks import TASKS
from common.errors import StudyError
from common.model import weights
from common.report import plots, tables
from common.runs import session

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.fault


# --- places ---


def test_a_relative_output_starts_where_the_command_was_called(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STUDY_CALLED_FROM", str(tmp_path))
    monkeypatch.setenv("STUDY_OUT", "out")
    assert paths.output_root() == tmp_path / "out"
    monkeypatch.setenv("STUDY_OUT", "/somewhere/else")
    assert paths.output_root() == Path("/somewhere/else")


def circle(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def blocked_locks(folder: Path) -> Path:
    (folder / "out" / "build" / "smoke").mkdir(parents=True)
    (folder / "out" / "build" / "smoke" / "locks").write_text("a file stands here")
    return folder / "out"


def overlong(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize("place", [circle, blocked_locks, overlong])
def test_a_place_that_cannot_be_written_is_one_line_and_the_code_of_the_environment(
    place, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("STUDY_OUT", str(place(tmp_path)))
    assert runner.main(["--profile", "smoke", "--only", "00"]) == 3
    told = capfd.readouterr().err
    assert "Traceback" not in told and len(told.strip().splitlines()) == 1 and "STUDY_OUT" in told or "E-WRITE" in told


def test_a_file_system_without_locks_is_told(monkeypatch, tmp_path: Path) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = r"files cannot be locked here: No locks available. \[E-LOCK\] Set STUDY_OUT"
    with pytest.raises(StudyError, match=told) as error:
        files.refuse_without_locks(tmp_path)
    assert list(tmp_path.iterdir()) == [] and error.value.exit_code == 3


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left, fresh = (tmp_path / "t" / f".a.csv.{digit * 32}.tmp" for digit in "12")
    foreign = tmp_path / "t" / ".mine.tmp"
    left.parent.mkdir()
    for path in (left, fresh, foreign):
        path.write_text("")
    for path in (left, foreign):
        os.utime(path, (time.time() - 2 * files.DAY_S,) * 2)
    files.sweep(tmp_path)
    assert sorted(left.parent.iterdir()) == sorted([fresh, foreign])


def test_private_folders_of_killed_runners_are_swept_and_those_of_living_ones_are_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("study-dead", "study-alive", "study-foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "study-dead" / runner.OWNER).write_text("")
    alive = FileLock(tmp_path / "study-alive" / runner.OWNER)
    with alive, runner._private_folder() as own:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["study-alive", "study-foreign", own.name])
    assert not own.exists()


def test_output_that_nobody_reads_ends_the_command_without_a_traceback() -> None:
    driver = (
        "import sys; from common import runner;"
        "runner._run = lambda options: [print('x' * 99) for _ in range(9999)] and 0;"
        "sys.exit(runner.main([]))"
    )
    command = f"'{sys.executable}' -c \"{driver}\" | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=200)
    assert (done.returncode, done.stderr, done.stdout) == (141, "", "x" * 99 + "\n")


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh"])
def test_a_link_to_a_script_is_followed(script: str, tmp_path: Path) -> None:
    (tmp_path / "second").symlink_to(ROOT / script)
    (tmp_path / "first").symlink_to("second")
    done = subprocess.run([str(tmp_path / "first"), "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ")


def test_a_known_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    for name in ("embedded", "hub", "tiny-random"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_CALLED_FROM", str(tmp_path))
    assert [runner._absolute(name) for name in ("embedded", "hub", "tiny-random")] == ["embedded", "hub", "tiny-random"]
    assert runner._absolute("./embedded") == str(tmp_path / "embedded")
    here = study.open_study("smoke")
    assert here.encoder == "tiny-random" and here.encoder_folder() == paths.ASSETS / "tiny-random"
    assert weights.resolve_encoder("./tiny-random") == tmp_path / "tiny-random"


def test_a_user_who_does_not_exist_is_named() -> None:
    with pytest.raises(StudyError, match="there is no such user"):
        study.open_study("smoke", encoder="~nobody-of-this-name/bert")
    assert runner._absolute("~nobody-of-this-name/data") == "~nobody-of-this-name/data"


# --- settings ---


def test_the_readers_matplotlib_settings_change_no_byte(tmp_path: Path, monkeypatch) -> None:
    def drawn() -> bytes:
        monkeypatch.setenv("STUDY_OUT", str(tmp_path))
        frame = pd.DataFrame({"task": ["sst"], "source": ["here"], "label": [0], "count": [3], "share": [1.0]})
        return bytes(plots.save(study.open_study("smoke"), "00_x", draw(frame), frame, "Shares.").data)

    @plots.styled
    def draw(frame: pd.DataFrame) -> Figure:
        figure, axes = plots.panels(1, 1, 3, 3)
        axes[0].plot(frame["label"], frame["share"], marker="o")
        return figure

    plain = drawn()
    with mpl.rc_context({"figure.facecolor": "black", "lines.linewidth": 9, "xtick.direction": "in"}):
        assert drawn() == plain


# --- inputs ---


def test_withheld_labels_of_a_test_are_none_however_they_are_written(tmp_path: Path) -> None:
    rows = {"question1": ["a", "b"], "question2": ["c", "d"]}
    for labels in ({"label": [None, None]}, {"label": [float("nan")] * 2}, {"label": [-1, -1]}, {}):
        data = datasets.Dataset.from_dict({**rows, **labels})
        assert hub._hub_split(data, TASKS["para"], "qqp:test").labels is None
    data = datasets.Dataset.from_dict({**rows, "label": [True, False]})
    assert hub._hub_split(data, TASKS["para"], "qqp:train").labels.tolist() == [1, 0]


def test_labels_of_another_order_are_read_by_their_names_or_refused() -> None:
    rows = {"question1": ["a", "b"], "question2": ["c", "d"], "label": [0, 1]}

    def read(*names: str) -> list[int]:
        features = datasets.Features(
            {"question1": datasets.Value("string"), "question2": datasets.Value("string")}
            | {"label": datasets.ClassLabel(names=list(names))}
        )
        data = datasets.Dataset.from_dict(rows, features=features)
        return hub._hub_split(data, TASKS["para"], "qqp:train").labels.tolist()

    assert read("not_duplicate", "duplicate") == [0, 1]
    assert read("duplicate", "not_duplicate") == [1, 0]
    with pytest.raises(StudyError, match=r"named same, other; expected not duplicate, duplicate \[E-LABEL\]"):
        read("same", "other")


def test_an_id_with_a_line_break_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids-sst-dev.csv"
    path.write_text('\tid\tsentence\tsentiment\n0\t"a\nb"\tfilm\t1\n')
    with pytest.raises(StudyError, match=r"has a line break or control character \[E-ID\]"):
        read_table(path, TASKS["sst"], is_labelled=True)


def test_a_small_file_that_unpacks_to_more_than_the_bound_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(texts, "MOST_BYTES", 1000)
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / texts.TEXT_FILES["imdb"]).write_bytes(gzip.compress(b"a film\n" * 10**5))
    with pytest.raises(StudyError, match=r"holds more than .* GB of text. \[E-FILE\]"):
        texts.load_texts(tmp_path, "imdb", 5)


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


def test_no_csv_cell_is_a_formula(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    here = study.open_study("smoke")
    frame = pd.DataFrame({"=A": FORMULAS, "n": [-1.5] * 6, "text": ["-0.5", "+3", "a=b", "", "x", "y"]})
    tables.save(here, "00_x", frame, "A table.")
    shown = pd.read_csv(here.places.tables / "00_x.csv", keep_default_na=False)
    assert list(shown.columns) == ["'=A", "n", "text"] and shown["n"].tolist() == [-1.5] * 6
    assert all(cell.startswith("'") for cell in shown["'=A"]) and shown["text"].tolist()[:3] == ["-0.5", "+3", "a=b"]
    assert b"'=1+1" in tables.to_csv(frame.set_index("=A"), has_index=True)


def page_of(text: str, lab: SimpleNamespace) -> str:
    from common.report import page

    frame = pd.DataFrame({text: [text]})
    tables.save(lab, "00_hostile", frame, text)
    return page.write(lab.places).read_text("utf-8")


@pytest.mark.parametrize(
    "text", ["<script>x()</script>", "<img src=x onerror=x()>", '"><b onclick=x()>', "javascript:x"]
)
def test_headers_captions_and_cells_are_escaped_on_the_page(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    page = page_of(text, study.open_study("smoke"))
    assert "<script>x()" not in page and "<img src=x" not in page and "<b onclick" not in page
    assert 'href="javascript:' not in page


def test_two_cells_of_parameters_are_refused(tmp_path: Path) -> None:
    cells = [v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}) for _ in range(2)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "01_x.ipynb")
    with pytest.raises(StudyError, match=r"2 cells have the tag parameters.*\[E-NOTEBOOK\]"):
        notebooks.check(tmp_path / "01_x.ipynb", {}, {})


def test_a_short_output_folder_is_looked_for_as_a_whole_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "output_root", lambda: Path("/o"))
    for text, is_shown in (("see figures/other", False), ("a\n/one", False), ("a\n/o/x", True), ("in /o.", False)):
        node = v4.new_notebook(cells=[v4.new_markdown_cell(text)])
        if is_shown:
            with pytest.raises(StudyError, match="E-PORTABLE"):
                notebooks._check_portable(node, tmp_path)
        else:
            notebooks._check_portable(node, tmp_path)


def test_an_encoder_folder_without_weights_gives_no_hashes(tmp_path: Path) -> None:
    assert session._encoder_hashes(str(tmp_path)) == {}
