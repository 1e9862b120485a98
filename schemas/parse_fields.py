"""Parses the fields of a stream from a schema's TOML: columns, units, ranges, rotations and missing values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, get_args

from vlapipe.schemas.schema import MISSING_SUFFIX, DerivedSpec, FieldSpec, OnMissing
from vlapipe.schemas.toml_table import REQUIRED, TomlTable, is_number, is_whole
from vlapipe.schemas.units import conversion_factor

__all__ = ["ON_MISSING", "expand_names", "parse_array_field", "parse_csv_field", "parse_derived"]

_CHOICE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint16")
_MAX_EXPANDED = 10_000  # names from one range; a larger range is a typing mistake that would fill the memory
_LIMITS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint8": (0, 255), "uint16": (0, 65535)}
_MAX_OF_WORD = 1 << 24  # float32 holds every whole number up to this one
_AXES = {"X", "Y", "Z"}
# Keys that do not apply to text.
_OF_NUMBERS = ("words", "number", "range", "unit", "to", "period", "max_speed", "stuck_s", "gripper")
ON_MISSING: tuple[OnMissing, ...] = get_args(OnMissing)


def parse_csv_field(name: str, table: TomlTable, on_missing: OnMissing) -> FieldSpec:
    """Parses a field of a CSV stream; ``on_missing`` is the stream's setting, which the field may override."""
    regex = table.text("regex", None)
    shape: tuple[int, ...]
    if regex is not None:
        _check_regex(table, regex)
        count = table.count("count", 0)  # the array's shape must not depend on the file, so the schema states it
        columns: tuple[tuple[str, ...], ...] = ()
        num_columns, shape = count, (count,)
    else:
        columns = _columns(table)
        num_columns, shape = len(columns), (len(columns),) if len(columns) > 1 else ()
    length = table.count("list", 0, least=0)
    if length and num_columns != 1:
        table.fail("list: a field whose cells hold lists has one column", "make a field of each such column")
    dtype = table.choice("dtype", (*_DTYPES, "text"), "float32")
    if dtype == "text":
        if num_columns != 1 or length:
            table.fail("dtype: a field of text has one column", "make a field of each such column")
        for key in _OF_NUMBERS:
            if key in table.values:
                table.fail(f"{key}: a field of text has none", "leave it out")
        shape, dtype = (table.count("width", 64),), "uint8"
        return _parse_field(name, table, shape, 1, {"columns": columns, "text": True, "dtype": dtype}, on_missing)
    hexadecimal = table.choice("number", ("decimal", "hex"), "decimal") == "hex"
    words = _parse_words(table, dtype)
    if words and hexadecimal:
        table.fail("words and number cannot be combined", "choose one")
    if words and length:
        table.fail("words: a field whose cells hold lists has none", "leave one of the two out")
    if length:
        shape = (length,)
    values: dict[str, Any] = {"columns": columns, "regex": regex, "dtype": dtype, "cells": "list" if length else "one"}
    values |= {"words": words, "hexadecimal": hexadecimal}
    return _parse_field(name, table, shape, length or num_columns, values, on_missing)


def _parse_words(table: TomlTable, dtype: str) -> tuple[tuple[str, float], ...]:
    """Returns each word with the number that it stands for; empty if the key is missing."""
    if "words" not in table.values:
        return ()
    words = table.table("words").values
    if not words:
        table.fail("words: there is none", "say words = { ON = 1, OFF = 0 }, or leave it out")
    for word, value in words.items():
        if not word or word != word.strip(" \t"):
            table.fail(f"words: {word!r} is empty or has blanks around it", "cells are compared without such blanks")
        if not is_number(value) or not abs(value) <= _MAX_OF_WORD:
            table.fail(f"words: expected a number up to {_MAX_OF_WORD} for {word!r}, found {value!r}")
        limits = _LIMITS.get(dtype)
        if limits is not None and not (is_whole(value) and limits[0] <= value <= limits[1]):
            table.fail(f"words: {dtype} cannot hold {value!r} for {word!r}", "choose another dtype or number")
    return tuple((word, float(value)) for word, value in words.items())


