"""What every test gets: seeds, determinism, no network, no screen; `--runslow` and the real data folder."""

from __future__ import annotations

import os

# Read when the libraries are imported, so they must be set before any test imports one.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from common.declare import reported

ROOT = Path(__file__).resolve().parents[1]
CS224N = ROOT.parent / "shared" / "data" / "cs224n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    # Started in the background by a shell, a process ignores Ctrl-C, and the tests that press it would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; run with --runslow"))


@pytest.fixture
def damage_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have `common.declare.reported` (or a module beside it) read a copy where a text that stands once is another."""

    def damage(name: str, old: str, new: str, module: ModuleType = reported) -> None:
        folder = tmp_path / "reported"
        shutil.copytree(Path(reported.__file__).parent, folder)
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
        monkeypatch.setattr(module, "files", lambda package: folder)
        reported._table.cache_clear()

    yield damage
    reported._table.cache_clear()


@pytest.fixture(autouse=True)
def _determinism() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # whatever OMP_NUM_THREADS says: other threads are other sums, and slower for tiny models


@pytest.fixture(scope="session")
def cs224n() -> Path:
    """The data folder of the CS224N starter, where this machine has one beside the checkout."""
    if not CS224N.is_dir():
        pytest.skip("no folder ../shared/data/cs224n beside the checkout (the real data are not committed)")
    return CS224N
