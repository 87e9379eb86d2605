"""SMART (Jiang et al. 2020, arXiv 1911.03437): a smoothness term on adversarial noise, and a proximal term.

The model is seen only through `predict`, which maps one noise tensor (B, T, H) per encoded part, added to the
embeddings after their LayerNorm, to the head's output (B, C). Which tasks get the term, and its weight, are the
caller's: at weight 0 nothing here is called, so no random number is drawn. Where the paper and the authors' released
code (namisan/mt-dnn) disagree, each is a variant in `VARIANTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.declare.spec import SmartSpec
from common.errors import StudyError

Predict = Callable[[tuple[Tensor, ...]], Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]


def symmetric_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(P || Q) + KL(Q || P) in nats, a mean over the batch.

    The two directions together are the sum over classes of (p - q)(log p - log q), which never cancels.

    Args:
        logits_p: (B, C) logits of P; C = 1 is the logit of a Bernoulli distribution, whose softmax would be constant.
        logits_q: (B, C) logits of Q.

    Raises:
        ValueError: the shapes differ, are not (B, C), or the batch is empty.

    Source: Jiang et al. 2020, section 3.1, the l_s of classification.
    """
    _check_outputs(logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = _log_probabilities(logits_p), _log_probabilities(logits_q)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean()


def squared_difference(output_p: Tensor, output_q: Tensor) -> Tensor:
    """Mean of (p - q)^2 over two outputs (B, C), in squared label units (Jiang et al. 2020, 3.1: l_s of regression)."""
    _check_outputs(output_p=output_p, output_q=output_q)
    return functional.mse_loss(output_p, output_q)


# Task loss -> divergence: KL where the output is logits, squared difference where it is a score or a cosine.
DIVERGENCES: dict[str, Divergence] = {
    "cross_entropy": symmetric_kl,
    "bce": symmetric_kl,
    "mse": squared_difference,
    "cosine_embedding": squared_difference,
    "cosine_embedding_sts": squared_difference,
}


def rescaled(noise: Tensor, gradient: Tensor, spec: SmartSpec) -> Tensor:
    """One ascent step as the released code: the noise after it is divided by its own L-inf norm per token.

    Every real token's noise has size about 1 whatever step_size is; epsilon only guards the division.
    At its defaults (start 1e-5, step 1e-3) and without dropout the direction stays that of the random start.
    Source: namisan/mt-dnn, mt_dnn/perturbation.py; archinetai/smart-pytorch does the same.
    """
    moved = noise + spec.step_size * gradient  # (B, T, H)
    return moved / (_token_size(moved) + spec.epsilon)


def projected(noise: Tensor, gradient: Tensor, spec: SmartSpec) -> Tensor:
    """One ascent step as the paper: along g / ||g||_inf, then back into the L-inf ball of radius epsilon around 0.

    Source: Jiang et al. 2020, algorithm 1, lines 8 and 9. The norm is each token's, as the authors' code takes it.
    A zero gradient moves nothing.
    """
    direction = gradient / _token_size(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)  # (B, T, H)
    return (noise + spec.step_size * direction).clamp(-spec.epsilon, spec.epsilon)


VARIANTS: dict[str, Callable[[Tensor, Tensor, SmartSpec], Tensor]] = {"mt_dnn": rescaled, "paper": projected}


def adversarial_noise(
    predict: Predict,
    clean: Tensor,
    masks: Sequence[Tensor],
    width: int,
    spec: SmartSpec,
    divergence: Divergence,
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    """Noise that moves the output away from the clean one, found by gradient ascent; all parts move together.

    The gradient is that of the sum over the batch, as in the released code: an example's noise does not depend on how
    many others stand beside it. No gradient reaches a parameter.

    Args:
        predict: noise, one (B, T, H) per part -> head output (B, C).
        clean: (B, C), the head's output without noise.
        masks: per part (B, T), 1 or True where a token is real; padding gets no noise.
        width: H.
        spec: variant, steps, step_size, epsilon, and noise: the standard deviation of the start.
        divergence: of two outputs, a mean over the batch.
        generator: on the CPU, of the starting noise.

    Returns:
        Per part (B, T, H), detached.

    Raises:
        ValueError: `masks` is empty or does not have one row per row of `clean`.
        StudyError: a gradient is not finite (the released code lets the term vanish there).
    """
    if not masks or any(mask.ndim != 2 or len(mask) != len(clean) for mask in masks):
        shapes = [tuple(mask.shape) for mask in masks]
        raise ValueError(f"`masks` must be one (B, T) per part with B = {len(clean)}, found {shapes}")
    target, step = clean.detach(), VARIANTS[spec.variant]
    real = [mask.to(clean.device, torch.bool).unsqueeze(-1) for mask in masks]  # (B, T, 1)
    noises = [spec.noise * torch.randn(*mask.shape, width, generator=generator).to(clean.device) for mask in masks]
    noises = [noise * keep for noise, keep in zip(noises, real, strict=True)]
    for _ in range(spec.steps):
        noises = [noise.requires_grad_() for noise in noises]
        total = divergence(predict(tuple(noises)), target) * len(clean)
        gradients = torch.autograd.grad(total, noises)
        _refuse_non_finite(gradients, spec)
        noises = [
            step(noise.detach(), gradient, spec) * keep
            for noise, gradient, keep in zip(noises, gradients, real, strict=True)
        ]
    return tuple(noises)


def smart_loss(
    predict: Predict,
    clean: Tensor,
    masks: Sequence[Tensor],
    width: int,
    spec: SmartSpec,
    divergence: Divergence,
    generator: torch.Generator,
) -> Tensor:
    """The smoothness term R_s before its weight: divergence of a fresh pass with adversarial noise from `clean`.

    Arguments and errors are those of `adversarial_noise`; here `clean` keeps its graph.

    Source: Jiang et al. 2020, section 3.1. We differ from the released code, which has the same value but cuts the
    target of each KL direction out of the graph: ours is the gradient of the printed formula, near the clean output
    twice theirs.
    """
    noises = adversarial_noise(predict, clean, masks, width, spec, divergence, generator)
    return divergence(predict(noises), clean)


class BregmanAverage(AveragedModel):
    """theta-bar = decay theta-bar + (1 - decay) theta, a copy of a model that is never trained itself.

    The proximal term is the divergence of the model's output from that of `.module` on the same batch.
    Source: Jiang et al. 2020, section 3.2 and algorithm 1, line 14.
    """

    def __init__(self, module: nn.Module, decay: float):
        super().__init__(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.requires_grad_(False)
        self.update_parameters(module)  # torch's first update only copies

    def update(self, module: nn.Module) -> None:
        """Take in the parameters after an optimiser step, and the module's mode."""
        self.update_parameters(module)
        self.module.train(module.training)


def _check_outputs(**outputs: Tensor) -> None:
    first, second = outputs.values()
    if first.shape != second.shape or first.ndim != 2 or not len(first):
        found = " and ".join(f"`{name}` {tuple(output.shape)}" for name, output in outputs.items())
        raise ValueError(f"{found} must be (B, C) of one batch that is not empty")


def _log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax; one logit is that of class 1 against a logit 0 of class 0."""
    return (functional.pad(logits, (1, 0)) if logits.shape[-1] == 1 else logits).log_softmax(-1)


def _token_size(values: Tensor) -> Tensor:
    return values.abs().amax(-1, keepdim=True)  # (B, T, 1)


def _refuse_non_finite(gradients: Sequence[Tensor], spec: SmartSpec) -> None:
    if not all(gradient.isfinite().all() for gradient in gradients):
        what = f"the gradient of the adversarial noise is not finite (noise {spec.noise:g}, step {spec.step_size:g})."
        raise StudyError("E-NONFINITE", "smart", what, "Lower the learning rate or the weight of the term.")
