"""What figures draw, as long tables of plain numbers: data facts, attention, threshold curves, one value a line.

Each frame is what `report/plots.py` draws and what stands beside the figure as CSV. Nothing is trained or drawn here.
What a notebook says about one printed table, and small tables of differences, stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from common.data.tasks import TASKS
from common.study import reported
from common.study.reported import stated
from common.study.rows import rows
from common.study.session import Results, RowResult
from common.study.stats import ABSENT, MAIN_METRICS, METRICS, TASK_NAMES, mean, names_of, runs_of, value
from common.study.store import RunStore

# swissBERT's heat maps, and the share of attention that its reading of each is about (section 6). Whether it counts
# layers from 0 or 1 is not said.
ATTENTION_PANELS = {
    "first": ("Figure 1, layer 1", "cross"),
    "middle": ("Figure 2, layer 6", "near"),
    "last": ("Figure 3, layer 11", "match"),
}
SHARE_NAMES = {
    "cross": "other sentence",
    "match": "equal tokens there",
    "near": "own neighbours",
    "special": "special tokens",
}
REPORT, HERE = "report", "here"


def in_table(results: Results, report: str, table: str) -> Results:
    """The results of one printed table in its order, each row with the label and the numbers that stand there."""
    return Results((row.id, replace(results[row.id], row=row)) for row in rows(report, table))


def on_split(result: RowResult, split: str) -> RowResult:
    """The same runs beside what the row's table prints on another split, such as the line of a test leaderboard."""
    of = result.row
    numbers, label = (found(of.report, of.table, split)[of.id] for found in (reported.printed, reported.labels))
    names = {"overall": "overall_normalised"} if of.report in reported.NORMALISED_OVERALL else {}
    numbers = {names.get(metric, metric): number for metric, number in numbers.items()}
    return replace(result, row=replace(of, label=label, reported=numbers, split=split))


def numbers(results: Results) -> dict[str, float | str]:
    """What a sentence about results may name: `pair_sts_corr` is the mean over seeds of row swissbert_pair on dev (or
    the word that says why there is none), `pair_sts_corr_reported` what its table prints."""
    found: dict[str, float | str] = {}
    for row_id, result in results.items():
        name = row_id.removeprefix(f"{result.row.report}_")
        found |= {f"{name}_{metric}": mean(results, row_id, metric) for metric in METRICS}
        found |= {f"{name}_{metric}_reported": number for metric, number in result.row.reported.items()}
    return found


def stated_frame(card: dict) -> pd.DataFrame:
    """Counts that the reports state, beside ours: what differs, and why where it is known."""
    lines = []
    for fact in stated():
        counts = card["labels"] if fact["what"].startswith("label ") else card["counts"]
        found = counts.get(fact["task"], {}).get(fact["split"])
        if isinstance(found, dict):
            found = found.get(fact["what"].removeprefix("label "), 0)
        known = {"report": fact["report"], "task": TASK_NAMES[fact["task"]], "split": fact["split"]}
        difference = None if found is None else found - fact["stated"]
        counted = {"what": fact["what"], "stated": fact["stated"], "here": found, "difference": difference}
        lines.append(known | counted | {"remark": fact["remark"]})
    return pd.DataFrame(lines).astype({"here": "Int64", "difference": "Int64"})


def label_frame(card: dict, tasks: Iterable[str] = ("sst", "para", "sts")) -> pd.DataFrame:
    """Label counts of the training sets, ours and (where a report prints them) the report's, with their shares."""
    lines = [
        {"task": task, "source": HERE, "label": str(label), "count": count}
        for task in tasks
        for label, count in card["labels"][task]["train"].items()
    ]
    lines += [
        {"task": f["task"], "source": REPORT, "label": f["what"].removeprefix("label "), "count": f["stated"]}
        for f in stated()
        if f["what"].startswith("label ") and f["split"] == "train"
    ]
    frame = pd.DataFrame(lines)
    frame["share"] = frame["count"] / frame.groupby(["task", "source"])["count"].transform("sum")
    return frame


def length_frame(card: dict) -> pd.DataFrame:
    """Histogram of input lengths in tokens, one bin a line, with the task's mean, maximum and share truncated."""
    lines = []
    for task in (task for task in TASK_NAMES if task in card["lengths"]):
        histogram = card["lengths"][task]
        total = sum(histogram["counts"])
        facts = {"inputs": total, "mean": histogram["mean"], "max": histogram["max"], "limit": card["max_tokens"]}
        facts["share_truncated"] = card["truncated"].get(task, 0) / total
        edges = zip(histogram["bins"][:-1], histogram["bins"][1:], strict=True)
        for (start, stop), count in zip(edges, histogram["counts"], strict=True):
            lines.append({"task": task, "from_tokens": start, "below_tokens": stop, "count": count} | facts)
    return pd.DataFrame(lines)


