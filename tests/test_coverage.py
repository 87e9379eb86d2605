"""Every printed number's row is run by a notebook or predicted by the models, except a closed list with its reasons."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

import pytest

from common.notebooks import planned
from common.study import reported
from common.study.rows import row, rows

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Row id -> the entry of DEVIATIONS.md that says why nothing is run for it.
NOT_RUN = {
    "siar_leaderboard": "D70",
    "siar_highs": "D71",
    "gu_protocol": "D71",
    "slapbert_tsne": "D71",
    "slapbert_tsne_pairs": "D71",
    **{f"siar_sts_example_{number}": "D72" for number in range(1, 7)},
}


def run_here() -> set[str]:
    """Ids of the rows that notebooks announce, and of the example sentences, but for those with damaged predictions."""
    announced = [entry for path in NOTEBOOKS for entry in planned(path)]
    ids = {r.id for entry in announced for r in ([row(entry[0])] if len(entry) == 1 else rows(*entry))}
    examples = [example for report in ("swissbert", "siar", "slapbert") for example in reported.examples(report)]
    return ids | {e["id"] for e in examples if set(e["reported"].values()) != {None}}


def printed_ids() -> set[str]:
    with files("common.study.reported").joinpath("printed.csv").open(encoding="utf-8", newline="") as file:
        return {line["row"] for line in csv.DictReader(file)}


def test_every_printed_row_is_run_or_excepted() -> None:
    assert printed_ids() - run_here() == set(NOT_RUN)


def test_rows_of_the_test_set_are_run_and_only_their_test_numbers_lack_a_partner() -> None:
    with files("common.study.reported").joinpath("printed.csv").open(encoding="utf-8", newline="") as file:
        on_test = {line["row"] for line in csv.DictReader(file) if line["split"] == "test"}
    assert on_test - set(NOT_RUN) <= run_here() and len(on_test) > 3


@pytest.mark.parametrize("entry", sorted({*NOT_RUN.values(), "D73"}))
def test_every_exception_has_its_reason(entry: str) -> None:
    assert f"- **{entry} " in (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8")


def test_every_control_is_run() -> None:
    every = [r for report in ("bertpp", "swissbert", "gu", "siar", "slapbert") for r in rows(report)]
    controls = {r.id for r in every if r.table.startswith("controls")}
    assert controls <= run_here()
