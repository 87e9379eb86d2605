"""Maps: attention as heat, sentence vectors on a plane, and the plane that a small network divides."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from common.declare.tasks import TASK_NAMES
from common.report.plots import METHOD_COLOURS, PALETTE, hole, legend_below, panels, styled
from common.results.geometry import DRAWN, EUCLIDEAN, PLANE, SPACE

MAP_INCHES = 11.0
SHARE_TITLES = {
    "cross": "to the other sentence",
    "match": "to equal tokens of the other sentence",
    "near": "to own tokens 1 or 2 places away",
    "special": "to [CLS] and [SEP]",
}
# Blue to red over grey, dark at both ends: ordered, and apart for every kind of colour vision; so are the markers.
CLASS_COLOURS = ("#08519c", "#5aa5dc", "#8c8c8c", "#f0a030", "#a50f15")
CLASS_MARKERS = ("v", "v", "o", "^", "^")
CLASS_NAMES = ("0 negative", "1 somewhat negative", "2 neutral", "3 somewhat positive", "4 positive")
END_COLOURS = {
    "paraphrases": PALETTE[0],
    "non-paraphrases": PALETTE[3],
    "similar": PALETTE[0],
    "dissimilar": PALETTE[3],
    "between": "0.6",
}
LIMITS, TICKS = (-1.05, 1.05), (-1, 0, 1)  # coordinates come in units of the largest one of their map


@styled
def attention(frame: pd.DataFrame) -> Figure:
    """A heat map of one head for each panel of the frame, rows attend to columns (swissBERT, Figures 1 to 3)."""
    if "missing" in frame:
        return hole(frame["missing"].iloc[0])
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


def _dashes(frame: pd.DataFrame) -> dict[str, object]:
    """Untrained controls are dashed."""
    return {row["label"]: (3, 2) if row["method"] == "untrained" else "" for _, row in frame.iterrows()}
