"""What each method costs beside the plain joint step: parameters added, time per update, both from one run.

    python benchmarks/methods.py [--data FOLDER] [--encoder NAME_OR_FOLDER] [--rounds N] [--json FILE] [--markdown FILE]
                                 [--where FILE]

Every method updates a model of its own on the same batches (a batch of each task) in turn with the plain step, so that
a busy machine slows both; a ratio is taken within a round, and what is printed is its median and the range of its
middle half. The process has the memory settings of the study's workers. What a method adds to every update weighs more
beside short texts, as those of the embedded corpus are. `--where` writes what PCGrad's updates spend their time on,
beside the joint step's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from step import seconds_by_kind

from common.data.encoding import Layout, encode, epoch_batches, input_limit, load_tokenizer
from common.data.sources import load
from common.data.sources import name as source_name
from common.declare.profile import ENCODERS, PROFILES
from common.declare.spec import (
    EncoderSpec,
    PalSpec,
    RunSpec,
    ScheduleSpec,
    SmartSpec,
    SurgerySpec,
    TaskSpec,
    WeightingSpec,
)
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import resolve_encoder
from common.runs.pool import become_worker
from common.seeding import stateless_generator
from common.training.loop import environment
from common.training.step import Trainer

PLAIN = "joint step, pair encoding"
UPDATES = 2  # a round: enough that a clock's grain does not show


def methods(encoder: str, precision: str, engine: str = "fast") -> dict[str, RunSpec]:
    """The plain joint step, and one change of it per method."""
    sst, para, sts = TaskSpec("sst"), TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
    plain = RunSpec(
        (sst, para, sts), EncoderSpec(encoder), ScheduleSpec("joint"), batch_size=16, precision=precision, engine=engine
    )
    separate = plain.with_tasks(para={"pair_method": "separate"}, sts={"pair_method": "separate"})
    every = ("sst", "para", "sts")
    pals = PROFILES["quick"].apply(replace(plain, encoder=EncoderSpec(pals=PalSpec())), encoder=encoder).encoder.pals
    frozen_layers = max(1, ENCODERS[encoder].layers // 6) if encoder in ENCODERS else 1
    shared = dict.fromkeys(every, {"shared_transformer": True})
    fusion = {"projection": True, "head_layers": 2}
    return {
        PLAIN: plain,
        "separate encoding": separate,
        "cosine": separate.with_tasks(
            para={"pair_method": "cosine", "loss": "cosine_embedding"}, sts={"pair_method": "cosine"}
        ),
        "fusion heads, separate": separate.with_tasks(para=fusion, sts=fusion),
        "shared transformer layer, separate": separate.with_tasks(**shared),
        "multiple negatives ranking on STS": plain.with_tasks(sts={"pair_method": "cosine", "loss": "mnrl"}),
        "PCGrad": replace(plain, surgery=SurgerySpec("pcgrad")),
        "conflicts measured": replace(plain, surgery=SurgerySpec("measure")),
        "uncertainty weights": replace(plain, weighting=WeightingSpec("uncertainty")),
        "automatic weights": replace(plain, weighting=WeightingSpec("automatic")),
        "SMART on all tasks": replace(plain, smart=SmartSpec(1.0, every)),
        "SMART on SST": replace(plain, smart=SmartSpec(1.0, ("sst",))),
        "SMART with proximal term": replace(plain, smart=SmartSpec(1.0, every, bregman=1.0)),
        "PALs": replace(plain, encoder=replace(plain.encoder, pals=pals)),
        "first layers frozen": replace(plain, encoder=replace(plain.encoder, frozen_layers=frozen_layers)),
        "frozen encoder": replace(plain, encoder=replace(plain.encoder, frozen=True)),
    }


class Contestant:
    """One method with a model of its own, and the batches of every round."""

    def __init__(self, spec: RunSpec, folder: Path, corpus: dict):
        encoder = BertModel.from_pretrained(folder)
        tokenizer = load_tokenizer(folder, input_limit(encoder.config.max_position_embeddings))
        model = MultitaskModel(encoder, spec, stateless_generator(0, "heads"))
        self.parameters = sum(p.numel() for p in model.parameters())
        self.trainer = Trainer(model, spec, updates=10**6)
        self.train = {t.name: encode(corpus[t.name]["train"], tokenizer, Layout.of(t)) for t in spec.tasks}

    def seconds(self, number: int) -> float:
        """Time of one round: UPDATES joint updates on the same examples for every method."""
        groups = self._groups(number)
        started = time.perf_counter()
        for group in groups:
            self.trainer.update(group)
        return (time.perf_counter() - started) / UPDATES

    def seconds_by_kind(self, number: int) -> dict[str, float]:
        """The same, kind by kind, with a profiler on."""
        groups = self._groups(number)
        found = seconds_by_kind(lambda: [self.trainer.update(group) for group in groups])
        return {kind: seconds / UPDATES for kind, seconds in found.items()}

    def _groups(self, number: int) -> list:
        groups = []
        for update in range(UPDATES):
            rows = {n: epoch_batches(e.lengths, 16, 16, (number, update, n))[0] for n, e in self.train.items()}
            groups.append([(name, self.train[name].batch(rows[name])) for name in rows])
        return groups


def measure(encoder: str, data: str, precision: str, engine: str, rounds: int) -> dict:
    """Per method: parameters added, median milliseconds per update, and its ratio to the plain step within a round."""
    folder, corpus = resolve_encoder(encoder), load(data)
    specs = methods(encoder, precision, engine)
    plain = Contestant(specs.pop(PLAIN), folder, corpus)
    found = {}
    for name, spec in specs.items():
        pair = {PLAIN: plain, name: Contestant(spec, folder, corpus)}
        times: dict[str, list[float]] = {PLAIN: [], name: []}
        for number in range(-1, rounds):  # the first round warms up
            for each in sorted(pair, reverse=number % 2):  # each goes first in every other round
                taken = pair[each].seconds(number)
                if number >= 0:
                    times[each].append(taken)
        low, middle, high = statistics.quantiles([a / b for a, b in zip(times[name], times[PLAIN], strict=True)], n=4)
        found[name] = {
            "added": pair[name].parameters - plain.parameters,
            "ms": 1000 * statistics.median(times[name]),
            "plain_ms": 1000 * statistics.median(times[PLAIN]),
            "ratio": middle,
            "range": [low, high],
        }
        print(f"{name}: {middle:.2f}", flush=True)
    return {
        "where": where(folder, corpus, methods(encoder, precision, engine), rounds),
        "encoder": encoder,
        "data": source_name(data),
        "precision": precision,
        "rounds": rounds,
        "methods": found,
        "environment": environment(),
    }


def where(folder: Path, corpus: dict, specs: dict[str, RunSpec], rounds: int) -> dict[str, dict[str, float]]:
    """Kind of work -> median milliseconds in an update of the joint step and of PCGrad, in turn."""
    both = {name: Contestant(specs[name], folder, corpus) for name in (PLAIN, "PCGrad")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in both}
    for number in range(-1, rounds):
        for name, contestant in both.items():
            taken = contestant.seconds_by_kind(number)
            if number >= 0:
                found[name].append(taken)
    return {
        kind: {name: 1000 * statistics.median(each[kind] for each in taken) for name, taken in found.items()}
        for kind in found[PLAIN][0]
    }


def where_markdown(found: dict[str, dict[str, float]]) -> str:
    """Both columns as shares of the joint step's whole time."""
    whole = sum(both[PLAIN] for both in found.values())
    lines = ["| Part of an update, of the joint step's time | Joint step | PCGrad |", "|---|---:|---:|"]
    lines += [f"| {kind} | {both[PLAIN] / whole:.0%} | {both['PCGrad'] / whole:.0%} |" for kind, both in found.items()]
    return "\n".join([*lines, f"| all | 100% | {sum(both['PCGrad'] for both in found.values()) / whole:.0%} |"]) + "\n"


