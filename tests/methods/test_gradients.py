"""PCGrad against torchjd, a plain loop over vectors, laws, and a two-head model; its known pitfalls."""

import math

import pytest
import torch
from spec_fields import CHOICES
from torch import nn
from torch.nn import functional
from torchjd.aggregation import PCGrad

from common.declare.spec import SurgerySpec
from common.methods.gradients import combine, cosines, gramian, pcgrad, pcgrad_weights, put_gradients, take_gradients

SEEDS = range(20)
# Every two of them conflict, at unlike angles, so the order matters.
CONFLICTING = torch.tensor([[1.0, 0.2, 0.0], [-0.8, 1.0, 0.1], [-0.3, -0.9, 1.0]], dtype=torch.float64)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_gradients(K, seed, P=7):
    """(K, P) with more conflicts than chance has: every second gradient leans against the first."""
    gradients = torch.randn(K, P, generator=seeded(seed), dtype=torch.float64)
    gradients[1::2] -= gradients[0]
    return gradients


def projected_in_a_loop(gradients, generator, on=None, meets_itself=False):
    """Algorithm 1 with vectors; `on` may be another list than the originals, to show what goes wrong then."""
    originals, found = gradients.clone(), []
    for i, start in enumerate(gradients):
        g = start.clone()
        for j in torch.randperm(len(gradients), generator=generator).tolist():
            other = originals[j] if on is None else on[j]
            if (meets_itself or j != i) and g @ other < 0:
                g = g - (g @ other) / (other @ other) * other
        found.append(g)
        if on is not None:
            on[i] = g
    return torch.stack(found)


def weights_of(gradients, seed):
    return pcgrad_weights(gradients @ gradients.T, seeded(seed))


@pytest.mark.parametrize("K", [2, 3, 4, 5, 6])
def test_pcgrad_equals_torchjd_with_the_same_orders(K):
    for seed in SEEDS:
        gradients = random_gradients(K, seed)
        torch.manual_seed(seed)  # torchjd draws K permutations of K from the global generator, one per task
        expected = PCGrad()(gradients)
        torch.testing.assert_close(pcgrad(gradients, seeded(seed)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 6])
def test_pcgrad_weights_equal_a_plain_loop_over_vectors(K):
    for seed in SEEDS:
        gradients = random_gradients(K, seed)
        expected = projected_in_a_loop(gradients, seeded(seed))
        torch.testing.assert_close(weights_of(gradients, seed) @ gradients, expected, rtol=1e-9, atol=1e-9)


def test_pcgrad_of_two_conflicting_gradients_is_the_closed_form():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    expected = a + b * 2 / 2 + b + a * 2 / 4
    torch.testing.assert_close(pcgrad(torch.stack([a, b]), seeded(0)), expected)


def test_pcgrad_leaves_agreeing_gradients_unchanged():
    gradients = torch.rand(4, 9, generator=seeded(0))  # all coordinates positive: no conflict
    torch.testing.assert_close(pcgrad(gradients, seeded(0)), gradients.sum(0))
    assert torch.equal(weights_of(gradients, 0), torch.eye(4, dtype=torch.float64))


def test_pcgrad_changes_conflicting_gradients():
    assert not torch.allclose(pcgrad(CONFLICTING, seeded(0)), CONFLICTING.sum(0), atol=0.1)


def test_pcgrad_of_two_tasks_never_works_against_either():
    for seed in SEEDS:
        gradients = random_gradients(2, seed)
        assert (gradients @ pcgrad(gradients, seeded(seed)) >= -1e-12).all()
        projected = weights_of(gradients, seed) @ gradients
        assert (projected @ gradients.T >= -1e-12).all()


def test_pcgrad_of_three_tasks_may_still_conflict_with_one_met_earlier():
    left = [(weights_of(CONFLICTING, s) @ CONFLICTING @ CONFLICTING.T).min().item() for s in SEEDS]
    assert min(left) < -0.01  # algorithm 1 meets each gradient once; it does not promise more


def test_pcgrad_weights_keep_the_own_gradient_and_only_ever_add():
    for seed in SEEDS:
        weights = weights_of(random_gradients(5, seed), seed)
        assert torch.equal(weights.diagonal(), torch.ones(5, dtype=torch.float64)) and (weights >= 0).all()


def test_pcgrad_turns_with_the_space():
    rotation, _ = torch.linalg.qr(torch.randn(7, 7, generator=seeded(1), dtype=torch.float64))
    for seed in SEEDS:
        gradients = random_gradients(4, seed)
        turned = pcgrad(gradients @ rotation, seeded(seed))
        torch.testing.assert_close(turned, pcgrad(gradients, seeded(seed)) @ rotation, rtol=1e-9, atol=1e-9)


