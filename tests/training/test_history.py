"""What the record says of the updates, against means worked out by hand."""

import numpy as np
import pytest
import torch

from common.errors import StudyError
from common.training.history import History
from common.training.step import Update

FACTORS = {"sst": 0.5, "sts": 2.0}


def update(losses, cosines=(), regularisers=(), factors=FACTORS, rate=1e-3, norms=()):
    return Update(list(losses), list(regularisers), dict(factors), rate, list(cosines), list(norms))


def test_losses_are_means_over_examples_not_over_batches():
    log = History(["sst", "sts"], is_weighted=False)
    log.add(update([("sst", 1.0), ("sts", 4.0)]))
    log.add(update([("sst", 3.0)]))
    entry = log.end_epoch({"sst": [16, 4], "sts": [16]})
    assert entry == {"train_loss": {"sst": pytest.approx((16 * 1 + 4 * 3) / 20), "sts": 4.0}}


def test_every_epoch_holds_its_own_updates():
    log = History(["sst"], is_weighted=True)
    log.add(update([("sst", 1.0)], factors={"sst": 1.0}))
    log.end_epoch({"sst": [8]})
    log.add(update([("sst", 5.0)], factors={"sst": 0.9}))
    entry = log.end_epoch({"sst": [8]})
    assert entry["train_loss"] == {"sst": 5.0} and entry["loss_factors"] == {"sst": 0.9}


def test_conflicts_are_counted_per_pair_of_tasks_the_same_task_included():
    log = History(["sst", "sts"], is_weighted=False)
    for value in (-0.5, 0.25, float("nan"), 0.0):
        log.add(update([("sst", 1.0), ("sts", 1.0)], [(("sst", "sts"), value), (("sst", "sst"), 0.9)]))
    found = log.end_epoch({"sst": [8] * 4, "sts": [8] * 4})["conflicts"]
    assert found["sst-sts"] == {"cosine": pytest.approx(-0.25 / 3), "rate": pytest.approx(1 / 3), "pairs": 3}
    assert found["sst-sst"] == {"cosine": pytest.approx(0.9), "rate": 0.0, "pairs": 4}
    assert log.pairs == ["sst-sst", "sst-sts"]


def test_a_pair_without_a_direction_has_no_rate():
    log = History(["sst"], is_weighted=False)
    log.add(update([("sst", 1.0)], [(("sst", "sst"), float("nan"))]))
    assert log.end_epoch({"sst": [8]})["conflicts"]["sst-sst"] == {"cosine": None, "rate": None, "pairs": 0}


def test_traces_have_one_row_per_update_and_gaps_where_a_task_took_no_part():
    log = History(["sst", "sts"], is_weighted=True)
    log.add(update([("sst", 1.0), ("sst", 3.0)], [(("sst", "sst"), 0.5)], norms=[("sst", 2.0), ("sst", 4.0)]))
    log.add(update([("sts", 4.0)], factors={"sst": 0.4, "sts": 1.5}, rate=2.5e-4))
    arrays = log.arrays()
    np.testing.assert_equal(arrays["trace_loss"], np.array([[2, np.nan], [np.nan, 4]], dtype=np.float32))
    np.testing.assert_allclose(arrays["trace_factor"], [[0.5, 2.0], [0.4, 1.5]])
    np.testing.assert_equal(arrays["trace_cosine"], np.array([[0.5], [np.nan]], dtype=np.float32))
    np.testing.assert_equal(arrays["trace_norm"], np.array([[3, np.nan], [np.nan, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(arrays["trace_rate"], np.array([1, 0.25], dtype=np.float32))


def test_a_run_without_weights_or_surgery_traces_losses_alone():
    log = History(["sst"], is_weighted=False)
    log.add(update([("sst", 1.0)]))
    assert set(log.arrays()) == {"trace_rate", "trace_loss"}
    assert set(log.end_epoch({"sst": [8]})) == {"train_loss"}


def test_a_loss_that_was_still_on_a_gpu_is_looked_at_when_the_epoch_ends():
    log = History(["sst"], is_weighted=False)
    log.add(update([("sst", torch.tensor(1.5))]))
    assert log.end_epoch({"sst": [8]})["train_loss"] == {"sst": 1.5}
    log.add(update([("sst", torch.tensor(float("nan")))]))
    with pytest.raises(StudyError, match="task sst: the loss became nan"):
        log.end_epoch({"sst": [8]})
