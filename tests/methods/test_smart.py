"""SMART against torch.distributions and a plain implementation: one example, one token, one step at a time."""

import copy
from dataclasses import replace

import pytest
import torch
from spec_fields import CHOICES
from torch import nn
from torch.distributions import Bernoulli, Categorical, kl_divergence
from transformers import BertConfig, BertModel

from common.declare.spec import SmartSpec
from common.errors import StudyError
from common.methods.losses import LOSSES
from common.methods.smart import (
    DIVERGENCES,
    VARIANTS,
    BregmanAverage,
    adversarial_noise,
    smart_loss,
    squared_difference,
    symmetric_kl,
)

B, T, H, C = 5, 6, 8, 3
# Large enough that float32 leaves the found direction alone.
PAPER = SmartSpec(1.0, ("sst",), variant="paper", step_size=0.05, noise=0.02, epsilon=0.04)
MT_DNN = SmartSpec(1.0, ("sst",), variant="mt_dnn", step_size=2.0, noise=0.02)
SPECS = [PAPER, MT_DNN]


class Small(nn.Module):
    """Embeddings with LayerNorm, a token layer, the mean over real tokens, a head on the joined parts."""

    def __init__(self, parts=1, classes=C, dropout=0.0):
        super().__init__()
        self.embedding, self.norm, self.token = nn.Embedding(30, H), nn.LayerNorm(H), nn.Linear(H, H)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(parts * H, classes)

    def forward(self, inputs, noise=None):
        vectors = []
        for i, (ids, mask) in enumerate(inputs):
            embedded = self.norm(self.embedding(ids))
            embedded = embedded if noise is None else embedded + noise[i]
            states = torch.tanh(2 * self.token(self.dropout(embedded))) * mask.unsqueeze(-1)
            vectors.append(states.sum(1) / mask.sum(1, keepdim=True))
        return self.head(torch.cat(vectors, -1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_inputs(parts=1, seed=0, rows=B):
    """Padded parts of unlike lengths; the mask is 1 where a token is real."""
    generator, inputs = seeded(seed), []
    for extra in range(parts):
        lengths = torch.randint(2, T + extra, (rows,), generator=generator).clamp(max=T + extra)
        mask = (torch.arange(T + extra) < lengths.unsqueeze(1)).long()
        inputs.append((torch.randint(1, 30, (rows, T + extra), generator=generator) * mask, mask))
    return tuple(inputs)


def make(parts=1, classes=C, seed=0, **options):
    torch.manual_seed(seed)
    return Small(parts, classes, **options), make_inputs(parts, seed)


def arguments(model, inputs, spec, divergence=symmetric_kl, seed=0):
    """What smart_loss and adversarial_noise take."""
    masks = [mask for _, mask in inputs]
    return lambda noise: model(inputs, noise), model(inputs), masks, H, spec, divergence, seeded(seed)


def plain_divergence(output_p, output_q, kind):
    """Of one example: (C,) and (C,)."""
    if kind == "mse":
        return ((output_p - output_q) ** 2).sum()
    family = Bernoulli if len(output_p) == 1 else Categorical
    p, q = family(logits=output_p), family(logits=output_q)
    return (kl_divergence(p, q) + kl_divergence(q, p)).sum()


def plain_smart(predict_one, masks, spec, kind, generator, width=H):
    """The whole term from one example at a time: predict_one(row, noises) with noises (T, H) per part."""
    starts = [torch.randn(*mask.shape, width, generator=generator) * spec.noise for mask in masks]
    terms = []
    for row in range(len(masks[0])):
        clean = predict_one(row, [torch.zeros_like(start[row]) for start in starts])
        noises = [start[row] * mask[row].unsqueeze(-1) for start, mask in zip(starts, masks, strict=True)]
        for _ in range(spec.steps):
            leaves = [noise.clone().requires_grad_() for noise in noises]
            gradients = torch.autograd.grad(plain_divergence(predict_one(row, leaves), clean.detach(), kind), leaves)
            for noise, gradient, mask in zip(noises, gradients, masks, strict=True):
                for t in range(int(mask[row].sum())):
                    if spec.variant == "paper":
                        moved = noise[t] + spec.step_size * gradient[t] / max(abs(v) for v in gradient[t].tolist())
                        noise[t] = torch.tensor([max(-spec.epsilon, min(spec.epsilon, v)) for v in moved.tolist()])
                    else:
                        moved = noise[t] + spec.step_size * gradient[t]
                        noise[t] = moved / (max(abs(v) for v in moved.tolist()) + spec.epsilon)
        terms.append(plain_divergence(predict_one(row, noises), clean, kind))
    return torch.stack(terms).mean()


def gradients_of(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)


# --- divergences


def test_smart_symmetric_kl_equals_torch_distributions_for_classes():
    p, q = 3 * torch.randn(2, 50, 5, generator=seeded())
    one, other = Categorical(logits=p), Categorical(logits=q)
    expected = (kl_divergence(one, other) + kl_divergence(other, one)).mean()
    torch.testing.assert_close(symmetric_kl(p, q), expected)


def test_smart_symmetric_kl_equals_torch_distributions_for_one_logit():
    p, q = 3 * torch.randn(2, 50, 1, generator=seeded())
    one, other = Bernoulli(logits=p), Bernoulli(logits=q)
    expected = (kl_divergence(one, other) + kl_divergence(other, one)).mean()
    torch.testing.assert_close(symmetric_kl(p, q), expected)


def test_smart_one_logit_pitfall_softmax_over_one_logit_is_zero_and_ours_is_not():
    p, q = torch.tensor([[2.0], [-1.0]]), torch.tensor([[-2.0], [1.0]])
    naive = nn.functional.kl_div(p.log_softmax(-1), q.softmax(-1), reduction="batchmean")
    assert naive.item() == 0.0
    assert symmetric_kl(p, q).item() > 1


def test_smart_symmetric_kl_is_stable_for_extreme_logits():
    # One class of 1e-13 against 1.4e-11, where a float32 probability 1 - 1e-11 is 1: only the small class counts.
    p, q = torch.tensor([[30.0]]), torch.tensor([[25.0]])
    in_double = (q.double().neg().sigmoid() - p.double().neg().sigmoid()) * 5
    assert symmetric_kl(p, q).item() == pytest.approx(in_double.item(), rel=1e-5)
    far = symmetric_kl(torch.tensor([[300.0, -300.0]]), torch.tensor([[-300.0, 300.0]]))
    assert far.item() == pytest.approx(1200)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_smart_symmetric_kl_is_symmetric_nonnegative_and_zero_only_for_equals(classes):
    p, q = torch.randn(2, 40, classes, generator=seeded())
    torch.testing.assert_close(symmetric_kl(p, q), symmetric_kl(q, p))
    each = torch.stack([symmetric_kl(p[i : i + 1], q[i : i + 1]) for i in range(40)])
    assert (each > 0).all() and symmetric_kl(p, p).item() == 0.0
    torch.testing.assert_close(each.mean(), symmetric_kl(p, q))


@pytest.mark.parametrize("classes", [1, 3])
def test_smart_symmetric_kl_has_the_gradient_of_the_printed_formula(classes):
    p, q = torch.randn(2, 4, classes, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(symmetric_kl, (p, q))


def test_smart_symmetric_kl_gradient_is_twice_that_of_detached_targets_near_equality():
    p = torch.randn(6, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    q = (p + 1e-4 * torch.randn(6, 4, generator=seeded(1), dtype=torch.float64)).detach()
    kl = nn.functional.kl_div
    detached = kl(p.log_softmax(-1), q.softmax(-1), reduction="batchmean") + kl(
        q.log_softmax(-1), p.detach().softmax(-1), reduction="batchmean"
    )
    torch.testing.assert_close(detached, symmetric_kl(p, q))
    ours, theirs = (torch.autograd.grad(loss, p)[0] for loss in (symmetric_kl(p, q), detached))
    torch.testing.assert_close(ours, 2 * theirs, rtol=1e-2, atol=0)


def test_smart_divergence_is_kl_for_logits_and_squared_for_scores_and_cosines():
    assert {name for name, used in DIVERGENCES.items() if used is symmetric_kl} == {"cross_entropy", "bce"}
    assert {name for name, used in DIVERGENCES.items() if used is squared_difference} == {
        "mse",
        "cosine_embedding",
        "cosine_embedding_sts",
    }
    assert set(DIVERGENCES) == set(LOSSES) - {"mnrl"} and set(VARIANTS) == set(CHOICES["smart.variant"])


def test_smart_squared_difference_equals_its_formula():
    assert squared_difference(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [0.0]])).item() == pytest.approx(2.125)


@pytest.mark.parametrize("divergence", [symmetric_kl, squared_difference])
@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2,), (2,)), ((0, 3), (0, 3)), ((2, 1), (2, 3))])
def test_smart_divergences_refuse_outputs_that_do_not_fit(divergence, shapes):
    with pytest.raises(ValueError, match="`(logits|output)_p`"):
        divergence(*(torch.zeros(shape) for shape in shapes))


