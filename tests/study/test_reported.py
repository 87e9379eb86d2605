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
# Printed in running text with a verdict, or in SlapBERT's Table 5, so that the collected facts have no line of them.
SAMPLES = {f"slapbert_sample_{task}" for task in ("sst", "para", "sts")}
ADDED = {"slapbert_ex_para_1", *(f"gu_ex_para_{number}" for number in (1, 2, 3, 4)), *SAMPLES}
# What the collection lacks, from the lines of the reports' texts: row, split, metric, value.
ADDED_NUMBERS = [
    ("siar_cosine_sts", "train", "train_time_min", "30"),  # siar 120, "only 30 minutes"
    ("siar_mtl_smart", "train", "train_time_min", "360"),  # siar 122, "nearly 6 hours"
    ("slapbert_tsne_pairs", "dev", "n_embeddings", "50"),  # slapbert 273, the title of Figure 7
    ("slapbert_sample_sst", "dev", "example_true_label", "1"),  # slapbert 262 to 264, Table 5
    ("slapbert_sample_para", "dev", "example_true_label", "1.0"),
    ("slapbert_sample_sts", "dev", "example_true_label", "5"),
]
# Sizes, from the lines of the reports' texts: report, section, corpus, part, what, count. BERT++'s splits and label
# counts (bertpp 74, 84, 88) are compared with the data in notebook 00.
SIZES = [
    ("bertpp", "4.1", "imdb", "all", "rows", 50000),  # bertpp 72
    ("bertpp", "4.1", "imdb", "train", "rows", 25000),
    ("bertpp", "4.1", "imdb", "test", "rows", 25000),
    ("bertpp", "4.1", "imdb", "unlabelled", "rows", 50000),
    ("bertpp", "4.1", "imdb", "unlabelled", "rows taken", 10000),
    ("bertpp", "4.1", "mnli", "all", "rows", 392702),
    ("bertpp", "4.1", "sick", "all", "rows", 10000),
    ("bertpp", "4.1", "sick", "train", "rows taken", 4439),
    ("bertpp", "4.1", "sst", "all", "rows", 11855),  # bertpp 74
    ("bertpp", "4.1", "para", "all", "rows", 400000),
    ("bertpp", "4.1", "sts", "all", "rows", 8628),  # bertpp 84
    ("bertpp", "4.3.2", "imdb", "unlabelled", "rows taken", 50000),  # bertpp 109
    ("bertpp", "4.3.2", "mnli", "all", "rows taken", 20000),
    ("bertpp", "4.3.2", "sick", "train", "rows taken", 4439),
    ("bertpp", "A, Table 4", "imdb", "unlabelled", "rows taken", 10000),  # bertpp 270
    ("bertpp", "A, Table 4", "mnli", "all", "rows taken", 20000),
    ("bertpp", "A, Table 4", "sick", "train", "rows taken", 4500),
    ("gu", "5.1", "sst", "all", "rows", 11855),  # gu 119 to 121
    ("gu", "5.1", "para", "all", "rows", 400000),
    ("gu", "5.1", "sts", "all", "rows", 8628),
    ("gu", "5.1", "sts", "all", "scores off steps of 0.2", 0),
    ("siar", "5.1", "sst", "all", "rows", 11855),  # siar 100
    ("siar", "5.1", "sst", "all", "phrases", 215154),
    ("siar", "5.1", "cfimdb", "all", "rows", 2434),
    ("siar", "5.1", "para", "all", "rows", 400000),
    ("siar", "5.1", "sts", "all", "rows", 8628),
    ("slapbert", "5.1", "sst", "all", "rows", 11855),  # slapbert 135
    ("slapbert", "5.1", "para", "all", "rows", 400000),
    ("slapbert", "5.1", "sts", "all", "rows", 8628),
    ("slapbert", "6", "sst", "dev", "rows", 1101),  # slapbert 205
]


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


def test_numbers_that_the_collection_lacks_are_the_listed_ones() -> None:
    names = ("row", "split", "metric", "value")
    ours = [tuple(line[name] for name in names) for _, line in reported._lines("printed.csv", reported.PRINTED_COLUMNS)]
    assert len(ours) == 438 and [line for line in ours if line in ADDED_NUMBERS] == ADDED_NUMBERS
    assert (
        reported.printed("slapbert", "table5").keys() == SAMPLES == {n for n in EXAMPLES if not EXAMPLES[n]["reported"]}
    )
    for name, metrics in reported.printed("slapbert", "table5").items():
        assert metrics == {"example_true_label": EXAMPLES[name]["label"]}


def test_stated_sizes_are_the_listed_ones_beside_the_splits_and_label_counts_of_one_report() -> None:
    names = ("report", "section", "task", "split", "what", "stated")
    ours = [tuple(fact[name] for name in names) for fact in reported.stated()]
    assert len(ours) == 46 and [fact for fact in ours if fact in SIZES] == SIZES
    assert {(*fact[:3], fact[4][:5]) for fact in ours if fact not in SIZES} == {
        *(("bertpp", "4.1", task, "rows") for task in ("sst", "para", "sts")),
        *(("bertpp", "4.2", task, "label") for task in ("sst", "para")),
    }


def test_all_432_collected_numbers_are_in_our_copy_in_their_order() -> None:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    with FACTS.open(encoding="utf-8", newline="") as file:
        theirs = [tuple(line.values()) for line in csv.DictReader(file)]
    names = ("report", "table", "row", "label", "split", "metric", "value")
    ours = [tuple(line[name] for name in names) for _, line in reported._lines("printed.csv", reported.PRINTED_COLUMNS)]
    ours = [line for line in ours if (line[2], *line[4:]) not in ADDED_NUMBERS]
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
        text = text.replace("Cap- ricorn", "Capricorn")  # parted at the end of a line of Table 5
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
        (
            "stated.csv",
            "siar,5.1,cfimdb,all,rows",
            "siar,5.1,imdb review,all,rows",
            r"stated.csv:41: task 'imdb review'",
        ),
        ("stated.csv", "siar,5.1,cfimdb,all,rows", "siar,5.1,cfimdb,whole,rows", r"stated.csv:41: split 'whole'"),
        ("stated.csv", "siar,5.1,cfimdb,all,rows", "siar,5.1,cfimdb,all,reviews", r"stated.csv:41: what 'reviews'"),
        ("stated.csv", "all,rows,2434", "all,rows,2434.5", r"stated.csv:41: '2434.5' is no count"),
        (
            "stated.csv",
            "siar,5.1,cfimdb,all,rows",
            "siar,5.1,sst,all,rows",
            r"stated.csv:41: siar, 5.1, .* stands twice",
        ),
    ],
)
def test_damaged_copy_is_refused_with_its_place(
    name: str, old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported(name, old, new)
    with pytest.raises(StudyError, match=message):
        reported.printed("swissbert", "table2")
        reported.examples("siar")
        reported.stated()
