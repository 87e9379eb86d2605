"""Text to token ids, once, and token ids to padded batches.

Uses the checkpoint's own fast tokenizer (the `tokenizers` library). A split is tokenised once a process and kept as
flat arrays; batches are cut from sentences of like length, so that little is spent on padding. Orders are stateless:
they follow from (seed, epoch, task) alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer, Encoding, Tokenizer
from torch import Tensor

from common.data.split import Split
from common.declare.spec import TaskSpec
from common.errors import StudyError
from common.seeding import stateless_generator

# Batches per pool within which an epoch sorts by length: enough to save padding, few enough to keep batches varied.
POOL_BATCHES = 16
# Texts tokenised at a time: the library's encodings take far more memory than the ids that are kept.
ENCODE_CHUNK = 1024
# The CPU library keeps a kernel for every shape it has met: free widths took gigabytes in a run of an hour.
PAD_MULTIPLE = 8
MAX_TOKENS = 512

Part = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Batch:
    """Padded inputs of one task: one part, or two parts for pairs that are encoded separately.

    A part is (input_ids, attention_mask, token_type_ids), each (B, T); the mask is 1 where a token is real. labels:
    (B,) float32, or None without labels. vectors: one (B, H) per part in place of the inputs, where a frozen encoder
    has encoded them before.
    """

    inputs: tuple[Part, ...]
    labels: Tensor | None
    vectors: tuple[Tensor, ...] | None = None

    @property
    def tokens(self) -> int:
        """Real tokens in the batch."""
        return int(sum(mask.sum() for _, mask, _ in self.inputs))


@dataclass(frozen=True)
class Ragged:
    """N token sequences in one flat array: `ids[offsets[i]:offsets[i + 1]]`, the first `first[i]` in segment 0."""

    ids: np.ndarray
    offsets: np.ndarray
    first: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray) -> Part:
        """The given rows as a part, padded to their own longest, rounded up to PAD_MULTIPLE."""
        lengths = self.lengths[rows]
        columns = np.arange(_rounded_up(int(lengths.max())))
        mask = columns[None, :] < lengths[:, None]  # (B, T)
        flat = np.minimum(self.offsets[rows][:, None] + columns, len(self.ids) - 1)
        ids = np.where(mask, self.ids[flat], 0)
        types = mask & (columns[None, :] >= self.first[rows][:, None])
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(types.astype(np.int64))


@dataclass(frozen=True)
class Encoded:
    """A tokenised split: one Ragged per part, labels, and the number of texts cut at the encoder's length."""

    parts: tuple[Ragged, ...]
    labels: np.ndarray | None
    truncated: int

    def __len__(self) -> int:
        return len(self.parts[0].lengths)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each example over all its parts."""
        return sum(part.lengths for part in self.parts)

    def batch(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The given rows as a padded batch on a device."""
        parts = tuple(tuple(tensor.to(device) for tensor in part.padded(rows)) for part in self.parts)
        return Batch(parts, self.batch_labels(rows, device))

    def batch_labels(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor | None:
        """(B,) float32 labels of the given rows on a device, None where there are none."""
        return None if self.labels is None else torch.from_numpy(self.labels[rows].astype(np.float32)).to(device)


def input_limit(positions: int) -> int:
    """The longest input of an encoder with that many positions: at most 512, and a multiple of PAD_MULTIPLE."""
    return min(MAX_TOKENS, positions) // PAD_MULTIPLE * PAD_MULTIPLE


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer of a checkpoint folder (tokenizer.json, or vocab.txt of an uncased BERT), cutting at max_length.

    `[SEP]` and its like in a user's text are read as text, not as control tokens.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif (folder / "vocab.txt").is_file():
        tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True).to_str())
    else:
        raise StudyError(
            "E-ENCODER", folder, "there is no tokenizer.json or vocab.txt.", "Add the checkpoint's tokenizer."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    tokenizer.encode_special_tokens = True
    return tokenizer


class Layout(NamedTuple):
    """How sentences become inputs: both in one (as_pair), then with or without segment ids and the inner [SEP]."""

    as_pair: bool
    segments: bool = True
    separator: bool = True

    @staticmethod
    def of(task: TaskSpec) -> Layout:
        """The layout that a task's pair method asks for."""
        return Layout(task.pair_method == "pair", task.segments, task.separator)


def encode(split: Split, tokenizer: Tokenizer, layout: Layout) -> Encoded:
    """Tokenise a split: both sentences in one input, or every sentence on its own.

    A pair is tokenised as a pair: joining two tokenised sentences would leave a second [CLS] in the middle. Without
    the separator only the inner [SEP] is missing; the closing one stays.
    """
    columns = [list(zip(*split.texts, strict=True))] if layout.as_pair else [list(column) for column in split.texts]
    cut = 0
    parts = []
    for texts in columns:
        lengths, ids, first = [], [], []
        for start in range(0, len(texts), ENCODE_CHUNK):
            encodings = tokenizer.encode_batch(texts[start : start + ENCODE_CHUNK])
            rows = [_ids(e, layout) for e in encodings]
            lengths += [len(row) for row in rows]
            first += [e.type_ids.count(0) - (not layout.separator) for e in encodings]
            ids.append(np.concatenate([np.array(row, dtype=np.int64) for row in rows]))
            cut += sum(bool(e.overflowing) for e in encodings)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        starts = np.array(first, dtype=np.int64) if layout.segments else np.diff(offsets)
        parts.append(Ragged(np.concatenate(ids), offsets, starts))
    return Encoded(tuple(parts), split.labels, cut)


def _ids(encoding: Encoding, layout: Layout) -> list[int]:
    if layout.separator:
        return encoding.ids
    inner = encoding.type_ids.count(0) - 1  # the last token of segment 0 is the [SEP] between the sentences
    return encoding.ids[:inner] + encoding.ids[inner + 1 :]


def epoch_batches(
    lengths: np.ndarray, examples: int, batch_size: int, key: tuple[object, ...], grouped: bool = True
) -> list[np.ndarray]:
    """The batches of one epoch: a fresh draw of `examples` rows in random order.

    Args:
        lengths: (N,) tokens per example.
        examples: how many to draw; at most N are, each at most once.
        batch_size: rows per batch; the last drawn batch may be smaller.
        key: what the order depends on, (seed, epoch, task).
        grouped: cut batches from rows of like length, in pools of POOL_BATCHES, so that little is padded.
    """
    generator = stateless_generator(*key)
    drawn = torch.randperm(len(lengths), generator=generator).numpy()[:examples]
    if not grouped:
        return [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
    pool = POOL_BATCHES * batch_size
    batches = []
    for start in range(0, len(drawn), pool):
        rows = drawn[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def sorted_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, longest first, in batches of at most `tokens` padded tokens (or one row): the order of evaluation."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        rows = order[start : start + max(1, tokens // _rounded_up(int(lengths[order[start]])))]
        start += len(rows)
        yield rows


def _rounded_up(length: int) -> int:
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE
