"""Gradient surgery over the shared parameters: PCGrad (Yu et al. 2020, algorithm 1), and how much gradients conflict.

PCGrad only ever adds multiples of the original gradients. So it is worked out on the K x K matrix of their inner
products: weights are projected, not vectors, and no projected gradient is ever stored. All shared parameters count as
one vector; heads, which a single task trains, stay outside the products, the projections and the scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from common.declare.spec import SurgerySpec

Taken = tuple[Tensor | None, ...]


def pcgrad_weights(gramian: Tensor, generator: torch.Generator) -> Tensor:
    """What each original gradient contributes to each projected one.

    Task i starts from its own gradient and meets every other original g_j once, in an order drawn anew for each i;
    where the inner product is negative, its component along g_j is removed. It never meets itself, and a g_j of zero
    has no direction to remove.

    Args:
        gramian: (K, K) inner products of the task gradients.
        generator: draws the K orders.

    Returns:
        (K, K) float64 on the CPU: g_i^PC = sum_j weights[i, j] g_j. The diagonal is 1, nothing is negative.

    Raises:
        ValueError: `gramian` is not square or not finite.

    Source: Yu et al. 2020, algorithm 1. We differ from the package WeiChengTseng/Pytorch-PCGrad, where a gradient may
    be projected on itself and the order comes from a global generator.
    """
    products = _checked(gramian)
    weights = torch.eye(len(products), dtype=torch.float64)
    for i, row in enumerate(weights):
        for j in torch.randperm(len(products), generator=generator).tolist():
            product = row @ products[j]
            if j != i and product < 0 and products[j, j] > 0:
                row[j] -= product / products[j, j]
    return weights


def pcgrad(gradients: Tensor, generator: torch.Generator, reduction: str = "sum") -> Tensor:
    """The combined gradient (P,) of task gradients (K, P); see `pcgrad_weights` and `combine`."""
    precise = gradients.double()
    weights = combine(precise @ precise.T, SurgerySpec("pcgrad", reduction), generator)
    return (weights.to(precise.device) @ precise).to(gradients.dtype)


def combine(gramian: Tensor, surgery: SurgerySpec, generator: torch.Generator) -> Tensor:
    """(K,) float64 factors of the original gradients in the shared update.

    `measure` gives ones, the plain sum, and draws no random number. The reduction `mean` divides by K, as the packaged
    code always does on parameters that all tasks touch (so its heads learn K times faster than its encoder); with
    `measure` it is the same scaling without surgery.

    Raises:
        ValueError: an unknown kind or reduction, or one that combines nothing; `gramian` as in `pcgrad_weights`.
    """
    if surgery.kind not in ("measure", "pcgrad") or surgery.reduction not in ("sum", "mean"):
        raise ValueError(f"`surgery` cannot be combined: {surgery}")
    weights = torch.ones(len(_checked(gramian)), dtype=torch.float64)
    if surgery.kind == "pcgrad":
        weights = pcgrad_weights(gramian, generator).sum(0)
    return weights / len(weights) if surgery.reduction == "mean" else weights


def cosines(gramian: Tensor) -> Tensor:
    """(K, K) float64 cosines between the gradients; NaN where either is zero. Tasks conflict where it is negative."""
    products = _checked(gramian)
    norms = products.diagonal().sqrt()
    norms = torch.where(norms > 0, norms, torch.nan)
    return (products / norms / norms[:, None]).clamp(-1, 1)


def take_gradients(parameters: Sequence[nn.Parameter]) -> Taken:
    """Move the gradients out of the parameters, so that the next task's backward starts clean; None stays None."""
    taken = tuple(parameter.grad for parameter in parameters)
    for parameter in parameters:
        parameter.grad = None
    return taken


def gramian(taken: Sequence[Taken]) -> Tensor:
    """(K, K) float64 inner products, on the CPU, of K tasks' gradients of the same parameters; None counts as zero.

    Each parameter's product is taken in its own precision, without copies; their sum is in float64.
    """
    products = torch.zeros(len(taken), len(taken), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(len(taken)), 2):
        both = [(a, b) for a, b in zip(taken[i], taken[j], strict=True) if a is not None and b is not None]
        if both:
            dots = torch.stack([torch.dot(a.flatten(), b.flatten()) for a, b in both])
            products[i, j] = products[j, i] = dots.double().sum()
    return products


@torch.no_grad()
def put_gradients(parameters: Sequence[nn.Parameter], taken: Sequence[Taken], weights: Tensor) -> None:
    """Give every parameter the weighted sum of its K gradients; one that no task touched keeps None.

    Args:
        parameters: as given to `take_gradients`.
        taken: K results of it. Used up: the sum is built in the memory of the first gradient that is there.
        weights: (K,), see `combine`.
    """
    factors = weights.tolist()
    for parameter, *gradients in zip(parameters, *taken, strict=True):
        total = None
        for factor, gradient in zip(factors, gradients, strict=True):
            if gradient is not None:
                total = gradient.mul_(factor) if total is None else total.add_(gradient, alpha=factor)
        parameter.grad = total


def _checked(gramian: Tensor) -> Tensor:
    """The matrix in float64 on the CPU, if it is one."""
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"`gramian` must be (K, K), got {tuple(gramian.shape)}")
    if not gramian.isfinite().all():
        raise ValueError(f"`gramian` is not finite: {gramian.tolist()}")
    return gramian.double().cpu()
