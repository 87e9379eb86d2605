"""Probes against loops written out over the attention that transformers returns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel as Reference

from common.data.encoding import Layout, encode, load_tokenizer
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.spec import RunSpec, TaskSpec
from common.training.evaluate import predict, score
from common.training.loop import run
from common.training.probes import Example, attention_mass, example_predictions

SPEC = RunSpec((TaskSpec("sts", "pair", loss="mse"),), batch_size=8, epochs=1)


def _masses_by_hand(encoded, folder):
    """Every pair on its own, every query and key in plain loops."""
    reference = Reference.from_pretrained(folder, attn_implementation="eager").eval()
    totals = {name: np.zeros((2, 4)) for name in ("cross_mass", "match_mass", "near_mass", "special_mass")}
    for row in range(len(encoded)):
        ids, mask, types = encoded.batch(np.array([row])).inputs[0]
        with torch.inference_mode():
            output = reference(ids, attention_mask=mask, token_type_ids=types, output_attentions=True)
        attention = torch.stack(output.attentions)[:, 0].numpy()  # (L, A, T, T)
        ids, types = ids[mask > 0].tolist(), types[mask > 0].tolist()
        special = {i for i, token in enumerate(ids) if token in (2, 3)}
        words = [i for i in range(len(ids)) if i not in special]
        for i in words:
            for j in range(len(ids)):
                share = attention[:, :, i, j] / len(words) / len(encoded)
                if j in special:
                    totals["special_mass"] += share
                elif types[i] != types[j]:
                    totals["cross_mass"] += share
                    totals["match_mass"] += share * (ids[i] == ids[j])
                elif 0 < abs(i - j) <= 2:
                    totals["near_mass"] += share
    return totals


def test_attention_masses_equal_plain_loops(materials):
    tokenizer = load_tokenizer(materials.encoder_folder, 48)
    encoded = encode(materials.corpus["sts"]["dev"], tokenizer, Layout(True))
    model = MultitaskModel(BertModel.from_pretrained(materials.encoder_folder), SPEC, torch.Generator().manual_seed(0))
    found, expected = attention_mass(model, encoded), _masses_by_hand(encoded, materials.encoder_folder)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)


def test_a_run_keeps_the_maps_of_the_named_pair(materials):
    outcome = run(SPEC, materials, 1)
    tokens = outcome.record["probes"]["pair_tokens"]
    assert tokens == ["[CLS]", "the", "dog", "runs", "[SEP]", "a", "dog", "runs", ".", "[SEP]"]
    assert outcome.probes["pair_attention"].shape == (2, 4, 10, 10)
    np.testing.assert_allclose(outcome.probes["pair_attention"].sum(-1), 1, atol=1e-5)


def test_examples_are_predicted_for_the_tasks_of_the_run(materials):
    outcome = run(replace(SPEC, tasks=(TaskSpec("sst"), *SPEC.tasks)), materials, 1)
    found = {e["id"]: e for e in outcome.record["probes"]["examples"]}
    assert set(found) == {"e1", "e2"}
    assert found["e1"]["predicted"] in range(5) and found["e2"]["texts"] == ["the dog runs", "a dog runs ."]


def test_an_example_is_predicted_like_the_same_sentence_of_a_split(materials):
    tokenizer = load_tokenizer(materials.encoder_folder, 48)
    spec = RunSpec((TaskSpec("sst"), *SPEC.tasks))
    model = MultitaskModel(BertModel.from_pretrained(materials.encoder_folder), spec, torch.Generator().manual_seed(0))
    for task, layout in (("sst", Layout.of(spec.task("sst"))), ("sts", Layout(True))):
        dev = materials.corpus[task]["dev"]
        examples = [Example(id, task, texts) for id, *texts in zip(dev.ids, *dev.texts, strict=True)]
        found = [e["predicted"] for e in example_predictions(model, spec, tuple(examples), tokenizer)]
        expected = predict(spec.task(task), score(model, task, encode(dev, tokenizer, layout)))
        np.testing.assert_array_equal(found, expected.astype(float))


def test_separately_encoded_runs_have_no_pair_attention(materials):
    outcome = run(RunSpec((TaskSpec("sts", "separate", loss="mse"),), batch_size=8, epochs=1), materials, 1)
    assert "pair_attention" not in outcome.probes and "pair_tokens" not in outcome.record["probes"]


def test_cosine_runs_keep_their_threshold_curve(materials):
    spec = RunSpec((TaskSpec("para", "cosine", "mean", loss="cosine_embedding", threshold=0.0),), epochs=0)
    outcome = run(spec, materials, 1)
    thresholds, accuracies = outcome.probes["para_threshold_curve"]
    labels = materials.corpus["para"]["dev"].labels
    at_zero = accuracies[np.abs(thresholds).argmin()]
    assert at_zero == pytest.approx(((outcome.predictions["para"][:, 0] > 0) == labels).mean())
    assert outcome.record["metrics"]["dev"]["para_acc_best_threshold"] == pytest.approx(accuracies.max())
