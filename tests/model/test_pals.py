"""Projected attention layers against torch's attention, transformers' layers and the paper's parameter count."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig as ReferenceConfig
from transformers import BertModel as Reference

from common.declare.spec import PalSpec
from common.errors import StudyError
from common.model.bert import BertConfig, BertModel
from common.model.pals import ProjectedAttentionLayers

CONFIG = BertConfig(97, 48, 3, 4, 64, max_position_embeddings=40)
SPEC = PalSpec(size=20, heads=5)
# Compared in float64, where no processor's rounding reaches 1e-12 of a state and any other formula is far beyond 1e-9.
CLOSE = {"atol": 1e-9, "rtol": 1e-9}


def random_model(seed=0):
    model = BertModel(CONFIG)
    model.reset_parameters(torch.Generator().manual_seed(seed), std=0.2)
    return model.eval()


def random_pals(spec=SPEC, seed=3, std=0.3, config=CONFIG):
    """Trained-looking PALs: weights large enough to show, and biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    pals = ProjectedAttentionLayers(config, spec, generator).eval()
    with torch.no_grad():
        for parameter in pals.parameters():
            parameter.normal_(std=std, generator=generator)
    return pals


def padded_batch(seed=1):
    ids = torch.randint(1, CONFIG.vocab_size, (3, 12), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(12) < torch.tensor([[12], [7], [1]])).long()
    return ids, mask


def bias_of(mask):
    return torch.zeros(mask.shape).masked_fill(~mask.bool(), -1e9)[:, None, None, :]


def oracle_pal(pals, index, hidden, mask):
    """torch's multi-head attention with the same weights; the output matrix it insists on is the identity."""
    own, size = pals.layer[index], pals.down.out_features
    small = (hidden @ pals.down.weight.T + pals.down.bias).transpose(0, 1)  # (T, B, size), as torch has it
    context, _ = torch.nn.functional.multi_head_attention_forward(
        *(small, small, small, size, own.num_heads),
        in_proj_weight=torch.cat([own.query.weight, own.key.weight, own.value.weight]),
        in_proj_bias=torch.cat([own.query.bias, own.key.bias, own.value.bias]),
        **dict(bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, training=False),
        **dict(out_proj_weight=torch.eye(size).to(small), out_proj_bias=None, key_padding_mask=~mask.bool()),
    )
    return context.transpose(0, 1) @ pals.up.weight.T + pals.up.bias


def reference_layers(model):
    config = ReferenceConfig(**vars(model.config), attn_implementation="eager")
    reference = Reference(config)
    reference.load_state_dict(model.state_dict())
    return reference.to(model.embeddings.LayerNorm.weight.dtype).eval()


def oracle_encoder(model, pals, ids, mask, of_attention_output=False):
    """transformers' parts, composed by hand: LN(h_att + FFN(h_att) + PAL(h)), paper section 3.3."""
    reference, bias = reference_layers(model), bias_of(mask)
    hidden = reference.embeddings(ids)
    for index, layer in enumerate(reference.encoder.layer):
        attended = layer.attention(hidden, attention_mask=bias)[0]
        feed_forward = layer.output.dense(layer.intermediate(attended))
        source = attended if of_attention_output else hidden
        added = torch.nn.functional.gelu(oracle_pal(pals, index, source, mask))
        hidden = layer.output.LayerNorm(attended + feed_forward + added)
    return hidden


def test_pals_count_of_parameters_is_the_closed_form_for_bert_base():
    layers, width, size = 12, 768, 204
    config = BertConfig(10, width, layers, 12, 4 * width)
    pals = ProjectedAttentionLayers(config, PalSpec(size=size, heads=12), torch.Generator())
    counts = {name: parameter.numel() for name, parameter in pals.named_parameters()}
    weights = sum(n for name, n in counts.items() if name.endswith("weight"))
    assert weights == 2 * width * size + 3 * layers * size**2 == 1_811_520
    assert sum(counts.values()) - weights == size + width + 3 * layers * size
    # The paper's budget: 1.13 times the parameters of BERT-base (110 million) with the eight tasks of GLUE.
    assert 1 + 8 * weights / 110e6 == pytest.approx(1.13, abs=0.005)
    assert pals.layer[0].head_size == 17


