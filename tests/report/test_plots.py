"""Figures: byte for byte the same, with their data, runs and caption, one colour a method, and no crash on a hole."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image

from common.declare.rows import row
from common.errors import StudyError
from common.report import plots, tables
from common.results import frames, stats, traces
from common.results.untrained import Baselines
from common.runs.session import Results, RowResult

NOTHING = Baselines({}, Results())


def drawings(lab: SimpleNamespace, results: dict) -> dict[str, tuple]:
    """Every figure of a study's results, with the frame it is drawn from."""
    metric, history = frames.metric_frame(results, NOTHING), stats.history_frame(results)
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
        "gaps": (plots.gaps, stats.gap_frame(history)),
        "phases": (plots.phases, history),
    }


def test_figures_are_the_same_bytes_on_every_run(lab: SimpleNamespace, results: dict) -> None:
    def saved() -> dict[str, bytes]:
        for name, (draw, frame) in drawings(lab, results).items():
            plots.save(lab, f"02_{name}", draw(frame), frame, "Caption.", stats.run_ids(results))
        return {path.name: path.read_bytes() for path in lab.places.figures.iterdir()}

    first = saved()
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None}):  # a caller's own settings must not matter
        assert first == saved()
    assert len(first) == 24


def test_figure_carries_its_caption_its_runs_and_its_data(lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results, NOTHING)
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
    frame = frames.metric_frame(broken, NOTHING)
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
    assert title == "layer 6 of 6 (index 5 from 0), head 1\nreport: Figure 3, layer 11 of 12"


def test_lines_of_learned_factors_are_the_trace_one_a_task(lab: SimpleNamespace, results: dict) -> None:
    frame = drawings(lab, results)["weights"][1]
    axis = plots.loss_factors(frame).axes[0]
    drawn = [line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata())]
    part = frame[frame["label"] == frame["label"].iloc[0]]
    assert drawn == [part[part["task"] == task]["factor"].tolist() for task in ("SST", "Quora", "STS")]


def test_long_labels_are_broken_not_cut(lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results, NOTHING).assign(
        label="a label of a row that goes on for several lines of its own"
    )
    shown = plots.comparison(frame).axes[0].get_yticklabels()[0].get_text()
    assert "\n" in shown and shown.replace("\n", " ") == frame["label"].iloc[0]


@pytest.mark.parametrize("length", [8, 24, 60])
def test_a_legend_of_long_labels_has_fewer_columns_and_is_not_cut(length: int) -> None:
    lines = [
        {"label": f"{i} {'n' * (length - 2)}", "threshold": x, "accuracy": 0.1 * i} for i in range(5) for x in (0, 1)
    ]
    figure = plots.threshold_curves(pd.DataFrame(lines).assign(method="cosine", used=0.0))
    figure.draw_without_rendering()
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1


