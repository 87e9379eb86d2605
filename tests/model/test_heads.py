"""Heads against closed forms: pooling, concatenation, cosine, sharing, freezing."""

import numpy as np
import pytest
import torch

from common.data.encoding import Batch
from common.model.bert import BertConfig, BertModel, BertOutput
from common.model.heads import MultitaskModel, first_token, mean_pool, pooler
from common.spec import EncoderSpec, RunSpec, TaskSpec

CONFIG = BertConfig(60, 16, 2, 2, 32, max_position_embeddings=24)
SST = TaskSpec("sst", dropout=0.3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(*tasks, **fields):
    encoder = BertModel(CONFIG)
    encoder.reset_parameters(generator(), std=0.2)
    return MultitaskModel(encoder, RunSpec(tasks=tasks, **fields), generator(1))


def part(seed, length=7):
    ids = torch.randint(1, 60, (3, length), generator=generator(seed))
    mask = (torch.arange(length) < torch.tensor([[length], [length - 2], [3]])).long()
    return ids, mask, torch.zeros_like(ids)


def test_mean_pool_averages_real_tokens_only():
    hidden = torch.tensor([[[2.0], [4.0], [100.0]], [[1.0], [9.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    output = BertOutput(hidden, torch.zeros(2, 1), None)
    assert mean_pool(output, mask).tolist() == [[3.0], [1.0]]


def test_cls_and_pooler_are_different_vectors():
    output = BertOutput(torch.ones(2, 3, 4), torch.zeros(2, 4), None)
    mask = torch.ones(2, 3)
    assert first_token(output, mask).eq(1).all() and pooler(output, mask).eq(0).all()


def test_separate_encoding_concatenates_the_two_vectors_in_order():
    model = build(TaskSpec("sts", "separate", loss="mse")).eval()
    first, second = part(2), part(3)
    head = model.heads["sts"].out
    vectors = [model.encoder(*p).pooler_output for p in (first, second)]
    expected = torch.cat(vectors, -1) @ head.weight.T + head.bias
    torch.testing.assert_close(model("sts", Batch((first, second), None)), expected)
    assert not torch.allclose(model("sts", Batch((second, first), None)), expected, atol=1e-3)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_cosine_head_equals_numpy(pooling):
    model = build(TaskSpec("sts", "cosine", pooling, loss="mse", output="times_five")).eval()
    batch = Batch((part(2), part(3)), None)
    first, second = (v.detach().numpy().astype(np.float64) for v in model.sentence_vectors("sts", batch))
    expected = 5 * (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(model("sts", batch)[:, 0].detach().numpy(), expected, atol=1e-5)
    assert not list(model.heads.parameters())


def test_shared_layer_is_one_layer_and_is_trained_by_both_tasks():
    shared = {"pair_method": "separate", "head_layers": 2, "shared_layer": "pairs", "activation": "leaky_relu"}
    model = build(TaskSpec("para", loss="bce", **shared), TaskSpec("sts", loss="mse", **shared))
    assert model.heads["para"].first is model.heads["sts"].first
    assert model.heads["para"].out is not model.heads["sts"].out
    names = [name for name, _ in model.named_parameters() if ".first." in name]
    assert len(names) == 2  # weight and bias, once
    for task in ("para", "sts"):
        model.zero_grad()
        model(task, Batch((part(2), part(3)), None)).sum().backward()
        assert model.heads["para"].first.weight.grad.abs().sum() > 0


def test_two_layer_head_equals_its_formula():
    model = build(TaskSpec("sst", head_layers=2, activation="leaky_relu")).eval()
    head, batch = model.heads["sst"], Batch((part(2),), None)
    vector = model.encoder(*part(2)).pooler_output
    inner = vector @ head.first.weight.T + head.first.bias
    expected = torch.where(inner > 0, inner, 0.01 * inner) @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(model("sst", batch), expected)


def test_frozen_encoder_gets_no_gradient_and_no_dropout_noise():
    model = build(SST, encoder=EncoderSpec(frozen=True)).train()
    batch = Batch((part(2),), None)
    vectors = [model.sentence_vectors("sst", batch)[0] for _ in range(2)]
    assert torch.equal(*vectors)
    model("sst", batch).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.heads["sst"].out.weight.grad.abs().sum() > 0


def test_task_dropout_and_encoder_dropout_act_in_training_only():
    model = build(SST).train()
    batch = Batch((part(2),), None)
    assert not torch.equal(model("sst", batch), model("sst", batch))
    model.eval()
    assert torch.equal(model("sst", batch), model("sst", batch))


def test_heads_start_from_the_generator_alone():
    one, two, other = build(SST), build(SST), MultitaskModel(BertModel(CONFIG), RunSpec(tasks=(SST,)), generator(2))
    assert torch.equal(one.heads["sst"].out.weight, two.heads["sst"].out.weight)
    assert not torch.equal(one.heads["sst"].out.weight, other.heads["sst"].out.weight)


def test_bf16_encoder_gives_float32_outputs_near_fp32():
    plain, low = build(SST).eval(), build(SST, precision="bf16").eval()
    batch = Batch((part(2),), None)
    found = low("sst", batch)
    assert found.dtype == torch.float32
    # bf16 keeps 8 bits: two layers stay within a few hundredths
    torch.testing.assert_close(found, plain("sst", batch), atol=0.05, rtol=0.05)
    assert not torch.equal(found, plain("sst", batch))
