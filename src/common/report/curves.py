"""Curves: scores and losses over the epochs, what the updates saw, and accuracy against a threshold."""

from __future__ import annotations

import textwrap

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.declare.tasks import TASK_NAMES
from common.report.plots import (
    HOLLOW,
    LABEL_CHARACTERS,
    METRIC_TITLES,
    PALETTE,
    count_seeds,
    legend_below,
    panels,
    row_colours,
    styled,
)

TASK_COLOURS = {"SST": PALETTE[0], "Quora": PALETTE[1], "STS": PALETTE[2], "CFIMDB": PALETTE[4]}
TITLES = METRIC_TITLES | {
    "overall": "overall score, raw",
    "sst_loss": "SST training loss, nats",
    "para_loss": "Quora training loss, nats",
    "sts_loss": "STS training loss, squared label units",
    "total_loss": "sum of the three training losses",
}
BANDS = "; bands: one standard deviation"
# A line of one kind in all panels about learning.
LINE = {"errorbar": "sd", "linewidth": 2.2, "markersize": 7}
SPLITS = {"style": "split", "style_order": ["dev", "train"], "dashes": ["", (3, 2)], "markers": ["o", "s"]}
MARKERS = ("o", "s", "^", "v", "P", "X", "D", "*", "d", "p")
DASHES = ("-", "--", ":", "-.")
POOLINGS = {"cls": "CLS", "mean": "mean", "pooler": "pooler"}


