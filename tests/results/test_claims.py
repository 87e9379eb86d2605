"""The ledger decides a claim as its terms do, by seed and in the formula of its report, and loses no claim."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from common.declare.reported.claims import Claim, Measure, Term, load
from common.declare.rows import reports, row
from common.declare.spec import to_dict
from common.report import tables
from common.results import claims
from common.results.intervals import CONTRADICTED, INCONCLUSIVE, REPRODUCED
from common.results.measures import Measured
from common.runs.session import Results, RowResult

PAIR, APART, SETUP1, SETUP2 = "swissbert_pair", "swissbert_no_extension", "slapbert_setup1", "slapbert_setup2"
LAB = SimpleNamespace(encoder="minilm-l6")


def result(row_id: str, *values: float, metric: str = "sst_acc", seeds: tuple[int, ...] = (0, 1, 2)) -> RowResult:
    spec = to_dict(row(row_id).specs[0])
    records = [
        {"run_id": f"{row_id}-s{seed}", "spec": spec | {"seed": seed}, "share": 0.1}
        | {"metrics": {"dev": {metric: value}}}
        for seed, value in zip(seeds, values, strict=False)
    ]
    return RowResult(row(row_id), tuple(records))


def claim(*terms: Term, measures: tuple[Measure, ...] = (), open_: str = "") -> Claim:
    return Claim("swissbert_c99", "4", "Pairs are better.", "The difference is above 0.", terms, measures, open_)


def term(op: str = ">", margin: float = 0.0, a: str = PAIR, b: str = APART, metric: str = "sst_acc") -> Term:
    return Term(metric, "dev", a, op, b, margin, metric, "dev")


@pytest.fixture(autouse=True)
def example_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dev examples that leave every score an error of 0.001; with real predictions: test_scoring.py."""
    monkeypatch.setattr(claims, "difference_error", lambda lab, pairs, metric, split: 0.001)
    monkeypatch.setattr(claims, "score_error", lambda lab, records, metric, split: 0.001)


def decide(results: dict[str, RowResult], *chosen: Claim) -> dict:
    return claims.ledger(LAB, Results(results), chosen)[0].iloc[0].to_dict()


def test_a_claim_is_decided_by_the_differences_of_seeds_that_both_rows_have() -> None:
    better = {PAIR: result(PAIR, 0.50, 0.51, 0.52), APART: result(APART, 0.40, 0.41, 0.42, 0.9, seeds=(0, 1, 2, 7))}
    line = decide(better, claim(term()))
    assert line["verdict"] == REPRODUCED and line["estimate"] == pytest.approx(0.1) and line["seeds"] == 3
    assert line["low"] < 0.1 < line["high"] and line["share"] == pytest.approx(0.1)
    assert line["printed"] == pytest.approx(0.506 - 0.508) and line["printed_compatible"] == "no"
    assert line["encoder"] == "minilm-l6" and line["contaminated"] is False
    assert set(line["runs"].split()) == {f"{name}-s{seed}" for name in (PAIR, APART) for seed in (0, 1, 2)}
    worse = {PAIR: better[APART], APART: better[PAIR]}
    assert decide(worse, claim(term()))["verdict"] == CONTRADICTED
    assert decide(better, claim(term("<", 0.05)))["verdict"] == CONTRADICTED


def test_each_side_of_a_term_has_a_metric_and_a_split_of_its_own() -> None:
    both = [{"sts_corr": 0.8, "sst_acc": 0.5}, {"sts_corr": 0.6, "sst_acc": 0.4}]
    records = tuple(result(PAIR, 0, 0).records)
    for record, scores in zip(records, both, strict=True):
        record["metrics"] = {"dev": scores, "test": {"sst_acc": 0.2}}
    results = {PAIR: RowResult(row(PAIR), records)}
    for split, expected in (("dev", (0.3 + 0.2) / 2), ("test", 0.5)):
        asked = Term("sts_corr", "dev", PAIR, ">", PAIR, 0.02, "sst_acc", split)
        assert decide(results, claim(asked))["estimate"] == pytest.approx(expected)


def test_a_claim_of_two_terms_needs_both() -> None:
    results = {PAIR: result(PAIR, 0.50, 0.51, 0.52), APART: result(APART, 0.40, 0.41, 0.42)}
    assert decide(results, claim(term(), term(">", 0.05)))["verdict"] == REPRODUCED
    assert decide(results, claim(term(), term(">", 0.1)))["verdict"] == INCONCLUSIVE
    assert decide(results, claim(term(), term("<", 0.0)))["verdict"] == CONTRADICTED


def test_one_seed_says_so_and_a_row_that_was_not_run_too() -> None:
    one = {PAIR: result(PAIR, 0.9), APART: result(APART, 0.1)}
    assert decide(one, claim(term()))["verdict"] == claims.ONE_SEED
    assert decide({PAIR: one[PAIR]}, claim(term()))["verdict"] == claims.NOT_RUN
    assert decide({PAIR: one[PAIR], APART: RowResult(row(APART), ())}, claim(term()))["verdict"] == claims.NOT_RUN
    assert decide(one, claim(open_="No run leaves it behind."))["verdict"] == claims.OPEN


