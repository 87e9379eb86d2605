"""The claims against our numbers, comparison by comparison."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.reported import claims as ledger
from common.declare.reported.claims import Claim, Term
from common.results.declared import ABSENT, demand, measure_demand, printed_difference, printed_measure
from common.runs.session import Results, RowResult

NOT_RUN, UNDECIDED = "not run here", "undecided"


def claims_frame(claims: str | Iterable[Claim], results: Results) -> pd.DataFrame:
    """One line per comparison of a report's claims (or of the given ones): its demand, both differences, its verdict.

    A row without results, or one that no run here can score, leaves our difference empty; so does a measure, which has
    its demand alone. Our overall is made by the formula of the report that prints the rows. Verdicts need intervals
    over seeds and examples; until those are computed, every claim is undecided.
    """
    values, lines = reported.printed_values(), []
    for claim in ledger.load(claims) if isinstance(claims, str) else claims:
        common = {"claim": claim.id, "verdict": UNDECIDED}
        for term in claim.terms:
            known = {"comparison": demand(term), "printed difference": printed_difference(term, values)}
            lines.append(common | known | _ours(term, results))
        measured = [(measure_demand(measure), printed_measure(measure, values)) for measure in claim.measures]
        for text, number in [*measured, *([(claim.open, ABSENT)] if claim.open else [])]:
            known = {"comparison": text, "printed difference": number}
            lines.append(common | known | {"our difference": ABSENT, "seeds": ""})
    columns = ["claim", "comparison", "printed difference", "our difference", "seeds", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _ours(term: Term, results: Results) -> dict:
    if not {term.a, term.b} <= set(results):
        return {"our difference": ABSENT, "seeds": NOT_RUN}
    pairs = _paired(term, results)
    seeds = {0: "none", 1: "one seed"}.get(len(pairs), f"{len(pairs)} seeds")
    return {"our difference": float(np.mean(pairs)) if pairs else ABSENT, "seeds": seeds}


def _paired(term: Term, results: Results) -> list[float]:
    """Differences a - b over the seeds that both rows have."""
    first = _by_seed(results[term.a], term.metric, term.split)
    second = _by_seed(results[term.b], term.metric_b, term.split_b)
    shared = [seed for seed in first if first[seed] is not None and second.get(seed) is not None]
    return [first[seed] - second[seed] for seed in shared]


def _by_seed(result: RowResult, metric: str, split: str) -> dict[int, float | None]:
    is_normalised = metric == "overall" and result.row.report in reported.NORMALISED_OVERALL
    name = "overall_normalised" if is_normalised else metric
    return {record.seed: record.value(name, split) for record in result.records}
