"""Figures about how Gu's models judge question pairs: by threshold, by subset, and SST from epoch to epoch.

Drawn from the frames of `study/subsets.py`; the colours, the style and the way of saving are those of `plots.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.report.plots import METHOD_COLOURS, count_seeds, panels, row_colours, styled

MARKERS = ("o", "s", "^", "v", "P", "X", "p", "*")
DASHES = ("-", "--", ":", "-.")
HOLLOW = {"marker": "D", "s": 80, "facecolor": "none", "edgecolor": "black", "linewidth": 1.6, "zorder": 4}
POOLINGS = {"cls": "CLS", "mean": "mean", "pooler": "pooler"}
SPREAD = 0.5  # of the models of one subset, in units of the distance between two subsets


@styled
def thresholds(frame: pd.DataFrame) -> Figure:
    """Quora accuracy against the cosine threshold, one line a pooling, with the thresholds that the report tries."""
    figure, (axis,) = panels(1, 1, 8.6, 5.2)
    for marker, dash, (kind, part) in zip(MARKERS, DASHES, frame.groupby(["method", "pooling"]), strict=False):
        first = part[part["run_id"] == part["run_id"].iloc[0]].sort_values("threshold")
        looks = {"color": METHOD_COLOURS[kind[0]], "linestyle": dash, "marker": marker, "markersize": 10}
        looks |= {"label": f"{kind[0]}, {POOLINGS[kind[1]]} pooling", "markevery": first["marked"].tolist()}
        sns.lineplot(
            part, x="threshold", y="accuracy", errorbar="sd", linewidth=2.5, markeredgecolor="black", ax=axis,
            **looks,
        )  # fmt: skip
        axis.scatter(first["threshold"], first["reported"], **HOLLOW | {"marker": marker})
    axis.set(xlabel="cosine above which a pair counts as paraphrase", ylabel="Quora dev accuracy", xlim=(-0.15, 1.03))
    axis.set_title(f"Markers: thresholds of the rows, hollow: as reported; {count_seeds(frame)}", fontsize=12)
    _legend(figure, axis)
    return figure


@styled
def accuracy(frame: pd.DataFrame) -> Figure:
    """Quora accuracy by subset, one panel a true label, one marker a model, the report's numbers as diamonds."""
    subsets, models = list(frame["subset"].unique()), list(frame["label"].unique())
    groups, dodge = dict(list(frame.groupby("true label", sort=False))), SPREAD if len(models) > 1 else False
    figure, axes = panels(1, len(groups), 4.9, 1.9 + 0.8 * len(subsets), sharey=True)
    for axis, (name, part) in zip(axes, groups.items(), strict=True):
        colours = dict(zip(part["label"], part["method"].map(METHOD_COLOURS), strict=True))
        sns.pointplot(
            part, x="value", y="subset", hue="label", order=subsets, hue_order=models, palette=colours, ax=axis,
            markers=list(MARKERS[: len(models)]), linestyle="none", dodge=dodge, errorbar="sd", markersize=9,
        )  # fmt: skip
        _reported(axis, part, subsets, models)
        _intervals(axis, part, subsets, models, colours)
        for place, subset in enumerate(subsets):
            pairs = part.loc[part["subset"] == subset, "n"].iloc[0]
            text = f"n = {pairs:,}" if pairs else "no such pair"
            axis.text(0.06, place - 0.36, text, va="center", fontsize=11)
            axis.axhline(place + 0.5, color="0.8", linewidth=0.8)
        axis.set(title=f"true label: {name}", xlabel="Quora dev accuracy", ylabel="", xlim=(-0.03, 1.03))
        axis.set_ylim(len(subsets) - 0.5, -0.5)
    _legend(figure, axes[0])
    for axis in axes[1:]:
        axis.get_legend().remove()
    noise = "thin lines: what so few pairs leave open (95 %)"
    figure.suptitle(f"Diamonds: the report's value; {noise}; {count_seeds(frame)}", fontsize=12)
    return figure


@styled
def over_epochs(frame: pd.DataFrame) -> Figure:
    """SST dev accuracy after every epoch, one line a model and seed."""
    figure, (axis,) = panels(1, 1, 8.6, 5.0)
    part = frame[(frame["metric"] == "sst_acc") & (frame["split"] == "dev")]
    colours = row_colours(part)
    sns.lineplot(
        part, x="epoch", y="value", hue="label", style="label", units="run_id", estimator=None, palette=colours,
        markers=True, linewidth=2, markersize=9, ax=axis,
    )  # fmt: skip
    axis.set(xlabel="epoch", ylabel="SST dev accuracy", xticks=sorted(set(part["epoch"])))
    axis.set_title(count_seeds(part, ", a line each"), fontsize=12)
    _legend(figure, axis)
    return figure


def _legend(figure: Figure, axis: Axes) -> None:
    """Below the panel and in two columns: the names of these models are long."""
    handles, labels = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)


def _reported(axis: Axes, part: pd.DataFrame, subsets: list[str], models: list[str]) -> None:
    """Diamonds at the height of the model's own marker."""
    known = part.dropna(subset="reported").drop_duplicates(["subset", "label"])
    axis.scatter(known["reported"], _heights(known, subsets, models), **HOLLOW)


def _intervals(axis: Axes, part: pd.DataFrame, subsets: list[str], models: list[str], colours: dict) -> None:
    """The interval that so many pairs leave, of the mean over seeds; an n of four says next to nothing."""
    means = part.groupby(["subset", "label"], sort=False)[["low", "high"]].mean().dropna().reset_index()
    lines = zip(_heights(means, subsets, models), means["low"], means["high"], means["label"], strict=True)
    for height, low, high, label in lines:
        axis.plot([low, high], [height, height], color=colours[label], linewidth=1.2, zorder=1)


def _heights(part: pd.DataFrame, subsets: list[str], models: list[str]) -> list[float]:
    shifts = np.linspace(0, SPREAD, len(models)) - SPREAD / 2 if len(models) > 1 else np.zeros(1)
    return [subsets.index(s) + shifts[models.index(m)] for s, m in zip(part["subset"], part["label"], strict=True)]
