"""The models of the five reports, held against the collected facts field by field.

Expected values are read from the prose of facts/experiments.yaml (what a report states, else the recommended reading);
nothing of ours is repeated here. Where we depart, DEPARTURES says so and DEVIATIONS.md says why.
"""

from __future__ import annotations

import csv
import functools
import importlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from common.declare.profile import ENCODERS, PROFILES
from common.declare.rows import Row, changes, reports, row
from common.declare.spec import CorpusSpec, EncoderSpec, PalSpec, PretrainingSpec, RunSpec, SmartSpec, TaskSpec
from common.declare.strict import to_dict
from common.paths import ROOT

# The package gives its function of the same name, so the module is fetched by name.
rows = importlib.import_module("common.declare.rows")
FACTS = ROOT.parent / "shared" / "facts"
MODELS = {"bertpp": 9, "swissbert": 21, "gu": 15, "siar": 13, "slapbert": 14}
TASK_WORDS = {"sst": "sst", "para": "para", "qqp": "para", "sts": "sts", "cfimdb": "cfimdb"}
# What test numbers and figures belong to was collected as annealed SlapBERT; the report's own best is Setup 2.
CORRECTED = {"slapbert_best_test": "slapbert_setup2"}
# (row, field) in which we depart from what the facts say -> its entry in DEVIATIONS.md.
DEPARTURES = {
    ("swissbert_layer_sharing", "tasks.sst.dropout"): "D14",
    ("swissbert_pair_gs", "surgery.reduction"): "D8",
    ("swissbert_pair_gs_learnable_weights", "surgery.reduction"): "D8",
    ("swissbert_pair_gs_awl_lr1e4", "surgery.reduction"): "D8",
    ("bertpp_model_e", "tasks.sts.dropout"): "D24",
    ("bertpp_model_e", "tasks.para.activation"): "D24",
    ("bertpp_model_e", "tasks.sts.activation"): "D24",
    ("bertpp_model_e", "tasks.sts.output"): "D24",
    ("slapbert_smart_annealed_slapbert_mnrl", "smart.tasks"): "D58",
}
# Rows that are one and the same run, as written and under every profile.
COINCIDE = [
    {"siar_smart_sst_lam10", "siar_sweep_sst_lam10"},
    {"siar_baseline_sst", "siar_smart_sst_lam0"},
    {"slapbert_setup2", "slapbert_best_test"},
]
# Under smoke every batch is at most 8, so rows that differ in their batch alone fall together.
COINCIDE_SMALL_BATCH = [{"bertpp_model_b", "bertpp_model_a_pretraining"}]
# A third of two layers is as much as two thirds of them: one.
COINCIDE_TWO_LAYERS = [
    {"slapbert_setup3", "slapbert_setup3_frozen4", "slapbert_setup3_frozen6", "slapbert_setup3_frozen8"}
]


# The facts, with every "unstated" replaced by its recommended reading.


def settled(value: object) -> object:
    if isinstance(value, dict):
        return settled(value["recommended"]) if "recommended" in value else {k: settled(v) for k, v in value.items()}
    return value


@functools.cache
def facts() -> dict[str, dict]:
    path = FACTS / "experiments.yaml"
    if not path.exists():
        pytest.skip("the collected facts are not beside this checkout")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {entry["id"]: settled(entry) for entry in content["experiments"]}


