"""Frames that figures draw hold the numbers they were made from, each in its place."""

from __future__ import annotations

import numpy as np
import pytest

from common.data import sources
from common.study import cards, frames, reported
from common.study.baselines import Baselines
from common.study.rows import row, rows
from common.study.session import Results, RowResult

CARD = {
    "counts": {"sst": {"train": 10, "dev": 4}, "para": {"train": 8, "dev": 4}, "sts": {"train": 5}},
    "labels": {
        "sst": {"train": {"0": 1, "1": 3, "2": 2, "3": 3, "4": 1}, "dev": {"0": 1, "1": 3}},
        "para": {"train": {"0": 6, "1": 2}, "dev": {"0": 1, "1": 3}},
        "sts": {"train": {"0 to 1": 2, "4 to 5": 3}},
        "cfimdb": {"dev": {"0": 2, "1": 2}},
    },
    "off_steps": {"sts": {"train": 2, "dev": 1}},
    "lengths": {
        task: {"bins": [3.0, 5.0, 9.0], "counts": [6, 2], "max": 9, "mean": 4.5}
        for task in ("sst", "para", "sts", "cfimdb")
    },
    "truncated": {"sst": 2},
    "max_tokens": 512,
    "left_out": {"sst": {}, "para": {"dev": ["a", "b"]}},
}


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


def test_stated_counts_stand_beside_ours_with_their_difference() -> None:
    frame = frames.stated_frame(CARD)
    found = frame[(frame["corpus"] == "Quora") & (frame["part"] == "train")].set_index("what")
    assert found.loc["rows", "stated"] == 141506 and found.loc["rows", "here"] == 8
    assert found.loc["label 1", "here"] == 2 and found.loc["label 1", "difference"] == 2 - 52273
    assert found.loc["label 0", "stated"] + found.loc["label 1", "stated"] == 141498
    test = frame[(frame["corpus"] == "Quora") & (frame["part"] == "test")]
    assert test["here"].isna().all(), "a split that is not there is no zero"


def test_a_whole_corpus_is_counted_where_all_its_parts_are_there() -> None:
    card = CARD | {"counts": {"sst": {"train": 10, "dev": 4, "test": 3}, "para": {"train": 8, "dev": 4}}}
    whole = frames.stated_frame(card).query("part == 'all'").drop_duplicates(["corpus", "what"])
    found = whole.set_index(["corpus", "what"])["here"]
    assert found["SST", "rows"] == 17 and found["STS", "scores off steps of 0.2"] == 3
    uncounted = set(found.index) - {("SST", "rows"), ("STS", "scores off steps of 0.2")}
    assert found[list(uncounted)].isna().all() and ("SST", "phrases") in uncounted and ("MultiNLI", "rows") in uncounted


def test_sizes_of_the_courses_files_are_what_the_reports_state_or_differ_by_what_is_known(cs224n) -> None:
    corpus = sources.load(cs224n)
    card = {"counts": {task: {name: len(part) for name, part in parts.items()} for task, parts in corpus.items()}}
    labelled = {name: part.labels for name, part in corpus["sts"].items() if part.labels is not None}
    card |= {"labels": {}, "off_steps": {"sts": {name: cards._off_steps(labels) for name, labels in labelled.items()}}}
    assert card["off_steps"]["sts"] == {"train": 725, "dev": 97}
    rows = frames.stated_frame(card).query("what == 'rows'").set_index(["report", "corpus", "part"])["difference"]
    for report in ("bertpp", "gu", "siar", "slapbert"):
        assert rows[report, "SST", "all"] == rows[report, "STS", "all"] == 0
    assert rows["siar", "CFIMDB", "all"] == 6 and rows["slapbert", "SST", "dev"] == 0
    parts = ("train", "dev", "test")
    assert [rows["bertpp", "STS", part] for part in parts] == [-1, -1, -1]
    assert [rows["bertpp", "SST", part] for part in parts] == [0, 1101 - 245, 2210 - 488]


def test_label_shares_add_up_to_one_for_each_source() -> None:
    frame = frames.label_frame(CARD)
    assert frame.groupby(["task", "source"])["share"].sum().to_numpy() == pytest.approx(1.0)
    theirs = frame[(frame["task"] == "sst") & (frame["source"] == "report")]
    assert theirs["count"].tolist() == [1092, 2218, 1624, 2322, 1288]


