"""Reads a schema's TOML text; every key is checked, and a mistake is named with its table and the nearest right key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from typing import Any, Literal, NoReturn, get_args

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import (
    ActionSpec,
    CsvStream,
    EpisodeLayout,
    FieldSpec,
    ImageStream,
    InstructionSpec,
    NpzStream,
    SampleDefaults,
    Schema,
    Stream,
    TimeSpec,
    TimeUnit,
)

__all__ = ["SCHEMA_VERSION", "did_you_mean", "parse_schema"]

SCHEMA_VERSION = 1
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_RESERVED_STREAMS = {"action", "align"}
_REQUIRED: Any = object()


_MAX_LISTED = 12


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A cure for an unknown word: the nearest known one, or all of them if they are few."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known[:_MAX_LISTED])}{', ...' if len(known) > _MAX_LISTED else ''}"


class _Table:
    """One TOML table being read: hands out typed values and refuses what nobody asked for."""

    def __init__(self, source: str, path: str, values: dict[str, Any]) -> None:
        self.source, self.path, self.values = source, path, values
        self.asked: set[str] = set()

    def fail(self, problem: str, cure: str = "") -> NoReturn:
        place = f"[{self.path}]" if self.path else "top level"
        raise UsageError(f"schema {self.source}: {place}: {problem}", cure)

    def _get(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        if key in self.values:
            return self.values[key]
        if default is _REQUIRED:
            self.done_asking_for(key)
        return default

    def done_asking_for(self, key: str) -> NoReturn:
        near = difflib.get_close_matches(key, [k for k in self.values if k not in self.asked], n=1)
        self.fail(f"missing key {key!r}", f"is {near[0]!r} a misspelling of it?" if near else "add it")

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self._get(key, default)
        if value is not default and not isinstance(value, str):
            self.fail(f"{key}: expected text, found {value!r}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, least: float | None = None) -> Any:
        value = self._get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{key}: expected a number, found {value!r}")
        if least is not None and value < least:
            self.fail(f"{key}: expected {least:g} or more, found {value!r}")
        return value

    def count(self, key: str, default: int) -> int:
        value = self.number(key, default, least=1)
        if not isinstance(value, int):
            self.fail(f"{key}: expected a whole number, found {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key}: expected true or false, found {value!r}")
        return value

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        value = self._get(key, default)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            self.fail(f"{key}: expected text or a list of texts, found {value!r}")
        return tuple(value)

    def choice(self, key: str, choices: Iterable[str], default: Any = _REQUIRED) -> Any:
        value = self.text(key, default)
        if value not in choices:
            self.fail(f"{key}: unknown value {value!r}", did_you_mean(value, choices))
        return value

    def table(self, key: str, default: Any = _REQUIRED) -> _Table:
        value = self._get(key, default)
        if not isinstance(value, dict):
            self.fail(f"{key}: expected a table, found {value!r}")
        return _Table(self.source, f"{self.path}.{key}" if self.path else key, value)

    def tables(self, key: str) -> dict[str, _Table]:
        table = self.table(key)
        names = {name: table.table(name) for name in table.values}
        for name in names:
            if not _NAME.match(name):
                table.fail(f"{name!r} cannot be a name", "letters, digits and _ only, a letter first")
        return names

    def finish(self) -> None:
        for key in self.values:
            if key not in self.asked:
                self.fail(f"unknown key {key!r}", did_you_mean(key, self.asked))


def parse_schema(text: str, source: str) -> Schema:
    """Read a schema from TOML text; ``source`` is how errors call it.

    Raises:
        UsageError: the text is not TOML, or says something that no schema can say.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"schema {source}: not valid TOML: {error}") from None
    top = _Table(source, "", values)
    version = top.number("schema_version", 1)
    if version != SCHEMA_VERSION:
        top.fail(f"schema_version: expected {SCHEMA_VERSION}, found {version!r}", "a newer vlapipe may read it")
    name = top.text("name")
    description = top.text("description", "")
    anchor = top.text("anchor")
    streams = tuple(_parse_stream(name, table) for name, table in top.tables("streams").items())
    schema = Schema(
        name=name,
        description=description,
        anchor=anchor,
        episodes=_parse_episodes(top.table("episodes", {})),
        streams=streams,
        action=_parse_action(top.table("action")),
        sample=_parse_sample(top.table("sample")),
        instruction=_parse_instruction(top.table("instruction", {})),
        val_fraction=_parse_split(top.table("split", {})),
        toml=text,
    )
    top.finish()
    _check_references(top, schema)
    return schema


