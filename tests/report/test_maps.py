"""Maps show what their frame holds, each thing in its colour and place, and no crash on a hole."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from panel_checks import check_panel

from common.declare.rows import row
from common.report import maps, plots
from common.results import geometry
from common.runs.session import RowResult


def test_axes_are_labelled_and_layers_named_in_both_conventions(
    lab: SimpleNamespace, results: dict, drawings: Callable
) -> None:
    for draw, frame in drawings(results).values():
        axes = [axis for axis in draw(frame).axes if axis.get_label() != "<colorbar>"]
        assert all(axis.get_xlabel() for axis in axes)
    title = maps.attention(drawings(results)["attention"][1]).axes[0].get_title()
    assert title == "layer 6 of 6 (index 5 from 0), head 1\nreport: Figure 3, layer 11 of 12"


def test_a_panel_without_a_layer_of_its_own_says_so() -> None:
    hole = pd.DataFrame(
        [{"run_id": "r-s0", "layers": 2, "missing": "an encoder of 2 layers has none of its own here."}]
    )
    assert "has none of its own here" in maps.attention(hole).axes[0].texts[0].get_text()


def toy_frame() -> pd.DataFrame:
    grid = [[w, "grid", x, y, x] for w in (0, 1) for x in (0.0, 0.4, 0.9) for y in (0.0, 1.0)]
    points = [[w, "point", x, 0.5, x] for w in (0, 1) for x in (0.0, 1.0)]
    return pd.DataFrame(grid + points, columns=["weight", "kind", "x", "y", "value"])


def test_toy_draws_the_level_one_half_where_the_probability_crosses_it() -> None:
    axis = maps.toy(toy_frame()).axes[0]
    levels = [c for c in axis.collections if list(getattr(c, "levels", [])) == [0.5]]
    (path,) = [path for path in levels[0].get_paths() if len(path.vertices)]
    assert path.vertices[:, 0] == pytest.approx(0.4 + 0.5 * 0.1 / 0.5)
    assert axis.get_xlabel() and axis.get_legend() is None
    assert "no finished run" in maps.toy(toy_frame().iloc[:0]).axes[0].texts[0].get_text()


BEST = "slapbert_smart_annealed_slapbert"


def vectors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    arrays = {"sst_vectors": rng.normal(size=(40, 8)), "sst_vector_labels": np.arange(40) % 5}
    for task, high, low in (("para", 1, 0), ("sts", 4.6, 0.4)):
        arrays[f"{task}_vectors"] = rng.normal(size=(14, 2, 8))
        arrays[f"{task}_vector_labels"] = np.repeat([high, low], [6, 8])
        scores = np.array([high, low] * 30) if task == "para" else np.linspace(0, 5, 60)
        arrays |= {f"{task}_distance_labels": scores, f"{task}_distances": rng.gamma(2, size=60)}
        arrays[f"{task}_cosine_distances"] = arrays[f"{task}_distances"] / 10
    return arrays


@pytest.fixture(scope="module")
def store() -> SimpleNamespace:
    held = vectors(np.random.default_rng(0))
    return SimpleNamespace(probes=lambda run_id: held)


@pytest.fixture(scope="module")
def result() -> RowResult:
    return RowResult(row(BEST), ({"run_id": "0123456789ab-s0", "spec": {"seed": 0}},))


@pytest.fixture(scope="module")
def questions(store: SimpleNamespace, result: RowResult) -> pd.DataFrame:
    return geometry.pair_map(store, result, "para")


def test_every_sentence_has_the_colour_of_its_label(store: SimpleNamespace, result: RowResult) -> None:
    frame = geometry.sentence_map(store, result, result)
    plane, space, bars = maps.sentence_map(frame).axes
    for axis in (plane, space):
        sizes = {tuple(dots.get_facecolor()[0][:3]): len(dots.get_offsets()) for dots in axis.collections}
        assert sizes == {to_rgba(colour)[:3]: 8 for colour in maps.CLASS_COLOURS}
    drawn = {round(place, 6) for dots in plane.collections for place in dots.get_offsets().data[:, 0].tolist()}
    assert drawn == {round(float(place), 6) for place in frame["plane_x"]}
    heights = [bar.get_height() for bar in bars.patches if bar.get_width() > 0][:5]
    assert heights == pytest.approx(frame.groupby("class")["silhouette_full"].mean().tolist())
    assert len(set(maps.CLASS_MARKERS)) == 3 and len(set(maps.CLASS_COLOURS)) == 5


def test_lines_join_the_sentences_of_the_pairs_shown_and_paired_figures_have_one_scale(questions) -> None:
    figures = {end: maps.pair_map(geometry.shown(questions, end)) for end in geometry.ENDS["para"]}
    first, other = (figure.axes for figure in figures.values())
    for one, two in zip(first, other, strict=True):
        assert one.get_xlim() == two.get_xlim() and one.get_ylim() == two.get_ylim()
    assert first[1].get_zlim() == other[1].get_zlim()
    assert [len(axes[0].lines) for axes in (first, other)] == [6, 8]
    pair = questions[questions["pair"] == 0]
    assert first[0].lines[0].get_xdata().tolist() == pair["plane_x"].tolist()
    assert first[0].lines[0].get_ydata().tolist() == pair["plane_y"].tolist()
    assert [len(dots.get_offsets()) for dots in first[2].collections] == [8, 6], "grey for the others, then the shown"


def test_distance_curves_name_their_pairs_and_reach_one(store: SimpleNamespace, result: RowResult) -> None:
    figure = maps.distances(geometry.distances(store, {BEST: result}))
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert legends[0] == ["paraphrases, n = 30", "non-paraphrases, n = 30"]
    assert [text.split(",")[0] for text in legends[1]] == ["similar", "dissimilar", "between"]
    assert all(line.get_ydata().max() == 1 for axis in figure.axes for line in axis.lines if len(line.get_ydata()))


def test_saved_figures_are_panels_with_the_same_bytes(lab: SimpleNamespace, store, result, questions) -> None:
    sentences, sts = geometry.sentence_map(store, result, result), geometry.pair_map(store, result, "sts")
    frames = {"05_tsne_sentiment": (maps.sentence_map, sentences)}
    frames |= {"05_tsne_paraphrases": (maps.pair_map, questions), "05_tsne_similar": (maps.pair_map, sts)}
    frames |= {"05_tsne_dissimilar": (maps.pair_map, geometry.shown(sts, "dissimilar"))}
    for name, (draw, frame) in frames.items():
        images = [plots.save(lab, name, draw(frame), frame, "Caption.", ["0123456789ab-s0"]).data for _ in range(2)]
        assert images[0] == images[1] and check_panel(lab.places.figures, name) == []


def test_no_vectors_give_a_marked_hole() -> None:
    for draw in (maps.sentence_map, maps.pair_map, maps.distances):
        assert "Nothing to draw" in draw(pd.DataFrame()).axes[0].texts[0].get_text()
