"""Heads against closed forms: pooling, concatenation, cosine, sharing, freezing."""

import numpy as np
import pytest
import torch

from common.data.encoding import Batch
from common.declare.spec import EncoderSpec, PalSpec, RunSpec, TaskSpec
from common.model.bert import BertConfig, BertModel, BertOutput
from common.model.heads import MultitaskModel, first_token, mean_pool, pooler
from common.training.evaluate import positive_score, predict

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


def vectors_of(model, task, batch):
    return [v.detach() for v in model.sentence_vectors(task, batch)]


def test_sbert_features_are_both_vectors_and_their_difference():
    model = build(TaskSpec("sts", "separate", loss="mse", features="sbert")).eval()
    batch = Batch((part(2), part(3)), None)
    u, v = vectors_of(model, "sts", batch)
    out = model.heads["sts"].out
    assert out.in_features == 3 * 16
    expected = u @ out.weight[:, :16].T + v @ out.weight[:, 16:32].T + (u - v).abs() @ out.weight[:, 32:].T + out.bias
    torch.testing.assert_close(model("sts", batch), expected)


def test_fusion_head_projects_each_sentence_with_one_layer_then_fuses():
    """BERT++: per sentence a linear layer and ReLU, both joined, a linear layer and ReLU, one output."""
    model = build(TaskSpec("sts", "separate", loss="mse", projection=True, head_layers=2)).eval()
    head, batch = model.heads["sts"], Batch((part(2), part(3)), None)
    u, v = vectors_of(model, "sts", batch)
    own = head.projection[1]
    joined = torch.cat([(u @ own.weight.T + own.bias).clamp(min=0), (v @ own.weight.T + own.bias).clamp(min=0)], -1)
    fused = (joined @ head.head.first.weight.T + head.head.first.bias).clamp(min=0)
    torch.testing.assert_close(model("sts", batch), fused @ head.head.out.weight.T + head.head.out.bias)
    size = sum(p.numel() for p in head.parameters())
    assert size == (16 * 16 + 16) + (32 * 16 + 16) + (16 + 1)


def test_fusion_dropout_is_before_the_projection_alone():
    model = build(TaskSpec("sts", "separate", loss="mse", projection=True, head_layers=2, dropout=0.4))
    rates = [m.p for m in model.heads["sts"].modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.4, 0.0, 0.0]


def test_inner_dropout_acts_before_the_last_layer():
    model = build(TaskSpec("sst", head_layers=2, dropout=0.3, inner_dropout=True, activation="gelu"))
    assert model.heads["sst"].inner_dropout.p == model.heads["sst"].dropout.p == 0.3
    assert build(TaskSpec("sst", head_layers=2, dropout=0.3)).heads["sst"].inner_dropout.p == 0.0


@pytest.mark.parametrize(
    ("output", "scale", "formula"),
    [
        ("raw", 1.0, lambda c: c),
        ("times_five", 1.0, lambda c: 5 * c),
        ("relu_times_five", 1.0, lambda c: 5 * np.maximum(c, 0)),
        ("sigmoid_times_five", 1.0, lambda c: 5 / (1 + np.exp(-c))),
        ("sigmoid_times_five", 6.0, lambda c: 5 / (1 + np.exp(-6 * c))),
    ],
)
def test_every_output_of_a_cosine_is_its_formula(output, scale, formula):
    model = build(TaskSpec("sts", "cosine", "mean", loss="mse", output=output, scale=scale)).eval()
    batch = Batch((part(2), part(3)), None)
    u, v = (x.numpy().astype(np.float64) for x in vectors_of(model, "sts", batch))
    cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    np.testing.assert_allclose(model("sts", batch)[:, 0].detach().numpy(), formula(cosine), atol=1e-5)


def test_sigmoid_of_a_cosine_spans_1_34_to_3_66_only():
    model = build(TaskSpec("sts", "cosine", loss="mse", output="sigmoid_times_five"))
    head, v = model.heads["sts"], torch.ones(1, 16)
    assert head(v, v).item() == pytest.approx(3.6553, abs=1e-4)
    assert head(v, -v).item() == pytest.approx(1.3447, abs=1e-4)


def test_relu_of_a_cosine_as_logit_never_falls_below_one_half():
    """BERT++'s Model E: probabilities in 0.5 to 0.73; a paraphrase is predicted exactly when the cosine is above 0."""
    task = TaskSpec("para", "cosine", loss="bce", output="relu")
    head, v = build(task).heads["para"], torch.eye(16)[:1]
    outputs = torch.cat([head(v, v), head(v, -v), head(v, torch.eye(16)[1:2])]).numpy()
    assert positive_score(task, outputs) == pytest.approx([1 / (1 + np.exp(-1)), 0.5, 0.5])
    assert predict(task, outputs).tolist() == [1, 0, 0]


