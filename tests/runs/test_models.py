"""Kept models: the same answers as the stored run, an encoder that the library loads, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import common as study
from common.declare.spec import TaskSpec
from common.errors import StudyError
from common.model.bert import BertModel
from common.runs import models, session
from common.runs.record import Record

# A plain row, heads on one first layer, PALs with a shared layer, a frozen encoder, and one of several runs.
ROWS = ("swissbert_pair", "swissbert_layer_sharing", "slapbert_individual_pretrain")
ROWS += ("swissbert_baseline_frozen", "gu_ensembling")
HALF = np.finfo(np.float16)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[study.Study]:
    """A study of its own whose runs are trained by those who ask for their models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUT", str(tmp_path_factory.mktemp("models")))
        yield study.open_study("smoke", jobs=1)
        session.local_pool(1, 1).close()


@pytest.fixture(scope="module")
def pair(lab: study.Study) -> models.KeptRun:
    return models.load(lab, "swissbert_pair").runs[0]


def folder_of(lab: study.Study, run: models.KeptRun) -> Path:
    return lab.places.weights / run.record.run_id


@pytest.mark.parametrize("row_id", ROWS)
def test_a_loaded_model_gives_the_stored_dev_predictions(lab: study.Study, row_id: str) -> None:
    model = models.load(lab, row_id)
    assert model.name == f"{row_id}, seed 0" and set(model.by_task) == {"sst", "para", "sts"}
    for task, run in model.by_task.items():
        split, stored = lab.scored(task), lab.store.predictions(run.record.run_id)[task]
        stored = stored.reshape(len(stored), -1)
        np.testing.assert_allclose(run.outputs(task, split), stored, rtol=HALF.eps, atol=HALF.smallest_subnormal)
        texts = split.texts[0] if len(split.texts) == 1 else list(zip(*split.texts, strict=True))
        expected = models.answers(run.record.spec.task(task), stored)
        np.testing.assert_allclose(model.predict(task, texts), expected, atol=2e-3)


def test_a_run_and_a_variant_are_loaded_as_well_as_a_row(lab: study.Study, pair: models.KeptRun) -> None:
    texts = ["a fine film", "a dull story"]
    expected = models.load(lab, "swissbert_pair").predict("sst", texts)
    assert (models.load(lab, pair.record.run_id).predict("sst", texts) == expected).all()
    changed = study.variant(study.row("swissbert_pair"), "other rate", **{"optimizer.lr": 1e-3})
    assert (models.load(lab, changed).predict("sst", texts) != expected).any()


def test_the_library_loads_the_folder_as_an_encoder(lab: study.Study, pair: models.KeptRun) -> None:
    transformers = pytest.importorskip("transformers")
    folder, text = folder_of(lab, pair), "a fine film"
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    assert tokens["input_ids"].tolist() == [pair.tokenizer.encode(text).ids]
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(**tokens)
        ours = pair.model.encoder(tokens["input_ids"], tokens["attention_mask"], tokens["token_type_ids"])
    torch.testing.assert_close(theirs.last_hidden_state, ours.last_hidden_state, atol=1e-5, rtol=1e-5)
    start = BertModel.from_pretrained(lab.encoder_folder()).pooler["dense"].weight
    assert not torch.equal(BertModel.from_pretrained(folder).pooler["dense"].weight, start)  # it was trained


def test_the_card_is_written_from_the_record(lab: study.Study, pair: models.KeptRun) -> None:
    text, record = (folder_of(lab, pair) / models.CARD).read_text(), pair.record
    for part in ("# swissbert_pair, seed 0", "pair encoding", "profile smoke", record.run_id, "random weights"):
        assert part in text
    assert f"SST: accuracy {record.value('sst_acc'):.3f} (600 examples)" in text and "contaminated" not in text
    assert "as an encoder.\n" in text
    spec = {**record["spec"], "encoder": {**record["spec"]["encoder"], "checkpoint": "minilm-l6"}}
    assert "contaminated" in models.card(Record({**record, "spec": spec}))
    with_pals = models.load(lab, "slapbert_individual_pretrain").runs[0]
    text = (folder_of(lab, with_pals) / models.CARD).read_text()
    assert "as an encoder without its task-specific and shared layers.\n" in text


def test_training_for_the_weights_leaves_the_stored_run_as_it_is(lab: study.Study, capsys) -> None:
    row, own = study.row("swissbert_no_extension"), replace(lab, seeds=(3,))
    record = own.run([row])[row.id].records[0]
    path = lab.store.folder(record.run_id) / "record.json"
    before = path.read_bytes()
    assert not (lab.places.weights / record.run_id).exists()
    capsys.readouterr()
    models.load(own, row.id)
    assert f"Training {row.id}, seed 3: {record.run_id}" in capsys.readouterr().err
    assert path.read_bytes() == before
    models.load(own, row.id)
    assert capsys.readouterr().err == ""  # from the kept weights, and these are the stored run's


