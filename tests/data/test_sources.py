"""`common.data.sources`: one loader, three sources, the same corpus whatever the files look like."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.data import sources
from common.declare.tasks import TASKS
from common.errors import StudyError

SST = "\tid\tsentence\tsentiment\n0\ta1\tA fine film .\t3\n1\ta2\tA dull film .\t1\n"
PARA = "\tid\tsentence1\tsentence2\tis_duplicate\n5\tb1\tHow far ?\tWhat distance ?\t1.0\n9\tb2\tWho ?\tWhen ?\t0.0\n"
STS = "\tid\tsentence1\tsentence2\tsimilarity\n7\tc1\tA dog runs.\tA dog is running.\t4.6\n8\tc2\tA cat.\tA car.\t0\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem, content in (("ids-sst", SST), ("quora", PARA), ("sts", STS)):
        for split in ("train", "dev"):
            write(tmp_path / f"{stem}-{split}.csv", content)
    return tmp_path


def test_the_real_folder_has_exactly_the_known_sizes(cs224n: Path) -> None:
    corpus = sources.load(cs224n)
    sizes = {task: {split: len(rows) for split, rows in splits.items()} for task, splits in corpus.items()}
    assert sizes == {
        "sst": {"train": 8544, "dev": 1101, "test": 2210},
        "para": {"train": 48995, "dev": 20212},
        "sts": {"train": 6040, "dev": 863, "test": 1725},
        "cfimdb": {"train": 1707, "dev": 245, "test": 488},
    }
    left_out = {rows.left_out for splits in corpus.values() for rows in splits.values()}
    assert left_out == {(), ("ad118c967d683c93883bf072d", "9054345d02cd6c5642a4904dc")}
    assert corpus["para"]["dev"].left_out
    assert int(corpus["para"]["dev"].labels.sum()) == 7585
    assert all(splits["test"].labels is None for splits in corpus.values() if "test" in splits)


def test_fingerprint_of_the_real_folder_is_the_recorded_one(cs224n: Path) -> None:
    # Golden values: computed once from the files whose sizes and texts the tests above hold.
    assert {task: value[:12] for task, value in sources.fingerprint(sources.load(cs224n)).items()} == {
        "sst": "ab27d3933dcc",
        "para": "5f205b0544fc",
        "sts": "219e9f536d15",
        "cfimdb": "321fc1cdf199",
    }


def test_a_folder_without_optional_files_is_read(folder: Path) -> None:
    corpus = sources.load(str(folder))
    assert set(corpus) == {"sst", "para", "sts"}
    assert set(corpus["sst"]) == {"train", "dev"}
    assert corpus["sst"]["dev"].texts == (("A fine film .", "A dull film ."),)
    assert corpus["sts"]["train"].texts == (("A dog runs.", "A cat."), ("A dog is running.", "A car."))
    np.testing.assert_array_equal(corpus["sts"]["train"].labels, [4.6, 0.0])
    assert corpus["para"]["train"].labels.tolist() == [1, 0]
    assert corpus["para"]["train"].labels.dtype == np.int64


def test_a_missing_file_is_named_with_what_is_there(folder: Path) -> None:
    (folder / "sts-dev.csv").rename(folder / "sts_dev.csv")
    with pytest.raises(StudyError, match=r"missing sts-dev.csv; found .*sts_dev.csv.*\[E-FILE\]"):
        sources.load(folder)


def test_half_of_the_optional_set_is_refused(folder: Path) -> None:
    write(folder / "ids-cfimdb-train.csv", SST)
    with pytest.raises(StudyError, match=r"missing ids-cfimdb-dev.csv.*\[E-FILE\]"):
        sources.load(folder)


def test_an_unknown_folder_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no such folder \[E-FILE\].*embedded.*hub"):
        sources.load(tmp_path / "nowhere")


def test_a_file_where_a_folder_is_expected_is_refused(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"a file, not a folder \[E-FILE\]"):
        sources.load(folder / "sts-dev.csv")


def test_source_names_hold_no_path() -> None:
    assert [sources.name(s) for s in ("embedded", "hub", "hub:/a/b", "/a/b/cs224n", Path("data"))] == [
        "embedded",
        "hub",
        "hub",
        "cs224n",
        "cs224n",
    ]


def test_the_embedded_corpus_has_every_task_and_split() -> None:
    corpus = sources.load("embedded")
    assert set(corpus) == set(TASKS)
    for task, splits in corpus.items():
        assert {"train", "dev"} <= set(splits) <= {"train", "dev", "test"}
        assert all(len(rows.texts) == len(TASKS[task].text_columns) for rows in splits.values())
        labels = splits["train"].labels
        assert labels.min() >= TASKS[task].low and labels.max() <= TASKS[task].high


def test_importing_the_loader_stays_light() -> None:
    code = "import sys, common.data.sources; print([m for m in ('torch', 'pandas', 'datasets') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data.rstrip(b"\n"),
        lambda data: data + b"\n\n",
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n").rstrip(b"\r\n"),
    ],
    ids=["bom", "crlf", "cr", "no-final-newline", "blank-lines-at-the-end", "all"],
)
def test_byte_order_mark_and_line_endings_change_nothing(folder: Path, change) -> None:
    quoted = PARA + '3\tb3\t"two\nlines"\tWhere ?\t1.0\n'
    before = sources.load(write(folder / "quora-dev.csv", quoted).parent)
    for path in folder.glob("*.csv"):
        path.write_bytes(change(path.read_bytes()))
    after = sources.load(folder)
    assert sources.fingerprint(after) == sources.fingerprint(before)
    assert after["para"]["dev"].texts == before["para"]["dev"].texts
    assert after["para"]["dev"].texts[0][-1] == "two\nlines"


@pytest.mark.parametrize(
    ("old", "new"), [("a1", "a9"), ("fine", "fin"), ("\t3\n", "\t2\n"), ("1\ta2\tA dull film .\t1\n", "")]
)
def test_fingerprint_changes_with_every_part_of_a_row(folder: Path, old: str, new: str) -> None:
    before = sources.fingerprint(sources.load(folder))
    write(folder / "ids-sst-dev.csv", SST.replace(old, new, 1))
    after = sources.fingerprint(sources.load(folder))
    assert after["sst"] != before["sst"]
    assert after["para"] == before["para"]
    assert re.fullmatch("[0-9a-f]{64}", after["sst"])


def test_fingerprint_does_not_run_fields_together(folder: Path) -> None:
    before = sources.fingerprint(sources.load(folder))
    write(folder / "quora-dev.csv", PARA.replace("How far ?\tWhat", "How far\t? What"))
    assert sources.fingerprint(sources.load(folder))["para"] != before["para"]


def test_fingerprint_equals_its_definition(folder: Path) -> None:
    rows = '"dev"\n["a1", "A fine film .", 3]\n["a2", "A dull film .", 1]\n'
    expected = hashlib.sha256((rows + rows.replace("dev", "train")).encode()).hexdigest()
    assert sources.fingerprint(sources.load(folder))["sst"] == expected
