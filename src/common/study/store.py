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
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.errors import StudyError
from common.paths import Places
from common.spec import canonical_json

SCHEMA = 1
RECORD, PREDICTIONS, PROBES = "record.json", "predictions.parquet", "probes.safetensors"
RUN_ID = re.compile(r"[0-9a-f]{12}-s\d{1,10}")
CARD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
HALF_MAX = float(np.finfo(np.float16).max)
CHANGED = "was changed after it was written (its hash differs)"


class BusyError(Exception):
    """Another process holds the lock of this run."""


def atomic_write(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash or a full disk leaves either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            fix = "Free space or give write permission; everything written before is unchanged."
            raise StudyError("E-WRITE", str(path), f"cannot write: {error.strerror or error}.", fix) from error
        raise
    _sync_folder(path.parent)


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
        return self.folder(run_id).exists()

    def has(self, run_id: str) -> bool:
        """Whether the run is there, complete and unchanged."""
        try:
            return self.present(run_id) and bool(self.get(run_id))
        except StudyError:
            return False

    def get(self, run_id: str) -> dict:
        """The record of a run, after checking it and the files beside it against their hashes.

        Raises:
            StudyError: E-MISSING without a record, E-RECORD when a file is missing, torn or was changed.
        """
        folder = self.folder(run_id)
        if not folder.exists():
            raise StudyError("E-MISSING", run_id, "the store holds no such run.", "Train it first.")
        record = _read_checked(folder / RECORD)
        if record.get("schema") != SCHEMA or record.get("run_id") != run_id:
            found = f"schema {record.get('schema')!r}, run {record.get('run_id')!r}"
            raise _damaged(folder / RECORD, f"holds {found}")
        for name, digest in record["files"].items():
            _check_file(folder / name, digest)
        return record

    def complete(self) -> list[str]:
        """Ids of all runs that are complete and unchanged."""
        names = sorted(path.name for path in self.places.runs.glob("*-s*"))
        return [name for name in names if RUN_ID.fullmatch(name) and self.has(name)]

    def write(self, record: dict, predictions: dict[str, np.ndarray], probes: dict[str, np.ndarray]) -> dict:
        """Store a finished run and return its record with `files`, `schema` and `sha256` filled in.

        A run that already stands there moves to build/replaced, and only once the new one is whole on disk.
        """
        folder = self.folder(record["run_id"])
        staged = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(staged, ignore_errors=True)  # left by a killed writer; the caller holds the lock of the run
        contents = {PREDICTIONS: _to_parquet(predictions)}
        if probes:
            contents[PROBES] = save_tensors({name: _half(array) for name, array in probes.items()})
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        sealed = _sealed({**record, "schema": SCHEMA, "files": files})
        try:
            for name, content in [*contents.items(), (RECORD, _to_json(sealed))]:
                atomic_write(staged / name, content)
            self._move_aside(folder)
            os.rename(staged, folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        _sync_folder(folder.parent)
        return sealed

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

    @contextlib.contextmanager
    def lock(self, run_id: str, wait: bool = True) -> Iterator[None]:
        """Hold the run for this process; BusyError when another process has it and `wait` is off.

        The operating system frees the lock when its holder dies, however it dies, so none is ever stale.
        """
        self.folder(run_id)
        self.places.locks.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.places.locks / f"{run_id}.lock", timeout=-1 if wait else 0):
                yield
        except Timeout as error:
            raise BusyError(run_id) from error

    def card(self, name: str) -> object | None:
        """The content of a card, hash checked; None when there is no such card."""
        path = self._card_path(name)
        return _read_checked(path)["content"] if path.exists() else None

    def write_card(self, name: str, content: object) -> None:
        """Store a small measured fact under that name, replacing an earlier one."""
        atomic_write(self._card_path(name), _to_json(_sealed({"schema": SCHEMA, "content": content})))

    def _card_path(self, name: str) -> Path:
        if not CARD_NAME.fullmatch(name):
            raise StudyError("E-NAME", "card", f"{name!r} is no card name.", "Use a-z, 0-9, dot, dash, underscore.")
        return self.places.cards / f"{name}.json"

    def _move_aside(self, folder: Path) -> None:
        if not folder.exists():
            return
        replaced = self.places.build / "replaced" / folder.name
        shutil.rmtree(replaced, ignore_errors=True)
        replaced.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, replaced)


def _sealed(content: dict) -> dict:
    """The content with the hash of everything else under `sha256`."""
    body = json.loads(canonical_json({key: value for key, value in content.items() if key != "sha256"}))
    return {**body, "sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest()}


def _to_json(content: dict) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_checked(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
        is_sound = content["sha256"] == _sealed(content)["sha256"]
    except FileNotFoundError as error:
        raise _damaged(path, "is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"cannot be read ({type(error).__name__})") from error
    if not is_sound:
        raise _damaged(path, CHANGED)
    return content


def _check_file(path: Path, digest: str) -> None:
    if not path.exists():
        raise _damaged(path, "is missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise _damaged(path, CHANGED)


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


def _sync_folder(folder: Path) -> None:
    """Make a rename in that folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
