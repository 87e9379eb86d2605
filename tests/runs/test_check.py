"""Broken encoders and data, written from scratch: all that is wrong is told at once, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import common as study
from common import paths
from common.data.split import Split
from common.declare.tasks import TASKS
from common.errors import StudyError
from common.runs import check
from common.runs.session import Study

pytestmark = pytest.mark.fault
SPECS = [spec for row in study.rows("swissbert", "table2") for spec in row.specs]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "two", "##s"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(paths.ASSETS / "tiny-random", tmp_path / "broken")


def edit(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without_template(folder: Path) -> None:
    edit(folder, "tokenizer.json", post_processor=None)


def one_separator(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pair = tokenizer["post_processor"]["pair"]
    inner = next(i for i, part in enumerate(pair) if "SpecialToken" in part and i)
    edit(
        folder,
        "tokenizer.json",
        post_processor={**tokenizer["post_processor"], "pair": pair[:inner] + pair[inner + 1 :]},
    )


def vocabulary(words: list[str], settings: object = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        if settings is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    return write


def more_tokens(folder: Path) -> None:
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = 1 + max(tokenizer["model"]["vocab"].values())
    edit(folder, "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], {"id": last, "content": "<new>", **added}])


def reweighted(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path)

    return write


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "config.json", **changes)


def content(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data)


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")


def as_folder(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return write


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
BROKEN = {
    "more tokens than rows": (more_tokens, "has ids up to"),
    "one segment and pairs": (config(type_vocab_size=1), "1 weights do not fit"),
    "no special tokens": (without_template, "not [CLS] text [SEP]"),
    "a pair with one separator": (one_separator, "of a pair, not [CLS] text [SEP] text [SEP]"),
    "cased, read as uncased": (vocabulary(VOCABULARY, {"do_lower_case": False}), "do_lower_case: False"),
    "settings that are a list": (vocabulary(VOCABULARY, []), "tokenizer_config.json that cannot be read"),
    "other token names": (vocabulary(["<pad>", "<s>", "</s>", "a"]), "the tokenizer cannot be read"),
    "a vocabulary that is not UTF-8": (
        lambda f: (vocabulary([])(f), content("vocab.txt", b"\xff\xfe")(f)),
        "cannot be read",
    ),
    "a torn tokenizer": (content("tokenizer.json", b'{"version": "1.0", "mod'), "the tokenizer cannot be read"),
    "a pointer for a tokenizer": (content("tokenizer.json", POINTER), "the tokenizer cannot be read"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json or vocab.txt"),
    "a pointer for weights": (content("model.safetensors", POINTER), "not a valid safetensors file"),
    "a pickle for weights": (content("model.safetensors", b"\x80\x04cos\nsystem\n."), "not a valid safetensors file"),
    "an absurd header": (content("model.safetensors", b"\xff" * 8 + b"{}"), "not a valid safetensors file"),
    "weights in shards": (sharded, "several shards"),
    "a folder for weights": (as_folder("model.safetensors"), "model.safetensors: "),
    "a folder for the config": (as_folder("config.json"), "config.json: "),
    "no pooler": (reweighted(lambda s: {n: t for n, t in s.items() if "pooler" not in n}), "without its pooler"),
    "a wrapped model": (reweighted(lambda s: {f"module.{n}": t for n, t in s.items()}), "begin with 'module.'"),
    "weights that are no numbers": (
        reweighted(lambda s: {n: torch.full_like(t, torch.nan) for n, t in s.items()}),
        "finite",
    ),
    "another activation": (config(hidden_act="relu"), "hidden_act is 'relu'"),
    "a decoder": (config(is_decoder=True), "is_decoder is set"),
    "pruned heads": (config(pruned_heads={"0": [1]}), "pruned_heads is set"),
    "a billion layers": (config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "a million million positions": (config(max_position_embeddings=10**12), "max_position_embeddings is 1000000000000"),
    "a size in words": (config(hidden_size="128"), "hidden_size is 128, expected a whole number"),
    "a size that is no number": (content("config.json", b'{"hidden_size": NaN}'), "hidden_size is nan"),
    "dropout above one": (config(hidden_dropout_prob=3), "hidden_dropout_prob is 3"),
    "heads that do not divide": (config(num_attention_heads=3), "heads do not share"),
    "a list for a config": (content("config.json", b"[]"), "holds no object"),
    "a deep config": (content("config.json", b"[" * 100000), "config.json: "),
    "a page of a proxy": (content("config.json", b"<html>"), "not valid JSON"),
    "no sizes": (content("config.json", b"{}"), "sizes are missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_encoder_is_named(name: str, folder: Path) -> None:
    damage, told = BROKEN[name]
    damage(folder)
    assert any(told in problem for problem in check.encoder_problems(folder, SPECS)), check.encoder_problems(
        folder, SPECS
    )


def test_a_second_sentence_needs_a_second_segment_only_where_pairs_are_read(folder: Path) -> None:
    config(type_vocab_size=1)(folder)
    reweighted(lambda s: {n: t[:1].clone() if "token_type" in n else t for n, t in s.items()})(folder)
    paired, apart = (
        [s for s in SPECS if any(t.pair_method == "pair" for t in s.tasks) is is_pair] for is_pair in (True, False)
    )
    assert any("has one segment only" in problem for problem in check.encoder_problems(folder, paired))
    assert apart and check.encoder_problems(folder, apart) == []


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-random"])
def test_a_sound_encoder_and_the_embedded_data_pass(name: str) -> None:
    assert check.encoder_problems(paths.ASSETS / name, SPECS) == []
    assert check.check_inputs(lambda: paths.ASSETS / name, study.open_study("smoke").corpus, SPECS) is not None


def split(labels: list[float], *texts: str) -> Split:
    words = texts or tuple(f"film {i}" for i in range(len(labels)))
    columns = (words, words)
    return Split(tuple(map(str, range(len(labels)))), columns, np.array(labels))


def test_data_that_teach_nothing_or_have_another_scale_are_named() -> None:
    corpus = {
        "sst": {"train": split([2, 2]), "dev": split([2])},
        "sts": {"train": split([0.2, 0.9]), "dev": split([1.0, 0.5])},
    }
    one, scale = check.data_problems(corpus)
    assert "sst train: all 2 labels are 2" in one and "sts train: no score is above 0.9" in scale
    assert TASKS["sts"].high == 5
    assert check.data_problems({"sts": {"dev": split([3.0])}}) == ["sts dev: one example has no correlation."]


def test_what_train_and_dev_share_and_labels_that_disagree_are_told() -> None:
    train, dev = split([0, 1, 1], "a", "a", "b"), split([3, 1], "b", "c")
    assert check.data_notes({"sst": {"train": train, "dev": dev}}) == [
        "Note on sst: 1 of 2 dev examples stand in train too.",
        "Note on sst: 1 texts of train have labels that disagree.",
        "Note on sst: train has no example of 3, dev has.",
    ]


def test_one_message_lists_what_is_wrong_with_both_and_nothing_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    data = shutil.copytree(paths.EMBEDDED, tmp_path / "data")
    lines = (data / "sts-train.csv").read_text().splitlines()
    (data / "sts-train.csv").write_text("\n".join([lines[0], *lines[1:], lines[1]]) + "\n")
    without_template(folder)
    config(hidden_act="relu")(folder)
    here: Study = study.open_study("smoke", data=data, encoder=folder, jobs=1)
    with pytest.raises(StudyError) as error:
        here.run(study.rows("swissbert", "table2")[:1])
    told = error.value.message()
    assert error.value.code == "E-INPUT"
    assert "hidden_act is 'relu'" in told and "not [CLS] text [SEP]" in told and "sts-train.csv" in told
    assert not list((tmp_path / "out").rglob("record.json"))


def test_rows_whose_task_the_data_lack_are_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    data = shutil.copytree(paths.EMBEDDED, tmp_path / "data", ignore=shutil.ignore_patterns("*cfimdb*"))
    reviews = next(
        row for row in study.rows("swissbert") if any(t.name == "cfimdb" for s in row.specs for t in s.tasks)
    )
    for options in ({}, {"report_only": True}):
        here = study.open_study("smoke", data=data, jobs=1, **options)
        results = here.run([reviews])
        assert results[reviews.id].records == ()
        assert {f.message for f in results[reviews.id].failures} == {"the cs224n data have no cfimdb"}
    assert f"Left out, because the cs224n data have not every task of 1 runs: {reviews.id}." in capfd.readouterr().err