def test_length_histogram_keeps_its_edges_and_the_share_cut() -> None:
    frame = frames.length_frame(CARD)
    first = frame[frame["task"] == "sst"]
    assert first[["from_tokens", "below_tokens", "count"]].values.tolist() == [[3.0, 5.0, 6], [5.0, 9.0, 2]]
    assert first["share_truncated"].iloc[0] == 2 / 8


def test_constant_answer_is_the_most_frequent_dev_label() -> None:
    frame = frames.constant_frame(CARD).set_index("task")
    assert frame.loc["SST", "label"] == "1" and frame.loc["SST", "accuracy"] == 0.75
    assert frame.loc["SST", "balanced accuracy"] == 0.5, "one of the two classes that occur"


def test_left_out_rows_are_named_and_none_is_said() -> None:
    assert frames.left_out_frame(CARD)[["task", "split", "rows left out", "ids"]].values.tolist() == [
        ["Quora", "dev", 2, "a, b"]
    ]
    assert frames.left_out_frame({"left_out": {}})["rows left out"].tolist() == [0]


@pytest.mark.parametrize(
    ("layers", "shown"), [(1, [1, None, None]), (2, [1, None, 2]), (3, [1, 2, 3]), (6, [1, 4, 6]), (12, [2, 7, 12])]
)
def test_heat_maps_are_of_the_layers_at_the_reports_depth_each_drawn_once(layers: int, shown: list) -> None:
    """1, 6 and 11 of 12 counted from 0: of BERT-base the layers with exactly these indices."""
    found = frames.attention_layers(layers)
    assert [None if index is None else index + 1 for index in found.values()] == shown
    drawn = [index for index in found.values() if index is not None]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("layers", [6, 12])
def test_heat_maps_hold_the_attention_of_their_layer_and_head(layers: int) -> None:
    store, of = Store(layers), result("swissbert_pair")
    maps = {panel: frames.attention_map(store, of, panel, head=1) for panel in ("first", "middle", "last")}
    shown = [[index + 1] for index in frames.attention_layers(layers).values()]
    assert [frame["layer"].unique().tolist() for frame in maps.values()] == shown
    late = maps["last"]
    cell = late[(late["query_position"] == 1) & (late["key_position"] == 2)].iloc[0]
    assert cell["attention"] == store.arrays["pair_attention"][layers - 1, 1, 1, 2]
    assert (cell["query"], cell["key"]) == ("a", "[SEP]")
    assert maps["first"]["shown_as"].iloc[0] == "Figure 1, layer 1 of 12"


def test_heat_map_says_what_its_reading_comes_to_over_the_whole_dev_set() -> None:
    store, of = Store(2), result("swissbert_pair")
    caption = frames.map_caption(frames.attention_map(store, of, "last", head=1))
    assert (
        "layer 2 of 2 (index 1 from 0)" in caption
        and "90.0 % of its attention to equal tokens" in caption
        and "75.0 %" in caption
    )
    middle = frames.attention_map(store, of, "middle")
    assert len(middle) == 1 and "an encoder of 2 layers has none of its own here" in frames.map_caption(middle)
    found = frames.map_caption(frames.attention_map(Store(6), of, "middle"))
    assert "layer 4 of 6 (index 3 from 0)" in found and "50.0 % of its attention to own neighbours" in found
    none = frames.attention_map(store, RowResult(row("swissbert_pair"), ()), "first")
    assert none.empty and list(none["run_id"]) == [] and frames.map_caption(none) == "No finished run."


def scored(row_id: str, *scores: float | None) -> RowResult:
    """A row with one record a seed that has this STS r on dev, and 0.1 more on train."""
    records = tuple(
        {"run_id": f"r-s{seed}", "spec": {"seed": seed, "tasks": [{"name": "sts"}]}, "undefined": {"dev": {}}}
        | {"metrics": {"dev": {"sts_corr": r}, "train": {"sts_corr": None if r is None else r + 0.1}}}
        for seed, r in enumerate(scores)
    )
    return RowResult(row(row_id), records)


