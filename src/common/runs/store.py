"""Run records on disk: written whole or not at all, hash checked whenever they are read.

A run is a folder `results/<profile>/runs/<run_id>/` with `record.json`, `predictions.parquet` (dev scores in half
precision, columns task, index, score_0, score_1, ...) and, where a figure needs them, `probes.safetensors` (float16).
The folder is built beside its place and renamed into it, so a reader never sees half a run. A card is a small measured
fact that is not a run. Nothing here trains, and nothing here knows what the numbers mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import AcquireReturnProxy, FileLock, Timeout
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.declare.strict import canonical_json
from common.errors import StudyError
from common.files import atomic_write, sync_folder
from common.paths import Places
from common.runs.record import Record

SCHEMA = 1
RECORD, PREDICTIONS, PROBES = "record.json", "predictions.parquet", "probes.safetensors"
RUN_ID = re.compile(r"[0-9a-f]{12}-s\d{1,10}")
CARD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
WAIT_S = 0.25
HALF_MAX = float(np.finfo(np.float16).max)
CHANGED = "was changed after it was written (its hash differs)"


class RunStore:
    """The runs and cards of one profile."""

    def __init__(self, places: Places):
        self.places = places

    def folder(self, run_id: str) -> Path:
        """Where the run of that id lives; StudyError when it is no run id, so that no name leads out of the store."""
        if not RUN_ID.fullmatch(run_id):
            raise StudyError("E-RUN-ID", "run_id", f"{run_id!r} is no run id.", "It looks like 3fa2c1d09bee-s0.")
        return self.places.runs / run_id

    def present(self, run_id: str) -> bool:
        """Whether something stands in the place of that run, sound or not."""
        return os.path.lexists(self.folder(run_id))

    def has(self, run_id: str) -> bool:
        """Whether the run is there, complete and unchanged."""
        return self.present(run_id) and self.damage(run_id) is None

    def damage(self, run_id: str) -> str | None:
        """What is wrong with what stands in the place of that run; None where it is sound."""
        try:
            self.get(run_id)
        except StudyError as error:
            return f"{error.where}: {error.what}"
        return None

    def get(self, run_id: str) -> Record:
        """The record of a run, after checking it and the files beside it against their hashes.

        Raises:
            StudyError: E-MISSING without a record, E-RECORD when a file is missing, torn or was changed.
        """
        folder = self.folder(run_id)
        if not self.present(run_id):
            raise StudyError("E-MISSING", run_id, "the store holds no such run.", "Train it first.")
        return Record(_checked(folder, run_id))

    def names(self) -> list[str]:
        """Ids of all runs that are there, sound or not."""
        return sorted(path.name for path in self.places.runs.glob("*-s*") if RUN_ID.fullmatch(path.name))

    def complete(self) -> list[str]:
        """Ids of all runs that are complete and unchanged."""
        return [run_id for run_id in self.names() if self.has(run_id)]

    def write(self, record: dict, predictions: dict[str, np.ndarray], probes: dict[str, np.ndarray]) -> dict:
        """Store a finished run and return its record with `files`, `schema` and `sha256` filled in."""
        return self.adopt(record["run_id"], packed(record, predictions, probes))

    def adopt(self, run_id: str, files: dict[str, bytes]) -> dict:
        """Store the files of a run, as `packed` made them here or elsewhere, and return its record.

        A run that already stands there moves to build/replaced, and only once the new one is whole on disk. The caller
        holds the lock of the run.
        """
        folder = self.folder(run_id)
        staged = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(staged, ignore_errors=True)  # left by a killed writer
        try:
            for name, content in files.items():
                atomic_write(staged / _plain(name, run_id), content)
            record = _checked(staged, run_id)
            if self.has(run_id) and self.get(run_id) == record:  # a worker with this very store has written it
                shutil.rmtree(staged)
                return record
            if self.present(run_id):
                _move(folder, self.places.build / "replaced" / run_id)
            os.rename(staged, folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        sync_folder(folder.parent)
        return record

    def files(self, run_id: str) -> dict[str, bytes]:
        """The files of a sound run by name, as `adopt` takes them."""
        folder = self.folder(run_id)
        return {name: (folder / name).read_bytes() for name in (*self.get(run_id)["files"], RECORD)}

    def set_aside(self, run_id: str) -> Path:
        """Move a damaged run out of the store, under a name of its own, and return where it is now."""
        names = (f"{run_id}.damaged-{number}" for number in itertools.count(1))
        target = next(t for t in (self.places.build / "damaged" / name for name in names) if not os.path.lexists(t))
        _move(self.folder(run_id), target)
        return target

    def predictions(self, run_id: str) -> dict[str, np.ndarray]:
        """Dev scores per task, float32: (N,), or (N, C) for a task with several scores an example."""
        self.get(run_id)
        table = pq.read_table(self.folder(run_id) / PREDICTIONS)
        tasks = np.asarray(table["task"].to_pylist())
        names = [name for name in table.column_names if name.startswith("score_")]
        scores = np.stack([table[name].to_numpy().astype(np.float32) for name in names], axis=1)  # (N, C)
        used = np.stack([table[name].is_valid().to_numpy() for name in names], axis=1)  # (N, C)
        return {task: _columns(scores[tasks == task], used[tasks == task]) for task in dict.fromkeys(tasks.tolist())}

    def probes(self, run_id: str) -> dict[str, np.ndarray]:
        """Arrays that figures need, float32 where they were stored in half precision; empty when the run has none."""
        if PROBES not in self.get(run_id)["files"]:
            return {}
        arrays = load_tensors((self.folder(run_id) / PROBES).read_bytes())
        return {
            name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()
        }

    def try_lock(self, run_id: str) -> AcquireReturnProxy | None:
        """Hold the run for this process until the lock is released, as a context does; None when another holds it.

        The operating system frees the lock when its holder dies, however it dies, so none is ever stale.
        """
        self.folder(run_id)
        self.places.locks.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(self.places.locks / f"{run_id}.lock").acquire(timeout=0)
        except Timeout:
            return None

    @contextlib.contextmanager
    def lock(self, run_id: str) -> Iterator[None]:
        """Hold the run, once whoever holds it now has released it."""
        while (lock := self.try_lock(run_id)) is None:
            time.sleep(WAIT_S)
        with lock:
            yield

    def card(self, name: str) -> object | None:
        """The content of a card, hash checked; None when there is no such card."""
        path = self._card_path(name)
        return read_checked(path)["content"] if path.exists() else None

    def write_card(self, name: str, content: object) -> None:
        """Store a small measured fact under that name, replacing an earlier one."""
        atomic_write(self._card_path(name), to_json(sealed({"schema": SCHEMA, "content": content})))

    def _card_path(self, name: str) -> Path:
        if not CARD_NAME.fullmatch(name):
            raise StudyError("E-NAME", "card", f"{name!r} is no card name.", "Use a-z, 0-9, dot, dash, underscore.")
        return self.places.cards / f"{name}.json"


def packed(record: dict, predictions: dict[str, np.ndarray], probes: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The files of a run by name, with `files`, `schema` and `sha256` in the record.

    Raises:
        StudyError: E-FINITE when a number of the record is not finite, which JSON cannot say.
    """
    contents = {PREDICTIONS: _to_parquet(predictions)}
    if probes:
        contents[PROBES] = save_tensors({name: _half(array) for name, array in probes.items()})
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if place := _not_finite(record):
        what = "is not a finite number: the weights, too, are likely no numbers any more."
        raise StudyError("E-FINITE", place, what, "Use a lower learning rate.")
    return {**contents, RECORD: to_json(sealed({**record, "schema": SCHEMA, "files": files}))}


