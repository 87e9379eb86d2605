"""Maps of sentence vectors and the distances behind them (SlapBERT, Figures 2 to 5 and 7). Nothing is computed here."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.report.plots import panels, styled
from common.results.embeddings import DRAWN, EUCLIDEAN, PLANE, SPACE
from common.results.stats import TASK_NAMES

# Blue to red over grey, dark at both ends: ordered, and apart for every kind of colour vision; so are the markers.
CLASS_COLOURS = ("#08519c", "#5aa5dc", "#8c8c8c", "#f0a030", "#a50f15")
CLASS_MARKERS = ("v", "v", "o", "^", "^")
CLASS_NAMES = ("0 negative", "1 somewhat negative", "2 neutral", "3 somewhat positive", "4 positive")
_PALETTE = sns.color_palette("colorblind", 10).as_hex()
END_COLOURS = {
    "paraphrases": _PALETTE[0],
    "non-paraphrases": _PALETTE[3],
    "similar": _PALETTE[0],
    "dissimilar": _PALETTE[3],
    "between": "0.6",
}
LIMITS, TICKS = (-1.05, 1.05), (-1, 0, 1)  # coordinates come in units of the largest one of their map


@styled
def sentence_map(frame: pd.DataFrame) -> Figure:
    """SST dev sentences by label on a 2-D and a 3-D map, and mean silhouettes per class in the full space."""
    figure, plane, space, bars = _three_panels(f"{_model(frame)}: {len(frame):,} SST dev sentences")
    for label in sorted(frame["class"].unique(), key=lambda c: (abs(c - 2), c)):  # the extremes on top
        part = frame[frame["class"] == label]
        look = {"color": CLASS_COLOURS[label], "marker": CLASS_MARKERS[label], "s": 20, "alpha": 0.8, "linewidths": 0}
        plane.scatter(*(part[axis] for axis in PLANE), label=CLASS_NAMES[label], **look)
        space.scatter(*(part[axis] for axis in SPACE), **look)
    names = {"silhouette_full": "this model", "silhouette_frozen": "frozen encoder (control)"}
    long = frame.melt("class", [name for name in names if name in frame], var_name="model", value_name="silhouette")
    long["model"] = long["model"].map(names)
    colours = {"this model": "0.25", "frozen encoder (control)": "0.75"}
    common = {"x": "class", "y": "silhouette", "hue": "model", "palette": colours, "saturation": 1, "ax": bars}
    sns.barplot(long, errorbar=None, **common)
    bars.axhline(0, color="black", linewidth=0.8)
    bars.set(title="Mean silhouette, full space", xlabel="label", ylabel="silhouette (-1 to 1)")
    bars.legend(title=None, fontsize=11)
    handles, labels = plane.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    shown = [[handles[i] for i in order], [labels[i] for i in order]]
    figure.legend(*shown, loc="outside lower center", ncols=5, markerscale=2.5)
    return figure


@styled
def pair_map(frame: pd.DataFrame) -> Figure:
    """One end of a pair task as lines between the sentences of a pair, and what their lengths are in the full space."""
    mine, others = frame[frame["shown"]], frame[~frame["shown"]]
    end = mine["end"].iloc[0] if len(mine) else "no pairs"
    count = f"{len(mine) // 2} pairs of {TASK_NAMES[frame['task'].iloc[0]]} dev"
    figure, plane, space, lengths = _three_panels(f"{_model(frame)}: {end}, {count}")
    for axis, axes in ((plane, PLANE), (space, SPACE)):
        for _, pair in mine.groupby("pair"):
            places = [pair[name] for name in axes]
            axis.plot(*places, color=END_COLOURS[end], linewidth=1.4, marker="o", markersize=4, alpha=0.85)
    for part, colour in ((others, "0.75"), (mine, END_COLOURS.get(end))):
        once = part[part["side"] == 0]
        name = once["end"].iloc[0] if len(once) else "none"
        lengths.scatter(once[DRAWN], once["2-D map"], s=26, color=colour, label=name, linewidths=0, alpha=0.9)
    lengths.set(title="What a line stands for", ylabel="length on the 2-D map", xlim=(0, None), ylim=(0, None))
    lengths.set_xlabel("Euclidean distance in the full space")
    lengths.legend(fontsize=11)
    return figure


@styled
def distances(frame: pd.DataFrame) -> Figure:
    """Share of pairs closer than a distance in the full space, by the end of the labels, one panel a model and task."""
    frame = frame[frame["space"] == EUCLIDEAN]
    models, tasks = list(dict.fromkeys(frame["label"])), list(dict.fromkeys(frame["task"]))
    figure, axes = panels(len(models), len(tasks), 6.4, 3.9)
    for index, axis in enumerate(axes):
        model, task = models[index // len(tasks)], tasks[index % len(tasks)]
        part = frame[(frame["label"] == model) & (frame["task"] == task)]
        if part.empty:
            axis.set_axis_off()
            continue
        order = [end for end in END_COLOURS if end in set(part["end"])]
        sns.ecdfplot(part, x="distance", hue="end", hue_order=order, palette=END_COLOURS, linewidth=2.4, ax=axis)
        sizes = part["end"].value_counts() // part["seed"].nunique()
        legend = axis.get_legend()
        for text in legend.get_texts():
            text.set_text(f"{text.get_text()}, n = {sizes[text.get_text()]:,}")
        below = {"bbox_to_anchor": (0.5, -0.16), "ncols": len(order), "title": None}  # a curve may cross any corner
        sns.move_legend(axis, "upper center", columnspacing=1.2, handlelength=1.5, **below)
        axis.set(title=f"{model}\n{TASK_NAMES[task]} dev", ylabel="share of pairs at most so far apart", xlim=(0, None))
        axis.set_xlabel("Euclidean distance in the full space")
    return figure


def _model(frame: pd.DataFrame) -> str:
    first = frame.iloc[0]
    return f"{first['label']}, seed {first['seed']}"


def _three_panels(title: str) -> tuple[Figure, Axes, Axes, Axes]:
    """A map on a plane, one in three dimensions and a panel for measurements; the axes of a map have no unit."""
    figure = Figure(figsize=(16.5, 6.0))
    FigureCanvasAgg(figure)
    plane, space, beside = (figure.add_subplot(1, 3, i, projection=p) for i, p in ((1, None), (2, "3d"), (3, None)))
    # On a map only what is near means anything: few ticks.
    scale = {"xlim": LIMITS, "ylim": LIMITS, "xticks": TICKS, "yticks": TICKS}
    plane.set(title="t-SNE, 2-D", xlabel="t-SNE 1 (of largest)", ylabel="t-SNE 2 (of largest)", aspect="equal", **scale)
    space.set(title="t-SNE, 3-D", xlabel="t-SNE 1", ylabel="t-SNE 2", zlabel="t-SNE 3", zlim=LIMITS, **scale)
    space.set_zticks(TICKS)
    space.set_box_aspect(None, zoom=0.85)
    figure.get_layout_engine().set(w_pad=0.2)
    figure.suptitle(title, fontsize=14)
    return figure, plane, space, beside
