"""The packed encoder against BertModel, values and gradients; the fast dropout against the law of dropout."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest

from common.data.encoding import Batch
from common.declare.spec import EncoderSpec, PalSpec, RunSpec, TaskSpec
from common.model.bert import BertConfig, BertModel
from common.model.fast import Dropout, Weights, encode_packed, keep_mask, rounded, use_fast_dropout
from common.model.heads import MultitaskModel

CONFIG = BertConfig(
    60, 32, 3, 4, 64, max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
)
LENGTHS = ([7, 7, 5, 3], [12, 4, 9, 1], [2, 2, 2, 2])


def encoder(seed=0):
    model = BertModel(CONFIG)
    model.reset_parameters(torch.Generator().manual_seed(seed), std=0.2)
    return model


def part(number):
    """Ids, mask and segments of sentences of unlike lengths, padded beyond the longest."""
    generator, lengths = torch.Generator().manual_seed(number), torch.tensor(LENGTHS[number])[:, None]
    ids = torch.randint(1, 60, (4, int(lengths.max()) + 2), generator=generator)
    column = torch.arange(ids.shape[1])
    return ids, (column < lengths).long(), ((column >= lengths // 2) & (column < lengths)).long()


def plain(model, parts, noises):
    return [model(*p, noise=n) for p, n in zip(parts, noises, strict=True)]


def gradients(model, outputs, parts):
    """Gradients of a sum that weighs every real state and pooled value by numbers of its own."""
    total = 0
    for number, (output, p) in enumerate(zip(outputs, parts, strict=True)):
        generator = torch.Generator().manual_seed(100 + number)
        states = torch.randn(output.last_hidden_state.shape, generator=generator) * p[1][:, :, None]
        pooled = torch.randn(output.pooler_output.shape, generator=generator)
        total = total + (output.last_hidden_state * states).sum() + (output.pooler_output * pooled).sum()
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("with_noise", [False, True])
def test_packed_equals_the_plain_encoder_in_values_and_gradients(count, with_noise):
    model, parts = encoder(), [part(i) for i in range(count)]
    noises = [
        torch.randn(*p[0].shape, 32, generator=torch.Generator().manual_seed(i)) if with_noise else None
        for i, p in enumerate(parts)
    ]
    expected, found = (
        plain(model, parts, noises),
        encode_packed(model, model.embeddings.word_embeddings, parts, noises, Weights(torch.float32)),
    )
    for ours, theirs, (_, mask, _) in zip(found, expected, parts, strict=True):
        real = mask.bool()
        torch.testing.assert_close(ours.last_hidden_state[real], theirs.last_hidden_state[real], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, atol=2e-5, rtol=1e-4)
        assert ours.last_hidden_state[~real].abs().max() == 0
    theirs, ours = gradients(model, expected, parts), gradients(model, found, parts)
    assert ours.keys() == theirs.keys()
    for name in ours:
        # float32: rounding is a share of the largest gradients, which are 3 to 90, those of key biases exactly zero
        largest = max(1.0, theirs[name].abs().max().item())
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4 * largest, rtol=0, msg=name)


def test_one_noise_among_several_parts_reaches_its_own_part_alone():
    model, parts = encoder(), [part(0), part(1)]
    noise = torch.randn(*parts[1][0].shape, 32, generator=torch.Generator().manual_seed(3))
    with_noise = encode_packed(model, model.embeddings.word_embeddings, parts, [None, noise], Weights(torch.float32))
    without = encode_packed(model, model.embeddings.word_embeddings, parts, [None, None], Weights(torch.float32))
    assert torch.equal(with_noise[0].pooler_output, without[0].pooler_output)
    assert not torch.allclose(with_noise[1].pooler_output, without[1].pooler_output, atol=1e-3)


def test_packed_in_bf16_is_as_near_to_fp32_as_autocast_is():
    model, parts = encoder(), [part(0), part(1)]
    exact = plain(model, parts, [None, None])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = plain(model, parts, [None, None])
    packed = encode_packed(model, model.embeddings.word_embeddings, parts, [None, None], Weights(torch.bfloat16))

    def distance(outputs):
        zipped = zip(outputs, exact, parts, strict=True)
        pairs = [(o.last_hidden_state - e.last_hidden_state)[p[1].bool()] for o, e, p in zipped]
        return torch.cat(pairs).float().pow(2).mean().sqrt().item()

    assert packed[0].last_hidden_state.dtype == torch.float32
    assert 0 < distance(packed) < 1.5 * distance(autocast)


def test_a_part_does_not_depend_on_what_is_packed_beside_it():
    model = encoder()
    alone = encode_packed(model, model.embeddings.word_embeddings, [part(1)], [None], Weights(torch.float32))[0]
    beside = encode_packed(
        model, model.embeddings.word_embeddings, [part(0), part(1), part(2)], [None] * 3, Weights(torch.float32)
    )[1]
    torch.testing.assert_close(alone.last_hidden_state, beside.last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.8])
def test_masks_drop_with_their_probability_and_keep_the_mean(dtype, p):
    torch.manual_seed(5)
    mask = keep_mask((400, 501), p, dtype)
    values = mask.unique()
    assert mask.shape == (400, 501) and mask.dtype == dtype and len(values) == 2 and values[0] == 0
    # bf16 has 8 bits; the probability itself is a multiple of 2^-16
    assert values[1].item() == pytest.approx(1 / (1 - p), rel=4e-3 if dtype == torch.bfloat16 else 2e-4)
    dropped = int((mask == 0).sum())
    assert binomtest(dropped, mask.numel(), p).pvalue > 1e-4
    assert binomtest(int((mask[:200] == 0).sum()), mask[:200].numel(), p).pvalue > 1e-4


def test_masks_follow_torchs_generator_and_are_new_every_time():
    torch.manual_seed(1)
    first, second = keep_mask((64, 64), 0.5, torch.float32), keep_mask((64, 64), 0.5, torch.float32)
    torch.manual_seed(1)
    assert torch.equal(first, keep_mask((64, 64), 0.5, torch.float32)) and not torch.equal(first, second)


def test_dropout_scales_values_and_gradients_by_one_mask_and_rests_in_evaluation():
    torch.manual_seed(0)
    states = torch.ones(50, 40, requires_grad=True)
    layer = Dropout(0.25)
    out = layer(states)
    out.sum().backward()
    assert torch.equal(states.grad, out.detach()) and 0.5 < (out > 0).float().mean() < 0.9
    assert layer.eval()(states) is states


def test_every_dropout_of_a_model_is_replaced_and_keeps_its_probability():
    spec = RunSpec((TaskSpec("sst", dropout=0.3, shared_transformer=True),))
    model = MultitaskModel(BertModel(replace(CONFIG, hidden_dropout_prob=0.1)), spec, torch.Generator())
    before = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    use_fast_dropout(model)
    after = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert [m.p for m in after] == before and all(type(m) is Dropout for m in after)


def model_of(engine, **fields):
    tasks = (TaskSpec("sst"), TaskSpec("sts", "separate", "mean", loss="mse"))
    return MultitaskModel(encoder(), RunSpec(tasks, engine=engine, **fields), torch.Generator().manual_seed(1)).eval()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_changes_no_output(precision):
    group = [("sst", Batch((part(0),), None)), ("sts", Batch((part(1), part(2)), None))]
    slow, fast = (model_of(engine, precision=precision) for engine in ("plain", "fast"))
    for (task, batch), together in zip(group, fast.training_scores(group), strict=True):
        tolerance = 1e-5 if precision == "fp32" else 0.05
        torch.testing.assert_close(fast(task, batch), slow(task, batch), atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(together, slow(task, batch), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("heads", [2, 4])
def test_pals_are_packed_part_by_part(heads):
    """Each part gets what its own task's layers add, with as many heads as they have."""
    slow, fast = (model_of(engine, encoder=EncoderSpec(pals=PalSpec(8, heads))) for engine in ("plain", "fast"))
    for parameter in (*slow.pals.parameters(), *fast.pals.parameters()):
        parameter.data *= 10.0  # at their start they add next to nothing
    group = [("sst", Batch((part(0),), None)), ("sts", Batch((part(1), part(2)), None))]
    for (task, batch), together in zip(group, fast.training_scores(group), strict=True):
        torch.testing.assert_close(together, slow(task, batch), atol=2e-5, rtol=1e-4)
    without = model_of("fast")
    assert not torch.allclose(without("sst", group[0][1]), fast("sst", group[0][1]), atol=1e-3)


