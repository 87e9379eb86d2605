"""Rows as data: what experiments/*.yaml gives, and what it refuses."""

import importlib
import os
import subprocess
import sys

import pytest
import yaml

from common.declare import reported
from common.declare.rows import Row, changes, examples, row, variant
from common.errors import StudyError

# The package gives its function of the same name, so the module is fetched by name.
rows = importlib.import_module("common.declare.rows")
TABLE2 = [
    "swissbert_baseline_frozen",
    "swissbert_no_extension",
    "swissbert_layer_sharing",
    "swissbert_cosine_similarity",
    "swissbert_pair",
    "swissbert_pair_learnable_weights",
    "swissbert_pair_homoscedastic",
    "swissbert_pair_awl_lr1e5",
    "swissbert_pair_gs",
    "swissbert_pair_gs_learnable_weights",
    "swissbert_pair_gs_awl_lr1e4",
    "swissbert_pair_sample_awl_lr1e4",
]


def test_rows_come_in_the_order_of_the_report_with_its_numbers():
    found = rows.rows("swissbert", "table2")
    assert [r.id for r in found] == TABLE2
    assert found[0].label == "Baseline: no extension(pretrain)"
    assert found[4].reported == {"sst_acc": 0.506, "para_acc": 0.855, "sts_corr": 0.842, "overall": 0.734}
    assert all(r.reported == reported.printed("swissbert", "table2")[r.id] for r in found)


def test_every_row_holds_the_settings_that_section_5_3_states():
    for r in rows.rows("swissbert", "table2"):
        (spec,) = r.specs
        assert (spec.epochs, spec.batch_size, spec.optimizer.lr, spec.optimizer.weight_decay) == (20, 32, 1e-5, 0.0)
        assert spec.schedule.kind in ("interleaved", "joint", "biased") and spec.schedule.stop == "shortest"
        assert spec.task("sst").dropout == 0.3


def test_a_row_changes_only_what_it_names():
    base = row("swissbert_no_extension")
    pair = changes(row("swissbert_pair"), base)
    assert pair == {"tasks.para.pair_method": ("separate", "pair"), "tasks.sts.pair_method": ("separate", "pair")}
    assert changes(row("swissbert_baseline_frozen"), base) == {"encoder.frozen": (False, True)}
    assert changes(base, base) == {}


def test_a_dropped_task_is_one_change():
    found = changes(row("swissbert_zero_shot_cosine"), row("swissbert_cosine_similarity"))
    assert found["tasks.sst"] == (True, False)
    assert not any(key.startswith("tasks.sst.") for key in found)


def test_tasks_are_trained_in_the_order_a_row_names_and_that_is_one_change():
    first = row("bertpp_model_a_sts_first")
    assert [task.name for task in first.specs[0].tasks] == ["sts", "sst", "para"]
    assert changes(first, row(first.base)) == {"tasks": (["sst", "para", "sts"], ["sts", "sst", "para"])}


def test_changes_stand_in_one_order_whatever_strings_hash_to():
    code = "from common.declare.rows import changes, row; m = row('gu_ensembling'); print([*changes(m, row(m.base))])"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1 and b"tasks.para" in found.pop()


def test_a_part_that_only_one_row_has_is_one_change():
    held = row("slapbert_smart_annealed_slapbert")
    found = changes(held, row(held.base))
    assert found["encoder.pals"] == (None, {"size": 204, "heads": 12, "gelu": True, "start": "random"})
    assert not any(key.startswith("encoder.pals.") for key in found)
    assert changes(row(held.base), held)["encoder.pals"] == (found["encoder.pals"][1], None)


def test_a_change_below_a_part_that_both_rows_have_is_that_field_alone():
    sweep = row("siar_sweep_sst_lam5")
    assert changes(sweep, row(sweep.base)) == {"smart.weight": (10.0, 5.0)}
    assert row(sweep.base).specs[0].smart.weight == 10.0  # the derived row left its base as it was


def test_controls_report_nothing():
    controls = [r for report in rows.reports() for r in rows.rows(report) if r.table.startswith("controls")]
    assert len(controls) > 40 and all(r.reported == {} for r in controls)


def test_no_two_rows_train_the_same_thing():
    ids = [spec.run_id for r in rows.rows("swissbert") for spec in r.specs]
    assert len(set(ids)) == len(ids)


def test_a_row_of_several_tables_has_the_numbers_and_the_label_of_each():
    second, third = (
        next(r for r in rows.rows("gu", table) if r.id == "gu_para_concat_sep_cls_1l") for table in ("table2", "table3")
    )
    assert (second.table, third.table) == ("table2", "table3")
    assert second.label.startswith("Concat.") and third.label.startswith("Round-robin")
    assert second.specs == third.specs
    assert row("gu_para_concat_sep_cls_1l").table == "table2"
    assert len([r for r in rows.rows("gu") if r.id == second.id]) == 1


def test_the_numbers_are_of_dev_unless_the_table_prints_another_split():
    on_dev, on_test = (
        next(r for r in rows.rows("bertpp", table) if r.id == "bertpp_model_d") for table in ("table2", "table3")
    )
    assert (on_dev.split, on_dev.reported["sst_acc"]) == ("dev", 0.446)
    assert (on_test.split, on_test.reported["sst_acc"]) == ("test", 0.514)
    assert {r.split for r in rows.rows("slapbert", "table6")} == {"train"}
    (final,) = rows.rows("swissbert", "table4")
    assert (final.split, final.reported["overall"]) == ("dev", 0.754) and final.label.endswith("Dev Leaderboard")


