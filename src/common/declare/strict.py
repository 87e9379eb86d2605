"""Frozen dataclasses that refuse what cannot be, by name: pydantic's checks, told as one StudyError.

A class with `@strict` checks its fields whenever one is made, by its constructor, by `dataclasses.replace` or from
plain values. Whole numbers are taken for numbers and lists for tuples; nothing else bends.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Iterable
from typing import Annotated

import pydantic
from annotated_types import Ge, Le
from pydantic import Field, Strict
from pydantic_core import ErrorDetails

from common.errors import StudyError

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict()]
Share = Annotated[Number, Field(ge=0, le=1)]
Dropout = Annotated[Number, Field(ge=0, le=0.99)]
Weight = Annotated[Number, Field(ge=0, le=1e6)]
Count = Annotated[int, Strict(), Field(ge=1, le=10**9)]
CHANGE_ONE = "Change one of the two fields."


@typing.dataclass_transform(frozen_default=True)
def strict(cls: type) -> type:
    """A frozen dataclass whose fields are checked by their types, ranges and validators."""
    made = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})(cls)
    unchecked = made.__init__

    @functools.wraps(unchecked)
    def checked(self: object, *arguments: object, **fields: object) -> None:
        try:
            unchecked(self, *arguments, **fields)
        except pydantic.ValidationError as error:
            given = dict(zip(made.__pydantic_fields__, arguments, strict=False)) | fields
            raise _told(made, error, given) from None

    made.__init__ = checked
    return made


def refuse(*impossible: tuple[bool, str]) -> None:
    """Raise for the combinations of fields that cannot be, each with the reason; for a class's own validator."""
    if reasons := [reason for is_so, reason in impossible if is_so]:
        raise ValueError(" ".join(reasons))


def build(cls: type, values: object, where: str) -> object:
    """A strict dataclass from plain values; `where` names the place in messages."""
    if not isinstance(values, dict):
        raise StudyError("E-SPEC", where, f"expected named fields, got {values!r}.", f"Give fields of {cls.__name__}.")
    try:
        return cls(**values)
    except StudyError as error:
        place = f"{where}.{error.where}" if error.where[:1].islower() else where
        raise StudyError(error.code, place, error.what, error.fix, error.problems) from None


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


def _told(cls: type, error: pydantic.ValidationError, fields: dict[str, object]) -> StudyError:
    """All that is wrong, each with its dotted place; a task stands by its name."""
    found = []
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        if location and isinstance(location[0], int):  # given by its position
            location = detail["loc"] = (list(cls.__pydantic_fields__)[location[0]], *location[1:])
        found.append((_place(location, fields) or cls.__name__, *_wording(_holder(cls, location), detail)))
    if len(found) == 1:
        return StudyError("E-SPEC", *found[0])
    return StudyError(
        "E-SPEC", cls.__name__, f"{len(found)} fields cannot be.", "Correct them.", tuple(": ".join(f) for f in found)
    )


def _place(location: tuple[int | str, ...], value: object) -> str:
    """Such as tasks.sts.loss: an item of a list by its name where it has one."""
    parts = []
    for step in location:
        try:
            value = getattr(value, step) if isinstance(step, str) and not isinstance(value, dict) else value[step]
        except (AttributeError, LookupError, TypeError):  # what is missing, or was given by its position
            value = None
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        parts.append(str(name or step) if isinstance(step, int) else step)
    return ".".join(parts)


def _holder(cls: type, location: tuple[int | str, ...]) -> type:
    """The dataclass that has the field at the end of the place."""
    for step in location[:-1]:
        if isinstance(step, str):
            cls = next(iter(_dataclasses_in(cls.__pydantic_fields__[step].annotation)), cls)
    return cls


def _dataclasses_in(hint: object) -> list[type]:
    inner = [found for part in typing.get_args(hint) for found in _dataclasses_in(part)]
    return [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else inner


def _wording(holder: type, detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    kind, value, name = detail["type"], detail["input"], detail["loc"][-1] if detail["loc"] else ""
    names = holder.__pydantic_fields__
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown field.{meant(name, names)}", f"Known: {', '.join(names)}."
    if kind in ("missing", "missing_argument"):
        return "required field is missing.", "Add it."
    if kind == "value_error":
        return str(detail["ctx"]["error"]), CHANGE_ONE
    if kind == "literal_error":
        known = [word.strip("'") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"unknown value {value!r}.{meant(value, known)}", f"Known: {', '.join(known)}."
    if kind in ("greater_than_equal", "less_than_equal", "finite_number"):
        low, high = (next(iter(found), "") for found in _bounds(names[name]))
        return f"{value!r} is outside {low} to {high}.", "Choose a value inside."
    expected = {"tuple_type": "a list", "dataclass_type": "named fields"}.get(kind, kind.partition("_")[0])
    fix = "YAML reads 2e-5 as text: write 2.0e-5." if kind.startswith("float") else "Correct the value."
    return f"expected {expected}, got {type(value).__name__} {value!r}.", fix


def _bounds(field: pydantic.fields.FieldInfo) -> tuple[list[float], list[float]]:
    """The smallest and the largest value of a field; optional ones carry theirs a level deeper."""
    metadata = [
        *field.metadata,
        *(m for part in typing.get_args(field.annotation) for m in getattr(part, "__metadata__", ())),
    ]
    flat = [inner for m in metadata for inner in getattr(m, "metadata", [m])]
    return [m.ge for m in flat if isinstance(m, Ge)], [m.le for m in flat if isinstance(m, Le)]
