"""What a notebook holds: the study, and what saves and shows a table or a figure of it in one line.

lab = open_study("quick")
results = lab.run(rows("swissbert", "table2"))
lab.table("02_table2", compare.comparison(results, compare.baselines(lab)), "swissBERT, Table 2.")
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields

import pandas as pd
from IPython.display import Image, Markdown
from matplotlib.figure import Figure

from common.declare.spec import RunSpec
from common.report import plots, tables
from common.results.architecture import architecture
from common.runs import session


class Lab(session.Study):
    """A study whose tables and figures are saved and shown."""

    def table(self, name: str, frame: pd.DataFrame, caption: str, from_runs: bool = True) -> tables.Shown:
        """Save a table as CSV, Markdown and LaTeX, and show it (see `tables.save`)."""
        return tables.Shown(tables.save(self, name, frame, caption, from_runs))

    def figure(self, name: str, drawing: Callable[[pd.DataFrame], Figure], frame: pd.DataFrame, caption: str) -> Image:
        """Draw a frame, save it as PNG, SVG and CSV, and show it; the runs it shows are those that the frame names."""
        ids = frame["run_id"].dropna().unique() if "run_id" in frame else []
        runs = [part for run_id in ids for part in run_id.split("+")]
        return plots.save(self, name, drawing(frame), frame, caption, runs)

    def found(self, ledger: pd.DataFrame) -> Markdown:
        """The verdicts of a ledger in sentences."""
        return tables.found(ledger)

    def code(self, function: Callable) -> Markdown:
        """The source of a function, as it runs."""
        return Markdown(f"```python\n{inspect.getsource(function)}```")

    def diagram(self, spec: RunSpec) -> Markdown:
        """How a model is built, as a diagram that JupyterLab and GitHub draw from its text."""
        return Markdown(f"```mermaid\n{architecture(spec)}\n```")


@functools.wraps(session.open_study)
def open_study(*arguments: object, **options: object) -> Lab:
    study = session.open_study(*arguments, **options)
    return Lab(**{field.name: getattr(study, field.name) for field in fields(study)})
