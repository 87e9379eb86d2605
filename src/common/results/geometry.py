"""Where a model puts its sentences: t-SNE maps, silhouettes and distances.

t-SNE keeps neighbours and not distances, so whatever its maps seem to show is measured in the full space too.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score, silhouette_samples
from threadpoolctl import threadpool_limits

from common.declare.tasks import TASK_NAMES
from common.results.long import RUN, runs_of
from common.runs.session import Results, RowResult
from common.runs.store import RunStore
from common.training.probes import LABEL_ENDS

PERPLEXITY = 30.0  # of scikit-learn; the report gives none
SEED = 0
PLANE, SPACE = ("plane_x", "plane_y"), ("space_x", "space_y", "space_z")
ENDS = {"para": ("paraphrases", "non-paraphrases"), "sts": ("similar", "dissimilar")}
MAPS = {"2-D map": PLANE, "3-D map": SPACE}
# Of the pairs drawn, and of all pairs kept.
DRAWN, EUCLIDEAN = "full space, pairs drawn", "full space, Euclidean"
DISTANCES = {EUCLIDEAN: "distances", "full space, cosine": "cosine_distances"}
SILHOUETTES = {"full": "full space", "plane": "2-D map", "space": "3-D map", "frozen": "full space, frozen encoder"}


def sentence_map(store: RunStore, result: RowResult, control: RowResult | None = None) -> pd.DataFrame:
    """SST dev sentences of a row's first run on two maps, with the silhouette of each by its label.

    Args:
        store: holds the run's vectors.
        result: the model.
        control: another model that saw the same sentences, whose full-space silhouettes stand beside; None for none.

    Returns:
        One line a sentence: sentence (its place in dev), class (0 to 4), coordinates in units of the largest one of
        the map, silhouettes in [-1, 1] (silhouette_full, _plane, _space, and _frozen where the control has vectors).
    """
    known, probes = _first(store, result)
    vectors, labels = probes.get("sst_vectors"), probes.get("sst_vector_labels")
    if vectors is None or not _is_mappable(vectors) or not 1 < len(np.unique(labels)) < len(labels):
        return pd.DataFrame()
    frame = pd.DataFrame({"sentence": np.arange(len(labels)), "class": labels, **_maps(vectors)})
    places = {"full": vectors, "plane": frame[[*PLANE]], "space": frame[[*SPACE]]}
    others = _first(store, control)[1].get("sst_vectors")
    if others is not None and len(others) == len(labels):
        places["frozen"] = others
    return frame.assign(**{f"silhouette_{n}": silhouette_samples(p, labels) for n, p in places.items()}, **known)


def silhouette_table(sentences: pd.DataFrame) -> pd.DataFrame:
    """Mean silhouette per class and over all sentences, one column a space; above 0 is nearer to its own class."""
    columns = [f"silhouette_{name}" for name in SILHOUETTES if f"silhouette_{name}" in sentences]
    if sentences.empty:
        return pd.DataFrame(columns=["class", "n"])
    named = sentences.astype({"class": str})
    both = pd.concat([named, named.assign(**{"class": "all"})])
    grouped = both.groupby("class", sort=False)[columns]
    table = pd.concat([grouped.size().rename("n"), grouped.mean()], axis=1).sort_index().reset_index()
    return table.rename(columns={f"silhouette_{name}": title for name, title in SILHOUETTES.items()})


def pair_map(store: RunStore, result: RowResult, task: str) -> pd.DataFrame:
    """Sentence pairs from both ends of a pair task's labels, on one pair of maps, so that their lengths compare.

    Returns:
        One line a sentence: end (such as similar, dissimilar), pair, side (0, 1), score (the pair's label), coordinates
        in units of the map's largest one, and of the pair its length on either map and its distance in the full space.
        The first end is the one `shown`.
    """
    known, probes = _first(store, result)
    pairs, labels = probes.get(f"{task}_vectors"), probes.get(f"{task}_vector_labels")
    if pairs is None or not _is_mappable(pairs.reshape(-1, pairs.shape[-1])):
        return pd.DataFrame()
    places = _maps(pairs.reshape(-1, pairs.shape[-1]))
    lines = {"end": _ends(task, labels), "pair": np.arange(len(labels)), "score": labels, DRAWN: _lengths(pairs)}
    for name, axes in MAPS.items():
        lines[name] = _lengths(np.stack([places[axis] for axis in axes], axis=1).reshape(len(pairs), 2, -1))
    frame = pd.DataFrame({name: np.repeat(column, 2) for name, column in lines.items()})
    frame = frame.assign(side=np.tile([0, 1], len(labels)), task=task, **places, **known)
    return shown(frame, ENDS[task][0])


def shown(pairs: pd.DataFrame, end: str) -> pd.DataFrame:
    """`pair_map` with another end marked as the one to draw; both stay, so that both are drawn to one scale."""
    return pairs if pairs.empty else pairs.assign(shown=pairs["end"] == end)


def distances(store: RunStore, results: Results) -> pd.DataFrame:
    """Full-space distance between the sentences of every pair kept, one line a pair and measure, for all seeds.

    end is the end of the labels that a pair belongs to, or `between` for STS pairs scored above 1 and below 4.
    """
    parts = []
    for _, record, run in runs_of(results):
        probes = store.probes(record.run_id)
        for task, (space, name) in itertools.product(ENDS, DISTANCES.items()):
            if f"{task}_{name}" in probes:
                part = {"score": probes[f"{task}_distance_labels"], "distance": probes[f"{task}_{name}"]}
                known = run | {"task": task, "space": space}
                parts.append(pd.DataFrame(part).assign(end=_ends(task, part["score"]), **known))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def map_distances(pairs: pd.DataFrame) -> pd.DataFrame:
    """Lengths of the lines of `pair_map` and the full-space distances of the same pairs, in the form of `distances`."""
    if pairs.empty:
        return pd.DataFrame()
    once, known = pairs[pairs["side"] == 0], [*RUN, "task", "end", "score"]
    return once.melt(known, [DRAWN, *MAPS], var_name="space", value_name="distance")


def separation_table(*parts: pd.DataFrame) -> pd.DataFrame:
    """How well distance tells the two ends of a pair task apart, per model, task and space; means over seeds.

    Columns: pairs at each end, median distances, their ratio (below 1: the high end is closer), the area under the ROC
    curve (0.5: by chance), Spearman's r of distance and label over all pairs (below 0: the closer, the higher), and
    the interquartile range of the high end.
    """
    found = [part for part in parts if not part.empty]
    if not found:
        return pd.DataFrame(columns=["model", "task", "space"])
    lengths = pd.concat(found, ignore_index=True)
    by = ["label", "task", "space"]
    seeds = lengths.groupby([*by, "run_id"], sort=False)[["task", "end", "score", "distance"]].apply(_separation)
    table = seeds.groupby(level=by, sort=False).mean().reset_index()
    table[["pairs, high", "pairs, low"]] = table[["pairs, high", "pairs, low"]].round().astype(int)
    return table.assign(task=table["task"].map(TASK_NAMES)).rename(columns={"label": "model"})


def _first(store: RunStore, result: RowResult | None) -> tuple[dict, dict[str, np.ndarray]]:
    """What names the first run of a row, and its arrays; nothing where it has no run."""
    if result is None or not result.runs:
        return {}, {}
    _, record, known = next(runs_of({result.row.id: result}))
    return known, store.probes(record.run_id)


def _is_mappable(vectors: np.ndarray) -> bool:
    """t-SNE needs a few sentences that do not all lie in one place."""
    return bool(np.isfinite(vectors).all()) and len(np.unique(vectors, axis=0)) > 4


def _maps(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Axis -> (N,) coordinates on a plane and in three dimensions, divided by the largest of the map.

    On one thread, since a sum in another order ends in another map.
    """
    options = {"perplexity": min(PERPLEXITY, (len(vectors) - 1) / 3), "init": "pca", "random_state": SEED}
    found = {}
    with threadpool_limits(1):
        for axes in (PLANE, SPACE):
            places = TSNE(len(axes), **options).fit_transform(vectors.astype(np.float64))  # (N, 2 or 3)
            found |= dict(zip(axes, (places / np.abs(places).max()).T, strict=True))
    return found


def _lengths(pairs: np.ndarray) -> np.ndarray:
    """(M, 2, any) -> (M,) Euclidean distances between the two of each pair."""
    return np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1)


def _ends(task: str, scores: np.ndarray) -> np.ndarray:
    low, high = LABEL_ENDS[task]
    return np.select([scores >= high, scores <= low], ENDS[task], "between")


def _separation(pairs: pd.DataFrame) -> pd.Series:
    high, low = (pairs.loc[pairs["end"] == end, "distance"] for end in ENDS[pairs["task"].iloc[0]])
    found = {
        "pairs, high": len(high),
        "pairs, low": len(low),
        "median, high": high.median(),
        "median, low": low.median(),
    }
    found |= dict.fromkeys(["high / low", "ROC area", "Spearman r"], np.nan)
    found["quartile range, high"] = high.quantile(0.75) - high.quantile(0.25)
    if len(high) and len(low) and low.median() > 0:
        found["high / low"] = high.median() / low.median()
        found["ROC area"] = roc_auc_score([1] * len(high) + [0] * len(low), [*-high, *-low])
        found["Spearman r"] = spearmanr(pairs["distance"], pairs["score"])[0]
    return pd.Series(found)
