"""The page: complete, offline, escaped, and every link leads to a file."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from common.report import page as pages
from common.report import plots, tables
from common.results import compare
from common.results.long import Baselines
from common.runs.session import Results

NOTHING = Baselines({}, Results())

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags and links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.images, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
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
    table["", "model"] = HOSTILE
    tables.save(lab, "02_table2", table, f"Table {HOSTILE}.")
    lab.places.notebooks.mkdir(parents=True)
    (lab.places.notebooks / "02_swissbert_ablation.ipynb").write_text("{}")
    return Page(pages.write(lab.places).read_text(encoding="utf-8"))


def test_every_link_is_relative_and_leads_to_a_file(page: Page, lab: SimpleNamespace) -> None:
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) > 10
    for link in files:
        assert "://" not in link and not link.startswith("/")
        assert (lab.places.index.parent / link).resolve().is_file(), link


def test_page_needs_no_script_and_escapes_what_is_filled_in(page: Page, lab: SimpleNamespace) -> None:
    assert "script" not in page.tags
    text = lab.places.index.read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;alert(") >= 5  # the caption twice for the figure, once for the table, every model


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
