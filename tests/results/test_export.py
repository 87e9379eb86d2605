"""Leaderboard files: the starter's lines for the rows of the source, from the model that the store describes."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import common as study
from common import paths, runner
from common.data.split import Split
from common.declare.rows import examples
from common.declare.spec import RunSpec, TaskSpec
from common.declare.strict import to_dict
from common.errors import StudyError
from common.results import export
from common.runs import session
from common.training import loop

WORDS = ["a", "the", "fine", "dull", "film", "story", "dog", "cat", "runs", "sits", "who", "what", "how", "far", "not"]
BROKEN = "9054345d02cd6c5642a4904dc"  # a row that the starter itself ships without a label
STEMS = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
LABELS = {"sst": "sentiment", "para": "is_duplicate", "sts": "similarity"}
ROWS = {"frozen": "swissbert_baseline_frozen", "pair": "swissbert_pair"}


def rows_of(task: str, split: str) -> list[tuple[str, ...]]:
    """Id, texts and label. Dev and test hold the same texts, in another order and under other ids."""
    rng = np.random.default_rng([ord(task[1]), split == "train"])
    texts = 1 if task == "sst" else 2
    made = [tuple(" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(texts)) for _ in range(17)]
    top = 5 if task == "sts" else 1
    labelled = [(f"{task}{split}{(7 * i) % 17:02}", *text, str(i % 2 * top)) for i, text in enumerate(made)]
    return labelled[::-1] if split == "test" else labelled


def write_folder(folder: Path) -> Path:
    """The starter's layout; as on its disk, test files are unlabelled and the Quora one may be missing."""
    folder.mkdir()
    for task, stem in STEMS.items():
        texts = ["sentence"] if task == "sst" else ["sentence1", "sentence2"]
        for split in ("train", "dev", "test"):
            rows = rows_of(task, split)
            if (task, split) == ("para", "dev"):
                rows.insert(3, (BROKEN, "what", "", ""))
            width = len(texts) + 1 + (split != "test")
            lines = [["", "id", *texts, LABELS[task]][: width + 1], *(["0", *row[:width]] for row in rows)]
            name = f"{stem}-{split}{'-student' if split == 'test' else ''}.csv"
            (folder / name).write_text("".join("\t".join(line) + "\n" for line in lines))
    (folder / "quora-test-student.csv").unlink()
    return folder


def train(lab: study.Study, spec: RunSpec) -> str:
    """A run in the store, as a worker writes it."""
    materials = loop.Materials(lab.corpus(), lab.encoder_folder(), examples())
    outcome = loop.run(spec, materials, lab.profile.threads)
    row = {"id": "a_row", "label": "a row", "report": "swissbert"}
    described = {"row": row, "profile": "smoke", "share": 0.1, "spec": to_dict(spec), "written": to_dict(spec)}
    record = outcome.record | described | {"run_id": spec.run_id}
    lab.store.write(record, outcome.predictions, {})
    return spec.run_id


def told(lab: study.Study, name: str) -> str:
    """What an export prints."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        export.export(lab, name)
    return text.getvalue()


def read(folder: Path, task: str, split: str) -> dict[str, str]:
    """Id -> prediction of a leaderboard file, in its order."""
    with open(folder / f"{task}-{split}-output.csv", newline="") as file:
        return {row[0].strip(): row[1].strip() for row in list(csv.reader(file))[1:]}


def spec_of(lab: study.Study, kind: str) -> RunSpec:
    return lab.apply(study.row(ROWS[kind]).specs[0], 0)


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    """Workers are shared by the tests of this file and end with it."""
    yield
    session.local_pool(1, 1).close()


@pytest.fixture(scope="module", params=sorted(ROWS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[study.Study, str, str]:
    """A study whose store holds one run, the run's id, and what its export printed."""
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUT", str(root / "out"))
        lab = study.open_study("smoke", write_folder(root / "data"), jobs=1)
        run_id = train(lab, spec_of(lab, request.param))
        return lab, run_id, told(lab, run_id)


@pytest.fixture
def copied(exported: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., study.Study]:
    """The same study in a place of its own, without what was exported."""
    lab, _, _ = exported
    shutil.copytree(lab.source, tmp_path / "data")
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    shutil.copytree(lab.places.runs, paths.places("smoke").runs)
    shutil.copytree(lab.places.weights, paths.places("smoke").weights)
    return lambda **given: study.open_study("smoke", **{"data": tmp_path / "data", "jobs": 1, **given})