def test_pcgrad_scales_with_the_gradients_and_ignores_the_length_of_the_others():
    for seed in SEEDS:
        gradients = random_gradients(4, seed)
        torch.testing.assert_close(pcgrad(3 * gradients, seeded(seed)), 3 * pcgrad(gradients, seeded(seed)))
        stretched = gradients * torch.tensor([[1.0], [10.0], [0.1], [5.0]], dtype=torch.float64)
        plain, other = weights_of(gradients, seed) @ gradients, weights_of(stretched, seed) @ stretched
        torch.testing.assert_close(other[0], plain[0])


def test_pcgrad_never_projects_a_gradient_on_itself():
    """After two projections a gradient can point against its own start; the packaged code then projects it again."""
    gradients = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-1.0, -0.27]], dtype=torch.float64)
    projected = [weights_of(gradients, seed)[0] @ gradients for seed in SEEDS]
    assert min((g @ gradients[0]).item() for g in projected) < -1e-3
    differs = 0
    for seed in SEEDS:
        wrong = projected_in_a_loop(gradients, seeded(seed), meets_itself=True)
        differs += not torch.allclose(weights_of(gradients, seed) @ gradients, wrong)
    assert differs > 0


def test_pcgrad_projects_on_the_original_gradients():
    """Projecting on gradients that were already projected is another algorithm: these two lose every conflict."""
    a, b = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)
    gradients = torch.stack([a, b])
    wrong = projected_in_a_loop(gradients, seeded(0), on=gradients.clone())
    assert torch.equal(wrong[1], b)  # a became [1, 1], which agrees with b, so b is left alone
    torch.testing.assert_close((weights_of(gradients, 0) @ gradients)[1], b + a / 2)


def test_pcgrad_draws_an_order_anew_for_every_task_from_the_given_generator():
    before = torch.random.get_rng_state()
    seen = set()
    for seed in range(60):
        weights = weights_of(CONFLICTING, seed)
        assert torch.equal(weights, weights_of(CONFLICTING, seed))
        seen.add(tuple(round(value, 9) for value in weights.flatten().tolist()))
    rows = [{result[3 * i : 3 * i + 3] for result in seen} for i in range(3)]
    orders = math.prod(len(row) for row in rows)
    assert [len(row) for row in rows] == [2, 2, 2]  # both orders of the two others, in every row
    assert len(seen) == orders  # every combination: the rows do not share one order
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pcgrad_mean_is_the_sum_over_the_number_of_tasks():
    """The packaged code takes the mean whatever it is told; here sum and mean differ, by K exactly."""
    total, mean = (pcgrad(CONFLICTING, seeded(0), reduction) for reduction in ("sum", "mean"))
    torch.testing.assert_close(mean, total / 3)
    assert not torch.allclose(mean, total)


def test_pcgrad_skips_a_zero_gradient():
    with_zero = torch.cat([CONFLICTING[:2], torch.zeros(1, 3, dtype=torch.float64)])
    torch.testing.assert_close(pcgrad(with_zero, seeded(0)), pcgrad(CONFLICTING[:2], seeded(0)))


def test_pcgrad_skips_a_gradient_whose_squared_norm_is_too_small_for_float32():
    """Its product with an ordinary gradient is negative and survives, its own square does not: no division by 0."""
    products = gramian([(torch.tensor([1.0, 1.0]),), (torch.tensor([-1e-23, 0.0]),)])
    assert products[0, 1] < 0 and products[1, 1] == 0
    weights = pcgrad_weights(products, seeded(0))
    assert weights[0].tolist() == [1, 0] and weights.isfinite().all()


def test_pcgrad_of_tiny_float32_gradients_does_not_lose_the_conflict():
    tiny = CONFLICTING.float() * 1e-25  # squares of these are zero in float32
    torch.testing.assert_close(pcgrad(tiny, seeded(0)) * 1e25, pcgrad(CONFLICTING, seeded(0)).float())


@pytest.mark.parametrize("bad", [torch.zeros(2, 3), torch.zeros(4), torch.full((2, 2), torch.nan)])
def test_pcgrad_refuses_what_is_no_gramian(bad):
    for refuses in (
        lambda: pcgrad_weights(bad, seeded(0)),
        lambda: cosines(bad),
        lambda: combine(bad, SurgerySpec("measure"), seeded(0)),
    ):
        with pytest.raises(ValueError, match="`gramian`"):
            refuses()


