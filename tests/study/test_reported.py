"""The printed numbers are the report's own, and a damaged copy is refused with its place."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

import pytest

from common.data.tasks import TASKS
from common.errors import StudyError
from common.paths import ROOT
from common.study import reported
from common.study.rows import reports

FACTS = ROOT.parent / "shared" / "facts" / "reported.csv"
REPORTS = ROOT.parent / "shared" / "reports"
EXAMPLES = {example["id"]: example for report in reports() for example in reported.examples(report)}
# Printed in running text with a verdict, so that the collected facts have no line of them.
ADDED = {"slapbert_ex_para_1", *(f"gu_ex_para_{number}" for number in (1, 2, 3, 4))}


def facts() -> list[dict]:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    with FACTS.open(encoding="utf-8", newline="") as file:
        return [line for line in csv.DictReader(file) if line["report"] == "swissbert"]


def test_every_collected_number_is_in_our_copy_with_its_value() -> None:
    tables = [line for line in facts() if not line["table"].startswith("text_")]
    assert len(facts()) == 104
    for line in tables:
        ours = reported.printed("swissbert", line["table"], line["split"])[line["row_id"]][line["metric"]]
        assert ours == float(line["value"])
    # Each example sentence carries two of the collected numbers: the true label and the report's prediction.
    assert len(tables) + 2 * len(reported.examples("swissbert")) == 104


def test_all_432_collected_numbers_are_in_our_copy_in_their_order() -> None:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    with FACTS.open(encoding="utf-8", newline="") as file:
        theirs = [tuple(line.values()) for line in csv.DictReader(file)]
    names = ("report", "table", "row", "label", "split", "metric", "value")
    ours = [tuple(line[name] for name in names) for _, line in reported._lines("printed.csv", reported.PRINTED_COLUMNS)]
    assert len(ours) == 432 and sorted(ours) == sorted(theirs)
    for report in {line[0] for line in theirs}:
        assert [line for line in ours if line[0] == report] == [line for line in theirs if line[0] == report]


def test_every_number_has_a_section_and_every_metric_name_is_used() -> None:
    lines = [line for _, line in reported._lines("printed.csv", reported.PRINTED_COLUMNS)]
    assert all(line["section"] for line in lines)
    assert {line["metric"] for line in lines} == set(reported.METRICS)


def test_examples_have_the_collected_texts_labels_and_predictions() -> None:
    """The collected facts cut long sentences short with an ellipsis and read damaged numbers in two ways."""
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    with FACTS.open(encoding="utf-8", newline="") as file:
        collected = [line for line in csv.DictReader(file) if "_ex_" in line["row_id"] or "_example_" in line["row_id"]]
    models = {"example_prediction": "", "pred_non_reg": "without SMART", "pred_reg": "with SMART"}
    for line in collected:
        example = EXAMPLES[line["row_id"]]
        printed = re.sub("^(SST|Para|STS): ", "", line["row_label"]).split(" / ")
        for ours, theirs in zip(example["texts"], printed, strict=True):
            assert ours.startswith(theirs.removesuffix(" ..."))
        metric, _, damaged = line["metric"].partition("_ocr")
        if metric == "example_true_label":
            assert example["label"] == float(line["value"])
        else:
            assert example["reported"][models[metric]] == (None if damaged else float(line["value"]))
    assert len(collected) == 66
    assert {line["row_id"] for line in collected} | ADDED == set(EXAMPLES)


def test_examples_stand_word_for_word_in_their_reports() -> None:
    if not REPORTS.exists():
        pytest.skip("the texts of the reports are not beside this checkout")
    straight = str.maketrans("“”’", '""\'')
    for report in reports():
        text = " ".join((REPORTS / f"{report}.txt").read_text(encoding="utf-8").translate(straight).split())
        for example in reported.examples(report):
            # The scan of siar A.2 moves one closing stop into the next column.
            wanted = [sentence.removesuffix(" .") for sentence in example["texts"]]
            assert all(sentence in text for sentence in wanted), example["id"]


def test_labels_and_predictions_of_examples_are_in_their_range() -> None:
    for example in EXAMPLES.values():
        assert len(example["texts"]) == len(TASKS[example["task"]].text_columns)
        numbers = [number for number in (example["label"], *example["reported"].values()) if number is not None]
        if TASKS[example["task"]].kind == "classes":
            assert set(numbers) <= set(range(TASKS[example["task"]].num_classes)), example["id"]
        else:
            assert all(0 <= number <= 5 for number in numbers), example["id"]


def test_labels_and_splits_are_those_of_one_table() -> None:
    assert reported.splits("swissbert", "table4") == ["dev", "test"]
    assert reported.labels("swissbert", "table4", "dev")["swissbert_final"].endswith("Dev Leaderboard")
    assert reported.splits("swissbert", "table9") == [] and reported.labels("swissbert", "table9") == {}


def test_printed_overall_is_the_mean_of_the_three_printed_metrics() -> None:
    for table in ("table2", "table3", "table4"):
        for metrics in reported.printed("swissbert", table).values():
            mean = (metrics["sst_acc"] + metrics["para_acc"] + metrics["sts_corr"]) / 3
            assert metrics["overall"] == pytest.approx(mean, abs=0.0005 + 1e-9)  # half of the last printed digit


def test_unknown_table_is_refused() -> None:
    with pytest.raises(StudyError, match="no numbers of swissbert table9"):
        reported.printed("swissbert", "table9")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("printed.csv", ",0.334,", ",0.33x,", r"printed.csv:6: '0.33x' is no number"),
        ("printed.csv", ",0.334,", ",nan,", r"printed.csv:6: 'nan' is not finite"),
        ("printed.csv", "dev,sst_acc,0.334", "dev,sst,0.334", r"printed.csv:6: metric 'sst'"),
        ("printed.csv", "dev,para_acc,0.649", "dev,sst_acc,0.649", r"printed.csv:7: .* has sst_acc twice"),
        ("printed.csv", "value,section", "section,value", r"printed.csv:1: columns"),
        ("printed.csv", "dev,sst_acc,0.334,", "dev,sst_acc,0.334,,", r"printed.csv:6: 9 fields, expected 8"),
        ("examples.csv", "money.,,,with SMART,3", "money.,,,without SMART,3", "siar_sst_example_3 stands twice"),
        ("examples.csv", "money.,,,with SMART,3", "money.,,2,with SMART,3", "siar_sst_example_3 stands twice"),
        ("examples.csv", "money.,,,with SMART,3", "money.,,,with SMART,three", "'three' is no number"),
    ],
)
def test_damaged_copy_is_refused_with_its_place(
    name: str, old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported(name, old, new)
    with pytest.raises(StudyError, match=message):
        reported.printed("swissbert", "table2")
        reported.examples("siar")
