"""Parses the streams of a schema's TOML: their files, dialects and clocks."""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from typing import Any, Literal, get_args

from vlapipe.schemas.parse_fields import (
    ON_MISSING,
    expand_names,
    parse_array_field,
    parse_csv_field,
    parse_derived,
)
from vlapipe.schemas.schema import (
    DURATION,
    ISO,
    WHITESPACE,
    Align,
    ArrayKind,
    ArrayStream,
    Channels,
    CsvStream,
    Dialect,
    ImageStream,
    OnBad,
    Stream,
    Thousands,
    TimePart,
    TimeSpec,
    TimeUnit,
)
from vlapipe.schemas.toml_table import REQUIRED, TomlTable
from vlapipe.schemas.units import metres_of

__all__ = ["parse_stream"]

_RESERVED_STREAMS = {"action", "align"}


def parse_stream(name: str, table: TomlTable) -> Stream:
    """Parses the stream called ``name``."""
    if name in _RESERVED_STREAMS:
        table.fail(f"{name!r} is a name that vlapipe uses itself", "call the stream something else")
    kind = table.choice("kind", ("csv", *get_args(ArrayKind), "images", "video"))
    of_images = kind in ("images", "video")
    files = table.texts("files")
    if not files:
        table.fail("files: no pattern", "name at least one, such as '*.csv'")
    in_container = "array" in table.values or "topic" in table.values
    common: dict[str, Any] = {
        "name": name,
        "files": files,
        "rate_hz": table.number("rate_hz", None, least=1e-6),
        "max_gap_s": table.number("max_gap_s", None, least=1e-9),
        "optional": table.flag("optional", False),
    }
    time = table.table("time", {} if of_images else REQUIRED)
    by_name = of_images or (kind == "csv" and table.flag("one_row_a_file", False))
    common["time"] = _parse_time(time, kind, in_container=in_container, in_bag="topic" in table.values, by_name=by_name)
    many_cameras = any("{camera}" in pattern for pattern in files)
    if not of_images and (many_cameras or "{camera}" in (common["time"].file or "")):
        table.fail("{camera} stands for a camera", "only files of images may have it")
    if not of_images:
        common["align"] = table.choice("align", get_args(Align), None) if "align" in table.values else None
        common["tolerance_s"] = table.number("tolerance_s", None, least=0)
    stream: Stream
    if of_images:
        stream = _parse_images(kind, table, common)
    elif kind == "csv":
        stream = _parse_csv(table, common)
    else:
        stream = _parse_arrays(kind, table, common)
    table.finish()
    return stream


def _parse_images(kind: Literal["images", "video"], table: TomlTable, common: dict[str, Any]) -> ImageStream:
    on_bad = _parse_on_bad(table)
    decode = table.choice("decode", ("suspects", "all"), "all" if on_bad == "drop" else "suspects")
    if (on_bad, decode) == ("drop", "suspects"):
        table.fail("decode: images can be dropped only if all are decoded", "leave decode out")
    channels: Channels = table.choice("channels", get_args(Channels), "rgb")
    stream = ImageStream(
        **common,
        kind=kind,
        cameras=table.texts("cameras", ()),
        named_by=_parse_named_by(table),
        one_per_row=table.flag("one_per_row", False),
        on_bad=on_bad,
        decode=decode,
        channels=channels,
        array=table.texts("array", ()),
        topic=table.text("topic", None),
        unit=table.text("unit", None),
        file_unit=table.text("file_unit", None),
        convert=table.choice("convert", ("png",), None) if "convert" in table.values else None,
    )
    _check_depth(table, stream)
    if stream.cameras and not stream.many_cameras:
        cure = "put {camera} where the folders' names stand, or leave cameras out"
        table.fail("cameras: files has no {camera}", cure)
    if "{camera}" in (stream.topic or "") and not stream.cameras and not any("{camera}" in p for p in stream.files):
        table.fail(
            "cameras is missing: what does {camera} stand for?", "list them, such as cameras = ['left', 'right']"
        )
    if stream.named_by and not stream.many_cameras:
        table.fail("named_by: files has no {camera}", "put {camera} where the cameras' own names stand")
    if stream.in_container and kind == "video":
        table.fail("array and topic: a video is a file of its own", "say kind = 'images' for images in a container")
    if stream.in_container and not (stream.time.sources or stream.time.index_rate_hz or stream.time.rows_of):
        cure = "add time = { array = ... }, { rate_hz = ... } or { rows_of = ... }"
        table.fail("no clock: images in a container have no names", cure)
    return stream


