"""Losses and their weightings against torch's own modules, closed forms and published formulas."""

import math

import pytest
import torch
from spec_fields import CHOICES
from torch import nn

from common.declare.spec import TaskSpec
from common.errors import StudyError
from common.methods.losses import (
    LOSSES,
    STARTS,
    WEIGHTINGS,
    LossWeights,
    automatic_weighted,
    bce,
    cosine_embedding,
    cosine_embedding_sts,
    cross_entropy,
    dynamic,
    learnable_weights,
    mnrl,
    mse,
    uncertainty,
)

TASKS = (TaskSpec("sst"), TaskSpec("para", "pair", loss="bce", loss_weight=3.0), TaskSpec("sts", "pair", loss="mse"))
LEARNED = sorted(STARTS)
# Kind -> the learned number that makes the term of a constant loss L smallest.
BEST = {
    "uncertainty": lambda L: math.log(2 * L),
    "dynamic": lambda L: math.log(L),
    "automatic": lambda L: math.sqrt((L + math.sqrt(L * L + 8 * L)) / 4),  # 2 c^4 - L c^2 - L = 0
}
# Kind -> derivative of the term by the learned number, worked out by hand.
SLOPES = {
    "linear": lambda L, w: L,
    "uncertainty": lambda L, s: 0.5 - math.exp(-s) * L,
    "dynamic": lambda L, s: 1 - math.exp(-s) * L,
    "automatic": lambda L, c: 2 * c / (1 + c * c) - L / c**3,
}


def number(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_cross_entropy_of_uniform_logits_is_log_of_classes():
    assert cross_entropy(torch.zeros(3, 5), torch.tensor([0.0, 2.0, 4.0])).item() == pytest.approx(math.log(5))


def test_bce_equals_its_formula():
    logits, labels = torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert bce(logits, labels).item() == pytest.approx(expected)


def test_mse_keeps_fractional_labels():
    assert mse(torch.tensor([[4.0]]), torch.tensor([4.6])).item() == pytest.approx(0.36, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cosine_embedding_equals_torch_on_the_embeddings(margin):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 40, 6, generator=generator)
    labels = torch.randint(0, 2, (40,), generator=generator).float()
    cosines = torch.cosine_similarity(first, second).unsqueeze(-1)
    expected = torch.nn.CosineEmbeddingLoss(margin=margin)(first, second, 2 * labels - 1)
    torch.testing.assert_close(cosine_embedding(cosines, labels, margin), expected)


def test_cosine_embedding_pushes_unlike_pairs_apart():
    cosines = torch.tensor([[0.5], [0.5]], requires_grad=True)
    cosine_embedding(cosines, torch.tensor([1.0, 0.0])).backward()
    assert cosines.grad.squeeze().tolist() == [-0.5, 0.5]


def test_cosine_embedding_of_scores_draws_pairs_of_three_and_more_together_and_others_apart():
    cosines, labels = torch.full((4, 1), 0.5), torch.tensor([0.0, 2.8, 3.0, 5.0])
    expected = torch.nn.functional.cosine_embedding_loss(
        torch.tensor([[1.0, 0.0]] * 4), torch.tensor([[0.5, 0.75**0.5]] * 4), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    )
    torch.testing.assert_close(cosine_embedding_sts(cosines, labels), expected)
    cosines.requires_grad_()
    cosine_embedding_sts(cosines, labels).backward()
    assert (4 * cosines.grad.squeeze()).tolist() == [1.0, 1.0, -1.0, -1.0]


def test_every_name_a_spec_may_hold_has_a_loss_and_a_weighting():
    assert set(LOSSES) == set(CHOICES["tasks.loss"])
    assert set(WEIGHTINGS) == set(CHOICES["weighting.kind"]) and set(STARTS) == set(WEIGHTINGS) - {"fixed"}


def test_mse_draws_the_cosine_of_a_paraphrase_to_one_and_of_others_to_zero():
    cosines = torch.tensor([[0.6], [0.6], [-0.5]], requires_grad=True)
    loss = mse(cosines, torch.tensor([1, 0, 0]))
    assert loss.item() == pytest.approx((0.16 + 0.36 + 0.25) / 3)
    loss.backward()
    assert cosines.grad.squeeze().tolist() == pytest.approx([-0.8 / 3, 1.2 / 3, -1 / 3])


def test_mnrl_equals_a_double_loop():
    scores = 3 * torch.randn(6, 6, dtype=torch.float64)
    terms = [scores[i, i].item() - math.log(sum(math.exp(scores[i, j].item()) for j in range(6))) for i in range(6)]
    assert mnrl(scores, torch.zeros(6)).item() == pytest.approx(-sum(terms) / 6)


def test_mnrl_lowers_the_scores_of_other_pairs_and_raises_its_own():
    scores = torch.randn(5, 5, requires_grad=True)
    mnrl(scores, torch.zeros(5)).backward()
    expected = (torch.softmax(scores.detach(), dim=1) - torch.eye(5)) / 5
    torch.testing.assert_close(scores.grad, expected)


def test_mnrl_ignores_labels_and_a_shift_of_a_row_and_is_log_of_the_batch_for_equal_scores():
    scores = torch.randn(4, 4)
    expected = mnrl(scores, torch.zeros(4))
    assert torch.equal(mnrl(scores, torch.full((4,), 5.0)), expected)
    torch.testing.assert_close(mnrl(scores + torch.randn(4, 1), torch.zeros(4)), expected)
    assert mnrl(torch.ones(8, 8), torch.zeros(8)).item() == pytest.approx(math.log(8))
    assert mnrl(torch.randn(1, 1), torch.zeros(1)).item() == 0  # one pair has no negatives


@pytest.mark.parametrize("shape", [(4, 1), (4,), (3, 4)])
def test_mnrl_refuses_scores_that_are_not_square(shape):
    with pytest.raises(ValueError, match="`scores`"):
        mnrl(torch.zeros(shape), torch.zeros(shape[0]))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"mnrl"}))  # its negatives are the rest of the batch
