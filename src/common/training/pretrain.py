"""Pretraining: masked words and next sentences (Devlin et al. 2019, section 3.1), and the recipe of the tiny encoder.

`python -m common.training.pretrain` remakes the encoder shipped in `assets/tiny-bert`: a few minutes on one core.
The heads are kept in the checkpoint under their published names, so that pretraining can go on from it.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from common import paths
from common.data.encoding import load_tokenizer
from common.data.synthetic import make_corpus, mlm_texts
from common.model.bert import BertConfig, BertModel, config_of
from common.model.weights import WEIGHT_FILE, read_state
from common.training.optim import AdamW

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TINY_SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    # Too few steps to overfit, so nothing is dropped while pretraining.
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IGNORED = -100  # label of a token that is not to be predicted

Document = tuple[str, ...]


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe of the shipped encoder.

    mask_frac: share of tokens to predict, of which 80 % are masked, 10 % exchanged and 10 % kept (Devlin et al. 2019,
    section 3.1). Half of the second sentences follow the first; of the others, neighbour_frac come from the adjacent
    document and the rest from a document at most `reach` away.

    The start is ours, not BERT's: from N(0, 0.02) attention across the two sentences does not form in so few steps.
    init_std is 1 / sqrt(128) for a 128 wide encoder; positions and segments start at place_share of it, and in the
    first layer query and key start equal, so that at first a word attends to its like in the other sentence.
    """

    steps: int = 4000
    batch_size: int = 64
    lr: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    mask_frac: float = 0.15
    neighbour_frac: float = 0.25
    reach: int = 50
    init_std: float = 0.088
    place_share: float = 0.3
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


class MaskedWordHead(nn.Module):
    """Scores over the vocabulary; the output matrix is the word embedding (tied)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        dense, norm = nn.Linear(config.hidden_size, config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.transform = nn.ModuleDict({"dense": dense, "LayerNorm": norm})
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """hidden (N, H), embedding (V, H) -> scores (N, V)."""
        return self.transform["LayerNorm"](gelu(self.transform["dense"](hidden))) @ embedding.T + self.bias


class PretrainingModel(nn.Module):
    """An encoder with the two heads that it is pretrained with."""

    def __init__(self, encoder: BertModel):
        super().__init__()
        self.encoder = encoder
        next_sentence = nn.Linear(encoder.config.hidden_size, 2)
        self.cls = nn.ModuleDict({"predictions": MaskedWordHead(encoder.config), "seq_relationship": next_sentence})

    def losses(self, batch: PairBatch, mask_frac: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean loss, in nats, of the masked words and of next-sentence prediction."""
        V = self.encoder.config.vocab_size
        corrupted, labels = mask_tokens(batch.input_ids, V, mask_frac, generator)
        output = self.encoder(corrupted, batch.attention_mask, batch.token_type_ids)
        chosen = labels != IGNORED  # (B, T)
        embedding = self.encoder.embeddings.word_embeddings.weight
        scores = self.cls["predictions"](output.last_hidden_state[chosen], embedding)  # (N, V)
        next_scores = self.cls["seq_relationship"](output.pooler_output)  # (B, 2)
        return cross_entropy(scores, labels[chosen]), cross_entropy(next_scores, batch.follows)

    def published_state(self) -> dict[str, Tensor]:
        """Weights under the names of a published checkpoint, without the `bert.` prefix."""
        return {name.removeprefix("encoder."): tensor for name, tensor in self.state_dict().items()}


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


def pretrain(
    model: PretrainingModel,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    config: PretrainConfig,
    report: Callable[[int, float, float], None] = lambda step, masked, following: None,
) -> list[tuple[float, float]]:
    """Train encoder and heads on both losses; returns them step by step, (masked words, next sentence).

    Args:
        documents: two sentences or more each; documents about like things stand side by side.
        report: called after every step with the step and both losses.
    """
    draw, generator = random.Random(config.seed), torch.Generator().manual_seed(config.seed)
    sentences = [[e.ids for e in tokenizer.encode_batch(list(d), add_special_tokens=False)] for d in documents]
    optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    history = []
    model.train()
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = config.rate(step)
        losses = model.losses(sentence_pairs(sentences, config, draw), config.mask_frac, generator)
        optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm, error_if_nonfinite=True)
        optimizer.step()
        history.append((losses[0].item(), losses[1].item()))
        report(step, *history[-1])
    return history


