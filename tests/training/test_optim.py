"""AdamW against torch.optim.AdamW, step by step, and against the starter's formula in numpy."""

import math

import numpy as np
import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from common.declare.spec import RateSpec
from common.training.optim import AdamW, RateSchedule, rate_multiplier


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(4, 3, generator=generator, dtype=dtype), torch.randn(3, generator=generator, dtype=dtype)]
    gradients = torch.randn(30, 15, generator=generator, dtype=dtype)
    return [w.requires_grad_() for w in weights], [(g[:12].view(4, 3), g[12:]) for g in gradients]


def follow(make):
    weights, gradients = problem()
    optimizer, path = make(weights), []
    for pair in gradients:
        for weight, gradient in zip(weights, pair, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        path.append(torch.cat([w.detach().flatten() for w in weights]).clone())
    return torch.stack(path)


SETTINGS = [
    {"lr": 1e-2},
    {"lr": 1e-1, "weight_decay": 0.1},
    {"lr": 1e-2, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.01},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_torch_variant_equals_torch_at_every_step(settings):
    ours = follow(lambda w: AdamW(w, **settings))
    theirs = follow(lambda w: torch.optim.AdamW(w, **{"weight_decay": 0.0} | settings))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS)
def test_starter_variant_equals_its_formula(settings):
    """step_size = lr sqrt(1 - b2^t) / (1 - b1^t); p -= step_size m / (sqrt(v) + eps); p -= lr wd p."""
    ours = follow(lambda w: AdamW(w, variant="starter", **settings)).numpy()
    weights, gradients = problem()
    p = torch.cat([w.detach().flatten() for w in weights]).numpy()
    (b1, b2), eps = settings.get("betas", (0.9, 0.999)), settings.get("eps", 1e-8)
    m = v = np.zeros_like(p)
    for t, pair in enumerate(gradients, 1):
        g = torch.cat([x.flatten() for x in pair]).numpy()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p - settings["lr"] * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
        p = p - settings["lr"] * settings.get("weight_decay", 0.0) * p
        np.testing.assert_allclose(ours[t - 1], p, rtol=1e-12, atol=1e-13)


def test_the_variants_differ_only_through_eps_and_decay():
    close = [follow(lambda w, v=v: AdamW(w, lr=1e-2, eps=1e-12, variant=v)) for v in ("torch", "starter")]
    torch.testing.assert_close(*close, atol=1e-9, rtol=0)
    apart = [follow(lambda w, v=v: AdamW(w, lr=1e-2, eps=1e-2, variant=v)) for v in ("torch", "starter")]
    assert (apart[0] - apart[1]).abs().max() > 1e-3


def test_without_bias_correction_the_first_step_is_smaller():
    corrected = follow(lambda w: AdamW(w, lr=1e-2))[0]
    plain = follow(lambda w: AdamW(w, lr=1e-2, correct_bias=False))[0]
    start = torch.cat([w.detach().flatten() for w in problem()[0]])
    # first step: (1 - b1) g / (sqrt(1 - b2) |g|) = 0.1 / sqrt(0.001) of the corrected one
    torch.testing.assert_close(
        (plain - start) / (corrected - start), torch.full_like(start, 0.1 / math.sqrt(0.001)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("variant", ["torch", "starter"])
def test_the_fused_step_equals_the_plain_one(variant, decay):
    options = {"lr": 1e-2, "eps": 1e-3, "weight_decay": decay, "variant": variant}
    plain, fused = (follow(lambda w, f=f: AdamW(w, **options, fused=f)) for f in (False, True))
    torch.testing.assert_close(fused, plain, atol=1e-12, rtol=1e-12)


def test_the_fused_step_counts_each_parameters_own_steps():
    """A parameter that had no gradient for a while is corrected by its own number of steps."""
    found = []
    for fused in (False, True):
        weights, gradients = problem()
        optimizer = AdamW(weights, lr=1e-2, variant="starter", fused=fused)
        for number, pair in enumerate(gradients[:9]):
            weights[0].grad, weights[1].grad = pair[0].clone(), pair[1].clone() if number % 3 == 0 else None
            optimizer.step()
        found.append(torch.cat([w.detach().flatten() for w in weights]))
    torch.testing.assert_close(found[1], found[0], atol=1e-12, rtol=1e-12)


def test_the_fused_step_has_no_uncorrected_moments():
    with pytest.raises(ValueError, match="needs `correct_bias`"):
        AdamW(problem()[0], correct_bias=False, fused=True)


def test_a_parameter_without_gradient_keeps_value_and_moments():
    weights, _ = problem()
    optimizer = AdamW(weights, lr=0.1, weight_decay=0.5)
    before = weights[1].detach().clone()
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.step()
    assert torch.equal(weights[1], before) and weights[1] not in optimizer.state


def test_frozen_parameters_and_unknown_variants_are_refused():
    weights, _ = problem()
    weights[1].requires_grad_(False)
    with pytest.raises(ValueError, match="1 frozen"):
        AdamW(weights)
    with pytest.raises(ValueError, match="variant"):
        AdamW(problem()[0], variant="adam")


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("variant", ["torch", "starter"])
def test_sparse_gradients_move_a_table_as_dense_ones_do(variant, decay):
    """Rows come, stay away and come again; those that never had a gradient only decay."""
    start = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    tables = [start.clone().requires_grad_() for _ in range(2)]
    dense, sparse = (AdamW([t], 1e-2, weight_decay=decay, variant=variant, fused=True) for t in tables)
    for step in range(6):
        rows = torch.randperm(2500, generator=torch.Generator().manual_seed(step // 2))[: 300 + 900 * (step % 2)]
        rows = rows.sort().values
        values = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(step))
        tables[0].grad = torch.zeros_like(start).index_copy_(0, rows, values)
        tables[1].grad = torch.sparse_coo_tensor(
            rows[None], values, start.shape, is_coalesced=True, check_invariants=False
        )
        dense.step()
        sparse.step()
        torch.testing.assert_close(tables[1], tables[0], atol=1e-7, rtol=1e-6)  # float32: the same products
    assert torch.equal(tables[1][2500:], tables[0][2500:])
    assert len(sparse.state[tables[1]]["rows"]) < 2500 and (decay == 0) == torch.equal(tables[1][2500:], start[2500:])


def test_every_moved_parameter_is_told_and_a_gradient_may_have_half_precision():
    weights, told = [torch.ones(3, 2).requires_grad_(), torch.ones(2).requires_grad_()], []
    optimizer = AdamW(weights, 1e-2, fused=True, moved=told.append)
    weights[0].grad_dtype = None
    weights[0].grad = torch.full((3, 2), 0.5, dtype=torch.bfloat16)
    optimizer.step()
    assert len(told) == 1 and told[0] is weights[0] and weights[0].max().item() == pytest.approx(0.99)


def rates(rate, updates=20, epochs=10):
    """The rate of every update, and of a second group at a tenth of it."""
    optimizer = AdamW([{"params": problem()[0]}, {"params": problem()[0], "lr": 1e-4}], lr=1e-3)
    schedule = RateSchedule(optimizer, rate, updates, epochs)
    found = []
    for _ in range(updates):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.end_update()
    return np.array(found)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.35])
def test_linear_rate_equals_transformers(warmup):
    optimizer = torch.optim.SGD(problem()[0], lr=1e-3)
    scheduler = get_linear_schedule_with_warmup(optimizer, round(warmup * 20), 20)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    found = rates(RateSpec("linear", warmup=warmup))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], found[:, 0] / 10)  # groups keep their ratio


