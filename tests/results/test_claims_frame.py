"""Tables about runs: means and differences against hand calculation, and holes that say what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.declare.reported import claims as ledger
from common.declare.rows import row
from common.declare.strict import to_dict
from common.results import claims
from common.runs.session import RowResult

PAIR, APART, COSINE = "swissbert_pair", "swissbert_no_extension", "swissbert_cosine_similarity"


def record(row_id: str, seed: int, undefined: dict | None = None, **metrics: float | None) -> dict:
    spec = replace(row(row_id).specs[0], seed=seed)
    return {
        "run_id": f"{spec.run_id}",
        "spec": to_dict(spec),
        "share": 0.05,
        "under_trained": True,
        "metrics": {"dev": metrics},
        "undefined": {"dev": undefined or {}},
        "history": [{"epoch": 1, "train_loss": {"sst": 1.5}, "dev": metrics, "train": metrics}],
        "probes": {"examples": []},
    }


def result(row_id: str, *records: dict, failures: tuple = (), coincides_with: str | None = None) -> RowResult:
    return RowResult(row(row_id), records, failures, coincides_with)


def test_claims_show_the_printed_and_the_paired_difference_and_stay_undecided() -> None:
    results = {
        PAIR: result(PAIR, record(PAIR, 0, sst_acc=0.4, para_acc=0.8, sts_corr=0.8, overall=0.60)),
        # Seed 1 has no partner, so it must not move the difference.
        APART: result(
            APART,
            record(APART, 0, sst_acc=0.45, para_acc=0.7, sts_corr=0.3, overall=0.45),
            record(APART, 1, sst_acc=0.9, para_acc=0.9, sts_corr=0.9, overall=0.9),
        ),
    }
    chosen = [claim for claim in ledger.load("swissbert") if claim.id == "swissbert_c08"]
    frame = claims.claims_frame(chosen, results)
    assert set(frame["verdict"]) == {"undecided"}
    first = frame[frame["claim"] == "swissbert_c08"].iloc[0]
    assert first["printed difference"] == pytest.approx(0.506 - 0.508)
    assert first["our difference"] == pytest.approx(0.40 - 0.45)
    assert first["seeds"] == "one seed"

