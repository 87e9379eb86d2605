"""The recipe of the tiny encoder: shortened it learns, in full it made the shipped files, and others can read them."""

import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForPreTraining

from common import paths
from common.data.synthetic import mlm_texts
from common.training import pretrain
from common.training.pretrain import IGNORED, MASK, PretrainConfig, corpus_texts, make_tokenizer, mask_tokens, new_model

SHORT = PretrainConfig(steps=60)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(corpus_texts())


def losses_on_new_text(model, tokenizer, seed=1):
    """Both losses, averaged over batches of documents that pretraining has not seen."""

    config, draw = replace(SHORT, seed=seed), random.Random(seed)
    sentences = [
        [e.ids for e in tokenizer.encode_batch(list(d), add_special_tokens=False)] for d in mlm_texts("base", seed)
    ]
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        found = [model.losses(pretrain.sentence_pairs(sentences, config, draw), 0.15, generator) for _ in range(20)]
    return [float(torch.stack(column).mean()) for column in zip(*found, strict=True)]


def test_a_shortened_recipe_learns_words_and_is_deterministic(tokenizer):
    def trained():
        model = new_model(SHORT, tokenizer.get_vocab_size())
        return pretrain.pretrain(model, mlm_texts("base"), tokenizer, SHORT), model

    torch.set_num_threads(1)
    (history, model), (again, _) = trained(), trained()
    masked = [loss for loss, _ in history]
    assert sum(masked[-10:]) < 0.6 * sum(masked[:10])
    assert history == again
    assert model.encoder.pooler["dense"].weight.grad is not None


def test_next_sentences_are_learnt_from_a_few_documents(tokenizer):
    """On eight documents next-sentence prediction is learnt by heart: the loss reaches the encoder."""
    config = replace(SHORT, steps=150, neighbour_frac=0.0, reach=8)
    documents = mlm_texts("base")[::1100]
    following = [
        loss
        for _, loss in pretrain.pretrain(new_model(config, tokenizer.get_vocab_size()), documents, tokenizer, config)
    ]
    assert sum(following[-20:]) < 0.5 * sum(following[:20])


def test_shipped_weights_know_the_corpus_and_random_ones_do_not(tokenizer):
    shipped, _ = pretrain.load(paths.TINY_BERT)
    masked, following = losses_on_new_text(shipped, tokenizer)
    random_masked, random_following = losses_on_new_text(new_model(SHORT, tokenizer.get_vocab_size()), tokenizer)
    assert masked < 0.4 * random_masked and following < 0.75 * random_following


def test_shipped_files_are_what_the_recipe_writes(tokenizer, tmp_path):
    model = new_model(SHORT, tokenizer.get_vocab_size())
    pretrain.save(model, tokenizer, tmp_path)
    for folder in (paths.TINY_BERT, paths.ASSETS / "tiny-random"):
        for name in ("config.json", "tokenizer.json"):
            assert json.loads((folder / name).read_text()) == json.loads((tmp_path / name).read_text())
        written, found = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
        assert {n: (t.shape, t.dtype) for n, t in written.items()} == {n: (t.shape, t.dtype) for n, t in found.items()}
    # The random encoder is the recipe before its first step.
    assert all(torch.equal(t, found[n]) for n, t in written.items())


def test_losses_equal_transformers_on_the_shipped_weights(tokenizer):
    """The shipped folder holds the heads under their published names, so the library computes the same losses."""
    ours, _ = pretrain.load(paths.TINY_BERT)
    ours.eval()
    theirs = BertForPreTraining.from_pretrained(paths.TINY_BERT, dtype=torch.float32).eval()
    sentences = [
        [e.ids for e in tokenizer.encode_batch(list(d), add_special_tokens=False)] for d in mlm_texts("base")[:64]
    ]

    batch = pretrain.sentence_pairs(sentences, SHORT, random.Random(0))
    corrupted, labels = mask_tokens(batch.input_ids, tokenizer.get_vocab_size(), 0.15, torch.Generator().manual_seed(3))
    with torch.inference_mode():
        mine = ours.losses(batch, 0.15, torch.Generator().manual_seed(3))
        found = theirs(corrupted, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids)
        masked = torch.nn.functional.cross_entropy(found.prediction_logits.flatten(0, 1), labels.flatten())
        following = torch.nn.functional.cross_entropy(found.seq_relationship_logits, batch.follows)
    torch.testing.assert_close(torch.stack(mine), torch.stack([masked, following]), atol=1e-4, rtol=0)


def test_masking_hides_the_stated_shares():
    ids = torch.randint(5, 200, (400, 50), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 2
    changed, labels = mask_tokens(ids, 200, 0.15, torch.Generator().manual_seed(1))
    chosen = labels != IGNORED
    assert not chosen[:, 0].any() and torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(changed[~chosen], ids[~chosen])
    assert chosen[:, 1:].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (changed[chosen] == MASK).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (changed[chosen] == ids[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_warm_up_rises_and_decay_ends_at_zero():
    config = PretrainConfig()
    assert config.rate(0) == pytest.approx(config.lr / config.warmup_steps)
    assert config.rate(config.warmup_steps) == pytest.approx(config.lr) == pytest.approx(config.rate(49))
    assert 0 < config.rate(config.steps - 1) < 1e-2 * config.lr