def test_an_overall_stands_in_the_formula_of_the_report_that_prints_the_row() -> None:
    results = {
        SETUP1: result(SETUP1, 0.6, 0.61, 0.62, metric="overall_normalised"),
        SETUP2: result(SETUP2, 0.7, 0.71, 0.72, metric="overall_normalised"),
    }
    line = decide(results, claim(term(a=SETUP2, b=SETUP1, metric="overall")))
    assert line["verdict"] == REPRODUCED and line["estimate"] == pytest.approx(0.1)
    assert line["printed"] == pytest.approx(0.694 - 0.649)


def test_measures_of_two_rows_are_paired_or_divided_and_of_one_row_set_against_a_number(monkeypatch) -> None:
    amounts = {PAIR: 4.0, APART: 2.0}

    def measured(lab, record, quantity, of):
        return Measured(amounts[record.run_id.rpartition("-")[0]] + 0.001 * record.seed, 0.002)

    monkeypatch.setattr(claims, "measured", measured)
    results = {PAIR: result(PAIR, 0, 0, 0), APART: result(APART, 0, 0, 0)}
    cases = [
        (Measure("parameters", (PAIR, APART), ">", 1.9), 2.0),
        (Measure("parameters", (PAIR, APART), "~", 0.1, by="ratio", value=2.0), 2.0),
        (Measure("parameters", (PAIR,), ">", 0.0, value=3.0), 4.0),
    ]
    for measure, expected in cases:
        line = decide(results, claim(measures=(measure,)))
        assert line["verdict"] == REPRODUCED and line["estimate"] == pytest.approx(expected, abs=0.01)
    monkeypatch.setattr(claims, "measured", lambda *arguments: None)
    assert decide(results, claim(measures=(cases[0][0],)))["verdict"] == claims.NOT_MEASURED


def test_the_share_of_false_verdicts_is_counted_over_all_claims_and_those_above_it_are_withdrawn(monkeypatch) -> None:
    found = iter([(REPRODUCED, 0.001), (REPRODUCED, 0.04), (INCONCLUSIVE, 0.5), (INCONCLUSIVE, 1.0)])
    monkeypatch.setattr(claims.intervals, "joined", lambda verdicts, missing: next(found))
    results = {PAIR: result(PAIR, 0.50, 0.51, 0.52), APART: result(APART, 0.40, 0.41, 0.42)}
    several = [replace(claim(term()), id=f"swissbert_c9{number}") for number in range(4)]
    frame, _ = claims.ledger(LAB, Results(results), several)
    assert frame["false_share"].tolist() == pytest.approx([0.004, 0.08, 2 / 3, 1.0])
    assert frame["verdict"].tolist() == [REPRODUCED, INCONCLUSIVE, INCONCLUSIVE, INCONCLUSIVE]


def test_an_undefined_score_is_not_passed_over() -> None:
    results = {PAIR: result(PAIR, 0.5, 0.51, 0.52), APART: result(APART, 0.4, None, 0.42)}
    assert decide(results, claim(term()))["verdict"] == claims.NOT_MEASURED


def test_a_claim_falls_with_a_term_that_is_known_while_another_is_not() -> None:
    results = {PAIR: result(PAIR, 0.40, 0.401, 0.402), APART: result(APART, 0.90, 0.901, 0.902)}
    unknown = Term("sst_acc", "test", PAIR, ">", APART, 0.0, "sst_acc", "test")
    assert decide(results, claim(term(), unknown))["verdict"] == CONTRADICTED
    assert decide(results, claim(term("<"), unknown))["verdict"] == claims.NOT_MEASURED


@pytest.mark.parametrize("report", reports())
def test_every_claim_of_every_report_has_its_line_and_its_comparisons(report: str) -> None:
    chosen = load(report)
    frame, compared = claims.ledger(LAB, Results(), chosen)
    assert frame["claim"].tolist() == [each.id for each in chosen]
    assert set(frame["verdict"]) <= {claims.NOT_RUN, claims.OPEN} and list(frame) == claims.LEDGER
    assert len(compared) == sum(len(each.terms) + len(each.measures) for each in chosen)
    assert compared["comparison"].str.len().min() > 10


def test_a_claims_topic_is_the_method_whose_pair_of_rows_its_scores_compare() -> None:
    frame = claims.ledger(LAB, Results(), load("swissbert"))[0].set_index("claim")
    assert frame.loc["swissbert_c30", "topic"] == "cosine head" and frame.loc["swissbert_c29", "topic"] == ""
    assert frame.loc["swissbert_c30", "section"]


def test_counts_and_sentences_are_made_from_the_verdicts() -> None:
    results = {PAIR: result(PAIR, 0.50, 0.51, 0.52), APART: result(APART, 0.40, 0.41, 0.42)}
    good = claim(term())
    other = replace(claim(open_="Open."), id="swissbert_c98")
    frame, _ = claims.ledger(LAB, Results(results), [good, other])
    table = claims.counts(frame).set_index("report")
    assert table.loc["all"].tolist() == table.loc["swissbert"].tolist() == [1, 1]
    text = tables.found(frame).data
    assert text.startswith("**Reproduced**, 1 of 2:") and "- swissbert_c99: Pairs are better." in text
