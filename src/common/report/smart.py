"""Figures of the SMART study: methods, the sweep of lambda, gradient conflicts, and a toy of Figure 2."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.report.plots import (
    CONSTANT_LINE,
    HERE_COLOUR,
    ROW_COLOURS,
    count_seeds,
    legend_below,
    panels,
    styled,
)
from common.results.frames import HERE, REPORT
from common.results.smart import OTHER_HEADS
from common.results.stats import TASK_NAMES
from common.results.untrained import CONSTANT_LABEL

_PALETTE = sns.color_palette("colorblind", 10).as_hex()
DIAMOND = {"marker": "D", "color": "white", "edgecolor": "black", "linewidth": 1.6, "zorder": 5, "legend": False}


@styled
def sweep(frame: pd.DataFrame) -> Figure:
    """The three metrics against lambda, the row without the term apart (the report's Figure 4)."""
    metrics = list(dict.fromkeys(frame["metric"]))
    figure, axes = panels(1, len(metrics), 4.6, 4.8)
    legend = {}
    for axis, metric in zip(axes, metrics, strict=True):
        part = frame[frame["metric"] == metric]
        sources = {name: part[part["source"] == name] for name in (HERE, REPORT, OTHER_HEADS)}
        seeds = sources[HERE]["seed"].nunique()
        _curve(sources[HERE], axis, HERE_COLOUR, "here" + " (band: one sd over seeds)" * (seeds > 1), "o")
        _curve(sources[OTHER_HEADS], axis, _PALETTE[1], "mean of other random heads (band: one sd)", "s")
        sns.scatterplot(sources[REPORT], x="lambda", y="value", s=80, ax=axis, **DIAMOND)
        axis.set_xscale("symlog", linthresh=0.1, linscale=0.6)
        axis.set_xticks([0, 0.1, 1, 5, 10, 20, 50], ["0", "0.1", "1", "5", "10", "20", "50"], fontsize=10)
        axis.minorticks_off()
        axis.axvline(0.04, color="0.5", linestyle=":", linewidth=1.5)
        axis.axhline(part["constant"].iloc[0], label=CONSTANT_LABEL, **CONSTANT_LINE)
        axis.set(title=metric, xlabel="lambda (0 apart, then a log scale)", ylabel=metric)
        legend |= {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    figure.legend(handles=[*legend.values(), _diamond()], loc="outside lower center", ncols=3)
    noise = f"{count_seeds(frame)}{', no band of ours' * (frame['seed'].nunique() < 2)}"
    title = f"SMART on SST alone, {noise}; dashed: lambda 0; nothing here is trained on Quora or STS"
    figure.suptitle(title, fontsize=12)
    return figure


@styled
def conflicts(frame: pd.DataFrame) -> Figure:
    """Cosines of two tasks' gradients over the updates, one panel a pair (the report's Figure A.4)."""
    pairs = list(dict.fromkeys(frame["pair"]))
    figure, axes = panels(1, len(pairs), 4.8, 4.8, sharey=True)
    limit = 1.1 * frame["cosine"].abs().max()
    for axis, pair in zip(axes, pairs, strict=True):
        rows = frame[frame["pair"] == pair].groupby(["row", "label"], sort=False)
        for place, ((row, label), part) in enumerate(rows):
            style = {"x": "update", "color": ROW_COLOURS.get(row, HERE_COLOUR), "ax": axis}
            sns.scatterplot(part, y="cosine", s=9, alpha=0.3, linewidth=0, legend=False, **style)
            sns.lineplot(part, y="running", errorbar=None, linewidth=2.5, label=label, **style)
            shares = f"{100 * part['negative'].iloc[0]:.0f} % below 0, mean {part['mean'].iloc[0]:+.2f}"
            axis.text(0.02, 0.99 - 0.07 * place, shares, color=style["color"], transform=axis.transAxes, va="top")
        axis.axhline(0, color="black", linewidth=1)
        names = " and ".join(TASK_NAMES[task] for task in pair.split("-"))
        axis.set(title=names, xlabel="update", ylabel="cosine of the two gradients", ylim=(-limit, 1.3 * limit))
        axis.get_legend().set_visible(False)
    legend_below(figure, axes[0])
    figure.suptitle(f"Dots: updates, lines: running mean; {count_seeds(frame)}", fontsize=12)
    return figure


@styled
def toy(frame: pd.DataFrame) -> Figure:
    """Probability of class 1 in the plane, its level 1/2, and the training points (the report's Figure 2)."""
    weights = list(dict.fromkeys(frame["weight"]))
    figure, axes = panels(1, len(weights), 5.4, 4.6, sharey=True)
    for axis, weight in zip(axes, weights, strict=True):
        part = frame[frame["weight"] == weight]
        grid = part[part["kind"] == "grid"].pivot(index="y", columns="x", values="value")
        image = axis.contourf(grid.columns, grid.index, grid, levels=10, vmin=0, vmax=1, cmap="PuOr", alpha=0.75)
        axis.contour(grid.columns, grid.index, grid, levels=[0.5], colors="black", linewidths=2)
        for label, marker in ((0, "o"), (1, "^")):
            points = part[(part["kind"] == "point") & (part["value"] == label)]
            face = "#7f3b08" if label == 0 else "#2d004b"
            axis.scatter(
                points["x"], points["y"], s=36, marker=marker, color=face, edgecolor="white", label=f"class {label}"
            )
        axis.set(title=f"lambda = {weight}", xlabel="first coordinate", ylabel="second coordinate")
    figure.colorbar(image, ax=axes, label="probability of class 1", ticks=[0, 0.25, 0.5, 0.75, 1])
    legend_below(figure, axes[0])
    return figure


def _curve(part: pd.DataFrame, axis: Axes, colour: str, label: str, marker: str) -> None:
    """A line with its band over lambda above 0, and the level at 0 as a dashed line."""
    above, zero = part[part["lambda"] > 0], part[part["lambda"] == 0]
    common = {"x": "lambda", "y": "value", "color": colour, "marker": marker, "markersize": 8, "ax": axis}
    if len(above):
        sns.lineplot(above, errorbar="sd", linewidth=2.2, label=label, legend=False, **common)
    if len(zero):
        sns.lineplot(zero, errorbar="sd", err_style="bars", legend=False, **common)
        axis.axhline(zero["value"].mean(), color=colour, linestyle="--", linewidth=1.2)


def _diamond() -> Line2D:
    looks = {"markerfacecolor": "white", "markeredgecolor": "black", "markeredgewidth": 1.6}
    return Line2D([], [], linestyle="", marker="D", markersize=8, label="report", **looks)
