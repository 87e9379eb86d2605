"""A frozen encoder is asked once for every text, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.encoding import Layout, encode, load_tokenizer
from common.declare.spec import EncoderSpec, OptimizerSpec, RunSpec, ScheduleSpec, TaskSpec
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.training import loop
from common.training.features import FrozenFeatures

TASKS = (TaskSpec("sst"), TaskSpec("sts", "separate", "mean", loss="mse", shared_transformer=True))
# With eps 1 Adam's step is all but proportional to its gradient, so that rounding does not grow from step to step.
RATE = OptimizerSpec(lr=0.1, eps=1.0)
SPEC = RunSpec(TASKS, EncoderSpec(frozen=True), ScheduleSpec("joint", stop="cycle"), RATE, batch_size=8, epochs=3)


def model_and_data(folder, corpus, engine="plain"):
    model = MultitaskModel(BertModel.from_pretrained(folder), replace(SPEC, engine=engine), torch.Generator())
    tokenizer = load_tokenizer(folder, 48)
    return model, {t.name: encode(corpus[t.name]["train"], tokenizer, Layout.of(t)) for t in TASKS}


def test_vectors_are_those_of_the_encoder_in_the_order_asked_for(encoder_folder, corpus):
    model, data = model_and_data(encoder_folder, corpus)
    kept = FrozenFeatures(model, "sts", data["sts"])
    rows = np.array([5, 2, 60, 2])
    batch = kept.batch(rows)
    for ours, theirs in zip(batch.vectors, model.pooled([("sts", data["sts"].batch(rows))])[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert batch.labels.tolist() == data["sts"].labels[rows].tolist() and batch.inputs == ()


def test_every_text_is_encoded_once(encoder_folder, corpus, monkeypatch):
    model, data = model_and_data(encoder_folder, corpus)
    kept, encoded = FrozenFeatures(model, "sst", data["sst"]), []
    pooled = model.pooled
    monkeypatch.setattr(model, "pooled", lambda group: encoded.append(len(group[0][1].labels)) or pooled(group))
    for rows in ([1, 2, 3], [3, 4], [1, 2, 3, 4], [4, 4]):
        kept.batch(np.array(rows))
    assert sum(encoded) == 4
    assert kept.tokens == sum(data["sst"].lengths[[1, 2, 3, 4]])


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_frozen_run_is_the_same_with_and_without_kept_vectors(materials, monkeypatch, engine):
    spec = replace(SPEC, engine=engine)
    kept = loop.run(spec, materials, 1)
    monkeypatch.setattr(loop, "FrozenFeatures", lambda model, name, encoded: encoded)
    monkeypatch.setattr(loop, "_is_kept", lambda split: False)
    anew = loop.run(spec, materials, 1)
    for task in kept.predictions:
        # the encoder meets other batches, so its sums are rounded in another order
        np.testing.assert_allclose(kept.predictions[task], anew.predictions[task], atol=1e-4)
    assert kept.record["counts"]["tokens"] < anew.record["counts"]["tokens"]


def test_pals_beside_a_frozen_encoder_are_not_kept(materials):
    """They learn, so a text has another vector after every update."""
    from common.declare.spec import PalSpec

    spec = replace(SPEC, encoder=EncoderSpec(frozen=True, pals=PalSpec(8, 2)), epochs=1)
    outcome = loop.run(spec, materials, 1)
    assert outcome.record["counts"]["tokens"] > 0
