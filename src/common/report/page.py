"""One offline page per profile: every table, figure and run, with links that work from a plain folder.

The page is written from the files that lie in the profile's folders: the ledger, tables as their Markdown has them,
figures with the caption in their PNG, runs from their records. It needs no script and no network; filters are CSS, and
a script only adds that the list of runs can be sorted. Jinja2 escapes everything that is filled in.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from PIL import Image

from common.errors import StudyError
from common.files import atomic_write
from common.paths import NOTEBOOKS, Places
from common.report.tables import cell, formatted, read_markdown
from common.results import claims
from common.results.compare import runs_frame
from common.results.intervals import CONTRADICTED, REPRODUCED
from common.runs.record import CAVEATS, Record
from common.runs.store import RunStore

TITLE = "Five reports on multitask BERT, run again"
TEMPLATE = "index.html.j2"
NUMBERS = ("estimate", "low", "high", "printed", "seeds", "clear_by")
# What the first section shows need not be shown again.
ABOVE = ("06_counts.md", "06_ledger.md", "06_scoreboard.md", "06_methods.png")


def write(places: Places, title: str = TITLE) -> Path:
    """Write `index.html` of a profile and return its path."""
    records, damaged = _read(RunStore(places))
    loader = jinja2.PackageLoader("common.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(TEMPLATE).render(
        title=title,
        profile=places.results.name,
        facts=_facts(records),
        environment=_environment(records),
        caveats=_caveats(records),
        answer=_answer(places, {record.run_id: f"{record['row']['id']}, seed {record.seed}" for record in records}),
        sections=_sections(places),
        runs=_runs(records) if records else None,
        damaged=damaged,
    )
    atomic_write(places.index, page.encode())
    return places.index


def _read(store: RunStore) -> tuple[list[Record], dict[str, str]]:
    """All sound records, and what is wrong with each of the others."""
    records, damaged = [], {}
    for run_id in store.names():
        try:
            records.append(store.get(run_id))
        except StudyError as error:
            damaged[run_id] = f"{Path(error.where).name} {error.what}"
    return records, damaged


def _facts(records: list[Record]) -> dict[str, str]:
    """What the runs were made with, each value once."""
    specs = [record["spec"] for record in records]
    return {
        "encoder": _listed(spec["encoder"]["checkpoint"] for spec in specs),
        "data": _listed(spec["data"] for spec in specs),
        "seeds": _listed(spec["seed"] for spec in specs),
        "runs": str(len(records)),
        "training time": f"{sum(record['wall_s'] for record in records) / 60:.0f} min",
    }


def _environment(records: list[Record]) -> dict[str, str]:
    """What the runs ran on and by which programs, each value once."""
    made = [record["environment"] for record in records]
    return {name: _listed(found[name] for found in made if name in found) for name in sorted(set().union(*made))}


def _caveats(records: list[Record]) -> list[str]:
    return sorted({record.caveat for record in records if record.caveat})


def _answer(places: Places, names: dict[str, str]) -> dict | None:
    """Claims by report and verdict, those that matter most, and all of them; None without a ledger.

    Args:
        places: of the profile.
        names: run id -> what a reader knows the run by.
    """
    path = places.results / claims.FILE
    if not path.is_file():
        return None
    texts = {"keep_default_na": False, "dtype": {"section": str, "runs": str, "seeds": "Int64"}}
    ledger = pd.read_csv(path, na_values={name: [""] for name in NUMBERS}, **texts)
    best, is_decided = claims.findings(ledger)
    counts = claims.counts(ledger)
    scores, picture = places.tables / "06_scoreboard.md", places.figures / "06_methods.png"
    return {
        "counts": _grid(counts.astype(str)),
        "total": len(ledger),
        "decided": {kind: int((ledger["verdict"] == kind).sum()) for kind in (REPRODUCED, CONTRADICTED)},
        "is_decided": is_decided,
        "findings": _claims(best, names),
        "claims": _claims(ledger, names),
        "filters": {name: list(dict.fromkeys(ledger[name])) for name in ("report", "verdict")},
        "picture": _figure(places, picture) if picture.is_file() else None,
        "scoreboard": _table(places, scores) if scores.is_file() else None,
    }


def _claims(ledger: pd.DataFrame, names: dict[str, str]) -> list[dict]:
    """The lines of a ledger with numbers as text and their runs by name; a run without a name has no record here."""
    lines = []
    for line in ledger.to_dict("records"):
        runs = {run: names.get(run) for run in line["runs"].split()}
        numbers = {name: cell(line[name], "estimate" if name == "printed" else name) for name in NUMBERS}
        lines.append(line | numbers | {"runs": runs})
    return lines


def _sections(places: Places) -> list[dict]:
    """One section a notebook, by the number that its files begin with; without what the answer shows."""
    # A report's own tables come before what was measured beside them.
    tables = sorted(places.tables.glob("*.md"), key=lambda path: ("_table" not in path.stem, path.stem))
    figures = sorted(places.figures.glob("*.png"))
    numbers = sorted({path.name[:2] for path in [*tables, *figures]})
    return [
        {
            "number": number,
            "title": _title(number),
            "notebook": _link(places, next(iter(sorted(places.notebooks.glob(f"{number}_*.ipynb"))), None)),
            "tables": [_table(places, p) for p in tables if p.name.startswith(number) and p.name not in ABOVE],
            "figures": [_figure(places, p) for p in figures if p.name.startswith(number) and p.name not in ABOVE],
        }
        for number in numbers
    ]


def _title(number: str) -> str:
    """The first heading of the notebook's source, or its number."""
    for path in sorted(NOTEBOOKS.glob(f"{number}_*.ipynb")):
        heading = re.match(r"#\s+(.+)", nbformat.read(path, as_version=4).cells[0].source)
        if heading:
            return heading[1]
    return number


