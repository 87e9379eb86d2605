"""Frames of the stepwise search against the report's own Table 1, plain loops and results made by hand."""

from __future__ import annotations

import math
import statistics

import pytest

from common.spec import to_dict
from common.study import rows, stepwise
from common.study.session import Results, RowResult

MODELS = {row.id: row for row in rows("bertpp", "table2")}
# BERT++, Table 1, read off the page.
TABLE_1 = {
    "Baseline": "",
    "Model A": "AdjLayers",
    "Model B": "AdjLayers AddPretrain",
    "Model C": "AdjLayers MulFinetune",
    "Model D": "AdjLayers MulFinetune GradSurg",
    "Model E": "AdjLayers MulFinetune GradSurg CosSim",
    "Model F": "AdjLayers MulFinetune GradSurg HyperTune",
    "Model G": "AdjLayers AddPretrain MulFinetune GradSurg HyperTune",
    "Model H": "AdjLayers AddPretrain MulFinetune GradSurg HyperTune CycTrain",
}
PARTS = {"sst": "sst_acc", "para": "para_acc", "sts": "sts_corr"}
HEADS = {"para_acc": [0.375, 0.5, 0.625], "sts_corr": [-0.1, 0.02, None]}


def scores(number: int, seed: int, epoch: int) -> dict[str, float]:
    """Three metrics that tell model, seed and epoch apart."""
    base = 0.3 + 0.02 * number + 0.003 * seed + 0.001 * epoch
    return {"sst_acc": base, "para_acc": base + 0.2, "sts_corr": base - 0.1}


def with_overall(values: dict[str, float]) -> dict[str, float]:
    return values | {"overall": sum(values[name] for name in PARTS.values()) / 3}


def record(row_id: str, seed: int, epochs: int) -> dict:
    """A record of that row as a run writes it: an epoch holds the dev scores of the trained tasks alone."""
    number, spec = list(MODELS).index(row_id), MODELS[row_id].specs[0]
    trained = [task.name for task in spec.trained_tasks]
    history = []
    for epoch in range(1, epochs + 1):
        dev = {PARTS[task]: scores(number, seed, epoch)[PARTS[task]] for task in trained}
        dev["overall"] = with_overall(dev)["overall"] if len(trained) == 3 else None
        losses = {task: place + 1 / epoch + number for place, task in enumerate(trained)}
        history.append({"epoch": epoch, "train_loss": losses, "dev": dev})
    made = {"run_id": f"{row_id}-s{seed}", "spec": to_dict(spec) | {"seed": seed}, "history": history}
    made["metrics"] = {"dev": with_overall(scores(number, seed, epochs))}
    return made | {"untrained_heads": HEADS if len(trained) == 1 else {}}


def study(seeds: tuple[int, ...] = (0, 1), epochs: int = 3, failed: tuple[str, ...] = ()) -> Results:
    found = {
        name: RowResult(row, () if name in failed else tuple(record(name, seed, epochs) for seed in seeds))
        for name, row in MODELS.items()
    }
    return Results(found)


def test_ticks_derived_from_the_specs_are_those_of_the_report() -> None:
    frame = stepwise.tick_frame(MODELS.values()).set_index("model")
    found = {model: " ".join(name for name in stepwise.TICKS if line[name]) for model, line in frame.iterrows()}
    assert found == TABLE_1


def test_tick_table_shows_what_changes_without_a_tick() -> None:
    frame = stepwise.tick_frame(MODELS.values()).set_index("model")
    assert frame["batch"].tolist() == [8, 8, 16, 8, 16, 16, 16, 16, 16]
    assert frame.loc["Model G", "dropout"] == "SST 0.3, Quora 0.8, STS 0.3"
    assert frame["trained on"].tolist() == ["SST", *["SST, Quora, STS"] * 8]


@pytest.mark.parametrize("metric", ["sst_acc", "sts_corr", "overall", "sst_loss", "sts_loss", "total_loss"])
@pytest.mark.parametrize(("seeds", "epochs"), [((0, 1), 3), ((0,), 1)])
def test_curves_have_one_line_per_model_seed_and_epoch_with_its_value(metric: str, seeds: tuple, epochs: int) -> None:
    frame = stepwise.curve_frame(study(seeds, epochs), metric)
    expected = {}
    for number, name in enumerate(MODELS):
        has_all_losses = number > 0
        for seed in seeds:
            for epoch in range(1, epochs + 1):
                dev = with_overall(scores(number, seed, epoch))
                if number == 0:  # two heads are untrained: they stay where they end
                    final = scores(0, seed, epochs)
                    dev = with_overall(dev | {"para_acc": final["para_acc"], "sts_corr": final["sts_corr"]})
                losses = {"sst_loss": 1 / epoch + number}
                if has_all_losses:
                    losses |= {"sts_loss": 2 + 1 / epoch + number, "total_loss": 3 * (1 + 1 / epoch + number)}
                if metric in dev | losses:
                    expected[name, seed, epoch] = (dev | losses)[metric]
    found = {(line.row, line.seed, line.epoch): line.value for line in frame.itertuples()}
    assert len(found) == len(frame) and found == pytest.approx(expected)


