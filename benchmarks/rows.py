"""What rows of the tables cost as they are: processor seconds of one run by part, beside plain Hugging Face code.

    python benchmarks/rows.py [--data FOLDER] [--encoder NAME] [--cut N] [--rounds N] [--rows A,B] [--ways A,B]
                              [--against SRC] [--json FILE] [--markdown FILE]

Each run has a process of its own and one thread. Its sets, draws and evaluation are cut to 1 / `--cut`, so that its
parts have the shares that they have in the whole run. Ways take turns, and ratios are taken within a round: `ours`,
`library` and `starter` (see plain.py), and with `--against`, the `src` folder of another checkout, its code on the same
rows.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

SAMPLE = (
    *("gu_sts_cos_mean", "gu_para_concat_sep_cls_1l", "swissbert_pair", "bertpp_model_c"),
    *("siar_smart_sst_lam10", "slapbert_setup2", "slapbert_smart_annealed_slapbert"),
)
# Function -> the part of a run that its time counts as, unless a function that it calls has a part of its own.
FUNCTIONS = {
    "loop.run": "final scores",
    "loop._prepare": "start",
    "loop.Materials.tokens": "process",  # once a worker
    "loop._train": "scores of epochs",
    "loop._train_epoch": "batches",
    "step.Trainer.update": "updates",
    "step.AdamW.step": "optimiser",
    "loop.collect": "probes",
    "evaluate.untrained_heads": "random heads",
}
TRAINING, SCORES = ("batches", "updates", "optimiser"), ("scores of epochs", "final scores", "random heads", "probes")
PARTS = ("start", *TRAINING, *SCORES)


class Clock:
    """Processor seconds by part; they count for the innermost part that is going on."""

    def __init__(self):
        self.seconds: Counter = Counter()
        self.parts, self.last = ["process"], 0.0

    def turn(self) -> None:
        now = time.process_time()
        self.seconds[self.parts[-1]] += now - self.last
        self.last = now

    def timed(self, work: Callable, part: str) -> Callable:
        @functools.wraps(work)
        def measured(*args: object, **options: object) -> object:
            self.turn()
            self.parts.append(part)
            try:
                return work(*args, **options)
            finally:
                self.turn()
                self.parts.pop()

        return measured


def measure(task: dict) -> dict:
    """In a process of its own: one run, and what its parts took."""
    clock = Clock()
    import torch

    from common.data.sources import load
    from common.model.weights import resolve_encoder
    from common.training import evaluate, loop, step

    torch.set_num_threads(1)
    corpus = {
        name: {part: smaller(split, task["sizes"].get(f"{part}.{name}")) for part, split in splits.items()}
        for name, splits in load(task["data"]).items()
    }
    spec = known(loop.RunSpec, task["spec"]) if task["way"] == "before" else task["spec"]
    spec = loop.RunSpec.from_dict(spec)
    if task["way"] in ("library", "starter"):
        from plain import install

        spec = install(task["way"], spec)
    modules = {"loop": loop, "step": step, "evaluate": evaluate}
    for name, part in FUNCTIONS.items():
        module, *owners, last = name.split(".")
        owner = functools.reduce(getattr, owners, modules[module])
        if hasattr(owner, last):
            setattr(owner, last, clock.timed(getattr(owner, last), part))
    record = loop.run(spec, loop.Materials(corpus, resolve_encoder(task["encoder"])), 1).record
    clock.turn()
    return {
        "seconds": dict(clock.seconds),
        "examples": sum(record["counts"]["examples"].values()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "metrics": record["metrics"]["dev"],
        "precision": record["environment"]["precision"],
    }


def smaller(split: object, size: int | None) -> object:
    """A fixed sample of a split."""
    from common.training.evaluate import sample

    rows = sample(len(split.ids), size, "cut")
    columns = tuple(tuple(column[i] for i in rows) for column in split.texts)
    labels = None if split.labels is None else split.labels[rows]
    return replace(split, ids=tuple(split.ids[i] for i in rows), texts=columns, labels=labels)


def known(kind: type, values: dict) -> dict:
    """A spec's values without the fields that another checkout does not have."""
    hints, kept = typing.get_type_hints(kind), {}
    for name in (field.name for field in fields(kind) if field.name in values):
        value, kinds = values[name], [hints[name], *typing.get_args(hints[name])]
        inner = next((k for k in kinds if is_dataclass(k)), None)
        if inner and isinstance(value, list):
            value = [known(inner, each) for each in value]
        kept[name] = known(inner, value) if inner and isinstance(value, dict) else value
    return kept