def sentence_pairs(sentences: list[list[list[int]]], config: PretrainConfig, draw: random.Random) -> PairBatch:
    """A batch of sentence pairs, half of them consecutive; `sentences` holds the token ids by document."""
    firsts, seconds, follows = [], [], []
    for _ in range(config.batch_size):
        place = draw.randrange(len(sentences))
        at = draw.randrange(len(sentences[place]) - 1)
        is_next = draw.random() < 0.5
        source = sentences[place if is_next else _elsewhere(place, len(sentences), config, draw)]
        # From elsewhere too the sentence is taken at the same place, so that its place alone tells nothing.
        second = source[min(at + 1, len(source) - 1)]
        firsts.append([CLS, *sentences[place][at], SEP])
        seconds.append([*second, SEP])
        follows.append(int(is_next))
    input_ids = _padded([a + b for a, b in zip(firsts, seconds, strict=True)], PAD)  # (B, T)
    segments = _padded([[0] * len(a) + [1] * len(b) for a, b in zip(firsts, seconds, strict=True)], 0)  # (B, T)
    return PairBatch(input_ids, (input_ids != PAD).long(), segments, torch.tensor(follows))


def _elsewhere(place: int, documents: int, config: PretrainConfig, draw: random.Random) -> int:
    """Another document: the other of the same family of two, or any within reach."""
    if draw.random() < config.neighbour_frac:
        return place ^ 1
    low, high = max(0, place - config.reach), min(documents - 1, place + config.reach)
    other = draw.randrange(low, high)
    return other + (other >= place)


def _padded(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])  # (B, T)


def make_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """An uncased BERT tokenizer of the texts' words; letters, digits and punctuation spell every other word."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL_TOKENS, *string.punctuation, *characters, *(f"##{c}" for c in characters)]
    words = {word for text in texts for word in text.lower().split()}
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


def new_model(config: PretrainConfig, vocab_size: int) -> PretrainingModel:
    """A tiny encoder with its heads, at random, as `PretrainConfig` describes the start."""
    model = PretrainingModel(BertModel(BertConfig(vocab_size=vocab_size, **TINY_SIZES)))
    generator = torch.Generator().manual_seed(config.seed)
    model.encoder.reset_parameters(generator, config.init_std)
    for layer in (model.cls["predictions"].transform["dense"], model.cls["seq_relationship"]):
        nn.init.normal_(layer.weight, std=config.init_std, generator=generator)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for table in (model.encoder.embeddings.position_embeddings, model.encoder.embeddings.token_type_embeddings):
            table.weight.mul_(config.place_share)
        attention = model.encoder.encoder["layer"][0].attention["self"]
        attention.key.weight.copy_(attention.query.weight)
    return model


def save(model: PretrainingModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint folder as published ones are: config.json, tokenizer.json, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "pad_token_id": PAD}
    text = json.dumps(config | asdict(model.encoder.config), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    state = {name: tensor.half().contiguous() for name, tensor in model.published_state().items()}
    save_file(state, folder / WEIGHT_FILE, metadata={"format": "pt"})


def load(folder: Path) -> tuple[PretrainingModel, Tokenizer]:
    """A folder that `save` wrote, heads included."""
    model = PretrainingModel(BertModel(config_of(folder)))
    expected = {name: tuple(tensor.shape) for name, tensor in model.published_state().items()}
    state = read_state(folder, expected)
    model.load_state_dict({name if name.startswith("cls.") else f"encoder.{name}": t for name, t in state.items()})
    return model, load_tokenizer(folder, model.encoder.config.max_position_embeddings)


def corpus_texts() -> list[str]:
    """Every text of the embedded corpus and of the base text, from which the shipped tokenizer takes its words."""
    columns = [column for splits in make_corpus().values() for split in splits.values() for column in split.texts]
    return [text for texts in [*columns, *mlm_texts("base")] for text in texts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Remake the shipped encoder."""
    parser = argparse.ArgumentParser(prog="python -m common.training.pretrain", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY_BERT, help="folder to write (default: the shipped one)")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps, help="updates; 0 writes random weights")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in another order would give other weights
    config = PretrainConfig(steps=options.steps)
    tokenizer = make_tokenizer(corpus_texts())
    model = new_model(config, tokenizer.get_vocab_size())
    pretrain(model, mlm_texts("base", config.seed), tokenizer, config, _print_every(100))
    save(model, tokenizer, options.out)
    print(f"wrote {options.out}")


def _print_every(interval: int) -> Callable[[int, float, float], None]:
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
