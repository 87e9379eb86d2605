"""The embedded corpus: made from a seed alone, priors as in the real sets, and what its tasks promise to measure."""

from functools import cache

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from common.data import sources, synthetic
from common.data.split import Split
from common.data.tasks import TASKS
from common.model.weights import resolve_encoder
from common.spec import EncoderSpec, OptimizerSpec, RunSpec, ScheduleSpec, TaskSpec
from common.training.loop import Materials, run

SEEDS = (0, 1, 2)
# As quick trains: batches of 16 at a rate between the two that its rows get.
COMMON = {
    "encoder": EncoderSpec("tiny-bert"),
    "optimizer": OptimizerSpec(lr=5e-4),
    "batch_size": 16,
    "data": "embedded",
}


@cache
def corpus(seed: int) -> dict[str, dict[str, Split]]:
    return synthetic.make_corpus(seed)


def joint(method: str, seed: int) -> RunSpec:
    """150 joint updates with one linear layer per task; only the way the two sentences enter differs."""
    tasks = (
        TaskSpec("sst"),
        TaskSpec("para", method, loss="bce", examples=1200),
        TaskSpec("sts", method, loss="mse"),
    )
    return RunSpec(tasks, schedule=ScheduleSpec("joint"), epochs=2, seed=seed, **COMMON)


@cache
def scores(name: str, seed: int) -> dict[str, float]:
    """Dev metrics of a run on the embedded corpus of that seed."""
    sst = RunSpec((TaskSpec("sst", dropout=0.1),), epochs=6, seed=seed, **COMMON)
    spec = sst if name == "sst" else joint(name, seed)
    materials = Materials(corpus(seed), resolve_encoder("tiny-bert"))
    return run(spec, materials, threads=1).record["metrics"]["dev"]


def bag_of_words(task: str, seed: int) -> float:
    """Dev metric of a linear model on word counts; pairs as [|u - v|, u * v]."""
    train, dev = corpus(seed)[task]["train"], corpus(seed)[task]["dev"]
    counter = CountVectorizer(token_pattern=r"\S+").fit([text for column in train.texts for text in column])

    def features(split: Split):
        columns = [counter.transform(column) for column in split.texts]
        if len(columns) == 1:
            return columns[0]
        return sparse.hstack([abs(columns[0] - columns[1]), columns[0].multiply(columns[1])]).tocsr()

    if task == "sts":
        return max(
            np.corrcoef(Ridge(strength).fit(features(train), train.labels).predict(features(dev)), dev.labels)[0, 1]
            for strength in (0.1, 1, 10, 100)
        )
    fitted = LogisticRegression(max_iter=2000).fit(features(train), train.labels)
    return fitted.score(features(dev), dev.labels)


def majority(task: str, seed: int) -> float:
    labels = corpus(seed)[task]["dev"].labels
    return np.bincount(labels).max() / len(labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_pair_encoding_beats_separate_encoding_on_similarity(seed):
    assert scores("pair", seed)["sts_corr"] - scores("separate", seed)["sts_corr"] >= 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_pair_run_is_not_below_a_bag_of_words_on_similarity(seed):
    assert scores("pair", seed)["sts_corr"] >= bag_of_words("sts", seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_paraphrase_run_beats_bag_of_words_and_majority(seed):
    assert scores("pair", seed)["para_acc"] >= max(bag_of_words("para", seed), majority("para", seed)) + 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_sentiment_run_beats_bag_of_words_and_majority(seed):
    assert scores("sst", seed)["sst_acc"] >= max(bag_of_words("sst", seed), majority("sst", seed)) + 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_sentiment_is_learnt_in_the_joint_run_too(seed):
    assert scores("pair", seed)["sst_acc"] >= majority("sst", seed) + 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_class_priors_are_the_real_ones_in_every_split(seed):
    for task, splits in corpus(seed).items():
        for split in splits.values():
            assert np.abs(shares(task, split.labels) - synthetic.PRIORS[task]).max() <= 0.02


def shares(task: str, labels: np.ndarray) -> np.ndarray:
    """Share of each class; of scores, in [0, 1), [1, 2), [2, 3), [3, 4), [4, 5]."""
    classes = np.minimum(labels.astype(int), 4) if task == "sts" else labels
    return np.bincount(classes, minlength=TASKS[task].num_classes or 5) / len(labels)


def test_the_priors_are_those_of_the_starter_files(cs224n):
    real = sources.load(str(cs224n))
    for task, priors in synthetic.PRIORS.items():
        assert shares(task, real[task]["train"].labels) == pytest.approx(priors, abs=1e-3)


def test_a_corpus_follows_from_its_seed_alone():
    again = sources.fingerprint(synthetic.make_corpus(0))
    assert sources.fingerprint(corpus(0)) == again == sources.fingerprint(sources.load("embedded"))
    assert all(digest != again[task] for task, digest in sources.fingerprint(corpus(1)).items())


def test_sizes_keep_the_real_order():
    sizes = {task: len(splits["train"]) for task, splits in corpus(0).items()}
    assert sizes["sts"] < sizes["sst"] < sizes["para"]


def test_no_text_stands_twice_and_ids_are_unique():
    for splits in corpus(0).values():
        texts = [tuple(sorted(row)) for split in splits.values() for row in zip(*split.texts, strict=True)]
        ids = [name for split in splits.values() for name in split.ids]
        assert len(set(texts)) == len(texts) and len(set(ids)) == len(ids)


def meanings(text: str) -> list[int]:
    """The people of a scene, in order, whatever the words for them."""
    groups = {word: i for i, group in enumerate(synthetic.ACTORS) for word in group}
    return [groups[word] for word in text.split() if word in groups]


def test_a_third_to_a_half_of_the_scene_pairs_swap_roles_and_lose_points_for_it():
    split = corpus(0)["sts"]["train"]
    people = [(meanings(first), meanings(second)) for first, second in zip(*split.texts, strict=True)]
    swapped = np.array([first == second[::-1] for first, second in people])
    same = np.array([first == second for first, second in people])
    assert 0.3 <= swapped.mean() <= 0.5
    assert split.labels[same].mean() - split.labels[swapped].mean() > 1.5


def test_mlm_texts_are_documents_of_several_sentences():
    documents = synthetic.mlm_texts("base")
    assert all(len(document) >= 2 for document in documents) and documents == synthetic.mlm_texts("base")
    with pytest.raises(ValueError, match="base"):
        synthetic.mlm_texts("bass")