def test_casts_of_an_update_give_the_gradients_that_autograd_gives():
    """Casts are leaves whose gradients are collected; a weight that has changed since is cast anew."""
    model, batch = model_of("fast", precision="bf16"), Batch((part(0),), None)
    model.rows = None  # their gradients come when an update ends

    def gradients():
        found = {name: p.grad.float() for name, p in model.encoder.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    model("sst", batch).sum().backward()
    expected = gradients()
    model.prepare_update([("sst", batch)])
    model("sst", batch).sum().backward()
    assert gradients().keys() < expected.keys()
    model.weights.collect(precise=False)
    # the rest, without what reached its parameter at once
    found = gradients()
    model.prepare_update([("sst", batch)])
    (model("sst", batch).sum() + model("sst", batch).sum()).backward()
    model.weights.collect(precise=True)
    twice = gradients()
    assert twice.keys() == expected.keys() and set(found) < set(twice)
    for name, gradient in expected.items():
        torch.testing.assert_close(twice[name], 2 * gradient, atol=0.0, rtol=1e-6)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=0.0, rtol=0.0)
    model.finish_update()
    with torch.no_grad():
        before = model("sst", batch)
        model.encoder.encoder["layer"][0].intermediate["dense"].weight.mul_(2.0)  # as an optimiser would
        assert not torch.equal(model("sst", batch), before)


def test_few_shapes_occur_and_none_is_much_larger_than_needed():
    sizes = [rounded(count) for count in range(8, 4000)]
    assert len(set(sizes)) < 80
    assert all(
        count <= size <= max(count + 7, 1.125 * count) for count, size in zip(range(8, 4000), sizes, strict=True)
    )
