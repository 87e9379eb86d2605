"""Every field of a RunSpec by its dotted name, with its choices or its range, read from the types."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from common.declare.spec import Corpus, CorpusSpec, RunSpec
from common.declare.strict import bounds, choices, holder_in, inside


def fields(cls: type = RunSpec, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, pydantic's field) of everything below a class; a list of corpora counts as one field."""
    for name, field in cls.__pydantic_fields__.items():
        inner = holder_in(field)
        if inner is None or inner is CorpusSpec:
            yield f"{prefix}{name}", field
        else:
            yield from fields(inner, f"{prefix}{name}.")


def _is_several(field: object) -> bool:
    return any(typing.get_origin(part) is tuple for part in inside(field))


CHOICES = {name: choices(field) for name, field in fields() if choices(field) and not _is_several(field)}
RANGES = {name: bounds(field) for name, field in fields() if bounds(field)}
FLAGS = {name for name, field in fields() if bool in inside(field)}
CORPORA = typing.get_args(Corpus)
