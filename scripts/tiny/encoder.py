"""Remakes the encoder shipped in src/common/assets/tiny-bert: `python scripts/tiny/encoder.py`, minutes on one core.

A BERT of 2 layers, pretrained as Devlin et al. 2019 (section 3.1) have it, with masked words and next-sentence
prediction, on the base text of the embedded corpus (`corpus.py`): documents that restate one scene, one question or one
opinion of a film, and sum the opinion up in a word, as real reviews do. So its vectors carry who does what, what is
asked and what is thought, as those of a published checkpoint do; no label of a task is used. Its vocabulary is
the words of the embedded corpus and of the reports' own example sentences, so that attention maps of either can be
read; the reports' words that the base text lacks keep their random start.

The task sets are independent draws from the same grammars as the base text: what is measured on them is no estimate of
what the same methods would reach on real text. `--steps 0` writes random weights; so assets/tiny-random was made.
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import corpus
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import cross_entropy

from common import paths
from common.declare.rows import examples
from common.model.bert import BertConfig, BertModel
from common.training.optim import AdamW
from common.training.pretrain import IGNORED, SPECIAL_TOKENS, PretrainingModel, save, update

PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    # Too few steps to overfit, so nothing is dropped while pretraining.
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

Document = tuple[str, ...]
Progress = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Recipe:
    """Pretraining from scratch.

    The start is ours, not BERT's: from N(0, 0.02) attention across the two sentences does not form in so few steps.
    """

    steps: int = 4000
    batch_size: int = 64
    lr: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    mask_frac: float = 0.15  # share of tokens to predict, of which 80 % are masked, 10 % exchanged and 10 % kept
    # Half of the second sentences follow the first. Of the others this share comes from the adjacent document, which is
    # about something like it, and the rest from a document at most `reach` away.
    neighbour_frac: float = 0.25
    reach: int = 50
    init_std: float = 0.088  # 1 / sqrt(128)
    place_share: float = 0.3  # at which share of init_std positions and segments start
    seed: int = 0

    def rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to zero after the last step."""
        rise = (step + 1) / self.warmup_steps
        return self.lr * min(rise, (self.steps - step) / max(self.steps - self.warmup_steps, 1))


@dataclass(frozen=True)
class PairBatch:
    """Two sentences a row: input_ids, attention_mask and token_type_ids (B, T); follows (B,) 1 where B follows A."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    follows: Tensor


def vocabulary_texts() -> list[str]:
    """Every text of the embedded corpus and of the base text, and the sentences that reports print."""
    tasks = [row.texts for task in corpus.SIZES for rows in corpus.make_task(task).values() for row in rows]
    texts = [document for name in corpus.TEXT_MAKERS for document in corpus.make_texts(name)]
    return [text for found in [*tasks, *texts, *(example.texts for example in examples())] for text in found]


def make_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """An uncased BERT tokenizer of the texts' words; letters, digits and punctuation spell every other word."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL_TOKENS, *string.punctuation, *characters, *(f"##{c}" for c in characters)]
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())}
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *sorted(words.difference(pieces))])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def new_model(recipe: Recipe, vocab_size: int) -> PretrainingModel:
    """A tiny encoder with its heads, at random.

    In the first layer query and key start equal, so that at first a word attends to its like in the other sentence.
    """
    model = PretrainingModel(BertModel(BertConfig(vocab_size=vocab_size, **SIZES)))
    generator = torch.Generator().manual_seed(recipe.seed)
    model.encoder.reset_parameters(generator, recipe.init_std)
    model.reset_heads(generator, recipe.init_std)
    with torch.no_grad():
        for table in (model.encoder.embeddings.position_embeddings, model.encoder.embeddings.token_type_embeddings):
            table.weight.mul_(recipe.place_share)
        attention = model.encoder.encoder["layer"][0].attention["self"]
        attention.key.weight.copy_(attention.query.weight)
    return model


def pretrain(
    model: PretrainingModel,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    recipe: Recipe,
    report: Progress = lambda step, masked, following: None,
) -> list[tuple[float, float]]:
    """Train encoder and heads on both losses; returns them step by step, (masked words, next sentence).

    Args:
        documents: two sentences or more each; documents about like things stand side by side.
        report: called after every step with the step and both losses.
    """
    draw, generator = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    sentences = token_ids(documents, tokenizer)
    optimizer = AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    history = []
    model.train()
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate(step)
        found = losses(model, sentence_pairs(sentences, recipe, draw), recipe.mask_frac, generator)
        update(model, optimizer, sum(found))
        history.append((found[0].item(), found[1].item()))
        report(step, *history[-1])
    return history


