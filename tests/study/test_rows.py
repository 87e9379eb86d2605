"""Rows as data: what experiments/*.yaml gives, and what it refuses."""

import importlib

import pytest
import yaml

from common.errors import StudyError
from common.study import reported
from common.study.rows import Row, changes, examples, row, variant

# The package gives its function of the same name, so the module is fetched by name.
rows = importlib.import_module("common.study.rows")
TABLE2 = [
    "swissbert_baseline_frozen",
    "swissbert_no_extension",
    "swissbert_layer_sharing",
    "swissbert_cosine_similarity",
    "swissbert_pair",
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
        assert spec.schedule.kind == "interleaved" and spec.schedule.stop == "shortest"
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


def test_controls_report_nothing():
    assert all(r.reported == {} for r in rows.rows("swissbert", "controls"))


def test_no_two_rows_train_the_same_thing():
    ids = [r.specs[0].run_id for r in rows.rows("swissbert")]
    assert len(set(ids)) == len(ids)


def test_variant_is_compared_with_its_origin():
    longer = variant(row("swissbert_pair"), "pair_longer", "pair encoding, 40 epochs", epochs=40)
    assert isinstance(longer, Row) and longer.base == "swissbert_pair" and longer.reported == {}
    assert changes(longer, row("swissbert_pair")) == {"epochs": (20, 40)}


def test_unknown_names_are_refused():
    with pytest.raises(StudyError, match="Known: table2, controls"):
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
        ({"change": {"optimizer.rate": 1.0}}, "unknown field"),
        ({"change": {"tasks.para.loss": "mse"}}, "does not fit labels"),
    ],
)
def test_a_broken_experiments_file_names_row_and_reason(monkeypatch, tmp_path, entry, message):
    original = rows._folder().joinpath("swissbert.yaml").read_text()
    content = yaml.safe_load(original)
    content["rows"].append({"id": "broken", "table": "controls", "label": "x", "base": "swissbert_pair"} | entry)
    (tmp_path / "swissbert.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(rows, "_folder", lambda: tmp_path)
    rows._load.cache_clear()
    try:
        with pytest.raises(StudyError, match=message) as caught:
            rows.rows("swissbert")
        assert "broken" in str(caught.value)
    finally:
        rows._load.cache_clear()


def test_examples_hold_the_pair_of_the_attention_figures():
    drawn = [e for e in examples() if e.draws_attention]
    assert [e.texts[0] for e in drawn] == ["rallies demand 'justice for trayvon'"]
