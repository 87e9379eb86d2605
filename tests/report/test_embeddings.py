"""Figures of embeddings draw every sentence and pair where the frame has it, on equal axes, and survive holes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from panel_checks import check_panel

from common.declare.rows import row
from common.report import embeddings as drawings
from common.report import plots
from common.results import embeddings
from common.runs.session import RowResult

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
    return embeddings.pair_map(store, result, "para")


def test_every_sentence_has_the_colour_of_its_label(store: SimpleNamespace, result: RowResult) -> None:
    frame = embeddings.sentence_map(store, result, result)
    plane, space, bars = drawings.sentence_map(frame).axes
    for axis in (plane, space):
        sizes = {tuple(dots.get_facecolor()[0][:3]): len(dots.get_offsets()) for dots in axis.collections}
        assert sizes == {to_rgba(colour)[:3]: 8 for colour in drawings.CLASS_COLOURS}
    drawn = {round(place, 6) for dots in plane.collections for place in dots.get_offsets().data[:, 0].tolist()}
    assert drawn == {round(float(place), 6) for place in frame["plane_x"]}
    heights = [bar.get_height() for bar in bars.patches if bar.get_width() > 0][:5]
    assert heights == pytest.approx(frame.groupby("class")["silhouette_full"].mean().tolist())
    assert len(set(drawings.CLASS_MARKERS)) == 3 and len(set(drawings.CLASS_COLOURS)) == 5


def test_lines_join_the_sentences_of_the_pairs_shown_and_paired_figures_have_one_scale(questions) -> None:
    figures = {end: drawings.pair_map(embeddings.shown(questions, end)) for end in embeddings.ENDS["para"]}
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
    figure = drawings.distances(embeddings.distances(store, {BEST: result}))
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert legends[0] == ["paraphrases, n = 30", "non-paraphrases, n = 30"]
    assert [text.split(",")[0] for text in legends[1]] == ["similar", "dissimilar", "between"]
    assert all(line.get_ydata().max() == 1 for axis in figure.axes for line in axis.lines if len(line.get_ydata()))


def test_saved_figures_are_panels_with_the_same_bytes(lab: SimpleNamespace, store, result, questions) -> None:
    sentences, sts = embeddings.sentence_map(store, result, result), embeddings.pair_map(store, result, "sts")
    frames = {"05_tsne_sentiment": (drawings.sentence_map, sentences)}
    frames |= {"05_tsne_paraphrases": (drawings.pair_map, questions), "05_tsne_similar": (drawings.pair_map, sts)}
    frames |= {"05_tsne_dissimilar": (drawings.pair_map, embeddings.shown(sts, "dissimilar"))}
    for name, (draw, frame) in frames.items():
        images = [plots.save(lab, name, draw(frame), frame, "Caption.", ["0123456789ab-s0"]).data for _ in range(2)]
        assert images[0] == images[1] and check_panel(lab.places.figures, name) == []


def test_no_vectors_give_a_marked_hole() -> None:
    for draw in (drawings.sentence_map, drawings.pair_map, drawings.distances):
        assert "Nothing to draw" in draw(pd.DataFrame()).axes[0].texts[0].get_text()
