"""A record answers what is asked of it most, and says what its digits depend on."""

from __future__ import annotations

from common.declare.rows import row
from common.declare.strict import to_dict
from common.runs.record import Record

SPEC = row("swissbert_pair").specs[0]
CONTENT = {
    "run_id": SPEC.run_id,
    "spec": to_dict(SPEC) | {"seed": 0},
    "metrics": {"dev": {"sst_acc": 0.4, "sts_corr": None, "overall": 0.5}},
    "environment": {"torch": "2.13.0", "code": "a" * 64, "python": "3.11"},
    "hashes": {"data": {"sst": "1"}, "weights": "w", "start": None},
}


def test_scores_are_told_from_undefined_and_from_absent_ones() -> None:
    record = Record(CONTENT)
    assert (
        record.value("sst_acc") == 0.4 and record.value("sts_corr") is None and record.value("sst_acc", "test") is None
    )
    assert record.has("sts_corr") and not record.has("para_acc") and not record.has("sst_acc", "train")
    assert record.has("overall") and not Record(CONTENT | {"spec": {"tasks": [{"name": "sst"}]}}).has("overall")


def test_the_spec_comes_back_as_it_was_written_and_one_run_is_its_only_part() -> None:
    record = Record(CONTENT)
    assert record.spec == SPEC and record.seed == 0 and record.tasks == ("sst", "para", "sts")
    assert record.parts == (SPEC.run_id,) and Record(CONTENT | {"parts": ["a", "b"]}).parts == ("a", "b")


def test_its_kind_names_program_machine_encoder_and_data_and_nothing_else() -> None:
    kind = Record(CONTENT).kind
    assert kind == {"code": "a" * 40, "torch": "2.13.0", "weights": "w", "sst": "1"}
    assert Record({"run_id": "random-s0"}).kind == {}
