"""The contradictions between the reports: complete, about rows that exist, in our own words, and read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from common.declare import reported
from common.declare.reported import contradictions as module
from common.declare.reported.contradictions import contradictions, contradictions_frame
from common.errors import StudyError
from common.paths import ROOT

FACTS = ROOT.parent / "shared" / "facts" / "claims.yaml"
REPORTS = {"bertpp", "swissbert", "gu", "siar", "slapbert"}
EXPERIMENTS = Path(reported.__file__).parents[1] / "experiments"


def facts() -> dict[str, dict]:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    return {entry["id"]: entry for entry in yaml.safe_load(FACTS.read_text(encoding="utf-8"))["contradictions"]}


def runs_of_eight(values: object) -> set[tuple[str, ...]]:
    """Every run of eight words of the texts in nested plain values."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return set().union(*map(runs_of_eight, values))
    words = re.findall(r"[a-z0-9.]*[a-z0-9]", str(values).lower())
    return {tuple(words[start : start + 8]) for start in range(len(words) - 7)}


def test_there_are_thirteen_each_with_the_reports_that_were_collected() -> None:
    assert [entry.id for entry in contradictions()] == [f"x{number:02d}" for number in range(1, 14)]
    for entry in contradictions():
        assert set(entry.positions) <= REPORTS and len(entry.positions) >= 2
        assert entry.explanations and entry.rows and entry.decided_by.endswith(".")
        assert len(set(entry.rows)) == len(entry.rows)
    for entry, theirs in zip(contradictions(), facts().values(), strict=True):
        named = set(theirs["positions"])
        assert set(entry.positions) == (REPORTS if "others" in named else named), entry.id


def test_every_row_stands_in_an_experiments_file_and_nearly_every_position_has_one() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in EXPERIMENTS.glob("*.yaml"))
    known = set(re.findall(r"^  - id: (\w+)$", text, re.MULTILINE))
    assert len(known) > 70 and all(set(entry.rows) <= known for entry in contradictions())
    spoken = {entry.id: {row.partition("_")[0] for row in entry.rows} for entry in contradictions()}
    silent = {entry.id: set(entry.positions) - spoken[entry.id] for entry in contradictions()}
    # BERT++ tells of shared layers in its text and prints no row of them.
    assert {name: reports for name, reports in silent.items() if reports} == {"x08": {"bertpp"}}


def test_numbers_in_the_positions_are_printed_ones() -> None:
    values = reported.printed_values()
    printed = {f"{abs(value):.3f}" for value in values.values()}
    derived = {"0.011"}  # Gu's gain by surgery, 0.746 - 0.735
    for entry in contradictions():
        for report, position in entry.positions.items():
            assert set(re.findall(r"\b0\.\d{3}\b", position)) <= printed | derived, (entry.id, report)


def test_no_sentence_is_copied() -> None:
    theirs = set().union(*(runs_of_eight(entry) for entry in facts().values()))
    for entry in contradictions():
        texts = [entry.topic, entry.positions, entry.explanations, entry.decided_by]
        assert not runs_of_eight(texts) & theirs, entry.id


def test_frame_of_a_report_has_its_topics_and_its_own_position_first() -> None:
    frame = contradictions_frame("slapbert")
    own = [entry for entry in contradictions() if "slapbert" in entry.positions]
    assert frame["topic"].tolist() == [entry.topic for entry in own]
    assert frame["slapbert"].tolist() == [entry.positions["slapbert"] for entry in own]
    assert list(frame) == ["topic", "slapbert", "bertpp", "gu", "siar", "swissbert", "decided by"]
    surgery, smart = frame.iloc[0], frame[frame["topic"] == "SMART"].iloc[0]
    assert surgery["gu"] == contradictions()[0].positions["gu"] and smart["gu"] == ""
    assert contradictions_frame("nobody").empty


def test_the_whole_table_has_every_contradiction_and_every_report() -> None:
    frame = contradictions_frame()
    assert frame["topic"].tolist() == [entry.topic for entry in contradictions()]
    assert set(frame) == {"topic", *REPORTS, "decided by"}
    for entry, (_, line) in zip(contradictions(), frame.iterrows(), strict=True):
        assert {name: line[name] for name in REPORTS if line[name]} == entry.positions


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("topic: SMART\n", "topic: SMART\n  note: extra\n", r"contradictions.yaml: x07: fields .*'note'"),
        ("  topic: SMART\n", "", r"contradictions.yaml: x07: fields .* expected id, topic"),
        ("topic: SMART\n", "topic: 7\n", r"contradictions.yaml: x07: a text is empty or no text"),
        ("    siar: The best multitask", "    starter: The best multitask", r"x07: unknown reports \['starter'\]"),
        ("  - siar_mtl_smart_all\n", "  - siar_mtl_smart_none\n", r"x07: unknown rows \['siar_mtl_smart_none'\]"),
        ("    siar: The best multitask model, and a guard against overfitting.\n", "", r"x07: fewer than two"),
        ("id: x07", "id: x06", r"contradictions.yaml: ids stand twice: \['x06'\]"),
    ],
)
def test_damaged_file_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported(module.FILE, old, new, module)
    with pytest.raises(StudyError, match=message):
        contradictions()
