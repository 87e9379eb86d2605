"""Additional pretraining of any encoder with masked words (BERT++, section 4.3.2), once for all runs.

The heads are kept in the checkpoint under their published names, so that pretraining can go on from it.
Not here: how the shipped tiny encoder was pretrained (`scripts/tiny/encoder.py`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
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

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
IGNORED = -100  # label of a token that is not to be predicted
MAX_GRADIENT_NORM = 1.0  # the default of the library's trainer, which the course uses
RECIPE = 1  # stands in every adapted checkpoint's name: raise it when `adapt` comes to train other weights
CHECKPOINT_FILES = (WEIGHT_FILE, "config.json", "tokenizer.json", "vocab.txt")
ORIGIN = "pretraining.json"

Progress = Callable[[int, int, str], None]


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

    def masked_loss(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the masked words alone, in nats; both (B, T), every token is attended to.

        labels: the id to predict, IGNORED where none is; without any the loss is 0.
        """
        output = self.encoder(input_ids, torch.ones_like(input_ids))
        return self.word_loss(output.last_hidden_state, labels)

    def word_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the words to predict, from the encoder's states (B, T, H) and their labels (B, T)."""
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


def update(model: nn.Module, optimizer: AdamW, loss: Tensor) -> None:
    """One step on a loss, with gradients clipped at a norm of MAX_GRADIENT_NORM."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM, error_if_nonfinite=True)
    optimizer.step()


def save(model: PretrainingModel, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a checkpoint folder as published ones are: config.json, tokenizer.json, weights in that precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(config_json(model.encoder.config))
    tokenizer.save(str(folder / "tokenizer.json"))
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.published_state().items()}
    save_file(state, folder / WEIGHT_FILE, metadata={"format": "pt"})


def config_json(config: BertConfig) -> bytes:
    """The config.json of a checkpoint as published ones have it."""
    known = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "pad_token_id": 0}
    return (json.dumps(known | asdict(config), indent=2, sort_keys=True) + "\n").encode()


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
            update(model, optimizer, loss)
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
