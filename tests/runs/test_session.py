"""The session: what is there is read, what is missing is trained once, and nothing is taken on trust."""

from __future__ import annotations

import _thread
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ipykernel import iostream

import common as study
from common.data import sources
from common.declare import reported
from common.declare.profile import profile_named
from common.declare.strict import to_dict
from common.errors import StudyError
from common.runs import session
from common.training import loop


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    """Workers are shared by the tests of this file and end with it."""
    yield
    session.local_pool(1, 1).close()


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    monkeypatch.delenv("STUDY_PROFILE", raising=False)
    return tmp_path


def lab(**settings: object) -> study.Study:
    return study.open_study("smoke", jobs=1, **settings)


def two_rows() -> list[study.Row]:
    return study.rows("swissbert", "table2")[:2]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def put(lab: study.Study, row: study.Row, seed: int = 0, **changes: object) -> str:
    """A made-up record of a run, for what needs no training."""
    spec = lab.apply(row.specs[0], seed)
    hashes = {
        "data": {"sst": sources.fingerprint(lab.corpus())["sst"]},
        **session._encoder_hashes("tiny-random"),
    }
    named = {"run_id": spec.run_id, "row": {"id": row.id}}
    record = {**named, "spec": to_dict(spec), "hashes": hashes, "metrics": {"dev": {}}, **changes}
    lab.store.write(record, {"sst": np.zeros((2, 5), np.float32)}, {})
    return spec.run_id


def block(lab: study.Study, row: study.Row) -> str:
    """Have the store of that run fail; its id."""
    spec = lab.apply(row.specs[0], 0)
    lab.places.runs.mkdir(parents=True)
    (lab.places.runs / f".{spec.run_id}.partial").write_text("a file where a folder is needed")
    return spec.run_id


def test_the_environment_chooses_the_profile_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert study.open_study().profile.name == "quick"
    monkeypatch.setenv("STUDY_PROFILE", "smoke")
    assert study.open_study().profile.name == "smoke"
    assert study.open_study("cpu").profile.name == "cpu"
    monkeypatch.setenv("STUDY_PROFILE", "smok")
    with pytest.raises(StudyError, match="Did you mean 'smoke'"):
        study.open_study()


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1], [2**31], "01", [0.5], [True], ["0"]])
def test_seeds_that_are_no_seeds_are_refused(seeds: object) -> None:
    with pytest.raises(StudyError) as error:
        lab(seeds=seeds)
    assert error.value.code == "E-SEEDS"


@pytest.mark.parametrize("settings", [{"profile": ""}, {"data": ""}, {"data": "hub:"}, {"encoder": ""}])
def test_an_empty_setting_is_no_default(settings: dict) -> None:
    with pytest.raises(StudyError):
        study.open_study(**{"profile": "smoke", **settings})


def test_an_empty_profile_in_the_environment_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_PROFILE", "")
    with pytest.raises(StudyError, match="unknown profile ''"):
        study.open_study()


def test_the_embedded_corpus_has_no_folder() -> None:
    with pytest.raises(StudyError, match="has no folder"):
        lab(data="embedded:/nonexistent")


def test_a_cluster_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "common.runs.cluster", raising=False)
    with pytest.raises(StudyError, match="'.\\[cluster\\]'") as error:
        lab(scheduler="tls://127.0.0.1:9").run(two_rows())
    assert error.value.code == "E-CLUSTER" and "is missing" in error.value.what


def test_an_open_scheduler_is_taken_only_where_that_is_said() -> None:
    with pytest.raises(StudyError, match="without TLS"):
        lab(scheduler="tcp://127.0.0.1:9")
    assert lab(scheduler="tcp://127.0.0.1:9", is_open=True).scheduler == "tcp://127.0.0.1:9"


@pytest.mark.parametrize("jobs", [0, -1, 1.0, "2", 1000])
def test_jobs_that_are_no_number_of_jobs_are_refused(jobs: object) -> None:
    with pytest.raises(StudyError) as error:
        study.open_study("smoke", jobs=jobs)
    assert error.value.code == "E-JOBS"


