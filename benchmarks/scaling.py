"""Time of one update against batch size, length and layers: straight lines, or what bends them.

    python benchmarks/scaling.py [--encoder NAME] [--threads N] [--rounds N] [--json FILE] [--markdown FILE]

Each point is the median over rounds of one update on sentences of one length, without padding. Points take turns within
a round. Beside each stands the straight line through the smallest and the largest of its series.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from common.data.encoding import Batch
from common.declare.spec import RunSpec, TaskSpec
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import resolve_encoder
from common.runs.pool import become_worker
from common.seeding import stateless_generator
from common.training.loop import environment
from common.training.step import Trainer

# Series -> (batch size, tokens a sentence, layers; None is all), the varied one from small to large.
SERIES = {
    "batch size": [(b, 32, None) for b in (4, 8, 16, 32, 64)],
    "length": [(16, t, None) for t in (8, 16, 32, 64, 128)],
    "layers": [(16, 32, n) for n in (1, 2, 4, 6)],
}
VARIED = {"batch size": 0, "length": 1, "layers": 2}


class Point:
    """A model of so many layers and a batch of so many sentences of one length."""

    def __init__(self, folder: Path, size: int, length: int, layers: int | None):
        encoder = BertModel.from_pretrained(folder)
        if layers is not None:
            encoder.encoder["layer"] = encoder.encoder["layer"][:layers]
        spec = RunSpec((TaskSpec("sst", pooling="cls"),), batch_size=size, precision="bf16", engine="fast")
        self.trainer = Trainer(MultitaskModel(encoder, spec, stateless_generator(0)), spec, updates=10**6)
        ids = torch.randint(5, encoder.config.vocab_size, (size, length), generator=stateless_generator("ids", length))
        labels = torch.randint(0, 5, (size,), generator=stateless_generator("labels")).float()
        self.group = [("sst", Batch(((ids, torch.ones_like(ids), torch.zeros_like(ids)),), labels))]

    def seconds(self) -> float:
        started = time.perf_counter()
        self.trainer.update(self.group)
        return time.perf_counter() - started


def measure(encoder: str, rounds: int) -> dict[str, list[dict]]:
    """Per series, its points with the varied number and the median seconds."""
    folder, found = resolve_encoder(encoder), {}
    for name, settings in SERIES.items():  # one series at a time: all models of all series would not fit
        points = [Point(folder, *setting) for setting in settings]
        times: list[list[float]] = [[] for _ in points]
        for number in range(-1, rounds):
            for point, taken in zip(points, times, strict=True):
                second = point.seconds()
                if number >= 0:
                    taken.append(second)
        varied = [setting[VARIED[name]] for setting in settings]
        found[name] = [{"x": x, "s": statistics.median(t)} for x, t in zip(varied, times, strict=True)]
    return found


def straight_line(points: list[dict]) -> list[float]:
    """Seconds at every point on the line through the first and the last."""
    first, last = points[0], points[-1]
    slope = (last["s"] - first["s"]) / (last["x"] - first["x"])
    return [first["s"] + slope * (point["x"] - first["x"]) for point in points]


def report(found: dict[str, list[dict]]) -> str:
    """One line per point."""
    lines = []
    for name, points in found.items():
        for point, line in zip(points, straight_line(points), strict=True):
            lines.append(f"{name:10} {point['x']:4d}: {1000 * point['s']:7.1f} ms, straight line {1000 * line:7.1f} ms")
    return "\n".join(lines)


def markdown(found: dict[str, list[dict]]) -> str:
    """The table of the README: times, and the line through first and last, over the time of the first point."""
    lines = ["| Grows | Points | Time | Straight line |", "|---|---|---|---|"]
    for name, points in found.items():
        series = [point["s"] for point in points], straight_line(points)
        cells = [", ".join(f"{seconds / points[0]['s']:.2f}" for seconds in some) for some in series]
        lines.append(f"| {name} | {', '.join(str(point['x']) for point in points)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/scaling.py", description=main.__doc__)
    parser.add_argument("--encoder", default="minilm-l6", help="a known name or a folder (default: minilm-l6)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds after the one that warms up (default: 9)")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write a table of ratios here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    found = measure(options.encoder, options.rounds)
    print(report(found))
    if options.json:
        text = json.dumps({"series": found, "environment": environment()}, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    become_worker()
    main()