def test_a_row_of_several_runs_has_one_per_task():
    ensembling = row("gu_ensembling")
    assert ensembling.combine == "per_task"
    assert [[task.name for task in spec.tasks] for spec in ensembling.specs] == [["sst"], ["para"], ["sts"]]
    assert [[task.name for task in spec.tasks] for spec in row("swissbert_minbert_pretrain").specs] == [
        ["sst"],
        ["cfimdb"],
    ]
    assert all(spec.encoder.frozen for spec in row("swissbert_minbert_pretrain").specs)  # runs come from its base


def test_changes_of_rows_with_several_or_no_runs():
    frozen, tuned = row("swissbert_minbert_pretrain"), row("swissbert_minbert_finetune")
    assert changes(frozen, tuned) == {"encoder.frozen": (False, True), "optimizer.lr": (1e-5, 1e-3)}
    random = row("slapbert_randbert")
    assert (random.specs, random.combine) == ((), "random")
    assert changes(random, frozen) == changes(frozen, random) == {}
    assert variant(random, "again", epochs=1).specs == ()


def test_variant_is_compared_with_its_origin():
    longer = variant(row("swissbert_pair"), "pair encoding, 40 epochs", epochs=40)
    assert isinstance(longer, Row) and longer.base == "swissbert_pair" and longer.reported == {}
    assert changes(longer, row("swissbert_pair")) == {"epochs": (20, 40)}


def test_a_variant_changes_fields_as_tables_print_them_with_checks_and_near_names():
    pair = row("swissbert_pair")
    faster = variant(pair, "bigger rate", **{"optimizer.lr": 3e-5, "tasks.sst.dropout": 0.1})
    assert changes(faster, pair) == {"optimizer.lr": (1e-5, 3e-5), "tasks.sst.dropout": (0.3, 0.1)}
    assert (faster.id, faster.label) == ("swissbert_pair_bigger_rate", "bigger rate")
    for field, value, message in (
        ("optimizer.lr", "3e-5", r"of swissbert_pair: optimizer\.lr: expected float, got str '3e-5'.*write 2.0e-5"),
        ("optimizer.lrr", 3e-5, r"optimizer\.lrr: unknown field. Did you mean 'lr'"),
        ("optimiser.lr", 3e-5, "optimiser: unknown field. Did you mean 'optimizer'"),
        ("tasks.sst.dropuot", 0.1, r"tasks\.sst\.dropuot: unknown field. Did you mean 'dropout'"),
        ("tasks.sts.pair_method", "cosin", r"tasks\.sts\.pair_method: unknown value 'cosin'. Did you mean 'cosine'"),
        ("tasks.sst.dropout", 1.5, r"tasks\.sst\.dropout: 1.5 is outside 0 to 0.99"),
    ):
        with pytest.raises(StudyError, match=message):
            variant(pair, "bigger rate", **{field: value})


def test_unknown_names_are_refused():
    with pytest.raises(StudyError, match="Known: table1, table2, table3, table4, controls, controls_weights"):
        rows.rows("swissbert", "table9")
    with pytest.raises(StudyError, match="no such report"):
        rows.rows("swisbert")
    with pytest.raises(StudyError, match="no row of that id"):
        row("swissbert_pears")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"chnage": {}}, "unknown keys"),
        ({"base": "nobody"}, "is no row"),
        ({"change": {"tasks.cfimdb.loss": "bce"}}, "names no field of a task"),
        ({"change": {"optimizer.speed": 1.0}}, "unknown field"),
        ({"change": {"optimizer.rate": 1.0}}, "expected named fields"),
        ({"change": {"optimizer.lr.factor": 1.0}}, "lr is a value"),
        ({"change": {"tasks.para": "pair"}}, "names no field of a task"),
        ({"change": {"tasks.stss.loss": "mse"}}, "names no field of a task .* Did you mean 'sts'"),
        ({"change": {"tasks": ["sst", "stss"]}}, "tasks of this row, got .* Did you mean 'sts'.* Known: sst, para"),
        ({"change": {"tasks": "sts"}}, "expected a list of tasks of this row, got 'sts'"),
        ({"base": "broken"}, "is its own"),
        ({"combine": "sum"}, "unknown combine"),
        ({"combine": "per_task"}, "runs belong to per_task"),
        ({"runs": [{"tasks": ["sst"]}]}, "runs belong to per_task"),
        ({"combine": "random"}, "no run to change"),
        ({"label": None, "table": "table3"}, "does not print it"),
        ({"label": None, "table": "table9"}, "table9 .* does not print it"),
        ({"id": "swissbert_pair"}, "ids stand twice"),
        ({"table": ...}, "keys are missing: ..table"),
        ({"change": {"tasks.para.loss": "mse"}}, "does not fit labels"),
    ],
)
def test_a_broken_experiments_file_names_row_and_reason(monkeypatch, tmp_path, entry, message):
    original = rows._folder().joinpath("swissbert.yaml").read_text()
    content = yaml.safe_load(original)
    broken = {"id": "broken", "table": "controls", "label": "x", "base": "swissbert_pair"} | entry
    content["rows"].append({key: value for key, value in broken.items() if value is not ...})
    (tmp_path / "swissbert.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.setattr(rows, "_folder", lambda: tmp_path)
    rows._load.cache_clear()
    try:
        with pytest.raises(StudyError, match=message) as caught:
            rows.rows("swissbert")
        assert entry.get("id", "broken") in str(caught.value)
    finally:
        rows._load.cache_clear()


def test_examples_hold_the_pair_of_the_attention_figures():
    drawn = [e for e in examples() if e.draws_attention]
    assert [e.texts[0] for e in drawn] == ["rallies demand 'justice for trayvon'"]
