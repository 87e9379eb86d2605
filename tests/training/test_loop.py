"""A run: against an independent implementation, and the laws of training, selection and determinism."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.encoding import Layout, encode, epoch_batches, load_tokenizer
from common.data.split import Split
from common.errors import StudyError
from common.model.bert import BertModel
from common.spec import EncoderSpec, OptimizerSpec, RunSpec, ScheduleSpec, SurgerySpec, TaskSpec, WeightingSpec
from common.training import loop
from common.training.evaluate import predict, sample, score
from common.training.loop import run

QUIET = EncoderSpec(hidden_dropout=0.0, attention_dropout=0.0)
SST = TaskSpec("sst")
PARA, STS = TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SEPARATE = TaskSpec("sts", "separate", loss="mse")
RATE = OptimizerSpec(lr=1e-3)
SPEC = RunSpec((SST, PARA, STS), QUIET, ScheduleSpec("joint"), RATE, batch_size=8, epochs=2)


def test_the_same_spec_gives_the_same_bytes_and_another_seed_does_not(materials):
    noisy = replace(SPEC, encoder=EncoderSpec(), tasks=(TaskSpec("sst", dropout=0.3), PARA, STS))
    first, second, other = run(noisy, materials, 1), run(noisy, materials, 1), run(replace(noisy, seed=1), materials, 1)
    for task in first.predictions:
        assert first.predictions[task].tobytes() == second.predictions[task].tobytes()
        assert first.predictions[task].tobytes() != other.predictions[task].tobytes()
    assert [e["train_loss"] for e in first.record["history"]] == [e["train_loss"] for e in second.record["history"]]


def test_bf16_is_deterministic_too_and_near_fp32(materials):
    low = replace(SPEC, precision="bf16", epochs=1)
    first, second, plain = (
        run(low, materials, 1),
        run(low, materials, 1),
        run(replace(low, precision="fp32"), materials, 1),
    )
    assert first.predictions["sts"].tobytes() == second.predictions["sts"].tobytes()
    assert np.abs(first.predictions["sts"] - plain.predictions["sts"]).max() < 0.5


def test_a_run_leaves_threads_and_global_generator_alone(materials):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    run(replace(SPEC, epochs=1, encoder=EncoderSpec()), materials, 2)
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)


def test_frozen_encoder_stays_as_published_and_only_heads_are_counted(materials):
    spec = replace(SPEC, encoder=replace(QUIET, frozen=True), tasks=(SST, PARA, SEPARATE))
    outcome = run(spec, materials, 1)
    published = BertModel.from_pretrained(materials.encoder_folder).state_dict()
    for name, tensor in outcome.model.encoder.state_dict().items():
        assert torch.equal(tensor, published[name])
    assert outcome.record["counts"]["parameters_trained"] == (32 + 1) * 5 + (32 + 1) + (64 + 1)
    assert outcome.record["history"][-1]["train_loss"]["sts"] < outcome.record["history"][0]["train_loss"]["sts"]


def test_no_epochs_means_no_training(materials):
    outcome = run(replace(SPEC, epochs=0), materials, 1)
    assert outcome.record["history"] == [] and outcome.record["best_epoch"] == 0
    assert outcome.record["counts"]["parameters_trained"] == 0 == outcome.record["counts"]["updates"]
    published = BertModel.from_pretrained(materials.encoder_folder).state_dict()
    assert all(torch.equal(t, published[n]) for n, t in outcome.model.encoder.state_dict().items())
    assert set(outcome.predictions) == {"sst", "para", "sts"}


def test_the_record_describes_the_best_epoch(materials):
    outcome = run(replace(SPEC, epochs=4, optimizer=OptimizerSpec(lr=2e-2)), materials, 1)
    history, best = outcome.record["history"], outcome.record["best_epoch"]
    scores = [sum(e["dev"][m] or -9 for m in ("sst_acc", "para_acc", "sts_corr")) for e in history]
    assert scores[best - 1] == max(scores)
    final = outcome.record["metrics"]["dev"]
    assert final == pytest.approx(history[best - 1]["dev"])
    accuracy = (outcome.predictions["sst"].argmax(1) == materials.corpus["sst"]["dev"].labels).mean()
    assert final["sst_acc"] == pytest.approx(accuracy)


def test_counts_follow_the_schedule(materials):
    counts = run(SPEC, materials, 1).record["counts"]
    assert counts["updates"] == 2 * 8  # 64 STS pairs in batches of 8, twice
    assert counts["examples"] == {"sst": 128, "para": 128, "sts": 128}


def test_progress_reaches_its_total(materials):
    calls = []
    run(SPEC, materials, 1, lambda *call: calls.append(call))
    assert calls[-1] == (384, 384, "epoch 2/2") and [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_per_epoch_evaluation_is_capped_and_the_final_one_is_not(materials):
    outcome = run(replace(SPEC, dev_examples=10), materials, 1)
    assert all((e["dev"]["sst_acc"] * 10) % 1 == pytest.approx(0, abs=1e-9) for e in outcome.record["history"])
    assert len(outcome.predictions["sst"]) == 40 == outcome.record["counts"]["dev"]["sst"]


def test_train_metrics_are_those_of_a_sample_of_the_training_examples(materials):
    """Recomputed from the model that the run hands back."""
    outcome = run(replace(SPEC, train_examples=30), materials, 1)
    split, rows = materials.corpus["sst"]["train"], sample(len(materials.corpus["sst"]["train"]), 30, "sst")
    texts = tuple(tuple(column[row] for row in rows) for column in split.texts)
    part = Split(tuple(split.ids[row] for row in rows), texts, split.labels[rows])
    tokens = encode(part, load_tokenizer(materials.encoder_folder, 128), Layout.of(SST))
    right = predict(SPEC.task("sst"), score(outcome.model, "sst", tokens)) == part.labels
    assert outcome.record["metrics"]["train"]["sst_acc"] == pytest.approx(right.mean())
    assert set(outcome.record["metrics"]["train"]) == set(outcome.record["metrics"]["dev"])


def test_a_task_the_data_lacks_is_named(materials):
    with pytest.raises(StudyError, match="the data has no cfimdb"):
        run(RunSpec((TaskSpec("cfimdb"),)), materials)


def test_an_untrained_task_is_scored_and_never_drawn(materials):
    spec = SPEC.with_tasks(para={"trained": False}, sts={"trained": False})
    spec = replace(spec, schedule=ScheduleSpec("round_robin"))
    record = run(spec, materials, 1).record
    assert set(record["counts"]["examples"]) == {"sst"} and record["counts"]["updates"] == 2 * 10
    assert set(record["history"][0]["train_loss"]) == {"sst"} and set(record["history"][0]["dev"]) >= {"sst_acc"}
    assert {"sst_acc", "para_acc", "sts_corr", "overall"} <= set(record["metrics"]["dev"])
    assert {name: len(values) for name, values in record["untrained_heads"].items()} == {"para_acc": 20, "sts_corr": 20}


def test_a_sequential_run_trains_one_task_in_each_phase(materials):
    spec = replace(SPEC, schedule=ScheduleSpec("sequential"), epochs=2)
    record = run(spec, materials, 1).record
    assert [list(entry["train_loss"]) for entry in record["history"]] == [["sst"]] * 2 + [["para"]] * 2 + [["sts"]] * 2
    assert record["counts"]["examples"] == {"sst": 160, "para": 240, "sts": 128}


def test_a_cycled_set_is_drawn_afresh_when_it_starts_again(materials):
    spec = replace(SPEC, schedule=ScheduleSpec("joint", stop="cycle"), epochs=1)
    record = run(spec, materials, 1).record
    assert record["counts"]["updates"] == 15  # 120 Quora pairs in batches of 8
    assert record["counts"]["examples"] == {"sst": 15 * 8, "para": 120, "sts": 15 * 8}


def test_capped_sets_are_drawn_afresh_each_epoch(materials, monkeypatch):
    drawn = []
    monkeypatch.setattr(loop, "epoch_batches", lambda *a: drawn.append(a) or epoch_batches(*a))
    run(replace(SPEC.with_tasks(para={"examples": 16}), schedule=ScheduleSpec()), materials, 1)
    first, second = [set(np.concatenate(epoch_batches(*a))) for a in drawn if a[1] == 16]
    assert len(first) == len(second) == 16 and first != second


def test_biased_and_annealed_runs_have_the_updates_their_specs_predict(materials):
    sizes = {"sst": 80, "para": 120, "sts": 64}
    for schedule in (ScheduleSpec("biased"), ScheduleSpec("annealed", updates=7), ScheduleSpec("annealed")):
        spec = replace(SPEC, schedule=schedule)
        record = run(spec, materials, 1).record
        assert record["counts"]["updates"] == spec.total_updates(sizes) == record["history"][-1]["updates"]


def test_the_record_holds_what_learned_weights_and_surgery_did(materials):
    spec = replace(SPEC, weighting=WeightingSpec("automatic", lr=1e-2), surgery=SurgerySpec("pcgrad"))
    outcome = run(spec, materials, 1)
    first, last = outcome.record["history"][0], outcome.record["history"][-1]
    assert set(first["conflicts"]) == {"sst-para", "sst-sts", "para-sts"}
    assert all(0 <= c["rate"] <= 1 and c["pairs"] == 8 for c in first["conflicts"].values())
    assert first["loss_factors"] != last["loss_factors"]
    assert outcome.probes["trace_cosine"].shape == (16, 3) and outcome.probes["trace_factor"].shape == (16, 3)
    assert outcome.record["trace"] == {"tasks": ["sst", "para", "sts"], "pairs": ["para-sts", "sst-para", "sst-sts"]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_by_name(materials):
    with pytest.raises(StudyError, match="torch sees none"):
        run(SPEC, materials, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_run_on_a_gpu_agrees_with_the_cpu(materials):
    spec = replace(SPEC, epochs=1)
    here, there = run(spec, materials, 1), run(spec, materials, 1, device="cuda")
    for task in here.predictions:
        # float32 on both; eight updates let rounding grow
        np.testing.assert_allclose(there.predictions[task], here.predictions[task], atol=1e-2)
