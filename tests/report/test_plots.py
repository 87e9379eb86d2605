"""Figures: byte for byte the same, with their data, runs and caption, one colour a method, and no crash on a hole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made_runs import MODELS, study
from PIL import Image

from common.declare.rows import row
from common.errors import StudyError
from common.report import plots, tables
from common.results import compare
from common.results.long import Baselines
from common.runs.session import Results, RowResult

NOTHING = Baselines({}, Results())
METRICS = ("sst_acc", "para_acc", "sts_corr")


def test_figures_are_the_same_bytes_on_every_run(lab: SimpleNamespace, results: dict, drawings: Callable) -> None:
    def saved() -> dict[str, bytes]:
        for name, (draw, frame) in drawings(results).items():
            plots.save(
                lab,
                f"02_{name}",
                draw(frame),
                frame,
                "Caption.",
                [record.run_id for result in results.values() for record in result.records],
            )
        return {path.name: path.read_bytes() for path in lab.places.figures.iterdir()}

    first = saved()
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None}):  # a caller's own settings must not matter
        assert first == saved()
    assert len(first) == 24


def test_figure_carries_its_caption_its_runs_and_its_data(lab: SimpleNamespace, results: dict) -> None:
    frame = compare.bars(results, NOTHING)
    shown = plots.save(
        lab,
        "02_comparison",
        plots.comparison(frame),
        frame,
        "What & <how>.",
        [record.run_id for result in results.values() for record in result.records],
    )
    with Image.open(lab.places.figures / "02_comparison.png") as image:
        assert image.text["Description"].startswith("What & <how>. Profile quick, encoder tiny-bert, data embedded")
        assert image.text["Source"].split(", ") == sorted(
            [record.run_id for result in results.values() for record in result.records]
        )
        assert round(image.info["dpi"][0]) == plots.DPI
    written = pd.read_csv(lab.places.figures / "02_comparison.csv")
    assert written["value"].tolist() == pytest.approx(frame["value"].tolist(), nan_ok=True)
    svg = (lab.places.figures / "02_comparison.svg").read_text()
    assert "What &amp; &lt;how&gt;." in svg and "<dc:date>" not in svg
    assert shown.data == (lab.places.figures / "02_comparison.png").read_bytes()


def test_a_figure_of_runs_says_in_its_corner_how_much_training_it_shows(lab: SimpleNamespace, results: dict) -> None:
    runs = [record.run_id for result in results.values() for record in result.records]
    for chosen, corner in ((runs, "profile quick, tiny-bert, 4 % of the reports' training"), ([], "")):
        figure = plots.hole()
        plots.save(lab, "02_corner", figure, pd.DataFrame({"value": [1]}), "Caption.", chosen)
        assert figure.get_supxlabel() == corner


def test_comparisons_share_one_scale_and_a_narrow_one_keeps_its_legend_inside(lab: SimpleNamespace) -> None:
    figure = plots.comparison(scores())
    assert {axis.get_xlim()[1] for axis in figure.axes} == {1.0}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert figure.legends[0]._ncols * (max(map(len, labels)) + 10) <= max(11 * figure.get_figwidth(), 60)


def test_no_run_at_all_gives_a_marked_hole(lab: SimpleNamespace, results: dict, drawings: Callable) -> None:
    failed = {name: replace(result, records=()) for name, result in results.items()}
    for name, (draw, frame) in drawings(failed).items():
        plots.save(lab, f"02_{name}", draw(frame), frame, "Caption.")
        assert (lab.places.figures / f"02_{name}.png").stat().st_size > 0


def test_bars_are_the_values_and_a_row_without_one_is_marked(lab: SimpleNamespace, results: dict) -> None:
    broken = {**results}
    first = next(iter(broken))
    broken[first] = SimpleNamespace(row=results[first].row, records=(), failures=(), coincides_with=None)
    frame = compare.bars(broken, NOTHING)
    axis = plots.comparison(frame).axes[0]
    drawn = sorted(round(bar.get_width(), 9) for bar in axis.patches if bar.get_width() == bar.get_width())
    ours = frame[(frame["metric"] == "sst_acc") & (frame["source"] == "here")]["value"].dropna()
    assert drawn == sorted(round(value, 9) for value in ours)
    assert " no value here" in [text.get_text() for text in axis.texts]


def test_long_labels_are_broken_not_cut(lab: SimpleNamespace, results: dict) -> None:
    frame = compare.bars(results, NOTHING).assign(label="a label of a row that goes on for several lines of its own")
    shown = plots.comparison(frame).axes[0].get_yticklabels()[0].get_text()
    assert "\n" in shown and shown.replace("\n", " ") == frame["label"].iloc[0]


def test_methods_have_colours_that_can_be_told_apart() -> None:
    colours = {name: mpl.colors.to_rgb(colour) for name, colour in plots.METHOD_COLOURS.items()}
    for (_, one), (_, other) in itertools.combinations(colours.items(), 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 0.02


@pytest.mark.parametrize("name", ["attention", "02_../../x", "02_A"])
def test_names_that_could_leave_the_folder_are_refused(name: str, lab: SimpleNamespace, results: dict) -> None:
    frame = compare.bars(results, NOTHING)
    with pytest.raises(StudyError, match="is no figure name"):
        plots.save(lab, name, plots.comparison(frame), frame, "Caption.")


def scores(**changed: object) -> pd.DataFrame:
    """One metric of two models, and both baselines."""
    known = {"metric": "sst_acc", "seed": 0, "trained": True, "at_constant": False, "run_id": "r-s0"}
    lines = [
        {"row": "a", "label": "good", "method": "cosine", "source": "here", "value": 0.5},
        {"row": "b", "label": "bad", "method": "cosine", "source": "here", "value": 0.2, "at_constant": True} | changed,
        {"row": "a", "label": "good", "method": "cosine", "source": "reported", "value": 0.6},
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
    assert mark.get_position()[1] == 1 and tables.MARKED.rstrip(".") in " ".join(figure.get_suptitle().split())
    clean = plots.comparison(scores(at_constant=False, value=0.45))
    assert not [text for text in clean.axes[0].texts] and tables.MARK not in clean.get_suptitle()


def test_a_bar_that_no_training_touched_is_hatched_and_the_hatch_explained() -> None:
    figure = plots.comparison(scores(trained=False))
    assert [bool(bar.get_hatch()) for bar in figure.axes[0].patches] == [False, True]
    assert "hatched: training did not touch it" in " ".join(figure.get_suptitle().split())


def fits(*seeds: int, **known: object) -> pd.DataFrame:
    lines = [
        {"row": "one", "label": "one", "method": "cosine", "run_id": f"one-s{seed}", "seed": seed, "source": "here"}
        | {"metric": metric, "dev": 0.2 + seed / 100, "train": 0.5 + seed / 100}
        for seed in seeds
        for metric in METRICS
    ]
    return pd.DataFrame(lines).assign(**known)


def test_a_gap_joins_dev_and_train_so_that_two_low_scores_do_not_look_good() -> None:
    figure = plots.gaps(fits(0, 1))
    for axis in figure.axes:
        segments = [segment for c in axis.collections if hasattr(c, "get_segments") for segment in c.get_segments()]
        assert [part[:, 0].tolist() for part in segments if part[0, 1] == 0][0] == pytest.approx([0.205, 0.505])
    assert "error bars: one standard deviation" in figure.get_suptitle()
    assert "error bars" not in plots.gaps(fits(0)).get_suptitle()


def test_the_reports_gap_lies_below_ours_where_it_prints_both_scores() -> None:
    name = "slapbert_setup1"
    printed = compare.gaps({name: RowResult(row(name), ())}, METRICS)
    frame = pd.concat([fits(0, row=name, label=row(name).label), printed])
    for axis, ends in zip(plots.gaps(frame).axes, ((0.511, 0.984), (0.767, 0.990), (0.337, 0.873)), strict=True):
        offsets = [c.get_offsets().tolist() for c in axis.collections if c.get_offsets().shape == (1, 2)]
        assert [[ends[0], 0.28]] in offsets and [[ends[1], 0.28]] in offsets


def sweep_frame() -> pd.DataFrame:
    lines = [
        {"lambda": weight, "metric": metric, "source": source, "seed": 0, "value": 0.5 + weight / 1000}
        for weight in (0.0, 0.1, 10.0)
        for metric in METRICS
        for source in ("here", "reported", "other heads")
    ]
    return pd.DataFrame(lines).assign(constant=0.3)


def test_axes_of_a_sweep_are_labelled_and_nothing_to_draw_is_a_marked_hole() -> None:
    figure = plots.sweep(sweep_frame())
    assert all(axis.get_xlabel() for axis in figure.axes) and figure.axes[0].get_legend() is None
    assert "no finished run" in plots.sweep(sweep_frame().iloc[:0]).axes[0].texts[0].get_text()


def test_figures_with_printed_values_alone_are_drawn() -> None:
    frame = sweep_frame()
    assert len(plots.sweep(frame[frame["source"] == "reported"]).axes) == len(METRICS)


@pytest.mark.parametrize(("seeds", "is_promised"), [((0,), False), ((0, 1), True)])
def test_a_band_is_promised_where_there_are_several_seeds_and_the_constant_is_drawn(
    seeds: tuple[int, ...], is_promised: bool
) -> None:
    figure = plots.sweep(pd.concat([sweep_frame().assign(seed=seed) for seed in seeds]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("here (band: one sd over seeds)" in names) == is_promised and "best constant answer" in names
    assert ("no band of ours" in figure.get_suptitle()) != is_promised
    for axis in figure.axes:
        assert [0.3, 0.3] in [list(line.get_ydata()) for line in axis.lines if line.get_linestyle() == ":"]


def test_lambda_zero_is_apart_from_the_line_and_its_level_dashed() -> None:
    axis = plots.sweep(sweep_frame()).axes[0]
    ours = [line for line in axis.lines if line.get_color() == plots.HERE_COLOUR]
    curve = next(line for line in ours if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    assert list(curve.get_xdata()) == [0.1, 10.0] and list(curve.get_ydata()) == pytest.approx([0.5001, 0.51])
    level = next(line for line in ours if line.get_linestyle() == "--")
    assert list(level.get_ydata()) == [0.5, 0.5]


def test_bars_of_the_waterfall_run_from_base_to_model() -> None:
    frame = compare.steps(study((0, 1, 2)))
    theirs, ours = plots.steps(frame).axes
    assert [round(bar.get_y() + bar.get_height(), 3) for bar in theirs.patches] == [
        0.256, 0.499, 0.481, 0.449, 0.526, 0.461, 0.548, 0.55, 0.561,
    ]  # fmt: skip
    part = frame[(frame["source"] == "here") & (frame["label"] == "Model F")]
    bar = ours.patches[6]
    assert (bar.get_y(), bar.get_height()) == pytest.approx((part["start"].mean(), part["gain"].mean()))
    hatched = [place for place, bar in enumerate(ours.patches) if bar.get_hatch()]
    assert hatched == [2, 5], "B and E were tried and left"


def test_the_waterfall_shows_noise_where_there_are_several_seeds_and_says_where_there_is_none() -> None:
    theirs, ours = plots.steps(compare.steps(study((0, 1, 2)))).axes
    assert "error bars" in ours.get_title() and "one run each" in theirs.get_title()
    assert len(ours.containers) > len(theirs.containers), "error bars are containers of their own"
    (_, alone) = plots.steps(compare.steps(study((0,)))).axes
    assert "one seed: no noise known" in alone.get_title()
    assert not [line for line in alone.lines if line.get_marker() == "."]


def test_each_random_head_is_a_tick_below_the_share_of_draws_up_to_it() -> None:
    frame = compare.random_heads(study((0,)), "bertpp_baseline", "bertpp_model_h")
    figure = plots.random_heads(frame)
    for axis, metric in zip(figure.axes, ("para_acc", "sts_corr", "overall"), strict=True):
        ticks = next(line for line in axis.lines if line.get_marker() == "|")
        assert sorted(ticks.get_xdata()) == pytest.approx(sorted(frame.loc[frame["metric"] == metric, "value"]))
        printed = next(line for line in axis.lines if line.get_linestyle() == "--")
        assert printed.get_xdata()[0] == MODELS["bertpp_baseline"].reported[metric]


METHOD_OF = {
    "Baseline": "separate encoding",
    "Cosine": "cosine",
    "Concat": "pair encoding",
    "Final": "pair encoding",
}


def accuracies(seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = [
        {"label": model, "method": method, "run_id": f"{model}-s{seed}", "seed": seed}
        | {"subset": subset, "true label": of, "n": pairs, "value": rng.uniform() if pairs else np.nan}
        | {"reported": 0.888 if model == "Final" and subset == "all pairs" else np.nan}
        for model, method in METHOD_OF.items()
        for seed in seeds
        for subset, pairs in {"all pairs": 1000, "swapped": 0, "alike": 11, "nearly identical": 0}.items()
        for of in ("both", "paraphrases", "non-paraphrases")
    ]
    return pd.DataFrame(lines).assign(low=lambda f: f["value"] - 0.05, high=lambda f: f["value"] + 0.05)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_subset_has_a_place_and_an_empty_one_says_so(seeds: tuple[int, ...]) -> None:
    figure = plots.subset_accuracy(accuracies(seeds))
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["n = 1,000", "no such pair", "n = 11", "no such pair"]
        assert axis.get_ylim() == (3.5, -0.5)
    figure.canvas.draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(METHOD_OF)


def test_the_reports_value_stands_at_the_height_of_its_models_marker() -> None:
    figure = plots.subset_accuracy(accuracies((0,)))
    axis = figure.axes[0]
    (diamond,) = axis.collections[-1].get_offsets()
    markers = [line for line in axis.lines if line.get_marker() not in ("None", "", None)]
    points = [point for line in markers for point in zip(*line.get_data(), strict=True) if np.isfinite(point[0])]
    heights = [y for x, y in points if y < 0.4 and x not in (0, 1)]  # markers of the first subset
    assert diamond.tolist() == pytest.approx([0.888, max(heights)]) and len(set(heights)) == len(METHOD_OF)


def test_one_model_alone_is_drawn_on_the_line_of_its_subset() -> None:
    frame = accuracies((0,))
    figure = plots.subset_accuracy(frame[frame["label"] == "Final"])
    assert figure.axes[0].collections[-1].get_offsets()[0].tolist() == pytest.approx([0.888, 0.0])


def test_a_frame_without_lines_becomes_a_marked_hole() -> None:
    figure = plots.subset_accuracy(pd.DataFrame())
    assert "Nothing to draw" in figure.axes[0].texts[0].get_text()


def test_label_shares_are_bars_beside_the_reports_and_the_sizes_are_named() -> None:
    frame = pd.DataFrame(
        [
            {"task": task, "label": label, "source": source, "count": count, "share": count / total}
            for task, source, counts in (
                ("sst", "here", (3, 1)),
                ("sst", "reported", (900, 600)),
                ("para", "here", (2, 6)),
            )
            for total in (sum(counts),)
            for label, count in enumerate(counts)
        ]
    )
    first, second = plots.label_distributions(frame).axes
    heights = [[round(bar.get_height(), 3) for bar in group] for group in first.containers]
    assert heights == [[0.75, 0.25], [0.6, 0.4]] and first.get_title() == "SST\nhere n = 4, reported n = 1,500"
    assert [[bar.get_height() for bar in group] for group in second.containers] == [[0.25, 0.75]]


def test_lengths_are_bars_of_their_widths_with_the_mean_dashed_and_the_share_cut_named() -> None:
    facts = {"mean": 4.5, "max": 700, "limit": 512, "share_truncated": 0.025, "inputs": 1200}
    bins = [{"from_tokens": 3, "below_tokens": 5, "count": 6}, {"from_tokens": 5, "below_tokens": 9, "count": 2}]
    axis = plots.token_lengths(pd.DataFrame([{"task": "sst"} | facts | one for one in bins])).axes[0]
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axis.patches] == [(2.5, 2, 6), (4.5, 4, 2)]
    assert axis.lines[0].get_xdata()[0] == 4.5 and axis.lines[0].get_linestyle() == "--"
    assert axis.get_title() == "SST, n = 1,200\nmean 4.5 (dashed), longest 700, 2.5 % cut at 512"


def test_what_a_method_adds_is_a_mark_on_its_interval_below_the_methods_name() -> None:
    known = {"metric": "overall", "low": -0.1, "high": 0.3, "also": ""}
    lines = [
        {"method": "PCGrad", "a": "p", "b": "q", "label": "one", "report": "siar", "estimate": 0.1, "seeds": 3},
        {
            "method": "PCGrad",
            "a": "r",
            "b": "s",
            "label": "two",
            "report": "gu",
            "estimate": 0.2,
            "seeds": 1,
            "also": "rate",
        },
        {"method": "SMART", "a": "t", "b": "u", "label": "three", "report": "siar", "estimate": -0.1, "seeds": 2},
    ]
    figure = plots.forest(pd.DataFrame([known | line for line in lines]))
    (axis,) = figure.axes
    names = dict(zip(axis.get_yticks(), (text.get_text() for text in axis.get_yticklabels()), strict=True))
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    found = [(names[mark.get_ydata()[0]], mark.get_xdata()[0], mark.get_fillstyle()) for mark in marks]
    assert found == [("one", 0.1, "full"), ("two (rate)", 0.2, "none"), ("three", -0.1, "full")]
    assert marks[0].get_color() == marks[2].get_color() != marks[1].get_color(), "one colour a report"
    spans = [line for line in axis.lines if list(line.get_xdata()) == [-0.1, 0.3]]
    assert [span.get_ydata()[0] for span in spans] == [mark.get_ydata()[0] for mark in marks]
    assert list(names.values())[:2] == ["PCGrad", "SMART"] and max(axis.get_yticks()) < axis.get_ylim()[0]


def test_costs_are_a_mark_a_run_and_the_front_alone_is_joined() -> None:
    lines = [
        ("siar", "a", 1, 0.4, True),
        ("siar", "b", 2, 0.3, False),
        ("gu", "c", 3, 0.6, True),
        ("gu", "c", 5, 0.8, True),
    ]
    frame = pd.DataFrame(lines, columns=["report", "label", "seconds", "overall", "on the front"])
    (axis,) = plots.costs(frame).axes
    runs = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert runs["siar"] == [[1, 0.4], [2, 0.3]] and runs["gu"] == [[3, 0.6], [5, 0.8]]
    assert runs["the best so far"] == [[1, 0.4], [4, pytest.approx(0.7)]], "the mean over seeds"
    assert [text.get_text() for text in axis.texts] == ["1", "2"] and {"1: a", "2: c"} <= set(runs)
