"""What the reports print: numbers, example predictions, stated counts and claims. Facts only; nothing of ours is here.

printed.csv holds every printed number, of tables and of text; examples.csv the sentences a report prints with its
predictions, stated.csv the counts it gives for the data, claims.yaml its claims as comparisons. All of it was written
before the first run.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import yaml

from common.errors import StudyError

SPLITS = ("train", "dev", "test")
SCORES = ("sst_acc", "para_acc", "sts_corr", "cfimdb_acc", "overall")
# What else the reports print: parts of a score, quoted times and gains, predictions for their example sentences. Where
# a scan is damaged, both readings of a number are kept (ocr1, ocr2).
METRICS = (
    *SCORES,
    *("para_acc_paraphrases", "para_acc_non_paraphrases"),
    *("train_time_min", "train_time_min_per_epoch", "train_time_reduction_factor"),
    *("pct_gain_sst_acc_vs_baseline", "pct_gain_para_acc_vs_baseline", "pct_gain_sts_corr_vs_baseline"),
    *("pct_gain_overall_vs_baseline", "pct_drop_para_acc_vs_no_surgery", "pct_gain_train_time_vs_no_surgery"),
    *("sts_batches_per_epoch_original", "sts_batches_per_epoch_cycled", "pct_increase_sts_batches"),
    *("leaderboard_rank", "leaderboard_size", "n_embeddings"),
    *("example_true_label", "example_prediction"),
    *("pred_non_reg", "pred_non_reg_ocr1", "pred_non_reg_ocr2", "pred_reg", "pred_reg_ocr1", "pred_reg_ocr2"),
)
OPERATORS = (">", ">=", "<", "<=")
PRINTED_COLUMNS = ("report", "table", "row", "label", "split", "metric", "value", "section")
EXAMPLE_COLUMNS = ("report", "section", "id", "task", "text1", "text2", "label", "predicted")
STATED_COLUMNS = ("report", "section", "task", "split", "what", "stated", "remark")


@dataclass(frozen=True)
class Term:
    """One comparison: value(a) - value(b) against margin, on one metric and split.

    `>` and `>=`: the difference is at least margin (above 0 where margin is 0). `<`: it is at most -margin (below 0
    where margin is 0). `<=`: it is at most margin, which is how "no gain" is written.
    """

    metric: str
    split: str
    a: str
    op: str
    b: str
    margin: float


@dataclass(frozen=True)
class Claim:
    """A statement of a report, in our words, with the comparisons that decide it; all of them must hold."""

    id: str
    section: str
    statement: str
    terms: tuple[Term, ...]
    rule: str


def printed(report: str, table: str, split: str = "dev") -> dict[str, dict[str, float]]:
    """The numbers of one printed table: {row id: {metric: value}}, rows in the report's order."""
    found: dict[str, dict[str, float]] = {}
    for where, line in _lines("printed.csv", PRINTED_COLUMNS):
        _check_printed(where, line)
        if (line["report"], line["table"], line["split"]) != (report, table, split):
            continue
        metrics = found.setdefault(line["row"], {})
        if line["metric"] in metrics:
            raise _bad(where, f"{line['row']} has {line['metric']} twice")
        metrics[line["metric"]] = _number(where, line["value"])
    if not found:
        raise StudyError("E-REPORTED", "printed.csv", f"no numbers of {report} {table} ({split}).", "Check the names.")
    return found


def labels(report: str, table: str, split: str | None = None) -> dict[str, str]:
    """Row id -> label in the order one table prints them (None: of any split); empty where nothing is printed."""
    found = [line for line in _table(report, table) if split in (None, line["split"])]
    return {line["row"]: line["label"] for line in found}


def splits(report: str, table: str) -> list[str]:
    """The splits of which one table prints numbers; none where there is no such table."""
    return list(dict.fromkeys(line["split"] for line in _table(report, table)))


def examples(report: str) -> list[dict]:
    """The sentences a report prints, as {id, task, texts, label, reported}; reported is the report's own prediction."""
    return [
        {
            "id": line["id"],
            "task": line["task"],
            "texts": [text for text in (line["text1"], line["text2"]) if text],
            "label": _number(where, line["label"]),
            "reported": _number(where, line["predicted"]),
        }
        for where, line in _lines("examples.csv", EXAMPLE_COLUMNS)
        if line["report"] == report
    ]


def stated() -> list[dict]:
    """The counts that the reports give for the data, as {report, section, task, split, what, stated, remark}."""
    return [
        {**line, "stated": int(_number(where, line["stated"]))} for where, line in _lines("stated.csv", STATED_COLUMNS)
    ]


def claims(report: str, rows: list[str] | None = None) -> list[Claim]:
    """The claims of a report; with `rows`, only those whose comparisons need no other row.

    A claim about a quantity that no table prints has no terms; its rule names the measurement.
    """
    content = yaml.safe_load(files(__package__).joinpath("claims.yaml").read_text(encoding="utf-8"))
    if report not in content:
        raise StudyError("E-REPORTED", "claims.yaml", f"no claims of {report!r}.", f"Known: {', '.join(content)}.")
    found = [_claim(entry) for entry in content[report]]
    if rows is None:
        return found
    return [claim for claim in found if {row for term in claim.terms for row in (term.a, term.b)} <= set(rows)]


def _table(report: str, table: str) -> Iterator[dict[str, str]]:
    lines = (line for _, line in _lines("printed.csv", PRINTED_COLUMNS))
    return (line for line in lines if (line["report"], line["table"]) == (report, table))


def _claim(entry: dict) -> Claim:
    where = f"claims.yaml: {entry.get('id', '?')}"
    if set(entry) != {"id", "section", "statement", "terms", "rule"}:
        raise _bad(where, f"fields {sorted(entry)}, expected id, section, statement, terms, rule")
    return Claim(**{**entry, "terms": tuple(_term(where, term) for term in entry["terms"])})


def _term(where: str, values: list) -> Term:
    if len(values) != 6:
        raise _bad(where, f"a term has metric, split, a, op, b, margin; found {values}")
    term = Term(*values)
    if term.metric not in SCORES or term.split not in SPLITS or term.op not in OPERATORS:
        raise _bad(where, f"unknown metric, split or operator in {values}")
    if not (isinstance(term.margin, float) and math.isfinite(term.margin) and term.margin >= 0):
        raise _bad(where, f"margin {term.margin!r} is no number of at least 0")
    return term


def _check_printed(where: str, line: dict[str, str]) -> None:
    for column, known in (("split", SPLITS), ("metric", METRICS)):
        if line[column] not in known:
            raise _bad(where, f"{column} {line[column]!r}, known: {', '.join(known)}")


def _lines(name: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, values by column) of a file beside this module; the header must be exactly `columns`."""
    with files(__package__).joinpath(name).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, None)
        if header != list(columns):
            raise _bad(f"{name}:1", f"columns {header}, expected {list(columns)}")
        for values in reader:
            where = f"{name}:{reader.line_num}"
            if len(values) != len(columns):
                raise _bad(where, f"{len(values)} fields, expected {len(columns)}")
            yield where, dict(zip(columns, values, strict=True))


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _bad(where, f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise _bad(where, f"{text!r} is not finite")
    return value


def _bad(where: str, what: str) -> StudyError:
    return StudyError("E-REPORTED", where, f"{what}.", "Correct the file; it is a copy of what the report prints.")