def constant_frame(card: dict, split: str = "dev") -> pd.DataFrame:
    """Accuracy of the best constant answer to each task with classes: its label and its share."""
    lines = []
    for task in (task for task in card["labels"] if TASKS[task].kind == "classes"):
        counts = card["labels"][task][split]
        label = max(counts, key=counts.get)
        total = sum(counts.values())
        lines.append({"task": TASK_NAMES[task], "n": total, "label": label, "accuracy": counts[label] / total})
    return pd.DataFrame(lines)


def left_out_frame(card: dict) -> pd.DataFrame:
    """Rows of the source that could not be used, by id."""
    lines = [
        {"task": TASK_NAMES[task], "split": split, "rows left out": len(ids), "ids": ", ".join(ids)}
        for task, splits in card["left_out"].items()
        for split, ids in splits.items()
    ]
    return pd.DataFrame(lines or [{"task": "all", "split": "all", "rows left out": 0, "ids": ""}])


def parity_frame(card: dict) -> pd.DataFrame:
    """Largest absolute differences of our BERT and AdamW from the reference libraries."""
    lines = [
        (f"BertModel, {part}, {place} weights", "transformers.BertModel", difference)
        for place, parts in card["bert"].items()
        for part, difference in parts.items()
    ]
    name = f"weights after {card['steps']} steps"
    lines += [(f"AdamW ({kind}), {name}", "torch.optim.AdamW", found) for kind, found in card["adamw"].items()]
    return pd.DataFrame(lines, columns=["what", "against", "largest difference"])


def metric_frame(results: Results, metrics: tuple[str, ...] = MAIN_METRICS, split: str = "dev") -> pd.DataFrame:
    """Reported values and ours, one line per row, metric and seed; the report's lines have no seed."""
    lines = []
    for row_id, result in results.items():
        known = names_of(row_id, result)
        for metric in metrics:
            line = known | {"metric": METRICS[metric]}
            reported = result.row.reported.get(metric)
            lines.append(line | {"source": REPORT, "seed": None, "run_id": None, "value": reported})
            for record in result.records:
                ours = {"source": HERE, "seed": record["spec"]["seed"], "run_id": record["run_id"]}
                lines.append(line | ours | {"value": value(record, metric, split)})
    return pd.DataFrame(lines).astype({"value": float, "seed": "Int64"})


