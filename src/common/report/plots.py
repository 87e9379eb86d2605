"""Figures: matplotlib and seaborn on frames of `results`. Nothing is computed here.

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
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from common.declare.tasks import TASK_NAMES
from common.errors import StudyError
from common.files import atomic_write
from common.report.tables import MARK, MARKED, NAME, provenance, to_csv
from common.results.compare import LEFT, OTHER_HEADS, START
from common.results.long import CONSTANT, CONSTANT_LABEL, HERE, METRICS, REPORTED, ZERO_SHOT
from common.runs.session import Study
from common.runs.store import RunStore

DPI = 150
SCREEN_DPI = 96
LABEL_CHARACTERS = 36
TITLE_CHARACTERS_AN_INCH = 9
STYLE = {
    # The reader's own settings (matplotlibrc) change nothing; which backend draws is for the notebook to say.
    **{name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(("backend", "toolbar"))},
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
PALETTE = sns.color_palette("colorblind", 10).as_hex()
REPORT_COLOUR = "0.35"
HERE_COLOUR = PALETTE[0]
METHOD_COLOURS = {
    "frozen encoder": PALETTE[7],
    "separate encoding": PALETTE[0],
    "shared layer": PALETTE[9],
    "cosine": PALETTE[1],
    "pair encoding": PALETTE[2],
    "zero-shot cosine": PALETTE[5],
    "untrained": "0.25",
    "single sentences": PALETTE[4],
    "random answers": PALETTE[6],
}
# The two lines of every comparison: what needs no training. They differ in their dashes, not in colour alone.
CONSTANT_LINE = {"color": "black", "linestyle": ":", "linewidth": 1.8}
ZERO_SHOT_DASHES = ((0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 3)))
UNTRAINED_BAR = {"alpha": 0.45, "hatch": "///", "edgecolor": "white"}
METRIC_TITLES = {"sst_acc": "SST accuracy", "para_acc": "Quora accuracy", "sts_corr": "STS Pearson r"}
LOSER_COLOUR = PALETTE[1]
DIAMOND = {"marker": "D", "s": 70, "color": "white", "edgecolor": "black", "linewidth": 1.6, "zorder": 5}
HOLLOW = {"marker": "D", "s": 80, "facecolor": "none", "edgecolor": "black", "linewidth": 1.6, "zorder": 4}
SUBSET_MARKERS, SPREAD = ("o", "s", "^", "v", "P", "X", "p", "*"), 0.5


def styled(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[pd.DataFrame], Figure]:
    """Draw in the house style, whatever the caller's settings are; a frame without lines becomes a marked hole."""

    @functools.wraps(draw)
    def wrapper(frame: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            return hole() if frame.empty else draw(frame)

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
        if runs:
            figure.supxlabel(_corner(lab, runs), x=0.995, ha="right", fontsize=8, color="0.35")
        facts = {"Description": caption, "Source": ", ".join(runs)}
        figure.savefig(png, format="png", dpi=DPI, metadata={**facts, "Software": None})
        figure.set_layout_engine("none")  # the places found for one file hold for the other
        figure.savefig(svg, format="svg", metadata={**facts, "Date": None, "Creator": None})
    folder = lab.places.figures
    atomic_write(folder / f"{name}.png", png.getvalue())
    atomic_write(folder / f"{name}.svg", svg.getvalue())
    atomic_write(folder / f"{name}.csv", to_csv(data))
    return Image(png.getvalue(), format="png", width=int(figure.get_figwidth() * SCREEN_DPI * 0.9), alt=caption)


def _corner(lab: Study, runs: list[str]) -> str:
    """What a picture that is passed on alone must say of itself: profile, encoder, and how much training it shows."""
    stored = set(lab.store.names())
    shares = [_share(lab.store, run_id) for run_id in runs if run_id in stored]
    known = [share for share in shares if share is not None]
    ends = list(dict.fromkeys(f"{share:.3g}" for share in (min(known), max(known)))) if known else []
    trained = f", {' to '.join(ends)} % of the reports' training" if ends else ""
    return f"profile {lab.profile.name}, {lab.encoder}{trained}"


@functools.cache  # a record is checked against its hash each time it is read, and many figures show the same runs
def _share(store: RunStore, run_id: str) -> float | None:
    """How much of a report's training a run has had, in percent; None for an encoder as it is."""
    record = store.get(run_id)
    return 100 * record["share"] if record["spec"]["epochs"] else None


@styled
def label_distributions(frame: pd.DataFrame) -> Figure:
    """Label shares of the training sets, the report's counts beside ours where it prints them (swissBERT, Figure 4)."""
    tasks = list(dict.fromkeys(frame["task"]))
    figure, axes = panels(1, len(tasks), 4.4, 4.4)
    colours = {HERE: HERE_COLOUR, REPORTED: REPORT_COLOUR}
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
        edges = part["from_tokens"] - 0.5  # the bar of one length has it in its middle
        axis.bar(edges, part["count"], widths, align="edge", color=HERE_COLOUR, edgecolor="white")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
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
    models = frame[frame["source"].isin([HERE, REPORTED])]
    metrics, labels = list(dict.fromkeys(models["metric"])), list(dict.fromkeys(models["label"]))
    figure, axes = panels(1, len(metrics), 3.7, 2.0 + 0.62 * len(labels), sharey=True)
    legend: dict[str, Line2D | Patch] = {}
    for axis, metric in zip(axes, metrics, strict=True):
        part = models[models["metric"] == metric]
        for place, label in enumerate(labels):
            _bar(axis, place, part[(part["label"] == label) & (part["source"] == HERE)])
        theirs = part[part["source"] == REPORTED]
        places = theirs["label"].map(labels.index)
        axis.scatter(theirs["value"], places, **DIAMOND)
        legend |= _baseline_lines(axis, frame[frame["metric"] == metric])
        axis.set(xlabel=METRICS[metric], ylabel="", ylim=(len(labels) - 0.5, -0.5))
        axis.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_CHARACTERS) for label in labels])
        axis.set_xlim(min(0.0, models["value"].min() - 0.05), 1.0)  # one scale for all panels and figures
        axis.axvline(0, color="black", linewidth=0.8)
    notes = {
        f"Bars: here, dots: {count_seeds(models)}; diamonds: the report's value": True,
        "hatched: training did not touch it": not models["trained"].all(),
        MARKED.rstrip("."): models["at_constant"].any(),
    }
    title = "; ".join(note for note, is_needed in notes.items() if is_needed)
    figure.suptitle(textwrap.fill(title, int(TITLE_CHARACTERS_AN_INCH * figure.get_figwidth())), fontsize=12)
    if legend:
        _legend_below(figure, list(legend.values()))
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
        # At the edge, where neither a baseline nor a diamond covers it.
        axis.text(0.99, place, MARK, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=13)


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
def steps(frame: pd.DataFrame) -> Figure:
    """The overall score of every model as a step from the one it builds on, the report's beside ours."""
    figure, axes = panels(1, 2, 6.6, 5.2, sharey=True)
    models = frame.drop_duplicates("label").set_index("label")
    for axis, source in zip(axes, (REPORTED, HERE), strict=True):
        ours = frame[frame["source"] == source]
        means = ours.groupby("label")[["start", "stop", "gain"]].mean().reindex(models.index)
        for place, (label, bar) in enumerate(means.iterrows()):
            _step(axis, place, bar, models.index.get_indexer([models.loc[label, "over"]])[0], models.loc[label, "role"])
            seeds = ours.loc[ours["label"] == label, "gain"]
            if len(seeds) > 1:
                axis.plot([place] * len(seeds), bar["start"] + seeds, "k.", markersize=6)
                axis.errorbar(place, bar["stop"], yerr=seeds.std(), color="black", capsize=4, linewidth=1.5)
        noise = "no noise known" if ours["seed"].nunique() < 2 else "error bars: one sd of the gain over seeds"
        count = f"here, {count_seeds(ours)}: {noise}" if source == HERE else "as the report prints it, one run each"
        axis.set(title=count, xlabel="model", ylabel="overall dev score, raw")
        axis.set_xticks(range(len(models)), [label.removeprefix("Model ") for label in models.index])
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
        axis.axvline(part["best_model"].mean(), color="black", linewidth=2, label="best model here")
        axis.set(xlabel=METRICS[name], ylabel="share of the draws up to this score", ylim=(-0.08, 1.03))
    count = f"{frame['draw'].nunique()} random heads, {count_seeds(frame)}"
    figure.suptitle(f"The baseline with {count}; ticks: the draws", fontsize=12)
    legend_below(figure, axes[0])
    return figure


