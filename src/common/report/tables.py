"""Tables as CSV, Markdown, LaTeX and in a notebook, all from one frame. Nothing is computed here, only rounded.

CSV keeps every digit; the other three show three decimals. All text is escaped for its format. Captions name the
profile, encoder, data and seeds, and say where numbers are contaminated or mean little.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from common.errors import StudyError
from common.files import atomic_write
from common.results.compare import AT_CONSTANT
from common.results.intervals import CONTRADICTED, INCONCLUSIVE, REPRODUCED
from common.runs.record import CAVEATS
from common.runs.session import Study

NAME = re.compile(r"\d\d_[a-z0-9_]+")
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE)
MISSING = "\N{EN DASH}"
MARK = "\N{DAGGER}"
NUMBER = re.compile(rf"[+-]?\d[\d.,e%\s±+{MARK}-]*|{MISSING}|")
# JupyterLab puts all cells to the right and keeps half a line around them.
STYLE = 'style="text-align: {}; padding: 0.25em; font-size: 0.9em"'
# A notebook's table leaves out columns with at most so many values: one is told below it, none says nothing.
AT_MOST = {"seeds": 1, "share of training": 1, "notes": 1, "reported": 0, "difference": 0}
MARKED = f"{MARK} no better than the best constant answer."
SIGNED = ("difference", "printed difference", "our difference", "gap", "reported gap", "estimate", "low", "high")
SCIENTIFIC = ("largest difference",)
PERCENT = ("share", "share of training", "share truncated")
LATEX_SPECIAL = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
PLAIN_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?")
MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")


class Shown:
    """A table in a notebook: HTML where it can be drawn, plain text elsewhere, both the same on every machine."""

    def __init__(self, frame: pd.DataFrame):
        text = formatted(frame)
        values = [{*text.iloc[:, place]} - {"", MISSING} for place in range(text.shape[1])]
        names = [_leaf(name) for name in text.columns]
        left_out = [len(text) > 1 and len(values[i]) <= AT_MOST.get(name, -1) for i, name in enumerate(names)]
        self.text = text.loc[:, [not is_out for is_out in left_out]]
        once = [f"{names[i]} ({value})" for i, is_out in enumerate(left_out) if is_out for value in values[i]]
        told = [f"Alike in all lines that have it: {', '.join(once)}."] if once else []
        self.caption = " ".join([*filter(None, [frame.attrs.get("caption", "")]), *told])

    def __repr__(self) -> str:
        return self.text.to_string(index=False, max_colwidth=None) + (f"\n\n{self.caption}" if self.caption else "")

    def _repr_html_(self) -> str:
        caption = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        with pd.option_context("display.max_colwidth", None):
            drawn = self.text.to_html(index=False, escape=True, border=0)
        groups, rows = self.text.columns.nlevels, drawn.replace('halign="left"', STYLE.format("center")).split("<tr")
        columns = (self.text.iloc[:, place] for place in range(self.text.shape[1]))
        sides = itertools.cycle(["right" if column.map(is_number).all() else "left" for column in columns])
        cells = re.sub(r"<(t[hd])>", lambda tag: f"<{tag[1]} {STYLE.format(next(sides))}>", "<tr".join(rows[groups:]))
        return "<tr".join([*rows[:groups], cells]) + caption


def is_number(text: str) -> bool:
    """Whether a formatted cell holds numbers alone, or nothing."""
    return NUMBER.fullmatch(text) is not None


def reading(template: str, **values: object) -> Markdown:
    """A sentence about results whose numbers come from records and are escaped: `reading("r is {r}.", r=0.84)`."""
    return Markdown(template.format(**{name: escape_markdown(cell(value)) for name, value in values.items()}))


def found(frame: pd.DataFrame) -> Markdown:
    """What was found, in sentences: which claims were reproduced, which contradicted, and what is open."""
    parts = []
    for verdict in sorted(set(frame["verdict"]), key=[*VERDICTS, *frame["verdict"]].index):
        part = frame[frame["verdict"] == verdict]
        said = [f"- {line.claim}: {escape_markdown(line.statement)}" for line in part.itertuples()]
        parts.append("\n".join([f"**{verdict.capitalize()}**, {len(part)} of {len(frame)}:", "", *said]))
    return Markdown("\n\n".join(parts) or "None.")


def contamination_note(lab: Study) -> str:
    """What a reader must know about this encoder's numbers; empty for an encoder without a known caveat."""
    return CAVEATS.get(lab.encoder, "")


def provenance(lab: Study) -> str:
    """Where the numbers come from: profile, encoder, data and seeds, with the encoder's caveat."""
    seeds = ", ".join(str(seed) for seed in lab.seeds)
    facts = f"Profile {lab.profile.name}, encoder {lab.encoder}, data {lab.data}, seeds {seeds}."
    return f"{facts} {contamination_note(lab)}".strip()