def test_ranking_scores_are_the_cosines_of_all_pairs_and_its_prediction_the_cosine():
    """The pitfall: scores from the vectors before they were normalised."""
    model = build(TaskSpec("sts", "cosine", "mean", loss="mnrl", scale=20.0)).eval()
    batch = Batch((part(2), part(3)), None)
    u, v = vectors_of(model, "sts", batch)
    expected = torch.tensor(
        [[20 * float(a @ b / a.norm() / b.norm()) for b in v] for a in u]  # plain loops over the batch
    )
    torch.testing.assert_close(model.training_scores([("sts", batch)])[0], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(20 * model("sts", batch)[:, 0], expected.diagonal(), atol=1e-4, rtol=1e-5)


def test_shared_transformer_is_torchs_layer_over_the_two_vectors():
    tasks = (TaskSpec("sst", shared_transformer=True), TaskSpec("sts", "separate", loss="mse", shared_transformer=True))
    model = build(*tasks).eval()
    batch = Batch((part(2), part(3)), None)
    pooled = [model.encoder(*p).pooler_output for p in batch.inputs]
    layer, stacked = model.shared.layer, torch.stack(pooled, 1)  # (B, 2, H)
    attended, _ = torch.nn.functional.multi_head_attention_forward(
        *[stacked.transpose(0, 1)] * 3, 16, 8, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias, None, None,
        False, 0.0, layer.self_attn.out_proj.weight, layer.self_attn.out_proj.bias, training=False,
    )  # fmt: skip
    hidden = layer.norm1(stacked + attended.transpose(0, 1))
    expected = layer.norm2(hidden + layer.linear2(layer.linear1(hidden).relu()))
    found = torch.stack(model.sentence_vectors("sts", batch), 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert len(model.sentence_vectors("sst", Batch((part(2),), None))) == 1
    assert layer.linear1.out_features == 16 * 2048 // 768


def test_shared_transformer_is_one_module_trained_by_every_task_that_names_it():
    tasks = (TaskSpec("sst", shared_transformer=True), TaskSpec("sts", "separate", loss="mse"))
    model = build(*tasks)
    model("sts", Batch((part(2), part(3)), None)).sum().backward()
    assert all(p.grad is None for p in model.shared.parameters())
    model("sst", Batch((part(2),), None)).sum().backward()
    assert model.shared.layer.linear1.weight.grad.abs().sum() > 0


def test_the_same_generator_gives_the_same_shared_transformer():
    tasks = (TaskSpec("sst", shared_transformer=True),)
    one, two = build(*tasks), build(*tasks)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_shared_parameters_are_the_encoder_and_what_two_tasks_use():
    """Heads and PALs belong to one task each: gradient surgery must leave them alone."""
    group = {"pair_method": "separate", "head_layers": 2, "shared_layer": "pairs"}
    tasks = (TaskSpec("sst"), TaskSpec("para", loss="bce", **group), TaskSpec("sts", loss="mse", **group))
    model = build(*tasks, encoder=EncoderSpec(pals=PalSpec(8, 2), frozen_layers=1))
    shared, names = set(model.shared_parameters()), {p: n for n, p in model.named_parameters()}
    found = {names[p] for p in shared}
    assert {n for n in found if not n.startswith("encoder.")} == {
        "heads.para.first.weight",
        "heads.para.first.bias",
    }
    assert not any("embeddings" in n or "layer.0." in n for n in found)  # frozen
    assert any("layer.1." in n for n in found) and not any("pals" in n for n in found)


def test_frozen_first_layers_and_embeddings_stay_while_the_others_learn():
    model = build(SST, encoder=EncoderSpec(frozen_layers=1))
    model("sst", Batch((part(2),), None)).sum().backward()
    for name, parameter in model.encoder.named_parameters():
        is_first = "embeddings" in name or "layer.0." in name
        assert (parameter.grad is None) == is_first, name


def test_only_the_named_tasks_train_the_encoder_while_pals_learn_from_all():
    tasks = (SST, TaskSpec("sts", "separate", loss="mse"))
    model = build(*tasks, encoder=EncoderSpec(trained_by=("sts",), pals=PalSpec(8, 2)))
    for task, batch in (("sst", Batch((part(2),), None)), ("sts", Batch((part(2), part(3)), None))):
        model.zero_grad(set_to_none=True)
        model.prepare_update([(task, batch)])
        model(task, batch).sum().backward()
        assert all((p.grad is not None) == (task == "sts") for p in model.encoder.encoder["layer"].parameters())
        assert any(p.grad is not None for p in model.pals[task].parameters())


def test_pals_of_one_task_change_that_task_alone():
    tasks = (SST, TaskSpec("sts", "separate", loss="mse"))
    model = build(*tasks, encoder=EncoderSpec(pals=PalSpec(8, 2))).eval()
    single, double = Batch((part(2),), None), Batch((part(2), part(3)), None)
    before = model("sst", single), model("sts", double)
    with torch.no_grad():
        for parameter in model.pals["sst"].parameters():
            parameter.mul_(-2)
    assert not torch.allclose(model("sst", single), before[0], atol=1e-4)
    assert torch.equal(model("sts", double), before[1])
