"""Whether a saved figure shows what its report's panel shows: files, finite data that varies, and the runs behind it.

The panels stand in `declare/reported/figures.csv`; `plots.save` writes the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from common.declare.reported import panels
from common.errors import StudyError

# Columns that say where a value belongs. Alone they show nothing, however much they vary.
KEYS = (
    *("seed", "epoch", "update", "step", "label", "lambda", "smart_weight"),
    *("layer", "layers", "head", "query_position", "key_position"),
)
# The report's own values have no seed.
MAY_LACK = ("seed",)


def check_panel(folder: Path, stem: str) -> list[str]:
    """What keeps the figure `stem` in `folder` from being a panel, one line a fault; empty where nothing does.

    Args:
        folder: `Places.figures` of a profile.
        stem: a name of the registry, `reported.panels()`.
    """
    panel = next((panel for panel in panels() if panel.drawn == stem), None)
    if panel is None:
        raise StudyError("E-NAME", "figure", f"{stem!r} is no panel.", "The panels are listed in figures.csv.")
    paths = {kind: folder / f"{stem}.{kind}" for kind in ("png", "svg", "csv")}
    faults = [f"{path.name} is missing or empty" for path in paths.values() if not _has_content(path)]
    if panel.from_runs and _has_content(paths["png"]):
        with Image.open(paths["png"]) as image:
            if not image.info.get("Source"):
                faults.append(f"{stem}.png names no run")
    if _has_content(paths["csv"]):
        faults += [f"{stem}.csv {fault}" for fault in _data_faults(pd.read_csv(paths["csv"]))]
    return faults


def _data_faults(data: pd.DataFrame) -> list[str]:
    if data.empty:
        return ["has no lines"]
    if "missing" in data:  # a panel that says why this encoder has no layer of its own for it
        return [] if data["layers"].max() < 3 and data["missing"].notna().all() else ["has layers and is not drawn"]
    numbers = data.select_dtypes("number").drop(columns=list(MAY_LACK), errors="ignore")
    faults = [f"has values that are not finite in {name}" for name in numbers if not np.isfinite(numbers[name]).all()]
    values = numbers.drop(columns=list(KEYS), errors="ignore")
    if not (values.nunique(dropna=False) > 1).any():
        faults.append(f"has no value that varies (columns: {', '.join(values) or 'none'})")
    return faults


def _has_content(path: Path) -> bool:
    return path.is_file() and bool(path.read_bytes().strip())