def task_of(row_id: str, options: argparse.Namespace) -> dict:
    """The row under its profile, with all its sizes cut."""
    from common.data.sources import load
    from common.data.sources import name as source_name
    from common.declare.profile import PROFILES
    from common.declare.rows import row
    from common.declare.strict import to_dict

    def less(size: int | None) -> int | None:
        return size and max(1, round(size / options.cut))

    profile = PROFILES[options.profile]
    spec = profile.apply(row(row_id).specs[0], data=source_name(options.data), encoder=options.encoder)
    tasks = tuple(replace(t, examples=less(t.examples), per_epoch=less(t.per_epoch)) for t in spec.tasks)
    limits = {name: less(getattr(spec, name)) for name in ("dev_examples", "train_examples")}
    schedule = replace(spec.schedule, updates=less(spec.schedule.updates))
    dev = {name: len(splits["dev"]) for name, splits in load(options.data).items()}
    sizes = {f"dev.{name}": less(min(size, profile.final_examples or size)) for name, size in dev.items()}
    return {
        "spec": to_dict(replace(spec, tasks=tasks, schedule=schedule, final_examples=None, **limits)),
        "sizes": sizes | {f"train.{task.name}": task.examples for task in tasks if task.examples},
        "data": str(options.data),
        "encoder": options.encoder,
    }


def run(task: dict, way: str, source: Path) -> dict:
    """One run in a fresh process with the memory settings of a worker."""
    from common.runs.pool import MEMORY_VARIABLES, thread_environment

    variables = {**os.environ, **MEMORY_VARIABLES, **thread_environment(1), "PYTHONPATH": str(source)}
    command = [sys.executable, __file__, "--measure"]
    given = json.dumps({**task, "way": way})
    done = subprocess.run(command, input=given, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def whole(run: dict, cut: int, parts: Sequence[str] = PARTS) -> float:
    """Processor seconds of the row as it is: the start counts once, everything else as often as it was cut."""
    return sum(run["seconds"].get(part, 0.0) * (1 if part == "start" else cut) for part in parts)


def ratios(runs: dict[str, list[dict]], way: str, cut: int, parts: Sequence[str]) -> list[float]:
    """How many times the processor time of ours a way takes, round by round."""
    return [
        whole(theirs, cut, parts) / whole(ours, cut, parts)
        for theirs, ours in zip(runs[way], runs["ours"], strict=True)
    ]


def markdown(found: dict) -> str:
    """Two tables: what a run of ours is made of, and how many times as long the others take."""
    cut, rows = found["cut"], found["rows"]
    lines = [
        "| Row | Examples a second | Seconds | " + " | ".join(PARTS) + " |",
        "|---|---:|---:|" + "---:|" * len(PARTS),
    ]
    for name, runs in rows.items():
        seconds = statistics.median(whole(run, cut) for run in runs["ours"])
        rate = statistics.median(cut * run["examples"] / whole(run, cut, TRAINING) for run in runs["ours"])
        shares = (
            statistics.median(whole(run, cut, [part]) / whole(run, cut) for run in runs["ours"]) for part in PARTS
        )
        lines.append(
            f"| {name} | {rate:.0f} | {seconds:.0f} | " + " | ".join(f"{share:.0%}" for share in shares) + " |"
        )
    columns = [(way, parts) for way in found["ways"] if way != "ours" for parts in (TRAINING, PARTS)]
    heads = [f"{way}, {'training' if parts is TRAINING else 'all'}" for way, parts in columns]
    lines += ["", "| Row | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    table = {name: [ratios(runs, way, cut, parts) for way, parts in columns] for name, runs in rows.items()}
    lines += [f"| {name} | " + " | ".join(map(spread, cells)) + " |" for name, cells in table.items()]
    medians = (statistics.median(map(statistics.median, cells)) for cells in zip(*table.values(), strict=True))
    return "\n".join([*lines, "| median | " + " | ".join(f"{m:.2f} ×" for m in medians) + " |"]) + "\n"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} × ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/rows.py", description=main.__doc__)
    parser.add_argument("--data", default="embedded", help="embedded, or a CS224N data folder (default: embedded)")
    parser.add_argument("--encoder", help="a known name or a folder (default: the profile's)")
    parser.add_argument("--profile", default="quick", choices=("smoke", "quick", "cpu"), help="default: quick")
    parser.add_argument("--cut", type=int, default=16, help="a run's sizes are divided by it (default: 16)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(SAMPLE), help="ids of rows")
    parser.add_argument("--ways", type=lambda text: text.split(","), default=["ours", "library", "starter"])
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(json.load(sys.stdin))))
        return
    import common
    from common.declare.profile import PROFILES

    options.encoder = options.encoder or PROFILES[options.profile].encoder
    here = Path(common.__file__).parents[1]
    sources = {way: here for way in options.ways} | ({"before": options.against.resolve()} if options.against else {})
    facts = {"cut": options.cut, "profile": options.profile, "encoder": options.encoder, "cpu": processor()}
    found = {"ways": list(sources), **facts, "rows": {}}
    for name in options.rows:
        task, runs = task_of(name, options), {way: [] for way in sources}
        for _ in range(options.rounds):
            for way, source in sources.items():
                runs[way].append(run(task, way, source))
                print(name, way, {p: round(s, 2) for p, s in runs[way][-1]["seconds"].items()}, flush=True)
        found["rows"][name] = runs
    print(markdown(found))
    for path, text in ((options.json, json.dumps(found, indent=1) + "\n"), (options.markdown, markdown(found))):
        if path:
            path.write_text(text, encoding="utf-8")


def processor() -> str:
    """Its name and what it has for bfloat16 products."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', 'unknown')} ({', '.join(flags) or 'no AVX-512'})"


if __name__ == "__main__":
    main()
