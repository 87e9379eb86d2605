"""A run: against an independent implementation, and the laws of training, selection and determinism."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.encoding import Layout, encode, load_tokenizer
from common.data.split import Split
from common.declare.spec import (
    EncoderSpec,
    OptimizerSpec,
    RateSpec,
    RunSpec,
    ScheduleSpec,
    SurgerySpec,
    TaskSpec,
    WeightingSpec,
)
from common.errors import StudyError
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.training import loop
from common.training.evaluate import is_still_rising, predict, sample, score
from common.training.loop import run
from common.training.optim import rate_multiplier

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
    outcome = run(replace(SPEC, train_examples=30, schedule=ScheduleSpec()), materials, 1)  # draws every example
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


def test_a_phased_run_is_scored_after_its_last_phase(materials):
    """The best epoch of three phases would hide what the later ones made it forget."""
    spec = replace(SPEC, schedule=ScheduleSpec("sequential"), epochs=2, optimizer=OptimizerSpec(lr=2e-2))
    record = run(spec, materials, 1).record
    assert record["best_epoch"] == len(record["history"]) == 6
    assert record["metrics"]["dev"] == pytest.approx(record["history"][-1]["dev"])
    assert [set(e["train"]) & {"sst_acc", "para_acc", "sts_corr"} for e in record["history"][1::2]] == [
        {"sst_acc"},
        {"sst_acc", "para_acc"},
        {"sst_acc", "para_acc", "sts_corr"},
    ]


def test_a_staged_run_ends_with_all_tasks_together(materials):
    spec = replace(SPEC, schedule=ScheduleSpec("staged"), epochs=2)
    record = run(spec, materials, 1).record
    trained = [list(entry["train_loss"]) for entry in record["history"]]
    assert trained == [["sst"]] * 2 + [["para"]] * 2 + [["sts"]] * 2 + [["sst", "para", "sts"]] * 2
    assert record["counts"]["examples"] == {"sst": 4 * 80, "para": 4 * 120, "sts": 4 * 64}
    assert record["counts"]["updates"] == spec.total_updates({"sst": 80, "para": 120, "sts": 64})


def test_a_cycled_set_is_drawn_afresh_when_it_starts_again(materials):
    spec = replace(SPEC, schedule=ScheduleSpec("joint", stop="cycle"), epochs=1)
    record = run(spec, materials, 1).record
    assert record["counts"]["updates"] == 15  # 120 Quora pairs in batches of 8
    assert record["counts"]["examples"] == {"sst": 15 * 8, "para": 120, "sts": 15 * 8}


def test_a_capped_set_is_passed_again_and_a_part_is_drawn_anew(materials):
    """SIAR caps the set, Gu draws a part of it in every epoch."""
    spec = replace(SPEC, schedule=ScheduleSpec(), epochs=3)
    capped, part, both = (
        run(spec.with_tasks(para=fields), materials, 1).record["counts"]
        for fields in ({"examples": 16}, {"per_epoch": 16}, {"examples": 24, "per_epoch": 16})
    )
    assert capped["examples"]["para"] == part["examples"]["para"] == both["examples"]["para"] == 48
    assert capped["distinct"]["para"] == 16 and 16 < both["distinct"]["para"] <= 24 < part["distinct"]["para"]


def test_the_rows_of_a_capped_set_are_the_same_for_every_seed_and_nested_in_larger_ones(materials, monkeypatch):
    seen = []
    original = loop.Encoded.batch
    monkeypatch.setattr(
        loop.Encoded, "batch", lambda self, rows, *a: seen.append(set(rows)) or original(self, rows, *a)
    )

    def drawn(examples, seed):
        seen.clear()
        run(
            replace(RunSpec((replace(SST, examples=examples),), QUIET, epochs=1, batch_size=8), seed=seed), materials, 1
        )
        return set.union(*seen[: examples // 8])

    assert drawn(16, seed=0) == drawn(16, seed=1) < drawn(32, seed=2)


def test_train_scores_belong_to_examples_that_were_drawn(materials):
    """Of 80 examples the run saw eight; the others would say nothing about what it learnt."""
    spec = RunSpec((replace(SST, per_epoch=8),), QUIET, optimizer=RATE, batch_size=8, epochs=1)
    outcome = run(spec, materials, 1)
    assert outcome.record["counts"]["distinct"]["sst"] == 8
    assert (outcome.record["metrics"]["train"]["sst_acc"] * 8) % 1 == pytest.approx(0, abs=1e-9)
    long = run(replace(spec, epochs=30, encoder=QUIET, optimizer=OptimizerSpec(lr=3e-3)), materials, 1).record
    assert long["metrics"]["train"] == pytest.approx(long["history"][long["best_epoch"] - 1]["train"])


def test_a_plateau_lowers_the_rate_of_every_later_update(materials, monkeypatch):
    """Through the loop, reading the rate of each update: a second scheduler used to put it back one update later."""
    monkeypatch.setattr(loop.evaluate, "selection_score", lambda spec, values: 0.5)  # never better than the first
    rate = replace(RATE, rate=RateSpec("plateau", factor=0.5, patience=1 / 3))
    outcome = run(replace(SPEC, epochs=6, optimizer=rate), materials, 1)
    per_epoch = outcome.probes["trace_rate"].reshape(6, 8)
    assert [set(epoch) for epoch in per_epoch.tolist()] == [{1.0}, {1.0}, {1.0}, {0.5}, {0.5}, {0.25}]
    assert [entry["rate"] for entry in outcome.record["history"]] == [1e-3] * 3 + [5e-4] * 2 + [2.5e-4]


@pytest.mark.parametrize("kind", ["constant", "linear", "step"])
def test_the_recorded_rate_of_every_update_is_the_schedule_s(materials, kind):
    rate = RateSpec(kind, warmup=0.25)
    outcome = run(replace(SPEC, optimizer=replace(RATE, rate=rate)), materials, 1)
    expected = [rate_multiplier(rate, done, 16) for done in range(16)]
    np.testing.assert_allclose(outcome.probes["trace_rate"], expected, rtol=1e-6)


def test_annealed_sampling_follows_the_sizes_it_is_given(materials):
    """A profile's smaller sets must not change the imbalance that the schedule is about."""
    spec = replace(SPEC, schedule=ScheduleSpec("annealed", updates=60), epochs=1)
    skewed = spec.with_tasks(sst={"sampling_size": 1}, para={"sampling_size": 10**6}, sts={"sampling_size": 1})
    drawn = run(skewed, materials, 1).record["counts"]["examples"]
    assert drawn["para"] > 400 and drawn["sst"] == drawn["sts"] == 0
    assert min(run(spec, materials, 1).record["counts"]["examples"].values()) > 60


