"""A diagram is sound Mermaid, shows what its spec says, and differs wherever what is built differs."""

from __future__ import annotations

import itertools
import re

import pytest

from common.declare.rows import reports, row, rows
from common.declare.spec import RunSpec
from common.declare.strict import to_dict
from common.results.architecture import architecture

NODE = re.compile(r'    (\w+)\["([^"\[\]]*(?:\[SEP\][^"\[\]]*)?)"\]')
EDGE = re.compile(r'    (\w+) (-->|-\.->|==>)(?:\|"([^"|]+)"\|)? (\w+)')
SPECS = {(of.id, place): spec for report in reports() for of in rows(report) for place, spec in enumerate(of.specs)}
# Fields that say how long, on what and at which rate, not what is built. A share of sampling draws no other picture.
ELSEWHERE = {
    *("optimizer", "batch_size", "epochs", "data", "precision", "engine", "grouping", "seed"),
    *("dev_examples", "final_examples", "train_examples"),
}
OF_TASKS = {"examples", "per_epoch", "sampling_size", "sampling_share"}


def drawn(spec: RunSpec) -> tuple[dict[str, str], dict[tuple[str, str], tuple[str, str]]]:
    """Nodes with their text, and edges with their arrow and text; every line must be one of both."""
    first, *lines = architecture(spec).split("\n")
    assert first == "flowchart TD"
    nodes, edges = {}, {}
    for line in lines:
        node, edge = NODE.fullmatch(line), EDGE.fullmatch(line)
        assert bool(node) != bool(edge), line
        if node:
            assert node[1] not in nodes, line
            nodes[node[1]] = node[2]
        else:
            edges[edge[1], edge[4]] = (edge[2], edge[3] or "")
    assert {name for pair in edges for name in pair} == set(nodes), "no edge to nowhere and no node apart"
    return nodes, edges


def built(spec: RunSpec) -> dict:
    """What of a spec decides its diagram: fields without effect on this model left out."""
    values = {name: value for name, value in to_dict(spec).items() if name not in ELSEWHERE}
    values["trains"] = spec.epochs > 0
    values["schedule"].pop("updates")
    values["weighting"].pop("lr")
    if values["schedule"]["kind"] not in ("interleaved", "joint"):
        values["schedule"].pop("stop")
    if spec.epochs == 0:
        values |= dict.fromkeys(("schedule", "weighting", "surgery", "smart"))
    if spec.smart and not spec.smart.is_on:
        values["smart"] = None
    pretraining = values["encoder"]["pretraining"]
    if pretraining:
        values["encoder"]["pretraining"] = {name: pretraining[name] for name in ("corpora", "block", "mask_frac")}
    values["tasks"] = [{n: v for n, v in task.items() if n not in OF_TASKS} for task in values["tasks"]]
    for task in values["tasks"]:
        if task["pair_method"] == "cosine" and not task["projection"]:
            task["dropout"] = 0.0
        if task["head_layers"] == 1 and not task["projection"]:
            task["activation"] = ""
    return values


@pytest.mark.parametrize("name", SPECS, ids=lambda name: f"{name[0]}-{name[1]}")
def test_every_row_is_drawn_soundly(name: tuple[str, int]) -> None:
    spec = SPECS[name]
    nodes, edges = drawn(spec)
    for task in spec.tasks:
        inputs = ["a", "b"] if task.pair_method in ("separate", "cosine") else ["in"]
        assert all((f"{task.name}_{place}", "bert") in edges for place in inputs)
        assert (f"{task.name}_loss", "update") in edges or nodes[f"{task.name}_loss"] == "not trained"


def test_diagrams_are_equal_where_what_is_built_is_equal_and_nowhere_else() -> None:
    for (one, first), (other, second) in itertools.combinations(SPECS.items(), 2):
        assert (architecture(first) == architecture(second)) == (built(first) == built(second)), (one, other)


CHANGES = [
    *(("encoder.frozen", True), ("encoder.hidden_dropout", 0.2), ("encoder.attention_dropout", 0.2)),
    *(("encoder.frozen_layers", 2), ("encoder.trained_by", ["sst"]), ("encoder.pals", {"size": 204, "heads": 12})),
    ("encoder.pretraining", {"corpora": [{"name": "imdb", "examples": 5}]}),
    *(("tasks.para.pair_method", "pair"), ("tasks.para.pooling", "mean"), ("tasks.para.head_layers", 2)),
    *(("tasks.para.features", "sbert"), ("tasks.para.projection", True), ("tasks.para.threshold", 0.7)),
    *(("tasks.para.shared_transformer", True), ("tasks.para.loss", "mnrl"), ("tasks.para.trained", False)),
    *(("tasks.para.loss_weight", 0.5), ("tasks.sst.dropout", 0.2)),
    *(("schedule.kind", "joint"), ("schedule.order", "random"), ("weighting.kind", "uncertainty")),
    ("smart", {"weight": 1.0, "tasks": ["sst"]}),
]


