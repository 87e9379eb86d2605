"""The recipe of the tiny encoder: shortened it learns, in full it made the shipped files, and others can read them."""

import random
from dataclasses import replace

import corpus
import encoder
import pytest
import torch
from encoder import MASK, Recipe, make_tokenizer, mask_tokens, new_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertForPreTraining

from common import paths
from common.declare.rows import ATTENTION_EXAMPLE, examples
from common.training.pretrain import IGNORED, load, save

SHORT = Recipe(steps=60)
# Masked words and next sentence, in nats, of the first steps of the full recipe, as they were when it made the shipped
# weights.
FIRST_LOSSES = ((6.6974, 0.7713), (6.7344, 0.7322), (6.6594, 0.6774), (6.4753, 0.7750), (6.4683, 0.8362))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(encoder.vocabulary_texts())


@pytest.fixture(scope="module")
def base():
    return corpus.make_texts("base")


def losses_on_new_text(model, tokenizer, seed=1):
    """Both losses, averaged over batches of documents that pretraining has not seen."""
    sentences, draw = encoder.token_ids(corpus.make_texts("base", seed), tokenizer), random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        batches = (encoder.sentence_pairs(sentences, SHORT, draw) for _ in range(20))
        found = [encoder.losses(model, batch, 0.15, generator) for batch in batches]
    return [float(torch.stack(column).mean()) for column in zip(*found, strict=True)]


def test_shipped_tokenizer_is_the_one_that_the_recipe_makes(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in ("tiny-bert", "tiny-random"):
        assert (paths.ASSETS / name / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_words_of_the_corpus_and_of_the_reports_are_whole_tokens():
    """Attention maps show words, not letters, on the embedded corpus and on the reports' own sentences."""
    shipped = Tokenizer.from_file(str(paths.TINY_BERT / "tokenizer.json"))
    printed = {example.id: example.texts for example in examples()}
    pieces = shipped.encode(*printed[ATTENTION_EXAMPLE]).tokens
    assert len(pieces) > 10 and not [piece for piece in pieces if piece.startswith("##")]
    texts = [text for found in printed.values() for text in found]
    texts += [
        text for task in corpus.SIZES for rows in corpus.make_task(task).values() for r in rows for text in r.texts
    ]
    cut = {
        token for e in shipped.encode_batch(texts) for token in e.tokens if token.startswith("##") or token == "[UNK]"
    }
    assert not cut


def test_first_steps_lose_what_they_lost_when_the_shipped_weights_were_made(tokenizer, base):
    recipe = Recipe()
    steps = []

    def stop(step, masked, following):
        steps.append((masked, following))
        if len(steps) == len(FIRST_LOSSES):
            raise StopIteration

    with pytest.raises(StopIteration):
        encoder.pretrain(new_model(recipe, tokenizer.get_vocab_size()), base, tokenizer, recipe, stop)
    # The warm-up's first steps are too small for rounding to tell: processors differ in the sixth digit here.
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(FIRST_LOSSES), rtol=1e-3, atol=0)


def test_a_shortened_recipe_learns_words_and_is_deterministic(tokenizer, base):
    def trained():
        model = new_model(SHORT, tokenizer.get_vocab_size())
        return encoder.pretrain(model, base, tokenizer, SHORT), model

    (history, model), (again, _) = trained(), trained()
    masked = [loss for loss, _ in history]
    assert sum(masked[-10:]) < 0.6 * sum(masked[:10])
    assert history == again
    assert model.encoder.pooler["dense"].weight.grad is not None


def test_next_sentences_are_learnt_from_a_few_documents(tokenizer, base):
    """On eight documents next-sentence prediction is learnt by heart: the loss reaches the encoder."""
    recipe = replace(SHORT, steps=150, neighbour_frac=0.0, reach=8)
    model = new_model(recipe, tokenizer.get_vocab_size())
    following = [loss for _, loss in encoder.pretrain(model, base[::1100], tokenizer, recipe)]
    assert sum(following[-20:]) < 0.5 * sum(following[:20])


def test_shipped_weights_know_the_corpus_and_random_ones_do_not(tokenizer):
    shipped, _ = load(paths.TINY_BERT)
    masked, following = losses_on_new_text(shipped, tokenizer)
    random_masked, random_following = losses_on_new_text(new_model(SHORT, tokenizer.get_vocab_size()), tokenizer)
    assert masked < 0.4 * random_masked and following < 0.6 * random_following


def test_shipped_files_are_what_the_recipe_writes(tokenizer, tmp_path):
    save(new_model(SHORT, tokenizer.get_vocab_size()), tokenizer, tmp_path)
    for folder in (paths.TINY_BERT, paths.ASSETS / "tiny-random"):
        assert (folder / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()
        written, found = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
        assert {n: (t.shape, t.dtype) for n, t in written.items()} == {n: (t.shape, t.dtype) for n, t in found.items()}
    # The random encoder is the recipe before its first step. Processors without AVX2 draw normal numbers in other last
    # digits, which now and then makes the next number of half precision: its numbers are at most 0.1% apart.
    for name, tensor in written.items():
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=1e-3, atol=1e-6, msg=name)


def test_losses_equal_transformers_on_the_shipped_weights(tokenizer, base):
    """The shipped folder holds the heads under their published names, so the library computes the same losses."""
    ours, _ = load(paths.TINY_BERT)
    ours.eval()
    theirs = BertForPreTraining.from_pretrained(paths.TINY_BERT, dtype=torch.float32).eval()
    batch = encoder.sentence_pairs(encoder.token_ids(base[:64], tokenizer), SHORT, random.Random(0))
    corrupted, labels = mask_tokens(batch.input_ids, tokenizer.get_vocab_size(), 0.15, torch.Generator().manual_seed(3))
    with torch.inference_mode():
        mine = encoder.losses(ours, batch, 0.15, torch.Generator().manual_seed(3))
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
    recipe = Recipe()
    assert recipe.rate(0) == pytest.approx(recipe.lr / recipe.warmup_steps)
    assert recipe.rate(recipe.warmup_steps) == pytest.approx(recipe.lr) == pytest.approx(recipe.rate(49))
    assert 0 < recipe.rate(recipe.steps - 1) < 1e-2 * recipe.lr
