"""Five student reports that fine-tuned one BERT on three tasks, run under one protocol. See README.md."""

from __future__ import annotations

import importlib

# What a notebook starts from. Loaded on first use: help and checks of the environment must not load torch.
_PLACES = {
    "load": "common.predict",
    "open_study": "common.report.lab",
    "row": "common.declare.rows",
    "rows": "common.declare.rows",
    "variant": "common.declare.rows",
}
__all__ = ["load", "open_study", "row", "rows", "variant"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