@pytest.mark.parametrize(("field", "value"), CHANGES, ids=[field for field, _ in CHANGES])
def test_a_change_of_one_field_changes_the_diagram(field: str, value: object) -> None:
    from common.declare.rows import variant

    plain = row("slapbert_initial_mtl_rate_1e5")
    varied = variant(plain, "varied", **{field: value})
    assert architecture(plain.specs[0]) != architecture(varied.specs[0])
    drawn(varied.specs[0])


def test_pairs_of_swissbert_share_one_input_and_one_encoder() -> None:
    nodes, edges = drawn(row("swissbert_final").specs[0])
    assert nodes["para_in"] == "Quora: both sentences in one input, [SEP] between"
    assert nodes["sst_in"] == "SST: one sentence" and "para_a" not in nodes
    assert edges["sts_loss", "update"] == ("-->", "times its learned weight")
    assert "learned weights: L / (2 c^2) + log(1 + c^2)" in nodes["update"]
    assert edges["update", "bert"] == ("-.->", "gradients")


def test_gus_cosine_reads_sentences_apart_and_has_no_head_to_train() -> None:
    nodes, edges = drawn(row("gu_para_cos_mean_t075").specs[0])
    assert nodes["sts_vector"] == "u and v: mean over tokens" and nodes["sts_head"] == "5 ReLU(cosine)"
    assert nodes["para_out"] == "yes if the cosine exceeds 0.75" and nodes["para_loss"] == "squared error"
    assert ("sts_vector", "sts_head") in edges and ("sts_b", "bert") in edges


def test_slapberts_adapters_are_a_tasks_own_and_its_layer_is_shared() -> None:
    nodes, edges = drawn(row("slapbert_smart_annealed_slapbert").specs[0])
    assert {"sst_pals", "para_pals", "sts_pals"} <= set(nodes) and "down to 204" in nodes["sts_pals"]
    assert edges["sts_pals", "bert"] == ("-->", "added to each layer")
    assert edges["para_vector", "shared"] == ("-->", "") and edges["shared", "para_head"][1] == "Quora"
    assert ("smart", "sst_loss") in edges and "drawn by its size" in nodes["update"]


def test_bertpps_pretraining_and_surgery_are_drawn_where_they_act() -> None:
    nodes, edges = drawn(row("bertpp_model_h").specs[0])
    assert edges["pretraining", "bert"] == ("==>", "weights") and "imdb" in nodes["pretraining"]
    assert "PCGrad on shared gradients, mean" in nodes["update"] and "short sets again" in nodes["update"]
    assert "dense" in " ".join(nodes) and ("sts_dense", "sts_features") in edges


def test_smart_acts_on_the_losses_of_its_tasks_alone() -> None:
    nodes, edges = drawn(row("siar_mtl_smart").specs[0])
    assert [stop for start, stop in edges if start == "smart"] == ["sst_loss"]
    assert edges["smart", "sst_loss"] == ("-.->", "lambda 10") and "mt_dnn" in nodes["smart"]
    assert "smart" not in drawn(row("siar_mtl_nocap").specs[0])[0]


def test_what_is_not_trained_leads_to_no_update() -> None:
    nodes, edges = drawn(row("siar_baseline_sst").specs[0])
    assert nodes["para_loss"] == "not trained" and ("para_loss", "update") not in edges
    frozen = drawn(row("swissbert_baseline_frozen").specs[0])
    assert ("update", "bert") not in frozen[1] and frozen[0]["bert"].endswith("frozen")
    untrained = drawn(row("swissbert_zero_shot_cosine").specs[0])
    assert "update" not in untrained[0] and set(untrained[0].values()) >= {"not trained"}


def test_a_ranking_loss_acts_on_all_pairs_and_not_on_the_head() -> None:
    mnrl = [spec for spec in SPECS.values() if any(t.loss == "mnrl" and t.trained for t in spec.tasks)]
    assert mnrl
    for spec in mnrl:
        nodes, edges = drawn(spec)
        name = next(task.name for task in spec.tasks if task.loss == "mnrl")
        assert (f"{name}_pairs", f"{name}_loss") in edges and (f"{name}_head", f"{name}_loss") not in edges
        assert "all pairs" in nodes[f"{name}_pairs"]