@styled
def forest(frame: pd.DataFrame) -> Figure:
    """What each method adds in every report, one panel a metric: a difference of two rows with its interval of 95 %.

    A hollow mark has one seed, and an interval of the dev examples alone.
    """
    metrics = [metric for metric in METRICS if metric in set(frame["metric"])]
    pairs = frame.drop_duplicates(["method", "a", "b"])
    places, heads, place = {}, {}, 0
    for method, part in pairs.groupby("method", sort=False):
        heads[place] = method
        places |= {pair: place + number + 1 for number, pair in enumerate(zip(part["a"], part["b"], strict=True))}
        place += len(part) + 1.5
    figure, axes = panels(1, len(metrics), 3.6, 1.5 + 0.26 * place, sharey=True)
    colours = dict(zip(sorted(set(frame["report"])), PALETTE, strict=False))
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvline(0, color="black", linewidth=1)
        for line in frame[frame["metric"] == metric].itertuples():
            height, colour = places[line.a, line.b], colours[line.report]
            axis.plot([line.low, line.high], [height, height], color=colour, linewidth=2)
            axis.plot(line.estimate, height, "o", color=colour, fillstyle="full" if line.seeds > 1 else "none")
        axis.set(xlabel=f"{METRICS[metric]},\nwith minus without", ylim=(place - 1.2, -0.8))
    names = [f"{line.label} ({line.also})" if line.also else line.label for line in pairs.itertuples()]
    names = [textwrap.shorten(name, 2 * LABEL_CHARACTERS, placeholder="...") for name in names]
    axes[0].set_yticks([*heads, *places.values()], [*heads.values(), *names], fontsize=10)
    for text in axes[0].get_yticklabels()[: len(heads)]:
        text.set_fontweight("bold")
    marks = [Line2D([], [], color=colour, marker="o", linewidth=2, label=name) for name, colour in colours.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    return figure


@styled
def costs(frame: pd.DataFrame) -> Figure:
    """Overall score against seconds of training, a mark a run; a line joins the rows that nothing cheaper beats."""
    best = frame[frame["on the front"]].groupby("label", sort=False)[["seconds", "overall"]].mean()
    best = best.sort_values("seconds")
    figure, axes = panels(1, 1, 10.5, 6.5 + 0.25 * len(best))  # a line of the legend each
    for number, (report, part) in enumerate(frame.groupby("report")):
        axes[0].plot(part["seconds"], part["overall"], "o", color=PALETTE[number], alpha=0.7, label=report)
    axes[0].step(best["seconds"], best["overall"], where="post", color="black", linewidth=1.2, label="the best so far")
    box = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.6, "pad": 1.5}
    for number, (label, line) in enumerate(best.iterrows(), start=1):
        above = 8 + 16 * (number % 3)  # neighbours on the front stand close together
        at = {"xytext": (-12, above), "textcoords": "offset points", "fontsize": 9, "bbox": box}
        axes[0].annotate(str(number), tuple(line), **at)
        axes[0].plot([], [], linestyle="", label=f"{number}: {label}")
    axes[0].set(xscale="log", xlabel="seconds of training, with dev after each epoch", ylabel=METRICS["overall"])
    axes[0].margins(y=0.15)
    legend_below(figure, axes[0])
    return figure


