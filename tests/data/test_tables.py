"""`common.data.tables`: a file is read exactly, or refused with place and remedy."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data import tables
from common.data.sources import FILES
from common.data.split import Split
from common.declare.tasks import TASKS
from common.errors import StudyError

SST = "\tid\tsentence\tsentiment\n0\ta1\tA fine film .\t3\n1\ta2\tA dull film .\t1\n"
PARA = "\tid\tsentence1\tsentence2\tis_duplicate\n5\tb1\tHow far ?\tWhat distance ?\t1.0\n9\tb2\tWho ?\tWhen ?\t0.0\n"
STS = "\tid\tsentence1\tsentence2\tsimilarity\n7\tc1\tA dog runs.\tA dog is running.\t4.6\n8\tc2\tA cat.\tA car.\t0\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, content: str | bytes, task: str = "sst", is_labelled: bool = True) -> Split:
    return tables.read_table(write(path / "x.csv", content), TASKS[task], is_labelled)


def refuse(path: Path, content: str | bytes, task: str = "sst") -> StudyError:
    with pytest.raises(StudyError) as caught:
        read(path, content, task)
    return caught.value


@pytest.mark.parametrize("task", sorted(FILES))
def test_real_texts_equal_what_dictreader_gives(cs224n: Path, task: str) -> None:
    for split, file in FILES[task].items():
        if not (cs224n / file).is_file():
            continue
        rows = tables.read_table(cs224n / file, TASKS[task], is_labelled=split != "test")
        with open(cs224n / file, encoding="utf-8", newline="") as handle:
            plain = [row for row in csv.DictReader(handle, delimiter="\t") if row["id"] not in rows.left_out]
        assert rows.ids == tuple(row["id"] for row in plain)
        for column, texts in zip(TASKS[task].text_columns, rows.texts, strict=True):
            assert texts == tuple(row[column] for row in plain)
        # A second count that knows nothing of csv: no field of these files holds a line break.
        assert len(rows) + len(rows.left_out) == (cs224n / file).read_bytes().count(b"\n") - 1


@pytest.mark.parametrize("text", ["NA", "null", "None", "nan", "N/A", " leading space", 'inch 5" wide', "1", "#N/A"])
def test_texts_stay_text(tmp_path: Path, text: str) -> None:
    split = read(tmp_path, f"\tid\tsentence\tsentiment\n0\t{text}\t{text}\t3\n")
    assert (split.ids, split.texts) == ((text,), ((text,),))


def test_residual_quoting_is_kept(tmp_path: Path) -> None:
    split = read(tmp_path, '\tid\tsentence\tsentiment\n0\ta\t"""Is """"this"""" it?"""\t3\n')
    assert split.texts == (('"Is ""this"" it?"',),)


def test_the_odd_header_of_the_test_files_is_read_by_name(tmp_path: Path) -> None:
    split = read(tmp_path, "0\t\tid\tsentence\n1\t0.0\ta1\tA film\n", is_labelled=False)
    assert (split.ids, split.texts, split.labels) == (("a1",), (("A film",),), None)


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    split = read(tmp_path, "sentiment\tsource\tsentence\tid\n4\tx\tA film\ta1\n")
    assert (split.ids, split.texts, split.labels.tolist()) == (("a1",), (("A film",),), [4])


@pytest.mark.parametrize("label", ["3", "3.0", " 3 ", "3.", "+3", "30e-1"])
def test_whole_labels_may_be_written_as_decimals(tmp_path: Path, label: str) -> None:
    assert read(tmp_path, f"\tid\tsentence\tsentiment\n0\ta\tA film\t{label}\n").labels.tolist() == [3]


@pytest.mark.parametrize(
    ("header", "column", "hint"),
    [
        ("\tid\tsentense\tsentiment", "sentence", "sentense"),
        ("\tid\tsentence\tSentiment", "sentiment", "Sentiment"),
        ("\tID\tsentence\tsentiment", "id", "ID"),
        ("\tid\t sentence\tsentiment", "sentence", " sentence"),
    ],
)
def test_a_renamed_column_gets_a_suggestion(tmp_path: Path, header: str, column: str, hint: str) -> None:
    error = refuse(tmp_path, header + "\n0\ta\tA film\t3\n")
    assert error.code == "E-COLUMN"
    assert error.where.endswith(f"x.csv:1:{column}")
    assert f"did you mean {hint!r}?" in error.what


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    error = refuse(tmp_path, "a\tb\tc\td\n0\ta\tA film\t3\n")
    assert error.code == "E-COLUMN"
    assert [problem.split(":")[2] for problem in error.problems] == ["id", "sentence", "sentiment"]


