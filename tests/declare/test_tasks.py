"""`common.declare.tasks`: the four tasks as the starter and the reports define them."""

from __future__ import annotations

from common.declare.tasks import TASKS


def test_the_four_tasks_are_keyed_by_name() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {n: n for n in ("sst", "para", "sts", "cfimdb")}


def test_classes_fill_the_label_range_and_scores_have_none() -> None:
    for task in TASKS.values():
        if task.kind == "classes":
            assert (task.low, task.high, task.metric) == (0, task.num_classes - 1, "accuracy")
        else:
            assert (task.kind, task.num_classes, task.metric) == ("score", None, "pearson")


def test_train_sizes_are_those_of_the_reports() -> None:
    sizes = {name: task.report_train for name, task in TASKS.items()}
    assert sizes == {"sst": 8544, "para": 141498, "sts": 6040, "cfimdb": 1707}