# --- the whole term against a plain implementation


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("kind", "classes"), [("cross_entropy", C), ("bce", 1), ("mse", 1)])
def test_smart_term_and_its_gradients_equal_a_plain_implementation(spec, parts, steps, kind, classes):
    model, inputs = make(parts, classes)
    spec = replace(spec, steps=steps)

    def predict_one(row, noises):
        one = [(ids[row : row + 1], mask[row : row + 1]) for ids, mask in inputs]
        return model(one, [noise.unsqueeze(0) for noise in noises])[0]

    expected = plain_smart(predict_one, [mask for _, mask in inputs], spec, kind, seeded())
    found = smart_loss(*arguments(model, inputs, spec, DIVERGENCES[kind]))
    assert found.item() > 1e-6
    # float32: up to three ascent steps in another order of summation
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(gradients_of(found, model), gradients_of(expected, model), rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_term_on_the_embeddings_of_a_library_bert_equals_a_plain_implementation(spec):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    bert, head = BertModel(config).eval(), nn.Linear(16, C)
    ((ids, mask),) = make_inputs()
    held = {}
    # the output of the library's embeddings is that after LayerNorm
    bert.embeddings.register_forward_hook(lambda module, inputs, output: output + held["noise"])

    def predict(rows, noise):
        held["noise"] = noise
        return head(bert(input_ids=ids[rows], attention_mask=mask[rows]).pooler_output)

    spec = replace(spec, step_size=50 * spec.step_size, noise=0.1)
    every = torch.arange(B)
    expected = plain_smart(
        lambda row, noises: predict([row], noises[0].unsqueeze(0))[0], [mask], spec, "sst", seeded(), 16
    )
    clean = predict(every, torch.zeros(B, T, 16))
    found = smart_loss(lambda noise: predict(every, noise[0]), clean, [mask], 16, spec, symmetric_kl, seeded())
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-9)


