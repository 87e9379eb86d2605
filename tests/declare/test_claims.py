"""The claims are the collected ones in our words, corrected and completed, and each can be decided or is open."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from common.declare import reported
from common.declare.reported import claims as ledger
from common.declare.rows import reports, row, rows
from common.errors import StudyError
from common.paths import ROOT
from common.report import tables
from common.results import claims as claims_results
from common.results import declared
from common.runs.session import Results

LAB = SimpleNamespace(encoder="embedded")
FACTS = ROOT.parent / "shared" / "facts" / "claims.yaml"
REPORT_TEXTS = ROOT.parent / "shared" / "reports"
COLLECTED = {"bertpp": 24, "swissbert": 28, "gu": 22, "siar": 22, "slapbert": 26}
COUNTS = {"bertpp": 29, "swissbert": 32, "gu": 22, "siar": 24, "slapbert": 32}
# Claims whose collected comparisons said more, less or something else than the report, and why.
CORRECTED = {
    "bertpp_c04": "no gain can be shown without a margin; 0.03 is the sampling error of r there",
    "bertpp_c06": "section 4.4 calls the improvement significant and names no size",
    "bertpp_c08": "section 5 puts the cosine below all models with linear output layers",
    "bertpp_c10": "section 4.4 has Model H leading all models, not the next one only",
    "bertpp_c11": "section 4.4 compares with the other tested models, D too, and says slightly",
    "bertpp_c13": "0.03 is twelve sampling errors of Quora",
    "swissbert_c10": "task sampling is also set against the printed row whose loss weights learn at its rate",
    "swissbert_c16": "no gain can be shown without a margin; 0.008 is the sampling error of a difference",
    "swissbert_c21": "the report prints both numbers and does not say that one foretells the other",
    "gu_c01": "section 5.4 calls mean pooling best and says nothing of CLS against the baseline",
    "gu_c04": "section 5.5 says better and names no size",
    "gu_c14": "section 5.7 says further and names no size",
    "siar_c10": "minutes belong to the machine, so the ratio of times is measured",
    "siar_c11": "minutes belong to the machine, so the ratio of times is measured",
    "siar_c12": "section 6 says a sixth of the time, which the ratio of times decides",
    "siar_c19": "the submission has no run of its own; its numbers are compared with the row that it is said to be",
    "slapbert_c12": "Table 4 has one pair that differs by the adapters alone, 0.652 against 0.687",
    "slapbert_c18": "the report prints the test scores and does not say that dev had promised them",
}
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


def term(*values: str | float) -> ledger.Claim:
    known = {of.id for report in reports() for of in rows(report)}
    return ledger.Claim("x", "1", "A statement.", "A rule.", (ledger._term("here", list(values), known),))


def collected_terms(fact: dict) -> list[tuple]:
    return [
        (
            *(t["metric"], t["split"], t["a"], {"approx": "~"}.get(t["op"], t["op"]), t["b"], float(t["margin"])),
            *(t.get("metric_b", t["metric"]), t.get("split_b", t["split"])),
        )
        for t in fact["predicate"].get("terms", [])
    ]


def is_collected(claim: ledger.Claim, fact: dict) -> bool:
    """Whether its comparisons are the collected ones in their order, and any added to them names a control."""
    theirs, printed = collected_terms(fact), {row_id for row_id, _, _ in reported.printed_values()}
    ours = [(t.metric, t.split, t.a, t.op, t.b, t.margin, t.metric_b, t.split_b) for t in claim.terms]
    added = [values for values in ours if values not in theirs]
    kept = [values for values in ours if values in theirs]
    return kept == theirs and (not theirs or all({values[2], values[4]} - printed for values in added))


# --- the files ---


@each_report
def test_every_report_has_all_its_claims_with_text_in_every_field(report: str) -> None:
    claims = ledger.load(report)
    assert [claim.id for claim in claims] == [f"{report}_c{number:02d}" for number in range(1, COUNTS[report] + 1)]
    for claim in claims:
        assert claim.section and claim.statement.endswith(".") and claim.rule.endswith("."), claim.id


def test_there_are_139_claims_of_which_four_stay_open() -> None:
    claims = [claim for report in COUNTS for claim in ledger.load(report)]
    assert len(claims) == 139
    assert {claim.id for claim in claims if claim.open} == {"bertpp_c19", "bertpp_c28", "gu_c22", "siar_c24"}


@each_report
def test_every_claim_is_decided_by_terms_or_measures_or_says_why_it_is_open(report: str) -> None:
    for claim in ledger.load(report):
        assert bool(claim.terms or claim.measures) != bool(claim.open), claim.id
        assert all(row(name) for name in claim.rows) and bool(claim.rows) != bool(claim.open), claim.id


@each_report
def test_every_comparison_is_the_collected_one_unless_it_is_corrected(report: str) -> None:
    theirs = facts(report)
    assert len(theirs) == COLLECTED[report]
    for claim, fact in zip(ledger.load(report), theirs, strict=False):
        assert claim.id == fact["id"]
        assert is_collected(claim, fact) != (claim.id in CORRECTED), claim.id


@each_report
def test_printed_differences_are_the_collected_ones(report: str) -> None:
    values, claims = reported.printed_values(), {claim.id: claim for claim in ledger.load(report)}
    for fact in (fact for fact in facts(report) if fact["id"] not in CORRECTED):
        deltas = [t["printed_delta"] for t in fact["predicate"].get("terms", [])]
        theirs = dict(zip(collected_terms(fact), deltas, strict=True))
        for t in claims[fact["id"]].terms:
            key = (t.metric, t.split, t.a, t.op, t.b, t.margin, t.metric_b, t.split_b)
            # The facts round to four digits where they average three numbers.
            if key in theirs:
                assert declared.printed_difference(t, values) == pytest.approx(theirs[key], abs=0.0006)


@each_report
def test_no_sentence_is_copied(report: str) -> None:
    predicates = [fact["predicate"] for fact in facts(report)]
    texts = [str(p.get(key, "")) for p in predicates for key in ("quantity", "condition")]
    texts += [str(fact.get(key, "")) for fact in facts(report) for key in ("statement", "decided_by", "note")]
    texts.append((REPORT_TEXTS / f"{report}.txt").read_text(encoding="utf-8"))
    theirs = set().union(*(words(text, 8) for text in texts))
    for claim in ledger.load(report):
        assert not theirs & set().union(*(words(t, 8) for t in (claim.statement, claim.rule, claim.open))), claim.id


def test_stated_values_are_the_printed_ones() -> None:
    values = reported.printed_values()
    stated = {
        (claim.id, m.rows[0], m.of["split"], m.of["metric"]): m.value
        for report in COUNTS
        for claim in ledger.load(report)
        for m in claim.measures
        if m.quantity == "score" and m.value
    }
    for (claim_id, row_id, split, metric), value in stated.items():
        if claim_id == "siar_c19":
            row_id = "siar_leaderboard"  # section 5.4; Table 1 averages to 0.6497
        if claim_id == "bertpp_c14":  # section 6 prints the gains in percent, in the order of its sentence
            gain = values["bertpp_model_h", "dev", f"pct_gain_{metric}_vs_baseline"]
            assert value == pytest.approx(1 + gain / 100)
        elif claim_id != "swissbert_c02":
            assert value == values[row_id, split, metric], claim_id
    # The default project handout of CS224N, dev accuracies with the spread over ten seeds: SST 0.390 (0.007) and 0.515
    # (0.004), CFIMDB 0.780 (0.002) and 0.966 (0.007).
    handout = [value for (claim_id, *_), value in stated.items() if claim_id == "swissbert_c02"]
    assert handout == [0.390, 0.515, 0.780, 0.966]


def test_every_quantity_is_used_and_has_a_unit_and_a_definition() -> None:
    used = {measure.quantity for report in COUNTS for claim in ledger.load(report) for measure in claim.measures}
    assert used == set(ledger.quantities())
    parts = ledger._vocabulary()["parts"]
    for name, quantity in ledger.quantities().items():
        assert quantity.unit and len(quantity.is_.split()) > 3 and set(quantity.of) <= set(parts), name


def test_every_word_of_the_vocabulary_is_a_text_that_stands_once() -> None:
    for name, known in ledger._vocabulary()["parts"].items():
        assert all(isinstance(part, str) for part in known) and len(set(known)) == len(known), name


def test_b_is_read_from_the_metric_and_split_of_a_unless_told() -> None:
    short = term("sts_corr", "dev", PAIR, "~", APART, 0.1).terms[0]
    assert (short.metric_b, short.split_b) == ("sts_corr", "dev")
    longer = term("sts_corr", "dev", PAIR, "<", PAIR, 0.0, "sst_acc").terms[0]
    assert (longer.metric_b, longer.split_b) == ("sst_acc", "dev")
    longest = term("sts_corr", "test", PAIR, "~", PAIR, 0.1, "sts_corr", "dev").terms[0]
    assert (longest.metric_b, longest.split_b) == ("sts_corr", "dev")


def test_rows_of_a_claim_are_those_of_its_terms_and_measures() -> None:
    claim = {claim.id: claim for claim in ledger.load("siar")}["siar_c12"]
    assert claim.rows == ("siar_mtl_capped", "siar_mtl_nocap")
    assert [measure.quantity for measure in claim.measures] == ["gap", "training_time"]
    # The second side of a measure is the first with what of_b replaces.
    last = {claim.id: claim for claim in ledger.load("swissbert")}["swissbert_c22"].measures[1]
    assert (last.of | last.of_b)["layer"] == "last" and last.of["layer"] == "first" and last.by == "difference"


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
RULE = "  rule: Sharing is below no extension and below the same two-layer heads unshared.\n"
SIDES = "rows: [swissbert_pair, swissbert_no_extension], by: ratio"
TIME = f"- {{quantity: training_time,\n     {SIDES}, op: '<', value: 1.0, margin: 0.0}}"
GAP = "- {quantity: gap, of: {metric: sst_acc}, of_b: {metric: para_acc},"
LOSS = (
    "- {quantity: lowest_total_loss, rows: [swissbert_hp_lr1e5_do03_wd1e4_awl1e3], op: '>=', value: 0.0, margin: 0.0}"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LINE, LINE.replace(">=", "=>"), "swissbert_c07: unknown operator '=>'"),
        (LINE, LINE.replace("overall", "total"), "swissbert_c07: unknown metric or split"),
        (LINE, LINE.replace("0.1]", "0.1, total]"), "swissbert_c07: unknown metric or split"),
        (LINE, LINE.replace("0.1]", "0.1, overall, tset]"), "swissbert_c07: unknown metric or split"),
        (LINE, LINE.replace("0.1]", "0.1, overall, dev, 3]"), "swissbert_c07: a term has"),
        (LINE, LINE.replace(", 0.1]", "]"), "swissbert_c07: a term has"),
        (LINE, "- overall", "swissbert_c07: a term has"),
        (LINE, LINE.replace("0.1]", ".nan]"), "swissbert_c07: margin nan"),
        (LINE, LINE.replace("0.1]", "-0.1]"), "swissbert_c07: margin -0.1"),
        (LINE, LINE.replace("0.1]", "1]"), "swissbert_c07: margin 1 "),
        (LINE, LINE.replace(">=", "<=").replace("0.1]", "0.0]"), "swissbert_c07: <= needs a margin above 0"),
        (LINE, LINE.replace(">=", "~").replace("0.1]", "0.0]"), "swissbert_c07: ~ needs a margin above 0"),
        (LINE, LINE.replace("swissbert_pair", "swissbert_pear"), "swissbert_c07: no experiments .* row swissbert_pear"),
        (LINE, LINE.replace("swissbert_pair", "siar_leaderboard"), "swissbert_c07: no experiments .* siar_leaderboard"),
        (LINE, LINE.replace("no_extension", "pair"), "swissbert_c07: a term compares swissbert_pair with itself"),
        (RULE, "", "swissbert_c05: fields"),
        (RULE, RULE + "  note: More.\n", "swissbert_c05: fields"),
        (RULE, "  rule: 5\n", "swissbert_c05: no text in rule"),
        (RULE, "  rule: ''\n", "swissbert_c05: nothing in rule"),
        (RULE, RULE + "  open: Nobody knows.\n", r"swissbert_c05: is decided by \['terms', 'open'\]"),
        (RULE, RULE + "  measure: []\n", "swissbert_c05: nothing in measure"),
        ("- id: swissbert_c05", "- id: swissbert_c04", r"ids stand twice: \['swissbert_c04'\]"),
        (f"  measure:\n  {TIME}\n", "", r"swissbert_c09: is decided by \[\]"),
        (f"  measure:\n  {TIME}\n", "  open: 7\n", "swissbert_c09: no text in open"),
        (TIME, TIME.replace("margin: 0.0", "limit: 0.0"), "swissbert_c09: a measure has"),
        (TIME, TIME.replace("op: '<', ", ""), "swissbert_c09: a measure has"),
        (TIME, TIME.replace("[swissbert_pair, swissbert_no_extension]", "swissbert_pair"), "swissbert_c09: a measure"),
        (TIME, "- training_time", "swissbert_c09: a measure has"),
        (TIME, TIME.replace("training_time", "patience"), "swissbert_c09: patience: unknown quantity, known: score"),
        (TIME, TIME.replace("rows:", "of: {task: sst}, rows:"), "swissbert_c09: training_time: of .* expected neither"),
        (TIME, TIME.replace("swissbert_pair,", "swissbert_pear,"), "training_time: no experiments .* swissbert_pear"),
        (TIME, TIME.replace("swissbert_pair,", "swissbert_no_extension,"), "training_time: compares .* with itself"),
        (TIME, TIME.replace("swissbert_pair,", "swissbert_final, swissbert_pair,"), "training_time: has one row and"),
        (TIME, TIME.replace("ratio", "share"), "training_time: by 'share', known: difference, ratio"),
        (TIME, TIME.replace("value: 1.0, ", ""), "training_time: a value belongs to one row and to a ratio"),
        (TIME, TIME.replace("by: ratio, ", ""), "training_time: a value belongs to one row and to a ratio"),
        (TIME, TIME.replace("value: 1.0", "value: one"), "training_time: value 'one' is no number"),
        (TIME, TIME.replace("op: '<'", "op: '='"), "training_time: unknown operator '='"),
        (TIME, TIME.replace("op: '<'", "op: '~'"), "training_time: ~ needs a margin above 0"),
        (LOSS, LOSS.replace("op:", "by: ratio, op:"), "swissbert_c14: lowest_total_loss: has one row and a value"),
        (LOSS, LOSS.replace("value: 0.0, ", ""), "swissbert_c14: lowest_total_loss: a value belongs to one row"),
        (GAP, GAP.replace("of: {metric: sst_acc}, ", ""), "swissbert_c27: gap: of {}.* expected metric"),
        (GAP, GAP.replace("para_acc", "qqp_acc"), "swissbert_c27: gap: metric 'qqp_acc', known: sst_acc, para_acc"),
        (GAP, GAP.replace("of_b: {metric:", "of_b: {split:"), "swissbert_c27: gap: of .* expected metric"),
        (
            GAP,
            GAP.replace(" of_b: {metric: para_acc},", ""),
            "swissbert_c27: gap: compares .* with itself",
        ),
        (GAP, GAP.replace("para_acc", "sst_acc"), "swissbert_c27: gap: compares .* with itself"),
    ],
)
def test_damaged_claim_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported("claims/swissbert.yaml", old, new, ledger)
    with pytest.raises(StudyError, match=f"claims/swissbert.yaml: .*{message}"):
        ledger.load("swissbert")


def test_a_report_without_claims_is_refused() -> None:
    with pytest.raises(StudyError, match="no claims of 'mann'.*bertpp"):
        ledger.load("mann")


# --- the table before any run ---


def test_table_shows_printed_differences_by_quantity() -> None:
    frame = declared.claims_table("swissbert", ["swissbert_c08", "swissbert_c09", "swissbert_c03"]).set_index("claim")
    # Table 2: 0.506 - 0.508, 0.855 - 0.755, 0.842 - 0.492; the eleven run from 0.484 - 0.417 to 0.740 - 0.417.
    assert frame.loc["swissbert_c08", "printed difference"] == "SST -0.002; Quora +0.100; STS r +0.350"
    assert frame.loc["swissbert_c09", "printed difference"] == "not printed"
    # The twelfth comparison is with a control, which no report prints.
    assert frame.loc["swissbert_c03", "printed difference"] == "overall +0.067 to +0.323 (11 comparisons)"
    claim = {claim.id: claim for claim in ledger.load("swissbert")}["swissbert_c08"]
    assert frame.loc["swissbert_c08", ["statement", "decided by"]].tolist() == [claim.statement, claim.rule]


def test_table_names_other_splits_and_other_metrics() -> None:
    frame = declared.claims_table("bertpp").set_index("claim")["printed difference"]
    assert len(frame) == COUNTS["bertpp"]
    # Tables 2 and 3: Quora of H minus G and minus D on dev (0.788; 0.790, 0.800) and on test (0.787; 0.793, 0.797).
    assert frame["bertpp_c11"] == "Quora -0.002, -0.012, -0.002, -0.012; Quora (test) -0.006, -0.010"
    assert frame["bertpp_c13"].startswith("SST (test minus dev) +0.068, -0.007, +0.010; ")
    assert frame["bertpp_c15"].startswith("STS r minus SST -0.324 to -0.114 (8 comparisons); ")


def test_table_shows_what_is_printed_of_measured_quantities() -> None:
    # Table 1 of the SMART report: 60 and 40 minutes, 40 and 360 minutes, overall as the mean of three.
    frame = declared.claims_table("siar", ["siar_c10", "siar_c12", "siar_c13"])["printed difference"]
    assert frame.tolist() == ["training time 1.500", "overall +0.014; training time 0.111", "not printed"]
    # Table 3 of SlapBERT: 0.786 - 0.684 against 0.941 - 0.694; its test scores; and no gap of a control.
    frame = declared.claims_table("slapbert", ["slapbert_c10", "slapbert_c18", "slapbert_c30"])["printed difference"]
    assert frame[0] == "overall -0.010; overall (train) -0.155; gap (overall) -0.145"
    assert frame[1].startswith("score (overall, test) 0.695; score (SST, test) 0.505; ")
    assert frame[2] == "not printed"


def test_table_says_why_a_claim_is_open() -> None:
    claim = {claim.id: claim for claim in ledger.load("gu")}["gu_c22"]
    frame = declared.claims_table("gu", ["gu_c22"]).iloc[0]
    assert (frame["printed difference"], frame["decided by"]) == ("not printed", f"Open. {claim.open}")
    line = claims_results.ledger(LAB, Results({}), [claim])[0].iloc[0]
    assert (line["decided_by"], line["verdict"]) == (claim.open, claims_results.OPEN)


def test_table_says_what_is_not_printed() -> None:
    claim = term("cfimdb_acc", "dev", PAIR, ">", APART, 0.0)
    assert declared._printed_text(claim, reported.printed_values()) == "not printed"


def test_table_refuses_an_unknown_claim() -> None:
    with pytest.raises(StudyError, match="no claims swissbert_c99"):
        declared.claims_table("swissbert", ["swissbert_c99"])


@each_report
def test_table_can_be_saved_and_read_again(report: str, tmp_path: Path) -> None:
    lab = SimpleNamespace(places=SimpleNamespace(tables=tmp_path))
    frame = declared.claims_table(report)
    tables.save(lab, "09_claims_before", frame, "What the report claims.", from_runs=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "09_claims_before.csv", dtype=str), frame, check_dtype=False)
    _, read = tables.read_markdown((tmp_path / "09_claims_before.md").read_text(encoding="utf-8"))
    assert read["printed difference"].tolist() == frame["printed difference"].tolist()
    assert frame["statement"].iloc[0] in tables.Shown(frame)._repr_html_()


# --- what our runs are asked ---


def test_comparisons_of_rows_that_were_not_run_show_what_is_printed() -> None:
    claims = [claim for claim in ledger.load("swissbert") if claim.id in ("swissbert_c07", "swissbert_c05")]
    lines, terms = claims_results.ledger(LAB, Results({}), claims)
    assert terms["estimate"].isna().all() and set(terms["verdict"]) == set(lines["verdict"]) == {claims_results.NOT_RUN}
    # The second line of c05 compares with a control.
    printed = [-0.012, float("nan"), 0.149, 0.350, 0.100]
    assert terms["printed"].tolist() == pytest.approx(printed, nan_ok=True)
    assert "\N{EN DASH}" in tables.formatted(terms)["estimate"].tolist()


def test_scores_on_test_and_dev_are_compared() -> None:
    claim = next(claim for claim in ledger.load("bertpp") if claim.id == "bertpp_c13")
    terms = claims_results.ledger(LAB, Results({}), [claim])[1].iloc[-3:]
    # Tables 2 and 3: 0.530 - 0.520, 0.787 - 0.788, 0.350 - 0.375.
    assert terms["printed"].tolist() == pytest.approx([0.010, -0.001, -0.025])
    assert terms["comparison"].iloc[0] == "SST (test minus dev): Model H within ±0.03"


def test_a_measure_is_shown_with_what_it_demands() -> None:
    def comparisons(report: str, name: str) -> list[str]:
        claim = next(claim for claim in ledger.load(report) if claim.id == name)
        return claims_results.ledger(LAB, Results({}), [claim])[1]["comparison"].tolist()[-len(claim.measures) :]

    assert comparisons("bertpp", "bertpp_c14")[0] == "score (overall, dev): Model H / Baseline within ±0.119 of 2.191"
    assert comparisons("bertpp", "bertpp_c18") == [
        "loss slope (sts): Model H < 0",
        "score slope (STS r): Model H > 0",
        "gap (STS r): Model H > 0.2",
    ]
    layers = comparisons("swissbert", "swissbert_c22")[1]
    assert layers.startswith("attention share (cross, first, first against cross, last, first): swissBERT final")
    assert comparisons("slapbert", "slapbert_c10")[0].endswith(" < -0.1")