def test_the_printed_line_names_things_and_no_place(tmp_path: Path) -> None:
    folder = tmp_path / "my-encoder"
    folder.mkdir()
    line = str(lab(encoder=str(folder), seeds=[0, 1]))
    assert line == "profile smoke: encoder my-encoder, data embedded, seeds 0, 1, threads per run 1"


def test_specs_hold_names_and_the_place_of_an_encoder_does_not_matter(tmp_path: Path) -> None:
    specs = []
    for place in ("a", "b"):
        folder = tmp_path / place / "my-encoder"
        folder.mkdir(parents=True)
        specs.append(lab(encoder=str(folder)).apply(two_rows()[0].specs[0], 3))
    assert specs[0].run_id == specs[1].run_id and specs[0].seed == 3
    assert str(tmp_path) not in json.dumps(to_dict(specs[0]))


def test_a_profile_that_needs_data_says_how_to_give_them() -> None:
    with pytest.raises(StudyError) as error:
        study.open_study("cpu").corpus()
    assert error.value.code == "E-DATA" and "--data FOLDER" in error.value.fix and "--data hub" in error.value.fix


def test_rows_are_trained_once_and_read_afterwards(out: Path, capfd: pytest.CaptureFixture) -> None:
    rows = two_rows()
    first = lab().run(rows)
    assert [len(first[row.id].records) for row in rows] == [1, 1]
    before = files(out / "build" / "smoke" / "results")
    second = lab().run(rows)
    assert files(out / "build" / "smoke" / "results") == before and second == first
    record = first[rows[0].id].records[0]
    profile, written = profile_named("smoke"), rows[0].specs[0]
    applied = profile.apply(written)
    assert record["run_id"] == applied.run_id and record["spec"] == to_dict(applied)
    assert record["written"] == to_dict(written) and record["profile"] == "smoke"
    assert record["share"] == profile.share(written, applied) and record["under_trained"] is True
    assert record["hashes"].items() >= session._encoder_hashes("tiny-random").items()
    assert lab().store.predictions(applied.run_id)["sst"].shape == (600, 5)
    assert "2 of 2 runs" in capfd.readouterr().err


def test_the_worker_trains_what_a_direct_call_trains(out: Path) -> None:
    here, row = lab(seeds=[4]), two_rows()[1]
    record = here.run([row])[row.id].records[0]
    spec = here.apply(row.specs[0], 4)
    outcome = loop.run(spec, loop.Materials(here.corpus(), here.encoder_folder()), threads=1)
    assert outcome.record["metrics"] == record["metrics"]
    stored = here.store.predictions(record["run_id"])
    for task, scores in outcome.predictions.items():
        np.testing.assert_array_equal(stored[task], scores.reshape(stored[task].shape).astype(np.float16))


def test_a_changed_field_is_another_run_and_equal_rows_are_marked(out: Path, capsys) -> None:
    row = two_rows()[0]
    same = study.variant(row, "same", **{"batch_size": row.specs[0].batch_size})
    other = study.variant(row, "other", **{"optimizer.lr": 2e-5})
    here = lab(report_only=True)
    for each in (row, other):
        put(here, each)
    results = here.run([row, same, other])
    assert [results[each.id].coincides_with for each in (row, same, other)] == [None, row.id, None]
    assert results[same.id].records == results[row.id].records != results[other.id].records
    told = capsys.readouterr().out
    assert f"{same.id}: asked -> runs here: batch_size 32 -> 8. THE SAME RUN as {row.id}" in told
    assert f"{other.id}: asked -> runs here: optimizer.lr 2e-05 -> 0.0008." in told


def test_report_only_names_what_is_missing_and_trains_nothing(out: Path) -> None:
    rows = two_rows()
    here = lab(report_only=True, seeds=[0, 1])
    put(here, rows[0], seed=1)
    with pytest.raises(StudyError) as error:
        here.run(rows)
    missing = [f"{rows[0].id}, seed 0", f"{rows[1].id}, seed 0", f"{rows[1].id}, seed 1"]
    assert error.value.code == "E-MISSING" and error.value.fix.endswith("--profile smoke --seeds 0,1")
    assert [problem.partition(": ")[0] for problem in error.value.problems] == missing
    put(here, rows[1], seed=1)
    with pytest.raises(StudyError, match="or show what is whole: --seeds 1\n"):
        here.run(rows)