def test_every_loss_is_a_mean_over_the_batch(name):
    output = torch.tensor([[0.3, 0.1, 0.2, 0.0, -0.4]] if name == "cross_entropy" else [[0.3]])
    label = torch.tensor([1.0])
    once = LOSSES[name](output, label)
    torch.testing.assert_close(LOSSES[name](output.repeat(4, 1), label.repeat(4)), once)


@pytest.mark.parametrize("kind", LEARNED)
def test_weighted_term_has_the_slope_worked_out_by_hand(kind):
    for L in (0.05, 0.7, 4.0):
        for start in (0.3, 1.0, 1.8):
            parameter, loss = number(start), number(L)
            WEIGHTINGS[kind](loss, parameter).backward()
            assert parameter.grad.item() == pytest.approx(SLOPES[kind](L, start))


@pytest.mark.parametrize("kind", sorted(BEST))
def test_weighted_term_is_smallest_where_the_closed_form_says(kind):
    for L in (0.2, 1.0, 3.0):
        best = BEST[kind](L)
        parameter = number(best)
        lowest = WEIGHTINGS[kind](torch.tensor(L, dtype=torch.float64), parameter)
        lowest.backward()
        assert parameter.grad.item() == pytest.approx(0, abs=1e-12)
        assert all(WEIGHTINGS[kind](L, number(best + step)) > lowest for step in (-0.05, 0.05))


@pytest.mark.parametrize("kind", sorted(BEST))
def test_weighted_losses_reach_their_optimum_with_adam(kind):
    """Starting from where a run starts, at a rate 1e-2; a constant loss of 0.3."""
    weights = LossWeights(kind, TASKS[:1])
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        weights("sst", torch.tensor(0.3)).backward()
        optimizer.step()
    assert weights.learned["sst"].item() == pytest.approx(BEST[kind](0.3), abs=0.01)


