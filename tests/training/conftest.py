"""A tiny encoder and corpus made on the spot, so that these tests depend on no shipped file."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.data.split import Split
from common.declare.rows import Example
from common.model.bert import BertConfig, BertModel
from common.training.loop import Materials

WORDS = ["good", "bad", "very", "not", "film", "story", "who", "what", "runs", "sits", "dog", "cat", "the", "a", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CONFIG = BertConfig(len(VOCABULARY), 32, 2, 4, 64, max_position_embeddings=48)
EXAMPLES = (
    Example("e1", "sst", ("the film good",)),
    Example("e2", "sts", ("the dog runs", "a dog runs ."), draws_attention=True),
    Example("e3", "para", ("who runs", "what sits")),
)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text(json.dumps(vars(CONFIG) | {"model_type": "bert"}))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    model = BertModel(CONFIG)
    model.reset_parameters(torch.Generator().manual_seed(0), std=0.1)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def _sentences(rng, count):
    return tuple(" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(count))


def _split(rng, task, name, count):
    ids = tuple(f"{task}-{name}-{i}" for i in range(count))
    first, second = _sentences(rng, count), _sentences(rng, count)
    if task == "sst":
        labels = np.array([min(4, text.split().count("good") + 2 * text.split().count("very")) for text in first])
        return Split(ids, (first,), labels)
    overlap = np.array([len(set(a.split()) & set(b.split())) for a, b in zip(first, second, strict=True)])
    labels = np.minimum(overlap, 5).astype(float) if task == "sts" else (overlap > 1).astype(np.int64)
    return Split(ids, (first, second), labels)


@pytest.fixture(scope="session")
def corpus():
    rng = np.random.default_rng(0)
    sizes = {"sst": 80, "para": 120, "sts": 64}
    return {t: {"train": _split(rng, t, "train", n), "dev": _split(rng, t, "dev", 40)} for t, n in sizes.items()}


@pytest.fixture
def materials(corpus, encoder_folder):
    return Materials(corpus, encoder_folder, EXAMPLES)
