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
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common.errors import StudyError
from common.files import atomic_write
from common.report.tables import MARK, MARKED, NAME, provenance
from common.results.frames import CONSTANT, HERE, REPORT, ZERO_SHOT
from common.results.stats import TASK_NAMES
from common.results.untrained import CONSTANT_LABEL
from common.runs.session import Study

DPI = 150
SCREEN_DPI = 96
MAP_INCHES = 11.0
LABEL_CHARACTERS = 36
TITLE_CHARACTERS_AN_INCH = 9
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
# The two lines of every comparison: what needs no training. They differ in their dashes, not in colour alone.
CONSTANT_LINE = {"color": "black", "linestyle": ":", "linewidth": 1.8}
ZERO_SHOT_DASHES = ((0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 3)))
UNTRAINED_BAR = {"alpha": 0.45, "hatch": "///", "edgecolor": "white"}
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
# A line of one kind in all panels about learning.
SPLIT_LOOKS = {
    "style": "split",
    "style_order": ["dev", "train"],
    "dashes": ["", (3, 2)],
    "markers": ["o", "s"],
    "errorbar": "sd",
    "linewidth": 2.2,
    "markersize": 7,
}


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
    """Reported values as diamonds, ours as bars with one dot a seed, one panel a metric, and lines for what needs no
    training: the best constant answer and the encoder as it is."""
    models = frame[frame["source"].isin([HERE, REPORT])]
    metrics, labels = list(dict.fromkeys(models["metric"])), list(dict.fromkeys(models["label"]))
    figure, axes = panels(1, len(metrics), 3.7, 2.0 + 0.62 * len(labels), sharey=True)
    legend: dict[str, Line2D | Patch] = {}
    for axis, metric in zip(axes, metrics, strict=True):
        part = models[models["metric"] == metric]
        for place, label in enumerate(labels):
            _bar(axis, place, part[(part["label"] == label) & (part["source"] == HERE)])
        theirs = part[part["source"] == REPORT]
        places = theirs["label"].map(labels.index)
        looks = {"marker": "D", "s": 70, "color": "white", "edgecolor": "black", "linewidth": 1.6, "zorder": 5}
        axis.scatter(theirs["value"], places, **looks)
        legend |= _baseline_lines(axis, frame[frame["metric"] == metric])
        axis.set(xlabel=metric, ylabel="", ylim=(len(labels) - 0.5, -0.5))
        axis.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_CHARACTERS) for label in labels])
        axis.margins(x=0.08)
        axis.axvline(0, color="black", linewidth=0.8)
    notes = {
        f"Bars: here, dots: {count_seeds(models)}; diamonds: the report's value": True,
        "hatched: training did not touch it": not models["trained"].all(),
        MARKED.rstrip("."): models["at_constant"].any(),
    }
    title = "; ".join(note for note, is_needed in notes.items() if is_needed)
    figure.suptitle(textwrap.fill(title, int(TITLE_CHARACTERS_AN_INCH * figure.get_figwidth())), fontsize=12)
    if legend:
        figure.legend(handles=list(legend.values()), loc="outside lower center", ncols=min(3, len(legend)))
    return figure


def _bar(axis: Axes, place: int, ours: pd.DataFrame) -> None:
    """One row's mean with a dot a seed; a score no better than a constant is marked, a hole says so."""
    known = ours.dropna(subset="value")
    if known.empty:
        axis.text(0, place, " no value here", va="center", style="italic")
        return
    first, mean = known.iloc[0], known["value"].mean()
    looks = {} if first["trained"] else UNTRAINED_BAR
    axis.barh(place, mean, 0.6, color=METHOD_COLOURS[first["method"]], **looks)
    axis.plot(known["value"], [place] * len(known), "k.", markersize=7)
    if first["at_constant"]:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a baseline may run through it
        at = {"textcoords": "offset points", "va": "center", "fontsize": 13, "bbox": box}
        axis.annotate(MARK, (max(mean, 0), place), (6, 0), **at)