def test_results_of_a_table_carry_the_labels_and_numbers_that_stand_in_it() -> None:
    every = {r.id: RowResult(r, ()) for r in rows("swissbert")}
    found = frames.in_table(every, "swissbert", "table3")
    assert list(found) == list(reported.labels("swissbert", "table3")) and len(found) == 7
    assert found["swissbert_pair_awl_lr1e5"].row.label == "LR 1e-5, Dropout 0.3, WD 0, AWL LR 1e-5"
    assert every["swissbert_pair_awl_lr1e5"].row.label.startswith("pair encoding, auto")


def test_leaderboards_test_line_stands_beside_the_same_runs() -> None:
    final = RowResult(row("swissbert_final"), ())
    test = frames.on_split(final, "test")
    assert (final.row.reported["overall"], test.row.reported["overall"]) == (0.754, 0.758)
    assert test.row.split == "test" and test.row.label.endswith("Test Leaderboard")


def test_numbers_for_sentences_are_named_by_row_and_metric() -> None:
    found = frames.numbers({"swissbert_pair": scored("swissbert_pair", 0.5, 0.7)})
    assert found["pair_sts_corr"] == pytest.approx(0.6) and found["pair_sts_corr_reported"] == 0.842
    assert frames.numbers({"swissbert_pair": scored("swissbert_pair")})["pair_sts_corr"] == "failed"


def test_scores_of_a_figure_carry_the_baselines_and_say_what_training_touched() -> None:
    zero = "swissbert_zero_shot_cosine"
    against = Baselines({"sts_corr": 0.0, "para_acc": 0.6}, Results({zero: scored(zero, 0.838)}))
    results = {
        "swissbert_pair": scored("swissbert_pair", 0.5, -0.7),
        "siar_baseline_sst": scored("siar_baseline_sst", 0.3),
    }
    frame = frames.metric_frame(results, against, ("sts_corr",))
    assert frame.groupby("source", sort=False)["value"].agg(list).loc[["constant", "zero-shot"]].tolist() == [
        [0.0],
        [0.838],
    ]
    ours = frame[frame["source"] == "here"].groupby("row", sort=False).first()
    assert ours["trained"].tolist() == [True, False], "the SST baseline's STS head is as it was drawn"
    assert ours["at_constant"].tolist() == [True, False], "the mean over seeds of the pair row lies below 0"
    sst = frames.metric_frame(results, against, ("sst_acc",))
    assert set(sst["source"]) == {"report", "here"}, "a baseline without the metric draws no line"
    train = frames.metric_frame(results, against, ("sts_corr",), "train")
    assert set(train["source"]) == {"report", "here"} and not train["at_constant"].any()


def test_differences_are_paired_over_the_seeds_that_both_rows_have() -> None:
    base, other = scored("swissbert_no_extension", 0.1, 0.2, None), scored("swissbert_pair", 0.4, 0.7, 0.9, 0.9)
    untrained = scored("swissbert_pair_joint")
    named = {result.row.id: result for result in (base, other, untrained)}
    frame = frames.differences(named, "swissbert_no_extension")
    assert frame["", "model"].tolist() == ["pair encoding", "pair encoding, joint step"]
    ours = frame["STS Pearson r", "our difference"].tolist()
    assert ours[0] == pytest.approx((0.3 + 0.5) / 2) and np.isnan(ours[1])
    assert frame["STS Pearson r", "printed difference"].tolist()[0] == pytest.approx(0.842 - 0.492)
    assert ("SST accuracy", "our difference") not in frame.columns, "a column without a number says nothing"


def test_attention_table_separates_the_first_head_from_the_mean() -> None:
    shares = frames.attention_shares(Store(2), {"swissbert_pair": result("swissbert_pair")})
    table = frames.attention_table(shares)
    assert table["mean over heads", "other sentence"].tolist() == [0.5, 2.5]
    assert table["first head", "other sentence"].tolist() == [0.0, 2.0]
    assert frames.attention_table(shares.iloc[:0]).empty


def test_threshold_curve_keeps_its_points_and_the_rows_own_threshold() -> None:
    frame = frames.threshold_frame(Store(2), {"swissbert_cosine_similarity": result("swissbert_cosine_similarity")})
    assert frame["threshold"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert frame["accuracy"].tolist() == [0.4, 0.4, 0.5, 0.8, 0.6]
    assert frame["used"].unique().tolist() == [0.0]
