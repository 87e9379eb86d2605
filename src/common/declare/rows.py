"""Table rows as data: experiments/<report>.yaml says what each row changes against its base.

A Row carries RunSpecs as the report has them; profiles and seeds come later (session.py). Variants are made with
`variant`.

The schema of a file: `report`, `common` (a RunSpec as plain values) and `rows`. A row has an id; the table or tables
that print it; a label only where nothing is printed; a base (another row, else the common setting) and what it
changes, as dotted fields of the RunSpec. `tasks: [sts, sst]` keeps the named tasks and trains them in that order,
`tasks.cfimdb: {...}` adds or replaces a whole one. A row of several models says `combine: per_task` and lists in `runs`
what each changes on top; a row without a model says `combine: random`.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass, replace
from importlib.resources import files

import yaml

from common.declare import reported
from common.declare.spec import RunSpec
from common.declare.strict import meant, to_dict
from common.errors import StudyError

FILE_KEYS = ("report", "common", "rows")
ROW_KEYS = ("id", "table", "label", "base", "change", "runs", "combine", "notes")
COMBINATIONS = ("one", "per_task", "random")
# The pair whose attention swissBERT draws in its Figures 1 to 3.
ATTENTION_EXAMPLE = "swissbert_ex_sts_1"


@dataclass(frozen=True)
class Example:
    """A sentence or pair that a report prints, and whether its attention is kept."""

    id: str
    task: str
    texts: tuple[str, ...]
    draws_attention: bool = False


@dataclass(frozen=True)
class Row:
    """One printed line of a table, or a control the report lacks (then `reported` is empty).

    specs are as the report has them, seed 0. base is the id of the row it is compared with, None for a first row.
    combine: one run; per_task, where each metric comes from the run that trained its task; random, arbitrary answers
    without a run. reported are the numbers of `table` on `split`: dev, or what the table prints where that is not dev;
    an overall stands under the name of its report's formula, `overall` or `overall_normalised`. asked: the dotted
    fields of a variant, as its user wrote them. exact: run as written, whatever the profile's budget.
    """

    id: str
    report: str
    table: str
    label: str
    specs: tuple[RunSpec, ...]
    base: str | None
    reported: dict[str, float]
    notes: str = ""
    combine: str = "one"
    split: str = "dev"
    asked: tuple[tuple[str, object], ...] = ()
    exact: bool = False


def rows(report: str, table: str | None = None) -> list[Row]:
    """The rows of one table of a report in the order it prints them; with None all rows, each in its first table.

    Raises:
        StudyError: no such report or table, or an experiments file that does not follow its schema.
    """
    found = _load(report).values()
    if table is None:
        return [in_tables[0] for in_tables in found]
    tables = list(dict.fromkeys(r.table for in_tables in found for r in in_tables))
    if table not in tables:
        raise StudyError("E-ROW", report, f"no table {table!r}.", f"Known: {', '.join(tables)}.")
    chosen = [r for in_tables in found for r in in_tables if r.table == table]
    order = {name: place for place, name in enumerate(reported.labels(report, table))}
    return sorted(chosen, key=lambda r: order.get(r.id, len(order)))


def row(row_id: str) -> Row:
    """The row of that id in the first table that prints it, in whatever report it stands."""
    for report in reports():
        if row_id in _load(report):
            return _load(report)[row_id][0]
    raise StudyError("E-ROW", row_id, "no row of that id.", f"Reports: {', '.join(reports())}.")


def is_row(row_id: str | None) -> bool:
    """Whether a report's experiments file has a row of that id."""
    return any(row_id in _load(report) for report in reports())


