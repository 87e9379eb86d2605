"""Whether what is published follows from the records: everything is made again in a private folder and compared.

Runs and cards are what all the rest is made from, and leaderboard files are written on demand: none of them is made
again. The notebooks themselves are executed by runner.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from common import paths
from common.paths import Places
from common.runs.session import Study
from common.runs.store import RunStore

NOT_REMADE = ("runs", "cards", "predictions")
DIFFERS, MISSING, FOREIGN = "differs", "missing", "foreign"


def apart(study: Study) -> Study:
    """The study as a report, writing to where `STUDY_OUT` says now, from the runs and cards of its own places."""
    places = paths.places(study.profile.name)
    places.results.mkdir(parents=True)
    for name in ("runs", "cards"):
        getattr(places, name).symlink_to(getattr(study.places, name))
    return replace(study, report_only=True, places=places, store=RunStore(places))


def differences(published: Places, again: Places, numbers: Collection[str] | None) -> list[tuple[str, Path]]:
    """Published files that are not what the records make, each with how it differs, by name.

    Args:
        published: where they are.
        again: where all of them were made anew.
        numbers: of the notebooks whose files count; None takes all, and what belongs to no single notebook.
    """
    lines = []
    for here, there in ((published.results, again.results), (published.figures, again.figures)):
        for name in sorted(_files(here) | _files(there)):
            if numbers is None or name.name[:2] in numbers:
                lines.append((_difference(here / name, there / name), here / name))
    return [(how, path) for how, path in lines if how]


def _files(root: Path) -> set[Path]:
    """Relative names of the files that are made again; what editors and systems hide there is left out."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {p for p in found if p.parts[0] not in NOT_REMADE and not any(part.startswith(".") for part in p.parts)}


def _difference(here: Path, there: Path) -> str | None:
    if not there.exists():
        return FOREIGN
    if not here.exists():
        return MISSING
    return None if here.read_bytes() == there.read_bytes() else DIFFERS
