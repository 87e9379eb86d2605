"""Frozen dataclasses that refuse what cannot be, by name: pydantic's checks, told as one StudyError.

A class with `@strict` checks its fields whenever one is made, by its constructor, by `dataclasses.replace` or from
plain values. Whole numbers are taken for numbers and lists for tuples; nothing else bends. What crosses fields is
refused in the `__post_init__` of the class that has them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Iterable
from typing import Annotated, Literal

import pydantic
from pydantic import Field, Strict

from common.errors import StudyError

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict()]
Share = Annotated[Number, Field(ge=0, le=1)]
Dropout = Annotated[Number, Field(ge=0, le=0.99)]
Weight = Annotated[Number, Field(ge=0, le=1e6)]
Whole = Annotated[int, Strict()]
Count = Annotated[Whole, Field(ge=1, le=10**9)]


@typing.dataclass_transform(frozen_default=True)
def strict(cls: type) -> type:
    """A frozen dataclass whose fields are checked by their types, their ranges and its `__post_init__`."""
    made = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})(cls)
    unchecked, names = made.__init__, tuple(made.__pydantic_fields__)

    @functools.wraps(unchecked)
    def checked(self: object, *arguments: object, **fields: object) -> None:
        if len(arguments) > len(names):
            raise TypeError(f"{cls.__name__} has {len(names)} fields, got {len(arguments)} values")
        named = dict(zip(names, arguments, strict=False))
        try:
            unchecked(self, **named, **fields)
        except pydantic.ValidationError as error:
            raise _refusal(made, error, named | fields, "", "E-SPEC") from None

    made.__init__ = checked
    return made


def refuse(*impossible: tuple[bool, str]) -> None:
    """Raise for the combinations of fields that cannot be, each with the reason; for a class's `__post_init__`."""
    if reasons := [reason for is_so, reason in impossible if is_so]:
        raise ValueError(" ".join(reasons))


def build(cls: type, values: object, where: str, code: str = "E-SPEC") -> object:
    """A strict dataclass from plain values; `where` names the place in messages, before the dotted field."""
    try:
        return cls.__pydantic_validator__.validate_python(values)
    except pydantic.ValidationError as error:
        raise _refusal(cls, error, values, where, code) from None


def to_dict(value: object, omit_defaults: bool = False) -> object:
    """Dataclasses as plain dicts and lists; optionally without fields that hold their default."""
    if isinstance(value, tuple):
        return [to_dict(item, omit_defaults) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = dataclasses.fields(value)
    kept = [f for f in fields if not (omit_defaults and getattr(value, f.name) == f.default)]
    return {f.name: to_dict(getattr(value, f.name), omit_defaults) for f in kept}


def canonical_json(value: object) -> str:
    """The one spelling of a value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def meant(name: object, known: Iterable[str]) -> str:
    """A hint at the closest known name, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def inside(hint: object) -> list[object]:
    """A type hint and all that it is made of: its members, and what is said of them; of a field, its type."""
    parts = (getattr(hint, "annotation", None), *typing.get_args(hint), *getattr(hint, "metadata", ()))
    return [hint, *(found for part in parts if part is not None for found in inside(part))]


def holder_in(hint: object) -> type | None:
    """The dataclass that a field holds, alone or several of it."""
    return next((part for part in inside(hint) if isinstance(part, type) and dataclasses.is_dataclass(part)), None)


def choices(hint: object) -> tuple[str, ...]:
    """The values that a field (or each of its items) may take, where they are listed."""
    return next((typing.get_args(part) for part in inside(hint) if typing.get_origin(part) is Literal), ())


def bounds(hint: object) -> tuple[float, float] | None:
    """The smallest and the largest value of a number, where it has both."""
    ends = [[getattr(part, end) for part in inside(hint) if hasattr(part, end)] for end in ("ge", "le")]
    return (ends[0][0], ends[1][0]) if all(ends) else None


def _refusal(cls: type, error: pydantic.ValidationError, values: object, where: str, code: str) -> StudyError:
    """All that is wrong, each with its dotted place; a task goes by its name."""
    problems = []
    for detail in error.errors(include_url=False):
        place = ": ".join(part for part in (where, _place(detail["loc"], values)) if part)
        problems.append((place or cls.__name__, *_wording(cls, detail)))
    if len(problems) == 1:
        return StudyError(code, *problems[0])
    told = tuple(f"{place.removeprefix(f'{where}: ')}: {what} {fix}" for place, what, fix in problems)
    return StudyError(code, where or cls.__name__, f"{len(told)} fields cannot be.", "Correct them.", told)


def _place(location: tuple[int | str, ...], value: object) -> str:
    """Such as tasks.sts.loss: an item of a list by its name where it has one."""
    parts = []
    for step in location:
        try:
            value = getattr(value, step) if isinstance(step, str) and not isinstance(value, dict) else value[step]
        except (AttributeError, LookupError, TypeError):  # a field that is missing
            value = None
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        parts.append(str(name or step) if isinstance(step, int) else step)
    return ".".join(parts)


def _wording(cls: type, detail: dict) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    kind, value, path = detail["type"], detail["input"], [step for step in detail["loc"] if isinstance(step, str)]
    for step in path[:-1]:
        cls = holder_in(cls.__pydantic_fields__[step]) or cls
    names = cls.__pydantic_fields__
    field = names.get(path[-1]) if path else None
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        return f"unknown field.{meant(detail['loc'][-1], names)}", f"Known: {', '.join(names)}."
    if kind == "missing":
        return "required field is missing.", "Add it."
    if kind == "value_error":
        return str(detail["ctx"]["error"]), "Change one of the two fields."
    if kind == "literal_error":
        return f"unknown value {value!r}.{meant(value, choices(field))}", f"Known: {', '.join(choices(field))}."
    if kind in ("greater_than_equal", "less_than_equal", "finite_number"):
        return f"{value!r} is outside {' to '.join(map(str, bounds(field)))}.", "Choose a value inside."
    expected = {"tuple_type": "a list", "dataclass_type": "named fields"}.get(kind, kind.partition("_")[0])
    fix = "YAML reads 2e-5 as text: write 2.0e-5." if kind == "float_type" else "Correct the value."
    return f"expected {expected}, got {type(value).__name__} {value!r}.", fix