def test_methods_have_colours_that_can_be_told_apart() -> None:
    colours = {name: mpl.colors.to_rgb(colour) for name, colour in plots.METHOD_COLOURS.items()}
    for (_, one), (_, other) in itertools.combinations(colours.items(), 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 0.02


@pytest.mark.parametrize("name", ["attention", "02_../../x", "02_A"])
def test_names_that_could_leave_the_folder_are_refused(name: str, lab: SimpleNamespace, results: dict) -> None:
    frame = frames.metric_frame(results, NOTHING)
    with pytest.raises(StudyError, match="is no figure name"):
        plots.save(lab, name, plots.comparison(frame), frame, "Caption.")


def scores(**changed: object) -> pd.DataFrame:
    """One metric of two models, and both baselines."""
    known = {"metric": "SST accuracy", "seed": 0, "trained": True, "at_constant": False, "run_id": "r-s0"}
    lines = [
        {"row": "a", "label": "good", "method": "cosine", "source": "here", "value": 0.5},
        {"row": "b", "label": "bad", "method": "cosine", "source": "here", "value": 0.2, "at_constant": True} | changed,
        {"row": "a", "label": "good", "method": "cosine", "source": "report", "value": 0.6},
        {"row": "constant", "label": "best constant answer", "source": "constant", "value": 0.3},
        {"row": "z", "label": "zero-shot, mean", "method": "zero-shot cosine", "source": "zero-shot", "value": 0.4},
        {"row": "y", "label": "zero-shot, first", "method": "zero-shot cosine", "source": "zero-shot", "value": 0.35},
    ]
    return pd.DataFrame([known | line for line in lines])


def test_every_comparison_has_the_constant_and_the_zero_shot_lines_told_apart_by_their_dashes() -> None:
    figure = plots.comparison(scores())
    lines = {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}
    assert {name: line.get_xdata()[0] for name, line in lines.items()} == {
        "best constant answer (STS: r = 0)": 0.3,
        "zero-shot, mean": 0.4,
        "zero-shot, first": 0.35,
    }
    assert len({str(line._dash_pattern) for line in lines.values()}) == 3
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(lines)


def test_a_bar_no_better_than_the_constant_is_marked_and_the_mark_explained() -> None:
    figure = plots.comparison(scores())
    (mark,) = [text for text in figure.axes[0].texts if text.get_text() == tables.MARK]
    assert mark.xy[1] == 1 and tables.MARKED.rstrip(".") in " ".join(figure.get_suptitle().split())
    clean = plots.comparison(scores(at_constant=False, value=0.45))
    assert not [text for text in clean.axes[0].texts] and tables.MARK not in clean.get_suptitle()


def test_a_bar_that_no_training_touched_is_hatched_and_the_hatch_explained() -> None:
    figure = plots.comparison(scores(trained=False))
    assert [bool(bar.get_hatch()) for bar in figure.axes[0].patches] == [False, True]
    assert "hatched: training did not touch it" in " ".join(figure.get_suptitle().split())


def learning(*labels: str, seeds: tuple[int, ...] = (0,), phases: tuple[str, ...] = ("SST", "SST")) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"row": label, "label": label, "method": "cosine", "run_id": f"{label}-s{seed}", "seed": seed}
            | {"epoch": epoch, "last": len(phases), "trained": phases[epoch - 1], "metric": metric, "split": split}
            | {"value": epoch / 10 + (split == "train") * 0.3 + seed / 100}
            for label in labels
            for seed in seeds
            for epoch in range(1, len(phases) + 1)
            for metric in ("sst_acc", "para_acc", "sts_corr")
            for split in ("dev", "train")
        ]
    )


def test_train_is_dashed_beside_dev_and_models_of_one_method_have_two_colours() -> None:
    figure = plots.learning_curves(learning("one", "two"))
    for axis in figure.axes:
        drawn = [
            (line.get_color(), line.is_dashed(), list(line.get_ydata())) for line in axis.lines if len(line.get_xdata())
        ]
        assert len({colour for colour, _, _ in drawn}) == 2 and len(drawn) == 4
        assert all(values == pytest.approx([0.4, 0.5] if dashed else [0.1, 0.2]) for _, dashed, values in drawn)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "dev", "train"]
    dev_alone = plots.learning_curves(learning("one").query("split == 'dev'"))
    assert [text.get_text() for text in dev_alone.legends[0].get_texts()] == ["one"]


def test_phases_are_parted_by_lines_and_named_above() -> None:
    figure = plots.phases(learning("one", phases=("SST", "SST", "Quora", "STS", "SST, Quora, STS")))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == [
        *("trained: SST", "trained: Quora", "trained: STS", "trained: SST, Quora, STS")
    ]
    edges = sorted(line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1)
    assert edges == [2.5, 3.5, 4.5, 5.5]


def test_a_gap_joins_dev_and_train_after_the_last_epoch_so_that_two_low_scores_do_not_look_good() -> None:
    figure = plots.gaps(stats.gap_frame(learning("one", seeds=(0, 1))))
    for axis in figure.axes:
        segments = [segment for c in axis.collections if hasattr(c, "get_segments") for segment in c.get_segments()]
        assert [part[:, 0].tolist() for part in segments if part[0, 1] == 0][0] == pytest.approx([0.205, 0.505])
    assert "error bars: one standard deviation" in figure.get_suptitle()
    assert "error bars" not in plots.gaps(stats.gap_frame(learning("one"))).get_suptitle()


def test_the_reports_gap_lies_below_ours_where_it_prints_both_scores() -> None:
    name = "slapbert_setup1"
    label, printed = row(name).label, {name: RowResult(row(name), ())}
    frame = stats.gap_frame(learning("one").assign(row=name, label=label), printed)
    for axis, ends in zip(plots.gaps(frame).axes, ((0.511, 0.984), (0.767, 0.990), (0.337, 0.873)), strict=True):
        offsets = [c.get_offsets().tolist() for c in axis.collections if c.get_offsets().shape == (1, 2)]
        assert [[ends[0], 0.28]] in offsets and [[ends[1], 0.28]] in offsets


def test_a_panel_without_a_layer_of_its_own_says_so() -> None:
    hole = pd.DataFrame(
        [{"run_id": "r-s0", "layers": 2, "missing": "an encoder of 2 layers has none of its own here."}]
    )
    assert "has none of its own here" in plots.attention(hole).axes[0].texts[0].get_text()
