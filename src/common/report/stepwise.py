"""Figures of the stepwise search (BERT++): a metric over the epochs for all models, the steps, and the random heads.

Frames come from `study/stepwise.py`. A model has one colour, marker and letter in every panel of the notebook.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.report.plots import HERE_COLOUR, METHOD_COLOURS, REPORT_COLOUR, count_seeds, legend_below, panels, styled
from common.results.frames import HERE, REPORT
from common.results.stepwise import KEPT, LEFT, START

_PALETTE = sns.color_palette("colorblind", 10).as_hex()
# Where a model is of another family than the rest, it has its family's colour; H, where the search ends, is black.
MODELS = ["bertpp_baseline", *(f"bertpp_model_{letter}" for letter in "abcdefgh")]
COLOURS = dict(
    zip(MODELS, [METHOD_COLOURS["frozen encoder"], *(_PALETTE[i] for i in (0, 9, 5, 2, 1, 4, 3)), "0"], strict=True)
)
MARKERS = dict(zip(MODELS, "dos^vXPD<", strict=True))
DASHES = {START: (1, 1), KEPT: "", LEFT: (5, 2)}
LOSER_COLOUR = _PALETTE[1]
AXIS_LABELS = {
    "sts_corr": "STS dev, Pearson r",
    "sst_acc": "SST dev accuracy",
    "para_acc": "Quora dev accuracy",
    "overall": "overall dev score, raw",
    "sst_loss": "SST training loss, nats",
    "para_loss": "Quora training loss, nats",
    "sts_loss": "STS training loss, squared label units",
    "total_loss": "sum of the three training losses",
}
LABEL_GAP = 0.052  # of the axis, between two letters


@styled
def curves(frame: pd.DataFrame) -> Figure:
    """One metric over the epochs, one line a model, a band where there are several seeds (BERT++, Figures 2 to 8)."""
    figure, (axis,) = panels(1, 1, 8.6, 5.9)
    frame = frame.assign(name=frame["label"].where(frame["scored_on"] != "cosines", frame["label"] + " (of cosines)"))
    first = frame.drop_duplicates("name")
    sns.lineplot(
        frame, x="epoch", y="value", hue="name", style="name", errorbar="sd", linewidth=2,
        palette=first["row"].map(COLOURS).tolist(), markers=first["row"].map(MARKERS).tolist(),
        dashes=first["role"].map(DASHES).tolist(), markersize=9, ax=axis,
    )  # fmt: skip
    axis.set(xlabel="epoch", ylabel=AXIS_LABELS[frame["metric"].iloc[0]])
    axis.set_xticks(sorted(set(frame["epoch"])))
    counted = count_seeds(frame, "; bands: one standard deviation")
    axis.set_title(f"{counted}; solid: on the way to Model H", fontsize=12)
    legend_below(figure, axis)
    _letters(axis, frame)
    return figure


@styled
def waterfall(frame: pd.DataFrame) -> Figure:
    """The overall score of every model as a step from the one it builds on, the report's beside ours."""
    figure, axes = panels(1, 2, 6.6, 5.2, sharey=True)
    steps = frame.drop_duplicates("label").set_index("label")
    for axis, source in zip(axes, (REPORT, HERE), strict=True):
        ours = frame[frame["source"] == source]
        means = ours.groupby("label")[["start", "stop", "gain"]].mean().reindex(steps.index)
        for place, (label, bar) in enumerate(means.iterrows()):
            _step(axis, place, bar, steps.index.get_indexer([steps.loc[label, "over"]])[0], steps.loc[label, "role"])
            seeds = ours.loc[ours["label"] == label, "gain"]
            if len(seeds) > 1:
                axis.plot([place] * len(seeds), bar["start"] + seeds, "k.", markersize=6)
                axis.errorbar(place, bar["stop"], yerr=seeds.std(), color="black", capsize=4, linewidth=1.5)
        noise = "no noise known" if ours["seed"].nunique() < 2 else "error bars: one sd of the gain over seeds"
        count = f"here, {count_seeds(ours)}: {noise}" if source == HERE else "as the report prints it, one run each"
        axis.set(title=count, xlabel="model", ylabel="overall dev score, raw")
        axis.set_xticks(range(len(steps)), [label.removeprefix("Model ") for label in steps.index])
        axis.margins(y=0.08)
    figure.suptitle("A bar runs from the model it builds on to its own score; hatched: tried and left", fontsize=12)
    return figure