def attention_map(store: RunStore, result: RowResult, panel: str, head: int = 0) -> pd.DataFrame:
    """One head's attention on the named pair in the first, middle or last layer (swissBERT, Figures 1-3), one run.

    In an encoder of two layers the first is the middle one too. dev_share is what this head gives, over all STS dev
    pairs, to what the report's reading of the figure is about (`share_of`), dev_share_all the mean over the layer's
    heads.
    """
    (figure, share), lines = ATTENTION_PANELS[panel], []
    for record in result.runs[:1]:
        probes, tokens = store.probes(record["run_id"]), record["probes"]["pair_tokens"]
        maps = probes["pair_attention"]  # (L, A, T, T)
        index = {"first": 0, "middle": (len(maps) - 1) // 2, "last": len(maps) - 1}[panel]
        masses = probes[f"{share}_mass"][index]  # (A,)
        known = {"run_id": record["run_id"], "layers": len(maps), "layer": index + 1, "head": head + 1}
        known |= {"panel": panel, "shown_as": figure, "share_of": share}
        known |= {"dev_share": float(masses[head]), "dev_share_all": float(masses.mean())}
        for (i, j), weight in np.ndenumerate(maps[index, head]):
            cells = {"query_position": i, "query": tokens[i], "key_position": j, "key": tokens[j]}
            lines.append(known | cells | {"attention": float(weight)})
    return pd.DataFrame(lines, columns=None if lines else ["run_id", "attention"])


def map_caption(maps: pd.DataFrame) -> str:
    """What one `attention_map` shows, and over the whole dev set how much attention goes where the report
    says it does in this layer."""
    if maps.empty:
        return "No finished run."
    first = maps.iloc[0]
    return (
        f"Attention of head {first['head']} in layer {first['layer']} of {first['layers']} on the report's pair "
        f"({first['shown_as']} there); rows attend to columns. Over all STS dev pairs this head gives "
        f"{100 * first['dev_share']:.1f} % of its attention to {SHARE_NAMES[first['share_of']]}, the layer's heads "
        f"{100 * first['dev_share_all']:.1f} % on average."
    )


def attention_shares(store: RunStore, results: Results) -> pd.DataFrame:
    """Shares of the attention that sentence tokens give, by layer and head, averaged over STS dev."""
    lines = []
    for _, record, known in runs_of(results):
        probes = store.probes(record["run_id"])
        for name in sorted(name for name in probes if name.endswith("_mass")):
            for (layer, head), share in np.ndenumerate(probes[name]):
                place = {"share_of": name.removesuffix("_mass"), "layer": layer + 1, "head": head + 1}
                lines.append(known | place | {"share": float(share)})
    columns = ["row", "label", "method", "run_id", "seed", "share_of", "layer", "head", "share"]
    return pd.DataFrame(lines, columns=columns)


def attention_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Shares of attention by model and layer: the mean over heads (and seeds), and the first head's."""
    by = ["label", "layer"]
    means = shares.pivot_table("share", by, "share_of", sort=False)
    first = shares[shares["head"] == 1].pivot_table("share", by, "share_of", sort=False)
    both = pd.concat({"mean over heads": means, "first head": first}, axis=1).rename(columns=SHARE_NAMES).reset_index()
    # The two index columns come back as (name, ""); as leaves they stand in the lower line of the header.
    return both.set_axis(pd.MultiIndex.from_tuples([(a, b) if b else ("", a) for a, b in both.columns]), axis=1)


def threshold_frame(store: RunStore, results: Results) -> pd.DataFrame:
    """Quora accuracy against the cosine threshold, swept on each trained model; `used` is the row's own threshold."""
    lines = []
    for result, record, known in runs_of(results):
        curve = store.probes(record["run_id"]).get("para_threshold_curve")
        if curve is None:
            continue
        known["used"] = result.row.specs[0].task("para").threshold
        points = zip(*curve, strict=True)
        lines += [known | {"threshold": round(float(x), 3), "accuracy": float(y)} for x, y in points]
    columns = ["row", "label", "method", "run_id", "seed", "used", "threshold", "accuracy"]
    return pd.DataFrame(lines, columns=columns)


def gap_frame(results: Results) -> pd.DataFrame:
    """Train and dev scores and train minus dev, means over seeds: how much of a score is memory (at the best epoch)."""
    lines = []
    for row_id, result in results.items():
        line: dict = {("", "model"): result.row.label}
        for metric in MAIN_METRICS[:-1]:
            train, dev = (mean(results, row_id, metric, split) for split in ("train", "dev"))
            are_numbers = isinstance(train, float) and isinstance(dev, float)
            quantities = {"train": train, "dev": dev, "difference": train - dev if are_numbers else ABSENT}
            line |= {(METRICS[metric], name): quantity for name, quantity in quantities.items()}
        lines.append(line | {("runs", "seeds"): len(result.records)})
    frame = pd.DataFrame(lines)
    return frame.set_axis(pd.MultiIndex.from_tuples(list(frame.columns)), axis=1)


def differences(results: Results, base: str, metrics: tuple[str, ...] = MAIN_METRICS) -> pd.DataFrame:
    """Each row minus the row `base`: as printed, and ours as the mean over the seeds that both have."""
    lines, of = [], results[base]
    for row_id, result in results.items():
        if row_id == base:
            continue
        line: dict = {("", "model"): result.row.label}
        for metric in metrics:
            printed = [of_row.reported.get(metric, ABSENT) for of_row in (result.row, of.row)]
            ours, theirs = ({r["spec"]["seed"]: value(r, metric) for r in found.records} for found in (result, of))
            pairs = [ours[s] - theirs[s] for s in ours if None not in (ours[s], theirs.get(s))]
            line[METRICS[metric], "printed difference"] = printed[0] - printed[1]
            line[METRICS[metric], "our difference"] = float(np.mean(pairs)) if pairs else ABSENT
        lines.append(line)
    frame = pd.DataFrame(lines).dropna(axis=1, how="all")
    return frame.set_axis(pd.MultiIndex.from_tuples(list(frame.columns)), axis=1)


def runs_frame(records: Iterable[dict]) -> pd.DataFrame:
    """One line per record: what was trained, on what, how it scored and what it cost."""
    lines = []
    for record in records:
        spec, metrics = record["spec"], record["metrics"]["dev"]
        pairs = ", ".join(f"{TASK_NAMES[t['name']]} {t['pair_method']}" for t in spec["tasks"])
        line = {"run": record["run_id"], "model": pairs, "encoder": _encoder(spec), "data": spec["data"]}
        line |= {"seed": spec["seed"], "epochs": spec["epochs"], "learning rate": f"{spec['optimizer']['lr']:g}"}
        line |= {METRICS[name]: metrics.get(name) for name in MAIN_METRICS}
        lines.append(line | {"share of training": record["share"], "minutes": record["wall_s"] / 60})
    return pd.DataFrame(lines)


def _encoder(spec: dict) -> str:
    return spec["encoder"]["checkpoint"] + (" (frozen)" if spec["encoder"]["frozen"] else "")
