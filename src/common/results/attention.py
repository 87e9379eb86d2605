"""Where attention goes: heat maps of a named pair (swissBERT, Figures 1 to 3), and shares over all STS dev pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from common.results.long import runs_of
from common.runs.session import Results, RowResult
from common.runs.store import RunStore

# The layer that each heat map is said to show, and the share of attention that its reading is about (section 6).
# Whether the report counts its 12 layers from 0 or from 1 is not said. Counted from 0, as code does, 11 is the last
# one and the three lie evenly; so we take it (DEVIATIONS.md).
PANELS = {
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


def layers_of(layers: int) -> dict[str, int | None]:
    """Panel -> index from 0 of the layer at the depth of the report's; None where it has no layer of its own.

    An encoder of two layers has a first and a last one, and none between them.
    """
    depths = {panel: number / (REPORT_LAYERS - 1) for panel, (_, number, _) in PANELS.items()}
    found: dict[str, int | None] = {panel: round(depth * (layers - 1)) for panel, depth in depths.items()}
    for panel, others in (("middle", ("first", "last")), ("last", ("first",))):
        if found[panel] in [found[other] for other in others]:
            found[panel] = None
    return found


def heat_map(store: RunStore, result: RowResult, panel: str, head: int = 0) -> pd.DataFrame:
    """One head's attention on the named pair in the first, middle or last layer (swissBERT, Figures 1-3), one run.

    dev_share is what this head gives, over all STS dev pairs, to what the report's reading of the figure is about
    (`share_of`), dev_share_all the mean over the layer's heads. Where the encoder has no layer of its own for the
    panel, the frame is one line that says so (`missing`).
    """
    (figure, number, share), lines = PANELS[panel], []
    for record in result.runs[:1]:
        probes, tokens = store.probes(record.run_id), record["probes"]["pair_tokens"]
        maps = probes["pair_attention"]  # (L, A, T, T)
        index = layers_of(len(maps))[panel]
        known = {"run_id": record.run_id, "layers": len(maps), "panel": panel, "share_of": share}
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


def caption(maps: pd.DataFrame) -> str:
    """What one `heat_map` shows, and over the whole dev set how much attention goes where the report
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


def shares(store: RunStore, results: Results) -> pd.DataFrame:
    """Shares of the attention that sentence tokens give, by layer and head, averaged over STS dev."""
    lines = []
    for _, record, known in runs_of(results):
        probes = store.probes(record.run_id)
        for name in sorted(name for name in probes if name.endswith("_mass")):
            for (layer, head), share in np.ndenumerate(probes[name]):
                place = {"share_of": name.removesuffix("_mass"), "layer": layer + 1, "head": head + 1}
                lines.append(known | place | {"share": float(share)})
    columns = ["row", "label", "method", "run_id", "seed", "share_of", "layer", "head", "share"]
    return pd.DataFrame(lines, columns=columns)


def share_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Shares of attention by model and layer: the mean over heads (and seeds), and the first head's."""
    by = ["label", "layer"]
    means = frame.pivot_table("share", by, "share_of", sort=False)
    first = frame[frame["head"] == 1].pivot_table("share", by, "share_of", sort=False)
    both = pd.concat({"mean over heads": means, "first head": first}, axis=1).rename(columns=SHARE_NAMES).reset_index()
    # The two index columns come back as (name, ""); as leaves they stand in the lower line of the header.
    return both.set_axis(pd.MultiIndex.from_tuples([(a, b) if b else ("", a) for a, b in both.columns]), axis=1)