@styled
def random_heads(frame: pd.DataFrame) -> Figure:
    """Scores of the baseline over many random heads as shares of the draws, beside the one draw that the report prints
    and its own model."""
    metrics = [name for name in ("para_acc", "sts_corr", "overall") if name in set(frame["metric"])]
    figure, axes = panels(1, len(metrics), 4.8, 4.6, sharey=True)
    for axis, name in zip(axes, metrics, strict=True):
        part = frame[frame["metric"] == name]
        sns.ecdfplot(part, x="value", color=HERE_COLOUR, linewidth=2.5, label="random heads", ax=axis)
        axis.plot(part["value"], np.full(len(part), -0.03), "|", color=HERE_COLOUR, markersize=14)
        axis.axvline(part["reported"].iloc[0], color=REPORT_COLOUR, linestyle="--", label="reported baseline")
        axis.axvline(part["best_model"].mean(), color="black", linewidth=2, label="Model H here")
        axis.set(xlabel=AXIS_LABELS[name], ylabel="share of the draws up to this score", ylim=(-0.08, 1.03))
    count = f"{frame['draw'].nunique()} random heads, {count_seeds(frame)}"
    figure.suptitle(f"The baseline with {count}; ticks: the draws", fontsize=12)
    legend_below(figure, axes[0])
    return figure


def _step(axis: Axes, place: int, bar: pd.Series, base: int, role: str) -> None:
    """One bar with its gain above it, and a line from the bar it starts from; a hole is marked."""
    if bar.isna().any():
        axis.text(place, 0, " no value here", rotation=90, ha="center", va="bottom", style="italic")
        return
    colour = REPORT_COLOUR if role == START else HERE_COLOUR if bar["gain"] >= 0 else LOSER_COLOUR
    fill = {"facecolor": "white", "hatch": "///"} if role == LEFT else {"facecolor": colour}
    axis.bar(place, bar["gain"], bottom=bar["start"], width=0.7, edgecolor=colour, linewidth=1.5, **fill)
    axis.hlines(bar["start"], place if base < 0 else base, place, color="0.5", zorder=0)
    top = (place, max(bar["start"], bar["stop"]))
    axis.annotate(f"{bar['gain']:+.3f}", top, (0, 7), textcoords="offset points", ha="center", fontsize=10)


def _letters(axis: Axes, frame: pd.DataFrame) -> None:
    """Each line's letter right of its end, moved apart where two would touch; a line that ends early has it there."""
    means = frame.groupby(["row", "epoch"], as_index=False)["value"].mean().sort_values("epoch")
    ends = means.groupby("row").last().sort_values(["epoch", "value"])
    (low, high), heights = axis.get_ylim(), ends["value"].to_numpy(copy=True)
    gap, is_last = LABEL_GAP * (high - low), ends["epoch"].to_numpy() == frame["epoch"].max()
    for place in range(len(ends) - is_last.sum() + 1, len(ends)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    ceiling = high - gap * np.arange(len(ends))[::-1]
    heights = np.where(is_last, np.minimum(heights, ceiling), heights)
    for (row, end), height, last in zip(ends.iterrows(), heights, is_last, strict=True):
        colour, letter = COLOURS[row], "base" if row == MODELS[0] else row[-1].upper()
        at = ((1.02, height), axis.get_yaxis_transform()) if last else ((8, 0), "offset points")
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7} if last else None
        text = {"color": colour, "fontweight": "bold", "va": "center", "arrowprops": arrow}
        axis.annotate(letter, (end["epoch"], end["value"]), at[0], textcoords=at[1], **text)
