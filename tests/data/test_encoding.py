"""Tokens and batches against the tokenizers library, a padded reference, and the laws of a stateless order."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast

from common.data.encoding import Layout, encode, epoch_batches, load_tokenizer, sorted_batches
from common.data.split import Split
from common.errors import StudyError

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefgh",
    *(f"##{c}" for c in "abcdefgh"),
    "film",
    ".",
    "[",
    "]",
]
FIRST = ("film a", "b c d .", "film", "a b c d e f g h")
SECOND = ("c", "film film", "d e f", "abc")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return tmp_path


def split(*columns):
    return Split(tuple(f"r{i}" for i in range(len(columns[0]))), columns, np.arange(len(columns[0]), dtype=float))


def reference(folder, first, second):
    """What transformers makes of the same vocabulary, padded to the longest."""
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    return tokenizer(
        list(first), list(second) if second else None, padding=True, pad_to_multiple_of=8, return_tensors="pt"
    )


@pytest.mark.parametrize("second", [None, SECOND])
def test_batches_equal_transformers(folder, second):
    columns = (FIRST,) if second is None else (FIRST, second)
    encoded = encode(split(*columns), load_tokenizer(folder, 64), Layout(second is not None))
    batch, expected = encoded.batch(np.arange(4)), reference(folder, FIRST, second)
    ids, mask, types = batch.inputs[0]
    assert ids.tolist() == expected["input_ids"].tolist()
    assert mask.tolist() == expected["attention_mask"].tolist()
    assert types.tolist() == expected["token_type_ids"].tolist()
    assert batch.tokens == int(expected["attention_mask"].sum()) and batch.labels.tolist() == [0, 1, 2, 3]


def test_separate_encoding_has_two_parts_without_segments(folder):
    encoded = encode(split(FIRST, SECOND), load_tokenizer(folder, 64), Layout(False))
    first, second = encoded.batch(np.array([2, 1])).inputs
    assert first[0].tolist() == reference(folder, [FIRST[2], FIRST[1]], None)["input_ids"].tolist()
    assert second[0].tolist() == reference(folder, [SECOND[2], SECOND[1]], None)["input_ids"].tolist()
    assert first[2].sum() == second[2].sum() == 0
    assert encoded.lengths.tolist() == [len(a) + len(b) for a, b in _alone(folder)]


def _alone(folder):
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    return [(tokenizer.encode(a).ids, tokenizer.encode(b).ids) for a, b in zip(FIRST, SECOND, strict=True)]


def test_without_segments_only_the_segment_ids_differ(folder):
    tokenizer = load_tokenizer(folder, 64)
    plain, flat = (encode(split(FIRST, SECOND), tokenizer, Layout(True, segments=s)) for s in (True, False))
    (ids, mask, types), (flat_ids, flat_mask, flat_types) = (e.batch(np.arange(4)).inputs[0] for e in (plain, flat))
    assert torch.equal(ids, flat_ids) and torch.equal(mask, flat_mask)
    assert types.sum() > 0 and flat_types.sum() == 0


def test_without_separator_only_the_inner_one_is_missing(folder):
    """Against the two sentences tokenised apart: [CLS] a b [SEP], segments as asked, nothing padded inside."""
    tokenizer = load_tokenizer(folder, 64)
    encoded = encode(split(FIRST, SECOND), tokenizer, Layout(True, separator=False))
    for row, (a, b) in enumerate(_alone(folder)):
        ids, mask, types = (t[0] for t in encoded.batch(np.array([row])).inputs[0])
        real = int(mask.sum())
        assert ids[:real].tolist() == a[:-1] + b[1:]  # a without its [SEP], b without its [CLS]
        assert types[:real].tolist() == [0] * (len(a) - 1) + [1] * (len(b) - 1)
    no_segments = encode(split(FIRST, SECOND), tokenizer, Layout(True, segments=False, separator=False))
    assert no_segments.batch(np.arange(4)).inputs[0][2].sum() == 0


@pytest.mark.parametrize("separator", [True, False])
def test_a_pair_has_one_cls_at_its_start_and_no_padding_inside(folder, separator):
    """The pitfall of joining two padded batches: [PAD] and a second [CLS] in the middle."""
    encoded = encode(split(FIRST, SECOND), load_tokenizer(folder, 64), Layout(True, separator=separator))
    ids, mask, _ = encoded.batch(np.arange(4)).inputs[0]
    assert ((ids == VOCABULARY.index("[CLS]")).sum(1) == 1).all() and (ids[:, 0] == VOCABULARY.index("[CLS]")).all()
    assert ((ids == VOCABULARY.index("[SEP]")).sum(1) == (2 if separator else 1)).all()
    assert torch.equal(mask.bool(), ids != VOCABULARY.index("[PAD]"))


def test_tokenizer_json_wins_and_its_padding_is_switched_off(folder):
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    encoded = encode(split(FIRST), load_tokenizer(folder, 64), Layout(False))
    assert encoded.lengths.tolist() == [4, 6, 3, 10] and encoded.truncated == 0


def test_long_texts_are_cut_and_counted(folder):
    encoded = encode(split(FIRST, SECOND), load_tokenizer(folder, 8), Layout(True))
    assert encoded.lengths.tolist() == [6, 8, 7, 8] and encoded.truncated == 2


def test_control_tokens_in_a_text_stay_text(folder):
    encoded = encode(split(("a [SEP] b",)), load_tokenizer(folder, 64), Layout(False))
    ids = encoded.batch(np.array([0])).inputs[0][0][0].tolist()
    assert ids.count(VOCABULARY.index("[SEP]")) == 1 and VOCABULARY.index("[") in ids


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(StudyError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path, 64)


LENGTHS = np.random.default_rng(0).integers(3, 60, 500)


def test_an_epoch_draws_each_row_at_most_once():
    batches = epoch_batches(LENGTHS, 480, 16, (0, 1, "sst"))
    rows = np.concatenate(batches)
    assert len(rows) == 480 == len(set(rows.tolist())) and {len(b) for b in batches} == {16}


def test_asking_for_more_than_there_is_gives_everything_once():
    assert sorted(np.concatenate(epoch_batches(LENGTHS, 10**6, 16, (0, 1, "sst"))).tolist()) == list(range(500))


def test_order_follows_from_seed_epoch_and_task_alone():
    def order(*key):
        return np.concatenate(epoch_batches(LENGTHS, 300, 16, key)).tolist()

    epoch_batches(LENGTHS, 300, 16, (5, 5, "para"))  # what was drawn before does not matter
    assert order(0, 1, "sst") == order(0, 1, "sst")
    others = [order(1, 1, "sst"), order(0, 2, "sst"), order(0, 1, "para")]
    assert all(order(0, 1, "sst") != other for other in others)


def test_every_row_has_its_turn_over_epochs():
    seen = Counter(
        row for epoch in range(40) for row in np.concatenate(epoch_batches(LENGTHS, 100, 16, (0, epoch, "x")))
    )
    assert len(seen) == 500  # a row is missed 40 times in a row with probability 0.8^40, 1e-4


def test_grouping_by_length_saves_most_of_the_padding():
    grouped = epoch_batches(LENGTHS, 500, 16, (0, 1, "sst"))
    plain = np.array_split(np.random.default_rng(1).permutation(500), len(grouped))

    def padding(batches):
        return sum(len(b) * LENGTHS[b].max() - LENGTHS[b].sum() for b in batches)

    assert padding(grouped) < 0.3 * padding(plain)


def test_evaluation_order_is_longest_first_complete_and_bounded():
    batches = list(sorted_batches(LENGTHS, 256))
    rows = np.concatenate(batches)
    assert max(len(b) * LENGTHS[b].max() for b in batches) <= 256
    assert [len(b) for b in sorted_batches(LENGTHS, 1)] == [1] * 500
    assert sorted(rows.tolist()) == list(range(500)) and (np.diff(LENGTHS[rows]) <= 0).all()
