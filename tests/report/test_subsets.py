"""Figures of notebook 03 show every model, mark what the report prints, and say where nothing is to be shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from common.report import plots, subsets

MODELS = {"Baseline": "separate encoding", "Cosine": "cosine", "Concat": "pair encoding", "Final": "pair encoding"}


def accuracies(seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = [
        {"label": model, "method": method, "run_id": f"{model}-s{seed}", "seed": seed}
        | {"subset": subset, "true label": of, "n": pairs, "value": rng.uniform() if pairs else np.nan}
        | {"reported": 0.888 if model == "Final" and subset == "all pairs" else np.nan}
        for model, method in MODELS.items()
        for seed in seeds
        for subset, pairs in {"all pairs": 1000, "swapped": 0, "alike": 11, "nearly identical": 0}.items()
        for of in ("both", "paraphrases", "non-paraphrases")
    ]
    return pd.DataFrame(lines).assign(low=lambda f: f["value"] - 0.05, high=lambda f: f["value"] + 0.05)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_subset_has_a_place_and_an_empty_one_says_so(seeds: tuple[int, ...]) -> None:
    figure = subsets.accuracy(accuracies(seeds))
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["n = 1,000", "no such pair", "n = 11", "no such pair"]
        assert axis.get_ylim() == (3.5, -0.5)
    figure.canvas.draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(MODELS)


def test_the_reports_value_stands_at_the_height_of_its_models_marker() -> None:
    figure = subsets.accuracy(accuracies((0,)))
    axis = figure.axes[0]
    (diamond,) = axis.collections[-1].get_offsets()
    markers = [line for line in axis.lines if line.get_marker() not in ("None", "", None)]
    points = [point for line in markers for point in zip(*line.get_data(), strict=True) if np.isfinite(point[0])]
    heights = [y for x, y in points if y < 0.4 and x not in (0, 1)]  # markers of the first subset
    assert diamond.tolist() == pytest.approx([0.888, max(heights)]) and len(set(heights)) == len(MODELS)


def test_one_model_alone_is_drawn_on_the_line_of_its_subset() -> None:
    frame = accuracies((0,))
    figure = subsets.accuracy(frame[frame["label"] == "Final"])
    assert figure.axes[0].collections[-1].get_offsets()[0].tolist() == pytest.approx([0.888, 0.0])


def curves() -> pd.DataFrame:
    grid = np.round(np.linspace(-1, 1, 201), 3)
    parts = [
        pd.DataFrame(
            {"threshold": grid, "accuracy": 0.5 + height * grid**2, "seed": seed, "run_id": f"{height}-s{seed}"}
        )
        .assign(method=method, pooling=pooling, marked=np.isin(grid, (0.5, 0.75)))
        .assign(reported=lambda part: np.where(part["marked"], 0.8, np.nan))
        for method, pooling, height in (
            ("cosine", "cls", 0.1),
            ("cosine", "mean", 0.2),
            ("zero-shot cosine", "mean", 0.3),
        )
        for seed in (0, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def test_markers_stand_at_the_thresholds_of_the_rows_and_hollow_ones_at_what_is_reported() -> None:
    figure = subsets.thresholds(curves())
    axis = figure.axes[0]
    for line in axis.lines:
        assert line.get_xdata()[np.array(line.get_markevery())].tolist() == [0.5, 0.75]
    hollow = [c.get_offsets() for c in axis.collections if c.get_offsets().shape == (201, 2)]
    assert [points[~points.mask.any(axis=1)].tolist() for points in hollow] == [[[0.5, 0.8], [0.75, 0.8]]] * 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["cosine, CLS pooling", "cosine, mean pooling", "zero-shot cosine, mean pooling"]


@pytest.mark.parametrize("epochs", [1, 4])
def test_every_run_is_a_line_of_its_own(epochs: int) -> None:
    lines = [
        {"label": model, "method": method, "run_id": f"{model}-s{seed}", "seed": seed, "epoch": epoch}
        | {"row": model, "metric": metric, "split": split, "value": epoch / 10 + seed / 100}
        for model, method in MODELS.items()
        for seed in (0, 1)
        for epoch in range(1, epochs + 1)
        for metric in ("sst_acc", "sts_corr")
        for split in ("dev", "train")
    ]
    axis = subsets.over_epochs(pd.DataFrame(lines)).axes[0]
    drawn = [line for line in axis.lines if len(line.get_xdata())]
    assert len(drawn) == 2 * len(MODELS) and all(len(line.get_xdata()) == epochs for line in drawn)
    assert axis.get_xticks().tolist() == list(range(1, epochs + 1))
    assert len({line.get_color() for line in drawn}) == len(MODELS), "two models of one method have two colours"


@pytest.mark.parametrize("draw", [subsets.accuracy, subsets.thresholds, subsets.over_epochs])
def test_a_frame_without_lines_becomes_a_marked_hole(draw) -> None:
    figure = draw(pd.DataFrame())
    assert "Nothing to draw" in figure.axes[0].texts[0].get_text()


def test_colours_are_those_of_the_methods() -> None:
    line = subsets.thresholds(curves()).axes[0].lines[0]
    assert line.get_color() == plots.METHOD_COLOURS["cosine"]
