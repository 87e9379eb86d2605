"""Table rows as data: experiments/<report>.yaml says what each row changes against its base.

A Row carries RunSpecs as the report has them; profiles and seeds come later (session.py). Variants are made with
`dataclasses.replace` or `variant`.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from importlib.resources import files

import yaml

from common.errors import StudyError
from common.spec import RunSpec, to_dict
from common.study import reported
from common.training.probes import Example

ROW_KEYS = ("id", "table", "label", "base", "change", "notes")
# The pair whose attention swissBERT draws in its Figures 1 to 3.
ATTENTION_EXAMPLE = "swissbert_ex_sts_1"


@dataclass(frozen=True)
class Row:
    """One printed line of a table, or a control the report lacks (then `reported` is empty).

    specs are as the report has them, seed 0. base is the id of the row it is compared with, None for a first row.
    """

    id: str
    report: str
    table: str
    label: str
    specs: tuple[RunSpec, ...]
    base: str | None
    reported: dict[str, float]
    notes: str = ""


def rows(report: str, table: str | None = None) -> list[Row]:
    """The rows of one table of a report (all of them when table is None), in the order of its experiments file.

    Raises:
        StudyError: no such report or table, or an experiments file that does not follow its schema.
    """
    found = list(_load(report).values())
    tables = list(dict.fromkeys(row.table for row in found))
    if table is not None and table not in tables:
        raise StudyError("E-ROW", report, f"no table {table!r}.", f"Known: {', '.join(tables)}.")
    return [row for row in found if table in (None, row.table)]


def row(row_id: str) -> Row:
    """The row of that id, in whatever report it stands."""
    for report in reports():
        if row_id in _load(report):
            return _load(report)[row_id]
    raise StudyError("E-ROW", row_id, "no row of that id.", f"Reports: {', '.join(reports())}.")


def reports() -> list[str]:
    """Names of the reports that have an experiments file."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def variant(of: Row, id: str, label: str, **fields: object) -> Row:
    """An extra row: `of` with RunSpec fields replaced, compared with `of`, and nothing reported."""
    specs = tuple(replace(spec, **fields) for spec in of.specs)
    return replace(of, id=id, label=label, specs=specs, base=of.id, reported={}, notes="")


def changes(of: Row, base: Row) -> dict[str, tuple[object, object]]:
    """Dotted field -> (value in base, value in `of`) for every field in which their first specs differ.

    A task that only one of them has stands as `tasks.<name>`: (True, False) when `of` lacks it.
    """
    theirs, ours = _flat(to_dict(base.specs[0])), _flat(to_dict(of.specs[0]))
    names = [{task.name for task in row.specs[0].tasks} for row in (base, of)]
    one_sided = {f"tasks.{name}": tuple(name in held for held in names) for name in names[0] ^ names[1]}
    keys = [key for key in dict.fromkeys([*theirs, *ours]) if key.rpartition(".")[0] not in one_sided]
    differing = {key: (theirs.get(key), ours.get(key)) for key in keys if theirs.get(key) != ours.get(key)}
    return one_sided | differing


def examples() -> tuple[Example, ...]:
    """The sentences that reports print, which every model predicts."""
    found = [entry for report in reports() for entry in reported.examples(report)]
    return tuple(
        Example(e["id"], e["task"], tuple(e["texts"]), e["label"], e["reported"], e["id"] == ATTENTION_EXAMPLE)
        for e in found
    )


def _folder():
    return files("common.study").joinpath("experiments")


@functools.cache
def _load(report: str) -> dict[str, Row]:
    if report not in reports():
        raise StudyError("E-ROW", report, "no such report.", f"Known: {', '.join(reports())}.")
    content = yaml.safe_load(_folder().joinpath(f"{report}.yaml").read_text(encoding="utf-8"))
    entries = {entry["id"]: entry for entry in content["rows"]}
    return {name: _row(content, entries, name) for name in entries}


def _row(content: dict, entries: dict[str, dict], name: str) -> Row:
    entry, report = entries[name], content["report"]
    where = f"experiments/{report}.yaml: {name}"
    unknown = set(entry) - set(ROW_KEYS)
    if unknown:
        raise StudyError("E-ROW", where, f"unknown keys {sorted(unknown)}.", f"Known: {', '.join(ROW_KEYS)}.")
    spec = RunSpec.from_dict(_values(content, entries, name, where), where)
    printed = {} if "label" in entry else reported.printed(report, entry["table"])[name]
    label = entry.get("label") or reported.labels(report, entry["table"])[name]
    return Row(name, report, entry["table"], label, (spec,), entry.get("base"), printed, entry.get("notes", ""))


def _values(content: dict, entries: dict[str, dict], name: str, where: str) -> dict:
    """The row's RunSpec as plain values: the common setting, changed along its chain of bases."""
    base = entries[name].get("base")
    if base is not None and base not in entries:
        raise StudyError("E-ROW", where, f"its base {base!r} is no row.", f"Known: {', '.join(entries)}.")
    values = copy.deepcopy(content["common"]) if base is None else _values(content, entries, base, where)
    for path, value in entries[name].get("change", {}).items():
        _assign(values, path.split("."), value, f"{where}: {path}")
    return values


def _assign(values: dict, path: list[str], value: object, where: str) -> None:
    """Set one dotted field; `tasks` alone keeps the named tasks, `tasks.para.loss` goes to the task of that name."""
    if path == ["tasks"]:
        values["tasks"] = [task for task in values["tasks"] if task["name"] in value]
    elif path[0] == "tasks":
        chosen = [task for task in values["tasks"] if task["name"] == path[1]]
        if not chosen or len(path) != 3:
            raise StudyError("E-ROW", where, "names no field of a task of this row.", "Write tasks.<task>.<field>.")
        chosen[0][path[2]] = value
    elif len(path) == 1:
        values[path[0]] = value
    else:
        _assign(values.setdefault(path[0], {}), path[1:], value, where)


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    """Nested values under dotted names; tasks are named by their task, not by their place."""
    if isinstance(values, list) and values and isinstance(values[0], dict):
        values = {item["name"]: item for item in values}
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat
