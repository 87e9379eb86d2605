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
from common.study.baselines import CONSTANT_LABEL, CONSTANT_ROW, Baselines
from common.study.reported import OFF_STEPS, SPLITS, stated
from common.study.rows import Row, rows
from common.study.session import Results, RowResult
from common.study.stats import (
    ABSENT,
    HERE,
    MAIN_METRICS,
    METRICS,
    REPORT,
    TASK_NAMES,
    at_constant,
    mean,
    names_of,
    runs_of,
    value,
)
from common.study.store import RunStore
from common.training.evaluate import METRIC_NAMES, OVERALL_TASKS

# swissBERT's heat maps: the layer each is said to show, and the share of attention that its reading is about (section
# 6). Whether the report counts its 12 layers from 0 or from 1 is not said. Counted from 0, as code does, 11 is the last
# one and the three lie evenly; so we take it (DEVIATIONS.md).
ATTENTION_PANELS = {
    "first": ("Figure 1", 1, "cross"),
    "middle": ("Figure 2", 6, "near"),
    "last": ("Figure 3", 11, "match"),
}
REPORT_LAYERS = 12
SHARE_NAMES = {
    "cross": "other sentence",
    "match": "equal tokens there",
    "near": "own neighbours",
    "special": "special tokens",
}
CONSTANT, ZERO_SHOT = "constant", "zero-shot"
CORPUS_NAMES = TASK_NAMES | {"imdb": "IMDB", "mnli": "MultiNLI", "sick": "SICK"}
LABELLED = ("train", "dev")


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
    """Counts that the reports state, beside ours: what differs, and why where it is known.

    A corpus is counted whole where all its parts are at hand; phrases and texts for pretraining are not counted.
    """
    lines = []
    for fact in stated():
        known = {"report": fact["report"], "section": fact["section"]}
        known |= {"corpus": CORPUS_NAMES[fact["task"]], "part": fact["split"]}
        found = _counted(card, fact["task"], fact["split"], fact["what"])
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
    """Accuracy of the best constant answer to each task with classes: its label and its share.

    Balanced accuracy (BERT++, section 4.2, which gave it up) is the mean over classes of the share answered right.
    """
    lines = []
    for task in (task for task in card["labels"] if TASKS[task].kind == "classes"):
        counts = card["labels"][task][split]
        label = max(counts, key=counts.get)
        total = sum(counts.values())
        scores = {"accuracy": counts[label] / total, "balanced accuracy": 1 / sum(map(bool, counts.values()))}
        lines.append({"task": TASK_NAMES[task], "n": total, "label": label} | scores)
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


def metric_frame(
    results: Results, against: Baselines, metrics: tuple[str, ...] = MAIN_METRICS, split: str = "dev"
) -> pd.DataFrame:
    """Reported values, ours and the baselines', one line per row, metric and seed; the report's have no seed.

    trained says whether training touched what the metric is made of, at_constant whether ours is no better than the
    best constant answer.
    """
    lines = []
    for row_id, result in results.items():
        for metric in metrics:
            line = names_of(row_id, result) | {"metric": METRICS[metric], "trained": is_trained(result.row, metric)}
            line |= {"at_constant": False}
            reported = result.row.reported.get(metric)
            lines.append(line | {"source": REPORT, "seed": None, "run_id": None, "value": reported})
            lines += [line | found for found in _measured(result, metric, split, against)]
    lines += _baseline_lines(against, metrics) if split == "dev" else []
    return pd.DataFrame(lines).astype({"value": float, "seed": "Int64"})


def _counted(card: dict, task: str, split: str, what: str) -> int | None:
    """How many the data at hand hold of what a report counts; None where they cannot tell."""
    if what.startswith("label "):
        found = card["labels"].get(task, {}).get(split)
        return None if found is None else found.get(what.removeprefix("label "), 0)
    counts = {"rows": card["counts"], OFF_STEPS: card["off_steps"]}.get(what, {}).get(task, {})
    # The labels of a test part are withheld, so scores are counted in the others.
    parts = (SPLITS if what == "rows" else LABELLED) if split == "all" else (split,)
    return sum(counts[part] for part in parts) if counts.keys() >= set(parts) else None