def _baseline_lines(axis: Axes, part: pd.DataFrame) -> dict[str, Line2D]:
    """Label -> the line drawn for it."""
    legend = {}
    for value in part.loc[part["source"] == CONSTANT, "value"].dropna():
        legend[CONSTANT_LABEL] = axis.axvline(value, label=f"{CONSTANT_LABEL} (STS: r = 0)", **CONSTANT_LINE)
    untrained = part[part["source"] == ZERO_SHOT].groupby("label", sort=False)["value"].mean().dropna()
    for dashes, (label, value) in zip(ZERO_SHOT_DASHES, untrained.items(), strict=False):
        looks = {"color": METHOD_COLOURS["zero-shot cosine"], "linestyle": dashes, "linewidth": 2}
        legend[label] = axis.axvline(value, label=label, **looks)
    return legend


@styled
def attention(frame: pd.DataFrame) -> Figure:
    """A heat map of one head for each panel of the frame, rows attend to columns (swissBERT, Figures 1 to 3)."""
    if "missing" in frame:
        return _hole(frame["missing"].iloc[0])
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
    """Scores after every epoch, one line a model, dev solid and train dashed, a band where there are several seeds."""
    metrics = [metric for metric in METRIC_TITLES if metric in set(frame["metric"])]
    figure, axes = panels(1, len(metrics), 4.6, 4.9)
    colours = row_colours(frame)
    for axis, metric in zip(axes, metrics, strict=True):
        part = frame[frame["metric"] == metric]
        looks = SPLIT_LOOKS | {"hue": "label", "palette": colours}
        sns.lineplot(part, x="epoch", y="value", legend=axis is axes[0], ax=axis, **looks)
        shown = " and ".join(dict.fromkeys(part["split"]))
        axis.set(title=METRIC_TITLES[metric], xlabel="epoch", ylabel=f"{METRIC_TITLES[metric]} ({shown})")
        axis.set_xticks(sorted(set(part["epoch"])))
    _split_legend(figure, axes[0], frame)
    figure.suptitle(count_seeds(frame, "; bands: one standard deviation"), fontsize=12)
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
        looks = SPLIT_LOOKS | {"hue": "score", "hue_order": scores, "palette": colours}
        sns.lineplot(own, x="epoch", y="value", legend=axis is axes[0], ax=axis, **looks)
        spans = own.groupby("trained", sort=False)["epoch"].agg(["min", "max"])
        for name, (start, stop) in spans.iterrows():
            axis.axvline(stop + 0.5, color="0.5", linewidth=1)
            axis.text((start + stop) / 2, 1.02, f"trained: {name}", transform=axis.get_xaxis_transform(), ha="center")
        axis.set(xlabel="epoch", ylabel="accuracy, or Pearson r", xlim=(0.5, own["epoch"].max() + 0.5))
        axis.set_title(textwrap.fill(label, 2 * LABEL_CHARACTERS), pad=26)
        axis.set_xticks(sorted(set(own["epoch"])))
    _split_legend(figure, axes[0], part)
    figure.suptitle(count_seeds(frame, "; bands: one standard deviation"), fontsize=12)
    return figure


