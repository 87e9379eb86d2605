"""Pretraining (Devlin et al. 2019, section 3.1): the recipe of the tiny encoder, additional pretraining of any.

`scripts/tiny/encoder.py` remakes the encoder shipped in `assets/tiny-bert` by it.
The heads are kept in the checkpoint under their published names, so that pretraining can go on from it.
`adapted_checkpoint` goes on from a checkpoint with masked words alone (BERT++, section 4.3.2), once for all runs.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from common.data.encoding import ENCODE_CHUNK, load_tokenizer
from common.data.texts import load_texts, text_fingerprint
from common.declare.spec import PretrainingSpec
from common.declare.strict import canonical_json, to_dict
from common.model.bert import BertConfig, BertModel, config_of
from common.model.weights import WEIGHT_FILE, file_sha256, read_state
from common.seeding import stateless_generator
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
MAX_GRADIENT_NORM = 1.0  # of additional pretraining: the default of the library's trainer, which the course uses
RECIPE = 1  # stands in every adapted checkpoint's name: raise it when `adapt` comes to train other weights
CHECKPOINT_FILES = (WEIGHT_FILE, "config.json", "tokenizer.json", "vocab.txt")
ORIGIN = "pretraining.json"

Document = tuple[str, ...]
Progress = Callable[[int, int, str], None]


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
        dense = nn.Linear(config.hidden_size, config.hidden_size)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
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
        next_scores = self.cls["seq_relationship"](output.pooler_output)  # (B, 2)
        return self._word_loss(output.last_hidden_state, labels), cross_entropy(next_scores, batch.follows)

    def masked_loss(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the masked words alone, in nats; both (B, T), every token is attended to.

        labels: the id to predict, IGNORED where none is; without any the loss is 0.
        """
        output = self.encoder(input_ids, torch.ones_like(input_ids))
        return self._word_loss(output.last_hidden_state, labels)

    def _word_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        chosen = labels != IGNORED  # (B, T)
        embedding = self.encoder.embeddings.word_embeddings.weight
        scores = self.cls["predictions"](hidden[chosen], embedding)  # (N, V)
        return cross_entropy(scores, labels[chosen], reduction="sum") / chosen.sum().clamp(min=1)

    def reset_heads(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Both heads at random, as Devlin et al. start: N(0, 0.02), zero biases; LayerNorm is the identity already."""
        for layer in (self.cls["predictions"].transform["dense"], self.cls["seq_relationship"]):
            nn.init.normal_(layer.weight, std=std, generator=generator)
            nn.init.zeros_(layer.bias)

    def published_state(self) -> dict[str, Tensor]:
        """Weights under the names of a published checkpoint, without the `bert.` prefix."""
        return {name.removeprefix("encoder."): tensor for name, tensor in self.state_dict().items()}


def mask_tokens(
    input_ids: Tensor, vocab_size: int, mask_frac: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the real tokens; returns the changed ids and, where one was chosen, the id to predict (B, T).

    Source: Devlin et al. 2019, section 3.1: of the chosen 80 % become [MASK], 10 % a random token, 10 % stay.
    We differ: each token is chosen independently, so the share holds on average, not in every sentence.
    Only the shipped encoder is made so: the library's collator, which `adapt` uses, draws other numbers from the same
    seed, and the shipped weights would change with it.
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
        _update(model, optimizer, sum(losses), config.max_gradient_norm)
        history.append((losses[0].item(), losses[1].item()))
        report(step, *history[-1])
    return history


def _update(model: nn.Module, optimizer: AdamW, loss: Tensor, max_gradient_norm: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm, error_if_nonfinite=True)
    optimizer.step()


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


def new_model(config: PretrainConfig, vocab_size: int) -> PretrainingModel:
    """A tiny encoder with its heads, at random, as `PretrainConfig` describes the start."""
    model = PretrainingModel(BertModel(BertConfig(vocab_size=vocab_size, **TINY_SIZES)))
    generator = torch.Generator().manual_seed(config.seed)
    model.encoder.reset_parameters(generator, config.init_std)
    model.reset_heads(generator, config.init_std)
    # What the shipped weights were made with; the published heads have the encoder's own, as everywhere else.
    model.cls["predictions"].transform["LayerNorm"].eps = 1e-5
    with torch.no_grad():
        for table in (model.encoder.embeddings.position_embeddings, model.encoder.embeddings.token_type_embeddings):
            table.weight.mul_(config.place_share)
        attention = model.encoder.encoder["layer"][0].attention["self"]
        attention.key.weight.copy_(attention.query.weight)
    return model


def save(model: PretrainingModel, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a checkpoint folder as published ones are: config.json, tokenizer.json, weights in that precision."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "pad_token_id": PAD}
    text = json.dumps(config | asdict(model.encoder.config), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.published_state().items()}
    save_file(state, folder / WEIGHT_FILE, metadata={"format": "pt"})


def load(folder: Path, seed: int = 0) -> tuple[PretrainingModel, Tokenizer]:
    """A checkpoint with its heads (one that it lacks starts at random) and a tokenizer that cuts nothing."""
    model = PretrainingModel(BertModel(config_of(folder)))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.published_state().items()}
    state = read_state(folder, {name: shape for name, shape in shapes.items() if not name.startswith("cls.")})
    model.reset_heads(stateless_generator(seed, "pretraining heads"))
    with safe_open(folder / WEIGHT_FILE, "pt") as file:
        present = " ".join(file.keys())
    heads = tuple(f"cls.{head}." for head in model.cls if f"cls.{head}." in present)
    state |= read_state(folder, {name: shape for name, shape in shapes.items() if name.startswith(heads)})
    named = {name if name.startswith("cls.") else f"encoder.{name}": tensor for name, tensor in state.items()}
    model.load_state_dict(named, strict=False)
    tokenizer = load_tokenizer(folder, model.encoder.config.max_position_embeddings)
    tokenizer.no_truncation()
    return model, tokenizer


def token_blocks(texts: list[str], tokenizer: Tokenizer, size: int) -> Tensor:
    """All texts as one row of tokens, [CLS] and [SEP] around each, cut into blocks (N, size); the rest is dropped.

    Raises:
        ValueError: there is not one block of text, or the tokenizer would cut a text.
    """
    if tokenizer.truncation is not None:
        raise ValueError("`tokenizer` cuts long texts: call its no_truncation()")
    chunks = (texts[start : start + ENCODE_CHUNK] for start in range(0, len(texts), ENCODE_CHUNK))
    ids = [torch.tensor(encoding.ids) for chunk in chunks for encoding in tokenizer.encode_batch_fast(chunk)]
    flat = torch.cat([torch.zeros(0, dtype=torch.long), *ids])
    if len(flat) < size:
        raise ValueError(f"`texts` holds {len(flat)} tokens, which is less than one block of {size}")
    return flat[: len(flat) // size * size].view(-1, size)


def masking(tokenizer: Tokenizer, mask_frac: float, seed: int) -> Callable[[list[Tensor]], dict[str, Tensor]]:
    """The library's collator: rows of ids -> `input_ids` and `labels` (B, T), 80 % masked, 10 % exchanged, 10 % kept.

    Special tokens are never chosen. An exchanged token may become any of the vocabulary, as in BERT's own code.
    """
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast  # slow to import

    special = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    collator = DataCollatorForLanguageModeling(wrapped, mlm_probability=mask_frac)
    # Not its own `seed`: that is refused in a child process that no DataLoader started.
    collator.generator = torch.Generator().manual_seed(seed)
    return collator


def adapt(
    model: PretrainingModel, tokenizer: Tokenizer, texts: list[str], spec: PretrainingSpec, seed: int, report: Progress
) -> list[float]:
    """Go on pretraining with masked words alone, on the device of the model; returns the loss of every update, in nats.

    Follows from its arguments and the number of threads alone. The pooler and the next-sentence head take no part and
    keep their weights. Dropout is the checkpoint's. `report` is called as in a run.

    Source: BERT++, section 4.3.2; what it leaves open is the recipe it cites, Hugging Face course, chapter 7.3: AdamW
    without decay on biases and LayerNorm, gradients clipped at norm 1, a rate that falls linearly to zero.
    We differ: a block never exceeds the encoder's positions, and training is in full precision.
    """
    blocks = token_blocks(texts, tokenizer, min(spec.block, model.encoder.config.max_position_embeddings))  # (N, T)
    orders = [torch.randperm(len(blocks), generator=stateless_generator(seed, e, "mlm")) for e in range(spec.epochs)]
    batches = [rows for order in orders for rows in order.split(spec.batch_size)]
    mask, device = masking(tokenizer, spec.mask_frac, seed), model.cls["predictions"].bias.device
    plain = {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}  # biases and LayerNorm
    decayed = {"params": [p for p in model.parameters() if p.ndim > 1]}
    optimizer, losses = AdamW([decayed, plain], spec.lr, weight_decay=spec.weight_decay), []
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(batches))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for the dropout
        model.train()
        for step, rows in enumerate(batches, 1):
            batch = mask(list(blocks[rows]))
            loss = model.masked_loss(batch["input_ids"].to(device), batch["labels"].to(device))
            _update(model, optimizer, loss, MAX_GRADIENT_NORM)
            falling.step()
            losses.append(loss.item())
            report(step, len(batches), "pretraining")
    return losses


def adapted_checkpoint(
    base: Path, source: str, spec: PretrainingSpec, cache: Path, progress: Progress, seed: int = 0, device: str = "cpu"
) -> Path:
    """The folder of `base` after additional pretraining on texts of that source; trained once, then found again.

    The folder's name is a hash of everything the weights follow from: base, texts, spec, seed. One seed serves all
    seeds of a run: as with the published checkpoint, what varies between them is the training on the tasks. A second
    process that wants the same checkpoint waits for the first. Call it with the run's number of threads set.

    Raises:
        StudyError: the base checkpoint or the texts cannot be read.
        RuntimeError: a gradient is not finite.
    """
    texts = {corpus.name: load_texts(source, corpus.name, corpus.examples, seed) for corpus in spec.corpora}
    hashes = {name: text_fingerprint(drawn) for name, drawn in texts.items()}
    origin = {"recipe": RECIPE, "base": _hashes(base), "texts": hashes, "spec": to_dict(spec), "seed": seed}
    folder = cache / hashlib.sha256(canonical_json(origin).encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_sound(folder):
            model, tokenizer = load(base, seed)
            drawn = [text for corpus in spec.corpora for text in texts[corpus.name]]
            origin["losses"] = adapt(model.to(device), tokenizer, drawn, spec, seed, progress)
            _store(model.cpu(), tokenizer, folder, origin)
    return folder


def _is_sound(folder: Path) -> bool:
    """Whether the folder holds what was written there; says so when it holds something else."""
    try:
        sound = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))["files"] == _hashes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if folder.exists() and not sound:
        print(f"{folder} is damaged (a file is missing or changed): pretraining again", file=sys.stderr, flush=True)
    return sound


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name in CHECKPOINT_FILES}


def _store(model: PretrainingModel, tokenizer: Tokenizer, folder: Path, origin: dict) -> None:
    """Write beside the place and move into it; the caller holds the lock. A torn file fails its hash when next read."""
    partial = folder.with_name(f".{folder.name}.partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)  # left by a killed writer, or damaged
    save(model, tokenizer, partial, torch.float32)  # in half precision small updates would be lost
    text = json.dumps(origin | {"files": _hashes(partial)}, indent=1, sort_keys=True)
    (partial / ORIGIN).write_text(text + "\n", encoding="utf-8")
    partial.rename(folder)
