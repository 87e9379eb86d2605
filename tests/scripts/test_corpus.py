"""The embedded corpus: its files are the generator's, its priors the real ones, its texts what they promise to be."""

import gzip
from collections import Counter
from functools import cache
from pathlib import Path

import corpus
import numpy as np
import pytest
from spec_fields import CORPORA

from common import paths
from common.data import sources
from common.data.texts import TEXT_FILES
from common.declare.tasks import TASKS

MEGABYTE = 2**20


@cache
def rows(task: str, split: str, seed: int = 0) -> list[corpus.Row]:
    return corpus.make_task(task, seed)[split]


def shipped(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_the_shipped_files_are_what_the_script_makes_byte_for_byte():
    # The compressed bytes may differ between versions of zlib; what they hold may not.
    found = {str(path.relative_to(paths.EMBEDDED)): shipped(path) for path in paths.EMBEDDED.rglob("*.*")}
    assert found == corpus.files()
    assert sum(path.stat().st_size for path in paths.EMBEDDED.rglob("*.*")) < 1.5 * MEGABYTE


def test_another_seed_makes_another_corpus():
    first, other = corpus.files(), corpus.files(seed=1)
    assert first.keys() == other.keys() and all(first[name] != other[name] for name in first)


def test_the_loader_reads_every_file_as_it_was_made():
    for task, splits in sources.load("embedded").items():
        for name, split in splits.items():
            made = rows(task, name)
            assert list(split.ids) == [row.id for row in made]
            assert list(zip(*split.texts, strict=True)) == [row.texts for row in made]
            assert split.labels is None if name == "test" else split.labels.tolist() == [row.label for row in made]


def test_the_files_have_the_columns_of_the_starter(cs224n):
    for splits in sources.FILES.values():
        for name in splits.values():
            ours, theirs = paths.EMBEDDED / name, cs224n / name
            if theirs.is_file():  # the starter's folder may lack a test file
                header = [path.read_text(encoding="utf-8").split("\n", 1)[0] for path in (ours, theirs)]
                assert header[0] == header[1]


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_class_priors_are_the_real_ones_in_every_split(seed):
    for task, priors in corpus.PRIORS.items():
        for split in corpus.SPLITS:
            labels = np.array([row.label for row in rows(task, split, seed)])
            assert np.abs(shares(task, labels) - priors).max() <= 0.02


def shares(task: str, labels: np.ndarray) -> np.ndarray:
    """Share of each class; of scores, in [0, 1), [1, 2), [2, 3), [3, 4), [4, 5]."""
    classes = np.minimum(labels.astype(int), 4) if task == "sts" else labels
    return np.bincount(classes, minlength=TASKS[task].num_classes or 5) / len(labels)


def test_the_priors_are_those_of_the_starter_files(cs224n):
    real = sources.load(str(cs224n))
    for task, priors in corpus.PRIORS.items():
        assert shares(task, real[task]["train"].labels) == pytest.approx(priors, abs=1e-3)


def test_sizes_keep_the_real_order():
    sizes = {task: len(rows(task, "train")) for task in corpus.SIZES}
    assert sizes["sts"] < sizes["sst"] < sizes["para"]


def test_no_text_stands_twice_and_ids_are_unique():
    for task in corpus.SIZES:
        made = [row for split in corpus.SPLITS for row in rows(task, split)]
        assert len({tuple(sorted(row.texts)) for row in made}) == len({row.id for row in made}) == len(made)


def meanings(text: str, groups: tuple[tuple[str, ...], ...]) -> list[int]:
    """The people (topics, intents) of a text, in order, whatever the words for them."""
    numbers = {word: i for i, group in enumerate(groups) for word in group}
    return [numbers[word] for word in text.split() if word in numbers]


def test_a_third_to_a_half_of_the_scene_pairs_swap_roles_and_lose_points_for_it():
    made = rows("sts", "train")
    people = [[meanings(text, corpus.ACTORS) for text in row.texts] for row in made]
    scores = np.array([row.label for row in made])
    swapped = np.array([first == second[::-1] for first, second in people])
    same = np.array([first == second for first, second in people])
    assert 0.3 <= swapped.mean() <= 0.5
    assert scores[same].mean() - scores[swapped].mean() > 1.5


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_the_known_share_of_question_pairs_is_labelled_against_its_meaning(split):
    made = rows("para", split)
    alike = [
        all(
            meanings(row.texts[0], groups) == meanings(row.texts[1], groups)
            for groups in (corpus.TOPICS, corpus.INTENTS)
        )
        for row in made
    ]
    wrong = np.mean([is_alike != row.label for is_alike, row in zip(alike, made, strict=True)])
    # Five standard deviations of the smallest set.
    assert wrong == pytest.approx(corpus.QUESTION_NOISE, abs=0.07 if split == "test" else 0.04)


# Text for pretraining.


@cache
def texts(name: str) -> list[tuple[str, ...]]:
    return corpus.make_texts(name)


def test_texts_for_pretraining_are_those_of_the_loader_and_the_base_text():
    assert set(corpus.TEXT_MAKERS) == {*TEXT_FILES, "base"} == {*CORPORA, "base"}
    assert all(len(document) >= 2 for document in texts("base"))
    with pytest.raises(ValueError, match="base"):
        corpus.make_texts("bass")


def test_texts_for_pretraining_keep_the_order_of_sizes():
    sizes = [len(texts(name)) for name in CORPORA]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_texts_for_pretraining_resemble_their_namesakes_and_no_base_text():
    base = {" ".join(document) for document in texts("base")}
    for name in CORPORA:
        joined = [" ".join(document) for document in texts(name)]
        assert not base & set(joined) and Counter(joined).most_common(1)[0][1] <= 3
    assert all(len(document) == 2 for name in ("mnli", "sick") for document in texts(name))
    words = {c: sum(len(" ".join(d).split()) for d in texts(c)) / len(texts(c)) for c in CORPORA}
    assert words["imdb"] > 2 * words["mnli"] and words["imdb"] > 2 * words["sick"]
    people = {name for group in corpus.ACTORS for name in group}
    share = {c: sum(bool(people & set(" ".join(d).split())) for d in texts(c)) / len(texts(c)) for c in CORPORA}
    assert share["imdb"] == 0 and 0.2 < share["mnli"] < 0.5 and share["sick"] == 1
    denied = sum("never" in " ".join(document).split() for document in texts("sick")) / len(texts("sick"))
    assert denied == pytest.approx(corpus.DENIED, abs=0.08)  # 4.5 standard deviations of 500 draws
