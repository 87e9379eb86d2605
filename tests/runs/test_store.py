"""The store: what is written comes back, and nothing torn, edited or half written ever counts as a run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.errors import StudyError
from common.paths import Places
from common.runs.store import RunStore, packed

RUN = "0123456789ab-s0"
pytestmark = pytest.mark.fault
PREDICTIONS = {
    "sst": np.array([[0.5, -1.25, 3.0], [2.0, 0.0, -8.5]], np.float32),
    "sts": np.array([1.5, np.nan, 4.75], np.float32),
}
PROBES = {"pair_attention": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 2, 2), "ids": np.arange(4)}


def places(root: Path) -> Places:
    return Places(root / "results", root / "figures", root / "build")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(places(tmp_path))


def record(run_id: str = RUN, score: float = 0.5) -> dict:
    return {
        "run_id": run_id,
        "hashes": {"data": {}, "weights": "0"},
        "metrics": {"dev": {"sst_acc": score, "sts_corr": None}},
        "wall_s": 1.5,
    }


def write(store: RunStore, score: float = 0.5) -> dict:
    return store.write(record(score=score), PREDICTIONS, PROBES)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_comes_back_as_it_was_written(store: RunStore) -> None:
    written = write(store)
    found = store.get(RUN)
    assert found == written
    assert found["metrics"] == record()["metrics"] and found["schema"] == 1
    assert store.has(RUN) and store.complete() == [RUN]


def test_predictions_keep_shape_order_and_gaps(store: RunStore) -> None:
    write(store)
    found = store.predictions(RUN)
    assert list(found) == ["sst", "sts"]
    np.testing.assert_array_equal(found["sst"], PREDICTIONS["sst"])  # values that half precision holds exactly
    np.testing.assert_array_equal(found["sts"], PREDICTIONS["sts"])


def test_predictions_can_be_read_by_pandas_alone(store: RunStore) -> None:
    write(store)
    frame = pd.read_parquet(store.folder(RUN) / "predictions.parquet")
    assert list(frame.columns) == ["task", "index", "score_0", "score_1", "score_2"]
    assert frame["score_0"].dtype == np.float16
    assert frame[frame.task == "sst"]["score_1"].tolist() == [-1.25, 0.0]


def test_half_precision_rounds_and_keeps_large_scores_finite(store: RunStore) -> None:
    scores = {"sst": np.array([[1e9, -1e9, 0.1234567, np.inf]], np.float32)}
    store.write(record(), scores, {})
    found = store.predictions(RUN)["sst"][0]
    assert found[:2].tolist() == [65504.0, -65504.0] and np.isinf(found[3])
    assert abs(found[2] - 0.1234567) < 2**-14


def test_probes_come_back_in_float32_and_integers_untouched(store: RunStore) -> None:
    write(store)
    found = store.probes(RUN)
    assert found["pair_attention"].dtype == np.float32 and found["pair_attention"].shape == (2, 3, 2, 2)
    np.testing.assert_allclose(
        found["pair_attention"], PROBES["pair_attention"], atol=2**-11
    )  # half precision in [0, 1]
    np.testing.assert_array_equal(found["ids"], np.arange(4))


def test_a_run_without_probes_has_no_probe_file(store: RunStore) -> None:
    store.write(record(), PREDICTIONS, {})
    assert store.probes(RUN) == {}
    assert sorted(p.name for p in store.folder(RUN).iterdir()) == ["predictions.parquet", "record.json"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    stores = [RunStore(places(tmp_path / name)) for name in "ab"]
    for each in stores:
        write(each)
    first, second = (snapshot(each.folder(RUN)) for each in stores)
    assert len(first) == 3 and first == second


@pytest.mark.parametrize("name", ["record.json", "predictions.parquet", "probes.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "empty", "delete"])
def test_a_damaged_file_is_named_and_never_counts(store: RunStore, name: str, damage: str) -> None:
    write(store)
    path = store.folder(RUN) / name
    content = bytearray(path.read_bytes())
    middle = content.index(b"0.5") if name == "record.json" else len(content) // 2
    content[middle] ^= 1
    changed = {"flip": bytes(content), "truncate": content[: len(content) // 2], "append": content + b"x", "empty": b""}
    path.unlink() if damage == "delete" else path.write_bytes(changed[damage])
    with pytest.raises(StudyError) as error:
        store.get(RUN)
    assert error.value.code == "E-RECORD" and error.value.where == str(path) and "--force" in error.value.fix
    assert not store.has(RUN) and store.complete() == [] and store.present(RUN)


def seal(content: dict) -> bytes:
    body = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**content, "sha256": hashlib.sha256(body.encode()).hexdigest()}).encode()


def unsealed(store: RunStore) -> dict:
    content = json.loads((store.folder(RUN) / "record.json").read_text())
    return {name: value for name, value in content.items() if name != "sha256"}


@pytest.mark.parametrize("missing", ["files", "hashes"])
def test_a_sealed_record_without_what_readers_need_is_damaged(store: RunStore, missing: str) -> None:
    write(store)
    whole = unsealed(store)
    path = store.folder(RUN) / "record.json"
    path.write_bytes(seal(whole))
    assert store.has(RUN)
    for content in ({name: value for name, value in whole.items() if name != missing}, whole | {missing: []}):
        path.write_bytes(seal(content))
        with pytest.raises(StudyError) as error:
            store.get(RUN)
        assert error.value.code == "E-RECORD" and not store.has(RUN)


@pytest.mark.parametrize("files", [{}, {"../x": "0"}, {"predictions.parquet": "0", "record.json": "0"}])
def test_a_sealed_record_of_other_files_is_damaged(store: RunStore, files: dict) -> None:
    write(store)
    (store.folder(RUN) / "record.json").write_bytes(seal(unsealed(store) | {"files": files}))
    assert "E-RECORD" in error_of(store) and not store.has(RUN)


def error_of(store: RunStore) -> str:
    with pytest.raises(StudyError) as error:
        store.get(RUN)
    return str(error.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"7", b"[]", b'"text"', b"\xff", b'{"sha256": NaN}', b""])
def test_a_record_that_is_no_record_is_damaged(store: RunStore, content: bytes) -> None:
    write(store)
    (store.folder(RUN) / "record.json").write_bytes(content)
    assert "E-RECORD" in error_of(store)


@pytest.mark.parametrize("name", ["record.json", "predictions.parquet", "probes.safetensors", ""])
def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_damaged(store: RunStore, name: str) -> None:
    write(store)
    path = store.folder(RUN) / name
    if name:
        path.unlink()
        path.mkdir()
    else:
        path.rename(path.with_name("elsewhere"))
        path.write_text("a file")
    assert "E-RECORD" in error_of(store) and store.names() == [RUN] and store.complete() == []


def test_a_link_that_leads_nowhere_is_damaged(store: RunStore) -> None:
    store.places.runs.mkdir(parents=True)
    store.folder(RUN).symlink_to("nowhere")
    assert store.present(RUN) and "E-RECORD" in error_of(store)


def test_what_is_set_aside_keeps_a_name_of_its_own(store: RunStore) -> None:
    asides = []
    for _ in range(2):
        write(store)
        (store.folder(RUN) / "record.json").write_text("")
        asides.append(store.set_aside(RUN))
        assert not store.present(RUN)
    assert [path.name for path in asides] == [f"{RUN}.damaged-1", f"{RUN}.damaged-2"]
    assert all(path.is_relative_to(store.places.build) and (path / "predictions.parquet").exists() for path in asides)


def test_files_from_elsewhere_are_checked_before_they_take_the_place_of_a_run(store: RunStore) -> None:
    write(store)
    before = snapshot(store.places.results)
    files = packed(record(score=0.75), PREDICTIONS, {})
    torn = files | {"predictions.parquet": files["predictions.parquet"][:-1]}
    for wrong in (torn, files | {"../x": b""}, files | {"record.json": b"{}"}):
        with pytest.raises(StudyError) as error:
            store.adopt(RUN, wrong)
        assert error.value.code == "E-RECORD" and snapshot(store.places.results) == before
    with pytest.raises(StudyError):
        store.adopt("0123456789ab-s1", files)
    assert store.adopt(RUN, files) == store.get(RUN) and store.get(RUN)["metrics"]["dev"]["sst_acc"] == 0.75


def test_an_edited_metric_is_found(store: RunStore) -> None:
    write(store)
    path = store.folder(RUN) / "record.json"
    content = json.loads(path.read_text())
    content["metrics"]["dev"]["sst_acc"] = 0.9
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match="was changed after it was written"):
        store.get(RUN)


def test_a_record_in_the_wrong_folder_is_found(store: RunStore) -> None:
    write(store)
    store.folder(RUN).rename(store.folder("0123456789ab-s1"))
    with pytest.raises(StudyError, match=RUN):
        store.get("0123456789ab-s1")


def test_a_missing_run_is_said_to_be_missing(store: RunStore) -> None:
    with pytest.raises(StudyError) as error:
        store.get(RUN)
    assert error.value.code == "E-MISSING" and not store.present(RUN)


@pytest.mark.parametrize(
    "name", ["../x", "0123456789ab", "0123456789AB-s0", "0123456789ab-s0/..", "", "0123456789ab-s0\n"]
)
def test_no_name_leads_out_of_the_store(store: RunStore, name: str) -> None:
    for use in (store.get, store.present, store.predictions, lambda n: store.write(record(n), {}, {})):
        with pytest.raises(StudyError) as error:
            use(name)
        assert error.value.code == "E-RUN-ID"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_named_and_leaves_nothing(store: RunStore, number: float) -> None:
    with pytest.raises(StudyError) as error:
        store.write(record(score=number), PREDICTIONS, PROBES)
    assert error.value.code == "E-FINITE" and error.value.where == "record.metrics.dev.sst_acc"
    assert not store.present(RUN)


def test_replacing_keeps_the_old_run_aside(store: RunStore) -> None:
    write(store, score=0.5)
    write(store, score=0.75)
    assert store.get(RUN)["metrics"]["dev"]["sst_acc"] == 0.75
    aside = store.places.build / "replaced" / RUN / "record.json"
    assert json.loads(aside.read_text())["metrics"]["dev"]["sst_acc"] == 0.5


def test_a_full_disk_while_replacing_leaves_the_old_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store)
    before = snapshot(store.places.results)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError) as error:
        write(store, score=0.9)
    assert error.value.code == "E-WRITE" and "No space left" in error.value.what
    assert snapshot(store.places.results) == before
    monkeypatch.undo()
    assert store.has(RUN)


LIMITED = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from common.errors import StudyError
from common.paths import Places
from common.runs.store import RunStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
root = Path(sys.argv[1])
scores = np.random.default_rng(0).normal(size=(9000, 5))
try:
    hashes = {"data": {}, "weights": "0"}
    RunStore(Places(root, root, root)).write({"run_id": "0123456789ab-s0", "hashes": hashes}, {"sst": scores}, {})
except StudyError as error:
    print(error.code)
"""