def _check_depth(table: TomlTable, stream: ImageStream) -> None:
    for key, unit in (("unit", stream.unit), ("file_unit", stream.file_unit)):
        try:
            if unit is not None:
                metres_of(unit)
        except ValueError as error:
            table.fail(f"{key}: {error}", "a length, such as 'mm', 'm' or '0.2 mm'")
    if stream.file_unit is not None and stream.unit is None:
        table.fail("file_unit: into which unit?", "add unit = 'mm', say")
    if stream.unit is not None and stream.channels != "rgb":
        table.fail("channels: depth has one channel", "leave channels or unit out")


def _parse_named_by(table: TomlTable) -> tuple[tuple[str, str], ...]:
    """Returns pairs of a camera's name and the metadata key that tells which camera it is."""
    if "named_by" not in table.values:
        return ()
    names = table.table("named_by")
    pairs = tuple((name, names.text(name)) for name in sorted(names.values))
    names.finish()
    return pairs


def _parse_csv(table: TomlTable, common: dict[str, Any]) -> CsvStream:
    on_missing = table.choice("on_missing", ON_MISSING, "refuse")
    fields = tuple(parse_csv_field(n, t, on_missing) for n, t in table.tables("fields").items())
    stream = CsvStream(
        **common,
        fields=fields,
        derived=_parse_derived_fields(table, fields),
        dialect=_parse_dialect(table),
        on_bad=_parse_on_bad(table),
        missing=table.texts("missing", ("",)),
        drop=expand_names(table.texts("drop", ())),
        one_row_a_file=table.flag("one_row_a_file", False),
    )
    if stream.one_row_a_file and (stream.time.rate_line or stream.time.start_line):
        table.fail("one_row_a_file: no file states the rate of the others", "say rate_hz, or file, in time")
    if stream.dialect.decimal == "," and any(field.cells == "list" for field in fields):
        table.fail("decimal: a comma parts the numbers of a list", "a stream with lists has decimal = '.'")
    return stream


def _parse_arrays(kind: ArrayKind, table: TomlTable, common: dict[str, Any]) -> ArrayStream:
    on_missing = table.choice("on_missing", ON_MISSING, "refuse")
    fields = tuple(parse_array_field(n, t, on_missing) for n, t in table.tables("fields").items())
    if not fields:
        table.fail("fields: no array", "name at least one")
    if any(field.window for field in fields) and common["rate_hz"] is None:
        table.fail("rate_hz is missing: how many rows a second does a window hold?", "add rate_hz = 650, say")
    topic = table.text("topic", None)
    if (topic is None) == (kind == "bag"):
        cure = "name the topic of its messages" if kind == "bag" else "only a bag has topics"
        table.fail("topic: a bag has one, and nothing else has", cure)
    return ArrayStream(
        **common,
        kind=kind,
        fields=fields,
        derived=_parse_derived_fields(table, fields),
        topic=topic,
        one_row_a_file=table.flag("one_row_a_file", False),
    )


def _parse_on_bad(table: TomlTable) -> OnBad:
    on_bad: OnBad = table.choice("on_bad", get_args(OnBad), "refuse")
    return on_bad