def test_combine_knows_every_surgery_and_measuring_is_the_plain_sum_without_random_numbers():
    products = CONFLICTING @ CONFLICTING.T
    for kind in set(CHOICES["surgery.kind"]) - {"none"}:
        for reduction in CHOICES["surgery.reduction"]:
            assert combine(products, SurgerySpec(kind, reduction), seeded(0)).shape == (3,)
    generator = seeded(0)
    assert combine(products, SurgerySpec("measure"), generator).tolist() == [1, 1, 1]
    assert torch.equal(generator.get_state(), seeded(0).get_state())
    expected = pcgrad_weights(products, seeded(3)).sum(0)
    assert torch.equal(combine(products, SurgerySpec("pcgrad"), seeded(3)), expected)
    assert torch.equal(combine(products, SurgerySpec("pcgrad", "mean"), seeded(3)), expected / 3)
    with pytest.raises(ValueError, match="`surgery`"):
        combine(products, SurgerySpec("none"), seeded(0))


def test_cosines_equal_torch_and_are_nan_for_a_zero_gradient():
    gradients = random_gradients(4, 0)
    expected = functional.cosine_similarity(gradients[:, None], gradients[None], dim=-1)
    torch.testing.assert_close(cosines(gradients @ gradients.T), expected)
    gradients[2] = 0
    found = cosines(gradients @ gradients.T)
    is_zero = torch.arange(4) == 2
    assert torch.equal(found.isnan(), is_zero[:, None] | is_zero[None])


class TwoHeads(nn.Module):
    """A shared layer, a shared vector that only the first task uses, an unused one, a frozen one; two heads."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.first_only, self.unused = (
            nn.Linear(5, 4),
            nn.Parameter(torch.ones(4)),
            nn.Parameter(torch.ones(2)),
        )
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.heads = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 1)])

    @property
    def shared(self):
        return [p for name, p in self.named_parameters() if not name.startswith("heads")]

    def loss(self, task, inputs, labels):
        hidden = torch.tanh(self.body(inputs) * self.frozen)
        if task == 0:
            return functional.cross_entropy(self.heads[0](hidden * self.first_only), labels)
        return functional.mse_loss(self.heads[1](hidden).squeeze(-1), labels.float())


def toy_batch(task, seed):
    inputs = torch.randn(64, 5, generator=seeded(100 + seed))
    return inputs, (inputs[:, 0] > 0).long() if task == 0 else -3 * (inputs[:, 0] > 0)


def one_update(model, surgery, batches, seed=0):
    """What a training step does with a group of batches: [(task, inputs, labels)]."""
    taken = []
    for batch in batches:
        model.loss(*batch).backward()
        taken.append(take_gradients(model.shared))
    products = gramian(taken)
    put_gradients(model.shared, taken, combine(products, surgery, seeded(seed)))
    return products


def conflicting_batches():
    """Labels that pull the shared layer apart: the heads are aligned so that the two tasks disagree."""
    return [(0, *toy_batch(0, 1)), (1, *toy_batch(1, 2))]


def conflicting_model():
    model = TwoHeads()
    with torch.no_grad():
        model.heads[0].weight.zero_()[1] = 1.0
        model.heads[1].weight.fill_(1.0)
    return model


def manual_gradients(model, batches):
    """(K, P) of the shared parameters through torch.autograd.grad, None as zeros."""
    rows = []
    for batch in batches:
        trained = [p for p in model.shared if p.requires_grad]
        found = torch.autograd.grad(model.loss(*batch), trained, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def shared_vector(model):
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.shared if p.requires_grad]
    return torch.cat([g.flatten() for g in found])


def test_pcgrad_in_a_training_step_equals_manual_autograd():
    model, batches = conflicting_model(), conflicting_batches()
    rows = manual_gradients(model, batches)
    products = one_update(model, SurgerySpec("pcgrad"), batches)
    torch.testing.assert_close(products, rows.double() @ rows.double().T, rtol=1e-5, atol=1e-7)
    assert cosines(products)[0, 1] < -0.1
    torch.testing.assert_close(shared_vector(model), pcgrad(rows, seeded(0)), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(shared_vector(model), rows.sum(0), atol=1e-3)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_pcgrad_leaves_the_heads_outside_the_projection(reduction):
    """With the heads in the vector, coefficients are too small and one task writes into the other's head."""
    model, batches = conflicting_model(), conflicting_batches()
    expected = [
        torch.autograd.grad(model.loss(*batch), list(head.parameters()))
        for head, batch in zip(model.heads, batches, strict=True)
    ]
    one_update(model, SurgerySpec("pcgrad", reduction), batches)
    for head, gradients in zip(model.heads, expected, strict=True):
        for parameter, gradient in zip(head.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("kind", ["measure", "pcgrad"])
def test_pcgrad_keeps_none_where_no_task_reaches(kind):
    """A zero in place of None lets weight decay move a parameter that no loss has seen."""
    model, batches = conflicting_model(), conflicting_batches()
    one_update(model, SurgerySpec(kind), batches)
    assert model.unused.grad is None and model.frozen.grad is None
    assert model.first_only.grad is not None
    before = [model.unused.clone(), model.frozen.clone()]
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1).step()
    assert torch.equal(model.unused, before[0]) and torch.equal(model.frozen, before[1])