@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("heads", [1, 5, 20])
def test_pals_equal_torch_multi_head_attention(gelu, heads):
    pals = random_pals(PalSpec(size=20, heads=heads, gelu=gelu)).double()
    _, mask = padded_batch()
    hidden = torch.randn(3, 12, 48, dtype=torch.float64)
    for index in range(CONFIG.num_hidden_layers):
        expected = oracle_pal(pals, index, hidden, mask)
        expected = torch.nn.functional.gelu(expected) if gelu else expected
        torch.testing.assert_close(pals(index, hidden, bias_of(mask)), expected, **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_pals_join_the_sum_before_the_last_layer_norm_of_transformers_layers(seed):
    model, pals, (ids, mask) = random_model(seed).double(), random_pals(seed=seed + 10).double(), padded_batch(seed)
    real = mask.bool()
    ours = model(ids, mask, pals=pals).last_hidden_state
    torch.testing.assert_close(ours[real], oracle_encoder(model, pals, ids, mask)[real], **CLOSE)


def test_pals_act_on_the_layer_input_not_on_the_attention_output():
    model, pals, (ids, mask) = random_model().double(), random_pals().double(), padded_batch()
    wrong = oracle_encoder(model, pals, ids, mask, of_attention_output=True)
    assert (model(ids, mask, pals=pals).last_hidden_state - wrong)[mask.bool()].abs().max() > 0.1
    seen = []
    watch = lambda index, hidden, bias: seen.append((index, hidden)) or torch.zeros_like(hidden)  # noqa: E731
    model(ids, mask, pals=watch)
    states = reference_layers(model)(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert [index for index, _ in seen] == [0, 1, 2]
    for (_, hidden), state in zip(seen, states, strict=False):
        torch.testing.assert_close(hidden[mask.bool()], state[mask.bool()], **CLOSE)


def test_pals_share_their_projections_across_layers_and_nothing_else():
    def count(layers):
        pals = ProjectedAttentionLayers(replace(CONFIG, num_hidden_layers=layers), SPEC, torch.Generator())
        return sum(p.numel() for p in pals.parameters())

    # One more layer costs query, key and value only, not another pair of projections.
    assert count(4) - count(3) == 3 * (20 * 20 + 20)
    pals, hidden = random_pals().double(), torch.randn(2, 5, 48, dtype=torch.float64)
    bias = torch.zeros(2, 1, 1, 5)
    shared = [pals.down.weight, pals.down.bias, pals.up.weight, pals.up.bias]
    parts = [torch.autograd.grad(pals(i, hidden, bias).sum(), shared) for i in range(3)]
    sum(pals(i, hidden, bias).sum() for i in range(3)).backward()
    for parameter, *of_layers in zip(shared, *parts, strict=True):
        assert all(part.abs().max() > 1e-3 for part in of_layers)
        torch.testing.assert_close(parameter.grad, sum(of_layers), **CLOSE)
    queries = {layer.query.weight.data_ptr() for layer in pals.layer}
    assert len(queries) == 3


@pytest.mark.parametrize("gelu", [True, False])
def test_pals_with_zero_start_leave_the_encoder_as_it_is_and_a_random_start_does_not(gelu):
    model, (ids, mask) = random_model(), padded_batch()
    plain = model(ids, mask).last_hidden_state
    starts = {}
    for start in ("zero", "random"):
        pals = ProjectedAttentionLayers(CONFIG, replace(SPEC, start=start, gelu=gelu), torch.Generator().manual_seed(0))
        starts[start] = model(ids, mask, pals=pals.eval()).last_hidden_state
    assert torch.equal(starts["zero"], plain)
    assert (starts["random"] - plain).abs().max() > 1e-5


def test_pals_with_zero_start_can_learn():
    model, (ids, mask) = random_model().requires_grad_(False), padded_batch()
    pals = ProjectedAttentionLayers(CONFIG, replace(SPEC, start="zero"), torch.Generator().manual_seed(0))
    target = random_model(seed=9)(ids, mask).pooler_output.detach()
    optimizer, losses = torch.optim.Adam(pals.parameters(), lr=1e-2), []
    for _ in range(40):
        losses.append((model(ids, mask, pals=pals).pooler_output - target).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_pals_random_start_is_normal_with_zero_biases_and_follows_the_generator():
    def build(seed):
        return ProjectedAttentionLayers(
            replace(CONFIG, hidden_size=256), PalSpec(size=96, heads=4), torch.Generator().manual_seed(seed)
        )

    pals = build(0)
    for name, parameter in pals.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            # 9,216 draws or more: the standard deviation is known to about 0.75%.
            assert parameter.std().item() == pytest.approx(0.02, rel=0.04)
            assert abs(parameter.mean().item()) < 0.001
    for mine, again, other in zip(pals.parameters(), build(0).parameters(), build(1).parameters(), strict=True):
        assert torch.equal(mine, again)
        assert mine.ndim == 1 or not torch.equal(mine, other)


def test_pals_never_look_at_padding():
    pals, (_, mask) = random_pals(), padded_batch()
    hidden = torch.randn(3, 12, 48)
    other = torch.where(mask.bool()[..., None], hidden, torch.randn(3, 12, 48) * 10)
    real = mask.bool()
    for index in range(3):
        mine, changed = (pals(index, states, bias_of(mask))[real] for states in (hidden, other))
        torch.testing.assert_close(mine, changed, atol=0, rtol=0)
    model, pals, (ids, mask) = random_model().double(), pals.double(), padded_batch()
    alone, padded = model(ids[1:2, :7], mask[1:2, :7], pals=pals), model(ids[1:2], mask[1:2], pals=pals)
    torch.testing.assert_close(alone.last_hidden_state, padded.last_hidden_state[:, :7], **CLOSE)


def test_pals_are_connected_every_parameter_changes_the_encoder_output():
    model, pals, (ids, mask) = random_model().double(), random_pals().double(), padded_batch()
    plain = model(ids, mask, pals=pals).pooler_output
    for name, parameter in pals.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape))
        change = (model(ids, mask, pals=pals).pooler_output - plain).abs().max()
        with torch.no_grad():
            parameter.copy_(kept)
        # A key bias adds the same to every score of a row, so the softmax drops it: BERT's own attention too.
        assert (change < 1e-9) if name.endswith("key.bias") else (change > 1e-3), name


def test_pals_of_two_tasks_have_no_parameter_in_common():
    generator = torch.Generator().manual_seed(0)
    model, (ids, mask) = random_model(), padded_batch()
    tasks = torch.nn.ModuleDict({name: ProjectedAttentionLayers(CONFIG, SPEC, generator) for name in ("sst", "sts")})
    assert len(list(tasks.parameters())) == 2 * len(list(tasks["sst"].parameters()))
    assert not torch.equal(tasks["sst"].down.weight, tasks["sts"].down.weight)
    model(ids, mask, pals=tasks["sst"]).pooler_output.sum().backward()
    assert all(p.grad is not None for p in tasks["sst"].parameters())
    assert all(p.grad is None for p in tasks["sts"].parameters())


def test_pals_alone_train_when_bert_is_frozen():
    model, pals, (ids, mask) = random_model().requires_grad_(False), random_pals(), padded_batch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in [*model.parameters(), *pals.parameters()] if p.requires_grad], lr=0.1)
    start = pals.up.weight.detach().clone()
    model(ids, mask, pals=pals).pooler_output.sum().backward()
    optimizer.step()
    assert not torch.equal(start, pals.up.weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_pals_use_the_attention_dropout_of_the_encoder():
    config = replace(CONFIG, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    pals, hidden, bias = random_pals(config=config), torch.randn(2, 6, 48), torch.zeros(2, 1, 1, 6)
    assert torch.equal(pals(0, hidden, bias), pals(0, hidden, bias))
    pals.train()
    assert not torch.equal(pals(0, hidden, bias), pals(0, hidden, bias))
    quiet = random_pals(config=replace(config, attention_probs_dropout_prob=0.0)).train()
    assert torch.equal(quiet(0, hidden, bias), quiet(0, hidden, bias))


def test_pals_refuse_a_size_that_heads_do_not_divide():
    with pytest.raises(StudyError, match="no multiple of their heads"):
        PalSpec(size=20, heads=3)