# --- pitfalls of public implementations


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_padding_pitfall_noise_is_exactly_zero_even_where_the_model_looks_at_padding(spec):
    ((_, mask),) = make_inputs()
    weight, seen = torch.randn(H, C, generator=seeded(3)), []

    def predict(noise):
        seen.append(noise[0].detach())
        return torch.tanh(noise[0] @ weight).sum(1)  # sums over padding too

    clean = predict((torch.ones(B, T, H),))
    seen.clear()
    (noise,) = adversarial_noise(predict, clean, [mask], H, replace(spec, steps=2), symmetric_kl, seeded())
    real = mask.bool()
    assert (~real).any() and len(seen) == 2
    assert all((given[~real] == 0).all() for given in [*seen, noise])
    assert (noise[real].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_padding_pitfall_the_term_does_not_depend_on_what_stands_in_padding(spec):
    model, inputs = make(2)
    other = tuple((torch.where(mask.bool(), ids, 7), mask) for ids, mask in inputs)
    term, changed = (smart_loss(*arguments(model, given, spec)) for given in (inputs, other))
    torch.testing.assert_close(term, changed, rtol=0, atol=0)


def test_smart_epsilon_pitfall_public_code_makes_noise_of_size_one_whatever_the_step():
    model, inputs = make()
    for step_size in (0.0, 1e-3, 100.0):
        spec = replace(SmartSpec(1.0, ("sst",)), step_size=step_size)
        (noise,) = adversarial_noise(*arguments(model, inputs, spec))
        sizes = noise[inputs[0][1].bool()].abs().amax(-1)
        # start 1e-5 and guard 1e-6: at least 1e-5 / 1.1e-5 where the largest of H numbers is one deviation
        assert sizes.min() > 0.85 and sizes.max() <= 1


def test_smart_public_code_without_dropout_hardly_leaves_the_direction_of_its_random_start():
    model, ((ids, mask),) = make()
    start = torch.randn(B, T, H, generator=seeded())
    for step_size, is_random in [(1e-3, True), (1e3, False)]:
        spec = SmartSpec(1.0, ("sst",), step_size=step_size)
        (noise,) = adversarial_noise(*arguments(model, ((ids, mask),), spec))
        cosines = torch.cosine_similarity(noise, start, dim=-1)[mask.bool()]
        assert (cosines.min() > 0.9999) == is_random


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_smart_epsilon_pitfall_the_paper_keeps_noise_within_the_radius(epsilon):
    model, inputs = make(2)
    spec = SmartSpec(1.0, ("sst",), variant="paper", steps=2, step_size=1e-3, epsilon=epsilon)
    for noise, (_, mask) in zip(adversarial_noise(*arguments(model, inputs, spec)), inputs, strict=True):
        sizes = noise[mask.bool()].abs().amax(-1)
        bound = torch.tensor(min(epsilon, 3e-3))
        assert (sizes <= bound).all() and (sizes > min(epsilon, 1e-3) / 2).all()


def test_smart_noise_variance_pitfall_the_field_is_a_standard_deviation():
    seen = []
    spec = replace(PAPER, noise=0.04)
    predict = lambda noise: seen.append(noise[0].detach()) or noise[0].sum(1)  # noqa: E731
    adversarial_noise(predict, torch.ones(64, H), [torch.ones(64, 64)], H, spec, symmetric_kl, seeded())
    # 32,768 draws: a standard error of 0.4%
    assert seen[0].std().item() == pytest.approx(0.04, rel=0.02) and abs(seen[0].mean().item()) < 0.001


@pytest.mark.parametrize("steps", [1, 3])
def test_smart_stale_noise_pitfall_the_final_pass_sees_the_updated_noise_of_every_part(steps):
    model, inputs = make(2)
    seen = []

    def predict(noise):
        seen.append([part.detach().clone() for part in noise])
        return model(inputs, noise)

    rest = arguments(model, inputs, replace(PAPER, steps=steps))[1:-1]
    found = adversarial_noise(predict, *rest, seeded())
    seen.clear()
    smart_loss(predict, *rest, seeded())
    assert len(seen) == steps + 1
    for part, first, last in zip(found, seen[0], seen[-1], strict=True):
        assert torch.equal(part, last) and not torch.allclose(first, last, atol=1e-3)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_perturbs_both_sentences_of_a_separately_encoded_pair(spec):
    model, inputs = make(2)
    noises = adversarial_noise(*arguments(model, inputs, spec))
    assert [noise.shape for noise in noises] == [(B, T, H), (B, T + 1, H)]
    both = symmetric_kl(model(inputs, noises), model(inputs)).item()
    for i in range(2):
        alone = [noise if i == k else torch.zeros_like(noise) for k, noise in enumerate(noises)]
        assert 0 < symmetric_kl(model(inputs, alone), model(inputs)).item() < both


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_reduction_pitfall_repeating_the_batch_changes_nothing(spec, monkeypatch):
    model, inputs = make(2)
    # every row starts from the same noise, so that the copies are true copies
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.linspace(-1, 1, H).expand(shape))
    repeated = tuple((ids.repeat(4, 1), mask.repeat(4, 1)) for ids, mask in inputs)
    once, four = (smart_loss(*arguments(model, given, spec)) for given in (inputs, repeated))
    # float32 sums of other lengths; a sum in place of the mean would be four times as large
    torch.testing.assert_close(once, four, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(gradients_of(once, model), gradients_of(four, model), rtol=1e-3, atol=1e-5)


def test_smart_dropout_pitfall_two_passes_in_training_mode_differ_beyond_the_noise():
    model, inputs = make(dropout=0.3)
    spec = replace(PAPER, epsilon=1e-4, noise=1e-5)
    assert smart_loss(*arguments(model.train(), inputs, spec)) > 1e-3
    assert smart_loss(*arguments(model.eval(), inputs, spec)) < 1e-5


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_smart_non_finite_pitfall_is_an_error_and_no_bare_zero(broken):
    model, inputs = make()
    with torch.no_grad():
        model.token.weight[0, 0] = broken
    with pytest.raises(StudyError, match="adversarial noise is not finite") as caught:
        smart_loss(*arguments(model, inputs, PAPER))
    assert caught.value.code == "E-NONFINITE"


# --- laws


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "spec", [replace(PAPER, step_size=1.0), replace(MT_DNN, step_size=1e4, steps=2)], ids=lambda spec: spec.variant
)
def test_smart_found_noise_moves_the_output_more_than_random_noise_of_equal_size(spec, seed):
    model, inputs = make(seed=seed)
    noises = adversarial_noise(*arguments(model, inputs, spec, seed=seed))
    clean, found = model(inputs), symmetric_kl(model(inputs, noises), model(inputs))
    signs = [2 * torch.randint(0, 2, (20, *noise.shape), generator=seeded(seed)) - 1 for noise in noises]
    flipped = [[noise * sign[i] for noise, sign in zip(noises, signs, strict=True)] for i in range(20)]
    random = torch.stack([symmetric_kl(model(inputs, noise), clean) for noise in flipped])
    assert found > random.max()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_search_gives_no_parameter_a_gradient(spec):
    model, inputs = make(2)
    noises = adversarial_noise(*arguments(model, inputs, spec))
    assert all(p.grad is None for p in model.parameters()) and not any(noise.requires_grad for noise in noises)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    adversarial_noise(*arguments(model, inputs, spec))
    assert all((p.grad == 3).all() for p in model.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_smart_gradients_of_the_term_reach_embeddings_and_layers_from_both_sides(spec):
    model, inputs = make(2)
    noises = adversarial_noise(*arguments(model, inputs, spec))
    whole = gradients_of(smart_loss(*arguments(model, inputs, spec)), model)
    moved, clean = model(inputs, noises), model(inputs)
    from_moved = gradients_of(symmetric_kl(moved, clean.detach()), model)
    from_clean = gradients_of(symmetric_kl(moved.detach(), clean), model)
    for (name, _), total, one, other in zip(model.named_parameters(), whole, from_moved, from_clean, strict=True):
        torch.testing.assert_close(total, one + other, rtol=1e-4, atol=1e-6)
        assert one.abs().max() > 1e-5 and other.abs().max() > 1e-5, name


def test_smart_follows_its_generator_and_no_global_one():
    model, inputs = make(2)
    first = adversarial_noise(*arguments(model, inputs, PAPER))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, other = (adversarial_noise(*arguments(model, inputs, PAPER, seed=seed)) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for one, same, different in zip(first, again, other, strict=True):
        assert torch.equal(one, same) and not torch.equal(one, different)


def test_smart_without_a_gradient_the_paper_keeps_the_start_within_the_radius():
    flat = lambda noise: torch.zeros(B, C) + 0 * noise[0].sum()  # noqa: E731
    (noise,) = adversarial_noise(flat, torch.zeros(B, C), [torch.ones(B, T)], H, PAPER, symmetric_kl, seeded())
    start = PAPER.noise * torch.randn(B, T, H, generator=seeded())
    torch.testing.assert_close(noise, start.clamp(-PAPER.epsilon, PAPER.epsilon))


@pytest.mark.parametrize("masks", [[], [torch.ones(B + 1, T)], [torch.ones(B)]])
def test_smart_refuses_masks_that_do_not_fit(masks):
    with pytest.raises(ValueError, match="`masks`"):
        adversarial_noise(lambda noise: noise[0].sum(1), torch.ones(B, C), masks, H, PAPER, symmetric_kl, seeded())


# --- the proximal term


def test_smart_bregman_average_equals_its_closed_form():
    model, _ = make()
    average, decay = BregmanAverage(model, 0.8), 0.8
    history = [copy.deepcopy(model.state_dict())]
    for seed in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=seeded(seed)))
        average.update(model)
        history.append(copy.deepcopy(model.state_dict()))
    for name, value in average.module.state_dict().items():
        n = len(history) - 1
        recent = sum((1 - decay) * decay ** (n - k) * history[k][name] for k in range(1, n + 1))
        torch.testing.assert_close(value, decay**n * history[0][name] + recent)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_smart_bregman_term_is_zero_at_equal_weights_and_trains_the_model_only(loss):
    model, inputs = make(classes=1)
    average = BregmanAverage(model, 0.9)
    assert DIVERGENCES[loss](model(inputs), average.module(inputs)).item() == 0.0
    with torch.no_grad():
        model.head.weight.add_(0.5)
    average.update(model)
    term = DIVERGENCES[loss](model(inputs), average.module(inputs))
    term.backward()
    assert term.item() > 1e-4 and model.head.weight.grad.abs().max() > 0
    assert all(not p.requires_grad and p.grad is None for p in average.parameters())


