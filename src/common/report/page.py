"""One offline page per profile: every table, figure and run, with links that work from a plain folder.

The page is written from the files that lie in the profile's folders: tables as their Markdown has them, figures with
the caption in their PNG, runs from their records. It needs no script and no network. Jinja2 escapes everything that
is filled in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from markupsafe import Markup
from PIL import Image

from common.errors import StudyError
from common.files import atomic_write
from common.paths import NOTEBOOKS, Places
from common.report.tables import CAVEATS, formatted, read_markdown
from common.results import claims
from common.results.compare import runs_frame
from common.results.intervals import CONTRADICTED, REPRODUCED
from common.runs.record import Record
from common.runs.store import RunStore

TITLE = "Five reports on multitask BERT, run again"
TEMPLATE = "index.html.j2"


def write(places: Places, title: str = TITLE) -> Path:
    """Write `index.html` of a profile and return its path."""
    store = RunStore(places)
    records, damaged = _read(store)
    loader = jinja2.PackageLoader("common.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(TEMPLATE).render(
        title=title,
        profile=places.results.name,
        facts=_facts(records),
        caveats=_caveats(records),
        answer=_answer(places),
        sections=_sections(places),
        runs=_html(_linked_runs(records)) if records else None,
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
        "torch": _listed(record["environment"]["torch"] for record in records),
        "runs": str(len(records)),
        "training time": f"{sum(record['wall_s'] for record in records) / 60:.0f} min",
    }


def _caveats(records: list[Record]) -> list[str]:
    encoders = sorted({record["spec"]["encoder"]["checkpoint"] for record in records})
    return [CAVEATS[encoder] for encoder in encoders if encoder in CAVEATS]


def _answer(places: Places) -> dict | None:
    """How many claims of each report were decided and how, and the decided ones in words; None without a ledger."""
    path = places.results / claims.FILE
    if not path.is_file():
        return None
    ledger = pd.read_csv(path)
    kinds = {kind: ledger[ledger["verdict"] == kind] for kind in (REPRODUCED, CONTRADICTED)}
    decided = {kind: part[["claim", "statement"]].to_dict("records") for kind, part in kinds.items() if len(part)}
    counts = claims.counts(ledger).astype(str)
    picture = next(iter(sorted(places.figures.glob("06_methods.png"))), None)
    return {"counts": _html(counts), "decided": decided, "picture": _figure(places, picture) if picture else None}


def _sections(places: Places) -> list[dict]:
    """One section a notebook, by the number that its files begin with."""
    # A report's own tables come before what was measured beside them.
    tables = sorted(places.tables.glob("*.md"), key=lambda path: ("_table" not in path.stem, path.stem))
    figures = sorted(places.figures.glob("*.png"))
    numbers = sorted({path.name[:2] for path in [*tables, *figures]})
    return [
        {
            "number": number,
            "title": _title(number),
            "notebook": _link(places, next(iter(sorted(places.notebooks.glob(f"{number}_*.ipynb"))), None)),
            "tables": [_table(places, path) for path in tables if path.name.startswith(number)],
            "figures": [_figure(places, path) for path in figures if path.name.startswith(number)],
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
    files = {name: _link(places, path.with_suffix(f".{name}")) for name in ("csv", "md", "tex")}
    shown = {"name": path.stem, "title": _first_sentence(caption), "caption": caption}
    return shown | {"html": _html(text), "files": files}


def _first_sentence(caption: str) -> str:
    return re.split(r"(?<=[.!?]) ", caption, maxsplit=1)[0].rstrip(".")


def _figure(places: Places, path: Path) -> dict:
    with Image.open(path) as image:
        caption, runs, size = image.text["Description"], image.text["Source"], image.size
    files = {name: _link(places, path.with_suffix(f".{name}")) for name in ("svg", "csv")}
    shown = {"name": path.stem, "title": _first_sentence(caption), "caption": caption, "runs": runs}
    shown |= {"width": size[0] // 2, "height": size[1] // 2}
    return shown | {"png": _link(places, path), "files": files}


def _linked_runs(records: list[Record]) -> pd.DataFrame:
    frame = runs_frame(records)
    frame["minutes"] = [f"{minutes:.1f}" for minutes in frame["minutes"]]
    text = formatted(frame)
    links = [Markup('<a href="runs/{0}/record.json">{0}</a>').format(run_id) for run_id in frame["run"]]
    # As objects: a string column would forget that the links are markup already.
    return text.assign(run=pd.Series(links, dtype=object))


def _html(text: pd.DataFrame) -> Markup:
    """Cells and headers as a table; everything that is not markup already is escaped."""
    escaped = text.rename(columns=Markup.escape).map(lambda value: Markup.escape(value))
    with pd.option_context("display.max_colwidth", None):
        return Markup(escaped.to_html(index=False, escape=False, border=0))


def _link(places: Places, path: Path | None) -> str | None:
    """A link from the page to a file, relative, so that the folder can be moved."""
    return None if path is None else Path(os.path.relpath(path, places.index.parent)).as_posix()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(set(values))) or "none"
