"""AdamW from scratch (Loshchilov & Hutter 2019, algorithm 2), in two published variants; rate schedules from torch.

They differ in two places. `torch` divides by sqrt(v / (1 - beta2^t)) + eps and decays the weights before the step. The
starter code folds the bias correction into the step size, alpha sqrt(1 - beta2^t) / (1 - beta1^t) (Kingma & Ba 2015,
end of section 2), so eps is added to the uncorrected sqrt(v): early on its eps is larger by up to 1 / sqrt(1 - beta2),
about 32. It decays after the step, so the decay also acts on the step just taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from common.declare.spec import RateSpec

ROUNDING = 1e-9
MOMENTS = ("exp_avg", "exp_avg_sq")
SPARE_ROWS = 1024


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
        moved: Callable[[Tensor], None] = lambda parameter: None,
    ):
        if fused and not correct_bias:
            raise ValueError("`fused` needs `correct_bias`")
        if variant not in ("torch", "starter"):
            raise ValueError(f"`variant` must be 'torch' or 'starter', got {variant!r}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "correct_bias": correct_bias, "variant": variant})
        self.is_fused, self.moved, self.used = fused, moved, {}
        frozen = sum(not p.requires_grad for group in self.param_groups for p in group["params"])
        if frozen:
            raise ValueError(f"`params` holds {frozen} frozen parameter(s): weight decay would move them")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient; one without keeps its value and its moments."""
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                (self._fused_update if self.is_fused else self._plain_update)(parameter, group)
                self.moved(parameter)

    def _fused_update(self, parameter: Tensor, group: dict) -> None:
        """The starter's step is torch's with eps / sqrt(1 - beta2^t), and its decay comes after the step.

        Parameter by parameter, so that what one pass over memory has fetched is still at hand for the next. A sparse
        gradient leaves rows that never had one where they are but for the decay: their moments are zero.
        """
        state, is_starter, (beta1, beta2) = self.state[parameter], group["variant"] == "starter", group["betas"]
        is_sparse = parameter.grad.is_sparse
        if not is_sparse and not state:
            state.update({name: torch.zeros_like(parameter) for name in MOMENTS})
        values, gradient = self._used_rows(parameter, state) if is_sparse else (parameter, parameter.grad)
        state["step"] = state.get("step", 0) + 1
        options = {"lr": group["lr"], "beta1": beta1, "beta2": beta2, "amsgrad": False, "maximize": False}
        options["eps"] = group["eps"] / (math.sqrt(1 - beta2 ** state["step"]) if is_starter else 1.0)
        options["weight_decay"] = 0.0 if is_starter else group["weight_decay"]
        moments = ([state[name]] for name in MOMENTS)
        count = torch.tensor(float(state["step"]), device=parameter.device)
        torch._fused_adamw_([values], [gradient.to(values.dtype)], *moments, [], [count], **options)
        decay = 1 - group["lr"] * group["weight_decay"]
        if is_starter and decay != 1:
            values.mul_(decay)
        if is_sparse:
            rows = state["rows"]
            (parameter.mul_(decay) if decay != 1 else parameter).index_copy_(0, rows, values[: len(rows)])

    def _used_rows(self, parameter: Tensor, state: dict) -> tuple[Tensor, Tensor]:
        """The rows of a table that ever had a gradient, in the order of their arrival (`rows`), and their gradient.

        Both lie in memory that is used again, with rows to spare for words to come, as the moments have.
        """
        indices, found = parameter.grad._indices()[0], parameter.grad._values()
        if not state:
            state["rows"], state["place"] = indices[:0], indices.new_full((len(parameter),), -1)
            state.update({name: found.new_zeros(0, found.shape[1]) for name in MOMENTS})
        new = indices[state["place"][indices] < 0]
        state["place"][new] = torch.arange(len(new), device=new.device) + len(state["rows"])
        rows = state["rows"] = torch.cat([state["rows"], new])
        if len(rows) > len(state["exp_avg"]):
            grown = found.new_zeros(len(rows) + SPARE_ROWS - len(state["exp_avg"]), found.shape[1])
            state.update({name: torch.cat([state[name], grown]) for name in MOMENTS})
        if parameter not in self.used or len(self.used[parameter][0]) != len(state["exp_avg"]):
            self.used[parameter] = torch.zeros_like(state["exp_avg"]), torch.zeros_like(state["exp_avg"])
        values, gradient = self.used[parameter]
        torch.index_select(parameter, 0, rows, out=values[: len(rows)])
        gradient.zero_().index_copy_(0, state["place"][indices], found)
        return values, gradient

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