def _baseline_lines(against: Baselines, metrics: tuple[str, ...]) -> list[dict]:
    """The constant answer's and the zero-shot rows' scores, as far as they have the metric."""
    lines = []
    for metric in metrics:
        line = {"metric": METRICS[metric], "trained": False, "at_constant": False}
        constant = {"row": CONSTANT_ROW, "label": CONSTANT_LABEL, "source": CONSTANT}
        lines.append(line | constant | {"value": against.constants.get(metric)})
        for row_id, result in against.zero_shot.items():
            known = line | names_of(row_id, result)
            lines += [known | found | {"source": ZERO_SHOT} for found in _measured(result, metric, "dev", against)]
    return [line for line in lines if line["value"] is not None]


def is_trained(of: Row, metric: str) -> bool:
    """Whether the row trains the task of a metric, or all tasks of an overall."""
    trained = {task.name for spec in of.specs if spec.epochs for task in spec.trained_tasks}
    tasks = [task for task, name in METRIC_NAMES.items() if metric.startswith(name.split("_")[0])]
    return trained >= set(tasks or OVERALL_TASKS)


def _measured(result: RowResult, metric: str, split: str, against: Baselines) -> list[dict]:
    """Ours, one a seed; whether it is no better than a constant is a question to the mean over seeds, as in tables."""
    known = {"source": HERE, "at_constant": at_constant(result, metric, split, against)}
    return [
        known | {"seed": record["spec"]["seed"], "run_id": record["run_id"], "value": value(record, metric, split)}
        for record in result.records
    ]


def attention_layers(layers: int) -> dict[str, int | None]:
    """Panel -> index from 0 of the layer at the depth of the report's; None where it has no layer of its own.

    An encoder of two layers has a first and a last one, and none between them.
    """
    depths = {panel: number / (REPORT_LAYERS - 1) for panel, (_, number, _) in ATTENTION_PANELS.items()}
    found: dict[str, int | None] = {panel: round(depth * (layers - 1)) for panel, depth in depths.items()}
    for panel, others in (("middle", ("first", "last")), ("last", ("first",))):
        if found[panel] in [found[other] for other in others]:
            found[panel] = None
    return found


def attention_map(store: RunStore, result: RowResult, panel: str, head: int = 0) -> pd.DataFrame:
    """One head's attention on the named pair in the first, middle or last layer (swissBERT, Figures 1-3), one run.

    dev_share is what this head gives, over all STS dev pairs, to what the report's reading of the figure is about
    (`share_of`), dev_share_all the mean over the layer's heads. Where the encoder has no layer of its own for the
    panel, the frame is one line that says so (`missing`).
    """
    (figure, number, share), lines = ATTENTION_PANELS[panel], []
    for record in result.runs[:1]:
        probes, tokens = store.probes(record["run_id"]), record["probes"]["pair_tokens"]
        maps = probes["pair_attention"]  # (L, A, T, T)
        index = attention_layers(len(maps))[panel]
        known = {"run_id": record["run_id"], "layers": len(maps), "panel": panel, "share_of": share}
        known |= {"shown_as": f"{figure}, layer {number} of {REPORT_LAYERS}"}
        if index is None:
            why = f"an encoder of {len(maps)} layers has none of its own here."
            return pd.DataFrame([known | {"missing": why}])
        masses = probes[f"{share}_mass"][index]  # (A,)
        known |= {"layer": index + 1, "head": head + 1}
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
    if "missing" in maps:
        return f"{first['shown_as']} there: {first['missing']}"
    return (
        f"Attention of head {first['head']} in layer {first['layer']} of {first['layers']} (index {first['layer'] - 1} "
        f"from 0) on the report's pair ({first['shown_as']} there); rows attend to columns. Over all STS dev pairs "
        f"this head gives {100 * first['dev_share']:.1f} % of its attention to {SHARE_NAMES[first['share_of']]}, the "
        f"layer's heads {100 * first['dev_share_all']:.1f} % on average."
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