def _table(places: Places, path: Path) -> dict:
    caption, text = read_markdown(path.read_text("utf-8"))
    caption = _without_caveat(caption)
    files = {name: _link(places, path.with_suffix(f".{name}")) for name in ("csv", "md", "tex")}
    shown = {"name": path.stem, "title": _first_sentence(caption), "caption": caption}
    return shown | {"grid": _grid(text), "files": files}


def _without_caveat(caption: str) -> str:
    """The page says what a reader must know of the encoder once, at its top."""
    for caveat in CAVEATS.values():
        caption = caption.removesuffix(caveat).rstrip()
    return caption


def _first_sentence(caption: str) -> str:
    return re.split(r"(?<=[.!?]) ", caption, maxsplit=1)[0].rstrip(".")


def _figure(places: Places, path: Path) -> dict:
    with Image.open(path) as image:
        caption, runs, size = _without_caveat(image.text["Description"]), image.text["Source"], image.size
    files = {name: _link(places, path.with_suffix(f".{name}")) for name in ("svg", "csv")}
    shown = {"name": path.stem, "title": _first_sentence(caption), "caption": caption, "runs": runs}
    shown |= {"width": size[0] // 2, "height": size[1] // 2}
    return shown | {"png": _link(places, path), "files": files}


def _runs(records: list[Record]) -> dict:
    frame = runs_frame(records)
    frame["minutes"] = [f"{minutes:.1f}" for minutes in frame["minutes"]]
    return _grid(formatted(frame))


def _grid(text: pd.DataFrame) -> dict:
    """Cells and lines of column names, each with the number of columns it is over."""
    *groups, names = (text.columns.get_level_values(level) for level in range(text.columns.nlevels))
    heads = [[(name, len([*run])) for name, run in itertools.groupby(group)] for group in groups]
    return {"heads": [*heads, [(name, 1) for name in names]], "body": text.to_numpy().tolist()}


def _link(places: Places, path: Path | None) -> str | None:
    """A link from the page to a file, relative, so that the folder can be moved."""
    return None if path is None else Path(os.path.relpath(path, places.index.parent)).as_posix()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(set(values))) or "none"