def test_a_file_size_limit_leaves_no_run_and_no_litter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, env=environment()
    )
    assert done.stdout.strip() == "E-WRITE", done.stderr
    assert snapshot(tmp_path) == {}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}


HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_excludes_and_is_free_when_its_holder_is_killed(store: RunStore) -> None:
    store.places.locks.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(store.places.locks / f"{RUN}.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert store.try_lock(RUN) is None
        holder.kill()
        holder.wait()
    with store.try_lock(RUN):
        assert store.places.locks.exists()


CHAOS = """
import os, random, signal, sys, time
import numpy as np
from pathlib import Path
from common.paths import Places
from common.runs.store import RunStore

root, run, HASHES = Path(sys.argv[1]), "0123456789ab-s0", {"data": {}, "weights": "0"}
store = RunStore(Places(root / "results", root / "figures", root / "build"))

def write_forever(number):
    for turn in range(100000):
        while (lock := store.try_lock(run)) is None:
            time.sleep(0.001)
        with lock:
            value = number + turn % 7
            record = {"run_id": run, "value": value, "hashes": HASHES}
            store.write(record, {"sst": np.full((2000, 5), value, np.float32)}, {})

warm = RunStore(Places(root / "warm", root, root / "warm"))
warm.write({"run_id": run, "hashes": HASHES}, {"sst": np.zeros((2, 5))}, {})  # the first write loads libraries
rng, found = random.Random(7), 0
for round_number in range(20):
    writers = []
    for number in (10, 20):
        writers.append(os.fork())
        if writers[-1] == 0:
            write_forever(number)
    time.sleep(rng.uniform(0.02, 0.15))
    for pid in writers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with store.try_lock(run):
        if store.present(run):
            found += 1
            assert set(store.predictions(run)["sst"].ravel().tolist()) == {store.get(run)["value"]}, round_number
print(found)
"""


def test_writers_killed_at_random_leave_a_whole_run_or_none(tmp_path: Path, store: RunStore) -> None:
    command = [sys.executable, "-c", CHAOS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5  # most rounds leave a run to check
    write(store)  # what a killed writer left behind is no obstacle
    assert store.has(RUN) and not list(store.places.runs.glob(".*"))


def test_cards_are_hash_checked_too(store: RunStore) -> None:
    assert store.card("parity") is None
    store.write_card("parity", {"bert": 1e-7, "labels": [1, 2]})
    assert store.card("parity") == {"bert": 1e-7, "labels": [1, 2]}
    path = store.places.cards / "parity.json"
    path.write_text(path.read_text().replace("1e-07", "2e-07"))
    with pytest.raises(StudyError, match="was changed"):
        store.card("parity")
    with pytest.raises(StudyError) as error:
        store.write_card("../x", 1)
    assert error.value.code == "E-NAME"
