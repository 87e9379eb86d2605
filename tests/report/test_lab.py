"""What a notebook holds saves and shows in one line, and a figure names the runs of its frame."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common import open_study
from common.declare.rows import row
from common.report.lab import Lab
from common.results.architecture import architecture
from common.runs import session


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    return open_study("smoke", seeds=[0, 3], jobs=1)


def test_a_notebooks_study_is_the_sessions_with_its_options(lab: Lab) -> None:
    plain = session.open_study("smoke", seeds=[0, 3], jobs=1)
    assert isinstance(lab, Lab) and str(lab) == str(plain) and lab.jobs == plain.jobs


def test_a_table_is_saved_and_shown_with_its_caption(lab: Lab) -> None:
    shown = lab.table("02_small", pd.DataFrame({"model": ["a"], "here": [0.5]}), "Caption.")
    assert (lab.places.tables / "02_small.csv").read_text() == "model,here\na,0.5\n"
    assert "0.500" in repr(shown) and "Caption. Profile smoke" in repr(shown)
    assert "Profile" not in repr(lab.table("02_facts", pd.DataFrame({"n": [1]}), "Facts.", from_runs=False))


@pytest.mark.parametrize(
    ("ids", "named"),
    [(["a-s0", "b-s1", "a-s0"], "a-s0, b-s1"), (["a-s0+b-s0", None], "a-s0, b-s0"), (None, "")],
)
def test_a_figure_names_the_runs_of_its_frame_and_all_parts_of_a_row_of_several(lab: Lab, ids, named: str) -> None:
    frame = pd.DataFrame({"value": range(len(ids or "x"))})
    frame = frame if ids is None else frame.assign(run_id=ids)

    def drawing(frame: pd.DataFrame) -> Figure:
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(frame["value"])
        return figure

    lab.figure("02_line", drawing, frame, "Caption.")
    with Image.open(lab.places.figures / "02_line.png") as image:
        assert image.text["Source"] == named and ("Profile" in image.text["Description"]) == bool(named)


def test_a_diagram_is_shown_as_mermaid_text_of_the_spec(lab: Lab) -> None:
    spec = row("swissbert_final").specs[0]
    assert lab.diagram(spec).data == f"```mermaid\n{architecture(spec)}\n```"