@styled
def gaps(frame: pd.DataFrame) -> Figure:
    """Train and dev after the last epoch, joined by a line as long as the gap, one panel a metric.

    So a small gap between two low scores, of a model that has learnt nothing, does not look like a good one.
    """
    metrics = [metric for metric in METRIC_TITLES if metric in set(frame["metric"])]
    labels = list(dict.fromkeys(frame["label"]))
    ours, theirs = (frame[frame["source"] == source] for source in (HERE, REPORTED))
    figure, axes = panels(1, len(metrics), 4.2, 2.0 + 0.55 * len(labels), sharey=True, sharex=True)
    for axis, metric in zip(axes, metrics, strict=True):
        groups = ours[ours["metric"] == metric].groupby("label", sort=False)
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


@styled
def sweep(frame: pd.DataFrame) -> Figure:
    """The three metrics against lambda, the row without the term apart."""
    metrics = list(dict.fromkeys(frame["metric"]))
    figure, axes = panels(1, len(metrics), 4.6, 4.8)
    legend = {}
    for axis, metric in zip(axes, metrics, strict=True):
        part = frame[frame["metric"] == metric]
        sources = {name: part[part["source"] == name] for name in (HERE, REPORTED, OTHER_HEADS)}
        seeds = sources[HERE]["seed"].nunique()
        _curve(sources[HERE], axis, HERE_COLOUR, "here" + " (band: one sd over seeds)" * (seeds > 1), "o")
        _curve(sources[OTHER_HEADS], axis, PALETTE[1], "mean of other random heads (band: one sd)", "s")
        axis.scatter(sources[REPORTED]["lambda"], sources[REPORTED]["value"], **DIAMOND)
        axis.set_xscale("symlog", linthresh=0.1, linscale=0.6)
        axis.set_xticks([0, 0.1, 1, 5, 10, 20, 50], ["0", "0.1", "1", "5", "10", "20", "50"], fontsize=10)
        axis.minorticks_off()
        axis.axvline(0.04, color="0.5", linestyle=":", linewidth=1.5)
        axis.axhline(part["constant"].iloc[0], label=CONSTANT_LABEL, **CONSTANT_LINE)
        axis.set(title=METRICS[metric], xlabel="lambda (0 apart, then a log scale)", ylabel=METRICS[metric])
        legend |= {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    figure.legend(handles=[*legend.values(), _diamond()], loc="outside lower center", ncols=3)
    noise = f"{count_seeds(frame)}{', no band of ours' * (frame['seed'].nunique() < 2)}"
    title = f"SMART on SST alone, {noise}; dashed: lambda 0; nothing here is trained on Quora or STS"
    figure.suptitle(title, fontsize=12)
    return figure


@styled
def subset_accuracy(frame: pd.DataFrame) -> Figure:
    """Quora accuracy by subset, one panel a true label, one marker a model, the report's numbers as diamonds."""
    subsets, models = list(frame["subset"].unique()), list(frame["label"].unique())
    groups, dodge = dict(list(frame.groupby("true label", sort=False))), SPREAD if len(models) > 1 else False
    figure, axes = panels(1, len(groups), 4.9, 1.9 + 0.8 * len(subsets), sharey=True)
    for axis, (name, part) in zip(axes, groups.items(), strict=True):
        colours = dict(zip(part["label"], part["method"].map(METHOD_COLOURS), strict=True))
        sns.pointplot(
            part, x="value", y="subset", hue="label", order=subsets, hue_order=models, palette=colours, ax=axis,
            markers=list(SUBSET_MARKERS[: len(models)]), linestyle="none", dodge=dodge, errorbar="sd", markersize=9,
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
    legend_below(figure, axes[0])
    for axis in axes[1:]:
        axis.get_legend().remove()
    noise = "thin lines: what so few pairs leave open (95 %)"
    figure.suptitle(f"Diamonds: the report's value; {noise}; {count_seeds(frame)}", fontsize=12)
    return figure


def row_colours(frame: pd.DataFrame) -> dict[str, str]:
    """Label -> the colour of its method; models of one method in one figure take colours of their own."""
    rows = frame.drop_duplicates("label")
    colours = {row["label"]: METHOD_COLOURS[row["method"]] for _, row in rows.iterrows()}
    if len(set(colours.values())) == len(colours):
        return colours
    return dict(zip(colours, sns.color_palette("colorblind", len(colours)).as_hex(), strict=True))


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


def hole(reason: str = "no finished run.") -> Figure:
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
    _legend_below(figure, handles)


def _legend_below(figure: Figure, handles: list[Artist]) -> None:
    labels = [handle.get_label() for handle in handles]
    # At this size of type an inch holds eleven letters; a line's sample and its margins take the room of ten.
    fitting = int(figure.get_figwidth() * 11 / (max(map(len, labels), default=0) + 10))
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(3, len(labels), fitting)))


def count_seeds(frame: pd.DataFrame, if_several: str = "") -> str:
    """How many seeds a frame shows, and what is to be said of several."""
    number = frame["seed"].nunique()
    return count_noun(number, "seed") + if_several * (number > 1)


def count_noun(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"