def test_smart_bregman_step_keeps_the_outputs_nearer_to_the_start():
    drift = {}
    for weight in (0.0, 5.0):
        model, inputs = make()
        start, average = model(inputs).detach(), BregmanAverage(model, 0.99)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(20):
            output = model(inputs)
            loss = LOSSES["cross_entropy"](output, torch.arange(B) % C)
            loss = loss + weight * symmetric_kl(output, average.module(inputs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
        drift[weight] = symmetric_kl(model(inputs), start).item()
    assert drift[5.0] < 0.5 * drift[0.0]


def test_smart_bregman_average_follows_the_mode_and_leaves_the_model_as_it_is():
    model, _ = make(dropout=0.5)
    average = BregmanAverage(model.eval(), 0.9)
    assert not average.module.training
    average.update(model.train())
    assert average.module.training and average.module.dropout.training
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="decay"):
        BregmanAverage(model, 1.5)


# --- learning


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
@pytest.mark.parametrize("seed", [0, 1])
def test_smart_trained_classifier_is_smoother_than_one_without_the_term(spec, seed):
    def train(weight):
        model, _ = make(seed=seed)
        inputs, labels = make_inputs(seed=seed, rows=24), torch.arange(24) % C
        optimizer, generator = torch.optim.Adam(model.parameters(), 0.02), seeded(seed)
        for _ in range(60):
            output = model(inputs)
            loss = LOSSES["cross_entropy"](output, labels)
            if weight:
                _, _, *rest, _ = arguments(model, inputs, spec)
                loss = loss + weight * smart_loss(lambda noise: model(inputs, noise), output, *rest, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return smart_loss(*arguments(model, inputs, spec, seed=100)).item(), LOSSES["cross_entropy"](
            model(inputs), labels
        ).item()

    (rough, _), (smooth, loss) = train(0.0), train(2.0)
    assert smooth < 0.5 * rough
    assert loss < 1.09  # below the ln 3 of a constant answer: it still learns
