"""All 21 registered panels are drawn from runs: those of the smoke study that run_tests.sh makes, and the published."""

from __future__ import annotations

import pytest
from panel_checks import check_panel

from common.declare import reported
from common.paths import ROOT

STEMS = list(dict.fromkeys(panel.drawn for panel in reported.panels()))
PUBLISHED = ROOT / "figures" / "cpu"
SMOKE = ROOT / "build" / "smoke" / "figures" / "smoke"


@pytest.mark.skipif(not SMOKE.is_dir(), reason="there is no smoke study: ./run_tests.sh makes it first")
@pytest.mark.parametrize("stem", STEMS)
def test_smoke_study_draws_every_panel(stem: str) -> None:
    assert check_panel(SMOKE, stem) == []


@pytest.mark.parametrize("stem", [stem for stem in STEMS if (PUBLISHED / f"{stem}.png").exists()])
def test_published_panels_are_sound(stem: str) -> None:
    assert check_panel(PUBLISHED, stem) == []
