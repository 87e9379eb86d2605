"""Answers on the command line: all tasks that fit, a row that is trained first, and clear refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import common as study
from common import predict
from common.declare.tasks import CLASS_NAMES
from common.runs import session


@pytest.fixture(scope="module", autouse=True)
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUT", str(tmp_path_factory.mktemp("predict")))
        yield Path(os.environ["STUDY_OUT"])
        session.local_pool(session.default_jobs(1), 1).close()


def said(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert predict.main([*arguments, "--profile", "smoke"]) == 0
    return capsys.readouterr().out


def test_one_text_is_answered_by_the_sentiment_and_two_by_the_pair_tasks(capsys) -> None:
    text = said(capsys, "swissbert_pair", "a fine film")
    assert text.startswith("swissbert_pair, seed 0, profile smoke\n") and "paraphrase" not in text
    shares = [float(number) for number in re.findall(r"(?:negative|neutral|positive) (\d\.\d+)", text)]
    expected = study.load("swissbert_pair", "smoke").predict("sst", ["a fine film"])[0]
    np.testing.assert_allclose(shares, expected, atol=6e-4)
    assert f"takes it for {CLASS_NAMES['sst'][expected.argmax()]};" in text and "On dev: accuracy" in text
    text = said(capsys, "swissbert_pair", "a dog runs", "a cat sits")
    assert "sentiment" not in text and re.search(r"paraphrase: probability 0\.\d{3}", text)
    assert re.search(r"similarity: \d\.\d\d of 5\n  From 0, nothing in common, to 5", text)
    assert "the scores mean nothing" in text  # the encoder's caveat


def test_a_row_is_trained_once_and_its_other_seed_by_itself(capsys) -> None:
    assert predict.main(["swissbert_no_extension", "a", "--profile", "smoke"]) == 0
    assert "Training swissbert_no_extension, seed 0" in capsys.readouterr().err
    assert predict.main(["swissbert_no_extension", "a", "--profile", "smoke"]) == 0
    assert "Training" not in capsys.readouterr().err
    assert predict.main(["swissbert_no_extension", "a", "--profile", "smoke", "--seed", "5"]) == 0
    assert "Training swissbert_no_extension, seed 5" in capsys.readouterr().err


def test_a_cosine_is_not_called_a_probability(capsys) -> None:
    text = said(capsys, "swissbert_cosine_similarity", "a dog runs", "a cat sits")
    assert re.search(r"paraphrase: cosine \(no probability\) -?\d\.\d{3}", text) and "where the cosine exceeds" in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["swissbert_pair"], "got none. [E-TEXT]"),
        (["swissbert_pair", "a", "b", "c"], "got 3. [E-TEXT]"),
        (["swissbert_pair", " "], "a text is empty. [E-TEXT]"),
        (["swissbert_pair", "a", ""], "a text is empty. [E-TEXT]"),
        (["swisbert_pair", "a"], "Did you mean 'swissbert_pair'?"),
        (["slapbert_randbert", "a"], "drawn at random"),
        (["siar_baseline_sst", "a", "b"], "it trained sst alone"),
        (["swissbert_pair", "a", "--seed", "-1"], "[E-SEEDS]"),
        (["swissbert_pair", "a", "--profile", "quik"], "Did you mean 'quick'?"),
        (["swissbert_pair", "a", "--profile", "cpu"], "Give it: --data FOLDER"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_trained(arguments: list, part: str, capsys) -> None:
    profile = [] if "--profile" in arguments else ["--profile", "smoke"]
    assert predict.main([*arguments, *profile]) == 2
    found = capsys.readouterr()
    assert part in found.err and found.out == "" and "trained in" not in found.err


def test_help_shows_examples_without_any_package() -> None:
    code = f"import sys; sys.path[:0] = ['{Path(study.__file__).parents[1]}']; from common.predict import main; main()"
    command = [sys.executable, "-I", "-S", "-c", code, "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    examples = re.findall(r"^  python -m common\.predict (\w+)", text, flags=re.M)
    assert len(examples) == 3 and all(study.row(name).specs for name in examples)