def save(lab: Study, name: str, frame: pd.DataFrame, caption: str, from_runs: bool = True) -> pd.DataFrame:
    """Write a table as CSV, Markdown and LaTeX and return it with its caption.

    Args:
        lab: the open study; its places say where.
        name: `NN_slug`, NN the notebook's number.
        frame: unrounded values; an index with a name becomes the first CSV column.
        caption: one or two sentences; what the numbers come from is added.
        from_runs: off for tables without results, whose caption then names no encoder.
    """
    if not NAME.fullmatch(name):
        raise StudyError("E-NAME", "table", f"{name!r} is no table name.", "It looks like 02_table2.")
    marks = [column for column in frame.columns if _leaf(column) == AT_CONSTANT]
    caption = f"{caption} {MARKED}" if (frame[marks] == True).any(axis=None) else caption  # noqa: E712, may be missing
    caption = f"{caption} {provenance(lab)}" if from_runs else caption
    folder: Path = lab.places.tables
    plain = flattened(frame)
    atomic_write(folder / f"{name}.csv", to_csv(plain, frame.index.name is not None))
    atomic_write(folder / f"{name}.md", to_markdown(frame, caption).encode())
    atomic_write(folder / f"{name}.tex", to_latex(frame, caption, label=f"tab:{name}").encode())
    captioned = frame.copy()
    captioned.attrs["caption"] = caption
    return captioned


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """All cells as text with three decimals; a deviation and the mark of a low score join the mean they belong to."""
    columns, kept = {}, [position for position, column in enumerate(frame.columns) if _leaf(column) not in JOINED]
    for position in kept:
        leaf = _leaf(frame.columns[position])
        texts = [cell(value, leaf) for value in frame.iloc[:, position]]
        for name, follower in _followers(frame, position):
            texts = [text + JOINED[name](value) for text, value in zip(texts, follower, strict=True)]
        columns[position] = texts
    return pd.DataFrame(columns, index=frame.index).set_axis(frame.columns[kept], axis=1)


def cell(value: object, column: str = "") -> str:
    """One value as text: three decimals, a sign on differences, percent for shares, a dash for nothing."""
    if isinstance(value, str):
        return " ".join(value.split())
    if pd.isna(value):
        return MISSING
    if not isinstance(value, float):
        return f"{value:+d}" if column in SIGNED else str(value)
    if column in PERCENT:
        return f"{100 * value:.3g} %"
    if column in SCIENTIFIC:
        return f"{value:.1e}"
    text = f"{value:+.3f}" if column in SIGNED else f"{value:.3f}"
    return text.lstrip("+-") if float(text) == 0 else text


def to_csv(frame: pd.DataFrame, has_index: bool = False) -> bytes:
    """Every digit of a frame; a text that a spreadsheet would take for a formula begins with a quote."""
    safe = frame.rename(columns=_inert, index=_inert)
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, frame.iloc[:, place].map(_inert))
    return safe.to_csv(index=has_index, lineterminator="\n").encode()


def _inert(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # csv writes it unquoted, and readers take it for the end of the line
    return f"'{text}" if value.startswith(FORMULA) and not PLAIN_NUMBER.fullmatch(value) else text


def flattened(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one line of column names, `group: quantity` where there were two."""
    return frame.set_axis([_flat(column) for column in frame.columns], axis=1)


def unflattened(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its two lines of column names again, where it has groups."""
    pairs = [tuple(name.split(": ", 1)) if ": " in name else ("", name) for name in frame.columns]
    return frame.set_axis(pd.MultiIndex.from_tuples(pairs), axis=1) if any(group for group, _ in pairs) else frame


def to_markdown(frame: pd.DataFrame, caption: str) -> str:
    """A caption paragraph and a pipe table."""
    text = flattened(formatted(frame))
    body = [text.columns, *text.to_numpy()]
    header, *lines = [f"| {' | '.join(map(escape_markdown, cells))} |\n" for cells in body]
    return f"{escape_markdown(caption)}\n\n{header}|{' --- |' * text.shape[1]}\n{''.join(lines)}"


def read_markdown(text: str) -> tuple[str, pd.DataFrame]:
    """Caption and cells of what `to_markdown` wrote."""
    caption, _, header, _, *lines = text.splitlines()
    cells = [[_unescape_markdown(cell) for cell in line[2:-2].split(" | ")] for line in [header, *lines]]
    return _unescape_markdown(caption), unflattened(pd.DataFrame(cells[1:], columns=cells[0]))


def to_latex(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A booktabs table; needs the packages booktabs and, for grouped columns, multirow."""
    text = formatted(frame)
    grouped = text.columns.nlevels > 1
    options = {"multicolumn_format": "c"} if grouped else {}
    escaped = escape_latex(caption)
    return text.to_latex(index=False, escape=True, caption=escaped, label=label, multicolumn=grouped, **options)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", html.escape(text, quote=False))


def _unescape_markdown(text: str) -> str:
    return html.unescape(re.sub(r"\\(.)", r"\1", text))


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return text.translate(LATEX_SPECIAL)


def _leaf(column: object) -> str:
    return column[-1] if isinstance(column, tuple) else column


def _flat(column: object) -> str:
    return ": ".join(part for part in column if part) if isinstance(column, tuple) else column


def _followers(frame: pd.DataFrame, position: int) -> Iterator[tuple[str, pd.Series]]:
    """The columns right of this one that are shown in its cells."""
    for place in range(position + 1, frame.shape[1]):
        if (leaf := _leaf(frame.columns[place])) not in JOINED:
            return
        yield leaf, frame.iloc[:, place]


# What stands in the cells of the column before it, and how.
JOINED = {
    "sd": lambda sd: "" if pd.isna(sd) else f" ± {cell(sd)}",
    AT_CONSTANT: lambda is_low: MARK if is_low is True else "",
}