def reports() -> list[str]:
    """Names of the reports that have an experiments file."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def variant(of: Row, label: str, exact: bool = False, **fields: object) -> Row:
    """An extra row: `of` with fields changed in each of its runs, compared with `of`, and nothing reported.

    Args:
        of: the row to start from.
        label: its name in tables, and with the id of `of` its id.
        exact: run what is written. Otherwise the profile scales it, as it does every row, and says what it ran.
        fields: dotted as tables print them: `**{"optimizer.lr": 3e-5, "tasks.sst.dropout": 0.1}`.

    Raises:
        StudyError: an unknown field (with the nearest name), a wrong type, or a combination that cannot be.
    """
    where = f"variant {label!r} of {of.id}"
    specs = tuple(_varied(spec, fields, where) for spec in of.specs)
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    row_id, asked = f"{of.id}_{name}", tuple(fields.items())
    return replace(of, id=row_id, label=label, specs=specs, base=of.id, reported={}, notes="", asked=asked, exact=exact)


def _varied(spec: RunSpec, fields: dict[str, object], where: str) -> RunSpec:
    values = to_dict(spec)
    _change(values, {name: to_dict(value) for name, value in fields.items()}, where)
    return RunSpec.from_dict(values, where)


def lookup(spec: RunSpec, field: str) -> object:
    """The value of a dotted field, as `changes` names it; None where the part it belongs to is absent."""
    flat = _flat(to_dict(spec))
    below = {name.removeprefix(f"{field}."): value for name, value in flat.items() if name.startswith(f"{field}.")}
    return flat.get(field, below or None)


def changes(of: Row, base: Row) -> dict[str, tuple[object, object]]:
    """Dotted field -> (value in base, value in `of`) for every field in which their first specs differ.

    A task that only one of them has stands as `tasks.<name>`: (True, False) when `of` lacks it; the same tasks in
    another order stand as `tasks`. A part that only one of them has (PALs, SMART, pretraining) stands as one field with
    all its values, None in the other. A row without a run changes nothing that could be listed.
    """
    if not (of.specs and base.specs):
        return {}
    theirs, ours = _flat(to_dict(base.specs[0])), _flat(to_dict(of.specs[0]))
    orders = tuple([task.name for task in row.specs[0].tasks] for row in (base, of))
    names = [{*order} for order in orders]
    one_sided = {f"tasks.{name}": tuple(name in held for held in names) for name in sorted(names[0] ^ names[1])}
    reordered = {"tasks": orders} if orders[0] != orders[1] and not one_sided else {}
    for name in [*theirs, *ours]:
        if None in (theirs.get(name, ""), ours.get(name, "")):  # None on one side hides the parts of the other
            for values in (theirs, ours):
                _fold(values, name)
    keys = [key for key in dict.fromkeys([*theirs, *ours]) if key.rpartition(".")[0] not in one_sided]
    differing = {key: (theirs.get(key), ours.get(key)) for key in keys if theirs.get(key) != ours.get(key)}
    return one_sided | reordered | differing


def examples() -> tuple[Example, ...]:
    """The sentences that reports print, which every model predicts."""
    found = [entry for report in reports() for entry in reported.examples(report)]
    return tuple(Example(e["id"], e["task"], tuple(e["texts"]), e["id"] == ATTENTION_EXAMPLE) for e in found)


def _folder():
    return files("common.declare").joinpath("experiments")


@functools.cache
def _load(report: str) -> dict[str, tuple[Row, ...]]:
    """Row id -> the row as it stands in each of its tables."""
    if report not in reports():
        raise StudyError("E-ROW", report, "no such report.", f"Known: {', '.join(reports())}.")
    content = yaml.safe_load(_folder().joinpath(f"{report}.yaml").read_text(encoding="utf-8"))
    where = f"experiments/{report}.yaml"
    _check_keys(content, FILE_KEYS, FILE_KEYS, where)
    for entry in content["rows"]:
        _check_keys(entry, ROW_KEYS, ("id", "table"), f"{where}: {entry.get('id', '?')}")
    names = [entry["id"] for entry in content["rows"]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StudyError("E-ROW", where, f"ids stand twice: {twice}.", "Give every row an id of its own.")
    entries = {entry["id"]: entry for entry in content["rows"]}
    return {name: _in_tables(content, entries, name, f"{where}: {name}") for name in entries}


def _check_keys(values: dict, known: tuple[str, ...], required: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise StudyError("E-ROW", where, f"unknown keys {unknown}.", f"Known: {', '.join(known)}.")
    if missing := sorted(set(required) - set(values)):
        raise StudyError("E-ROW", where, f"keys are missing: {missing}.", "Add them.")


def _in_tables(content: dict, entries: dict[str, dict], name: str, where: str) -> tuple[Row, ...]:
    entry, report = entries[name], content["report"]
    values, runs, combine = _values(content, entries, name, where)
    _check_combine(entry, runs, combine, where)
    specs = tuple(RunSpec.from_dict(v, where) for v in _per_run(values, runs, combine, where))
    tables = entry["table"] if isinstance(entry["table"], list) else [entry["table"]]
    made = Row(name, report, "", "", specs, entry.get("base"), {}, entry.get("notes", ""), combine)
    return tuple(_printed(made, table, entry.get("label"), where) for table in tables)


def _printed(made: Row, table: str, label: str | None, where: str) -> Row:
    """The row as one table prints it; a label of its own says that the table does not."""
    if label is not None:
        return replace(made, table=table, label=label)
    splits = reported.splits(made.report, table)
    split = splits[0] if splits and "dev" not in splits else "dev"
    labels = reported.labels(made.report, table, split)
    if made.id not in labels:
        what = f"{table} ({split}) does not print it."
        raise StudyError("E-ROW", where, what, "Correct the table, or give the row a label if nothing is printed.")
    numbers = dict(reported.printed(made.report, table, split)[made.id])
    if made.report in reported.NORMALISED_OVERALL and "overall" in numbers:
        numbers["overall_normalised"] = numbers.pop("overall")
    return replace(made, table=table, label=labels[made.id], reported=numbers, split=split)


def _values(content: dict, entries: dict[str, dict], name: str, where: str) -> tuple[dict, list[dict], str]:
    """A row's RunSpec as plain values, what each of its runs changes, and how they combine.

    The common setting is changed along the row's chain of bases; runs come from the nearest of them that has any.
    """
    chain = [name]
    while (base := entries[chain[-1]].get("base")) is not None:
        if base not in entries or base in chain:
            what = f"its base {base!r} is {'its own' if base in chain else 'no row'}."
            raise StudyError("E-ROW", where, what, f"Known: {', '.join(entries)}.")
        chain.append(base)
    values, runs, combine = copy.deepcopy(content["common"]), [], "one"
    for entry in (entries[step] for step in reversed(chain)):
        _change(values, entry.get("change", {}), where)
        runs, combine = entry.get("runs", runs), entry.get("combine", combine)
    return values, runs, combine


def _check_combine(entry: dict, runs: list[dict], combine: str, where: str) -> None:
    if combine not in COMBINATIONS:
        raise StudyError("E-ROW", where, f"unknown combine {combine!r}.", f"Known: {', '.join(COMBINATIONS)}.")
    if bool(runs) != (combine == "per_task"):
        raise StudyError("E-ROW", where, f"combine {combine!r} with {len(runs)} runs.", "runs belong to per_task.")
    if combine == "random" and (entry.get("base") or entry.get("change")):
        raise StudyError("E-ROW", where, "a random row has no run to change.", "Drop its base and its change.")


def _per_run(values: dict, runs: list[dict], combine: str, where: str) -> list[dict]:
    if combine != "per_task":
        return [] if combine == "random" else [values]
    found = [copy.deepcopy(values) for _ in runs]
    for changed, run in zip(found, runs, strict=True):
        _change(changed, run, where)
    return found


def _change(values: dict, change: dict, where: str) -> None:
    """Apply the changed fields in their order; `tasks` alone keeps the named tasks, in the order named."""
    for field, value in change.items():
        first, *rest = field.split(".")
        value, place = copy.deepcopy(value), f"{where}: {field}"
        if field == "tasks":
            values["tasks"] = _chosen_tasks(values["tasks"], value, place)
        elif first == "tasks":
            _assign_task(values["tasks"], rest, value, place)
        else:
            _assign(values, [first, *rest], value, place)


def _chosen_tasks(tasks: list[dict], chosen: object, where: str) -> list[dict]:
    names = [task["name"] for task in tasks]
    unknown = [name for name in chosen if name not in names] if isinstance(chosen, list) else [chosen]
    if unknown:
        what = f"expected a list of tasks of this row, got {chosen!r}.{meant(unknown[0], names)}"
        raise StudyError("E-ROW", where, what, f"Known: {', '.join(names)}.")
    return [tasks[names.index(name)] for name in chosen]


def _assign(values: dict, path: list[str], value: object, where: str) -> None:
    """Set one dotted field; a part that was absent (or null) begins empty."""
    *parts, last = path
    for name in parts:
        values[name] = {} if values.get(name) is None else values[name]
        values = values[name]
        if not isinstance(values, dict):
            raise StudyError("E-ROW", where, f"{name} is a value, it has no fields.", "Correct the dotted name.")
    values[last] = value


def _assign_task(tasks: list[dict], path: list[str], value: object, where: str) -> None:
    """`tasks.para.loss` goes to the task of that name, `tasks.para` with fields is the whole task."""
    chosen = [task for task in tasks if task["name"] == path[0]]
    if len(path) == 1 and isinstance(value, dict):
        tasks[:] = [task for task in tasks if task not in chosen] + [{"name": path[0], **value}]
    elif chosen and len(path) == 2:
        chosen[0][path[1]] = value
    else:
        what = f"names no field of a task of this row.{meant(path[0], [task['name'] for task in tasks])}"
        raise StudyError("E-ROW", where, what, "Write tasks.<task>.<field>, or tasks.<task> with all its fields.")


def _fold(values: dict[str, object], name: str) -> None:
    """Put the fields below `name` together again, as one value under `name`."""
    parts = {key: values.pop(key) for key in list(values) if key.startswith(f"{name}.")}
    if parts:
        values[name] = {k.removeprefix(f"{name}."): v for k, v in parts.items() if not k.endswith(".name")}


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
