"""AdamW from scratch (Loshchilov & Hutter 2019, algorithm 2), in two published variants; rate schedules from torch.

They differ in two places. `torch` divides by sqrt(v / (1 - beta2^t)) + eps and decays the weights before the step. The
starter code folds the bias correction into the step size, alpha sqrt(1 - beta2^t) / (1 - beta1^t) (Kingma & Ba 2015,
end of section 2), so eps is added to the uncorrected sqrt(v): early on its eps is larger by up to 1 / sqrt(1 - beta2),
about 32. It decays after the step, so the decay also acts on the step just taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from common.declare.spec import RateSpec

ROUNDING = 1e-9


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay.

    Args:
        params: parameters or groups; a frozen parameter is refused, it must never reach an optimiser.
        lr, betas, eps, weight_decay: as in the paper.
        correct_bias: False leaves the moments uncorrected (BertAdam).
        variant: `torch`, or `starter` for the folded correction described above.
        fused: let torch's own kernel do the same in one pass over memory (it has no uncorrected moments).

    Raises:
        ValueError: an unknown variant, fused without bias correction, or a parameter that does not require a gradient.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        variant: str = "torch",
        fused: bool = False,
    ):
        if fused and not correct_bias:
            raise ValueError("`fused` needs `correct_bias`")
        if variant not in ("torch", "starter"):
            raise ValueError(f"`variant` must be 'torch' or 'starter', got {variant!r}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "correct_bias": correct_bias, "variant": variant})
        self.is_fused = fused
        frozen = sum(not p.requires_grad for group in self.param_groups for p in group["params"])
        if frozen:
            raise ValueError(f"`params` holds {frozen} frozen parameter(s): weight decay would move them")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient; one without keeps its value and its moments."""
        for group in self.param_groups:
            with_gradient = [parameter for parameter in group["params"] if parameter.grad is not None]
            if self.is_fused:
                self._fused_update(with_gradient, group)
            else:
                for parameter in with_gradient:
                    self._plain_update(parameter, group)

    def _fused_update(self, parameters: list[Tensor], group: dict) -> None:
        """The starter's step is torch's with eps / sqrt(1 - beta2^t), and its decay comes after the step."""
        by_step: dict[int, list[Tensor]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update({name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}, step=0)
            state["step"] += 1
            by_step.setdefault(state["step"], []).append(parameter)
        is_starter, (beta1, beta2) = group["variant"] == "starter", group["betas"]
        for step, chosen in by_step.items():
            options = {"lr": group["lr"], "beta1": beta1, "beta2": beta2, "amsgrad": False, "maximize": False}
            options["weight_decay"] = 0.0 if is_starter else group["weight_decay"]
            options["eps"] = group["eps"] / (math.sqrt(1 - beta2**step) if is_starter else 1.0)
            gradients = [parameter.grad for parameter in chosen]
            moments = ([self.state[p][name] for p in chosen] for name in ("exp_avg", "exp_avg_sq"))
            count = torch.tensor(float(step), device=chosen[0].device)
            torch._fused_adamw_(chosen, gradients, *moments, [], [count] * len(chosen), **options)
            if is_starter and group["weight_decay"]:
                torch._foreach_mul_(chosen, 1 - group["lr"] * group["weight_decay"])

    def _plain_update(self, parameter: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state.update({name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq", "scratch")}, step=0)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        unbias1 = 1 - beta1 ** state["step"] if group["correct_bias"] else 1.0
        unbias2 = 1 - beta2 ** state["step"] if group["correct_bias"] else 1.0
        decay = 1 - group["lr"] * group["weight_decay"]
        # Into kept memory: allocating it anew cost a third of the step (fresh pages for the 12 million embeddings).
        root = torch.sqrt(square, out=state["scratch"])
        if group["variant"] == "torch":
            if group["weight_decay"]:
                parameter.mul_(decay)
            parameter.addcdiv_(mean, root.div_(math.sqrt(unbias2)).add_(group["eps"]), value=-group["lr"] / unbias1)
        else:
            step_size = group["lr"] * math.sqrt(unbias2) / unbias1
            parameter.addcdiv_(mean, root.add_(group["eps"]), value=-step_size)
            if group["weight_decay"]:
                parameter.mul_(decay)


class RateSchedule:
    """The learning rate of a run, moved by one of torch's schedulers alone: two on one optimiser undo each other.

    Args:
        optimizer: all its groups keep their ratio.
        rate: lengths are shares of training.
        updates: in the whole run.
        epochs: of the run (of one phase), in which a plateau's patience is counted, at least one.
    """

    def __init__(self, optimizer: AdamW, rate: RateSpec, updates: int, epochs: int):
        self.is_plateau = rate.kind == "plateau"
        if self.is_plateau:
            patience = max(1, round(rate.patience * epochs)) - 1  # torch acts on the bad epoch after its patience
            options = {"mode": "max", "factor": rate.factor, "patience": patience, "threshold": 0.0}
            self.scheduler = ReduceLROnPlateau(optimizer, **options)
        else:
            self.scheduler = LambdaLR(optimizer, lambda done: rate_multiplier(rate, done, updates))

    def end_update(self) -> None:
        """Move on by an update; a plateau does not look at updates."""
        if not self.is_plateau:
            self.scheduler.step()

    def end_epoch(self, score: float | None) -> None:
        """Tell a plateau the epoch's dev score; None, where a metric does not exist, is no improvement."""
        if self.is_plateau:
            self.scheduler.step(-math.inf if score is None else score)


def rate_multiplier(rate: RateSpec, done: int, updates: int) -> float:
    """Factor on the learning rate after `done` of `updates`: linear warm-up from 0, then the kind's own course.

    The linear kind is `transformers.get_linear_schedule_with_warmup`; step is `torch.optim.lr_scheduler.StepLR`.
    """
    warmup = round(rate.warmup * updates)
    if done < warmup:
        return done / warmup
    if rate.kind == "linear":
        return max(0.0, (updates - done) / max(1, updates - warmup))
    if rate.kind == "step":
        # The last update of all is done `updates` - 1: no step falls on it, whatever `updates` divides into.
        return rate.factor ** math.floor(done / (rate.step * updates) + ROUNDING)
    return 1.0
