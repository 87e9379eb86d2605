"""What the smoothness term does to a decision boundary, on points in the plane (the SMART report's Figure 2).

Two interleaved half moons with noise, and a small network trained on them with and without the term of
`methods/smart.py`: the code that the runs use, with two coordinates in the place of an embedding. Trained once a
profile and kept as a card, for so small a network follows the last digit of a machine's arithmetic.
"""

from __future__ import annotations

import pandas as pd
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.nn import functional

from common.declare.spec import SmartSpec
from common.methods.smart import smart_loss, symmetric_kl
from common.runs.session import Study
from common.seeding import stateless_generator

POINTS, HELD_OUT, NOISE, SEED = 120, 2000, 0.3, 0
HIDDEN, STEPS, RATE = 64, 300, 1e-2
# The noise stays in a square of this half width around a point; the moons are 1 apart.
RADIUS, WEIGHTS = 0.2, (0, 1)
COLUMNS, ROWS = torch.linspace(-2, 3, 61), torch.linspace(-1.6, 2, 49)
SCORES = {"train": "training accuracy", "held_out": "accuracy on fresh points", "slope": "slope at the boundary"}


def toy_card(lab: Study) -> dict:
    """points (x, y, label), and per weight of the term the network's scores and its probability of class 1 on a grid.

    train and held_out are accuracies, slope the mean length of the gradient of that probability at the boundary, per
    unit of the plane.
    """
    return lab.card("toy-smart", measure_toy)


def measure_toy() -> dict:
    """Train both networks from the same start."""
    train, held_out = _moons(POINTS, SEED), _moons(HELD_OUT, SEED + 1)
    models = []
    for weight in WEIGHTS:
        network = fitted(*train, weight)
        scores = [_accuracy(network, *train), _accuracy(network, *held_out), boundary_gradient(network)]
        grid = [round(p, 3) for p in _probability(network, _grid()).tolist()]
        models.append({"weight": weight, "grid": grid} | dict(zip(SCORES, scores, strict=True)))
    points = torch.cat([train[0], train[1][:, None]], dim=1)  # (N, 3)
    return {"points": [[round(value, 3) for value in point] for point in points.tolist()], "models": models}


def fitted(inputs: Tensor, labels: Tensor, weight: float) -> nn.Module:
    """A network of two hidden layers after STEPS full-batch steps on cross-entropy plus weight times the term.

    Args:
        inputs: (N, 2) points.
        labels: (N,) classes 0 and 1.
        weight: lambda of Jiang et al. 2020, section 3.1; 0 leaves the term out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layers = [nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)]
    network = nn.Sequential(*layers)
    smart = SmartSpec(weight, ("sst",), "paper", step_size=RADIUS, noise=RADIUS / 10, epsilon=RADIUS)
    masks = [torch.ones(len(inputs), 1)]
    generator, optimizer = stateless_generator(SEED, "toy"), torch.optim.Adam(network.parameters(), RATE)
    for _ in range(STEPS):
        clean = network(inputs)
        loss = functional.cross_entropy(clean, labels)
        if weight:  # a point is a sentence of one token, two wide
            predict = lambda noise: network(inputs + noise[0][:, 0])  # noqa: E731
            loss = loss + weight * smart_loss(predict, clean, masks, 2, smart, symmetric_kl, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def boundary_gradient(network: nn.Module) -> float:
    """Mean length of the gradient of P(class 1) over the grid points beside which the predicted class changes.

    Raises:
        ValueError: `network` predicts one class everywhere, so there is no boundary.
    """
    points = _grid()
    is_one = (_probability(network, points) > 0.5).reshape(len(ROWS), len(COLUMNS)).double()
    changes = sum(change.abs() for change in torch.gradient(is_one)).flatten() > 0
    if not changes.any():
        raise ValueError("`network` predicts one class everywhere: there is no boundary")
    near = points[changes].requires_grad_()
    (gradient,) = torch.autograd.grad(network(near).softmax(-1)[:, 1].sum(), near)
    return float(gradient.norm(dim=1).mean())


def toy_frame(card: dict) -> pd.DataFrame:
    """One line per training point and per grid point of either network: weight, kind, x, y, value.

    value is the label of a training point, the probability of class 1 of a grid point.
    """
    lines, places = [], [[round(value, 3) for value in place] for place in _grid().tolist()]
    for model in card["models"]:
        lines += [[model["weight"], "grid", *place, p] for place, p in zip(places, model["grid"], strict=True)]
        lines += [[model["weight"], "point", *point] for point in card["points"]]
    return pd.DataFrame(lines, columns=["weight", "kind", "x", "y", "value"])


def toy_table(card: dict) -> pd.DataFrame:
    """One line per network: the term's weight, accuracy on the training points and on fresh ones, slope."""
    return pd.DataFrame(card["models"])[["weight", *SCORES]].rename(columns={"weight": "lambda"} | SCORES)


def _moons(count: int, seed: int) -> tuple[Tensor, Tensor]:
    points, labels = make_moons(count, noise=NOISE, random_state=seed)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels)


def _grid() -> Tensor:
    """(len(ROWS) * len(COLUMNS), 2) points, row by row."""
    return torch.cartesian_prod(ROWS, COLUMNS).flip(-1)


@torch.inference_mode()
def _probability(network: nn.Module, points: Tensor) -> Tensor:
    return network(points).softmax(-1)[:, 1]


def _accuracy(network: nn.Module, points: Tensor, labels: Tensor) -> float:
    return float(((_probability(network, points) > 0.5) == labels.bool()).float().mean())