def _not_finite(value: object, place: str = "record") -> str | None:
    """Where in the value a number is not finite, as dotted names."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next(filter(None, (_not_finite(item, f"{place}.{name}") for name, item in named)), None)


def _move(source: Path, target: Path) -> None:
    try:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    except OSError as error:
        fix = "Give write permission, or move it away by hand."
        raise StudyError("E-WRITE", source, f"cannot be moved to {target}: {error.strerror}.", fix) from error


def _plain(name: str, run_id: str) -> str:
    if name not in (RECORD, PREDICTIONS, PROBES):
        raise StudyError("E-RECORD", run_id, f"no run has a file {name!r}.", "Train the run again.")
    return name


def sealed(content: dict) -> dict:
    """The content with the hash of everything else under `sha256`."""
    body = json.loads(canonical_json({key: value for key, value in content.items() if key != "sha256"}))
    return {**body, "sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest()}


def to_json(content: dict) -> bytes:
    """The bytes of a record or card."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _checked(folder: Path, run_id: str) -> dict:
    """The record in that folder, after checking its form and the files beside it."""
    path = folder / RECORD
    record = read_checked(path)
    if record.get("schema") != SCHEMA or record.get("run_id") != run_id:
        raise _damaged(path, f"holds schema {record.get('schema')!r}, run {record.get('run_id')!r}")
    files, hashes = record.get("files"), record.get("hashes")
    is_whole = isinstance(files, dict) and {PREDICTIONS} <= files.keys() <= {PREDICTIONS, PROBES}
    if not (is_whole and isinstance(hashes, dict) and isinstance(hashes.get("data"), dict) and "weights" in hashes):
        raise _damaged(path, "does not say which files and which data belong to it")
    for name, digest in files.items():
        if hashlib.sha256(_read(folder / name)).hexdigest() != digest:
            raise _damaged(folder / name, CHANGED)
    return record


