"""What figures draw, as long tables of plain numbers: data facts, attention, threshold curves, one value a line.

Each frame is what `report/plots.py` draws and what stands beside the figure as CSV. Nothing is trained or drawn here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from common.data.tasks import TASKS
from common.study.reported import stated
from common.study.session import Results, RowResult
from common.study.stats import MAIN_METRICS, METRICS, TASK_NAMES, method, value
from common.study.store import RunStore

# swissBERT's heat maps; whether it counts layers from 0 or 1 is not said.
ATTENTION_FIGURES = ("Figure 1, layer 1", "Figure 2, layer 6", "Figure 3, layer 11")
SHARE_NAMES = {
    "cross": "other sentence",
    "match": "equal tokens there",
    "near": "own neighbours",
    "special": "special tokens",
}
REPORT, HERE = "report", "here"


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
        known = _known(row_id, result)
        for metric in metrics:
            line = known | {"metric": METRICS[metric]}
            reported = result.row.reported.get(metric)
            lines.append(line | {"source": REPORT, "seed": None, "run_id": None, "value": reported})
            for record in result.records:
                ours = {"source": HERE, "seed": record["spec"]["seed"], "run_id": record["run_id"]}
                lines.append(line | ours | {"value": value(record, metric, split)})
    return pd.DataFrame(lines).astype({"value": float, "seed": "Int64"})


def attention_maps(store: RunStore, result: RowResult, head: int = 0) -> pd.DataFrame:
    """One head's attention on the named pair in the first, middle and last layer (swissBERT, Figures 1-3), one run."""
    lines = []
    for record in result.runs[:1]:
        maps = store.probes(record["run_id"])["pair_attention"]  # (L, A, T, T)
        tokens = record["probes"]["pair_tokens"]
        known = {"run_id": record["run_id"], "layers": len(maps), "head": head + 1}
        # A two-layer encoder has no middle layer: the later assignment wins.
        shown = {
            (len(maps) - 1) // 2: ATTENTION_FIGURES[1],
            0: ATTENTION_FIGURES[0],
            len(maps) - 1: ATTENTION_FIGURES[2],
        }
        for index, figure in sorted(shown.items()):
            for (i, j), weight in np.ndenumerate(maps[index, head]):
                cells = {"query_position": i, "query": tokens[i], "key_position": j, "key": tokens[j]}
                lines.append(known | {"layer": index + 1, "shown_as": figure} | cells | {"attention": float(weight)})
    return pd.DataFrame(lines)


def attention_shares(store: RunStore, results: Results) -> pd.DataFrame:
    """Shares of the attention that sentence tokens give, by layer and head, averaged over STS dev."""
    lines = []
    for row_id, result in results.items():
        for record in result.runs:
            known = _known(row_id, result) | {"run_id": record["run_id"], "seed": record["spec"]["seed"]}
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
    for row_id, result in results.items():
        for record in result.runs:
            curve = store.probes(record["run_id"]).get("para_threshold_curve")
            if curve is None:
                continue
            known = _known(row_id, result) | {"run_id": record["run_id"], "seed": record["spec"]["seed"]}
            known["used"] = result.row.specs[0].task("para").threshold
            points = zip(*curve, strict=True)
            lines += [known | {"threshold": round(float(x), 3), "accuracy": float(y)} for x, y in points]
    columns = ["row", "label", "method", "run_id", "seed", "used", "threshold", "accuracy"]
    return pd.DataFrame(lines, columns=columns)


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


def _known(row_id: str, result: RowResult) -> dict:
    return {"row": row_id, "label": result.row.label, "method": method(result.row)}
