"""Attention: the right layer and head, shares against hand calculation, and holes that say what they are."""

from __future__ import annotations

import numpy as np
import pytest

from common.declare.rows import row
from common.results import attention
from common.runs.session import RowResult


class Store:
    """Probes of one run: attention that tells layer, head and place apart."""

    def __init__(self, layers: int):
        heads, tokens = 2, 3
        shape = (layers, heads, tokens, tokens)
        self.arrays = {
            "pair_attention": np.arange(np.prod(shape), dtype=np.float32).reshape(shape),
            "cross_mass": np.arange(layers * heads, dtype=np.float32).reshape(layers, heads),
            "near_mass": np.full((layers, heads), 0.5),
            "match_mass": np.linspace(0, 0.9, layers * heads).reshape(layers, heads),
            "para_threshold_curve": np.stack([np.linspace(-1, 1, 5), np.array([0.4, 0.4, 0.5, 0.8, 0.6])]),
        }

    def probes(self, run_id: str) -> dict[str, np.ndarray]:
        return self.arrays


def result(row_id: str) -> RowResult:
    record = {"run_id": "r-s0", "spec": {"seed": 0}, "probes": {"pair_tokens": ["[CLS]", "a", "[SEP]"]}}
    return RowResult(row(row_id), (record,))


@pytest.mark.parametrize(
    ("layers", "shown"), [(1, [1, None, None]), (2, [1, None, 2]), (3, [1, 2, 3]), (6, [1, 4, 6]), (12, [2, 7, 12])]
)
def test_heat_maps_are_of_the_layers_at_the_reports_depth_each_drawn_once(layers: int, shown: list) -> None:
    """1, 6 and 11 of 12 counted from 0: of BERT-base the layers with exactly these indices."""
    found = attention.layers_of(layers)
    assert [None if index is None else index + 1 for index in found.values()] == shown
    drawn = [index for index in found.values() if index is not None]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("layers", [6, 12])
def test_heat_maps_hold_the_attention_of_their_layer_and_head(layers: int) -> None:
    store, of = Store(layers), result("swissbert_pair")
    maps = {panel: attention.heat_map(store, of, panel, head=1) for panel in ("first", "middle", "last")}
    shown = [[index + 1] for index in attention.layers_of(layers).values()]
    assert [frame["layer"].unique().tolist() for frame in maps.values()] == shown
    late = maps["last"]
    cell = late[(late["query_position"] == 1) & (late["key_position"] == 2)].iloc[0]
    assert cell["attention"] == store.arrays["pair_attention"][layers - 1, 1, 1, 2]
    assert (cell["query"], cell["key"]) == ("a", "[SEP]")
    assert maps["first"]["shown_as"].iloc[0] == "Figure 1, layer 1 of 12"


def test_heat_map_says_what_its_reading_comes_to_over_the_whole_dev_set() -> None:
    store, of = Store(2), result("swissbert_pair")
    caption = attention.caption(attention.heat_map(store, of, "last", head=1))
    assert (
        "layer 2 of 2 (index 1 from 0)" in caption
        and "90.0 % of its attention to equal tokens" in caption
        and "75.0 %" in caption
    )
    middle = attention.heat_map(store, of, "middle")
    assert len(middle) == 1 and "an encoder of 2 layers has none of its own here" in attention.caption(middle)
    found = attention.caption(attention.heat_map(Store(6), of, "middle"))
    assert "layer 4 of 6 (index 3 from 0)" in found and "50.0 % of its attention to own neighbours" in found
    none = attention.heat_map(store, RowResult(row("swissbert_pair"), ()), "first")
    assert none.empty and list(none["run_id"]) == [] and attention.caption(none) == "No finished run."


def test_attention_table_separates_the_first_head_from_the_mean() -> None:
    shares = attention.shares(Store(2), {"swissbert_pair": result("swissbert_pair")})
    table = attention.share_table(shares)
    assert table["mean over heads", "other sentence"].tolist() == [0.5, 2.5]
    assert table["first head", "other sentence"].tolist() == [0.0, 2.0]
    assert attention.share_table(shares.iloc[:0]).empty
