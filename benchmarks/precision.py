"""Dev scores in bfloat16 and float32, seed by seed, on real data: is their difference within that between seeds?

    python benchmarks/precision.py --data FOLDER [--row ID] [--seeds 0,1,2] [--json FILE] [--markdown FILE]

Trains one row under the profile `cpu` in both precisions with the same seeds (same examples, starts and dropout
generator) and prints both, the paired difference, and the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import open_study, row

METRICS = ("sst_acc", "para_acc", "sts_corr", "overall")


def scores(data: str, row_id: str, seeds: list[int], precision: str) -> dict[str, list[float]]:
    """Metric -> dev value of each seed."""
    lab = open_study("cpu", data=data, seeds=seeds)
    lab = replace(lab, profile=replace(lab.profile, precision=precision))
    records = lab.run([row(row_id)])[row_id].records
    return {metric: [record["metrics"]["dev"][metric] for record in records] for metric in METRICS}


def markdown(found: dict[str, dict[str, list[float]]]) -> str:
    """One line per metric: means, mean paired difference, and the spread over seeds that it is to be seen against."""
    lines = [
        "| Dev metric | bf16 | fp32 | Difference | SD over seeds, bf16 | SD over seeds, fp32 |",
        "|---|" + "---:|" * 5,
    ]
    for metric in METRICS:
        low, full = found["bf16"][metric], found["fp32"][metric]
        difference = statistics.mean(a - b for a, b in zip(low, full, strict=True))
        means = f"{statistics.mean(low):.4f} | {statistics.mean(full):.4f} | {difference:+.4f}"
        spreads = " | ".join(f"{statistics.stdev(values):.4f}" for values in (low, full))
        lines.append(f"| {metric} | {means} | {spreads} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/precision.py", description=main.__doc__)
    parser.add_argument("--data", required=True, help="a CS224N data folder")
    parser.add_argument("--row", default="swissbert_pair", help="id of the row (default: swissbert_pair)")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if len(seeds) < 2:
        parser.error("--seeds needs at least two: what is asked is whether precision matters more than the seed")
    found = {p: scores(options.data, options.row, seeds, p) for p in ("bf16", "fp32")}
    print(markdown(found))
    if options.markdown:
        options.markdown.write_text(markdown(found), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps({"row": options.row, "seeds": seeds, "dev": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
