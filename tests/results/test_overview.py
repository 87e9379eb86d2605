"""All rows beside each other: order, paired effects, the front of costs, what choosing an epoch adds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from common.declare.effects import Effect
from common.declare.reported.contradictions import contradictions
from common.declare.rows import row, variant
from common.declare.spec import to_dict
from common.results import overview
from common.results.long import Baselines
from common.runs.record import Record
from common.runs.session import Results, RowResult

PAIR, APART, SINGLE = "swissbert_pair", "swissbert_no_extension", "siar_cosine_sts"
EFFECT = Effect("pair encoding", PAIR, APART)
METRICS = ("sst_acc", "para_acc", "sts_corr", "overall")


def result(of, *scores: tuple[float, ...], seconds: float = 1.0, curve: tuple[float, ...] = ()) -> RowResult:
    spec = to_dict(of.specs[0])
    history = [{"dev": {"overall": x}, "wall_s": seconds / len(curve)} for x in curve] or [
        {"dev": {}, "wall_s": seconds}
    ]
    records = tuple(
        Record(
            {"run_id": f"{of.id}-s{seed}", "spec": spec | {"seed": seed}, "history": history}
            | {"metrics": {"dev": dict(zip(METRICS, values, strict=True))}}
        )
        for seed, values in enumerate(scores)
    )
    return RowResult(of, records)


@pytest.fixture
def results() -> Results:
    return Results(
        {
            APART: result(row(APART), (0.4, 0.7, 0.3, 0.47), (0.42, 0.7, 0.32, 0.48), seconds=2.0, curve=(0.5, 0.47)),
            PAIR: result(row(PAIR), (0.45, 0.8, 0.8, 0.68), (0.45, 0.8, 0.84, 0.70), seconds=4.0, curve=(0.6, 0.7)),
            SINGLE: result(row(SINGLE), (0.2, 0.5, 0.9, 0.53), seconds=1.0, curve=(0.5, 0.53)),
        }
    )


@pytest.fixture(autouse=True)
def example_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "difference_error", lambda lab, pairs, metric: 0.01)


def test_the_scoreboard_has_the_best_first_and_marks_what_is_no_better_than_a_constant(results) -> None:
    constants = {"sst_acc": 0.41, "para_acc": 0.7, "sts_corr": 0.0, "overall": 0.37}
    frame = overview.scoreboard(results, Baselines(constants, Results()))
    assert frame["model"].tolist()[:2] == ["pair encoding", row(SINGLE).label]
    assert frame["model"].iloc[-1] == "best constant answer"
    best = frame.iloc[0]
    assert best["STS Pearson r"] == pytest.approx(0.82) and best["STS Pearson r sd"] == pytest.approx(
        np.std([1, 5]) / 100 * 2**0.5
    )
    assert frame.set_index("model").loc["no extension(finetune)", "at constant"] == "SST accuracy, Quora accuracy"


def test_an_effect_is_the_mean_of_the_seeds_differences_with_both_kinds_of_noise(results) -> None:
    frame = overview.effects_frame(None, results, [EFFECT]).set_index("metric")
    found = frame.loc["sts_corr"]
    assert found["estimate"] == pytest.approx(0.51) and found["seeds"] == 2
    assert found["low"] < 0.51 - 1.96 * 0.01 and found["high"] > 0.51 + 1.96 * 0.01
    assert frame.loc["sts_corr", "run_id"].split("+") == [f"{PAIR}-s0", f"{APART}-s0", f"{PAIR}-s1", f"{APART}-s1"]


def test_a_row_of_ones_own_is_judged_like_every_other(results) -> None:
    mine = variant(row(PAIR), "smaller rate", **{"optimizer.lr": 5e-6})
    results = Results(results | {mine.id: result(mine, (0.5, 0.8, 0.7, 0.67), (0.5, 0.8, 0.74, 0.69))})
    frame = overview.effects_frame(None, results, [Effect("smaller rate", mine.id, PAIR)]).set_index("metric")
    assert frame.loc["sts_corr", "estimate"] == pytest.approx(-0.1) and frame["label"].unique().tolist() == [mine.label]


def test_rows_that_were_not_run_have_no_effect(results) -> None:
    assert overview.effects_frame(None, Results(), [EFFECT]).empty


def test_a_contradiction_is_shown_with_the_effects_between_its_own_rows(results) -> None:
    joint = row("swissbert_pair_joint")
    results = Results({PAIR: results[PAIR], joint.id: result(joint, (0.45, 0.8, 0.8, 0.58), (0.45, 0.8, 0.8, 0.60))})
    frame = overview.effects_frame(None, results, [Effect("joint step", joint.id, PAIR)])
    table = overview.settled(contradictions(), frame).set_index("topic")["overall here"]
    speaks = {entry.topic for entry in contradictions() if {PAIR, joint.id} <= set(entry.rows)}
    assert speaks and all(table[topic].startswith("joint step (swissbert): -0.100 [") for topic in speaks)
    assert not any(text for topic, text in table.items() if topic not in speaks)


def test_the_front_of_costs_leaves_out_what_is_dearer_and_no_better(results) -> None:
    frame = overview.cost_frame(results).drop_duplicates("row").set_index("row")
    assert set(frame.index) == {PAIR, APART}, "a row of one task has no overall of its own"
    assert frame["on the front"].all() and frame.loc[PAIR, "seconds"] == pytest.approx(4.0)
    results = Results({APART: result(row(APART), (0, 0, 0, 0.8), curve=(0.8,)), PAIR: results[PAIR]})
    front = overview.cost_frame(results).drop_duplicates("row").set_index("row")["on the front"]
    assert front.to_dict() == {APART: True, PAIR: False}


def test_choosing_an_epoch_adds_what_the_last_one_lacks(results) -> None:
    frame = overview.choice_of_epoch(results).set_index("model")["gain of choosing"]
    assert frame.iloc[0] == pytest.approx(0.03) and frame.index[0] == row(APART).label
    assert frame["pair encoding"] == pytest.approx(0.0)


def added(method: str, estimate: float, half: float = 0.001, a: str = "a", also: str = "", seeds: int = 3) -> dict:
    ends = {"low": estimate - half, "high": estimate + half}
    known = {"method": method, "a": a, "also": also, "metric": "overall", "estimate": estimate, "seeds": seeds}
    return known | ends


def entering(*lines: dict) -> list[str]:
    frame = overview.recipe(pd.DataFrame(lines))
    return frame.loc[frame["enters"], "method"].tolist()


def test_a_method_enters_the_recipe_by_its_mean_over_clean_pairs_unless_one_shows_a_loss() -> None:
    assert entering(added("SMART", 0.02), added("SMART", 0.0), added("PALs", 0.005)) == ["SMART"]
    assert entering(added("SMART", 0.05), added("SMART", -0.01)) == [], "one interval lies below zero"
    assert entering(added("SMART", 0.05), added("SMART", -0.01, half=0.02)) == ["SMART"]
    assert entering(added("SMART", 0.0081)) == ["SMART"] and entering(added("SMART", 0.008)) == []
    assert entering(added("SMART", 0.05, also="more"), added("PALs", 0.05, seeds=1)) == []


def test_of_methods_that_exclude_each_other_the_more_helpful_enters_and_its_best_variant_is_named() -> None:
    cosine, pooling = added("cosine head", 0.02), added("mean pooling", 0.03)
    assert entering(cosine, added("pair encoding", 0.1), pooling) == ["pair encoding"]
    assert entering(cosine, added("pair encoding", 0.01), pooling) == ["mean pooling", "cosine head"]
    assert entering(cosine, pooling) == ["mean pooling", "cosine head"]
    frame = overview.recipe(pd.DataFrame([added("weights", 0.01, a="x"), added("weights", 0.03, a="y")]))
    assert frame["chosen pair"].tolist() == ["y"] and frame["mean"].iloc[0] == pytest.approx(0.02)


def test_a_settled_effect_says_whether_its_interval_decides() -> None:
    lines = [added("x", 0.02), added("x", -0.02), added("x", 0.0), added("x", 0.5, seeds=1)]
    words = [overview._decided(line) for line in pd.DataFrame(lines).itertuples()]
    assert words == ["a gain", "a loss", "inconclusive", "one seed"]


@pytest.fixture
def seven(monkeypatch: pytest.MonkeyPatch):
    """Seven rows of one seed whose answers a test gives: row number -> share of right answers in two tasks, and r."""

    def make(quality) -> Results:
        rng, of = np.random.default_rng(5), [f"r{number}" for number in range(7)]
        labels = {"sst": rng.integers(0, 5, 400), "para": rng.integers(0, 2, 400), "sts": rng.normal(size=400)}
        given = {}
        for number, name in enumerate(of):
            for task, truth in labels.items():
                wrong = rng.random(400) > quality(number)
                noise = rng.normal(size=400) * (1.5 - quality(number))
                given[name, task] = truth + noise if task == "sts" else np.where(wrong, -1, truth)
        monkeypatch.setattr(overview, "labels_card", lambda lab: labels)
        monkeypatch.setattr(overview, "answers", lambda lab, record, task: given[record.run_id, task])
        return Results({n: RowResult(row(PAIR), (Record({"run_id": n, "spec": {"seed": 0}}),)) for n in of})

    return make


def test_choosing_among_equal_settings_finds_a_lead_that_is_not_there(seven) -> None:
    line = overview.choice_of_setting(None, seven(lambda number: 0.6)).iloc[0]
    assert line["settings"] == 7 and line["seed"] == 0
    assert line["lead where chosen"] > 0.015 > abs(line["lead elsewhere"])
    assert line["optimism"] == pytest.approx(line["lead where chosen"] - line["lead elsewhere"])
    assert line["low"] < line["optimism"] < line["high"]


def test_a_setting_that_is_far_better_keeps_its_lead_on_other_examples(seven) -> None:
    line = overview.choice_of_setting(None, seven(lambda number: 0.9 if number == 3 else 0.4)).iloc[0]
    assert line["lead elsewhere"] > 0.2 and abs(line["optimism"]) < 0.01
