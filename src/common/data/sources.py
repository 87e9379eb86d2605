"""One loader for three sources: a CS224N starter folder, the hub, and the embedded corpus.

Every source gives the same thing: task -> split name -> `Split`.
The embedded corpus is a starter folder too, shipped with the package and made by `scripts/tiny/corpus.py`.
Not here: what the tasks are (`tasks.py`), how a file is parsed (`tables.py`), how the hub is read (`hub.py`), tokens
(`encoding.py`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from common import paths
from common.data import hub
from common.data.split import Split
from common.data.tables import read_table
from common.declare.tasks import TASKS
from common.errors import StudyError

Corpus = dict[str, dict[str, Split]]

# File names of the starter's data folder. Test files carry no labels.
FILES = {
    "sst": {"train": "ids-sst-train.csv", "dev": "ids-sst-dev.csv", "test": "ids-sst-test-student.csv"},
    "para": {"train": "quora-train.csv", "dev": "quora-dev.csv", "test": "quora-test-student.csv"},
    "sts": {"train": "sts-train.csv", "dev": "sts-dev.csv", "test": "sts-test-student.csv"},
    "cfimdb": {"train": "ids-cfimdb-train.csv", "dev": "ids-cfimdb-dev.csv", "test": "ids-cfimdb-test-student.csv"},
}
OPTIONAL_TASKS = {"cfimdb"}


def load(source: str | Path) -> Corpus:
    """Read every task that a source holds.

    Args:
        source: "embedded"; a folder in the layout of the starter's `data/`; "hub"; or "hub:<folder>", where
            `<folder>/{sst5,qqp,stsb}` were saved with `datasets.save_to_disk`.

    Returns:
        task -> "train", "dev" and, where present, "test" -> `Split`. Labels of test files are withheld (`None`).

    Raises:
        StudyError: something is missing or cannot be read exactly; it names file, line, column and remedy.
    """
    if name(source) == "hub":
        folder = str(source).partition(":")[2]
        return hub.read_hub(Path(folder) if folder else None)
    return _read_folder(folder_of(source))


def folder_of(source: str | Path) -> Path:
    """The folder that a source other than the hub is."""
    return paths.EMBEDDED if name(source) == "embedded" else Path(source)


def name(source: str | Path) -> str:
    """Name of a source without its path: "embedded", "hub" or "cs224n"; StudyError where it names nothing."""
    kind, colon, folder = str(source).partition(":")
    if kind == "embedded" and colon:
        raise StudyError("E-DATA", f"data {source}", "the embedded corpus has no folder.", "Write: embedded")
    if not str(source).strip() or (kind == "hub" and colon and not folder):
        what = f"{str(source)!r} names no data."
        raise StudyError("E-DATA", "data", what, "Give embedded, hub, hub:FOLDER or a CS224N data folder.")
    return kind if kind in ("embedded", "hub") else "cs224n"


def fingerprint(corpus: Corpus) -> dict[str, str]:
    """task -> sha256 over the parsed rows, so line endings, quoting style and a byte order mark do not count."""
    return {task: _digest(splits) for task, splits in corpus.items()}


def _digest(splits: dict[str, Split]) -> str:
    sha = hashlib.sha256()
    for key in sorted(splits):
        split = splits[key]
        labels = [None] * len(split) if split.labels is None else split.labels.tolist()
        rows = zip(split.ids, *split.texts, labels, strict=True)
        sha.update("\n".join([json.dumps(key), *(json.dumps(row) for row in rows), ""]).encode())
    return sha.hexdigest()


def _read_folder(folder: Path) -> Corpus:
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise StudyError("E-FILE", str(folder), what, "Name a data folder of the CS224N starter, 'embedded' or 'hub'.")
    tasks = [task for task in FILES if task not in OPTIONAL_TASKS or _has_any(folder, task)]
    missing = [FILES[t][s] for t in tasks for s in ("train", "dev") if not (folder / FILES[t][s]).is_file()]
    if missing:
        present = ", ".join(sorted(path.name for path in folder.glob("*.csv"))) or "no .csv file"
        what = f"missing {', '.join(missing)}; found {present}"
        raise StudyError("E-FILE", str(folder), what, "Copy the files from the starter's data folder.")
    return {
        task: {
            split: read_table(folder / file, TASKS[task], is_labelled=split != "test")
            for split, file in FILES[task].items()
            if (folder / file).is_file()
        }
        for task in tasks
    }


def _has_any(folder: Path, task: str) -> bool:
    return any((folder / file).is_file() for file in FILES[task].values())