def _parse_episodes(table: _Table) -> EpisodeLayout:
    layout = EpisodeLayout(
        folders=table.texts("folders", ()),
        task=table.text("task", "{parent}"),
        metadata=table.text("metadata", "metadata.json") or None,
    )
    _check_template(table, "task", layout.task, {"parent": "", "folder": "", "dataset": ""})
    table.finish()
    return layout


def _parse_instruction(table: _Table) -> InstructionSpec:
    instruction = InstructionSpec(
        metadata_key=table.text("metadata_key", "instruction") or None,
        file=table.text("file", "instruction.txt") or None,
        template=table.text("template", "{task_words}"),
    )
    _check_template(table, "template", instruction.template, {"task": "", "task_words": ""})
    table.finish()
    return instruction


def _check_template(table: _Table, key: str, template: str, words: dict[str, str]) -> None:
    try:
        template.format(**words)
    except (KeyError, IndexError, ValueError):
        table.fail(f"{key}: cannot fill in {template!r}", "it may use " + ", ".join(f"{{{w}}}" for w in words))


def _parse_split(table: _Table) -> float:
    fraction = table.number("val", 0.1, least=0)
    if fraction >= 1:
        table.fail(f"val: expected a fraction below 1, found {fraction!r}")
    table.finish()
    return float(fraction)


def _parse_stream(name: str, table: _Table) -> Stream:
    if name in _RESERVED_STREAMS:
        table.fail(f"{name!r} is a name that vlapipe uses itself", "call the stream something else")
    kind = table.choice("kind", ("csv", "npz", "images"))
    files = table.texts("files")
    rate_hz = table.number("rate_hz", None, least=1e-6)
    time_table = table.table("time", {} if kind == "images" else _REQUIRED)
    stream: Stream
    if kind == "images":
        stream = ImageStream(
            name=name,
            files=files,
            time=_parse_time(time_table, source_key=None),
            rate_hz=rate_hz,
            views=table.texts("views", ()),
        )
    elif kind == "csv":
        delimiter = table.text("delimiter", ",")
        if len(delimiter) != 1:
            table.fail(f"delimiter: expected one character, found {delimiter!r}")
        stream = CsvStream(
            name=name,
            files=files,
            time=_parse_time(time_table, source_key="column"),
            fields=tuple(_parse_csv_field(n, t) for n, t in table.tables("fields").items()),
            rate_hz=rate_hz,
            delimiter=delimiter,
            drop=_expand(table.texts("drop", ())),
        )
    else:
        stream = NpzStream(
            name=name,
            files=files,
            time=_parse_time(time_table, source_key="array"),
            fields=tuple(_parse_npz_field(n, t) for n, t in table.tables("fields").items()),
            rate_hz=rate_hz,
        )
    table.finish()
    return stream


def _parse_time(table: _Table, source_key: Literal["column", "array"] | None) -> TimeSpec:
    unit: TimeUnit = table.choice("unit", get_args(TimeUnit), "s")
    time = TimeSpec(
        sources=table.texts(source_key) if source_key else (),
        unit=unit,
        # Clocks that count in small units count in whole ones unless the schema says otherwise.
        integer=table.flag("integer", unit in ("us", "ns")),
        format=table.text("format", None),
    )
    table.finish()
    return time


def _parse_csv_field(name: str, table: _Table) -> FieldSpec:
    columns = _expand(table.texts("columns"))
    other_names = table._get("aliases", [])
    if not isinstance(other_names, list) or not all(isinstance(names, list) for names in other_names):
        table.fail(f"aliases: expected a list of lists of column names, found {other_names!r}")
    accepted = [columns]
    for names in other_names:
        expanded = _expand(names)
        if len(expanded) != len(columns):
            table.fail(f"aliases: expected {len(columns)} names as in columns, found {len(expanded)}: {names!r}")
        accepted.append(expanded)
    return _parse_field(name, table, tuple(zip(*accepted, strict=True)), (len(columns),) if len(columns) > 1 else ())


def _parse_npz_field(name: str, table: _Table) -> FieldSpec:
    shape = table._get("shape", [])
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        table.fail(f"shape: expected a list of whole numbers (the shape of one row), found {shape!r}")
    return _parse_field(name, table, (table.texts("array"),), tuple(shape))


