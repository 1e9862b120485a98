"""Checks the values of options by the type of their dataclass field, and says what was expected and found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import dataset_path, local_path
from vlapipe.schemas.sizes import parse_size
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number

__all__ = ["flat_name", "option", "parse_fields"]


def option(default: Any = MISSING, **rules: Any) -> Any:
    """Returns a dataclass field with the rules of its values.

    ``choices`` lists the words of a text. ``least`` and ``most`` limit a number. ``flat`` is the name of the flag, if
    it differs from the field's name. ``is_size`` allows a text such as ``50GB``.
    """
    if default is dict:
        return dataclass_field(default_factory=dict, metadata=rules)
    return dataclass_field(default=default, metadata=rules)


def flat_name(field: Field[Any]) -> str:
    """Returns the name by which a flag, a flat TOML file and a message call the option."""
    return str(field.metadata.get("flat", field.name))


def parse_fields(options: Any) -> None:
    """Check each field of a frozen dataclass and convert its value to the field's type.

    Raises:
        UsageError: a value is not of the field's type, is out of range, or is no known word.
    """
    for field in fields(options):
        object.__setattr__(options, field.name, _parsed(field, getattr(options, field.name)))


def _parsed(field: Field[Any], value: Any) -> Any:
    name, rules = flat_name(field), field.metadata
    kind = str(field.type).removesuffix(" | None")
    if kind not in _NOUN:
        return value  # a group of options, which has checked itself
    if value is None:
        if field.default is None:
            return None
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found nothing")
    if "choices" in rules and value not in rules["choices"]:
        raise UsageError(f"{name} {value!r}: unknown", did_you_mean(str(value), rules["choices"]))
    if rules.get("is_size") and isinstance(value, str):
        value = parse_size(value)
    if kind == "Path" and isinstance(value, str | Path):
        return local_path(value, name)
    if kind == "tuple[Path, ...]":
        paths = (value,) if isinstance(value, str | Path) else value
        if isinstance(paths, Sequence) and paths and all(isinstance(path, str | Path) for path in paths):
            return tuple(dataset_path(path, name) for path in paths)
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found {value!r}")
    if kind == "tuple[str, ...]":
        if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(text, str) for text in value):
            return tuple(value)
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found {value!r}")
    if kind == "int":
        return parse_whole_number(name, value, least=rules["least"], most=rules.get("most"))
    if kind == "float":
        return parse_number(name, value, least=rules["least"], most=rules.get("most", math.inf))
    if not isinstance(value, _TYPES[kind]):
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found {value!r}")
    if not kind.startswith("Mapping"):
        return value
    try:
        json.dumps(value)  # a checkpoint keeps the options as JSON
    except TypeError as error:
        cure = "write dates and times as text"
        raise UsageError(f"{name}: expected texts, numbers, lists and tables: {error}", cure) from None
    return dict(value)


_TYPES: dict[str, Any] = {
    "bool": bool,
    "str": str,
    "Path": Path,
    "Mapping[str, Any]": Mapping,
}
_NOUN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "tuple[Path, ...]": "a path or several",
    "tuple[str, ...]": "a list of texts",
    "Mapping[str, Any]": "a table",
}
