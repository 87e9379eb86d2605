"""A training that was cut off goes on where it was: everything that decides the rest of it, in one file.

The file is a SHA-256, a line break and a safetensors file whose metadata holds the rest as JSON, never pickle. It is
replaced whole, so it is complete or absent. What it was made on (spec, code, torch, threads, device, data, weights) is
compared before it is used: a mixture of two would belong to neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from common.training.history import History
from common.training.step import Trainer, Update

Write = Callable[[Path, bytes], None]
FACTS = "facts"


def save(path: Path, tensors: dict[str, Tensor], facts: dict, write: Write) -> None:
    """Write a checkpoint through `write(path, content)`, which must replace the file whole."""
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}  # tied ones as well
    content = save_tensors(apart, {FACTS: json.dumps(facts)})
    write(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def load(path: Path, origin: dict) -> tuple[dict[str, Tensor], dict] | str | None:
    """Tensors and facts of a checkpoint; None without one; the reason in words where it must not be used."""
    if not path.is_file():
        return None
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return "it is damaged"
    try:
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FACTS])
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        return f"it cannot be read ({type(error).__name__})"
    differing = [name for name in origin if facts["origin"].get(name) != origin[name]]
    if differing:
        return f"it was made with another {', '.join(differing)}"
    return tensors, facts


def trainer_state(trainer: Trainer, log: History) -> tuple[dict[str, Tensor], dict]:
    """What a trainer and its log carry from one update to the next: moments, averages, generators, schedules."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    states = {str(i): trainer.optimizer.state[p] for i, p in enumerate(parameters) if p in trainer.optimizer.state}
    tensors = {f"model.{name}": t for name, t in trainer.model.state_dict().items()}
    tensors |= {f"weights.{name}": t for name, t in trainer.weights.state_dict().items()}
    if trainer.average:
        tensors |= {f"average.{name}": t for name, t in trainer.average.state_dict().items()}
    for i, state in states.items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    tensors |= {f"generator.{name}": generator.get_state() for name, generator in _generators(trainer).items()}
    tensors["generator.torch"] = torch.get_rng_state()
    if trainer.model.device.type == "cuda":
        tensors["generator.cuda"] = torch.cuda.get_rng_state(trainer.model.device)
    scheduler = {k: v for k, v in trainer.rate.scheduler.state_dict().items() if k != "lr_lambdas"}
    return tensors, {
        "steps": {i: state["step"] for i, state in states.items()},
        "rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "scheduler": scheduler,
        "updates": [asdict(_on_host(update)) for update in log.updates],
        "epoch_start": log.epoch_start,
    }


def restore_trainer(trainer: Trainer, log: History, tensors: dict[str, Tensor], facts: dict) -> None:
    """Put back what `trainer_state` took."""
    trainer.model.load_state_dict(tensors_below(tensors, "model."))
    trainer.weights.load_state_dict(tensors_below(tensors, "weights."))
    if trainer.average:
        trainer.average.load_state_dict(tensors_below(tensors, "average."))
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    for i, step in facts["steps"].items():
        parameter = parameters[int(i)]
        moments = {name: t.to(parameter.device) for name, t in tensors_below(tensors, f"optimizer.{i}.").items()}
        trainer.optimizer.state[parameter] = moments | {"step": step}
    for group, rate in zip(trainer.optimizer.param_groups, facts["rates"], strict=True):
        group["lr"] = rate
    lambdas = {"lr_lambdas": [None] * len(facts["rates"])} if not trainer.rate.is_plateau else {}
    trainer.rate.scheduler.load_state_dict(facts["scheduler"] | lambdas)
    for name, generator in _generators(trainer).items():
        generator.set_state(tensors[f"generator.{name}"])
    torch.set_rng_state(tensors["generator.torch"])
    if "generator.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator.cuda"], trainer.model.device)
    log.updates = [_update(values) for values in facts["updates"]]
    log.epoch_start = facts["epoch_start"]


def _generators(trainer: Trainer) -> dict[str, torch.Generator]:
    return {"surgery": trainer.surgery_generator, "noise": trainer.noise_generator}


def tensors_below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _on_host(update: Update) -> Update:
    """The update with plain numbers, where a GPU still held them."""
    losses, regularisers = ([(t, float(v)) for t, v in pairs] for pairs in (update.losses, update.regularisers))
    return Update(losses, regularisers, update.factors, update.rate, update.cosines, update.norms)


def _update(values: dict) -> Update:
    """An update from JSON, where tuples have become lists."""
    pairs = {name: [(task, value) for task, value in values[name]] for name in ("losses", "regularisers", "norms")}
    cosines = [(tuple(pair), value) for pair, value in values["cosines"]]
    return Update(**{**values, **pairs, "cosines": cosines})


def counted(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """Arrays of a run as tensors of a checkpoint."""
    return {f"{prefix}{name}": torch.from_numpy(array) for name, array in arrays.items()}


def arrays_below(tensors: dict[str, Tensor], prefix: str) -> dict[str, np.ndarray]:
    """The arrays that `counted` put under that prefix."""
    return {name: tensor.numpy().copy() for name, tensor in tensors_below(tensors, prefix).items()}
