"""Figures: matplotlib and seaborn on frames that `study` made. Nothing is computed here.

One method has one colour in all notebooks. A figure is saved as PNG, SVG and the CSV it was drawn from, byte for byte
the same on every run, and its file carries the caption and the ids of the runs it shows.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from common.errors import StudyError
from common.report.tables import NAME, provenance
from common.study.frames import HERE, REPORT
from common.study.session import Study
from common.study.stats import TASK_NAMES
from common.study.store import atomic_write

DPI = 150
SCREEN_DPI = 96
MAP_INCHES = 11.0
LABEL_CHARACTERS = 36
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "bert-multitask-study",
    "svg.fonttype": "path",
}
_PALETTE = sns.color_palette("colorblind", 10).as_hex()
REPORT_COLOUR = "0.35"
HERE_COLOUR = _PALETTE[0]
METHOD_COLOURS = {
    "frozen encoder": _PALETTE[7],
    "separate encoding": _PALETTE[0],
    "shared layer": _PALETTE[9],
    "cosine": _PALETTE[1],
    "pair encoding": _PALETTE[2],
    "zero-shot cosine": _PALETTE[5],
    "untrained": "0.25",
    "single sentences": _PALETTE[4],
    "random answers": _PALETTE[6],
}
# Rows of one method that share a figure: round robin, the joint step, and that with surgery.
ROW_COLOURS = {"siar_mtl_capped": "0.45", "siar_joint": HERE_COLOUR, "siar_mtl_pcgrad": _PALETTE[3]}
TASK_COLOURS = {"SST": _PALETTE[0], "Quora": _PALETTE[1], "STS": _PALETTE[2], "CFIMDB": _PALETTE[4]}
SHARE_TITLES = {
    "cross": "to the other sentence",
    "match": "to equal tokens of the other sentence",
    "near": "to own tokens 1 or 2 places away",
    "special": "to [CLS] and [SEP]",
}
METRIC_TITLES = {"sst_acc": "SST accuracy", "para_acc": "Quora accuracy", "sts_corr": "STS Pearson r"}


def styled(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[pd.DataFrame], Figure]:
    """Draw in the house style, whatever the caller's settings are; a frame without lines becomes a marked hole."""

    @functools.wraps(draw)
    def wrapper(frame: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            return _hole() if frame.empty else draw(frame)

    return wrapper


def save(lab: Study, name: str, figure: Figure, data: pd.DataFrame, caption: str, run_ids: Iterable[str] = ()) -> Image:
    """Write a figure as PNG, SVG and CSV, and return the PNG as the notebook shows it.

    Args:
        lab: the open study; its places say where.
        name: `NN_slug`, NN the notebook's number.
        figure: what to save.
        data: the frame it was drawn from.
        caption: what it shows; also its alternative text.
        run_ids: the runs it shows; with none, the figure is about the data and its caption names no encoder.
    """
    if not NAME.fullmatch(name):
        raise StudyError("E-NAME", "figure", f"{name!r} is no figure name.", "It looks like 02_attention.")
    runs = sorted(set(run_ids))
    caption = f"{caption} {provenance(lab)}" if runs else caption
    png, svg = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        facts = {"Description": caption, "Source": ", ".join(runs)}
        figure.savefig(png, format="png", dpi=DPI, metadata={**facts, "Software": None})
        figure.set_layout_engine("none")  # the places found for one file hold for the other
        figure.savefig(svg, format="svg", metadata={**facts, "Date": None, "Creator": None})
    folder = lab.places.figures
    atomic_write(folder / f"{name}.png", png.getvalue())
    atomic_write(folder / f"{name}.svg", svg.getvalue())
    atomic_write(folder / f"{name}.csv", data.to_csv(index=False, lineterminator="\n").encode())
    return Image(png.getvalue(), format="png", width=int(figure.get_figwidth() * SCREEN_DPI * 0.9), alt=caption)


@styled
def label_distributions(frame: pd.DataFrame) -> Figure:
    """Label shares of the training sets, the report's counts beside ours where it prints them (swissBERT, Figure 4)."""
    tasks = list(dict.fromkeys(frame["task"]))
    figure, axes = panels(1, len(tasks), 4.4, 4.4)
    colours = {HERE: HERE_COLOUR, REPORT: REPORT_COLOUR}
    for axis, task in zip(axes, tasks, strict=True):
        part = frame[frame["task"] == task]
        order = [source for source in colours if source in set(part["source"])]
        bars = {"hue": "source", "hue_order": order, "palette": colours, "saturation": 1}
        sns.barplot(part, x="label", y="share", ax=axis, **bars)
        axis.get_legend().remove()
        sizes = part.groupby("source", sort=False)["count"].sum()
        counts = ", ".join(f"{source} n = {size:,}" for source, size in sizes.items())
        axis.set(title=f"{TASK_NAMES[task]}\n{counts}", xlabel="label", ylabel="share of training examples")
    legend_below(figure, axes[0])
    return figure


@styled
def token_lengths(frame: pd.DataFrame) -> Figure:
    """Input lengths in tokens per task, with the encoder's limit and the share cut at it."""
    tasks = list(dict.fromkeys(frame["task"]))
    figure, axes = panels(2, (len(tasks) + 1) // 2, 6.0, 3.4)
    for axis, task in zip(axes, tasks, strict=False):
        part = frame[frame["task"] == task]
        first = part.iloc[0]
        widths = part["below_tokens"] - part["from_tokens"]
        axis.bar(part["from_tokens"], part["count"], widths, align="edge", color=HERE_COLOUR, edgecolor="white")
        axis.axvline(first["mean"], color="black", linestyle="--", linewidth=1.5)
        cut = f"{100 * first['share_truncated']:.3g} % cut at {first['limit']}"
        facts = f"mean {first['mean']:.1f} (dashed), longest {first['max']}, {cut}"
        axis.set_title(f"{TASK_NAMES[task]}, n = {first['inputs']:,}\n{facts}", fontsize=11)
        axis.set(xlabel="tokens of an input", ylabel="training inputs")
    return figure


@styled
def comparison(frame: pd.DataFrame) -> Figure:
    """Reported values as diamonds, ours as bars with one dot a seed, one panel a metric."""
    metrics, labels = list(dict.fromkeys(frame["metric"])), list(dict.fromkeys(frame["label"]))
    figure, axes = panels(1, len(metrics), 3.7, 1.4 + 0.62 * len(labels), sharey=True)
    colours = {row["label"]: METHOD_COLOURS[row["method"]] for _, row in frame.iterrows()}
    for axis, metric in zip(axes, metrics, strict=True):
        part = frame[frame["metric"] == metric]
        ours, theirs = part[part["source"] == HERE], part[part["source"] == REPORT]
        common = {"x": "value", "y": "label", "order": labels, "ax": axis}
        sns.barplot(ours, hue="label", palette=colours, saturation=1, errorbar=None, width=0.6, legend=False, **common)
        sns.stripplot(ours, color="black", size=4, jitter=False, legend=False, **common)
        diamonds = {"marker": "D", "size": 9, "color": "white", "edgecolor": "black", "linewidth": 1.6}
        sns.stripplot(theirs, jitter=False, **diamonds, **common)
        holes = [label for label in labels if ours.loc[ours["label"] == label, "value"].isna().all()]
        for label in holes:
            axis.text(0, labels.index(label), " no value here", va="center", style="italic")
        axis.set(xlabel=metric, ylabel="")
        axis.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_CHARACTERS) for label in labels])
        axis.margins(x=0.08)
        axis.axvline(0, color="black", linewidth=0.8)
    figure.suptitle(f"Bars: here, dots: {count_seeds(frame)}; diamonds: the report's value", fontsize=12)
    return figure