def test_a_duplicated_column_is_refused(tmp_path: Path) -> None:
    error = refuse(tmp_path, "\tid\tsentence\tsentence\tsentiment\n0\ta\tA\tB\t3\n")
    assert (error.code, error.where.rpartition(":")[2]) == ("E-DUPLICATE-COLUMN", "sentence")
    assert "2 columns" in error.what


@pytest.mark.parametrize(("delimiter", "word"), [(",", "commas"), (";", "semicolons"), ("|", "bars"), (" ", "spaces")])
def test_another_delimiter_is_named(tmp_path: Path, delimiter: str, word: str) -> None:
    error = refuse(tmp_path, SST.replace("\t", delimiter))
    assert error.code == "E-DELIMITER"
    assert word in error.what
    assert error.where.endswith("x.csv:1")


def test_a_quoted_comma_file_is_still_a_wrong_delimiter(tmp_path: Path) -> None:
    assert refuse(tmp_path, '"id","sentence","sentiment"\n"a","A film","3"\n').code == "E-DELIMITER"


@pytest.mark.parametrize(
    ("row", "count"), [("1\ta2\tA film\n", 3), ("1\ta2\tA\tfilm\t1\n", 5), ("\n2\ta3\tA\t1\n", 0), ("1\ta2\n", 2)]
)
def test_a_ragged_row_is_refused_with_its_line(tmp_path: Path, row: str, count: int) -> None:
    error = refuse(tmp_path, SST.replace("1\ta2\tA dull film .\t1\n", row))
    assert error.code == "E-FIELDS"
    assert error.where.endswith("x.csv:3")
    assert f"{count} fields where the header has 4" in error.what


SWALLOWING = {
    # The closing quote is found two rows later, and every field count is right: only the content gives it away.
    "ends-in-a-later-row": '0\ta0\t"opened\t3\n1\ta1\tA film\t1\n2\ta2\tfive 5"\t2\n3\ta3\tlast\t2\n',
    "ends-in-a-quoted-text": '0\ta0\t"opened\t3\n1\ta1\t"A ""quoted"" film"\t1\n2\ta2\tA film\t2\n',
    "never-ends": '0\ta0\t"opened\t3\n1\ta1\tA film\t1\n2\ta2\tA film\t2\n',
    "text-after-the-quote": '0\ta0\t"opened" and on\t3\n1\ta1\tA film\t1\n',
}


@pytest.mark.parametrize("rows", SWALLOWING.values(), ids=SWALLOWING)
def test_an_unclosed_quote_is_refused_where_it_opens(tmp_path: Path, rows: str) -> None:
    error = refuse(tmp_path, "\tid\tsentence\tsentiment\n9\ta9\tfirst\t1\n" + rows)
    assert error.code == "E-QUOTE"
    assert error.where.endswith("x.csv:3")
    assert error.problems == ()


def test_rows_after_an_unclosed_quote_are_still_checked(tmp_path: Path) -> None:
    error = refuse(tmp_path, '\tid\tsentence\tsentiment\n0\ta0\t"opened\t3\n1\ta1\tA film\t7\n2\ta2\tsaid "so"\t2\n')
    assert [problem.rpartition("[")[2] for problem in error.problems] == ["E-QUOTE]", "E-LABEL]"]


def test_a_thousand_unclosed_quotes_are_reported_quickly(tmp_path: Path) -> None:
    rows = "".join(f'{i}\ta{i}\t"opened\t3\n' for i in range(20_000))
    start = time.perf_counter()
    error = refuse(tmp_path, "\tid\tsentence\tsentiment\n" + rows)
    assert time.perf_counter() - start < 10
    assert error.code == "E-QUOTE"


@pytest.mark.parametrize(
    "label", ["5", "-1", "2.5", "good", "nan", "NaN", "inf", "-inf", "1e400", "0x1", "1_0", "٣", "1,0"]
)
def test_a_wrong_class_label_is_refused(tmp_path: Path, label: str) -> None:
    error = refuse(tmp_path, f"\tid\tsentence\tsentiment\n0\ta\tA film\t{label}\n")
    assert error.code == "E-LABEL"
    assert error.where.endswith("x.csv:2:sentiment")
    assert repr(label) in error.what
    assert "a whole number from 0 to 4" in error.what


@pytest.mark.parametrize("label", ["5.1", "-0.1", "nan", "inf", "4,6", "high"])
def test_a_wrong_score_is_refused(tmp_path: Path, label: str) -> None:
    error = refuse(tmp_path, STS.replace("4.6", label), "sts")
    assert error.code == "E-LABEL"
    assert error.where.endswith("x.csv:2:similarity")
    assert "a number from 0 to 5" in error.what


@pytest.mark.parametrize("label", ["", "  "])
def test_an_empty_label_is_refused(tmp_path: Path, label: str) -> None:
    error = refuse(tmp_path, PARA.replace("\t1.0\n", f"\t{label}\n"), "para")
    assert (error.code, error.where.rpartition(":")[2]) == ("E-LABEL", "is_duplicate")
    assert "empty" in error.what


