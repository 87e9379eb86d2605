"""Curves hold every line of their frame, told apart the same way in all panels, and no crash on a hole."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made_runs import MODELS, study

from common.declare.rows import row
from common.report import curves, plots
from common.results import compare, long


def test_lines_of_learned_factors_are_the_trace_one_a_task(
    lab: SimpleNamespace, results: dict, drawings: Callable
) -> None:
    frame = drawings(results)["weights"][1]
    axis = curves.loss_weights(frame).axes[0]
    drawn = [line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata())]
    part = frame[frame["label"] == frame["label"].iloc[0]]
    assert drawn == [part[part["of"] == task]["value"].tolist() for task in ("sst", "para", "sts")]


@pytest.mark.parametrize("length", [8, 24, 60])
def test_a_legend_of_long_labels_has_fewer_columns_and_is_not_cut(length: int) -> None:
    lines = [
        {"label": f"{i} {'n' * (length - 2)}", "threshold": x, "accuracy": 0.1 * i} for i in range(5) for x in (0, 1)
    ]
    known = {"method": "cosine", "pooling": "mean", "marked": False, "reported": np.nan, "run_id": "r-s0", "seed": 0}
    frame = pd.DataFrame(lines).assign(**known, row=lambda f: f["label"])
    figure = curves.threshold_curves(frame)
    figure.draw_without_rendering()
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1


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
    figure = curves.learning_curves(learning("one", "two"))
    for axis in figure.axes:
        drawn = [
            (line.get_color(), line.is_dashed(), list(line.get_ydata())) for line in axis.lines if len(line.get_xdata())
        ]
        assert len({colour for colour, _, _ in drawn}) == 2 and len(drawn) == 4
        assert all(values == pytest.approx([0.4, 0.5] if dashed else [0.1, 0.2]) for _, dashed, values in drawn)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "dev", "train"]
    dev_alone = curves.learning_curves(learning("one").query("split == 'dev'"))
    assert [text.get_text() for text in dev_alone.legends[0].get_texts()] == ["one"]


def test_phases_are_parted_by_lines_and_named_above() -> None:
    figure = curves.phases(learning("one", phases=("SST", "SST", "Quora", "STS", "SST, Quora, STS")))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == [
        *("trained: SST", "trained: Quora", "trained: STS", "trained: SST, Quora, STS")
    ]
    edges = sorted(line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1)
    assert edges == [2.5, 3.5, 4.5, 5.5]


def conflict_frame() -> pd.DataFrame:
    lines = [
        {"row": name, "label": row(name).label, "method": "pair encoding", "seed": 0}
        | {"of": pair, "update": update, "value": cosine}
        for name in ("siar_mtl_pcgrad", "siar_joint")
        for pair in ("sst-para", "para-sts")
        for update, cosine in enumerate((0.5, -0.5, 0.1, 0.3), start=1)
    ]
    return pd.DataFrame(lines).assign(running=0.2, negative=0.25, mean=0.1)


def test_conflicts_say_the_share_below_zero_of_each_row_and_pair() -> None:
    figure = curves.conflicts(conflict_frame())
    assert [axis.get_title() for axis in figure.axes] == ["SST and Quora", "Quora and STS"]
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["25 % below 0, mean +0.10"] * 2
        assert len({text.get_color() for text in axis.texts}) == 2
        dots = axis.collections[0].get_offsets()
        assert dots.tolist() == [[1, 0.5], [2, -0.5], [3, 0.1], [4, 0.3]]
        assert axis.get_xlabel() and not (axis.get_legend() and axis.get_legend().get_visible())


@pytest.mark.parametrize("kind", ["dev", "train"])
def test_every_model_has_a_line_in_every_panel_whose_metric_it_has(kind: str) -> None:
    frame = long.history(study((0,)))
    frame = frame[(frame["split"] == kind) & frame["metric"].isin(curves.TITLES)]
    figure = curves.learning_curves(frame)
    metrics = [metric for metric in curves.TITLES if metric in set(frame["metric"])]
    assert len(metrics) == 4 and [axis.get_title() for axis in figure.axes] == [curves.TITLES[m] for m in metrics]
    for axis, metric in zip(figure.axes, metrics, strict=True):
        lines = {tuple(np.round(line.get_ydata(), 9)) for line in axis.lines if len(line.get_ydata())}
        expected = {tuple(np.round(part["value"], 9)) for _, part in frame[frame["metric"] == metric].groupby("row")}
        assert lines == expected


def test_models_of_one_figure_differ_in_colour_and_marker_and_keep_them_in_every_panel() -> None:
    frame = long.history(study((0,))).query("split == 'dev'")
    figure = curves.learning_curves(frame)
    handles = {
        h.get_label(): (mpl.colors.to_rgb(h.get_color()), h.get_marker()) for h in figure.legends[0].legend_handles
    }
    colours, markers = zip(*handles.values(), strict=True)
    assert list(handles) == [of.label for of in MODELS.values()] and len(set(markers)) == len(MODELS)
    distances = [np.linalg.norm(np.subtract(a, b)) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 0.14
    for axis, metric in zip(figure.axes, curves.TITLES, strict=False):
        for label, part in frame[frame["metric"] == metric].groupby("label"):
            (line,) = [each for each in axis.lines if list(each.get_ydata()) == pytest.approx(part["value"].tolist())]
            assert (mpl.colors.to_rgb(line.get_color()), line.get_marker()) == handles[label]


@pytest.mark.parametrize("failed", [("bertpp_model_d",), tuple(MODELS)])
def test_failed_runs_leave_marked_holes(failed: tuple[str, ...], lab: SimpleNamespace) -> None:
    results = study((0,), failed=failed)
    steps = compare.steps(results)
    holes = [text.get_text() for text in plots.steps(steps).axes[1].texts].count(" no value here")
    assert holes == (3 if len(failed) == 1 else 9), "D and what builds on it, E and F"
    for draw, frame in (
        (curves.learning_curves, long.history(results).query("metric == 'overall'")),
        (plots.random_heads, compare.random_heads(results, "bertpp_baseline", "bertpp_model_h")),
    ):
        plots.save(lab, "01_hole", draw(frame), frame, "Caption.")


def test_one_epoch_and_one_seed_are_enough() -> None:
    figure = curves.learning_curves(long.history(study((0,), epochs=1)).query("metric == 'overall'"))
    assert figure.axes[0].get_xticks().tolist() == [1] and figure.get_suptitle() == "one seed"


def threshold_lines() -> pd.DataFrame:
    grid = np.round(np.linspace(-1, 1, 201), 3)
    parts = [
        pd.DataFrame(
            {"threshold": grid, "accuracy": 0.5 + height * grid**2, "seed": seed, "run_id": f"{height}-s{seed}"}
        )
        .assign(
            row=method + pooling,
            label=f"{method}, {pooling}",
            method=method,
            pooling=pooling,
            marked=np.isin(grid, (0.5, 0.75)),
        )
        .assign(reported=lambda part: np.where(part["marked"], 0.8, np.nan))
        for method, pooling, height in (
            ("cosine", "cls", 0.1),
            ("cosine", "mean", 0.2),
            ("zero-shot cosine", "mean", 0.3),
        )
        for seed in (0, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def test_markers_stand_at_the_thresholds_of_the_rows_and_hollow_ones_at_what_is_reported() -> None:
    figure = curves.threshold_curves(threshold_lines())
    axis = figure.axes[0]
    for line in axis.lines:
        assert line.get_xdata()[np.array(line.get_markevery())].tolist() == [0.5, 0.75]
    hollow = [c.get_offsets() for c in axis.collections if c.get_offsets().shape == (201, 2)]
    assert [points[~points.mask.any(axis=1)].tolist() for points in hollow] == [[[0.5, 0.8], [0.75, 0.8]]] * 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["cosine, cls, CLS pooling", "cosine, mean, mean pooling", "zero-shot cosine, mean, mean pooling"]


def test_colours_are_those_of_the_methods_where_each_has_one_model() -> None:
    both = threshold_lines()
    alone = both[both["label"] != "cosine, cls"]
    colours = [line.get_color() for line in curves.threshold_curves(alone).axes[0].lines]
    assert colours == [plots.METHOD_COLOURS["cosine"], plots.METHOD_COLOURS["zero-shot cosine"]]
    assert len({line.get_color() for line in curves.threshold_curves(both).axes[0].lines}) == 3


@pytest.mark.parametrize("draw", [curves.threshold_curves, curves.learning_curves, curves.phases, curves.conflicts])
def test_a_frame_without_lines_becomes_a_marked_hole(draw) -> None:
    assert "Nothing to draw" in draw(pd.DataFrame()).axes[0].texts[0].get_text()
