"""Figures about how Gu's models judge question pairs: by threshold, by subset, and SST from epoch to epoch.

Drawn from the frames of `study/subsets.py`; the colours, the style and the way of saving are those of `plots.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.report.plots import METHOD_COLOURS, count_noun, legend_below, panels, styled

MARKERS = ("o", "s", "^", "v", "P", "X", "p", "*")
DIAMOND = {"marker": "D", "s": 80, "facecolor": "white", "edgecolor": "black", "linewidth": 1.6, "zorder": 4}
DOT = {"s": 90, "edgecolor": "black", "linewidth": 1.2, "zorder": 5}
SPREAD = 0.56  # of the models of one subset, in units of the distance between two subsets


@styled
def thresholds(frame: pd.DataFrame) -> Figure:
    """Quora accuracy against the cosine threshold, one line a pooling, with the thresholds that the report tries."""
    figure, (axis,) = panels(1, 1, 8.6, 5.0)
    frame = frame.assign(model=frame["method"] + ", " + frame["pooling"] + " pooling")
    colours = dict(zip(frame["model"], frame["method"].map(METHOD_COLOURS), strict=True))
    common = {"x": "threshold", "hue": "model", "palette": colours, "ax": axis}
    sns.lineplot(frame, y="accuracy", style="model", errorbar="sd", linewidth=2.5, **common)
    sns.scatterplot(frame[frame["marked"]], y="accuracy", legend=False, **DOT, **common)
    axis.scatter(
        "threshold", "reported", data=frame.dropna(subset="reported"), label="the report's accuracy", **DIAMOND
    )
    seeds = count_noun(frame["seed"].nunique(), "seed")
    axis.set(xlabel="cosine above which a pair counts as paraphrase", ylabel="Quora dev accuracy", xlim=(-0.5, 1.03))
    axis.set_title(f"Dots: thresholds of the rows; {seeds}", fontsize=12)
    legend_below(figure, axis)
    return figure


@styled
def accuracy(frame: pd.DataFrame) -> Figure:
    """Quora accuracy by subset, one panel a true label, one marker a model, the report's numbers as diamonds."""
    subsets, models = list(frame["subset"].unique()), list(frame["label"].unique())
    groups = dict(list(frame.groupby("true label", sort=False)))
    figure, axes = panels(1, len(groups), 4.9, 1.7 + 0.8 * len(subsets), sharey=True)
    for axis, (name, part) in zip(axes, groups.items(), strict=True):
        colours = dict(zip(part["label"], part["method"].map(METHOD_COLOURS), strict=True))
        sns.pointplot(
            part, x="accuracy", y="subset", hue="label", order=subsets, hue_order=models, palette=colours, ax=axis,
            markers=list(MARKERS[: len(models)]), linestyle="none", dodge=SPREAD, errorbar="sd", markersize=9,
        )  # fmt: skip
        _reported(axis, part, subsets, models)
        for place, subset in enumerate(subsets):
            pairs = part.loc[part["subset"] == subset, "pairs"].iloc[0]
            axis.text(1.02, place, f"{pairs:,}", transform=axis.get_yaxis_transform(), va="center", fontsize=11)
        axis.set(title=f"true label: {name}", xlabel="Quora dev accuracy", ylabel="", xlim=(-0.03, 1.03))
        axis.get_legend().set_visible(axis is axes[0])
    legend_below(figure, axes[0])
    seeds = count_noun(frame["seed"].nunique(), "seed")
    figure.suptitle(f"Diamonds: the report's value; at the right the number of pairs; {seeds}", fontsize=12)
    return figure


@styled
def over_epochs(frame: pd.DataFrame) -> Figure:
    """SST dev accuracy after every epoch, one line a model and seed."""
    figure, (axis,) = panels(1, 1, 8.6, 5.0)
    part = frame[frame["metric"] == "sst_acc"]
    colours = dict(zip(part["label"], part["method"].map(METHOD_COLOURS), strict=True))
    sns.lineplot(
        part, x="epoch", y="value", hue="label", style="label", units="run_id", estimator=None, palette=colours,
        markers=True, linewidth=2, markersize=9, ax=axis,
    )  # fmt: skip
    axis.set(xlabel="epoch", ylabel="SST dev accuracy", xticks=sorted(set(part["epoch"])))
    axis.set_title(f"One line a model and seed; {count_noun(part['seed'].nunique(), 'seed')}", fontsize=12)
    legend_below(figure, axis)
    return figure


def _reported(axis: Axes, part: pd.DataFrame, subsets: list[str], models: list[str]) -> None:
    """Diamonds at the height of the model's own marker."""
    known = part.dropna(subset="reported").drop_duplicates(["subset", "label"])
    shifts = np.linspace(0, SPREAD, len(models)) - SPREAD / 2 if len(models) > 1 else np.zeros(1)
    places = [subsets.index(s) + shifts[models.index(m)] for s, m in zip(known["subset"], known["label"], strict=True)]
    axis.scatter(known["reported"], places, **DIAMOND)
