"""Maps, silhouettes, distances and gaps against definitions written out in loops, and holes that stay holes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_runs import Arrays, with_arrays

from common.results import geometry

BEST, FROZEN = "slapbert_smart_annealed_slapbert", "slapbert_basebert_frozen"


CENTRES = 10 * np.eye(3, 6)


def sentences(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three classes of ten; 0 and 4 lie apart, class 2 is spread over both."""
    labels = np.repeat([0, 4, 2], 10)
    centres = np.concatenate([CENTRES[[0] * 10], CENTRES[[1] * 10], CENTRES[[0, 1] * 5]])
    return {"sst_vectors": centres + rng.normal(size=(30, 6)), "sst_vector_labels": labels}


def pairs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Eight STS pairs at either end: the similar ones within 0.1, the dissimilar ones 10 apart."""
    first = CENTRES[np.arange(16) % 3] + rng.normal(size=(16, 6))
    apart = np.where(np.arange(16) < 8, 0.1, 10.0)
    second = first + apart[:, None] * CENTRES[np.arange(16) % 3] / 10
    return {"sts_vectors": np.stack([first, second], axis=1), "sts_vector_labels": np.repeat([4.4, 0.8], 8)}


def silhouette_by_hand(vectors: np.ndarray, labels: np.ndarray, i: int) -> float:
    means = {}
    for label in set(labels.tolist()):
        others = [j for j in range(len(labels)) if labels[j] == label and j != i]
        means[label] = sum(np.linalg.norm(vectors[i] - vectors[j]) for j in others) / len(others)
    own = means.pop(int(labels[i]))
    nearest = min(means.values())
    return (nearest - own) / max(own, nearest)


def test_silhouettes_are_those_of_each_space_and_of_the_control() -> None:
    held, other = sentences(np.random.default_rng(0)), sentences(np.random.default_rng(1))
    store = Arrays(a=held, b=other)
    frame = geometry.sentence_map(store, with_arrays(BEST, "a"), with_arrays(FROZEN, "b"))
    labels = held["sst_vector_labels"]
    assert frame["class"].tolist() == labels.tolist() and set(frame["run_id"]) == {"a"}
    spaces = {"full": held["sst_vectors"], "frozen": other["sst_vectors"]}
    spaces |= {"plane": frame[[*geometry.PLANE]].to_numpy(), "space": frame[[*geometry.SPACE]].to_numpy()}
    for name, vectors in spaces.items():
        expected = [silhouette_by_hand(vectors, labels, i) for i in range(30)]
        np.testing.assert_allclose(frame[f"silhouette_{name}"], expected, atol=1e-5, err_msg=name)
    table = geometry.silhouette_table(frame).set_index("class")
    assert table["n"].to_dict() == {"0": 10, "2": 10, "4": 10, "all": 30}
    assert table.loc["4", "full space"] == pytest.approx(frame.loc[labels == 4, "silhouette_full"].mean())
    assert table.loc["all", "2-D map"] == pytest.approx(frame["silhouette_plane"].mean())


def test_maps_are_the_same_on_every_run_within_their_units_and_keep_neighbours() -> None:
    store = Arrays(a=sentences(np.random.default_rng(0)))
    first, second = (geometry.sentence_map(store, with_arrays(BEST, "a")) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert "silhouette_frozen" not in first
    for axes in (geometry.PLANE, geometry.SPACE):
        assert np.abs(first[[*axes]]).to_numpy().max() == pytest.approx(1)
    places = {label: part[[*geometry.PLANE]].to_numpy() for label, part in first.groupby("class")}
    for label, other in ((0, 4), (4, 0)):
        mine, centres = places[label], [places[name].mean(axis=0) for name in (label, other)]
        near, far = (np.linalg.norm(mine - centre, axis=1) for centre in centres)
        assert (near < far).mean() >= 0.9


def test_pairs_of_both_ends_share_one_map_and_lengths_are_of_the_drawn_lines() -> None:
    held = pairs(np.random.default_rng(0))
    frame = geometry.pair_map(Arrays(a=held), with_arrays(BEST, "a"), "sts")
    assert len(frame) == 32 and frame["side"].tolist() == [0, 1] * 16
    assert frame[frame["shown"]]["end"].unique().tolist() == ["similar"]
    other = geometry.shown(frame, "dissimilar")
    assert other[other["shown"]]["score"].unique().tolist() == [0.8] and len(other) == 32
    pd.testing.assert_frame_equal(frame.drop(columns="shown"), other.drop(columns="shown"))
    for number in (0, 7, 15):
        first, second = (frame[frame["pair"] == number].iloc[side] for side in (0, 1))
        vectors = held["sts_vectors"][number]
        assert first[geometry.DRAWN] == pytest.approx(np.sqrt(((vectors[0] - vectors[1]) ** 2).sum()))
        for name, axes in geometry.MAPS.items():
            assert first[name] == pytest.approx(np.sqrt(sum((first[axis] - second[axis]) ** 2 for axis in axes)))
    lengths = geometry.map_distances(frame)
    assert len(lengths) == 16 * 3
    drawn = lengths[lengths["space"] == "3-D map"]["distance"].tolist()
    assert drawn == frame[frame["side"] == 0]["3-D map"].tolist()


def test_separation_counts_pairs_in_the_right_order() -> None:
    distance, score = np.array([1.0, 2.0, 5.0, 3.0, 4.0, 6.0, 3.5]), np.array([4.0, 5.0, 4.2, 0.0, 1.0, 0.5, 2.5])
    arrays = {"sts_distances": distance, "sts_cosine_distances": distance / 10, "sts_distance_labels": score}
    frame = geometry.distances(Arrays(a=arrays, b=arrays), {BEST: with_arrays(BEST, "a", "b")})
    assert frame["end"].tolist()[:7] == ["similar"] * 3 + ["dissimilar"] * 3 + ["between"]
    line = geometry.separation_table(frame).set_index("space").loc["full space, Euclidean"]
    wins = [(low > high) for high in distance[:3] for low in distance[3:6]]
    assert line["ROC area"] == pytest.approx(sum(wins) / 9)
    assert (line["median, high"], line["median, low"], line["high / low"]) == (2.0, 4.0, 0.5)
    assert (line["pairs, high"], line["pairs, low"], line["quartile range, high"]) == (3, 3, 2.0)
    places = [np.argsort(np.argsort(values)) for values in (distance, score)]
    assert line["Spearman r"] == pytest.approx(np.corrcoef(*places)[0, 1])


def test_what_is_missing_or_collapsed_stays_a_hole() -> None:
    one_place = {"sst_vectors": np.ones((20, 6)), "sst_vector_labels": np.arange(20) % 5}
    one_place |= {"sts_vectors": np.ones((16, 2, 6)), "sts_vector_labels": np.repeat([4.4, 0.8], 8)}
    one_place |= {"sts_distances": np.zeros(9), "sts_cosine_distances": np.zeros(9)}
    one_place |= {"sts_distance_labels": np.linspace(0, 5, 9)}
    for of in (with_arrays(BEST), with_arrays(BEST, "nothing"), with_arrays(BEST, "same")):
        store = Arrays(same=one_place)
        assert geometry.sentence_map(store, of, of).empty
        found = geometry.pair_map(store, of, "sts")
        assert found.empty and geometry.shown(found, "similar").empty and geometry.map_distances(found).empty
        assert len(geometry.silhouette_table(found)) == 0
    table = geometry.separation_table(geometry.distances(store, {BEST: of}), found)
    assert table["ROC area"].isna().all() and len(table) == 2
    assert geometry.separation_table(found).empty and geometry.distances(store, {}).empty


def test_as_many_classes_as_sentences_have_no_silhouette() -> None:
    arrays = {"sst_vectors": np.random.default_rng(0).normal(size=(5, 6)), "sst_vector_labels": np.arange(5)}
    assert geometry.sentence_map(Arrays(a=arrays), with_arrays(BEST, "a")).empty
