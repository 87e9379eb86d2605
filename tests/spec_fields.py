"""Every field of a RunSpec by its dotted name, with its choices or its range, read from the types."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from common.declare.spec import Corpus, CorpusSpec, RunSpec
from common.declare.strict import _bounds, _dataclasses_in


def fields(cls: type = RunSpec, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, pydantic's field) of everything below a class; a list of corpora counts as one field."""
    for name, field in cls.__pydantic_fields__.items():
        inner = next(iter(_dataclasses_in(field.annotation)), None)
        if inner is None or inner is CorpusSpec:
            yield f"{prefix}{name}", field
        else:
            yield from fields(inner, f"{prefix}{name}.")


def _choices(hint: object) -> tuple[str, ...]:
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) is tuple:  # several of them
        return ()
    return next((found for part in typing.get_args(hint) if (found := _choices(part))), ())


CHOICES = {name: _choices(field.annotation) for name, field in fields() if _choices(field.annotation)}
RANGES = {name: (low[0], high[0]) for name, field in fields() for low, high in [_bounds(field)] if low and high}
FLAGS = {name for name, field in fields() if bool in (field.annotation, *typing.get_args(field.annotation))}
CORPORA = typing.get_args(Corpus)