def test_only_the_known_malformed_rows_are_left_out(tmp_path: Path) -> None:
    known, other = list(tables.KNOWN_MALFORMED)
    broken = f"{PARA}6\t{known}\tWhere ?\tWhere to ?\t\n7\t{other}\tWhy ?\t\t\n"
    split = read(tmp_path, broken, "para")
    assert (split.ids, split.left_out) == (("b1", "b2"), (known, other))
    error = refuse(tmp_path, broken.replace(other, "f00"), "para")
    assert sorted(problem.rpartition("[")[2] for problem in error.problems) == ["E-LABEL]", "E-TEXT]"]


def test_a_known_malformed_row_that_was_mended_is_used(tmp_path: Path) -> None:
    known = next(iter(tables.KNOWN_MALFORMED))
    split = read(tmp_path, f"{PARA}6\t{known}\tWhere ?\tWhere to ?\t1\n", "para")
    assert (split.ids[-1], split.labels[-1], split.left_out) == (known, 1, ())


@pytest.mark.parametrize("text", ["", " ", "\u00a0", '" \n "'])
def test_a_blank_text_is_refused(tmp_path: Path, text: str) -> None:
    error = refuse(tmp_path, f"\tid\tsentence1\tsentence2\tsimilarity\n0\tc\tA dog\t{text}\t3\n", "sts")
    assert (error.code, error.where.rpartition(":")[2]) == ("E-TEXT", "sentence2")


def test_latin_1_is_named_with_byte_and_line(tmp_path: Path) -> None:
    error = refuse(tmp_path, b"\xef\xbb\xbf" + SST.encode() + "2\ta3\tA café film\t2\n".encode("latin-1"))
    assert error.code == "E-ENCODING"
    assert error.where.endswith("x.csv:4")
    assert "0xe9" in error.what and "Latin-1" in error.what


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised(tmp_path: Path, encoding: str) -> None:
    error = refuse(tmp_path, SST.encode(encoding))
    assert error.code == ("E-ENCODING" if encoding == "utf-16" else "E-NUL")
    assert "UTF-16" in error.what


def test_a_nul_byte_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refuse(tmp_path, SST.replace("dull", "du\0ll"))
    assert (error.code, error.where.rpartition(":")[2]) == ("E-NUL", "3")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "\tid\tsentence\tsentiment\n", "\tid\tsentence\tsentiment"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    assert refuse(tmp_path, content).code == "E-EMPTY"


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    error = refuse(tmp_path, SST.replace("a2", "a1"))
    assert error.code == "E-ID"
    assert error.where.endswith("x.csv:3:id")
    assert "'a1' stands in line 2" in error.what


def test_a_blank_id_is_refused(tmp_path: Path) -> None:
    assert refuse(tmp_path, SST.replace("a2", "")).code == "E-ID"


def test_all_problems_of_a_file_are_listed_up_to_twenty(tmp_path: Path) -> None:
    rows = "".join(f"{i}\ta{i}\tA film\t{i + 5}\n" for i in range(25))
    error = refuse(tmp_path, "\tid\tsentence\tsentiment\n" + rows)
    assert len(error.problems) == 25
    lines = str(error).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[1].endswith("'5' is not allowed; expected a whole number from 0 to 4 [E-LABEL]")
    assert ":2:sentiment:" in lines[1]
    assert lines[-1].strip() == "and 5 more"


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_what_csv_writes_is_read_back_or_refused(tmp_path: Path, texts: list[tuple[str, str]]) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["", "id", "sentence1", "sentence2", "similarity"])
    writer.writerows([i, f"id{i}", *pair, "2.5"] for i, pair in enumerate(texts))
    try:
        split = read(tmp_path, table.getvalue(), "sts")
    except StudyError as error:
        doubtful = [
            t for pair in texts for t in pair if not t.strip() or "\0" in t or ("\t" in t and re.search("[\r\n]", t))
        ]
        assert doubtful, error
        return
    expected = [tuple(re.sub("\r\n?", "\n", text) for text in pair) for pair in texts]
    assert list(zip(*split.texts, strict=True)) == expected


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.sampled_from('a"\t\n '), min_size=1, max_size=8), min_size=1, max_size=6))
def test_rows_written_without_any_quoting_never_vanish(tmp_path: Path, texts: list[str]) -> None:
    rows = "".join(f"{i}\tid{i}\t{text}\t3\n" for i, text in enumerate(texts))
    try:
        split = read(tmp_path, "\tid\tsentence\tsentiment\n" + rows)
    except StudyError:
        return
    assert split.ids == tuple(f"id{i}" for i in range(len(texts)))
