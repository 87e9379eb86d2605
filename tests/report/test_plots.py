"""Figures: byte for byte the same, with their data, runs and caption, one colour a method, and no crash on a hole."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image

from common.errors import StudyError
from common.report import plots
from common.study import frames, stats, traces


def drawings(lab: SimpleNamespace, results: dict) -> dict[str, tuple]:
    """Every figure of a study's results, with the frame it is drawn from."""
    metric, history = frames.metric_frame(results), stats.history_frame(results)
    shares, curves = frames.attention_shares(lab.store, results), frames.threshold_frame(lab.store, results)
    late = frames.attention_map(lab.store, results["swissbert_pair"], "last")
    factors = traces.weight_frame(lab.store, results)
    return {
        "comparison": (plots.comparison, metric),
        "learning": (plots.learning_curves, history),
        "attention": (plots.attention, late),
        "by_layer": (plots.attention_by_layer, shares),
        "thresholds": (plots.threshold_curves, curves),
        "weights": (plots.loss_factors, factors),
    }


def test_figures_are_the_same_bytes_on_every_run(lab: SimpleNamespace, results: dict) -> None:
    def saved() -> dict[str, bytes]:
        for name, (draw, frame) in drawings(lab, results).items():
            plots.save(lab, f"02_{name}", draw(frame), frame, "Caption.", stats.run_ids(results))
        return {path.name: path.read_bytes() for path in lab.places.figures.iterdir()}

    first = saved()
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None}):  # a caller's own settings must not matter
        assert first == saved()
    assert len(first) == 18


def test_figure_carries_its_caption_its_runs_and_its_data(lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results)
    shown = plots.save(lab, "02_comparison", plots.comparison(frame), frame, "What & <how>.", stats.run_ids(results))
    with Image.open(lab.places.figures / "02_comparison.png") as image:
        assert image.text["Description"].startswith("What & <how>. Profile quick, encoder tiny-bert, data embedded")
        assert image.text["Source"].split(", ") == sorted(stats.run_ids(results))
        assert round(image.info["dpi"][0]) == plots.DPI
    written = pd.read_csv(lab.places.figures / "02_comparison.csv")
    assert written["value"].tolist() == pytest.approx(frame["value"].tolist(), nan_ok=True)
    svg = (lab.places.figures / "02_comparison.svg").read_text()
    assert "What &amp; &lt;how&gt;." in svg and "<dc:date>" not in svg
    assert shown.data == (lab.places.figures / "02_comparison.png").read_bytes()


def test_no_run_at_all_gives_a_marked_hole(lab: SimpleNamespace, results: dict) -> None:
    failed = {name: replace(result, records=()) for name, result in results.items()}
    for name, (draw, frame) in drawings(lab, failed).items():
        plots.save(lab, f"02_{name}", draw(frame), frame, "Caption.")
        assert (lab.places.figures / f"02_{name}.png").stat().st_size > 0


def test_bars_are_the_values_and_a_row_without_one_is_marked(lab: SimpleNamespace, results: dict) -> None:
    broken = {**results}
    first = next(iter(broken))
    broken[first] = SimpleNamespace(row=results[first].row, records=(), failures=(), coincides_with=None)
    frame = frames.metric_frame(broken)
    axis = plots.comparison(frame).axes[0]
    drawn = sorted(round(bar.get_width(), 9) for bar in axis.patches if bar.get_width() == bar.get_width())
    ours = frame[(frame["metric"] == "SST accuracy") & (frame["source"] == "here")]["value"].dropna()
    assert drawn == sorted(round(value, 9) for value in ours)
    assert " no value here" in [text.get_text() for text in axis.texts]


def test_axes_are_labelled_and_layers_named_in_both_conventions(lab: SimpleNamespace, results: dict) -> None:
    for draw, frame in drawings(lab, results).values():
        axes = [axis for axis in draw(frame).axes if axis.get_label() != "<colorbar>"]
        assert all(axis.get_xlabel() for axis in axes)
    title = plots.attention(drawings(lab, results)["attention"][1]).axes[0].get_title()
    assert title == "layer 6 of 6 (index 5 from 0), head 1\nreport: Figure 3, layer 11"


def test_lines_of_learned_factors_are_the_trace_one_a_task(lab: SimpleNamespace, results: dict) -> None:
    frame = drawings(lab, results)["weights"][1]
    axis = plots.loss_factors(frame).axes[0]
    drawn = [line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata())]
    part = frame[frame["label"] == frame["label"].iloc[0]]
    assert drawn == [part[part["task"] == task]["factor"].tolist() for task in ("SST", "Quora", "STS")]


def test_long_labels_are_broken_not_cut(lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results).assign(label="a label of a row that goes on for several lines of its own")
    shown = plots.comparison(frame).axes[0].get_yticklabels()[0].get_text()
    assert "\n" in shown and shown.replace("\n", " ") == frame["label"].iloc[0]


def test_methods_have_colours_that_can_be_told_apart() -> None:
    colours = {name: mpl.colors.to_rgb(colour) for name, colour in plots.METHOD_COLOURS.items()}
    for (_, one), (_, other) in itertools.combinations(colours.items(), 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 0.02


@pytest.mark.parametrize("name", ["attention", "02_../../x", "02_A"])
def test_names_that_could_leave_the_folder_are_refused(name: str, lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results)
    with pytest.raises(StudyError, match="is no figure name"):
        plots.save(lab, name, plots.comparison(frame), frame, "Caption.")
