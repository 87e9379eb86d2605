"""The registry of panels is complete and read strictly; a saved figure that is no panel is told why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.figure import Figure
from panel_checks import check_panel
from PIL import Image

from common.declare import reported
from common.errors import StudyError
from common.paths import ROOT
from common.report import plots, tables
from common.results import long

FACTS = ROOT.parent / "shared" / "facts"
STEM = "01_dev_curves"
CURVE = pd.DataFrame({"run_id": "abc-s0", "seed": [0, 0, None], "epoch": [1, 2, 2], "value": [0.2, 0.3, 0.4]})


def save(lab: SimpleNamespace, data: pd.DataFrame, stem: str = STEM, run_ids: tuple[str, ...] = ("abc-s0",)) -> Path:
    """Write a figure as a notebook does and return its folder."""
    figure = Figure(figsize=(1, 1))
    figure.subplots()
    plots.save(lab, stem, figure, data, "Caption.", run_ids)
    return lab.places.figures


# --- the registry ---


def test_registry_holds_the_21_panels() -> None:
    panels = reported.panels()
    assert Counter(panel.report for panel in panels) == {"bertpp": 8, "swissbert": 4, "siar": 4, "slapbert": 5}
    assert len({(panel.report, panel.figure, panel.panel) for panel in panels}) == 21
    prefix = {"bertpp": "01", "swissbert": "02", "siar": "04", "slapbert": "05"}
    assert all(panel.drawn[:2] == prefix[panel.report] and tables.NAME.fullmatch(panel.drawn) for panel in panels)
    assert [panel.drawn for panel in panels if not panel.from_runs] == ["02_label_distributions"]


def test_reports_name_the_figures_of_the_registry() -> None:
    folder = ROOT.parent / "shared" / "reports"
    if not folder.exists():
        pytest.skip("the texts of the reports are not beside this checkout")
    for panel in reported.panels():
        if (panel.report, panel.figure) == ("swissbert", "4"):
            continue  # its caption is lost in the scan
        mark = rf"^{panel.figure} " if panel.figure.startswith("A.") else rf"Figure {panel.figure}[:, (]"
        text = (folder / f"{panel.report}.txt").read_text(encoding="utf-8")
        assert re.search(mark, text, re.MULTILINE), panel


def test_no_description_is_copied() -> None:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    facts = " ".join(re.findall(r"\w+", (FACTS / "figures.md").read_text(encoding="utf-8").lower()))
    for panel in reported.panels():
        words = re.findall(r"\w+", panel.shows.lower())
        assert not [n for n in range(len(words) - 7) if " ".join(words[n : n + 8]) in facts], panel


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("siar,4,,5.4", "sira,4,,5.4", r"figures.csv:15: report 'sira', known: bertpp"),
        ("04_lambda,yes", "04_lambda,true", r"figures.csv:15: from_runs 'true'"),
        ("siar,4,,5.4", "siar,3,,5.4", r"figures.csv:15: siar 3 stands twice"),
        ("04_lambda,yes", "../lambda,yes", r"figures.csv:15: drawn '../lambda'"),
        ("04_lambda,yes", "04_lambda,yes,no", r"figures.csv:15: 8 fields, expected 7"),
        ("siar,4,,5.4", "siar,4,,", r"figures.csv:15: no text in section"),
        ("shows,drawn", "drawn,shows", r"figures.csv:1: columns"),
    ],
)
def test_damaged_registry_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported("figures.csv", old, new)
    with pytest.raises(StudyError, match=message):
        reported.panels()


# --- a saved figure ---


def test_figure_of_runs_with_finite_data_that_varies_is_a_panel(lab: SimpleNamespace, results: dict) -> None:
    assert check_panel(save(lab, CURVE), STEM) == []
    history = long.history(results)
    drawn = history[history["metric"] == "sts_corr"].assign(value=lambda part: part["value"] + part["epoch"])
    assert check_panel(save(lab, drawn, "01_loss_curves", tuple(drawn["run_id"])), "01_loss_curves") == []


def test_figure_about_the_data_needs_no_runs(lab: SimpleNamespace) -> None:
    counts = pd.DataFrame({"task": "sst", "label": [0, 1], "count": [3, 4], "share": [3 / 7, 4 / 7]})
    assert check_panel(save(lab, counts, "02_label_distributions", ()), "02_label_distributions") == []


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (CURVE.assign(value=[0.2, float("nan"), 0.4]), "has values that are not finite in value"),
        (CURVE.assign(value=[0.2, float("inf"), 0.4]), "has values that are not finite in value"),
        (CURVE.assign(epoch=[1, None, 2]), "has values that are not finite in epoch"),
        (CURVE.assign(value=0.5), "has no value that varies (columns: value)"),
        (CURVE.drop(columns="value"), "has no value that varies (columns: none)"),
        (CURVE.iloc[:0], "has no lines"),
    ],
)
def test_data_that_shows_nothing_is_named(data: pd.DataFrame, fault: str, lab: SimpleNamespace) -> None:
    assert check_panel(save(lab, data), STEM) == [f"{STEM}.csv {fault}"]


def test_a_panel_may_say_that_a_small_encoder_has_no_such_layer_and_a_large_one_may_not(lab: SimpleNamespace) -> None:
    hole = pd.DataFrame([{"run_id": "r-s0", "layers": 2, "missing": "an encoder of 2 layers has none."}])
    assert check_panel(save(lab, hole), STEM) == []
    assert check_panel(save(lab, hole.assign(layers=6)), STEM) == [f"{STEM}.csv has layers and is not drawn"]


def test_figure_that_names_no_run_is_named(lab: SimpleNamespace) -> None:
    assert check_panel(save(lab, CURVE, run_ids=()), STEM) == [f"{STEM}.png names no run"]
    folder = save(lab, CURVE)
    with Image.open(folder / f"{STEM}.png") as image:
        image.load()
        image.save(folder / f"{STEM}.png")  # without the text chunks
    assert check_panel(folder, STEM) == [f"{STEM}.png names no run"]


@pytest.mark.parametrize("kind", ["png", "svg", "csv"])
def test_missing_and_empty_files_are_named(kind: str, lab: SimpleNamespace) -> None:
    folder = save(lab, CURVE)
    (folder / f"{STEM}.{kind}").write_bytes(b"\n")
    assert check_panel(folder, STEM) == [f"{STEM}.{kind} is missing or empty"]
    (folder / f"{STEM}.{kind}").unlink()
    assert check_panel(folder, STEM) == [f"{STEM}.{kind} is missing or empty"]


def test_every_fault_is_named_at_once(lab: SimpleNamespace) -> None:
    folder = save(lab, CURVE.assign(value=float("nan")), run_ids=())
    (folder / f"{STEM}.svg").unlink()
    assert len(check_panel(folder, STEM)) == 4


def test_name_that_is_no_panel_is_refused(lab: SimpleNamespace) -> None:
    with pytest.raises(StudyError, match="'01_learning' is no panel"):
        check_panel(lab.places.figures, "01_learning")