def test_the_final_scores_are_of_a_fixed_sample_where_the_spec_caps_them(materials):
    outcome = run(replace(SPEC, final_examples=15), materials, 1)
    rows, labels = sample(40, 15, "sst"), materials.corpus["sst"]["dev"].labels
    assert outcome.record["counts"]["scored"] == {"sst": 15, "para": 15, "sts": 15}
    accuracy = (outcome.predictions["sst"].argmax(1) == labels[rows]).mean()
    assert outcome.record["metrics"]["dev"]["sst_acc"] == pytest.approx(accuracy)


def test_a_run_whose_last_epoch_is_its_best_by_more_than_its_noise_is_under_trained():
    spec = RunSpec((SST,), epochs=3)

    def history(*accuracies):
        return [{"selection": accuracy, "dev": {"sst_acc": accuracy}} for accuracy in accuracies]

    assert is_still_rising(spec, history(0.3, 0.35, 0.45), {"sst": 400})  # standard error 0.025
    assert not is_still_rising(spec, history(0.3, 0.44, 0.45), {"sst": 400})
    assert not is_still_rising(spec, history(0.3, 0.45, 0.35), {"sst": 400})
    assert is_still_rising(replace(spec, epochs=1), history(0.3), {"sst": 400})
    assert not is_still_rising(replace(spec, epochs=0), [], {"sst": 400})


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
    norms = outcome.probes["trace_norm"]
    assert norms.shape == (16, 3) and (norms > 0).all()
    assert first["gradient_norms"]["para"] == pytest.approx(norms[:8, 1].mean())
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


def test_one_pass_over_dev_serves_scores_random_heads_and_geometry(materials, monkeypatch):
    """And the train scores are those of the best epoch: nothing is encoded for them again."""
    spec = RunSpec(
        (TaskSpec("sst"), TaskSpec("para", "separate", loss="bce", trained=False)),
        epochs=2,
        dev_examples=8,
        batch_size=16,
    )
    encoded, ended = [], []
    pooled, end_epoch = MultitaskModel.pooled, loop._end_epoch

    def counted(model, group, noise=None):
        encoded.append((group[0][0], len(group[0][1].labels)) if ended.count(1) == 2 else ("before", 0))
        return pooled(model, group, noise)

    monkeypatch.setattr(MultitaskModel, "pooled", counted)
    monkeypatch.setattr(loop, "_end_epoch", lambda *given: (end_epoch(*given), ended.append(1)))
    record = loop.run(spec, replace(materials, examples=()), 1).record
    after = {name: sum(n for task, n in encoded if task == name) for name in ("sst", "para")}
    assert after == {name: len(materials.corpus[name]["dev"]) for name in after}
    assert len(record["untrained_heads"]["para_acc"]) == 20
    assert record["metrics"]["train"] == record["history"][record["best_epoch"] - 1]["train"]


def test_without_instructions_for_bf16_products_are_in_fp32_and_the_record_says_so(materials, monkeypatch):
    spec = RunSpec((TaskSpec("sst"),), epochs=1, batch_size=16, engine="fast")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    plain, asked = (loop.run(replace(spec, precision=name), materials, 1) for name in ("fp32", "bf16"))
    assert plain.record["environment"]["precision"] == asked.record["environment"]["precision"] == "fp32"
    assert plain.predictions["sst"].tobytes() == asked.predictions["sst"].tobytes()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    told = loop.run(replace(spec, precision="bf16"), materials, 1)
    assert told.record["environment"]["precision"] == "bf16"
    assert told.predictions["sst"].tobytes() != asked.predictions["sst"].tobytes()
