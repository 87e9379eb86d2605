"""Text for additional pretraining: embedded, from files beside a data folder, and from a saved hub folder."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import datasets
import pytest
from spec_fields import CORPORA

from common.data import hub
from common.data.texts import TEXT_FILES, load_texts, text_fingerprint
from common.errors import StudyError

ALL = 10**6


def write(folder: Path, corpus: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TEXT_FILES[corpus]
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for corpus in CORPORA:
        write(tmp_path / "cs224n" / "mlm", corpus, f"a {corpus} film .\nwho runs ?\twhat sits ?\n\nthe \u2028 end .\n")
    return tmp_path / "cs224n"


def test_pretraining_has_a_text_for_every_corpus_that_a_spec_may_name(folder: Path) -> None:
    assert set(TEXT_FILES) == set(hub.HUB_TEXTS) == set(CORPORA)
    assert all(load_texts(source, corpus, 1) for source in ("embedded", folder) for corpus in CORPORA)


def test_pretraining_pairs_are_joined_by_a_space_and_blank_lines_left_out(folder: Path) -> None:
    expected = {"a mnli film .", "who runs ? what sits ?", "the \u2028 end ."}
    assert set(load_texts(folder, "mnli", ALL)) == expected


def test_pretraining_texts_may_stand_beside_the_data_folder(tmp_path: Path) -> None:
    write(tmp_path / "mlm", "sick", "a dog runs .\ta dog sits .\n")
    (tmp_path / "cs224n").mkdir()
    assert load_texts(str(tmp_path / "cs224n"), "sick", 5) == ["a dog runs . a dog sits ."]


def test_pretraining_texts_are_drawn_without_repetition_from_seed_and_corpus_alone(folder: Path) -> None:
    lines = [f"line {i}" for i in range(50)]
    for corpus in ("imdb", "mnli"):
        write(folder / "mlm", corpus, "\n".join(lines))
    drawn = load_texts(folder, "imdb", 20)
    assert len(set(drawn)) == 20 and set(drawn) < set(lines)
    assert drawn == load_texts(folder, "imdb", 20)
    assert drawn != load_texts(folder, "imdb", 20, seed=1) and drawn != load_texts(folder, "mnli", 20)
    assert load_texts(folder, "imdb", 30)[:20] == drawn  # a larger draw holds the smaller
    assert sorted(load_texts(folder, "imdb", ALL)) == sorted(lines)


def test_pretraining_texts_that_are_missing_are_named_with_both_places_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        load_texts(tmp_path / "data", "mnli", 5)
    assert caught.value.code == "E-FILE" and "Put the file there" in caught.value.fix
    for place in (tmp_path / "data" / "mlm", tmp_path / "mlm"):
        assert str(place / "mlm-mnli.txt.gz") in caught.value.what


@pytest.mark.parametrize(
    "content",
    [b"plain text", gzip.compress(b"a film\n")[:-9], gzip.compress(b"\xff\xfe"), gzip.compress(b" \n")],
    ids=["not-gzip", "torn", "not-utf-8", "empty"],
)
def test_pretraining_texts_that_are_damaged_are_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "mlm" / TEXT_FILES["sick"]).write_bytes(content)
    with pytest.raises(StudyError, match=r"mlm-sick.txt.gz: .*\[E-FILE\]"):
        load_texts(folder, "sick", 5)


def test_pretraining_refuses_an_unknown_corpus_and_an_empty_draw() -> None:
    with pytest.raises(ValueError, match="`corpus` must be one of imdb, mnli, sick, got 'base'"):
        load_texts("embedded", "base", 5)
    with pytest.raises(ValueError, match="`examples` must be at least 1, got 0"):
        load_texts("embedded", "imdb", 0)


def test_real_pretraining_files_hold_the_known_lines(cs224n: Path) -> None:
    if not (cs224n.parent / "mlm").is_dir():
        pytest.skip("no folder ../shared/data/mlm beside the checkout (the real data are not committed)")
    texts = {corpus: load_texts(cs224n, corpus, ALL) for corpus in CORPORA}
    assert {corpus: len(found) for corpus, found in texts.items()} == {"imdb": 30000, "mnli": 32374, "sick": 5000}
    assert not any("\t" in text for found in texts.values() for text in found)
    first = gzip.decompress((cs224n.parent / "mlm" / TEXT_FILES["sick"]).read_bytes()).decode().split("\n")[0]
    assert first.count("\t") == 1 and first.replace("\t", " ") in texts["sick"]


def test_pretraining_fingerprint_counts_order_and_boundaries() -> None:
    assert text_fingerprint(["a", "b"]) == hashlib.sha256(b'["a", "b"]').hexdigest()
    assert len({text_fingerprint(t) for t in (["a", "b"], ["b", "a"], ["a b"], ["a", "b", ""], ["a\nb"])}) == 5


# Hub.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    pair = {"premise": ["p one", "p two"], "hypothesis": ["h one", " "], "label": [0, 1]}
    made = {
        "imdb": {
            "train": {"text": ["labelled"], "label": [1]},
            "unsupervised": {"text": ["u one", "u two"], "label": [-1] * 2},
        },
        "multi_nli": {"train": pair, "validation_matched": {name: column[:1] for name, column in pair.items()}},
        "sick": {
            "train": {"sentence_A": ["a"], "sentence_B": ["b"]},
            "test": {"sentence_A": ["c"], "sentence_B": ["d"]},
        },
    }
    for name, splits in made.items():
        sets = {split: datasets.Dataset.from_dict(rows) for split, rows in splits.items()}
        datasets.DatasetDict(sets).save_to_disk(str(tmp_path / name))
    return tmp_path


def test_pretraining_texts_from_the_hub_are_the_unlabelled_reviews_and_the_training_pairs(saved: Path) -> None:
    found = {corpus: sorted(load_texts(f"hub:{saved}", corpus, ALL)) for corpus in CORPORA}
    assert found == {"imdb": ["u one", "u two"], "mnli": ["p one h one"], "sick": ["a b"]}


def test_pretraining_texts_from_the_hub_are_asked_for_by_name_and_revision(monkeypatch, saved: Path) -> None:
    asked = []

    def load_dataset(repository: str, config: str | None, revision: str) -> datasets.DatasetDict:
        asked.append((repository, config, revision))
        return datasets.load_from_disk(str(saved / "multi_nli"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_texts("hub", "mnli", ALL) == ["p one h one"]
    assert asked == [("nyu-mll/multi_nli", None, "da70db2af9d09693783c3320c4249840212ee221")]


def test_pretraining_texts_from_the_hub_need_their_split_and_columns(saved: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere/sick: not a saved dataset.*\[E-FILE\].*save_to_disk"):
        load_texts(f"hub:{saved / 'nowhere'}", "sick", 5)
    rows = datasets.Dataset.from_dict({"text": ["a"], "sentence_A": ["b"]})
    datasets.DatasetDict(test=rows).save_to_disk(str(saved / "other" / "imdb"))
    with pytest.raises(StudyError, match=r"imdb: no split unsupervised; found test \[E-FILE\]"):
        load_texts(f"hub:{saved / 'other'}", "imdb", 5)
    datasets.DatasetDict(train=rows).save_to_disk(str(saved / "other" / "sick"))
    with pytest.raises(StudyError, match=r"sick:train: no column 'sentence_B'.*\[E-COLUMN\]"):
        load_texts(f"hub:{saved / 'other'}", "sick", 5)