def test_step_rate_equals_torch_stepped_once_per_epoch():
    """Step size 5 and gamma 0.1 in 10 epochs of 2 updates (BERT++'s Model F), as a share of training."""
    optimizer = torch.optim.SGD(problem()[0], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.1)
    expected = []
    for update in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if update % 2 == 1:
            scheduler.step()
    np.testing.assert_allclose(rates(RateSpec("step", step=0.5, factor=0.1))[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("updates", [2, 20, 301, 305, 4001])
def test_a_rate_in_two_halves_falls_once_whatever_the_number_of_updates(updates):
    found = rates(RateSpec("step", step=0.5, factor=0.1), updates)[:, 0]
    assert found[0] == 1e-3 and found[-1] == pytest.approx(1e-4)
    assert (found > 5e-4).sum() == pytest.approx(updates / 2, abs=0.5)


@pytest.mark.parametrize(("patience", "epochs", "acts_on"), [(0.2, 10, 2), (0.2, 3, 1), (0.5, 4, 2)])
def test_a_plateau_acts_on_the_bad_epoch_its_share_of_training_names(patience, epochs, acts_on):
    optimizer = AdamW(problem()[0], lr=1e-3)
    schedule = RateSchedule(optimizer, RateSpec("plateau", factor=0.5, patience=patience), 20, epochs)
    found = []
    for score in [0.5, *[0.5] * 4]:  # the first is the best, then none is better
        for _ in range(3):
            optimizer.step()
            schedule.end_update()
        schedule.end_epoch(score)
        found.append(optimizer.param_groups[0]["lr"])
    assert found.index(5e-4) == acts_on


def test_constant_rate_stays_and_warm_up_rises_in_any_kind():
    assert set(rates(RateSpec())[:, 0]) == {1e-3}
    assert [rate_multiplier(RateSpec(warmup=0.2), done, 20) for done in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_rates_of_very_short_runs_are_finite_and_never_negative(updates):
    for kind in ("constant", "linear", "step"):
        found = rates(RateSpec(kind, warmup=0.1), updates)
        assert np.isfinite(found).all() and (found >= 0).all() and found[0, 0] > 0
