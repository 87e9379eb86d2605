"""Panels of the stepwise search: what is drawn is what the CSV says, one line a model, and holes are marked."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from common import rows
from common.declare import reported
from common.declare.spec import profile_named, to_dict
from common.report import plots
from common.report import stepwise as drawn
from common.results import stepwise
from common.runs.session import Results, RowResult

MODELS = {row.id: row for row in rows("bertpp", "table2")}
METRICS = {
    "01_sts_dev": "sts_corr",
    "01_sts_loss": "sts_loss",
    "01_sst_loss": "sst_loss",
    "01_sst_dev": "sst_acc",
    "01_para_loss": "para_loss",
    "01_para_dev": "para_acc",
    "01_total_loss": "total_loss",
    "01_overall_dev": "overall",
}
UNTRAINED_LOSSES = ("sts_loss", "para_loss", "total_loss")


def study(seeds: tuple[int, ...] = (0,), epochs: int = 5, failed: tuple[str, ...] = ()) -> Results:
    """Runs of random numbers under the quick profile."""
    rng = np.random.default_rng(0)
    names = ("sst_acc", "para_acc", "sts_corr")

    def record(row_id: str, seed: int) -> dict:
        spec = profile_named("quick").apply(MODELS[row_id].specs[0])
        trained = [task.name for task in spec.trained_tasks]
        history = []
        for epoch in range(1, (epochs if len(trained) == 3 else 1) + 1):
            values = dict(zip(names, rng.uniform(0.2, 0.9, 3).tolist(), strict=True))
            dev = values if len(trained) == 3 else {"sst_acc": values["sst_acc"]}
            losses = {task: float(rng.uniform(0, 2)) for task in trained}
            history.append({"epoch": epoch, "train_loss": losses, "dev": dev})
        final = dict(zip(names, rng.uniform(0.2, 0.9, 3).tolist(), strict=True))
        made = {"run_id": f"{row_id}-s{seed}", "spec": to_dict(spec) | {"seed": seed}, "history": history}
        heads = {name: rng.uniform(0.1, 0.6, 20).tolist() for name in ("para_acc", "sts_corr")}
        overall = {"overall": sum(final.values()) / 3}
        return made | {"metrics": {"dev": final | overall}, "untrained_heads": heads}

    found = {
        name: RowResult(row, () if name in failed else tuple(record(name, seed) for seed in seeds))
        for name, row in MODELS.items()
    }
    return Results(found)


def test_the_panels_are_those_of_the_registry() -> None:
    assert set(METRICS) == {panel.drawn for panel in reported.panels() if panel.report == "bertpp"}


@pytest.mark.parametrize("stem", METRICS)
def test_each_panel_has_a_csv_with_one_line_per_model_and_epoch(stem: str, lab: SimpleNamespace) -> None:
    frame = stepwise.curve_frame(study(), METRICS[stem])
    figure = drawn.curves(frame)
    plots.save(lab, stem, figure, frame, "Caption.", frame["run_id"])
    written = pd.read_csv(lab.places.figures / f"{stem}.csv")
    models = [name for name in MODELS if name != "bertpp_baseline" or METRICS[stem] not in UNTRAINED_LOSSES]
    pairs = [(name, epoch) for name in models for epoch in range(1, 2 if name == "bertpp_baseline" else 6)]
    assert list(zip(written["row"], written["epoch"], strict=True)) == pairs
    assert np.isfinite(written["value"]).all()
    lines = {tuple(np.round(line.get_ydata(), 9)) for line in figure.axes[0].lines if len(line.get_ydata())}
    for _, part in written.groupby("row"):
        assert tuple(np.round(part["value"], 9)) in lines


def test_every_line_ends_at_a_letter_and_no_two_letters_touch() -> None:
    frame = stepwise.curve_frame(study(), "sts_corr")
    frame["value"] = 0.5 + 1e-4 * np.arange(len(frame))  # all lines on top of one another
    axis = drawn.curves(frame).axes[0]
    assert sorted(text.get_text() for text in axis.texts) == [*"ABCDEFGH", "base"]
    heights = sorted(text.xyann[1] for text in axis.texts if text.get_text() != "base")
    low, high = axis.get_ylim()
    assert np.diff(heights).min() >= 0.99 * drawn.LABEL_GAP * (high - low)
    assert heights[-1] <= high


def test_models_differ_in_colour_and_marker_and_keep_them_in_every_panel() -> None:
    assert len(set(drawn.COLOURS.values())) == len(set(drawn.MARKERS.values())) == len(MODELS)
    colours = [mpl.colors.to_rgb(colour) for colour in drawn.COLOURS.values()]
    distances = [np.linalg.norm(np.subtract(a, b)) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 0.14
    for metric in ("sts_corr", "sts_loss"):  # with the baseline and without it
        figure = drawn.curves(stepwise.curve_frame(study(), metric))
        for handle in figure.legends[0].legend_handles:
            row = next(row for row in MODELS.values() if handle.get_label().startswith(row.label))
            assert mpl.colors.to_rgb(handle.get_color()) == mpl.colors.to_rgb(drawn.COLOURS[row.id])
            assert handle.get_marker() == drawn.MARKERS[row.id]


def test_a_sum_of_other_losses_is_marked_in_the_legend() -> None:
    figure = drawn.curves(stepwise.curve_frame(study(), "total_loss"))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Model E (of cosines)" in names and "Model D" in names and "Baseline" not in names


def test_bars_of_the_waterfall_run_from_base_to_model() -> None:
    frame = stepwise.step_frame(study(seeds=(0, 1, 2)))
    theirs, ours = drawn.waterfall(frame).axes
    assert [round(bar.get_y() + bar.get_height(), 3) for bar in theirs.patches] == [
        0.256, 0.499, 0.481, 0.449, 0.526, 0.461, 0.548, 0.55, 0.561,
    ]  # fmt: skip
    part = frame[(frame["source"] == "here") & (frame["label"] == "Model F")]
    bar = ours.patches[6]
    assert (bar.get_y(), bar.get_height()) == pytest.approx((part["start"].mean(), part["gain"].mean()))
    hatched = [place for place, bar in enumerate(ours.patches) if bar.get_hatch()]
    assert hatched == [2, 5], "B and E were tried and left"


@pytest.mark.parametrize("failed", [("bertpp_model_d",), tuple(MODELS)])
def test_failed_runs_leave_marked_holes(failed: tuple[str, ...], lab: SimpleNamespace) -> None:
    results = study(failed=failed)
    steps = stepwise.step_frame(results)
    holes = [text.get_text() for text in drawn.waterfall(steps).axes[1].texts].count(" no value here")
    assert holes == (3 if len(failed) == 1 else 9), "D and what builds on it, E and F"
    for draw, frame in (
        (drawn.curves, stepwise.curve_frame(results, "overall")),
        (drawn.random_heads, stepwise.head_frame(results)),
    ):
        plots.save(lab, "01_hole", draw(frame), frame, "Caption.")


def test_one_epoch_and_one_seed_are_enough() -> None:
    axis = drawn.curves(stepwise.curve_frame(study(epochs=1), "overall")).axes[0]
    assert axis.get_xticks().tolist() == [1] and axis.get_title().startswith("one seed")


def test_the_waterfall_shows_noise_where_there_are_several_seeds_and_says_where_there_is_none() -> None:
    theirs, ours = drawn.waterfall(stepwise.step_frame(study(seeds=(0, 1, 2)))).axes
    assert "error bars" in ours.get_title() and "one run each" in theirs.get_title()
    assert len(ours.containers) > len(theirs.containers), "error bars are containers of their own"
    (_, alone) = drawn.waterfall(stepwise.step_frame(study())).axes
    assert "one seed: no noise known" in alone.get_title()
    assert not [line for line in alone.lines if line.get_marker() == "."]


def test_each_random_head_is_a_tick_below_the_share_of_draws_up_to_it() -> None:
    frame = stepwise.head_frame(study())
    figure = drawn.random_heads(frame)
    for axis, metric in zip(figure.axes, ("para_acc", "sts_corr", "overall"), strict=True):
        ticks = next(line for line in axis.lines if line.get_marker() == "|")
        assert sorted(ticks.get_xdata()) == pytest.approx(sorted(frame.loc[frame["metric"] == metric, "value"]))
        printed = next(line for line in axis.lines if line.get_linestyle() == "--")
        assert printed.get_xdata()[0] == MODELS["bertpp_baseline"].reported[metric]
