"""`common.data.hub`: real DatasetDicts, saved by `datasets` itself in a local folder."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import pytest

from common.data import hub, sources
from common.errors import StudyError

# Columns, label features and the -1 of withheld labels are those of SetFit/sst5 and nyu-mll/glue.
QQP_LABEL = datasets.ClassLabel(names=["not_duplicate", "duplicate"])
QQP = datasets.Features(
    {"question1": datasets.Value("string"), "question2": datasets.Value("string"), "label": QQP_LABEL}
    | {"idx": datasets.Value("int32")}
)


def sst5(count: int) -> dict[str, list]:
    return {
        "text": [f"film {i}" for i in range(count)],
        "label": [i % 5 for i in range(count)],
        "label_text": ["x"] * count,
    }


def qqp(labels: list[int], first: str = "Who ?") -> dict[str, list]:
    count = len(labels)
    return {"question1": [first] * count, "question2": ["NA"] * count, "label": labels, "idx": list(range(count))}


def stsb(labels: list[float]) -> dict[str, list]:
    count = len(labels)
    return {
        "sentence1": ["A dog."] * count,
        "sentence2": ["A cat."] * count,
        "label": labels,
        "idx": list(range(count)),
    }


def save(folder: Path, name: str, features: datasets.Features | None = None, **splits: dict[str, list]) -> None:
    made = {split: datasets.Dataset.from_dict(rows, features=features) for split, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder / name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, "sst5", train=sst5(6), validation=sst5(5), test=sst5(4))
    save(tmp_path, "qqp", QQP, train=qqp([0, 1, 1]), validation=qqp([1, 0]), test=qqp([-1, -1]))
    save(tmp_path, "stsb", train=stsb([5.0, 0.0, 3.8]), validation=stsb([2.25]), test=stsb([-1.0, -1.0]))
    return tmp_path


def test_a_saved_hub_folder_is_read_whole(folder: Path) -> None:
    corpus = sources.load(f"hub:{folder}")
    sizes = {task: {split: len(rows) for split, rows in splits.items()} for task, splits in corpus.items()}
    assert sizes == {
        "sst": {"train": 6, "dev": 5, "test": 4},
        "para": {"train": 3, "dev": 2, "test": 2},
        "sts": {"train": 3, "dev": 1, "test": 2},
    }
    assert corpus["sst"]["dev"].labels.tolist() == [0, 1, 2, 3, 4]
    assert corpus["para"]["train"].texts == (("Who ?",) * 3, ("NA",) * 3)
    assert corpus["para"]["dev"].labels.tolist() == [1, 0]
    assert corpus["sts"]["train"].labels.tolist() == [5.0, 0.0, 3.8]
    assert corpus["sts"]["dev"].ids == ("stsb-validation-0",)


def test_withheld_labels_of_glue_tests_are_none(folder: Path) -> None:
    corpus = sources.load(f"hub:{folder}")
    assert corpus["para"]["test"].labels is None
    assert corpus["sts"]["test"].labels is None
    assert corpus["sst"]["test"].labels.tolist() == [0, 1, 2, 3]


def test_a_blank_text_is_left_out_by_id(folder: Path) -> None:
    rows = qqp([0, 1, 1])
    rows["question2"][1] = " "
    save(folder, "qqp", QQP, train=rows, validation=qqp([1]))
    train = sources.load(f"hub:{folder}")["para"]["train"]
    assert (train.ids, train.left_out) == (("qqp-train-0", "qqp-train-2"), ("qqp-train-1",))
    assert train.labels.tolist() == [0, 1]


def test_a_partly_withheld_label_is_refused(folder: Path) -> None:
    save(folder, "qqp", QQP, train=qqp([0, -1, 1]), validation=qqp([1]))
    with pytest.raises(StudyError, match=r"qqp:train:label: row 1: '-1' is not allowed.*\[E-LABEL\]"):
        sources.load(f"hub:{folder}")


def test_a_renamed_column_gets_a_suggestion(folder: Path) -> None:
    rows = stsb([1.0])
    rows["sentence_1"] = rows.pop("sentence1")
    save(folder, "stsb", train=rows, validation=stsb([1.0]))
    with pytest.raises(StudyError, match=r"no column 'sentence1'; .*did you mean 'sentence_1'\? \[E-COLUMN\]"):
        sources.load(f"hub:{folder}")


def test_a_missing_split_is_named(folder: Path) -> None:
    save(folder, "sst5", train=sst5(3), test=sst5(2))
    with pytest.raises(StudyError, match=r"no split validation; found train, test \[E-FILE\]"):
        sources.load(f"hub:{folder}")


def test_a_single_dataset_is_refused(folder: Path) -> None:
    datasets.Dataset.from_dict(sst5(3)).save_to_disk(str(folder / "one" / "sst5"))
    with pytest.raises(StudyError, match=r"one Dataset, where a DatasetDict .*\[E-FILE\]"):
        sources.load(f"hub:{folder / 'one'}")


def test_a_folder_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere/sst5: not a saved dataset.*\[E-FILE\].*save_to_disk"):
        sources.load(f"hub:{tmp_path / 'nowhere'}")


def test_offline_the_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # conftest.py sets HF_HUB_OFFLINE, so this is what a reader without a network meets; the cache is kept out of it.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(StudyError, match=r"SetFit/sst5 \(default\): the hub gave no data.*\[E-HUB\].*embedded"):
        sources.load("hub")


def test_every_hub_set_has_a_full_revision() -> None:
    assert all(re.fullmatch("[0-9a-f]{40}", source.revision) for source in hub.HUB_SETS.values())
