"""What the reports print: numbers, example predictions, stated counts and claims. Facts only; nothing of ours is here.

printed.csv holds every printed number, of tables and of text; examples.csv the sentences a report prints with its
predictions, stated.csv the counts it gives for the data, figures.csv its result figures, claims/<report>.yaml its
claims, contradictions.yaml where reports disagree (contradictions.py reads it). All of it was written before the first
run.

A claims file is a list of {id, section, statement, terms, rule}, worded by us. A term is one comparison,
[metric, split, a, op, b, margin] with up to two further entries, metric_b and split_b, where b is read from another
metric or split than a. a and b are ids of printed rows, of whatever report; all terms of a claim must hold. With
d = value(a) - value(b), the operators mean

    >, >=   d is at least margin; above 0 where margin is 0
    <       d is at most -margin; below 0 where margin is 0
    <=      d is at most margin: how "no gain" and "no more than margin lost" are written
    ~       |d| is at most margin: as good as equal

Margins above 0 are ours, set from the sampling error of the dev sets: SST 0.015, Quora 0.0025, STS 0.008 at r = 0.87
and 0.030 at r = 0.35, the difference of two overalls 0.008. A claim about a quantity that no table prints has no
terms; its rule names the measurement. A term may need numbers that no run here can give (the test split has no
labels); ours is then missing, and the term stays.
"""

from __future__ import annotations

import csv
import functools
import math
import re
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
OPERATORS = (">", ">=", "<", "<=", "~")
CLAIM_FIELDS = ("id", "section", "statement", "terms", "rule")
# SlapBERT (section 5.2) maps r to [0, 1] before it takes the mean of the three; the other reports do not.
NORMALISED_OVERALL = ("slapbert",)
OVERALL_PARTS = ("sst_acc", "para_acc", "sts_corr")
PRINTED_COLUMNS = ("report", "table", "row", "label", "split", "metric", "value", "section")
EXAMPLE_COLUMNS = ("report", "section", "id", "task", "text1", "text2", "label", "model", "predicted")
STATED_COLUMNS = ("report", "section", "task", "split", "what", "stated", "remark")
FIGURE_COLUMNS = ("report", "figure", "panel", "section", "shows", "drawn", "from_runs")
DRAWN = re.compile(r"\d\d_[a-z0-9_]+")


@dataclass(frozen=True)
class Term:
    """One comparison: value(a, metric, split) - value(b, metric_b, split_b) against margin; operators as above."""

    metric: str
    split: str
    a: str
    op: str
    b: str
    margin: float
    metric_b: str
    split_b: str


@dataclass(frozen=True)
class Claim:
    """A statement of a report, in our words, with the comparisons that decide it; all of them must hold."""

    id: str
    section: str
    statement: str
    terms: tuple[Term, ...]
    rule: str


@dataclass(frozen=True)
class Panel:
    """A result figure of a report, or one panel of it, and the name under which ours is saved.

    shows says in our words what is drawn. from_runs is False for what is about the data and needs no trained model.
    """

    report: str
    figure: str
    panel: str
    section: str
    shows: str
    drawn: str
    from_runs: bool


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
    """The sentences a report prints in full, in its order, as {id, task, texts, label, reported}.

    label is None where the report gives none. reported maps each model that the report shows ("" where it has but one)
    to its prediction, None where the scan of the report is damaged (see printed.csv for what can be made out).
    """
    found: dict[str, dict] = {}
    for where, line in _lines("examples.csv", EXAMPLE_COLUMNS):
        if line["report"] != report:
            continue
        known = {"id": line["id"], "task": line["task"], "texts": [line["text1"], line["text2"]]}
        known |= {"texts": [text for text in known["texts"] if text], "label": _if_printed(where, line["label"])}
        entry = found.setdefault(line["id"], known | {"reported": {}})
        if entry | known != entry or line["model"] in entry["reported"]:
            raise _bad(where, f"{line['id']} stands twice for one model, or with another text or label")
        entry["reported"][line["model"]] = _if_printed(where, line["predicted"])
    return list(found.values())


def stated() -> list[dict]:
    """The counts that the reports give for the data, as {report, section, task, split, what, stated, remark}."""
    return [
        {**line, "stated": int(_number(where, line["stated"]))} for where, line in _lines("stated.csv", STATED_COLUMNS)
    ]