def refusal(lab: study.Study, run_id: str) -> StudyError:
    with pytest.raises(StudyError) as caught:
        export.export(lab, run_id)
    assert not lab.places.predictions.exists()
    return caught.value


# The lines that `multitask_classifier.py` of the starter writes: `f"id \t Predicted_..."`, `f"{id} , {prediction} \n"`.
@pytest.mark.parametrize(
    ("task", "outputs", "expected"),
    [
        ("sst", [[0, 1, 2, 9, 3], [5, 1, 2, 3, 4]], b"id \t Predicted_Sentiment \nb7 , 3 \na1 , 0 \n"),
        ("para", [[0.3], [-2.0]], b"id \t Predicted_Is_Paraphrase \nb7 , 1.0 \na1 , 0.0 \n"),
        ("sts", [[2.5], [-0.125]], b"id \t Predicted_Similiary \nb7 , 2.5 \na1 , -0.125 \n"),
    ],
)
def test_lines_are_the_starters(tmp_path: Path, task: str, outputs: list, expected: bytes) -> None:
    lab = study.open_study("smoke")
    spec: TaskSpec = spec_of(lab, "pair").task(task)
    split = Split(("b7", "a1"), (("x", "y"),), None)
    export._write(tmp_path, spec, "test", split, np.array(outputs, dtype=np.float32))
    assert (tmp_path / f"{task}-test-output.csv").read_bytes() == expected


def test_ids_are_those_of_the_files_in_their_order(exported: tuple) -> None:
    lab, run_id, _ = exported
    folder = lab.places.predictions / run_id
    assert len(list(folder.iterdir())) == 5
    for task, split in [(t, s) for t in STEMS for s in ("dev", "test") if (t, s) != ("para", "test")]:
        assert list(read(folder, task, split)) == [row[0] for row in rows_of(task, split)]


def test_dev_predictions_are_those_of_the_stored_scores(exported: tuple) -> None:
    lab, run_id, _ = exported
    folder, stored = lab.places.predictions / run_id, lab.store.predictions(run_id)
    classes = np.array([int(value) for value in read(folder, "sst", "dev").values()])
    chosen = stored["sst"][np.arange(17), classes]
    np.testing.assert_allclose(chosen, stored["sst"].max(1), rtol=2e-3)  # within the rounding of the store
    assert set(read(folder, "para", "dev").values()) <= {"0.0", "1.0"}
    answers = np.array([float(value) for value in read(folder, "para", "dev").values()])
    assert ((answers == 1) == (stored["para"] > 0)).all()  # logits
    scores = [float(value) for value in read(folder, "sts", "dev").values()]
    np.testing.assert_allclose(scores, stored["sts"], rtol=1e-3)


def test_test_rows_are_answered_like_the_dev_rows_of_the_same_texts(exported: tuple) -> None:
    lab, run_id, _ = exported
    folder = lab.places.predictions / run_id
    for task in ("sst", "sts"):
        dev, test = (np.array([float(v) for v in read(folder, task, s).values()]) for s in ("dev", "test"))
        np.testing.assert_allclose(test[::-1], dev, rtol=1e-5)
    assert len(set(read(folder, "sts", "test").values())) == 17


def test_what_is_missing_is_said(exported: tuple) -> None:
    _, run_id, text = exported
    assert f"a_row, seed 0: {run_id}\n" in text
    assert "sst-test-output.csv: 17 rows\n" in text
    assert f"para-dev-output.csv: 17 rows; without rows that the source has broken: {BROKEN}\n" in text
    assert "para-test-output.csv: not written, the data have no such split" in text
    assert "quora-test-student.csv" in text


def test_a_test_file_that_came_later_is_answered(exported: tuple, copied: Callable, tmp_path: Path) -> None:
    (tmp_path / "data" / "quora-test-student.csv").write_text("\tid\tsentence1\tsentence2\n0\tq1\twho runs\twho sits\n")
    lab = copied()
    text = told(lab, exported[1])
    assert "para-test-output.csv: 1 rows" in text
    assert list(read(lab.places.predictions / exported[1], "para", "test")) == ["q1"]


