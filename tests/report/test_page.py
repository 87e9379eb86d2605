"""The page: complete, offline, escaped, and every link leads to a file."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest

from common.report import page as pages
from common.report import plots, tables
from common.results import claims, compare
from common.results.long import Baselines
from common.runs.session import Results

NOTHING = Baselines({}, Results())

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags and links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.images, self.tags, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.images += [values] if tag == "img" else []


@pytest.fixture
def page(lab: SimpleNamespace, results: dict) -> Page:
    frame = compare.bars(results, NOTHING)
    plots.save(
        lab,
        "02_comparison",
        plots.comparison(frame),
        frame,
        f"Figure {HOSTILE}.",
        [record.run_id for result in results.values() for record in result.records],
    )
    table = compare.comparison(results, NOTHING)
    table["", "model"] = table[HOSTILE, HOSTILE] = HOSTILE
    tables.save(lab, "02_table2", table, f"Table {HOSTILE}.")
    lab.places.notebooks.mkdir(parents=True)
    (lab.places.notebooks / "02_swissbert_ablation.ipynb").write_text("{}")
    return Page(pages.write(lab.places).read_text(encoding="utf-8"))


def test_every_link_is_relative_and_leads_to_a_file(page: Page, lab: SimpleNamespace) -> None:
    files = [link for link in page.links if not link.startswith(("#", "data:,"))]
    assert len(files) > 10
    for link in files:
        assert "://" not in link and not link.startswith("/")
        assert (lab.places.index.parent / link).resolve().is_file(), link


def test_page_escapes_what_is_filled_in(page: Page, lab: SimpleNamespace) -> None:
    assert page.tags.count("script") == 1, "its own, at the end"
    text = lab.places.index.read_text(encoding="utf-8")
    # Its caption and its title, in words and for readers aloud, every model and a column's name.
    assert text.count("&lt;script&gt;alert(") >= 8 and HOSTILE not in text


def test_headings_are_in_order_and_tables_have_headers_with_a_scope(page: Page, lab: SimpleNamespace) -> None:
    levels = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    text = lab.places.index.read_text(encoding="utf-8")
    assert text.count("<th ") == text.count("<th scope=") > 20 and '<html lang="en">' in text
    assert len(page.ids) == len(set(page.ids)), "an anchor is there once"


def test_runs_stand_by_the_name_of_their_row(page: Page, lab: SimpleNamespace) -> None:
    text = lab.places.index.read_text(encoding="utf-8")
    rows = re.findall(r'<tr id="run-[^"]+"><th scope="row">([^<]+)</th>', text)
    assert rows == sorted(rows) and "swissbert_pair" in rows and len(rows) == 4


def test_figures_have_alternative_text_and_runs_their_records(page: Page, lab: SimpleNamespace, results: dict) -> None:
    assert [image["alt"].startswith(f"Figure {HOSTILE}.") for image in page.images] == [True]
    assert {
        f"runs/{run_id}/record.json"
        for run_id in [record.run_id for result in results.values() for record in result.records]
    } <= set(page.links)


def test_page_names_profile_encoder_data_and_caveat(page: Page, lab: SimpleNamespace) -> None:
    text = lab.places.index.read_text(encoding="utf-8")
    for fact in ("<strong>quick</strong>", "<dd>tiny-bert</dd>", "<dd>embedded</dd>", "not comparable"):
        assert fact in text


def test_writing_twice_gives_the_same_bytes(page: Page, lab: SimpleNamespace) -> None:
    before = lab.places.index.read_bytes()
    pages.write(lab.places)
    assert lab.places.index.read_bytes() == before


def test_empty_profile_has_a_page_too(lab: SimpleNamespace) -> None:
    text = pages.write(lab.places).read_text(encoding="utf-8")
    assert "<dt>runs</dt><dd>0</dd>" in text


def test_a_damaged_run_is_left_out_and_listed(lab: SimpleNamespace, results: dict) -> None:
    damaged, sound = lab.store.names()[:2]
    (lab.store.folder(damaged) / "record.json").write_text("")
    text = pages.write(lab.places).read_text(encoding="utf-8")
    assert f"<li>{damaged}: record.json cannot be read (JSONDecodeError).</li>" in text
    assert f"runs/{damaged}/record.json" not in text and f"runs/{sound}/record.json" in text


def answered(lab: SimpleNamespace, *lines: tuple) -> str:
    """The page with a ledger of these claims: id, statement, verdict, leaning, topic, how clear it is, runs."""
    columns = ["claim", "statement", "verdict", "leaning", "topic", "clear_by", "runs"]
    frame = pd.DataFrame(lines, columns=columns).reindex(columns=claims.LEDGER)
    frame = frame.assign(report=frame["claim"].str[0], estimate=-0.25, low=-0.3, high=-0.2, printed=0.1, seeds=3)
    lab.places.results.mkdir(parents=True, exist_ok=True)
    frame.to_csv(lab.places.results / "claims.csv", index=False)
    return pages.write(lab.places).read_text(encoding="utf-8")


def test_the_first_section_says_what_matters_most_among_the_decided(lab: SimpleNamespace, results: dict) -> None:
    run = results["swissbert_pair"].records[0].run_id
    text = answered(
        lab,
        ("a_c01", f"Pairs {HOSTILE} help.", "reproduced", "for", "pairs", 0.1, f"{run} gone-s0"),
        ("a_c02", "Pairs help much.", "reproduced", "for", "pairs", 0.2, ""),
        ("b_c03", "Nobody knows.", "inconclusive", "for", "cosine", 0.9, ""),
        ("b_c04", "It costs.", "contradicted", "against", "", 0.8, ""),
    )
    answer, rest = text[text.index('id="answer"') :].split('id="claims"', 1)
    assert "Of 4 claims <strong>2</strong> are reproduced, <strong>1</strong> is contradicted" in answer
    (finding,) = re.findall(r"<li>(.*?)</li>", answer)  # one a method; no other claim of a method is decided
    assert "<strong>Reproduced</strong>, pairs" in finding and "Pairs help much." in finding
    assert "-0.250 [-0.300, -0.200] here, +0.100 in the report; it is clear of the demand by 0.200." in finding
    assert [rest.count(f'<tr id="{name}"') for name in ("a_c01", "a_c02", "b_c03", "b_c04")] == [1, 1, 1, 1]
    assert f'<a href="#run-{run}">swissbert_pair, seed 0</a>; gone-s0' in rest and f'id="run-{run}"' in rest
    assert HOSTILE not in text


def test_where_nothing_is_decided_the_page_says_so_and_names_the_leanings(lab: SimpleNamespace) -> None:
    lines = [(f"a_c0{n}", f"Claim {n}.", "inconclusive", "against", f"method {n}", n / 10, "") for n in range(5)]
    text = answered(lab, *lines)
    assert "<strong>0</strong> are reproduced" in text and "there are leanings only" in text
    found = re.findall(r"<li><strong>Leans against</strong>, method (\d)", text)
    assert found == ["4", "3", "2"]
    assert "even leans clearly" in answered(lab, ("a_c01", "None.", "open", "", "", None, ""))