@styled
def attention(frame: pd.DataFrame) -> Figure:
    """A heat map of one head for each panel of the frame, rows attend to columns (swissBERT, Figures 1 to 3)."""
    names = list(dict.fromkeys(frame["panel"]))
    size = frame["key_position"].max() + 1
    # Room for a label in every row; a tokenizer that cuts words to pieces gets smaller labels, not a wall.
    side = min(0.36 * size, MAP_INCHES)
    font = min(13.0, 0.75 * 72 * side / size)
    figure, axes = panels(1, len(names), side + 1.5, side + 1.5, sharey=True)
    top = frame["attention"].max()
    for axis, name in zip(axes, names, strict=True):
        part = frame[frame["panel"] == name]
        weights = part.pivot(index="query_position", columns="key_position", values="attention")
        tokens = part[part["query_position"] == 0].sort_values("key_position")["key"].tolist()
        # The root of the weight, so that small weights next to a dominant [SEP] can be seen.
        image = axis.imshow(weights, cmap="viridis", norm=PowerNorm(0.5, 0, top), aspect="auto")
        axis.set_xticks(range(size), tokens, rotation=90, fontsize=font)
        axis.set_yticks(range(size), tokens, fontsize=font)
        for place in [index + 0.5 for index, token in enumerate(tokens[:-1]) if token == "[SEP]"]:
            axis.axhline(place, color="white", linewidth=1)
            axis.axvline(place, color="white", linewidth=1)
        axis.grid(False)
        first = part.iloc[0]
        here = f"layer {first['layer']} of {first['layers']} (index {first['layer'] - 1} from 0), head {first['head']}"
        axis.set(title=f"{here}\nreport: {first['shown_as']}", xlabel="attended token")
    axes[0].set_ylabel("attending token")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=30, label="attention weight (root scale)")
    return figure