def parse_array_field(name: str, table: TomlTable, on_missing: OnMissing) -> FieldSpec:
    """Parses a field of a container's arrays; ``on_missing`` is the stream's setting, which the field may override."""
    columns, part = _parse_array_names(table), _parse_part(table)
    given = [part[1] - part[0]] if part and part[1] - part[0] > 1 and len(columns) == 1 else []
    shape = table.get("shape", given)
    if not isinstance(shape, list) or not all(is_whole(n) and n > 0 for n in shape):
        table.fail(f"shape: expected a list of whole numbers (the shape of one row), found {shape!r}")
    if len(columns) > 1 and len(shape) != 1:
        table.fail("shape: how many numbers have the arrays together?", "say shape = [8], for 7 and 1")
    dtype = table.choice("dtype", (*_DTYPES, "text"), "float32")
    window = _parse_window(table)
    values: dict[str, Any] = {"columns": columns, "part": part, "window": window}
    if dtype == "text":
        for key in (*_OF_NUMBERS, "part", "window", "shape", "arrays"):
            if key in table.values:
                table.fail(f"{key}: a field of text has none", "leave it out")
        values |= {"text": True, "dtype": "uint8"}
        return _parse_field(name, table, (table.count("width", 64),), 1, values, on_missing)
    words = _parse_words(table, dtype)
    if words and (part or window or len(columns) > 1):
        table.fail("words: only a field of one array of texts has them", "make a field of each such array")
    values |= {"dtype": dtype, "words": words, "names": _parse_names(table, math.prod(shape))}
    return _parse_field(name, table, tuple(shape), shape[-1] if shape else 1, values, on_missing)


def _parse_array_names(table: TomlTable) -> tuple[tuple[str, ...], ...]:
    """Returns the accepted names of each array, best first: of the one in ``array``, or of each in ``arrays``."""
    if "arrays" not in table.values:
        return (table.texts("array"),)
    if "array" in table.values:
        table.fail("array and arrays cannot both be given", "arrays joins several, array names one")
    given = table.get("arrays", REQUIRED)
    lists = [each if isinstance(each, list) else [each] for each in given] if isinstance(given, list) else []
    if not lists or not all(each and all(isinstance(name, str) for name in each) for each in lists):
        table.fail(f"arrays: expected a list of names, or of lists of accepted names, found {given!r}")
    return tuple(tuple(each) for each in lists)


def _parse_part(table: TomlTable) -> tuple[int, int] | None:
    given = table.get("part", None)
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2 or not all(is_whole(n) and n >= 0 for n in given):
        table.fail(f"part: expected [first, past the last], found {given!r}", "for example [0, 7] for the first seven")
    if given[0] >= given[1]:
        table.fail(f"part: {given!r} has no column", "say [first, past the last]")
    return given[0], given[1]


def _parse_names(table: TomlTable, count: int) -> tuple[str, ...]:
    names: tuple[str, ...] = table.texts("names", ())
    if names and len(names) != count:
        table.fail(f"names: expected {count}, one a number of a row, found {len(names)}")
    return names


def _parse_window(table: TomlTable) -> tuple[str, int, int] | None:
    if "window" not in table.values:
        return None
    window = table.table("window")
    array, columns = window.text("array"), window.get("columns", REQUIRED)
    if not isinstance(columns, list) or len(columns) != 2 or not all(is_whole(c) and c >= 0 for c in columns):
        window.fail(f"columns: expected [first, past the last], found {columns!r}")
    window.finish()
    return array, columns[0], columns[1]