def read_checked(path: Path) -> dict:
    """The sealed content of a file; StudyError where it is torn or was changed."""
    content = _read(path)
    try:
        record = json.loads(content)
        is_sound = record["sha256"] == sealed(record)["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"cannot be read ({type(error).__name__})") from error
    if not is_sound:
        raise _damaged(path, CHANGED)
    return record


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "is missing") from error
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error


def _damaged(path: Path, what: str) -> StudyError:
    fix = "Restore the file, train the run again with --force, or (a card) delete it."
    return StudyError("E-RECORD", path, f"{what}.", fix)


def _half(array: np.ndarray) -> np.ndarray:
    """float16 in place of wider floats, finite values kept finite; other types as they are."""
    array = np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return np.where(np.isinf(array), array, np.clip(array, -HALF_MAX, HALF_MAX)).astype(np.float16)


def _to_parquet(predictions: dict[str, np.ndarray]) -> bytes:
    """One row per dev example; a task with fewer scores than the widest one has nulls in the other columns."""
    scores = {task: array.reshape(len(array), -1) for task, array in predictions.items()}
    width = max((array.shape[1] for array in scores.values()), default=1)
    columns = {
        "task": pa.array([task for task, array in scores.items() for _ in array], pa.string()),
        "index": pa.array([i for array in scores.values() for i in range(len(array))], pa.int32()),
    }
    for column in range(width):
        parts = [_score_column(array, column) for array in scores.values()]
        columns[f"score_{column}"] = pa.chunked_array(parts, pa.float16()).combine_chunks()
    buffer = io.BytesIO()
    # Without pandas or arrow metadata the bytes depend on the numbers alone.
    pq.write_table(pa.table(columns), buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def _score_column(scores: np.ndarray, column: int) -> pa.Array:
    if column >= scores.shape[1]:
        return pa.nulls(len(scores), pa.float16())
    return pa.array(_half(scores[:, column].astype(np.float32)), pa.float16())


def _columns(scores: np.ndarray, used: np.ndarray) -> np.ndarray:
    kept = scores[:, used.any(axis=0)]
    return kept[:, 0] if kept.shape[1] == 1 else kept