def token_ids(documents: Sequence[Document], tokenizer: Tokenizer) -> list[list[list[int]]]:
    """Token ids by document and sentence, without special tokens."""
    return [[e.ids for e in tokenizer.encode_batch(list(d), add_special_tokens=False)] for d in documents]


def losses(
    model: PretrainingModel, batch: PairBatch, mask_frac: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mean loss, in nats, of the masked words and of next-sentence prediction."""
    corrupted, labels = mask_tokens(batch.input_ids, model.encoder.config.vocab_size, mask_frac, generator)
    output = model.encoder(corrupted, batch.attention_mask, batch.token_type_ids)
    next_scores = model.cls["seq_relationship"](output.pooler_output)  # (B, 2)
    return model.word_loss(output.last_hidden_state, labels), cross_entropy(next_scores, batch.follows)


def mask_tokens(
    input_ids: Tensor, vocab_size: int, mask_frac: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the real tokens; returns the changed ids and, where one was chosen, the id to predict (B, T).

    Source: Devlin et al. 2019, section 3.1: of the chosen 80 % become [MASK], 10 % a random token, 10 % stay.
    We differ: each token is chosen independently, so the share holds on average, not in every sentence.
    """
    chance, treatment = (torch.rand(input_ids.shape, generator=generator) for _ in range(2))
    chosen = (chance < mask_frac) & (input_ids >= len(SPECIAL_TOKENS))
    exchanged = torch.randint(len(SPECIAL_TOKENS), vocab_size, input_ids.shape, generator=generator)
    changed = torch.where(chosen & (treatment < 0.8), MASK, input_ids)
    changed = torch.where(chosen & (treatment >= 0.9), exchanged, changed)
    return changed, torch.where(chosen, input_ids, IGNORED)


def sentence_pairs(sentences: list[list[list[int]]], recipe: Recipe, draw: random.Random) -> PairBatch:
    """A batch of sentence pairs, half of them consecutive; `sentences` holds the token ids by document."""
    firsts, seconds, follows = [], [], []
    for _ in range(recipe.batch_size):
        place = draw.randrange(len(sentences))
        at = draw.randrange(len(sentences[place]) - 1)
        is_next = draw.random() < 0.5
        source = sentences[place if is_next else _elsewhere(place, len(sentences), recipe, draw)]
        # From elsewhere too the sentence is taken at the same place, so that its place alone tells nothing.
        second = source[min(at + 1, len(source) - 1)]
        firsts.append([CLS, *sentences[place][at], SEP])
        seconds.append([*second, SEP])
        follows.append(int(is_next))
    input_ids = _padded([a + b for a, b in zip(firsts, seconds, strict=True)], PAD)  # (B, T)
    segments = _padded([[0] * len(a) + [1] * len(b) for a, b in zip(firsts, seconds, strict=True)], 0)  # (B, T)
    return PairBatch(input_ids, (input_ids != PAD).long(), segments, torch.tensor(follows))


def _elsewhere(place: int, documents: int, recipe: Recipe, draw: random.Random) -> int:
    """Another document: the other of the same family of two, or any within reach."""
    if draw.random() < recipe.neighbour_frac:
        return place ^ 1
    low, high = max(0, place - recipe.reach), min(documents - 1, place + recipe.reach)
    other = draw.randrange(low, high)
    return other + (other >= place)


def _padded(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])  # (B, T)


def main() -> None:
    """Remake the shipped encoder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY_BERT, help="folder to write (default: the shipped one)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="updates; 0 writes random weights")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order would give other weights
    recipe = Recipe(steps=options.steps)
    tokenizer = make_tokenizer(vocabulary_texts())
    model = new_model(recipe, tokenizer.get_vocab_size())
    pretrain(model, corpus.make_texts("base", recipe.seed), tokenizer, recipe, _print_every(100))
    save(model, tokenizer, options.out)
    print(f"wrote {options.out}")


def _print_every(interval: int) -> Progress:
    """Print both losses, averaged over each `interval` steps."""
    recent: list[tuple[float, float]] = []

    def report(step: int, masked: float, following: float) -> None:
        recent.append((masked, following))
        if len(recent) == interval:
            means = [sum(column) / interval for column in zip(*recent, strict=True)]
            print(f"step {step + 1}: masked words {means[0]:.3f}, next sentence {means[1]:.3f} nats", flush=True)
            recent.clear()

    return report


if __name__ == "__main__":
    main()
