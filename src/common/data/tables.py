"""Read one tab-separated file of the CS224N starter exactly, or refuse it with all its problems.

Each problem names file, line, column, what was found and the remedy, so that no example vanishes or shifts unseen.
Not here: which files a folder holds (`sources.py`).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.split import Split
from common.declare.tasks import Task
from common.errors import StudyError

# Rows that the starter itself ships broken: an unbalanced quote emptied the label when the file was made.
KNOWN_MALFORMED = {
    "ad118c967d683c93883bf072d": "quora-dev.csv: the label is empty",
    "9054345d02cd6c5642a4904dc": "quora-dev.csv: the second question and the label are empty",
}

# A row of more lines than this is a quote that was never closed; the longest review has no line break at all.
MAX_ROW_LINES = 50
MAX_FIELD_CHARACTERS = 2**31 - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER_DELIMITERS = {",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}
_FIXES = {
    "E-COLUMN": "Rename the column in the first line of the file.",
    "E-DUPLICATE-COLUMN": "Keep one of them and rename or delete the other.",
    "E-DELIMITER": "Save the file with tabs between the columns.",
    "E-FIELDS": "Give the row one field for each column of the first line; put a text with a tab in double quotes.",
    "E-QUOTE": "Close the quote, or double every double quote in the text and put the whole text in double quotes.",
    "E-LABEL": "Correct the label or delete the row; a row that the starter ships broken is named in KNOWN_MALFORMED.",
    "E-TEXT": "Fill in the text or delete the row.",
    "E-ID": "Give every row an id of its own.",
    "E-ENCODING": "Save the file as UTF-8.",
    "E-NUL": "Save the file again as UTF-8 text.",
    "E-EMPTY": "Copy the file again from the starter's data folder.",
}


class Problem(NamedTuple):
    """One thing wrong with a file; `column` is empty where the whole row is meant."""

    line: int
    column: str
    code: str
    what: str

    def where(self, path: Path) -> str:
        return f"{path}:{self.line}" + (f":{self.column}" if self.column else "")


class Row(NamedTuple):
    """One example as parsed; `label` is `None` where there is none."""

    id: str
    texts: tuple[str, ...]
    label: float | None


def read_table(path: Path, task: Task, is_labelled: bool) -> Split:
    """Read one tab-separated file by column name, texts exactly as the `csv` module parses them.

    Args:
        path: file with a header line; columns beyond the needed ones are allowed.
        task: gives the columns and the label range.
        is_labelled: whether the label column is read.

    Returns:
        `Split` with int64 labels for classes, float64 for scores; `left_out` holds ids of `KNOWN_MALFORMED`.

    Raises:
        StudyError: with all problems of the file.
    """
    lines = list(io.StringIO(_decode(path)))
    columns, width = _columns(path, lines, task, is_labelled)
    parsed = [(line, *_parse_row(line, fields, columns, width, task)) for line, fields in _records(lines, start=1)]
    rows = [(line, row) for line, row, _ in parsed if row is not None]
    problems = [problem for _, _, found in parsed for problem in found] + list(_repeated_ids(rows))
    if not parsed:
        problems.append(Problem(1, "", "E-EMPTY", "a header and no row"))
    _refuse(path, problems)
    left_out = [row.id for _, row in rows if is_labelled and row.label is None]
    return make_split([row for _, row in rows if row.id not in left_out], task, is_labelled, left_out)


def _repeated_ids(rows: Iterable[tuple[int, Row]]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for line, row in rows:
        if row.id in seen:
            yield Problem(line, "id", "E-ID", f"id {row.id!r} stands in line {seen[row.id]} too")
        seen.setdefault(row.id, line)


def make_split(rows: Sequence[Row], task: Task, is_labelled: bool, left_out: Iterable[str]) -> Split:
    """Turn rows into columns; labels are int64 for classes, float64 for scores."""
    texts = tuple(tuple(row.texts[i] for row in rows) for i in range(len(task.text_columns)))
    dtype = np.int64 if task.kind == "classes" else np.float64
    labels = np.array([row.label for row in rows], dtype=dtype) if is_labelled else None
    return Split(tuple(row.id for row in rows), texts, labels, tuple(left_out))


def _refuse(path: Path, problems: Sequence[Problem]) -> None:
    """Raise if there is any problem: the first in the headline, all of them below when there are several."""
    if not problems:
        return
    first = min(problems)
    listed = [f"{problem.where(path)}: {problem.what} [{problem.code}]" for problem in sorted(problems)]
    fix = _FIXES[first.code] + (f" {len(listed)} problems in this file:" if len(listed) > 1 else "")
    raise StudyError(first.code, first.where(path), first.what, fix, tuple(listed) if len(listed) > 1 else ())


def _decode(path: Path) -> str:
    """Text of a file with every line ending as "\\n" and without a byte order mark."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` counts from behind the byte order mark.
        start = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = f"byte 0x{data[start]:02x} at offset {start} is not UTF-8; it looks like "
        what += "UTF-16" if is_utf16 else "Latin-1 (or Windows-1252)"
        _refuse(path, [Problem(data.count(b"\n", 0, start) + 1, "", "E-ENCODING", what)])
    if "\0" in text:
        hint = "; the file looks like UTF-16" if text.count("\0") * 3 > len(text) else ""
        _refuse(path, [Problem(text.count("\n", 0, text.index("\0")) + 1, "", "E-NUL", f"a NUL byte{hint}")])
    if not text.strip():
        _refuse(path, [Problem(1, "", "E-EMPTY", "the file is empty")])
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"


