"""A run: against an independent implementation, and the laws of training, selection and determinism."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel as Reference

from common.data.encoding import Batch
from common.errors import StudyError
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.spec import EncoderSpec, OptimizerSpec, RunSpec, ScheduleSpec, TaskSpec
from common.study.rows import rows
from common.training.loop import run, train_step
from common.training.optim import AdamW

QUIET = EncoderSpec(hidden_dropout=0.0, attention_dropout=0.0)
SST = TaskSpec("sst")
PARA, STS = TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SEPARATE = TaskSpec("sts", "separate", loss="mse")
RATE = OptimizerSpec(lr=1e-3)
SPEC = RunSpec((SST, PARA, STS), QUIET, ScheduleSpec("joint"), RATE, batch_size=8, epochs=2)


def build(spec, folder):
    encoder = BertModel.from_pretrained(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return MultitaskModel(encoder, spec, torch.Generator().manual_seed(5))


def random_batch(seed, length, parts=1, classes=5):
    generator = torch.Generator().manual_seed(seed)

    def part():
        ids = torch.randint(5, 20, (4, length), generator=generator)
        mask = (torch.arange(length) < torch.tensor([[length], [length], [4], [3]])).long()
        return ids, mask, (torch.arange(length) >= 4).long().expand(4, -1) * (classes == 1)

    labels = torch.randint(0, max(classes, 2), (4,), generator=generator).float()
    return Batch(tuple(part() for _ in range(parts)), labels)


def test_joint_updates_equal_an_implementation_with_transformers_and_torch(encoder_folder):
    """Five updates of encoder and heads; the reference sums the losses and steps torch.optim.AdamW once."""
    spec = replace(SPEC, tasks=(SST, PARA, SEPARATE))
    model = build(spec, encoder_folder)
    reference = Reference.from_pretrained(
        encoder_folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"
    )
    heads = {name: torch.nn.Linear(*reversed(model.heads[name].out.weight.shape)) for name in ("sst", "para", "sts")}
    for name, head in heads.items():
        head.load_state_dict(model.heads[name].out.state_dict())
    parameters = [*reference.parameters(), *(p for head in heads.values() for p in head.parameters())]
    theirs = torch.optim.AdamW(parameters, lr=1e-3, eps=1e-6, weight_decay=0.01)
    ours = AdamW(model.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.01)
    losses = {"sst": torch.nn.functional.cross_entropy, "para": torch.nn.functional.binary_cross_entropy_with_logits}

    def pooled(part):
        return reference(part[0], attention_mask=part[1], token_type_ids=part[2]).pooler_output

    for step in range(5):
        group = {
            "sst": random_batch(step, 9),
            "para": random_batch(10 + step, 11, classes=1),
            "sts": random_batch(20 + step, 7, parts=2, classes=6),
        }
        train_step(model, ours, group)
        outputs = {name: heads[name](torch.cat([pooled(p) for p in b.inputs], -1)) for name, b in group.items()}
        total = losses["sst"](outputs["sst"], group["sst"].labels.long())
        total = total + losses["para"](outputs["para"][:, 0], group["para"].labels)
        total = total + torch.nn.functional.mse_loss(outputs["sts"][:, 0], group["sts"].labels)
        theirs.zero_grad()
        total.backward()
        theirs.step()
    published = reference.state_dict()
    for name, tensor in model.encoder.state_dict().items():
        # float32; Adam divides by small second moments, which amplifies rounding
        torch.testing.assert_close(tensor, published[name], atol=2e-4, rtol=0, msg=name)
    for name, head in heads.items():
        torch.testing.assert_close(model.heads[name].out.weight, head.weight, atol=2e-4, rtol=0)


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_loss_falls_on_eight_examples(materials, task):
    spec = replace(SPEC, tasks=(replace(SPEC.task(task), examples=8),), schedule=ScheduleSpec(), epochs=1)
    model = build(spec, materials.encoder_folder)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    batch = random_batch(1, 9, classes={"sst": 5, "para": 1, "sts": 1}[task])
    losses = [train_step(model, optimizer, {task: batch})[task] for _ in range(40)]
    assert losses[-1] < 0.2 * losses[0]


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


def test_a_loss_that_is_not_finite_stops_the_run(materials):
    model = build(SPEC, materials.encoder_folder)
    torch.nn.init.constant_(model.heads["sst"].out.weight, float("nan"))
    with pytest.raises(StudyError, match=r"task sst: the loss is nan at rate 0\.001"):
        train_step(model, AdamW(model.parameters()), {"sst": random_batch(0, 5)})


def test_a_task_the_data_lacks_is_named(materials):
    with pytest.raises(StudyError, match="the data has no cfimdb"):
        run(RunSpec((TaskSpec("cfimdb"),)), materials)


def _few_updates(spec, materials):
    tasks = tuple(replace(task, examples=16) for task in spec.tasks)
    spec = replace(
        spec, tasks=tasks, batch_size=8, epochs=min(spec.epochs, 1), optimizer=replace(spec.optimizer, lr=1e-3)
    )
    return run(spec, materials, 1)


def test_any_two_rows_differ_after_a_few_updates(materials):
    """A field that changes nothing would be a dead field. (Rates are set alike: those differ trivially.)"""
    found = {
        r.id: _few_updates(r.specs[0], materials) for r in rows("swissbert") if r.id != "swissbert_frozen_rate_1e3"
    }
    for (a, first), (b, second) in itertools.combinations(found.items(), 2):
        same = all(
            np.array_equal(first.predictions[t], second.predictions[t])
            for t in set(first.predictions) & set(second.predictions)
        )
        assert not same, (a, b)


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