def test_pcgrad_counts_a_none_as_a_zero_vector():
    """A shared parameter that one of the tasks does not use still takes part, as zeros: it is no head."""
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([-3.0])
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    taken = [(a.clone(), b.clone()), (-a.clone(), None), (None, None)]
    products = gramian(taken)
    assert products.dtype == torch.float64
    assert products.tolist() == [[14, -5, 0], [-5, 5, 0], [0, 0, 0]]
    weights = pcgrad_weights(products, seeded(0)).sum(0)
    put_gradients(parameters, taken, weights)
    of_first, of_second = 1 + 5 / 14, 1 + 5 / 5  # the first removed from the second, and the other way round
    torch.testing.assert_close(parameters[0].grad, (of_first - of_second) * a)
    torch.testing.assert_close(parameters[1].grad, of_first * b)


def test_measuring_pcgrad_cosines_changes_nothing():
    """The control at equal updates: bit for bit the gradients of the plain joint step."""
    model, plain, batches = conflicting_model(), conflicting_model(), conflicting_batches()
    one_update(model, SurgerySpec("measure"), batches)
    for batch in batches:
        plain.loss(*batch).backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (parameter.grad is None and other.grad is None) or torch.equal(parameter.grad, other.grad), name


def test_pcgrad_disconnected_would_train_like_the_plain_sum():
    trained = {}
    for kind in ("measure", "pcgrad"):
        model = conflicting_model()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for step in range(5):
            optimizer.zero_grad()
            one_update(model, SurgerySpec(kind), conflicting_batches(), seed=step)
            optimizer.step()
        trained[kind] = model.body.weight.detach()
    assert (trained["measure"] - trained["pcgrad"]).abs().max() > 1e-3


def test_pcgrad_cosine_of_two_batches_of_one_task_is_the_ceiling():
    """The control: two batches of the same task agree, far more than two tasks that disagree."""
    model = conflicting_model()
    same = cosines(one_update(model, SurgerySpec("measure"), [(0, *toy_batch(0, 1)), (0, *toy_batch(0, 2))]))
    model = conflicting_model()
    twice = cosines(one_update(model, SurgerySpec("measure"), [(0, *toy_batch(0, 1)), (0, *toy_batch(0, 1))]))
    across = cosines(one_update(conflicting_model(), SurgerySpec("measure"), conflicting_batches()))
    assert twice[0, 1].item() == pytest.approx(1, abs=1e-6)
    assert across[0, 1] < 0 < 0.5 < same[0, 1] < 1


def test_taking_pcgrad_gradients_leaves_the_next_backward_a_clean_start():
    model = conflicting_model()
    batch = conflicting_batches()[0]
    model.loss(*batch).backward()
    first = take_gradients(model.shared)
    assert all(p.grad is None for p in model.shared)
    model.loss(*batch).backward()
    second = take_gradients(model.shared)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_pcgrad_inner_products_stay_precise_over_millions_of_coordinates():
    gradients = [torch.randn(1_000_000, generator=seeded(seed)) for seed in range(2)]
    exact = torch.stack(gradients).double()
    found = cosines(gramian([(gradients[0], torch.ones(3)), (gradients[1], -torch.ones(3))]))[0, 1]
    extended = torch.cat([exact, torch.tensor([[1.0] * 3, [-1.0] * 3], dtype=torch.float64)], dim=1)
    expected = functional.cosine_similarity(extended[0], extended[1], dim=0)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)  # float32 products, a million of them


def test_pcgrad_refuses_gradients_of_unlike_parameter_lists():
    with pytest.raises(ValueError, match="shorter|longer"):
        gramian([(torch.ones(2), torch.ones(2)), (torch.ones(2),)])