@styled
def attention_by_layer(frame: pd.DataFrame) -> Figure:
    """Where attention goes, layer by layer: means over heads as lines, single heads as dots, against the control."""
    names = [name for name in SHARE_TITLES if name in set(frame["share_of"])]
    figure, axes = panels(2, 2, 5.6, 3.9, sharex=True)
    colours = {row["label"]: METHOD_COLOURS[row["method"]] for _, row in frame.iterrows()}
    for axis, name in zip(axes, names, strict=True):
        part = frame[frame["share_of"] == name]
        common = {"x": "layer", "y": "share", "hue": "label", "palette": colours, "ax": axis}
        sns.scatterplot(part, alpha=0.35, s=22, linewidth=0, legend=False, **common)
        sns.lineplot(
            part,
            errorbar=None,
            linewidth=2.5,
            marker="o",
            style="label",
            dashes=_dashes(part),
            legend=axis is axes[0],
            **common,
        )
        first = part[part["head"] == 1]
        sns.scatterplot(first, marker="D", s=42, edgecolor="black", linewidth=1, legend=False, **common)
        axis.set(title=SHARE_TITLES[name], xlabel="layer (from 1)", ylabel="share of attention", ylim=(0, None))
        axis.set_xticks(sorted(set(part["layer"])))
    legend_below(figure, axes[0])
    figure.suptitle("Lines: mean over heads; dots: heads; diamonds: first head (the report's)", fontsize=12)
    return figure


@styled
def learning_curves(frame: pd.DataFrame) -> Figure:
    """Dev metrics after every epoch, one line a model, a band where there are several seeds."""
    figure, axes = panels(1, len(METRIC_TITLES), 4.4, 4.6)
    colours = {row["label"]: ROW_COLOURS.get(row["row"], METHOD_COLOURS[row["method"]]) for _, row in frame.iterrows()}
    for axis, (metric, title) in zip(axes, METRIC_TITLES.items(), strict=True):
        part = frame[frame["metric"] == metric]
        sns.lineplot(
            part, x="epoch", y="value", hue="label", style="label", markers=True, dashes=False, palette=colours,
            errorbar="sd", linewidth=2.2, markersize=8, legend=axis is axes[0], ax=axis,
        )  # fmt: skip
        axis.set(title=title, xlabel="epoch", ylabel=f"{title} (dev)")
        axis.set_xticks(sorted(set(part["epoch"])))
    legend_below(figure, axes[0])
    figure.suptitle(count_seeds(frame, "; bands: one standard deviation"), fontsize=12)
    return figure


