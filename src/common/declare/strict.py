"""Frozen dataclasses from plain values and back, strictly: an unknown key or a wrong type is refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing

from common.errors import StudyError


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


def build(cls: type, values: object, where: str):
    """Fill a frozen dataclass from plain values, strictly; `where` names the place in messages."""
    if not isinstance(values, dict):
        raise StudyError("E-SPEC", where, f"expected named fields, got {values!r}.", f"Give fields of {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise StudyError(
                "E-SPEC", f"{where}.{key}", f"unknown field.{meant(key, hints)}", f"Known: {', '.join(hints)}."
            )
    required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    for name in required:
        if name not in values:
            raise StudyError("E-SPEC", f"{where}.{name}", "required field is missing.", "Add it.")
    converted = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except StudyError as error:
        raise StudyError(error.code, f"{where}: {error.where}", error.what, error.fix) from None


def _convert(hint: object, value: object, where: str) -> object:
    """Check one value against its type hint; ints are accepted for floats, lists for tuples, nothing else bends."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in args if arg is not types.NoneType]
        return None if value is None else _convert(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise StudyError("E-SPEC", where, f"expected a list, got {value!r}.", "Write it as a list.")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        fix = "YAML reads 2e-5 as text: write 2.0e-5." if hint is float else "Correct the value."
        raise StudyError("E-SPEC", where, f"expected {hint.__name__}, got {type(value).__name__} {value!r}.", fix)
    return value


def meant(name: str, known: typing.Iterable[str]) -> str:
    """A hint at the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