def test_linear_weighted_sum_loses_every_weight_in_the_end():
    """Nothing holds w: a positive loss lowers it without end, below 0 too, as the report remarks."""
    weights = LossWeights("linear", TASKS[:1])
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        weights("sst", torch.tensor(0.3)).backward()
        optimizer.step()
    assert weights.factors()["sst"] == pytest.approx(1 - 40 * 0.05, abs=0.01)


def test_automatic_weighted_equals_its_published_formula_and_is_never_negative():
    for L in (0.0, 0.4, 5.0):
        for c in (-2.0, 0.1, 1.0, 3.0):
            found = automatic_weighted(number(L), number(c)).item()
            assert found == pytest.approx(L / (2 * c**2) + math.log(1 + c**2)) and found >= 0


def test_uncertainty_weighted_equals_both_published_forms_in_sigma():
    for sigma in (0.5, 1.0, 2.0):
        s = number(math.log(sigma**2))
        assert uncertainty(number(0.7), s).item() == pytest.approx(0.7 / sigma**2 + math.log(sigma))
    weights = LossWeights("uncertainty", TASKS, regression_half=True).double()
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.fill_(math.log(4.0))  # sigma 2
    assert weights("sst", number(0.7)).item() == pytest.approx(0.7 / 4 + math.log(2))
    assert weights("sts", number(0.7)).item() == pytest.approx(0.7 / 8 + math.log(2))


def test_uncertainty_weighted_can_go_below_zero():
    assert uncertainty(number(0.01), number(math.log(0.02))).item() < 0


def test_dynamic_weighted_is_twice_the_regression_form():
    for L in (0.1, 2.0):
        for s in (-1.0, 0.0, 1.5):
            twice = 2 * (0.5 * math.exp(-s) * L + 0.5 * s)
            assert dynamic(number(L), number(s)).item() == pytest.approx(twice)


@pytest.mark.parametrize("kind", sorted(BEST))
def test_weighted_sign_gives_the_larger_loss_the_smaller_weight(kind):
    """With the sign of the exponent or of the regulariser turned round, the worst task would take over."""
    weights = LossWeights(kind, (TaskSpec("sst"), TaskSpec("sts", "pair", loss="mse")))
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (weights("sst", torch.tensor(0.2)) + weights("sts", torch.tensor(4.0))).backward()
        optimizer.step()
    factors = weights.factors()
    assert factors["sst"] > LossWeights(kind, TASKS).factors()["sst"] > factors["sts"]


@pytest.mark.parametrize("kind", sorted(WEIGHTINGS))
def test_weighted_factors_start_at_one_or_half_times_the_loss_weight_of_the_task(kind):
    start = 0.5 if kind == "automatic" else 1.0
    assert LossWeights(kind, TASKS).factors() == pytest.approx({"sst": start, "para": 3 * start, "sts": start})


@pytest.mark.parametrize("kind", sorted(WEIGHTINGS))
def test_weighted_factor_is_what_multiplies_the_gradient_of_the_raw_loss(kind):
    weights = LossWeights(kind, TASKS)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.add_(0.3)
    for task, factor in weights.factors().items():
        loss = torch.tensor(0.8, requires_grad=True)
        weights(task, loss).backward()
        assert loss.grad.item() == pytest.approx(factor, rel=1e-6)


def test_weighted_by_fixed_factors_changes_no_bit_at_one_and_learns_nothing():
    weights, loss = LossWeights("fixed", TASKS), torch.rand(())
    assert list(weights.parameters()) == []
    assert torch.equal(weights("sst", loss), loss) and torch.equal(weights("para", loss), 3 * loss)