def _parse_derived_fields(table: TomlTable, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    if "derived" not in table.values:
        return ()
    derived = tuple(parse_derived(name, entry, fields) for name, entry in table.tables("derived").items())
    taken = {field.name for field in fields}
    for entry in derived:
        if entry.name in taken:
            table.fail(f"derived: {entry.name!r} is the name of a field", "call it something else")
    return derived


def _parse_dialect(table: TomlTable) -> Dialect:
    if "row_line" in table.values:
        return _parse_row_line(table)
    delimiter, skip_blanks = _parse_delimiter(table)
    header = table.get("header", True)
    rows = header if isinstance(header, int) else 1  # bool is an int: True means 1 header row, False means 0
    if not (isinstance(header, int) and header >= 0) and header != "commented":
        cure = "true, false, the number of its rows, or 'commented' where it begins with the comment sign"
        table.fail(f"header: found {header!r}", cure)
    header_line = _parse_regex(table, "header_line")
    if header_line is not None and "header" in table.values:
        table.fail("header and header_line cannot both be given", "header_line finds the header by itself")
    dialect = Dialect(
        delimiter=delimiter,
        quote=_character(table, "quote", '"'),
        escape=_character(table, "escape", ""),
        decimal=table.choice("decimal", (".", ","), "."),
        thousands=table.choice("thousands", get_args(Thousands), ""),
        encoding=_parse_encoding(table),
        comment=table.text("comment", "#" if header == "commented" else ""),
        skip_blanks=skip_blanks,
        skip_lines=table.count("skip_lines", 0, least=0),
        skip_after_header=table.count("skip_after_header", 0, least=0),
        skip_footer=table.count("skip_footer", 0, least=0),
        header_rows=0 if header_line is not None else int(rows),
        header_commented=header == "commented",
        names=_parse_names(table),
        trailing_delimiter=table.flag("trailing_delimiter", False),
        index_column=table.flag("index_column", False),
        header_line=header_line,
        row_kind=table.text("row_kind", None),
        kind_column=table.count("kind_column", 1),
        short_rows=table.flag("short_rows", False),
    )
    if "kind_column" in table.values and dialect.row_kind is None:
        table.fail("kind_column: of which kind are the rows?", "add row_kind = 'IMU', say")
    if dialect.row_kind is not None and dialect.index_column:
        table.fail("row_kind and index_column cannot be combined", "leave index_column out")
    if dialect.names and dialect.header_rows:
        table.fail("names: the columns have names in the header already", "say header = false, or skip_lines = 1 too")
    if dialect.names and dialect.header_line is not None:
        table.fail("names and header_line cannot both be given", "choose one")
    if not dialect.names and not dialect.header_rows and dialect.header_line is None:
        table.fail("names is missing: what are the columns called, by position?", "add names = ['t', 'x', 'y'], say")
    if dialect.decimal == dialect.delimiter and not dialect.quote:
        table.fail("decimal and delimiter are the same character, and there are no quotes", "correct one of them")
    if dialect.thousands in (dialect.decimal, dialect.quote):
        table.fail("thousands is the same character as decimal or quote", "correct one of them")
    parts = " " if dialect.delimiter == WHITESPACE else dialect.delimiter
    if dialect.thousands == parts and not (dialect.quote and parts.strip()):
        table.fail("thousands and delimiter are the same character, and there are no quotes", "correct one of them")
    if dialect.delimiter in (dialect.quote, dialect.escape):
        table.fail("delimiter is the same character as quote or escape", "correct one of them")
    return dialect


_OF_CELLS = (
    "delimiter", "quote", "escape", "thousands", "comment", "skip_lines", "skip_after_header", "skip_footer", "header",
    "header_line", "trailing_delimiter", "index_column", "row_kind", "kind_column", "short_rows",
)  # fmt: skip


def _parse_row_line(table: TomlTable) -> Dialect:
    """Returns the dialect of lines in which a regular expression finds the cells; its groups may have the names."""
    pattern = re.compile(_parse_regex(table, "row_line") or "")
    for key in _OF_CELLS:
        if key in table.values:
            table.fail(f"row_line and {key} cannot be combined", "the groups of row_line are the cells of a row")
    names = _parse_names(table)
    if not pattern.groups:
        table.fail(f"row_line: {pattern.pattern!r} has no group", "put the cells in groups, such as '(?P<t>[0-9.]+)'")
    if not names and len(pattern.groupindex) == pattern.groups:
        names = (tuple(pattern.groupindex),)
    if [len(each) for each in names] != [pattern.groups]:
        cure = "name each group as '(?P<t>...)', or give as many names"
        table.fail(f"row_line has {pattern.groups} groups, which have no names", cure)
    return Dialect(
        encoding=_parse_encoding(table),
        decimal=table.choice("decimal", (".", ","), "."),
        header_rows=0,
        names=names,
        row_line=pattern.pattern,
    )


def _parse_regex(table: TomlTable, key: str) -> str | None:
    pattern: str | None = table.text(key, None)
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            table.fail(f"{key}: {pattern!r} is not a regular expression: {error}")
    return pattern


def _parse_delimiter(table: TomlTable) -> tuple[str, bool]:
    """Returns the delimiter, and whether blanks beside it (as in ``", "``) are skipped instead of kept in the cell."""
    delimiter: str = table.text("delimiter", ",")
    if delimiter == WHITESPACE:
        return delimiter, False
    bare = delimiter.strip(" ") or delimiter
    if len(bare) != 1 or bare in "\0\r\n":
        table.fail(f"delimiter: expected one character or 'whitespace', found {delimiter!r}")
    return bare, bare != delimiter


def _character(table: TomlTable, key: str, default: str) -> str:
    value: str = table.text(key, default)
    if len(value) > 1 or not value.isascii():
        table.fail(f"{key}: expected one ASCII character, or '' for none, found {value!r}")
    return value


def _parse_encoding(table: TomlTable) -> str:
    encoding: str = table.text("encoding", "utf-8")
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        table.fail(f"encoding: {encoding!r} is not known", "for example 'utf-8', 'utf-16', 'cp1252' or 'latin-1'")


def _parse_names(table: TomlTable) -> tuple[tuple[str, ...], ...]:
    names = table.get("names", [])
    if not isinstance(names, list):
        table.fail(f"names: expected a list, found {names!r}")
    lists = names if names and isinstance(names[0], list) else [names] if names else []
    if not all(isinstance(each, list) and all(isinstance(n, str) for n in each) for each in lists):
        table.fail(f"names: expected a list of names, or a list of such lists, found {names!r}")
    variants = tuple(expand_names(each) for each in lists)
    if len({len(each) for each in variants}) < len(variants):
        table.fail("names: two lists have the same length, and nothing else tells such files apart")
    return variants


def _parse_time(table: TomlTable, kind: str, *, in_container: bool, in_bag: bool, by_name: bool) -> TimeSpec:
    """Parses a clock. ``in_container``: the stream is a camera whose images lie in a container, perhaps in a bag.

    ``by_name``: the name of each file may hold the time of its row.
    """
    of_arrays = kind in get_args(ArrayKind) or in_container
    # The stamps of a bag's messages are read as nanoseconds, whatever they consist of.
    unit: TimeUnit = table.choice("unit", get_args(TimeUnit), "ns" if in_bag and "file" not in table.values else "s")
    # The stamps of a video's container are fractions of a second, which are kept as whole nanoseconds.
    of_container = kind == "video" and not {"file", "rows_of"} & table.values.keys()
    time = TimeSpec(
        sources=table.texts("array" if of_arrays else "column", ()),
        nearest=table.flag("nearest", False),
        unit=unit,
        # Clocks in microseconds or nanoseconds hold whole numbers unless the schema says otherwise.
        integer=table.flag("integer", of_container or (unit in ("us", "ns") and "exact" not in table.values)),
        exact=table.flag("exact", False),
        format=table.text("format", None),
        plus=table.text("plus", None),
        plus_unit=table.choice("plus_unit", get_args(TimeUnit), "ns"),
        parts=_parse_parts(table),
        index_rate_hz=table.number("rate_hz", None, least=1e-6),
        file=table.text("file", None),
        name_column=table.text("name_column", None),
        pattern=table.text("pattern", None),
        start_format=table.text("start_format", None),
        offset_s=float(table.number("offset_s", 0.0)),
        starts_with=table.text("starts_with", None),
        rows_of=table.text("rows_of", None),
        rate_line=_parse_line(table, "rate_line", kind),
        start_line=_parse_line(table, "start_line", kind),
    )
    if time.rows_of is not None:
        for key in table.values:
            if key != "rows_of":
                table.fail(f"rows_of and {key} cannot be combined", "the times are those of the other stream's rows")
    _check_time(table, time, kind, in_container=in_container, by_name=by_name)
    for key, form in (("format", time.format), ("start_format", time.start_format)):
        if form is not None and form not in ((ISO, DURATION) if key == "format" else (ISO,)):
            _check_form(table, key, form)
    table.finish()
    return time


def _parse_parts(table: TomlTable) -> tuple[tuple[TimePart, str], ...]:
    """Returns the columns of a time that is split into parts, the largest part first."""
    if "parts" not in table.values:
        return ()
    given = table.table("parts")
    found = [(part, name) for part in get_args(TimePart) if (name := given.text(part, None)) is not None]
    given.finish()
    names = {part for part, _ in found}
    for part, needs in (("month", "year"), ("day", "month"), ("day_of_year", "year"), ("minute", "hour")):
        if part in names and needs not in names:
            table.fail(f"parts: {part} without {needs}", f"name the column of the {needs}")
    if "hour" not in names or not names & {"minute", "second"}:
        table.fail("parts: an hour and a minute are needed", 'say parts = { hour = "h", minute = "min", second = "s" }')
    if "year" in names and not names & {"day", "day_of_year"}:
        table.fail("parts: a year without a day", "name the columns of month and day, or of day_of_year")
    if {"month", "day_of_year"} <= names:
        table.fail("parts: month and day_of_year cannot be combined", "choose one")
    return tuple(found)


def _check_parts(table: TomlTable, kind: str) -> None:
    others = (
        "column",
        "array",
        "format",
        "plus",
        "exact",
        "integer",
        "unit",
        "rate_hz",
        "file",
        "nearest",
        "start_format",
    )
    if kind != "csv":
        table.fail("parts: only a table has its time in columns", "leave it out")
    for key in others:
        if key in table.values:
            table.fail(f"parts and {key} cannot be combined", "choose one")


def _check_form(table: TomlTable, key: str, form: str) -> None:
    """Refuses a time format that cannot parse its own output: that is a mistake of the schema, not of the data."""
    try:
        datetime.strptime(datetime(2001, 2, 3, 4, 5, 6).strftime(form), form)
    except ValueError as error:
        table.fail(f"{key}: {form!r} cannot be read back: {error}", "see strptime's directives, such as %Y-%m-%d")


def _parse_line(table: TomlTable, key: str, kind: str) -> int | str | None:
    """Returns the number of a line, or a regular expression that finds it."""
    value: int | str | None = table.get(key, None)
    if value is None:
        return None
    if kind != "csv":
        table.fail(f"{key}: only a table of text has lines", "leave it out")
    if isinstance(value, str):
        pattern = _parse_regex(table, key)
        assert pattern is not None
        if re.compile(pattern).groups < 1:
            table.fail(f"{key}: {pattern!r} has no group", "put the part that is looked for in ( )")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        table.fail(f"{key}: expected the number of a line, or a regular expression, found {value!r}")
    return value


def _check_lines(table: TomlTable, time: TimeSpec) -> None:
    if time.rate_line is not None and (time.index_rate_hz or time.file):
        table.fail("rate_line and another clock cannot be combined", "leave rate_hz and file out")
    if time.rate_line is not None and (time.exact or time.plus):
        table.fail("rate_line: rows are counted", "leave exact and plus out")
    if time.start_line is not None and (time.file or time.parts or time.start_format):
        table.fail("start_line and file, parts or start_format cannot be combined", "choose one")
    if time.start_line is not None and time.format and time.rate_line is None:
        table.fail("format and start_line: stamps of a format have their date", "leave start_line out")
    if time.rate_line is not None and time.format and time.start_line is None:
        table.fail("format: of which line?", "add start_line, or leave format out")


def _check_time(table: TomlTable, time: TimeSpec, kind: str, *, in_container: bool, by_name: bool) -> None:
    _check_lines(table, time)
    of_images, of_arrays = kind in ("images", "video"), kind in get_args(ArrayKind) or in_container
    source = "array" if of_arrays else "column"
    if time.parts:
        _check_parts(table, kind)
        return
    has_clock = time.sources or time.index_rate_hz or time.file or time.rows_of or time.rate_line or time.pattern
    if not of_images and not has_clock:
        table.fail(f"no clock: {source} is missing", f"add {source}, or rate_hz for rows at a fixed rate, or file")
    if time.pattern is not None and not by_name:
        table.fail("pattern: only images have their time in their name", "start_format is for a file's own time")
    if time.name_column is not None and (not of_images or time.file is None or not time.sources):
        table.fail("name_column: only a table of images' times has one", "add file and column, or leave it out")
    if of_images and not in_container and time.sources and time.file is None:
        table.fail("column: an image has no columns", "add file, the table that lists the images' times")
    if time.pattern is not None and time.file is not None:
        table.fail("pattern and file cannot both be given", "the images' times stand in one of them")
    if time.pattern is not None:
        try:
            groups = re.compile(time.pattern).groups
        except re.error as error:
            table.fail(f"pattern: {time.pattern!r} is not a regular expression: {error}")
        if groups < 1:
            table.fail(f"pattern: {time.pattern!r} has no group", "put the part that is the time in ( )")
    if time.nearest and (kind != "csv" or time.file is not None):
        table.fail("nearest: only a column of the csv stream itself stands near others", "leave it out")
    of_text = [name for name, on in (("format", time.format), ("exact", time.exact), ("plus", time.plus)) if on]
    if of_arrays and time.file is None and of_text:
        table.fail(f"{of_text[0]}: the stamps of an array are numbers", "say integer and unit, or rate_hz")
    if time.index_rate_hz and of_text:
        table.fail(f"{of_text[0]} and rate_hz cannot be combined", "choose one")
    chosen = [name for name, on in (("integer", time.integer), ("exact", time.exact), ("format", time.format)) if on]
    if len(chosen) > 1 and "integer" in table.values:
        table.fail(f"{' and '.join(chosen)} cannot be combined", "choose one")
    if time.plus and not time.sources:
        table.fail(f"plus: added to which {source}?", f"add {source}")
