"""Finds the columns of a file that a schema asks for: by name, by regular expression, by position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream, FieldSpec, TimeSpec
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["Column", "StreamColumns", "find_columns"]

_MAX_NAMED = 8  # limit on the columns that a note lists by name
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Column:
    """A column's name in the file, and its position; ``position`` is ``None`` if the column is absent."""

    name: str
    position: int | None


@dataclass(frozen=True, kw_only=True)
class StreamColumns:
    """The columns of a stream's clock and of each field. If the time has ``parts``, ``clock`` is the smallest part."""

    clock: Column | None = None
    plus: Column | None = None
    parts: tuple[Column, ...] = ()
    fields: dict[str, list[Column]] = field(default_factory=dict)


def find_columns(
    names: Sequence[str], stream: CsvStream, label: str, line: int | None, findings: Findings
) -> StreamColumns | None:
    """Returns the columns that the stream asks for, or ``None`` if a column is missing or occurs twice.

    Args:
        names: the names of the file's columns, ``""`` for a column without a name.
        stream: the schema's entry for the stream.
        label: the file's name in findings.
        line: the line of the header, if there is one.
        findings: collects the faults, and a note of the columns that are not kept.
    """
    return _Finder([name.strip() for name in names], stream, label, line, findings).find()


class _Finder:
    def __init__(self, names: list[str], stream: CsvStream, label: str, line: int | None, findings: Findings) -> None:
        self.names, self.stream, self.label, self.line, self.findings = names, stream, label, line, findings
        accepted = {name for spec in stream.fields for names in spec.columns for name in names}
        asked_for = accepted | set(stream.drop) | set(stream.time.sources)
        self.others = [name for name in names if name and name not in asked_for]
        self.failed: set[tuple[str, str]] = set()  # codes and columns that were reported

    def find(self) -> StreamColumns | None:
        time = self.stream.time
        here = not time.is_elsewhere and bool(time.sources)
        clock = self._find_one(time.sources) if here and not time.nearest else None
        plus = self._find_one((time.plus,)) if here and time.plus else None
        parts = tuple(self._find_one((name,)) for _, name in time.parts)
        if parts:
            clock = parts[-1]
        fields = {spec.name: self._find_field(spec) for spec in self.stream.fields}
        if here and time.nearest:
            clock = self._find_nearest(time, fields)
        if self.failed:
            return None
        self._note_absent(fields)
        columns = StreamColumns(clock=clock, plus=plus, parts=parts, fields=fields)
        self._note_others(columns)
        return columns

    def _find_field(self, spec: FieldSpec) -> list[Column]:
        if spec.regex is None:
            return [self._find_one(names, optional=spec.optional) for names in spec.columns]
        pattern = re.compile(spec.regex)
        found = [
            Column(name, position)
            for position, name in enumerate(self.names)
            if name not in self.stream.drop and pattern.fullmatch(name)
        ]
        count = spec.num_columns if spec.cells == "one" and not spec.text else 1
        if not found and spec.optional:
            return [Column(f"{spec.regex} ({i + 1})", None) for i in range(count)]
        if len(found) != count:
            named = ", ".join(column.name for column in found[:_MAX_NAMED])
            self._fail("csv.column_count", spec.name, f"{count} columns like {spec.regex!r}", f"{len(found)} {named}")
        for column in found:
            self._check_single(column.name)
        return sorted(found, key=lambda column: [int(digits) for digits in _DIGITS.findall(column.name)])

    def _find_one(self, accepted: Sequence[str], *, optional: bool = False) -> Column:
        name = next((name for name in accepted if name and name in self.names), None)
        if name is not None:
            self._check_single(name)
            return Column(name, self.names.index(name))
        if not optional:
            near = did_you_mean(accepted[0], self.others)
            found = f"{len(self.names)} other columns" + (f"; {near}" if near.startswith("did") else "")
            self._fail("csv.missing_column", accepted[0], "a column " + " or ".join(map(repr, accepted)), found)
        return Column(accepted[0], None)

    def _find_nearest(self, time: TimeSpec, fields: dict[str, list[Column]]) -> Column:
        """Returns the accepted clock column that is nearest before the first field."""
        first = next(iter(fields.values()), [])
        positions = [column.position for column in first if column.position is not None]
        before = min(positions, default=len(self.names))
        near = [i for i, name in enumerate(self.names[:before]) if name in time.sources]
        if not near:
            expected = "a column " + " or ".join(map(repr, time.sources)) + " before the stream's first field"
            self._fail("csv.missing_column", time.sources[0], expected, "none")
            return Column(time.sources[0], None)
        return Column(self.names[near[-1]], near[-1])

    def _check_single(self, name: str) -> None:
        if self.names.count(name) > 1:
            self._fail("csv.duplicate_column", name, "", f"{self.names.count(name)} columns {name!r}")

    def _fail(self, code: str, column: str, expected: str, found: str) -> None:
        if (code, column) not in self.failed:
            self.failed.add((code, column))
            self.findings.add(code, self.label, line=self.line, column=column, expected=expected, found=found)

    def _note_absent(self, fields: dict[str, list[Column]]) -> None:
        absent = [column.name for columns in fields.values() for column in columns if column.position is None]
        if absent:
            self.findings.add("csv.columns_absent", self.label, line=self.line, found=f"no {_listed(absent)}")

    def _note_others(self, columns: StreamColumns) -> None:
        kept = {column.position for found in columns.fields.values() for column in found}
        kept |= {column.position for column in (columns.clock, columns.plus, *columns.parts) if column is not None}
        known = set(self.stream.drop) | set(self.stream.time.sources)
        others = [name for i, name in enumerate(self.names) if name and i not in kept and name not in known]
        if others:
            self.findings.add("csv.columns_not_kept", self.label, line=self.line, found=f"{_listed(others)} not kept")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