@pytest.mark.parametrize("kind", LEARNED)
def test_weighted_runs_have_one_scalar_per_task_and_draw_no_random_number(kind):
    before = torch.random.get_rng_state()
    weights = LossWeights(kind, TASKS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {name: p.shape for name, p in weights.named_parameters()} == {f"learned.{t.name}": () for t in TASKS}


def test_weighted_task_that_is_not_in_an_update_keeps_its_weight():
    weights = LossWeights("automatic", TASKS)
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.1)
    for tasks in (("sst", "sts"), ("sst",)):
        before = weights.factors()
        optimizer.zero_grad()
        sum(weights(task, torch.tensor(0.1)) for task in tasks).backward()
        optimizer.step()
        after = weights.factors()
        assert {name for name in after if after[name] != before[name]} == set(tasks)


def test_automatic_weighted_refuses_zero_where_it_does_not_exist():
    for zero in (0.0, 1e-30):  # the square of the second is 0 in float32
        with pytest.raises(StudyError, match="E-NONFINITE"):
            automatic_weighted(torch.tensor(1.0), torch.tensor(zero))


def test_automatic_weighted_is_kept_from_zero_by_its_own_slope():
    """At 0.06, sixty times the reports' largest rate, a small loss draws c far down but never to or through 0."""
    weights = LossWeights("automatic", TASKS[:1])
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.06)
    lowest = 1.0
    for _ in range(500):
        optimizer.zero_grad()
        weights("sst", torch.tensor(0.02)).backward()
        optimizer.step()
        lowest = min(lowest, weights.learned["sst"].item())
    assert lowest > 0.01
    assert weights.learned["sst"].item() == pytest.approx(BEST["automatic"](0.02), abs=0.01)


@pytest.mark.parametrize("rate", [1e-5, 1e-4])
def test_weighted_numbers_move_by_at_most_about_the_rate_per_step(rate):
    """At swissBERT's rate 1e-5 and 3,780 joint steps that is 0.04: the weights are all but constant."""
    weights = LossWeights("automatic", TASKS[:1])
    optimizer = torch.optim.Adam(weights.parameters(), lr=rate)
    for _ in range(300):
        optimizer.zero_grad()
        weights("sst", torch.tensor(0.3)).backward()
        optimizer.step()
    moved = abs(weights.learned["sst"].item() - 1)
    assert 0.5 * 300 * rate < moved < 1.05 * 300 * rate


def test_weighted_refuses_an_unknown_kind_and_a_half_that_belongs_elsewhere():
    with pytest.raises(ValueError, match="`kind`"):
        LossWeights("magic", TASKS)
    with pytest.raises(ValueError, match="`regression_half`"):
        LossWeights("dynamic", TASKS, regression_half=True)


def trained_toy(kind, **options):
    """The shared layer of a two-task model after 20 joint steps of Adam."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(32, 4, generator=generator), torch.randn(32, generator=generator)
    torch.manual_seed(0)
    body, first, second = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 1)
    weights = LossWeights(kind, (TaskSpec("sst"), TaskSpec("sts", "pair", loss="mse")), **options)
    model = nn.ModuleList([body, first, second, weights])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        hidden = torch.tanh(body(inputs))
        losses = {"sst": cross_entropy(first(hidden), targets > 0), "sts": mse(second(hidden), 5 * targets)}
        sum(weights(task, loss) for task, loss in losses.items()).backward()
        optimizer.step()
    return body.weight.detach()


def test_weighted_disconnected_would_train_like_fixed():
    trained = {kind: trained_toy(kind) for kind in WEIGHTINGS}
    trained["uncertainty, half"] = trained_toy("uncertainty", regression_half=True)
    names = sorted(trained)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert (trained[one] - trained[other]).abs().max() > 1e-4, (one, other)


def test_learnable_weighted_loss_is_the_product():
    loss, w = number(0.7), number(-0.2)
    learnable_weights(loss, w).backward()
    assert (loss.grad.item(), w.grad.item()) == pytest.approx((-0.2, 0.7))
