"""Probes against loops written out over the attention that transformers returns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel as Reference

from common.data.encoding import Layout, encode, load_tokenizer
from common.declare.rows import Example
from common.declare.spec import EncoderSpec, PalSpec, RunSpec, TaskSpec
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.training import probes
from common.training.evaluate import predict, score, sentence_vectors
from common.training.loop import run
from common.training.probes import attention_mass, example_predictions, geometry

SPEC = RunSpec((TaskSpec("sts", "pair", loss="mse"),), batch_size=8, epochs=1)


def _masses_by_hand(encoded, folder):
    """Every pair on its own, every query and key in plain loops."""
    reference = Reference.from_pretrained(folder, attn_implementation="eager").eval()
    totals = {name: np.zeros((2, 4)) for name in ("cross_mass", "match_mass", "near_mass", "special_mass")}
    even = {"even_cross": 0.0, "even_match": 0.0}
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
                same = 1 / len(ids) / len(words) / len(encoded)  # if every token got as much
                if j in special:
                    totals["special_mass"] += share
                elif types[i] != types[j]:
                    totals["cross_mass"] += share
                    totals["match_mass"] += share * (ids[i] == ids[j])
                    even["even_cross"] += same
                    even["even_match"] += same * (ids[i] == ids[j])
                elif 0 < abs(i - j) <= 2:
                    totals["near_mass"] += share
    return totals | even


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


GEOMETRY = ("vectors", "vector_labels", "distances", "cosine_distances", "distance_labels")
APART = RunSpec((TaskSpec("sst"), TaskSpec("para", "separate", loss="bce"), TaskSpec("sts", "separate", loss="mse")))


def _pair_by_hand(model, task, encoded, row):
    """Vectors of one pair, read on its own, its Euclidean distance and its cosine distance by loops over H."""
    with torch.inference_mode():
        first, second = (v[0].tolist() for v in model.sentence_vectors(task, encoded.batch(np.array([row]))))
    squared = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    product = sum(a * b for a, b in zip(first, second, strict=True))
    lengths = [math.sqrt(sum(a * a for a in vector)) for vector in (first, second)]
    return (first, second), math.sqrt(squared), 1 - product / (lengths[0] * lengths[1])


@pytest.mark.parametrize("task", ["para", "sts"])
def test_geometry_of_pairs_equals_plain_loops_in_the_order_of_the_split(materials, task, monkeypatch):
    monkeypatch.setattr(probes, "VECTOR_ENDS", 3)
    tokenizer = load_tokenizer(materials.encoder_folder, 48)
    dev = materials.corpus[task]["dev"]
    if task == "sts":  # the corpus of these tests has few pairs at the upper end, and none just inside the limits
        labels = dev.labels.copy()
        labels[[4, 9, 11, 20, 35]] = [4.0, 3.99, 5.0, 4.2, 5.0]
        labels[[0, 1]] = [1.0, 1.01]
        dev = replace(dev, labels=labels)
    encoded = encode(dev, tokenizer, Layout(False))
    model = MultitaskModel(BertModel.from_pretrained(materials.encoder_folder), APART, torch.Generator().manual_seed(0))
    found = geometry(task, sentence_vectors(model, task, encoded, np.arange(30)).numpy(), dev.labels[:30])
    assert set(found) == {f"{task}_{name}" for name in GEOMETRY}
    rows = [_pair_by_hand(model.eval(), task, encoded, row) for row in range(30)]
    np.testing.assert_allclose(found[f"{task}_distances"], [row[1] for row in rows], atol=1e-5)
    np.testing.assert_allclose(found[f"{task}_cosine_distances"], [row[2] for row in rows], atol=1e-5)
    np.testing.assert_array_equal(found[f"{task}_distance_labels"], dev.labels[:30])
    low, high = (1, 4) if task == "sts" else (0, 1)
    kept = [i for i in range(30) if dev.labels[i] >= high][:3] + [i for i in range(30) if dev.labels[i] <= low][:3]
    assert len(kept) == 6 and (task == "para" or (4 in kept and not {1, 9} & set(kept)))
    np.testing.assert_allclose(found[f"{task}_vectors"], [rows[i][0] for i in kept], atol=1e-5)
    np.testing.assert_array_equal(found[f"{task}_vector_labels"], dev.labels[kept])


def test_geometry_of_single_sentences_is_of_the_given_rows(materials):
    tokenizer = load_tokenizer(materials.encoder_folder, 48)
    dev = materials.corpus["sst"]["dev"]
    encoded = encode(dev, tokenizer, Layout(False))
    model = MultitaskModel(BertModel.from_pretrained(materials.encoder_folder), APART, torch.Generator().manual_seed(0))
    rows = np.array([0, 3, 4, 9, 11, 20, 39])
    found = geometry("sst", sentence_vectors(model, "sst", encoded, rows).numpy(), dev.labels[rows])
    with torch.inference_mode():
        alone = [model.sentence_vectors("sst", encoded.batch(np.array([i])))[0][0].numpy() for i in rows]
    np.testing.assert_allclose(found["sst_vectors"], alone, atol=1e-5)
    np.testing.assert_array_equal(found["sst_vector_labels"], dev.labels[rows])


@pytest.mark.parametrize(
    ("encoder", "sharing", "has_vectors"),
    [
        (EncoderSpec(), ("sst", "para", "sts"), True),
        (EncoderSpec(frozen=True), (), True),
        (EncoderSpec(), ("sts",), False),
        (EncoderSpec(pals=PalSpec(size=8, heads=2)), (), False),
    ],
    ids=["a layer of all tasks", "frozen", "a layer of one task", "adapters alone"],
)
def test_only_runs_with_a_layer_of_all_tasks_and_frozen_ones_keep_where_their_sentences_lie(
    materials, encoder, sharing, has_vectors
):
    spec = APART.with_tasks(**{task: {"shared_transformer": True} for task in sharing})
    outcome = run(replace(spec, encoder=encoder, batch_size=8, epochs=1), materials, 1)
    names = {f"{task}_{name}" for task in ("para", "sts") for name in GEOMETRY} | {"sst_vectors", "sst_vector_labels"}
    assert names & set(outcome.probes) == (names if has_vectors else set())
    if has_vectors:
        tokenizer = load_tokenizer(materials.encoder_folder, 48)
        encoded = encode(materials.corpus["sts"]["dev"], tokenizer, Layout(False))
        expected = [_pair_by_hand(outcome.model.eval(), "sts", encoded, row)[1] for row in range(len(encoded))]
        np.testing.assert_allclose(outcome.probes["sts_distances"], expected, atol=1e-5)
