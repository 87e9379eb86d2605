"""Learning curves for other programs: python -m common.results.history_export quick [--tensorboard].

Scores and losses after every epoch of all runs in a profile's store: build/<profile>/history.csv, or TensorBoard's
event files, a folder for each run, under build/<profile>/tensorboard.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from common.errors import StudyError
from common.files import atomic_write
from common.results.long import HISTORY, history_lines
from common.runs.session import open_study
from common.runs.store import RunStore


def stored_history(store: RunStore) -> pd.DataFrame:
    """The history of every sound run, one number a line."""
    lines = []
    for record in map(store.get, store.complete()):
        row = {"row": record["row"]["id"], "label": record["row"]["label"], "report": record["row"]["report"]}
        lines += history_lines(record, row | {"seed": record.seed, "run_id": record.run_id})
    return pd.DataFrame(lines, columns=[name for name in HISTORY if name != "method"]).dropna(subset="value")


def write_events(history: pd.DataFrame, folder: Path) -> None:
    """Each run as TensorBoard reads it, in a folder of its own."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        fix = "Install it: pip install -e '.[tensorboard]'"
        raise StudyError("E-TENSORBOARD", "--tensorboard", f"the package {error.name} is missing.", fix) from error
    for (row, run_id), lines in history.groupby(["row", "run_id"]):
        with SummaryWriter(str(folder / f"{row}-{run_id}")) as writer:
            for line in lines.itertuples():
                writer.add_scalar(f"{line.metric}/{line.split}", line.value, line.epoch)


def main(arguments: list[str] | None = None) -> int:
    """Write what was asked for and say where it is; 2 when that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="history_export", description="Write the learning curves of a profile's runs."
    )
    parser.add_argument("profile", help="smoke, quick, cpu, gpu or paper")
    parser.add_argument("--tensorboard", action="store_true", help="write event files instead of a CSV")
    options = parser.parse_args(arguments)
    try:
        study = open_study(options.profile, report_only=True)
        history, place = stored_history(study.store), study.places.build
        place /= "tensorboard" if options.tensorboard else "history.csv"
        if options.tensorboard:
            write_events(history, place)
        else:
            atomic_write(place, history.to_csv(index=False, lineterminator="\n").encode())
    except StudyError as error:
        print(error.message(), file=sys.stderr)
        return 2
    print(f"{history['run_id'].nunique()} runs, {len(history)} numbers: {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