def test_a_constant_score_without_correlation_leaves_a_hole_and_no_zero() -> None:
    results = study((0,), 2)
    results["bertpp_model_a"].records[0]["history"][0]["dev"] |= {"sts_corr": None, "overall": None}
    for metric in ("sts_corr", "overall"):
        frame = stepwise.curve_frame(results, metric)
        assert frame[frame["row"] == "bertpp_model_a"]["epoch"].tolist() == [2]


def test_losses_of_cosines_are_marked_wherever_they_stand() -> None:
    for metric, marked in (("sts_loss", ["Model E"]), ("total_loss", ["Model E"]), ("sst_loss", []), ("sts_corr", [])):
        frame = stepwise.curve_frame(study(), metric)
        assert frame.loc[frame["scored_on"] == "cosines", "label"].unique().tolist() == marked


def test_the_way_to_the_best_model_follows_the_bases() -> None:
    frame = stepwise.step_frame(study()).drop_duplicates("label").set_index("label")
    assert frame.index[frame["role"] == stepwise.LEFT].tolist() == ["Model B", "Model E"]
    assert frame.index[frame["role"] == stepwise.START].tolist() == ["Baseline"]
    assert frame.loc["Model F", "over"] == "Model D"


def test_steps_are_differences_to_the_base_within_one_seed_and_as_printed() -> None:
    frame = stepwise.step_frame(study()).set_index(["label", "source", "seed"])
    printed = frame.xs("report", level="source")["gain"].droplevel("seed")
    # Table 2: D - C, F - D (not F - E), G - F.
    assert printed["Model D"] == pytest.approx(0.526 - 0.449)
    assert printed["Model F"] == pytest.approx(0.548 - 0.526)
    assert printed["Baseline"] == pytest.approx(0.256)
    for seed in (0, 1):
        one, base = (with_overall(scores(number, seed, 3))["overall"] for number in (6, 4))
        line = frame.loc["Model F", "here", seed]
        assert (line["start"], line["stop"], line["gain"]) == pytest.approx((base, one, one - base))


def test_a_failed_base_leaves_the_step_out_and_the_report_in() -> None:
    frame = stepwise.step_frame(study(failed=("bertpp_model_d",)))
    without = frame[frame["source"] == "here"]
    assert not {"Model D", "Model E", "Model F"} & set(without["label"]) and "Model G" in set(without["label"])
    assert set(frame.loc[frame["source"] == "report", "label"]) == set(TABLE_1)


def test_heads_are_scored_draw_by_draw_against_the_best_model_of_the_same_seed() -> None:
    frame = stepwise.head_frame(study()).set_index(["seed", "draw", "metric"])
    for seed in (0, 1):
        sst = scores(0, seed, 3)["sst_acc"]
        best = with_overall(scores(8, seed, 3))["overall"]
        mine = (sst + 0.5 + 0.02) / 3
        line = frame.loc[seed, 2, "overall"]
        assert (line["value"], line["gain_percent"]) == pytest.approx((mine, 100 * (best - mine) / mine))
    assert (0, 3, "sts_corr") not in frame.index and (0, 3, "overall") not in frame.index
    assert math.isnan(frame.loc[0, 1, "sts_corr"]["gain_percent"]), "no percentage of a negative correlation"


def test_head_table_gives_the_range_over_the_draws() -> None:
    gains = {"pct_gain_para_acc_vs_baseline": 80.32}
    table = stepwise.head_table(stepwise.head_frame(study((0,))), gains).set_index(("", "metric"))
    line = table.loc["Quora accuracy"]
    assert line["", "random heads"] == 3
    drawn = HEADS["para_acc"]
    wanted = [0.437, min(drawn), statistics.median(drawn), max(drawn)]
    assert line["baseline"].tolist() == pytest.approx(wanted)
    best = scores(8, 0, 3)["para_acc"]
    percents = sorted(100 * (best / value - 1) for value in drawn)
    assert line["gain in percent"].tolist() == pytest.approx([80.32, *percents])
    assert table["", "random heads"]["STS Pearson r"] == 2


def test_batches_under_cycling_are_the_printed_ones_at_batch_eight() -> None:
    """141,498 pairs and 6,040 in batches of 8: 17,688 and 755, 22.43 times as many more."""
    frame = stepwise.batch_frame()
    assert frame["printed"].tolist() == frame["at batch 8"].tolist() == [755, 17688, 2243]
    assert frame["at batch 16"].tolist() == [378, 8844, 2240]


def test_nothing_finished_gives_frames_without_lines() -> None:
    results = study(failed=tuple(MODELS))
    assert stepwise.curve_frame(results, "sts_corr").empty and stepwise.head_frame(results).empty
    assert set(stepwise.step_frame(results)["source"]) == {"report"}
    assert stepwise.head_table(stepwise.head_frame(results), {}).empty