def test_changed_weights_are_not_used_but_trained_again(lab: study.Study, pair: models.KeptRun, capsys) -> None:
    path = folder_of(lab, pair) / models.HEADS
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert models.kept_record(path.parent) is None
    models.load(lab, "swissbert_pair")
    assert "Training swissbert_pair" in capsys.readouterr().err and path.read_bytes() == sound


def test_weights_that_are_not_the_stored_runs_are_told_as_such(lab: study.Study, pair, capsys) -> None:
    record = lab.store.get(pair.record.run_id)
    predictions = lab.store.predictions(record.run_id)
    lab.store.write(record, {**predictions, "sts": predictions["sts"] + 1}, {})
    models.load(lab, "swissbert_pair")
    assert "do not give the stored scores" in capsys.readouterr().err
    lab.store.write(record, predictions, lab.store.probes(record.run_id))


def test_keeping_weights_trains_what_is_stored_without_them_and_nothing_else(lab: study.Study, pair) -> None:
    plans = lab.plan([study.row("swissbert_pair"), study.row("swissbert_pair_gs")])
    lab.run([study.row("swissbert_pair_gs")])
    assert lab.jobs_for(plans) == []
    jobs = replace(lab, keep_weights=True).jobs_for(plans)
    assert [job.label for job in jobs] == ["swissbert_pair_gs, seed 0"] and not jobs[0].force
    assert jobs[0].weights == str(lab.places.weights / plans[1].run_id)


def test_a_cluster_keeps_no_weights() -> None:
    with pytest.raises(StudyError, match="cluster's workers give back records alone"):
        replace(study.open_study("smoke", scheduler="tls://127.0.0.1:1"), keep_weights=True)


def test_a_report_trains_no_model(lab: study.Study) -> None:
    with pytest.raises(StudyError, match=r"swissbert_pair, seed 7: no weights of it are kept. \[E-MISSING\]"):
        models.load(replace(lab, report_only=True), "swissbert_pair", 7)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("swissbert_pare", "E-MISSING", "Did you mean 'swissbert_pair'?"),
        ("slapbert_randbert", "E-ROW", "drawn at random"),
        ("swissbert_zero_shot_cosine", "E-ROW", "trains nothing"),
        ("../../x-s0", "E-MISSING", "no such run"),
    ],
)
def test_what_has_no_model_is_refused(lab: study.Study, name: str, code: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        models.load(lab, name)
    assert caught.value.code == code and said in str(caught.value)


def test_a_training_that_fails_is_told_by_its_row(lab: study.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, jobs: list, store: object, progress: object) -> dict:
            return {job.run_id: {"event": "failed", "message": "no luck.", "log": None} for job in jobs}

    monkeypatch.setattr(session.Study, "_workers", lambda self: Failing())
    with pytest.raises(StudyError, match=r"swissbert_pair, seed 8: no luck. \[E-FAILED\]") as caught:
        models.load(lab, "swissbert_pair", 8)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("task", "texts", "code"),
    [
        ("sst", [], "E-TEXT"),
        ("sst", "a fine film", "E-TEXT"),
        ("sst", [("a", "b")], "E-TEXT"),
        ("sst", ["a", " "], "E-TEXT"),
        ("sts", ["a fine film"], "E-TEXT"),
        ("sts", [("a", "b", "c")], "E-TEXT"),
        ("para", [("a", "")], "E-TEXT"),
        ("cfimdb", ["a"], "E-TASK"),
    ],
)
def test_texts_that_do_not_fit_are_refused(pair, task: str, texts: object, code: str) -> None:
    with pytest.raises(StudyError) as caught:
        models.TrainedModel("swissbert_pair, seed 0", (pair,)).predict(task, texts)
    assert caught.value.code == code


def test_outputs_become_probabilities_and_scores() -> None:
    sst, para, sts = TaskSpec("sst"), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
    np.testing.assert_allclose(models.answers(sst, np.log([[1.0, 2, 3, 2, 2]])), [[0.1, 0.2, 0.3, 0.2, 0.2]])
    np.testing.assert_allclose(models.answers(para, np.log([[3.0], [1 / 3]])), [0.75, 0.25])
    np.testing.assert_allclose(models.answers(sts, np.array([[-0.5], [2.5], [5.5]])), [0, 2.5, 5])
    cosine = TaskSpec("para", "cosine", loss="mse")
    np.testing.assert_allclose(models.answers(cosine, np.array([[-0.5]])), [-0.5])  # no probability
    order = TaskSpec("sts", "cosine", loss="mnrl")
    np.testing.assert_allclose(models.answers(order, np.array([[-0.5]])), [-0.5])  # on no scale