@styled
def learning_curves(frame: pd.DataFrame) -> Figure:
    """Scores and losses after every epoch, one panel each and one line a model, dev solid and train dashed."""
    metrics = [metric for metric in TITLES if metric in set(frame["metric"])]
    columns = len(metrics) if len(metrics) < 4 else 2
    width = {1: 8.6, 2: 6.4}.get(columns, 4.6)
    figure, axes = panels(-(-len(metrics) // columns), columns, width, 4.9)
    labels, is_one_split = list(dict.fromkeys(frame["label"])), frame["split"].nunique() == 1
    models = {"style": "label", "style_order": labels, "dashes": False, "markers": list(MARKERS[: len(labels)])}
    looks = LINE | (models if is_one_split else SPLITS) | {"hue": "label", "palette": row_colours(frame)}
    for axis, metric in zip(axes, metrics, strict=False):
        part = frame[frame["metric"] == metric]
        sns.lineplot(part, x="epoch", y="value", legend=axis is axes[0], ax=axis, **looks)
        shown = "train" if metric.endswith("_loss") else " and ".join(dict.fromkeys(part["split"]))
        axis.set(title=TITLES[metric], xlabel="epoch", ylabel=f"{TITLES[metric]} ({shown})")
        axis.set_xticks(sorted(set(part["epoch"])))
    for axis in axes[len(metrics) :]:
        axis.remove()
    _legend(figure, axes[0])
    figure.suptitle(count_seeds(frame, BANDS), fontsize=12)
    return figure


@styled
def phases(frame: pd.DataFrame) -> Figure:
    """All scores of a run that trains its tasks one after the other, epoch by epoch, one panel a model."""
    labels = list(dict.fromkeys(frame["label"]))
    figure, axes = panels(len(labels), 1, 9.0, 4.6)
    part = frame[frame["metric"].isin(METRIC_TITLES)].assign(score=lambda part: part["metric"].map(METRIC_TITLES))
    colours = {METRIC_TITLES[m]: c for m, c in zip(METRIC_TITLES, TASK_COLOURS.values(), strict=False)}
    for axis, label in zip(axes, labels, strict=True):
        own = part[part["label"] == label]
        scores = [score for score in colours if score in set(own["score"])]
        looks = LINE | SPLITS | {"hue": "score", "hue_order": scores, "palette": colours}
        sns.lineplot(own, x="epoch", y="value", legend=axis is axes[0], ax=axis, **looks)
        spans = own.groupby("trained", sort=False)["epoch"].agg(["min", "max"])
        for name, (start, stop) in spans.iterrows():
            axis.axvline(stop + 0.5, color="0.5", linewidth=1)
            axis.text((start + stop) / 2, 1.02, f"trained: {name}", transform=axis.get_xaxis_transform(), ha="center")
        axis.set(xlabel="epoch", ylabel="accuracy, or Pearson r", xlim=(0.5, own["epoch"].max() + 0.5))
        axis.set_title(textwrap.fill(label, 2 * LABEL_CHARACTERS), pad=26)
        axis.set_xticks(sorted(set(own["epoch"])))
    _legend(figure, axes[0])
    figure.suptitle(count_seeds(frame, BANDS), fontsize=12)
    return figure


@styled
def loss_weights(frame: pd.DataFrame) -> Figure:
    """What multiplies each task's loss, update by update, one panel a row; a band where there are several seeds."""
    frame = frame.assign(task=frame["of"].map(TASK_NAMES))
    labels, tasks = list(dict.fromkeys(frame["label"])), [n for n in TASK_COLOURS if n in set(frame["task"])]
    columns = min(3, len(labels))
    figure, axes = panels(-(-len(labels) // columns), columns, 4.4, 3.5, sharey=True)
    for axis, label in zip(axes, labels, strict=False):
        part = frame[frame["label"] == label]
        sns.lineplot(
            part, x="update", y="value", hue="task", hue_order=tasks, style="task", style_order=tasks,
            palette=TASK_COLOURS, errorbar="sd", linewidth=2.5, legend=axis is axes[0], ax=axis,
        )  # fmt: skip
        axis.set_title(textwrap.fill(label, LABEL_CHARACTERS), fontsize=11)
        axis.set(xlabel="update", ylabel="factor on the loss", ylim=(0, 1.08 * frame["value"].max()))
    for axis in axes[len(labels) :]:
        axis.remove()
    legend_below(figure, axes[0])
    figure.suptitle(f"What multiplies each task's loss, {count_seeds(frame)}", fontsize=12)
    return figure


@styled
def conflicts(frame: pd.DataFrame) -> Figure:
    """Cosines of two tasks' gradients over the updates, one panel a pair."""
    pairs = list(dict.fromkeys(frame["of"]))
    figure, axes = panels(1, len(pairs), 4.8, 4.8, sharey=True)
    colours, limit = row_colours(frame), 1.1 * frame["value"].abs().max()
    for axis, pair in zip(axes, pairs, strict=True):
        rows = frame[frame["of"] == pair].groupby("label", sort=False)
        for place, (label, part) in enumerate(rows):
            style = {"x": "update", "color": colours[label], "ax": axis}
            sns.scatterplot(part, y="value", s=9, alpha=0.3, linewidth=0, legend=False, **style)
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
def threshold_curves(frame: pd.DataFrame) -> Figure:
    """Quora accuracy against the cosine threshold, one line a pooling, with the thresholds that the report tries."""
    figure, (axis,) = panels(1, 1, 8.6, 5.2)
    groups, colours = frame.groupby("label", sort=False), row_colours(frame)
    for place, (label, part) in enumerate(groups):
        first = part[part["run_id"] == part["run_id"].iloc[0]].sort_values("threshold")
        marker, pooling = MARKERS[place % len(MARKERS)], POOLINGS[first["pooling"].iloc[0]]
        looks = {"color": colours[label], "linestyle": DASHES[place % len(DASHES)], "marker": marker}
        looks |= {"label": f"{label}, {pooling} pooling", "markevery": first["marked"].tolist(), "markersize": 10}
        sns.lineplot(
            part, x="threshold", y="accuracy", errorbar="sd", linewidth=2.5, markeredgecolor="black", ax=axis,
            **looks,
        )  # fmt: skip
        axis.scatter(first["threshold"], first["reported"], **HOLLOW | {"marker": marker})
    axis.set(xlabel="cosine above which a pair counts as paraphrase", ylabel="Quora dev accuracy", xlim=(-0.15, 1.03))
    axis.set_title(f"Markers: thresholds of the rows, hollow: as reported; {count_seeds(frame)}", fontsize=12)
    legend_below(figure, axis)
    return figure


def _legend(figure: Figure, axis: Axes) -> None:
    """Colours, and dashes or markers, below the panels; seaborn's own headings are left out."""
    handles, labels = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    kept = [(h, label) for h, label in zip(handles, labels, strict=True) if label not in ("label", "score", "split")]
    handles, labels = zip(*kept, strict=True)
    columns = 2 if max(map(len, labels)) > LABEL_CHARACTERS else 3
    wrapped = [textwrap.fill(label, 2 * LABEL_CHARACTERS) for label in labels]
    figure.legend(handles, wrapped, loc="outside lower center", ncols=min(columns, len(labels)))
