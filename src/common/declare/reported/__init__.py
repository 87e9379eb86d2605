"""What the reports print: numbers, example predictions, stated counts and claims. Facts only; nothing of ours is here.

printed.csv holds the printed numbers of all tables, and those of the text that are about results or their cost;
examples.csv the sentences a report prints, with its predictions, stated.csv the sizes and label counts it gives for the
data, figures.csv its result figures, claims/<report>.yaml its claims (claims.py reads them), contradictions.yaml where
reports disagree (contradictions.py), inconsistencies.yaml where one disagrees with itself (inconsistencies.py).
Settings of training are in experiments/<report>.yaml. All of it was written before the first run.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

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
# SlapBERT (section 5.2) maps r to [0, 1] before it takes the mean of the three; the other reports do not.
NORMALISED_OVERALL = ("slapbert",)
OVERALL_PARTS = ("sst_acc", "para_acc", "sts_corr")
PRINTED_COLUMNS = ("report", "table", "row", "label", "split", "metric", "value", "section")
EXAMPLE_COLUMNS = ("report", "section", "id", "task", "text1", "text2", "label", "model", "predicted")
STATED_COLUMNS = ("report", "section", "task", "split", "what", "stated", "remark")
# What stated.csv speaks of: the four tasks, and the corpora that BERT++ pretrains on (section 4.1). `all` is a corpus
# with all its parts; `rows taken` were drawn from it.
CORPORA = ("sst", "para", "sts", "cfimdb", "imdb", "mnli", "sick")
STATED_SPLITS = (*SPLITS, "unlabelled", "all")
OFF_STEPS = "scores off steps of 0.2"
STATED = re.compile(rf"rows|rows taken|phrases|{re.escape(OFF_STEPS)}|label \d")
ALONE = "none"  # in place of a model: the report shows the sentence with its label and no prediction
FIGURE_COLUMNS = ("report", "figure", "panel", "section", "shows", "drawn", "from_runs")
DRAWN = re.compile(r"\d\d_[a-z0-9_]+")


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
    to its prediction, None where the scan of the report is damaged (see printed.csv for what can be made out); it is
    empty where the report shows a sentence without any.
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
        if line["model"] != ALONE:
            entry["reported"][line["model"]] = _if_printed(where, line["predicted"])
    return list(found.values())


def stated() -> list[dict]:
    """The counts that the reports give for the data, as {report, section, task, split, what, stated, remark}."""
    found: dict[tuple, dict] = {}
    for where, line in _lines("stated.csv", STATED_COLUMNS):
        _check_known(where, line, {"task": CORPORA, "split": STATED_SPLITS})
        if not STATED.fullmatch(line["what"]):
            raise _bad(where, f"what {line['what']!r}, known: {STATED.pattern}")
        if not line["stated"].isdecimal():
            raise _bad(where, f"{line['stated']!r} is no count")
        key = tuple(line[name] for name in ("report", "section", "task", "split", "what"))
        if key in found:
            raise _bad(where, f"{', '.join(key)} stands twice")
        found[key] = {**line, "stated": int(line["stated"])}
    return list(found.values())


def panels() -> tuple[Panel, ...]:
    """The result figures that can be drawn again, report by report; diagrams and screenshots are not among them."""
    known = {line["report"] for _, line in _lines("printed.csv", PRINTED_COLUMNS)}
    found: dict[tuple[str, ...], Panel] = {}
    for where, line in _lines("figures.csv", FIGURE_COLUMNS):
        if empty := [name for name in FIGURE_COLUMNS if name != "panel" and not line[name]]:
            raise _bad(where, f"no text in {', '.join(empty)}")
        if line["report"] not in known:
            raise _bad(where, f"report {line['report']!r}, known: {', '.join(sorted(known))}")
        if line["from_runs"] not in ("yes", "no"):
            raise _bad(where, f"from_runs {line['from_runs']!r}, known: yes, no")
        if not DRAWN.fullmatch(line["drawn"]):
            raise _bad(where, f"drawn {line['drawn']!r} is no figure name like 02_attention")
        key = tuple(line[name] for name in ("report", "figure", "panel"))
        if key in found:
            raise _bad(where, f"{' '.join(key).strip()} stands twice")
        found[key] = Panel(**{**line, "from_runs": line["from_runs"] == "yes"})
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


@functools.cache  # asked several times for every row of every experiments file
def _table(report: str, table: str) -> list[dict[str, str]]:
    lines = (line for _, line in _lines("printed.csv", PRINTED_COLUMNS))
    return [line for line in lines if (line["report"], line["table"]) == (report, table)]


def _check_printed(where: str, line: dict[str, str]) -> None:
    _check_known(where, line, {"split": SPLITS, "metric": METRICS})


def _check_known(where: str, line: dict[str, str], known: dict[str, tuple[str, ...]]) -> None:
    for column, names in known.items():
        if line[column] not in names:
            raise _bad(where, f"{column} {line[column]!r}, known: {', '.join(names)}")


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