def panels() -> tuple[Panel, ...]:
    """The result figures that can be drawn again, report by report; diagrams and screenshots are not among them."""
    known = {line["report"] for _, line in _lines("printed.csv", PRINTED_COLUMNS)}
    found: dict[str, Panel] = {}
    for where, line in _lines("figures.csv", FIGURE_COLUMNS):
        if empty := [name for name in FIGURE_COLUMNS if name != "panel" and not line[name]]:
            raise _bad(where, f"no text in {', '.join(empty)}")
        if line["report"] not in known:
            raise _bad(where, f"report {line['report']!r}, known: {', '.join(sorted(known))}")
        if line["from_runs"] not in ("yes", "no"):
            raise _bad(where, f"from_runs {line['from_runs']!r}, known: yes, no")
        if line["drawn"] in found or not DRAWN.fullmatch(line["drawn"]):
            raise _bad(where, f"drawn {line['drawn']!r} stands twice or is no figure name like 02_attention")
        found[line["drawn"]] = Panel(**{**line, "from_runs": line["from_runs"] == "yes"})
    return tuple(found.values())


def printed_values() -> dict[tuple[str, str, str], float]:
    """(row id, split, metric) -> the printed number, over all tables and texts of all reports.

    Where a report prints all three tasks but no overall (the SMART report), overall is the mean of the three.
    """
    found: dict[tuple[str, str, str], float] = {}
    for where, line in _lines("printed.csv", PRINTED_COLUMNS):
        _check_printed(where, line)
        key = line["row"], line["split"], line["metric"]
        if found.setdefault(key, _number(where, line["value"])) != _number(where, line["value"]):
            raise _bad(where, f"{line['row']} has two values of {line['metric']} on {line['split']}")
    for row, split in {(row, split) for row, split, _ in found}:
        parts = [found.get((row, split, metric)) for metric in OVERALL_PARTS]
        if None not in parts:
            found.setdefault((row, split, "overall"), sum(parts) / len(parts))
    return found


def row_labels() -> dict[str, str]:
    """Row id -> its label in the first table that prints it, over all reports."""
    lines = [line for _, line in _lines("printed.csv", PRINTED_COLUMNS)]
    return {line["row"]: line["label"] for line in reversed(lines)}


def claims(report: str, rows: list[str] | None = None) -> list[Claim]:
    """The claims of a report; with `rows`, only those whose comparisons need no other row."""
    folder = files(__package__).joinpath("claims")
    known = sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))
    if report not in known:
        raise StudyError("E-REPORTED", "claims", f"no claims of {report!r}.", f"Known: {', '.join(known)}.")
    content = yaml.safe_load(folder.joinpath(f"{report}.yaml").read_text(encoding="utf-8"))
    printed_rows = {row for row, _, _ in printed_values()}
    found = [_claim(f"claims/{report}.yaml", entry, printed_rows) for entry in content]
    names = [claim.id for claim in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _bad(f"claims/{report}.yaml", f"ids stand twice: {twice}")
    if rows is None:
        return found
    return [claim for claim in found if {row for term in claim.terms for row in (term.a, term.b)} <= set(rows)]


@functools.cache  # asked several times for every row of every experiments file
def _table(report: str, table: str) -> list[dict[str, str]]:
    lines = (line for _, line in _lines("printed.csv", PRINTED_COLUMNS))
    return [line for line in lines if (line["report"], line["table"]) == (report, table)]


def _claim(file: str, entry: dict, printed_rows: set[str]) -> Claim:
    where = f"{file}: {entry.get('id', '?')}"
    if set(entry) != set(CLAIM_FIELDS):
        raise _bad(where, f"fields {sorted(entry)}, expected {', '.join(CLAIM_FIELDS)}")
    if empty := [name for name in CLAIM_FIELDS if name != "terms" and not isinstance(entry[name], str)]:
        raise _bad(where, f"no text in {', '.join(empty)}")
    return Claim(**{**entry, "terms": tuple(_term(where, term, printed_rows) for term in entry["terms"])})


def _term(where: str, values: list, printed_rows: set[str]) -> Term:
    if not 6 <= len(values) <= 8:
        raise _bad(where, f"a term has metric, split, a, op, b, margin and perhaps metric_b, split_b; found {values}")
    term = Term(*values, *values[len(values) - 6 : 2])
    metrics, splits = {term.metric, term.metric_b}, {term.split, term.split_b}
    if not (metrics <= set(METRICS) and splits <= set(SPLITS) and term.op in OPERATORS):
        raise _bad(where, f"unknown metric, split or operator in {values}")
    if unknown := {term.a, term.b} - printed_rows:
        raise _bad(where, f"no report prints the row {', '.join(sorted(unknown))}")
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


def _if_printed(where: str, text: str) -> float | None:
    return _number(where, text) if text else None


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