def parse_derived(name: str, table: TomlTable, fields: Iterable[FieldSpec]) -> DerivedSpec:
    """Parses a field that is derived from another field of the same stream."""
    derived = DerivedSpec(name=name, kind=table.choice("kind", ("rotation_6d",)), of=table.text("of"))
    table.finish()
    source = next((field for field in fields if field.name == derived.of), None)
    if source is None:
        table.fail(f"of: no field {derived.of!r} in this stream")
    if not (source.quaternion or source.euler):
        cure = "say quaternion = 'xyzw' or 'wxyz', or euler = 'XYZ' or another convention, in that field"
        table.fail(f"of: {derived.of!r} is not known to hold a rotation", cure)
    if len(source.shape) != 1:
        table.fail(f"of: {derived.of!r} has several rotations a row", "derive from a field with one")
    if source.euler:
        try:
            for unit in source.unit[-3:] or ("",):
                conversion_factor(unit, "rad")
        except ValueError:
            table.fail(f"of: in what unit are the angles of {derived.of!r}?", "say unit = 'deg' or 'rad' in that field")
    return derived


def _columns(table: TomlTable) -> tuple[tuple[str, ...], ...]:
    """Returns the accepted names of each column, best first."""
    columns = expand_names(table.texts("columns"))
    if not columns:
        cure = "name at least one; a range is {first..last}, a choice {left,right}"
        table.fail(f"columns: no column in {table.values['columns']!r}", cure)
    if len(columns) > _MAX_EXPANDED:
        cure = "check the ends of its ranges"
        table.fail(f"columns: expected at most {_MAX_EXPANDED:,}, found more in {table.values['columns']!r}", cure)
    other_names = table.get("aliases", [])
    if not isinstance(other_names, list) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in other_names
    ):
        table.fail(f"aliases: expected a list of lists of column names, found {other_names!r}")
    accepted = [columns]
    for names in other_names:
        expanded = expand_names(names)
        if len(expanded) != len(columns):
            table.fail(f"aliases: expected {len(columns)} names as in columns, found {len(expanded)}: {names!r}")
        accepted.append(expanded)
    return tuple(zip(*accepted, strict=True))


def expand_names(names: Iterable[str]) -> tuple[str, ...]:
    """Expands ranges and choices: ``joint_{1..3}`` becomes ``joint_1``, ``joint_2``, ``joint_3``.

    ``{left,right}_{1..2}`` becomes four names; the last part varies first. A range whose first number begins with a
    zero keeps its digits: ``{01..12}``.
    """
    expanded: list[str] = []
    for name in names:
        expanded += islice(_expand(name), _MAX_EXPANDED + 1)
    return tuple(expanded)


def _expand(name: str) -> Iterator[str]:
    match = _CHOICE.search(name)
    if match is None:
        yield name
        return
    if match[3] is not None:
        parts: Iterable[str] = (part.strip() for part in match[3].split(","))
    else:
        digits = len(match[1]) if match[1].startswith("0") else 0
        parts = (f"{number:0{digits}d}" for number in range(int(match[1]), int(match[2]) + 1))
    for part in parts:
        for rest in _expand(name[match.end() :]):
            yield f"{name[: match.start()]}{part}{rest}"


def _check_regex(table: TomlTable, regex: str) -> None:
    try:
        re.compile(regex)
    except re.error as error:
        table.fail(f"regex: {regex!r} is not a regular expression: {error}")
    if "columns" in table.values:
        table.fail("regex and columns cannot both be given", "choose one")
    if "count" not in table.values:
        table.fail("count is missing: how many columns does the regular expression find?", "add count = 6, say")


