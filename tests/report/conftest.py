"""A small study with stored runs of random numbers: fixtures only, never results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.declare.profile import profile_named
from common.declare.rows import row
from common.declare.strict import to_dict
from common.paths import Places
from common.report import curves, maps, plots
from common.results import attention, compare, cosines, long, updates
from common.runs.session import Results, RowResult
from common.runs.store import RunStore

TOKENS = ["[CLS]", "rallies", "&", "<b>", "[SEP]", "people", "rally", "[SEP]"]
METRICS = ("sst_acc", "para_acc", "sts_corr", "overall", "overall_normalised")


def stored_run(store: RunStore, row_id: str, rng: np.random.Generator) -> dict:
    """Write a record with random numbers for a row under the quick profile and return it."""
    written = row(row_id).specs[0]
    spec = profile_named("quick").apply(written)
    values = {name: float(number) for name, number in zip(METRICS, rng.uniform(0.2, 0.9, len(METRICS)), strict=True)}
    losses = [{"sst": 1 / e} for e in (1, 2)]
    scores = {"dev": values, "train": {name: value + 0.05 for name, value in values.items()}, "wall_s": 1.0}
    history = [{"epoch": e, "train_loss": loss} | scores for e, loss in enumerate(losses, start=1)]
    record = {
        "run_id": spec.run_id,
        "row": {"id": row_id, "label": row(row_id).label, "report": row(row_id).report},
        "spec": to_dict(spec),
        "written": to_dict(written),
        "share": 0.04,
        "under_trained": True,
        "environment": {"torch": "2.13.0"},
        "history": history if spec.epochs else [],
        "trace": {"tasks": ["sst", "para", "sts"], "pairs": []},
        "metrics": {"dev": values},
        "undefined": {"dev": {}},
        "probes": {"pair_tokens": TOKENS, "examples": []},
        "hashes": {"data": {}, "weights": "x"},
        "wall_s": 90.0,
    }
    size, layers, heads = len(TOKENS), 6, 4
    probes = {"pair_attention": rng.dirichlet(np.ones(size), (layers, heads, size))}
    probes |= {f"{name}_mass": rng.uniform(0, 1, (layers, heads)) for name in ("cross", "match", "near", "special")}
    probes["trace_factor"] = rng.uniform(0.5, 1.5, (7, 3)).astype(np.float32)
    probes["para_threshold_curve"] = np.stack([np.linspace(-1, 1, 201), np.sort(rng.uniform(0.3, 0.8, 201))])
    return store.write(record, {"sst": rng.normal(size=(5, 5)).astype(np.float32)}, probes)


@pytest.fixture
def lab(tmp_path: Path) -> SimpleNamespace:
    places = Places(tmp_path / "results" / "quick", tmp_path / "figures" / "quick", tmp_path / "build")
    store = RunStore(places)
    return SimpleNamespace(
        profile=profile_named("quick"), places=places, store=store, seeds=(0,), data="embedded", encoder="tiny-bert"
    )


@pytest.fixture
def results(lab: SimpleNamespace) -> dict[str, RowResult]:
    rng = np.random.default_rng(0)
    names = ("swissbert_baseline_frozen", "swissbert_cosine_similarity", "swissbert_pair", "swissbert_pair_untrained")
    return {name: RowResult(row(name), (stored_run(lab.store, name, rng),)) for name in names}


@pytest.fixture
def drawings(lab: SimpleNamespace) -> Callable[[dict], dict[str, tuple]]:
    """Every figure of a study's results, with the frame it is drawn from."""

    def made(results: dict[str, RowResult]) -> dict[str, tuple]:
        history = long.history(results)
        return {
            "comparison": (plots.comparison, compare.bars(results, long.Baselines({}, Results()))),
            "learning": (curves.learning_curves, history),
            "attention": (maps.attention, attention.heat_map(lab.store, results["swissbert_pair"], "last")),
            "by_layer": (maps.attention_by_layer, attention.shares(lab.store, results)),
            "thresholds": (curves.threshold_curves, cosines.threshold_curves(lab.store, results)),
            "weights": (curves.loss_weights, updates.loss_weights(lab.store, results)),
            "gaps": (plots.gaps, compare.gaps(results)),
            "phases": (curves.phases, history),
        }

    return made