def test_a_task_that_the_run_lacks_is_not_written(copied: Callable) -> None:
    lab = copied()
    spec = spec_of(lab, "pair")
    run_id = train(lab, replace(spec, tasks=tuple(task for task in spec.tasks if task.name == "sts")))
    text = told(lab, run_id)
    assert "sst: not written, the run has no such task." in text
    names = sorted(path.name for path in (lab.places.predictions / run_id).iterdir())
    assert names == ["sts-dev-output.csv", "sts-test-output.csv"]


def test_a_model_that_is_not_the_stored_one_is_refused(exported: tuple, copied: Callable) -> None:
    lab, (_, run_id, _) = copied(), exported
    stored = lab.store.predictions(run_id)
    stored["sts"][5] += 0.25
    lab.store.write(lab.store.get(run_id), stored, {})
    error = refusal(lab, run_id)
    assert error.code == "E-DIFFERENT" and "sts (by up to 0.25)" in error.what and "sst" not in error.what
    assert "Not as it was" not in error.fix and "--profile smoke --force" in error.fix


def test_other_dev_rows_are_refused_with_the_data_as_the_cause(
    exported: tuple, copied: Callable, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "ids-sst-dev.csv"
    file.write_text(file.read_text() + "0\tnew\ta fine film\t1\n")
    error = refusal(copied(), exported[1])
    assert "sst (17 examples then, 18 now)" in error.what and "Not as it was then: sst." in error.fix


def test_an_unknown_run_is_answered_with_where_to_look(exported: tuple, copied: Callable) -> None:
    lab, (_, run_id, _) = copied(), exported
    error = refusal(lab, run_id[:-3])
    assert error.code == "E-MISSING" and f"Did you mean '{run_id}'?" in error.fix and str(lab.places.runs) in error.fix
    assert refusal(lab, "../../x-s0").code == "E-MISSING"
    assert "Did you mean 'swissbert_pair'?" in refusal(lab, "swissbert_pare").fix
    error = refusal(study.open_study("quick"), run_id)
    assert "profile smoke does" in error.what and error.fix == "Add --profile smoke."


def test_another_source_or_encoder_is_refused_before_training(exported: tuple, copied: Callable) -> None:
    error = refusal(copied(data=None), exported[1])
    assert error.code == "E-DATA" and "cs224n and tiny-random; here they are embedded and tiny-random" in error.what
    assert "here they are cs224n and tiny-bert" in refusal(copied(encoder="tiny-bert"), exported[1]).what


def test_a_row_is_exported_for_every_seed(exported: tuple, copied: Callable, request: pytest.FixtureRequest) -> None:
    _, run_id, _ = exported
    lab = copied(seeds=[0, 4])
    folders = export.export(lab, ROWS[request.node.callspec.params["exported"]])
    assert [lab.store.get(folder.name).seed for folder in folders] == [0, 4] and folders[0].name == run_id
    assert [len(list(folder.iterdir())) for folder in folders] == [5, 5]
    assert read(folders[0], "sts", "dev") != read(folders[1], "sts", "dev")


def test_kept_weights_are_used(exported: tuple, copied: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Study, "_train", lambda study, plans, jobs: pytest.fail("trained") if jobs else {})
    lab, run_id = copied(), exported[1]
    (folder,) = export.export(lab, run_id)
    assert read(folder, "sst", "dev") == read(exported[0].places.predictions / run_id, "sst", "dev")


def test_the_runner_exports_and_does_nothing_else(
    exported: tuple, copied: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lab, (first, run_id, _) = copied(), exported
    monkeypatch.setattr(runner.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(runner.notebooks, "find", lambda only: pytest.fail("notebooks were asked for"))
    call = ["--profile", "smoke", "--data", lab.source, "--export-predictions"]
    assert runner.main([*call, run_id]) == 0
    folder = lab.places.predictions / run_id
    assert capsys.readouterr().out.endswith(f"In {folder}\n")
    before = {path.name: path.read_bytes() for path in (first.places.predictions / run_id).iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert runner.main([*call, "0" * 12 + "-s0"]) == 2
    assert "[E-MISSING]" in capsys.readouterr().err