def _parse_field(
    name: str,
    table: TomlTable,
    shape: tuple[int, ...],
    num_columns: int,
    values: dict[str, Any],
    on_missing: OnMissing,
) -> FieldSpec:
    if name == "timestamp" or name.endswith(MISSING_SUFFIX):
        table.fail(f"{name!r} is a name that vlapipe uses itself", "call the field something else")
    limits = table.get("range", None)
    if limits is not None and not (
        isinstance(limits, list) and len(limits) == 2 and all(is_number(v) for v in limits) and limits[0] < limits[1]
    ):
        table.fail(f"range: expected [lowest, highest], found {limits!r}")
    unit = _per_column(table, "unit", table.texts("unit", ()), num_columns)
    stored = _per_column(table, "to", table.texts("to", ()), num_columns) or unit
    scale = _scale(table, unit, stored)
    field = FieldSpec(
        name=name,
        shape=shape,
        file_unit=unit,
        unit=stored,
        scale=scale,
        range=(float(limits[0]), float(limits[1])) if limits else None,
        period=_per_column(table, "period", table.numbers("period"), num_columns),
        optional=table.flag("optional", False),
        on_missing=table.choice("on_missing", ON_MISSING, on_missing),
        quaternion=table.choice("quaternion", ("xyzw", "wxyz"), None) if "quaternion" in table.values else None,
        normalize=table.flag("normalize", False),
        euler=_parse_euler(table),
        max_speed=_per_column(table, "max_speed", table.numbers("max_speed"), num_columns),
        stuck_s=table.number("stuck_s", None, least=1e-9),
        gripper=_parse_gripper(table, num_columns, scale),
        **values,
    )
    _check_rotation(table, field)
    table.finish()
    return field


def _scale(table: TomlTable, unit: tuple[str, ...], stored: tuple[str, ...]) -> tuple[float, ...]:
    if unit == stored:
        return ()
    if len(unit) != len(stored):
        table.fail("to: from which unit?", "say unit as well")
    try:
        return tuple(conversion_factor(a, b) for a, b in zip(unit, stored, strict=True))
    except ValueError as error:
        table.fail(f"to: cannot convert: {error}", "leave it out, or correct unit")


def _parse_gripper(table: TomlTable, num_columns: int, scale: tuple[float, ...]) -> tuple[float, float] | None:
    """Returns the stored values of an open and of a closed gripper; the schema gives them in the file's unit."""
    if "gripper" not in table.values:
        return None
    if num_columns != 1:
        table.fail("gripper: a field with one number a row says how far a gripper is open", "make a field of it")
    if "words" in table.values:
        table.fail("gripper: words has these numbers already", "call the words open and closed, and leave gripper out")
    given = table.table("gripper")
    factor = scale[0] if scale else 1.0
    sides = float(given.number("open")) * factor, float(given.number("closed")) * factor
    given.finish()
    if sides[0] == sides[1]:
        table.fail("gripper: open and closed are the same number", "correct one of them")
    return sides


def _parse_euler(table: TomlTable) -> str | None:
    convention: str | None = table.text("euler", None)
    if convention is None:
        return None
    upper = convention.upper()
    proper = len(upper) == 3 and set(upper) <= _AXES and upper[0] != upper[1] != upper[2]
    if not proper or convention not in (upper, convention.lower()):
        cure = "three axes: 'XYZ' for turns about the moving axes, 'xyz' about the fixed ones"
        table.fail(f"euler: expected a convention, found {convention!r}", cure)
    return convention


def _check_rotation(table: TomlTable, field: FieldSpec) -> None:
    if field.euler and (not field.shape or field.shape[-1] < 3):
        table.fail("euler: the field has fewer than three columns")
    if field.quaternion and field.shape != (4,):
        table.fail(f"quaternion: the field has {field.num_columns} columns instead of 4")
    if field.quaternion and field.euler:
        table.fail("a field is a quaternion or holds Euler angles, not both")
    if field.quaternion and (field.file_unit or field.period or field.max_speed):
        table.fail("a quaternion has no unit, period or max_speed", "leave them out")
    if field.normalize and not field.quaternion:
        table.fail("normalize: only a quaternion is normalized", "say quaternion = 'xyzw' or 'wxyz'")
    if (field.scale or field.normalize or field.quaternion) and "float" not in field.dtype:
        table.fail(f"dtype: {field.dtype} cannot hold what this field is converted to", "choose float32 or float64")


def _per_column(table: TomlTable, key: str, values: tuple[Any, ...], num_columns: int) -> tuple[Any, ...]:
    """Returns one value per column: a single entry is repeated; otherwise there must be one entry per column."""
    if len(values) == 1:
        return values * num_columns
    if values and len(values) != num_columns:
        table.fail(f"{key}: expected one entry or {num_columns}, one a column, found {len(values)}")
    return values
