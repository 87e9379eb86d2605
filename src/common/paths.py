"""Every path of the study. Nothing else builds one.

The repository root is found from this file, whatever the working directory. `STUDY_OUT` moves everything that is
written (results, figures, build) to another folder: tests use it, and so can a read-only checkout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
ASSETS = Path(__file__).resolve().parent / "assets"
TINY_BERT = ASSETS / "tiny-bert"
EMBEDDED = ASSETS / "embedded"


def output_root() -> Path:
    """Where results, figures and build go: `STUDY_OUT`, from where run_all.sh was called, or the repository."""
    out = os.path.expanduser(os.environ.get("STUDY_OUT") or ROOT)
    # Not Path.resolve, which ends in a traceback where links lead in a circle; writing then says so in one line.
    return Path(os.path.realpath(os.path.join(os.environ.get("STUDY_CALLED_FROM", ""), out)))


@dataclass(frozen=True)
class Places:
    """The folders one profile writes to."""

    results: Path
    figures: Path
    build: Path

    @property
    def runs(self) -> Path:
        return self.results / "runs"

    @property
    def tables(self) -> Path:
        return self.results / "tables"

    @property
    def notebooks(self) -> Path:
        return self.results / "notebooks"

    @property
    def cards(self) -> Path:
        return self.results / "cards"

    @property
    def predictions(self) -> Path:
        """Leaderboard files, a folder per run."""
        return self.results / "predictions"

    @property
    def index(self) -> Path:
        return self.results / "index.html"

    @property
    def locks(self) -> Path:
        return self.build / "locks"

    @property
    def encoders(self) -> Path:
        """Checkpoints that were pretrained further, by content."""
        return self.build / "encoders"

    @property
    def checkpoints(self) -> Path:
        """Where runs that were cut off go on from, a file per run."""
        return self.build / "checkpoints"

    @property
    def weights(self) -> Path:
        """Trained models that were kept, a folder per run; like all of build/ they are never committed."""
        return self.build / "weights"

    @property
    def logs(self) -> Path:
        return self.build / "logs"


def places(profile: str) -> Places:
    """The folders of a profile; `smoke` keeps everything under build/, so it never touches results."""
    root = output_root()
    base = root / "build" / "smoke" if profile == "smoke" else root
    return Places(base / "results" / profile, base / "figures" / profile, root / "build" / profile)
