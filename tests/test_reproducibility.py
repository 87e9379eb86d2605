"""REPRODUCIBILITY.md: every promise names a test, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "REPRODUCIBILITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_named_test_is_there(file: str, test: str) -> None:
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), flags=re.M)


def test_every_promise_names_a_test() -> None:
    promised = TEXT.partition("## Promised")[2].partition("## Not promised")[0]
    promises = [part for part in re.split(r"\n\n|\n- ", promised) if part.strip() and not part.startswith("**")]
    assert len(promises) > 15 and [part for part in promises if "::test_" not in part] == []