@styled
def loss_factors(frame: pd.DataFrame) -> Figure:
    """What multiplies each task's loss, update by update, one panel a row; a band where there are several seeds."""
    labels, tasks = list(dict.fromkeys(frame["label"])), [n for n in TASK_COLOURS if n in set(frame["task"])]
    columns = min(3, len(labels))
    figure, axes = panels(-(-len(labels) // columns), columns, 4.4, 3.5, sharey=True)
    for axis, label in zip(axes, labels, strict=False):
        part = frame[frame["label"] == label]
        sns.lineplot(
            part, x="update", y="factor", hue="task", hue_order=tasks, style="task", style_order=tasks,
            palette=TASK_COLOURS, errorbar="sd", linewidth=2.5, legend=axis is axes[0], ax=axis,
        )  # fmt: skip
        axis.set_title(textwrap.fill(label, LABEL_CHARACTERS), fontsize=11)
        axis.set(xlabel="update", ylabel="factor on the loss", ylim=(0, 1.08 * frame["factor"].max()))
    for axis in axes[len(labels) :]:
        axis.remove()
    legend_below(figure, axes[0])
    figure.suptitle(f"What multiplies each task's loss, {count_seeds(frame)}", fontsize=12)
    return figure


@styled
def threshold_curves(frame: pd.DataFrame) -> Figure:
    """Quora accuracy against the cosine threshold; a dot at the threshold the row uses."""
    figure, axes = panels(1, 1, 8.2, 4.6)
    colours = {row["label"]: METHOD_COLOURS[row["method"]] for _, row in frame.iterrows()}
    common = {"x": "threshold", "y": "accuracy", "hue": "label", "palette": colours, "ax": axes[0]}
    sns.lineplot(frame, errorbar="sd", linewidth=2.5, style="label", **common)
    used = frame[np.isclose(frame["threshold"], frame["used"])]
    sns.scatterplot(used, s=90, edgecolor="black", linewidth=1.2, zorder=5, legend=False, **common)
    axes[0].set(xlabel="cosine above which a pair counts as paraphrase", ylabel="Quora dev accuracy")
    legend_below(figure, axes[0])
    return figure


def _hole() -> Figure:
    figure, axes = panels(1, 1, 6, 2)
    axes[0].text(0.5, 0.5, "Nothing to draw: no finished run.", ha="center", va="center")
    axes[0].set_axis_off()
    return figure


def panels(rows: int, columns: int, width: float, height: float, **shared: bool) -> tuple[Figure, list[Axes]]:
    """Panels of that size in inches, on a figure with its own canvas, so that no notebook backend shows it twice."""
    figure = Figure(figsize=(columns * width, rows * height))
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def legend_below(figure: Figure, axis: Axes) -> None:
    """One legend for all panels, below them, where it covers nothing."""
    handles, labels = axis.get_legend_handles_labels()
    if axis.get_legend() is not None:
        axis.get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))


def _dashes(frame: pd.DataFrame) -> dict[str, object]:
    """Untrained controls are dashed."""
    return {row["label"]: (3, 2) if row["method"] == "untrained" else "" for _, row in frame.iterrows()}


def count_seeds(frame: pd.DataFrame, if_several: str = "") -> str:
    """How many seeds a frame shows, and what is to be said of several."""
    number = frame["seed"].nunique()
    return count_noun(number, "seed") + if_several * (number > 1)


def count_noun(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"