def _columns(path: Path, lines: Sequence[str], task: Task, is_labelled: bool) -> tuple[dict[str, int], int]:
    """Positions of the needed columns, and the number of fields of a row."""
    wanted = ["id", *task.text_columns] + ([task.label_column] if is_labelled else [])
    delimiter = max(_OTHER_DELIMITERS, key=lines[0].count)
    if "\t" not in lines[0] and delimiter in lines[0]:
        what = f"no tab in the header; the columns look separated by {_OTHER_DELIMITERS[delimiter]}"
        _refuse(path, [Problem(1, "", "E-DELIMITER", what)])
    header = next(_records(lines, start=0))[1]
    if header is None:
        _refuse(path, [Problem(1, "", "E-QUOTE", "a quote in the header is not closed")])
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    problems = [
        Problem(1, name, "E-DUPLICATE-COLUMN", f"{header.count(name)} columns of this name") for name in repeated
    ]
    problems += [
        Problem(1, column, "E-COLUMN", missing_column(column, header)) for column in wanted if column not in header
    ]
    _refuse(path, problems)
    return {column: header.index(column) for column in wanted}, len(header)


def missing_column(column: str, header: Sequence[str]) -> str:
    """What to say when `column` is not in `header`: what is there, and the likeliest slip of the pen."""
    spellings = {found.strip().casefold(): found for found in header}
    close = difflib.get_close_matches(column, spellings, n=1)
    hint = f"; did you mean {spellings[close[0]]!r}?" if close else ""
    return f"no column {column!r}; found {', '.join(map(repr, header))}{hint}"


def _records(lines: Sequence[str], start: int) -> Iterator[tuple[int, list[str] | None]]:
    """Parse row by row, so that a broken quote costs its own row and not the rows after it.

    Args:
        lines: physical lines with their endings.
        start: index of the first line to read.

    Yields:
        (line number from 1, fields); fields are `None` where a quote is not closed. An unclosed quote runs on until
        some later quote ends it: a field with a line break and a tab has swallowed the rows between.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    while start < len(lines):
        reader = csv.reader(lines[start : start + MAX_ROW_LINES], delimiter="\t", strict=True)
        try:
            fields = next(reader)
        except csv.Error:
            fields = None
        if fields is not None and reader.line_num > 1 and any("\n" in field and "\t" in field for field in fields):
            fields = None
        yield start + 1, fields
        start += reader.line_num if fields is not None else 1


def _parse_row(
    line: int, fields: list[str] | None, columns: dict[str, int], width: int, task: Task
) -> tuple[Row | None, list[Problem]]:
    """The row, unless it cannot be cut into fields, and what is wrong with it.

    The label is `None` where the file carries none, and in a row of `KNOWN_MALFORMED`.
    """
    if fields is None:
        return None, [Problem(line, "", "E-QUOTE", "the double quote that opens here is not closed in its field")]
    if len(fields) != width:
        return None, [Problem(line, "", "E-FIELDS", f"{len(fields)} fields where the header has {width}")]
    value = {column: fields[index] for column, index in columns.items()}
    texts = tuple(value[column] for column in task.text_columns)
    if value["id"] in KNOWN_MALFORMED and value.get(task.label_column) == "":
        return Row(value["id"], texts, None), []
    blank = [column for column in task.text_columns if not value[column].strip()]
    problems = [Problem(line, column, "E-TEXT", "the text is blank") for column in blank]
    if not value["id"].strip():
        problems.append(Problem(line, "id", "E-ID", "the id is blank"))
    if any(not character.isprintable() for character in value["id"]):  # it would be two lines of a leaderboard file
        problems.append(Problem(line, "id", "E-ID", f"the id {value['id']!r} has a line break or control character"))
    label = None
    if task.label_column in value:
        label, what = parse_label(value[task.label_column], task)
        problems += [Problem(line, task.label_column, "E-LABEL", what)] if what else []
    return Row(value["id"], texts, label), problems


def parse_label(text: str, task: Task) -> tuple[float | None, str]:
    """The label and an empty string, or no label and what is wrong with it."""
    kind = "a whole number" if task.kind == "classes" else "a number"
    expected = f"expected {kind} from {task.low:g} to {task.high:g}"
    if not text.strip():
        return None, f"the label is empty; {expected}"
    if not _NUMBER.fullmatch(text.strip()):
        return None, f"{text!r} is not a number; {expected}"
    value = float(text)
    if not task.low <= value <= task.high or (task.kind == "classes" and value != int(value)):
        return None, f"{text!r} is not allowed; {expected}"
    return value, ""
