"""Text for additional pretraining (BERT++, section 4.3.2): film reviews, sentence pairs and scenes, from three sources.

Not here: how the hub is read (`hub.py`), tokens and training (`training/pretrain.py`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path

import torch

from common.data import hub, sources
from common.errors import StudyError
from common.seeding import stateless_generator

# One text a line, in UTF-8; a tab separates the two sentences of a pair.
TEXT_FILES = {"imdb": "mlm-imdb-unsup.txt.gz", "mnli": "mlm-mnli.txt.gz", "sick": "mlm-sick.txt.gz"}
MOST_BYTES = 2**30  # ten times the largest corpus; a small file may unpack to more than any memory holds
_FIX = "Put the file there (one text a line, a tab between the sentences of a pair), or use 'embedded' or 'hub'."


def load_texts(source: str | Path, corpus: str, examples: int, seed: int = 0) -> list[str]:
    """Draw texts from a corpus, in random order; all of them where it holds fewer.

    Args:
        source: as in `sources.load`. A data folder has the texts in `mlm/`, inside it or beside it.
        corpus: `imdb`, `mnli` or `sick`. The two sentences of a pair are joined by a space.
        examples: how many to draw.
        seed: what the draw depends on, together with the corpus.

    Raises:
        ValueError: an unknown corpus, or no examples asked for.
        StudyError: E-FILE when the file is missing, damaged or empty; E-HUB and E-COLUMN as in `hub.py`.
    """
    if corpus not in TEXT_FILES:
        raise ValueError(f"`corpus` must be one of {', '.join(TEXT_FILES)}, got {corpus!r}")
    if examples < 1:
        raise ValueError(f"`examples` must be at least 1, got {examples}")
    if sources.name(source) == "hub":
        folder = str(source).partition(":")[2]
        rows = hub.read_hub_texts(corpus, Path(folder) if folder else None)
    else:
        rows = _read_texts(sources.folder_of(source), TEXT_FILES[corpus])
    drawn = torch.randperm(len(rows), generator=stateless_generator(seed, corpus))[:examples]
    return [" ".join(rows[i]) for i in drawn.tolist()]


def text_fingerprint(texts: list[str]) -> str:
    """Hex SHA-256 of the texts in their order, boundaries included."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _read_texts(folder: Path, file: str) -> list[tuple[str, ...]]:
    places = (folder / "mlm" / file, folder.resolve().parent / "mlm" / file)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        what = f"there is no {file}; looked for {' and '.join(map(str, places))}."
        raise StudyError("E-FILE", str(folder), what, _FIX)
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise StudyError("E-FILE", str(path), f"not a gzip file of UTF-8 text: {error}.", _FIX) from error
    if len(content) > MOST_BYTES:
        raise StudyError("E-FILE", str(path), f"holds more than {MOST_BYTES / 2**30:g} GB of text.", _FIX)
    rows = [tuple(line.split("\t")) for line in text.split("\n") if line.strip()]
    if not rows:
        raise StudyError("E-FILE", str(path), "holds no text.", _FIX)
    return rows