def test_a_report_shows_the_seeds_that_are_stored(out: Path) -> None:
    assert lab(report_only=True).seeds == lab().seeds == (0,)
    rows = study.rows("swissbert", "table2")[:3]
    for row in rows:
        for seed in (3, 5):
            put(lab(), row, seed)
    put(lab(), rows[0], seed=4)  # one row tried with one more seed: the others are not asked for it
    assert lab(report_only=True).seeds == (3, 5) and lab().seeds == (0,)
    assert [len(result.records) for result in lab(report_only=True).run(rows).values()] == [2, 2, 2]


def test_report_only_needs_neither_data_nor_encoder(out: Path) -> None:
    here = study.open_study("cpu", data="/nowhere", encoder="no-such-encoder", report_only=True)
    row = two_rows()[0]
    spec = here.apply(row.specs[0], 0)
    record = {"run_id": spec.run_id, "hashes": {"data": {"sst": "x"}, "weights": "y"}, "metrics": {}}
    here.store.write(record, {"sst": np.zeros((2, 5))}, {})
    assert len(here.run([row], seeds=[0])[row.id].records) == 1


def test_results_of_a_table_carry_the_labels_and_numbers_that_stand_in_it() -> None:
    every = session.Results((r.id, session.RowResult(r, ())) for r in study.rows("swissbert"))
    found = every.of(study.rows("swissbert", "table3"))
    assert list(found) == list(reported.labels("swissbert", "table3")) and len(found) == 7
    assert found["swissbert_pair_awl_lr1e5"].row.label == "LR 1e-5, Dropout 0.3, WD 0, AWL LR 1e-5"
    assert every["swissbert_pair_awl_lr1e5"].row.label.startswith("pair encoding, auto")


def test_some_results_keep_the_order_asked_for_and_their_runs() -> None:
    named = ["swissbert_pair", "swissbert_final", "swissbert_no_extension"]
    runs = {name: ({"run_id": f"{name}-s0", "spec": {"seed": 0}},) for name in named}
    every = session.Results((name, session.RowResult(study.row(name), runs[name])) for name in named)
    chosen = every.of([named[2], study.row(named[0])])
    assert list(chosen) == [named[2], named[0]] and chosen[named[0]].records == every[named[0]].records
    assert isinstance(chosen, session.Results) and list(every) == named
    with pytest.raises(KeyError):
        every.of(["swissbert_layer_sharing"])
    other = session.RowResult(study.row(named[0]), ())
    joined = every.of(named[1:]) | {named[0]: other, named[1]: other}
    assert isinstance(joined, session.Results) and list(joined) == [named[1], named[2], named[0]]
    assert joined[named[1]] is other and every[named[1]] is not other


def test_a_card_is_measured_once_and_in_report_only_mode_it_must_be_there(out: Path) -> None:
    measured = []

    def measure() -> dict:
        measured.append(1)
        return {"n": len(measured)}

    with pytest.raises(StudyError, match="cards/size.json") as error:
        lab(report_only=True).card("size", measure)
    assert error.value.code == "E-MISSING" and not measured
    assert [here.card("size", measure) for here in (lab(), lab(), lab(report_only=True))] == [{"n": 1}] * 3


@pytest.mark.parametrize("changed", ["data", "weights", "config", "tokenizer"])
def test_a_record_of_other_data_or_of_another_encoder_is_stale(out: Path, changed: str) -> None:
    here, row = lab(report_only=True), two_rows()[0]
    hashes = {"data": {}, **session._encoder_hashes("tiny-random")}
    put(here, row, hashes=hashes | {changed: {"sst": "0"} if changed == "data" else "0"})
    with pytest.raises(StudyError) as error:
        here.run([row])
    assert error.value.code == "E-STALE" and error.value.problems[0].startswith(f"{row.id}, seed 0: ")
    assert ("sst" if changed == "data" else f"tiny-random ({changed})") in error.value.problems[0]


def test_a_stale_record_is_trained_again_aloud(out: Path, capfd: pytest.CaptureFixture) -> None:
    here, row = lab(), two_rows()[0]
    run_id = put(here, row, hashes={"data": {"sst": "0"}, **session._encoder_hashes("tiny-random")})
    record = here.run([row])[row.id].records[0]
    assert record["run_id"] == run_id and record["hashes"]["data"]["sst"] == sources.fingerprint(here.corpus())["sst"]
    assert "other contents of sst: training it again" in capfd.readouterr().err
    assert (here.places.build / "replaced" / run_id / "record.json").exists()