def markdown(found: dict) -> str:
    """The table of the README: ratios only, for absolute times belong to one machine."""
    lines = ["| Method | Parameters added | Time per update | Middle half |", "|---|---:|---:|---:|"]
    for name, line in found["methods"].items():
        low, high = line["range"]
        lines.append(f"| {name} | {line['added']:+,} | {line['ratio']:.2f} × | {low:.2f} to {high:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/methods.py", description=main.__doc__)
    parser.add_argument("--data", default="embedded", help="embedded, or a CS224N data folder (default: embedded)")
    parser.add_argument("--encoder", default="minilm-l6", help="a known name or a folder (default: minilm-l6)")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"), help="of the encoder (default: bf16)")
    parser.add_argument("--engine", default="fast", choices=("plain", "fast"), help="default: fast, as the profiles")
    parser.add_argument("--rounds", type=int, default=15, help="rounds after the one that warms up (at least 2)")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    parser.add_argument("--where", type=Path, help="also write a table of where PCGrad's time goes here")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = measure(options.encoder, options.data, options.precision, options.engine, options.rounds)
    print(markdown(found))
    print(where_markdown(found["where"]))
    texts = {
        options.json: json.dumps(found, indent=1) + "\n",
        options.markdown: markdown(found),
        options.where: where_markdown(found["where"]),
    }
    for path, text in texts.items():
        if path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    become_worker()
    main()
