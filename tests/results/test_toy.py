"""The toy trains two networks from one start, and its slope is the slope of a known boundary."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn

from common.results import toy


def logistic(weights: list[float], bias: float) -> nn.Module:
    """Two logits of which the second is w . x + b and the first 0."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], weights]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return layer


def test_slope_at_the_boundary_of_a_logistic_model_is_a_quarter_of_its_weight() -> None:
    # dP/dx = P (1 - P) w, and beside the boundary P is all but one half when the model is flat over a grid step.
    assert toy.boundary_gradient(logistic([0.3, 0.4], -0.2)) == pytest.approx(0.5 / 4, rel=1e-3)


def test_a_network_without_a_boundary_is_refused() -> None:
    with pytest.raises(ValueError, match="`network` predicts one class"):
        toy.boundary_gradient(logistic([0.0, 0.0], 1.0))


def test_the_term_flattens_the_boundary_and_weight_zero_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "STEPS", 60)
    inputs, labels = (torch.tensor(a) for a in make_moons(60, noise=0.3, random_state=3))
    plain, again, smooth = (toy.fitted(inputs.float(), labels, weight) for weight in (0, 0, 5))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))
    assert toy.boundary_gradient(smooth) < 0.7 * toy.boundary_gradient(plain)


def test_weight_zero_is_plain_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    # Adam's usual eps divides gradients of rounding size by themselves; with eps 1 a step is as small as its gradient.
    monkeypatch.setattr(torch.optim, "Adam", partial(torch.optim.Adam, eps=1.0))
    monkeypatch.setattr(toy, "RATE", 1.0)
    monkeypatch.setattr(toy, "STEPS", 3)
    inputs, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1] * 4)
    network = toy.fitted(inputs, labels, 0)
    monkeypatch.setattr(toy, "STEPS", 0)
    by_hand = toy.fitted(inputs, labels, 0)
    optimizer = torch.optim.Adam(by_hand.parameters(), toy.RATE)
    for _ in range(3):
        optimizer.zero_grad()
        (by_hand(inputs).logsumexp(1) - by_hand(inputs)[torch.arange(8), labels]).mean().backward()
        optimizer.step()
    difference = [(a - b).abs().max() for a, b in zip(network.parameters(), by_hand.parameters(), strict=True)]
    assert max(difference) < 1e-5  # float32; a weight moves by up to 0.1


def test_card_holds_what_frame_and_table_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "STEPS", 20)
    measured = toy.measure_toy()
    frame, table = toy.toy_frame(measured), toy.toy_table(measured)
    points, labels = make_moons(toy.POINTS, noise=toy.NOISE, random_state=toy.SEED)
    drawn = frame[(frame["kind"] == "point") & (frame["weight"] == 1)]
    assert drawn[["x", "y"]].to_numpy() == pytest.approx(points, abs=5e-4)
    assert drawn["value"].tolist() == labels.tolist()
    network = toy.fitted(torch.tensor(points).float(), torch.tensor(labels), 1)
    grid = frame[(frame["kind"] == "grid") & (frame["weight"] == 1)]
    inputs = torch.tensor(grid[["x", "y"]].to_numpy()).float()
    expected = network(inputs).softmax(-1)[:, 1].detach().numpy()
    assert np.abs(grid["value"].to_numpy() - expected).max() < 5e-3, "each probability stands at its own place"
    right = (network(torch.tensor(points).float()).argmax(1).numpy() == labels).mean()
    assert table["training accuracy"].tolist()[1] == pytest.approx(right, abs=1e-6)
    assert table["lambda"].tolist() == [0, 1] and all(map(math.isfinite, table["slope at the boundary"]))