def damage(here: study.Study, row: study.Row) -> Path:
    folder = here.store.folder(put(here, row))
    (folder / "record.json").write_text("")
    return folder


def test_a_damaged_record_is_set_aside_aloud_and_trained_again(out: Path, capfd: pytest.CaptureFixture) -> None:
    here, row = lab(), two_rows()[0]
    folder = damage(here, row)
    record = here.run([row])[row.id].records[0]
    aside = here.places.build / "damaged" / f"{folder.name}.damaged-1"
    assert record["run_id"] == folder.name and here.store.has(folder.name)
    assert (aside / "record.json").read_text() == "" and (aside / "predictions.parquet").exists()
    told = capfd.readouterr().err
    assert f"{row.id}, seed 0: {folder.name} is damaged. " in told and f"It is now {aside}; training it again" in told


def test_report_only_leaves_a_damaged_record_out_with_its_reason(out: Path, capfd: pytest.CaptureFixture) -> None:
    rows, here = two_rows(), lab(report_only=True)
    folder = damage(here, rows[0])
    put(here, rows[1])
    before = files(out)
    results = here.run(rows)
    assert len(results[rows[1].id].records) == 1 and results[rows[0].id].records == ()
    (failure,) = results[rows[0].id].failures
    assert failure.seed == 0 and failure.message.startswith(f"damaged: {folder / 'record.json'}: cannot be read")
    assert files(out) == before and "is damaged and left out" in capfd.readouterr().err


def test_force_trains_again_and_keeps_what_was_there_aside(out: Path) -> None:
    row = two_rows()[0]
    old = lab().run([row])[row.id].records[0]
    new = lab().run([row], force=True)[row.id].records[0]
    assert new["metrics"] == old["metrics"] and new["files"] == old["files"] and new["wall_s"] != old["wall_s"]
    assert json.loads((lab().places.build / "replaced" / old["run_id"] / "record.json").read_text()) == old


def test_a_failed_run_is_told_and_the_others_are_there(out: Path) -> None:
    rows = two_rows()
    here = lab()
    run_id = block(here, rows[0])
    results = here.run(rows)
    failure = results[rows[0].id].failures[0]
    assert failure.seed == 0 and failure.run_id == run_id and "E-WRITE" in failure.message
    assert results[rows[0].id].records == () and len(results[rows[1].id].records) == 1


class Output(io.StringIO):
    """Standard error of a notebook's kernel: it goes to the outputs, its file number to the terminal."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def fileno(self) -> int:
        return self.number


def test_in_a_notebook_progress_goes_to_the_terminal_and_the_log_and_failures_to_the_output(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, here = two_rows(), lab()
    block(here, rows[0])
    with open(out / "terminal", "w") as terminal:
        monkeypatch.setattr(iostream, "OutStream", Output)
        monkeypatch.setattr(sys, "stderr", Output(terminal.fileno()))
        here.run(rows)
        output = sys.stderr.getvalue()
        monkeypatch.undo()
    seen, log = (out / "terminal").read_text(), (out / "build/smoke/logs/progress.log").read_text()
    assert f"{rows[1].id}, seed 0 trained in" in seen and f"{rows[1].id}, seed 0 trained in" in log
    assert output.startswith(f"FAILED {rows[0].id}, seed 0 (") and output.count("\n") == 1 and output in seen


def test_ctrl_c_keeps_finished_runs_and_leaves_no_worker(out: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    rows, here = two_rows(), lab()
    real = session.Progress.__call__

    def interrupting(self: object, event: dict) -> None:
        real(self, event)
        if event["event"] == "finished":
            _thread.interrupt_main()

    monkeypatch.setattr(session.Progress, "__call__", interrupting)
    with pytest.raises(KeyboardInterrupt):
        here.run(rows)
    assert len(here.store.complete()) == 1 and "Finished runs are kept" in capfd.readouterr().err
    assert [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())] == []
    monkeypatch.undo()