def _parse_field(name: str, table: _Table, columns: tuple[tuple[str, ...], ...], shape: tuple[int, ...]) -> FieldSpec:
    if name == "timestamp":
        table.fail("'timestamp' is the name of the stream's clock", "call the field something else")
    limits = table._get("range", None)
    if limits is not None and not (
        isinstance(limits, list) and len(limits) == 2 and all(isinstance(v, (int, float)) for v in limits)
    ):
        table.fail(f"range: expected [lowest, highest], found {limits!r}")
    field = FieldSpec(
        name=name,
        columns=columns,
        shape=shape,
        dtype=table.choice("dtype", ("float32", "float64", "int32", "int64", "uint8", "uint16"), "float32"),
        unit=_per_column(table, "unit", table.texts("unit", ()), len(columns)),
        range=(float(limits[0]), float(limits[1])) if limits else None,
        period=_per_column(table, "period", _numbers(table, "period"), len(columns)),
        euler=table.flag("euler", False),
    )
    if field.euler and len(columns) < 3:
        table.fail("euler: the field has fewer than three columns")
    table.finish()
    return field


def _numbers(table: _Table, key: str) -> tuple[float, ...]:
    value = table._get(key, [])
    value = [value] if isinstance(value, (int, float)) else value
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) and v >= 0 for v in value):
        table.fail(f"{key}: expected a number or a list of numbers, 0 or more, found {value!r}")
    return tuple(float(v) for v in value)


def _per_column(table: _Table, key: str, values: tuple[Any, ...], num_columns: int) -> tuple[Any, ...]:
    """One entry stands for all columns; otherwise there must be one a column."""
    if len(values) == 1:
        return values * num_columns
    if values and len(values) != num_columns:
        table.fail(f"{key}: expected one entry or {num_columns}, one a column, found {len(values)}")
    return values


def _expand(names: Iterable[str]) -> tuple[str, ...]:
    """``joint_{1..3}`` stands for ``joint_1``, ``joint_2``, ``joint_3``."""
    expanded: list[str] = []
    for name in names:
        match = _RANGE.search(name)
        if match is None:
            expanded.append(name)
            continue
        first, last = int(match[1]), int(match[2])
        expanded += [f"{name[: match.start()]}{i}{name[match.end() :]}" for i in range(first, last + 1)]
    return tuple(expanded)


def _parse_action(table: _Table) -> ActionSpec:
    kind = table.choice("kind", ("delta", "absolute", "column"))
    append = table.table("append", {})
    period_s = float(table.number("period_s", 0.0, least=0))
    action = ActionSpec(
        kind=kind,
        of=table.texts("of"),
        period_s=period_s,
        tolerance_s=float(table.number("tolerance_s", period_s / 4, least=0)),
        append=tuple((name, float(append.number(name))) for name in append.values),
    )
    if (kind == "column") != (period_s == 0):
        cure = "leave period_s out" if kind == "column" else "say how far ahead in seconds, e.g. period_s = 0.1"
        table.fail(f"period_s: does not fit kind = {kind!r}", cure)
    table.finish()
    return action


def _parse_sample(table: _Table) -> SampleDefaults:
    sensors = table.table("sensors", {})
    sample = SampleDefaults(
        state=table.texts("state"),
        sensors=tuple((name, sensors.text(name)) for name in sensors.values),
        state_rows=table.count("state_rows", 1),
        sensor_rows=table.count("sensor_rows", 1),
        image_rows=table.count("image_rows", 1),
        action_rows=table.count("action_rows", 1),
        action_stride=table.count("action_stride", 1),
    )
    table.finish()
    return sample


def _check_references(top: _Table, schema: Schema) -> None:
    """Every name that the schema uses must be one that it declares."""
    names = [stream.name for stream in schema.streams]
    if schema.anchor not in names:
        top.fail(f"anchor: no stream {schema.anchor!r}", did_you_mean(schema.anchor, names))
    if isinstance(schema.stream(schema.anchor), ImageStream):
        top.fail(f"anchor: {schema.anchor!r} is a camera", "frames lie on the clock of a csv or npz stream")
    fields = [f"{s.name}/{f.name}" for s in schema.streams if not isinstance(s, ImageStream) for f in s.fields]
    on_anchor = [path for path in fields if path.startswith(f"{schema.anchor}/")]
    uses = [("action.of", path, on_anchor) for path in schema.action.of]
    uses += [("sample.state", path, on_anchor) for path in schema.sample.state]
    uses += [("sample.sensors", path, fields) for _, path in schema.sample.sensors]
    for where, path, known in uses:
        if path not in known:
            top.fail(f"{where}: no field {path!r}", did_you_mean(path, known))