def numbers() -> list[dict]:
    if not (FACTS / "reported.csv").exists():
        pytest.skip("the collected facts are not beside this checkout")
    with (FACTS / "reported.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def model_ids() -> list[str]:
    """Ids of all models that our files hold: rows of a table or figure, not controls."""
    return [r.id for report in reports() for r in rows.rows(report) if not r.table.startswith("controls")]


# From prose to the fields of a RunSpec.


def task_names(text: str) -> list[str]:
    """Task names in the order the text mentions them."""
    return list(dict.fromkeys(TASK_WORDS[word] for word in re.findall(r"\b(sst|para|qqp|sts|cfimdb)\b", text.lower())))


def first_number(text: object) -> float:
    return float(re.search(r"\d[\d,]*(\.\d+)?(e-?\d+)?", str(text))[0].replace(",", ""))


def runs_of(entry: dict) -> list[tuple[list[str], list[str]]]:
    """(tasks of the run, those of them that are trained) for each run of a model."""
    trained = task_names(" ".join(entry["tasks"]))
    if re.search("one model per data set|each model on its own", entry["schedule"]["detail"]):
        return [([task], [task]) for task in trained]
    return [(list(entry["architecture"]["heads"]), trained)] if trained else []


def pooling(entry: dict, task: str) -> str:
    said, definition = entry["architecture"]["pooling"], entry["architecture"].get("cls_definition", "")
    if isinstance(said, dict):
        return {"MEAN": "mean", "CLS": "cls" if "no tanh" in definition else "pooler"}[said[task]]
    clauses = said.split(";")
    chosen = next((clause for clause in clauses if task in task_names(clause)), clauses[0])
    return "mean" if "mean of" in chosen else "pooler" if re.search("pooler|pooled", chosen) else chosen


def head_text(entry: dict, task: str) -> str:
    heads = entry["architecture"]["heads"]
    return heads["para"] if heads[task].startswith("same structure as para") else heads[task]


def pair_fields(entry: dict, task: str) -> dict:
    text = (entry["architecture"]["pair_method"] or {}).get(task)
    if text is None:
        return {"pair_method": "single"}
    if "cosine" in text:
        return {"pair_method": "cosine"}
    if "separate" in text:
        return {"pair_method": "separate"}
    assert "one pass" in text or "direct concatenation" in text
    has_segments = entry["architecture"]["token_type_ids"].startswith("0 for sentence 1, 1 for sentence 2")
    return {"pair_method": "pair", "segments": has_segments, "separator": "no separator" not in text}


def head_fields(entry: dict, task: str) -> dict:
    """Layers, activation and dropout of a head, from a text such as "Dropout -> Linear(768,768) -> GELU -> ..."."""
    text, stated = head_text(entry, task), entry["architecture"]["dropout"]["head"]
    is_projected = "per sentence" in text
    layers = max(1, text.count("Linear(") - is_projected)
    word = re.search("LeakyReLU|GELU", text) if layers > 1 else None
    has_dropout = re.search("dropout|untrained|never trained", text, re.IGNORECASE)
    return {
        "projection": is_projected,
        "head_layers": layers,
        "activation": {"LeakyReLU": "leaky_relu", "GELU": "gelu"}[word[0]] if word else "relu",
        "dropout": (stated[task] if isinstance(stated, dict) else stated) if has_dropout else 0.0,
        "inner_dropout": text.count("Dropout") > 1,
        "shared_layer": text.startswith("shared Linear"),
        "shared_transformer": isinstance(entry["architecture"].get("shared_layer"), dict),
    }


def loss(entry: dict, task: str) -> str:
    words = {"MNRL": "mnrl", "CosineEmbedding": "cosine_embedding", "binary|BCE": "bce", "MSE": "mse"}
    said = entry["losses"][task]
    return next((name for word, name in words.items() if re.search(word, said)), "cross_entropy")


def output(entry: dict, task: str) -> str:
    text = head_text(entry, task)
    words = {"5*ReLU": "relu_times_five", "5*sigmoid": "sigmoid_times_five", "5*cos": "times_five"}
    found = next((name for word, name in words.items() if word in text), "raw")
    return "relu" if "cosine -> ReLU" in text else found


def threshold(entry: dict, task: str) -> float:
    said = entry["decision"].get("para_threshold", "") if task == "para" else ""
    return first_number(said.split(">")[1]) if "cos >" in said and "sigmoid" not in said else 0.5


def cap_fields(entry: dict, task: str) -> dict:
    """A set that is cut, or batches that are drawn from it anew in every epoch."""
    said = entry["data"]["caps"]
    if "every training set capped at" in said:
        return {"examples": int(first_number(said))}
    if task in task_names(said.split(":")[0]) and "batches of 8 per" in said:
        return {"per_epoch": int(first_number(said.split("(")[1]))}
    return {}


def task_fields(entry: dict, task: str, trained: list[str]) -> dict:
    return {
        "name": task,
        "pooling": pooling(entry, task),
        **pair_fields(entry, task),
        **head_fields(entry, task),
        "loss": loss(entry, task),
        "output": output(entry, task),
        "threshold": threshold(entry, task),
        **(cap_fields(entry, task) if task in trained else {}),
        "sampling_share": float(entry["schedule"].get("weights", {}).get(task, 1)),
        "trained": task in trained,
    }


def pretraining(said: dict | None) -> dict | None:
    if said is None:
        return None
    names, corpora = {"IMDB": "imdb", "MultiNLI": "mnli", "SICK": "sick"}, []
    for text in said["corpus"]:
        amount = re.search(r"recommended (\d+k)", text) or re.search(r"(\d[\d,]*k?) (?:examples|pairs)", text)
        count = amount[1].replace(",", "").replace("k", "000")
        corpora.append(CorpusSpec(names[re.split(r"\W", text)[0]], int(count)))
    known = {name: said[name] for name in ("epochs", "batch_size", "lr", "weight_decay")}
    share = first_number(said["objective"]) / 100
    return to_dict(PretrainingSpec(tuple(corpora), **known, block=said["chunk"], mask_frac=share))


def encoder_fields(entry: dict) -> dict:
    said, pals = entry["freezing"], entry["pals"]
    dropout = entry["architecture"]["dropout"]
    has_gelu = pals is not None and pals["output_gelu"].startswith("yes")
    return {
        "checkpoint": re.match(r"[\w-]+", entry["architecture"]["backbone"])[0],
        "frozen": said.startswith("BERT frozen"),
        "frozen_layers": 2 if said.startswith("first two BERT layers frozen") else 0,
        "trained_by": ["sts"] if said == "all non-PAL BERT layers, except for similarity" else None,
        "hidden_dropout": dropout["bert_hidden"],
        "attention_dropout": dropout["bert_attention"],
        "pals": pals and to_dict(PalSpec(size=pals["d_s"], heads=pals["heads"], gelu=has_gelu)),
        "pretraining": pretraining(entry["additional_pretraining"]),
    }


def schedule_fields(entry: dict) -> dict:
    said = entry["schedule"]
    kind, length = said["type"], said.get("epoch_length", "")
    if "interleaved" in kind:
        is_joint = "one update per cycle" in said["per_step"]
        found = "joint" if is_joint else "interleaved"
    else:
        starts = {"joint": "joint", "biased": "biased", "annealed": "annealed", "sequential": "sequential"}
        found = next((name for word, name in starts.items() if kind.startswith(word)), "round_robin")
    stop = "shortest"
    if found == "joint" and "cycled" in kind + length:
        stop = "cycle"
    elif found == "joint" and re.search("until Quora is exhausted", length):
        stop = "longest"
    return {
        "kind": found,
        "order": "random" if found == "interleaved" and "random" in said["order"] else "fixed",
        "stop": stop,
        "updates": int(first_number(length)) if found == "annealed" else None,
    }


def rate_fields(entry: dict) -> dict:
    said, epochs = entry["optimizer"]["scheduler"], entry["optimizer"]["epochs"]
    values = {name: float(number) for name, number in re.findall(r"(\w+)[= ]([\d.]+\d|\d+)", said)}
    if said.startswith("StepLR"):
        return {"kind": "step", "step": values["step_size"] / epochs, "factor": values["gamma"]}
    if said.startswith("ReduceLROnPlateau"):
        return {"kind": "plateau", "factor": values["factor"], "patience": values["patience"] / epochs}
    if said.startswith("linear warm-up"):
        return {"kind": "linear", "warmup": first_number(said) / 100}
    assert said == "none"
    return {"kind": "constant"}


def weighting_fields(entry: dict) -> dict:
    said = entry["loss_weighting"]
    if not isinstance(said, dict):
        return {"kind": "fixed"}
    words = {"linear": "linear", "homoscedastic": "uncertainty", "automatic": "automatic", "dynamically": "dynamic"}
    kind = next(name for word, name in words.items() if word in said["kind"])
    is_models = str(said["lr"]).startswith("same as model")
    return {"kind": kind, "lr": entry["optimizer"]["lr"] if is_models else float(said["lr"])}


def surgery_fields(entry: dict) -> dict:
    """The packaged code averages; a bare "yes" is read as the report's other rows, which all name that code."""
    said = entry["gradient_surgery"]
    if said == "no":
        return {"kind": "none"}
    named = said if isinstance(said, dict) else {"implementation": "Pytorch-PCGrad"}
    is_mean = "mean" in named.get("reduction", "") or "Pytorch-PCGrad" in named["implementation"]
    return {"kind": "pcgrad", "reduction": "mean" if is_mean else "sum"}


def smart_fields(entry: dict, tasks: list[str]) -> dict | None:
    said = entry["smart"]
    if said is None:
        return None
    assert said["divergence"] == "symmetrised KL" and said["bregman"] == "not used"
    applied = said["applied_to"].split("(")[0]
    made = SmartSpec(
        weight=first_number(said["lambda_s"]),
        tasks=tuple(tasks if applied.startswith("each task") else task_names(applied)),
        variant="mt_dnn" if "L-inf" in said["norm"] else "paper",
        steps=said["steps"],
        step_size=said["step_size"],
        noise=float(re.search(r"\de-\d", said["noise_init"])[0]),
        epsilon=said["epsilon"],
    )
    return to_dict(made)


def expected(entry: dict, tasks: list[str], trained: list[str]) -> dict:
    """Every field of a RunSpec as plain values; a field that the facts do not speak of holds its default."""
    plain = to_dict(RunSpec(tasks=(TaskSpec("sst"),)))
    plain["tasks"] = {t: to_dict(TaskSpec("sst")) | task_fields(entry, t, trained) for t in tasks}
    plain["encoder"] = to_dict(EncoderSpec()) | encoder_fields(entry)
    said = entry["optimizer"]
    rates = {"lr": said["lr"], "weight_decay": float(said["weight_decay"]), "eps": said["eps"]}
    betas = {"beta1": said["betas"][0], "beta2": said["betas"][1]}
    plain["optimizer"] |= rates | betas | {"rate": plain["optimizer"]["rate"] | rate_fields(entry)}
    for part, fields in (("schedule", schedule_fields), ("weighting", weighting_fields), ("surgery", surgery_fields)):
        plain[part] |= fields(entry)
    return plain | {
        "smart": smart_fields(entry, tasks),
        "batch_size": said["batch_size"],
        "epochs": said["epochs"],
    }


def found(spec: RunSpec) -> dict:
    """Our spec in the same form: tasks by name, a learned weight's rate spelled out, groups as yes or no."""
    plain = to_dict(spec)
    plain["tasks"] = {
        task["name"]: task | {"shared_layer": task["shared_layer"] is not None} for task in plain["tasks"]
    }
    if spec.weighting.kind != "fixed" and spec.weighting.lr is None:
        plain["weighting"]["lr"] = spec.optimizer.lr
    return plain


def differing(ours: object, theirs: object, path: str = "") -> set[str]:
    """Dotted names of the fields that differ; a part that one side lacks is one field."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return set() if ours == theirs else {path}
    return {
        name
        for key in {*ours, *theirs}
        for name in differing(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    }


# The tests.


def test_the_72_models_stand_in_the_tables_that_print_them() -> None:
    models = facts()
    assert {report: len([n for n in model_ids() if row(n).report == report]) for report in reports()} == MODELS
    assert sorted(model_ids()) == sorted(models)
    for name, entry in models.items():
        assert row(name).report == entry["report"]
        tables = {place["table"] for place in entry["appears_in"]}
        assert {r.table for r in rows._load(entry["report"])[name]} == tables, name


def test_every_printed_model_is_a_row_with_its_numbers() -> None:
    """Rows of the text and of examples are no models; a table has each number it prints in the row of that id."""
    tables = {(r.report, r.table) for report in reports() for held in rows._load(report).values() for r in held}
    checked = 0
    for line in numbers():
        if (line["report"], line["table"]) in tables:
            held = next(r for r in rows.rows(line["report"], line["table"]) if r.id == line["row_id"])
            if held.split == line["split"]:
                is_normalised = (line["report"], line["metric"]) == ("slapbert", "overall")
                name = "overall_normalised" if is_normalised else line["metric"]
                assert held.reported[name] == float(line["value"])
                assert held.label == line["row_label"]
                checked += 1
    assert checked == sum(len(r.reported) for r in held_rows())
    assert {line["row_id"] for line in numbers() if (line["report"], line["table"]) in tables} <= set(model_ids())


def held_rows() -> list[Row]:
    return [r for report in reports() for held in rows._load(report).values() for r in held]


def test_rows_stand_in_the_order_of_the_printed_table() -> None:
    printed = defaultdict(list)
    for line in numbers():
        printed[line["report"], line["table"]].append(line["row_id"])
    for r in held_rows():
        if r.reported:
            wanted = list(dict.fromkeys(printed[r.report, r.table]))
            assert [held.id for held in rows.rows(r.report, r.table)] == wanted


@pytest.mark.parametrize("name", model_ids())
def test_spec_holds_what_the_facts_say(name: str) -> None:
    entry, ours = facts()[CORRECTED.get(name, name)], row(name)
    runs = runs_of(entry)
    assert len(ours.specs) == len(runs)
    departed = {field for (of, field) in DEPARTURES if of == name}
    for spec, (tasks, trained) in zip(ours.specs, runs, strict=True):
        assert [task.name for task in spec.tasks] == tasks
        assert differing(found(spec), expected(entry, tasks, trained)) == departed
        assert task_names(entry["schedule"].get("order", "")) in ([], [t.name for t in spec.trained_tasks])
    assert ours.combine == {0: "random", 1: "one"}.get(len(runs), "per_task")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"optimizer.lr": 3e-5}, "optimizer.lr"),
        ({"tasks.sts.pooling": "cls"}, "tasks.sts.pooling"),
        ({"tasks.para.inner_dropout": True}, "tasks.para.inner_dropout"),
        ({"smart": {"weight": 1.0, "tasks": ["sst"]}}, "smart"),
        ({"schedule.stop": "shortest"}, "schedule.stop"),
        ({"encoder.pretraining.corpora": [{"name": "imdb", "examples": 5}]}, "encoder.pretraining.corpora"),
    ],
)
def test_a_wrong_field_is_seen(change: dict, field: str) -> None:
    """The comparison itself can fail: one changed field of a model shows as that field."""
    values = to_dict(row("bertpp_model_g").specs[0])
    rows._change(values, change, "test")
    entry = facts()["bertpp_model_g"]
    assert differing(found(RunSpec.from_dict(values)), expected(entry, *runs_of(entry)[0])) == {field}


def test_every_departure_is_an_entry_of_the_deviations() -> None:
    entries = re.findall(r"^- \*\*(D\d+) ", Path(ROOT, "DEVIATIONS.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(entries)) == len(entries)
    assert set(DEPARTURES.values()) <= set(entries)


@pytest.mark.parametrize("report", MODELS)
def test_every_row_differs_from_its_base(report: str) -> None:
    ids = {r.id for r in rows.rows(report)}
    for r in rows.rows(report):
        if r.base is not None:
            assert r.base in ids
            assert changes(r, row(r.base)) or r.combine != row(r.base).combine, r.id
    assert len({r.id for r in rows.rows(report, "controls")}) >= 3


@pytest.mark.parametrize("profile", ["paper", "gpu", "cpu"])
def test_weight_decay_of_table_3_is_lost_in_single_precision(profile: str) -> None:
    """So its rows tell of the rates alone, and those that differ in decay need no control."""
    for r in rows.rows("swissbert", "table3"):
        held = PROFILES[profile].apply(r.specs[0]).optimizer
        if r.specs[0].optimizer.lr == 1e-5:
            assert np.float32(1 - held.lr * held.weight_decay) == 1


def test_no_row_lacks_a_base_but_the_first_of_a_table() -> None:
    first = {r.id for r in held_rows() if rows.rows(r.report, r.table)[0].id == r.id}
    alone = {"swissbert_no_extension", "swissbert_minbert_finetune", "slapbert_randbert"}
    alone |= {"siar_cosine_sts", "siar_mtl_capped"}  # Table 1 sets each beside the others, none is built on another
    assert {r.id for r in held_rows() if r.base is None} <= first | alone


@pytest.mark.parametrize("profile", PROFILES)
def test_every_spec_runs_under_every_profile_with_an_id_of_its_own(profile: str) -> None:
    ids = defaultdict(set)
    for r in held_rows():
        applied = tuple(PROFILES[profile].apply(spec).run_id for spec in r.specs)
        for run_id in applied:
            ids[run_id].add(r.id)
    together = [names for names in ids.values() if len(names) > 1]
    known = COINCIDE + (COINCIDE_SMALL_BATCH if PROFILES[profile].max_batch == 8 else [])
    known += COINCIDE_TWO_LAYERS if ENCODERS[PROFILES[profile].encoder].layers == 2 else []
    assert sorted(map(sorted, together)) == sorted(map(sorted, known))
