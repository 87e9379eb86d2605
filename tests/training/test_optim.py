"""AdamW against torch.optim.AdamW, step by step, and against the starter's formula in numpy."""

import math

import numpy as np
import pytest
import torch

from common.training.optim import AdamW


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
