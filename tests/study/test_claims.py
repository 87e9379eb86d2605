"""The claims are the collected ones in our own words, and their tables show what is printed and what is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from common.errors import StudyError
from common.paths import ROOT
from common.report import tables
from common.runs.session import RowResult
from common.spec import to_dict
from common.study import reported, stats
from common.study.rows import row

FACTS = ROOT.parent / "shared" / "facts" / "claims.yaml"
COUNTS = {"bertpp": 24, "swissbert": 28, "gu": 22, "siar": 22, "slapbert": 26}
PAIR, APART = "swissbert_pair", "swissbert_no_extension"
each_report = pytest.mark.parametrize("report", COUNTS)


def facts(report: str) -> list[dict]:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    collected = yaml.safe_load(FACTS.read_text(encoding="utf-8"))["claims"]
    return [fact for fact in collected if fact["report"] == report]


def words(text: str, count: int) -> set[tuple[str, ...]]:
    found = re.findall(r"[\w.+%-]+", text.lower())
    return {tuple(found[i : i + count]) for i in range(len(found) - count + 1)}


def result(row_id: str, *metrics: dict, split: str = "dev") -> RowResult:
    """A row with one record a seed."""
    specs = [replace(row(row_id).specs[0], seed=seed) for seed in range(len(metrics))]
    records = tuple(
        {"spec": to_dict(spec), "metrics": {split: values}} for spec, values in zip(specs, metrics, strict=True)
    )
    return RowResult(row(row_id), records, (), None)


def term(*values: str | float) -> reported.Claim:
    parsed = reported._term("here", list(values), {value[0] for value in reported.printed_values()})
    return reported.Claim("x", "1", "A statement.", (parsed,), "A rule.")


# --- the files ---


@each_report
def test_every_report_has_all_its_claims_with_text_in_every_field(report: str) -> None:
    claims = reported.claims(report)
    assert [claim.id for claim in claims] == [f"{report}_c{number:02d}" for number in range(1, COUNTS[report] + 1)]
    for claim in claims:
        assert claim.section and claim.statement.endswith(".") and claim.rule.endswith("."), claim.id


def test_there_are_122_claims() -> None:
    assert sum(len(reported.claims(report)) for report in COUNTS) == 122


@each_report
def test_every_comparison_is_the_collected_one(report: str) -> None:
    for claim, fact in zip(reported.claims(report), facts(report), strict=True):
        theirs = [
            (
                *(t["metric"], t["split"], t["a"], {"approx": "~"}.get(t["op"], t["op"]), t["b"], float(t["margin"])),
                *(t.get("metric_b", t["metric"]), t.get("split_b", t["split"])),
            )
            for t in fact["predicate"].get("terms", [])
        ]
        ours = [(t.metric, t.split, t.a, t.op, t.b, t.margin, t.metric_b, t.split_b) for t in claim.terms]
        assert (claim.id, ours) == (fact["id"], theirs)


@each_report
def test_printed_differences_are_the_collected_ones(report: str) -> None:
    claims = reported.claims(report)
    frame = stats.claims_frame([claim for claim in claims if claim.terms], {})
    theirs = [t["printed_delta"] for fact in facts(report) for t in fact["predicate"].get("terms", [])]
    # The facts round to four digits where they average three numbers.
    assert frame["printed difference"].tolist() == pytest.approx(theirs, abs=0.0006)


@each_report
def test_no_sentence_is_copied(report: str) -> None:
    for claim, fact in zip(reported.claims(report), facts(report), strict=True):
        predicate = fact["predicate"]
        texts = [fact["statement"], fact["decided_by"], fact.get("note", "")]
        theirs = set().union(
            *(words(str(t), 8) for t in [*texts, predicate.get("quantity", ""), predicate.get("condition", "")])
        )
        assert not theirs & (words(claim.statement, 8) | words(claim.rule, 8)), claim.id


def test_claims_of_chosen_rows_need_no_other_row() -> None:
    chosen = [claim for claim in reported.claims("swissbert", [APART, PAIR]) if claim.terms]
    assert [claim.id for claim in chosen] == ["swissbert_c07", "swissbert_c08"]


def test_b_is_read_from_the_metric_and_split_of_a_unless_told() -> None:
    short = term("sts_corr", "dev", PAIR, "~", APART, 0.1).terms[0]
    assert (short.metric_b, short.split_b) == ("sts_corr", "dev")
    longer = term("sts_corr", "dev", PAIR, "<", PAIR, 0.0, "sst_acc").terms[0]
    assert (longer.metric_b, longer.split_b) == ("sst_acc", "dev")
    longest = term("sts_corr", "test", PAIR, "~", PAIR, 0.1, "sts_corr", "dev").terms[0]
    assert (longest.metric_b, longest.split_b) == ("sts_corr", "dev")


def test_printed_overall_is_the_mean_where_a_report_prints_none() -> None:
    values = reported.printed_values()
    # Three of the tasks in Table 1 of the SMART report, and a printed overall that is no plain mean (SlapBERT).
    assert values["siar_mtl_capped", "dev", "overall"] == pytest.approx(
        sum(reported.printed("siar", "table1")["siar_mtl_capped"][m] for m in ("sst_acc", "para_acc", "sts_corr")) / 3
    )
    printed = reported.printed("slapbert", "table4")["slapbert_smart_annealed_slapbert"]
    assert values["slapbert_smart_annealed_slapbert", "dev", "overall"] == printed["overall"]
    assert printed["overall"] > (printed["sst_acc"] + printed["para_acc"] + printed["sts_corr"]) / 3 + 0.05


LINE = "- [overall, dev, swissbert_pair, '>=', swissbert_no_extension, 0.1]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LINE, LINE.replace(">=", "=>"), "swissbert_c07: unknown metric, split or operator"),
        (LINE, LINE.replace("overall", "total"), "swissbert_c07: unknown metric, split or operator"),
        (LINE, LINE.replace("0.1]", "0.1, total]"), "swissbert_c07: unknown metric, split or operator"),
        (LINE, LINE.replace("0.1]", "0.1, overall, tset]"), "swissbert_c07: unknown metric, split or operator"),
        (LINE, LINE.replace("0.1]", "0.1, overall, dev, 3]"), "swissbert_c07: a term has"),
        (LINE, LINE.replace(", 0.1]", "]"), "swissbert_c07: a term has"),
        (LINE, LINE.replace("0.1]", ".nan]"), "swissbert_c07: margin nan"),
        (LINE, LINE.replace("0.1]", "-0.1]"), "swissbert_c07: margin -0.1"),
        (LINE, LINE.replace("swissbert_pair", "swissbert_pear"), "swissbert_c07: no report prints .* swissbert_pear"),
        ("  rule: The interval of the paired difference lies below 0.\n", "", "swissbert_c05: fields"),
        (
            "  rule: The interval of the paired difference lies below 0.\n",
            "  rule: 5\n",
            "swissbert_c05: no text in rule",
        ),
        ("- id: swissbert_c05", "- id: swissbert_c04", r"ids stand twice: \['swissbert_c04'\]"),
    ],
)
def test_damaged_claim_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported("claims/swissbert.yaml", old, new)
    with pytest.raises(StudyError, match=f"claims/swissbert.yaml: {message}"):
        reported.claims("swissbert")


def test_a_report_without_claims_is_refused() -> None:
    with pytest.raises(StudyError, match="no claims of 'mann'.*bertpp"):
        reported.claims("mann")


# --- the table before any run ---


def test_table_shows_printed_differences_by_quantity() -> None:
    frame = stats.claims_table("swissbert", ["swissbert_c08", "swissbert_c09", "swissbert_c03"]).set_index("claim")
    # Table 2: 0.506 - 0.508, 0.855 - 0.755, 0.842 - 0.492; the eleven run from 0.484 - 0.417 to 0.740 - 0.417.
    assert frame.loc["swissbert_c08", "printed difference"] == "SST -0.002; Quora +0.100; STS r +0.350"
    assert frame.loc["swissbert_c09", "printed difference"] == "not printed"
    assert frame.loc["swissbert_c03", "printed difference"] == "overall +0.067 to +0.323 (11 comparisons)"
    claim = {claim.id: claim for claim in reported.claims("swissbert")}["swissbert_c08"]
    assert frame.loc["swissbert_c08", ["statement", "decided by"]].tolist() == [claim.statement, claim.rule]


def test_table_names_other_splits_and_other_metrics() -> None:
    frame = stats.claims_table("bertpp").set_index("claim")["printed difference"]
    assert len(frame) == 24
    # Tables 2 and 3: Quora of H minus G on dev (0.788 - 0.790) and on test (0.787 - 0.793).
    assert frame["bertpp_c11"] == "Quora -0.002; Quora (test) -0.006"
    assert frame["bertpp_c13"].startswith("SST (test minus dev) +0.068, -0.007, +0.010; ")
    assert frame["bertpp_c15"].startswith("STS r minus SST -0.324 to -0.114 (8 comparisons); ")
    assert stats.claims_table("siar", ["siar_c10"])["printed difference"].tolist() == ["minutes +20"]


def test_table_says_what_is_not_printed() -> None:
    claim = term("cfimdb_acc", "dev", PAIR, ">", APART, 0.0)
    assert stats._printed_text(claim.terms, reported.printed_values()) == "CFIMDB not printed"


def test_table_refuses_an_unknown_claim() -> None:
    with pytest.raises(StudyError, match="no claims swissbert_c99"):
        stats.claims_table("swissbert", ["swissbert_c99"])


@each_report
def test_table_can_be_saved_and_read_again(report: str, tmp_path: Path) -> None:
    lab = SimpleNamespace(places=SimpleNamespace(tables=tmp_path))
    frame = stats.claims_table(report)
    tables.save(lab, "09_claims_before", frame, "What the report claims.", from_runs=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "09_claims_before.csv", dtype=str), frame, check_dtype=False)
    _, read = tables.read_markdown((tmp_path / "09_claims_before.md").read_text(encoding="utf-8"))
    assert read["printed difference"].tolist() == frame["printed difference"].tolist()
    assert frame["statement"].iloc[0] in tables.show(frame)._repr_html_()


# --- the table beside our runs ---


def test_rows_that_were_not_run_leave_a_dash() -> None:
    claims = [claim for claim in reported.claims("swissbert") if claim.id in ("swissbert_c07", "swissbert_c05")]
    values = {"sst_acc": 0.4, "para_acc": 0.8, "sts_corr": 0.8, "overall": 0.6}
    frame = stats.claims_frame(claims, {PAIR: result(PAIR, values)})
    assert frame["our difference"].isna().all() and set(frame["seeds"]) == {"not run here"}
    assert frame["printed difference"].tolist() == pytest.approx([-0.012, 0.149, 0.350, 0.100])
    assert set(frame["verdict"]) == {"undecided"}
    assert "\N{EN DASH}" in tables.formatted(frame)["our difference"].tolist()


def test_our_difference_reads_the_metric_and_split_of_each_side() -> None:
    results = {PAIR: result(PAIR, {"sts_corr": 0.8, "sst_acc": 0.5}, {"sts_corr": 0.6, "sst_acc": 0.4})}
    frame = stats.claims_frame([term("sts_corr", "dev", PAIR, "<", PAIR, 0.02, "sst_acc")], results)
    assert frame["our difference"].tolist() == pytest.approx([(0.3 + 0.2) / 2])
    assert frame["comparison"].tolist() == ["STS r minus SST: pair encoding < -0.02"]
    assert frame["seeds"].tolist() == ["2 seeds"]


def test_test_split_has_a_printed_difference_and_none_of_ours() -> None:
    final = "swissbert_final"
    claim = next(claim for claim in reported.claims("swissbert") if claim.id == "swissbert_c21")
    values = {"sst_acc": 0.4, "para_acc": 0.8, "sts_corr": 0.8, "overall": 0.6}
    frame = stats.claims_frame([claim], {final: result(final, values)})
    # Table 4: 0.758 - 0.754, 0.527 - 0.510, 0.885 - 0.883, 0.862 - 0.868.
    assert frame["printed difference"].tolist() == pytest.approx([0.004, 0.017, 0.002, -0.006])
    assert frame["our difference"].isna().all() and set(frame["seeds"]) == {"none"}
    assert frame["comparison"].iloc[0].startswith("overall (test minus dev): ")
    assert frame["comparison"].iloc[0].endswith(" within ±0.02")


def test_our_overall_follows_the_formula_of_the_report() -> None:
    values = {"overall": 0.5, "overall_normalised": 0.7}, {"overall": 0.4, "overall_normalised": 0.65}
    for rows, expected in (((PAIR, APART), 0.1), (("slapbert_setup2", "slapbert_setup1"), 0.05)):
        results = {name: result(name, metrics) for name, metrics in zip(rows, values, strict=True)}
        frame = stats.claims_frame([term("overall", "dev", rows[0], ">", rows[1], 0.0)], results)
        assert frame["our difference"].tolist() == pytest.approx([expected])