@styled
def gaps(frame: pd.DataFrame) -> Figure:
    """Train and dev after the last epoch, joined by a line as long as the gap, one panel a metric.

    So a small gap between two low scores, of a model that has learnt nothing, does not look like a good one.
    """
    metrics = [metric for metric in METRIC_TITLES if metric in set(frame["metric"])]
    labels = list(dict.fromkeys(frame["label"]))
    last, theirs = (
        frame[(frame["epoch"] == frame["last"]) & (frame["source"] == HERE)],
        frame[frame["source"] == REPORT],
    )
    figure, axes = panels(1, len(metrics), 4.2, 2.0 + 0.55 * len(labels), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        groups = last[last["metric"] == metric].groupby("label", sort=False)
        printed = theirs[theirs["metric"] == metric]
        places = [labels.index(label) + 0.28 for label in printed["label"]]
        axis.hlines(places, printed["dev"], printed["train"], color=REPORT_COLOUR, linewidth=1.5)
        looks = {"marker": "D", "edgecolor": REPORT_COLOUR, "s": 40, "zorder": 3}
        axis.scatter(printed["dev"], places, color=REPORT_COLOUR, **looks)
        axis.scatter(printed["train"], places, color="white", **looks)
        for label, part in groups:
            colour, place = METHOD_COLOURS[part["method"].iloc[0]], labels.index(label)
            train, dev = part["train"], part["dev"]
            axis.hlines(place, dev.mean(), train.mean(), color=colour, linewidth=4, alpha=0.6)
            for values, marker, name in ((dev, "o", "dev"), (train, "s", "train")):
                face = colour if name == "dev" else "white"
                looks = {"marker": marker, "markersize": 9, "markerfacecolor": face, "markeredgecolor": colour}
                spread = values.std() if len(values) > 1 else None
                axis.errorbar(values.mean(), place, xerr=spread, color=colour, capsize=3, **looks)
        axis.set(xlabel=METRIC_TITLES[metric], ylabel="", ylim=(len(labels) - 0.5, -0.5))
        axis.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_CHARACTERS) for label in labels])
    bars = count_seeds(frame, "; error bars: one standard deviation")
    what = "After the last epoch; filled: dev, hollow: train, line: the gap; grey diamonds: the report"
    figure.suptitle(f"{what}; {bars}", fontsize=12)
    return figure


def row_colours(frame: pd.DataFrame) -> dict[str, str]:
    """Label -> the colour of its method; models of one method in one figure take colours of their own."""
    rows = frame.drop_duplicates("label")
    colours = {row["label"]: ROW_COLOURS.get(row["row"], METHOD_COLOURS[row["method"]]) for _, row in rows.iterrows()}
    if len(set(colours.values())) == len(colours):
        return colours
    return dict(zip(colours, sns.color_palette("colorblind", len(colours)).as_hex(), strict=True))


def _split_legend(figure: Figure, axis: Axes, frame: pd.DataFrame) -> None:
    """The legend of colours, and that of dashes where the frame has both splits."""
    handles, labels = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    is_both = frame["split"].nunique() > 1
    unnamed = ("label", "score", "split", *(() if is_both else SPLIT_LOOKS["style_order"]))
    kept = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label not in unnamed]
    handles, labels = zip(*kept, strict=True)
    columns = 2 if max(map(len, labels)) > LABEL_CHARACTERS else 3
    wrapped = [textwrap.fill(label, 2 * LABEL_CHARACTERS) for label in labels]
    figure.legend(handles, wrapped, loc="outside lower center", ncols=min(columns, len(labels)))


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


def _hole(reason: str = "no finished run.") -> Figure:
    figure, axes = panels(1, 1, 8, 2)
    axes[0].text(0.5, 0.5, f"Nothing to draw: {reason}", ha="center", va="center")
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
    # At this size of type an inch holds eleven letters; a line's sample and its margins take the room of seven.
    fitting = int(figure.get_figwidth() * 11 / (max(map(len, labels), default=0) + 7))
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(3, len(labels), fitting)))


def _dashes(frame: pd.DataFrame) -> dict[str, object]:
    """Untrained controls are dashed."""
    return {row["label"]: (3, 2) if row["method"] == "untrained" else "" for _, row in frame.iterrows()}


def count_seeds(frame: pd.DataFrame, if_several: str = "") -> str:
    """How many seeds a frame shows, and what is to be said of several."""
    number = frame["seed"].nunique()
    return count_noun(number, "seed") + if_several * (number > 1)


def count_noun(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"
