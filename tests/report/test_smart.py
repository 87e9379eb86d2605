"""Figures of the SMART notebook draw what their frames hold, and a hole where there is nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from common.declare.rows import row
from common.report import smart

METRICS = ("SST accuracy", "Quora accuracy", "STS Pearson r")


def sweep_frame() -> pd.DataFrame:
    lines = [
        {"lambda": weight, "metric": metric, "source": source, "seed": 0, "value": 0.5 + weight / 1000}
        for weight in (0.0, 0.1, 10.0)
        for metric in METRICS
        for source in ("here", "report", "other heads")
    ]
    return pd.DataFrame(lines).assign(constant=0.3)


def conflict_frame() -> pd.DataFrame:
    lines = [
        {"row": name, "label": row(name).label, "seed": 0, "pair": pair, "update": update, "cosine": cosine}
        for name in ("siar_mtl_pcgrad", "siar_joint")
        for pair in ("sst-para", "para-sts")
        for update, cosine in enumerate((0.5, -0.5, 0.1, 0.3), start=1)
    ]
    return pd.DataFrame(lines).assign(running=0.2, negative=0.25, mean=0.1)


def toy_frame() -> pd.DataFrame:
    grid = [[w, "grid", x, y, x] for w in (0, 1) for x in (0.0, 0.4, 0.9) for y in (0.0, 1.0)]
    points = [[w, "point", x, 0.5, x] for w in (0, 1) for x in (0.0, 1.0)]
    return pd.DataFrame(grid + points, columns=["weight", "kind", "x", "y", "value"])


DRAWINGS = {
    smart.sweep: sweep_frame,
    smart.conflicts: conflict_frame,
    smart.toy: toy_frame,
}


@pytest.mark.parametrize("draw", DRAWINGS, ids=lambda draw: draw.__name__)
def test_axes_are_labelled_and_nothing_to_draw_is_a_marked_hole(draw) -> None:
    frame = DRAWINGS[draw]()
    axes = [axis for axis in draw(frame).axes if axis.get_label() != "<colorbar>"]
    assert all(axis.get_xlabel() for axis in axes) and axes[0].get_legend() is None
    hole = draw(frame.iloc[:0])
    assert "no finished run" in hole.axes[0].texts[0].get_text()


def test_figures_with_printed_values_alone_are_drawn() -> None:
    frame = sweep_frame()
    assert len(smart.sweep(frame[frame["source"] == "report"]).axes) == len(METRICS)


@pytest.mark.parametrize(("seeds", "is_promised"), [((0,), False), ((0, 1), True)])
def test_a_band_is_promised_where_there_are_several_seeds_and_the_constant_is_drawn(
    seeds: tuple[int, ...], is_promised: bool
) -> None:
    figure = smart.sweep(pd.concat([sweep_frame().assign(seed=seed) for seed in seeds]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("here (band: one sd over seeds)" in names) == is_promised and "best constant answer" in names
    assert ("no band of ours" in figure.get_suptitle()) != is_promised
    for axis in figure.axes:
        assert [0.3, 0.3] in [list(line.get_ydata()) for line in axis.lines if line.get_linestyle() == ":"]


def test_lambda_zero_is_apart_from_the_line_and_its_level_dashed() -> None:
    axis = smart.sweep(sweep_frame()).axes[0]
    ours = [line for line in axis.lines if line.get_color() == smart.HERE_COLOUR]
    curve = next(line for line in ours if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    assert list(curve.get_xdata()) == [0.1, 10.0] and list(curve.get_ydata()) == pytest.approx([0.5001, 0.51])
    level = next(line for line in ours if line.get_linestyle() == "--")
    assert list(level.get_ydata()) == [0.5, 0.5]


def test_conflicts_say_the_share_below_zero_of_each_row_and_pair() -> None:
    figure = smart.conflicts(conflict_frame())
    assert [axis.get_title() for axis in figure.axes] == ["SST and Quora", "Quora and STS"]
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["25 % below 0, mean +0.10"] * 2
        assert len({text.get_color() for text in axis.texts}) == 2
        dots = axis.collections[0].get_offsets()
        assert dots.tolist() == [[1, 0.5], [2, -0.5], [3, 0.1], [4, 0.3]]


def test_toy_draws_the_level_one_half_where_the_probability_crosses_it() -> None:
    axis = smart.toy(toy_frame()).axes[0]
    levels = [c for c in axis.collections if list(getattr(c, "levels", [])) == [0.5]]
    (path,) = [path for path in levels[0].get_paths() if len(path.vertices)]
    assert path.vertices[:, 0] == pytest.approx(0.4 + 0.5 * 0.1 / 0.5)
