"""Writes a guessed schema as TOML, with the reason for each guess as a comment beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from vlapipe.pipeline.infer.guess import FieldGuess, SchemaGuess, StreamGuess
from vlapipe.schemas.schema import Dialect

__all__ = ["schema_text"]

_LINE = 110
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d*)(\D*)\Z", re.DOTALL)


class _Page:
    """Lines of TOML. A comment is placed above the line that it explains."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def comment(self, *reasons: str) -> None:
        for reason in reasons:
            words, line = reason.split(" "), "#"
            for word in words:
                if len(line) + len(word) >= _LINE and line != "#":
                    self.lines.append(line)
                    line = "#  "
                line += f" {word}"
            self.lines.append(line)

    def table(self, path: str) -> None:
        self.lines += ["", f"[{path}]"]

    def put(self, key: str, value: Any, note: str = "") -> None:
        self.lines.append(f"{key} = {_toml(value)}" + (f"  # {note}" if note else ""))

    def given(self, owner: object, *keys: str) -> None:
        """Put those keys of a part of the guess that say something."""
        for key in keys:
            if getattr(owner, key):
                self.put(key, getattr(owner, key))

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def schema_text(guess: SchemaGuess) -> str:
    """Return the schema's TOML text."""
    page = _Page()
    page.comment("Guessed by `vlapipe schema infer`. Each comment says why; correct what is wrong.")
    page.comment(*(f"Not read: {what}" for what in guess.not_read))
    page.put("schema_version", 1)
    page.put("name", guess.name)
    page.put("description", guess.description)
    page.put("anchor", guess.streams[0].name)
    _episodes(page, guess)
    for stream in guess.streams:
        _stream(page, stream)
    _action(page, guess)
    _sample(page, guess)
    return page.text()


def _episodes(page: _Page, guess: SchemaGuess) -> None:
    episodes = guess.episodes
    page.table("episodes")
    page.comment(*guess.episode_reasons)
    page.given(episodes, "folders", "per_file", "group", "ends", "split_column")
    if episodes.split_gap_s:
        page.put("split_gap_s", _rounded(episodes.split_gap_s), "an episode begins where the clock jumps by more")
    page.put("task", episodes.task)
    page.put("metadata", episodes.metadata or "")
    page.table("instruction")
    page.put("metadata_key", guess.instruction.metadata_key or "")
    page.put("file", guess.instruction.file or "")
    if guess.instruction.column:
        page.put("column", guess.instruction.column, "a text in each row")
    page.put("template", guess.instruction.template, "or a fixed text: what the robot was told to do")


def _stream(page: _Page, stream: StreamGuess) -> None:
    path = f"streams.{stream.name}"
    page.table(path)
    page.comment(*stream.reasons)
    page.put("kind", stream.kind)
    page.put("files", list(stream.files))
    if stream.rate_hz is not None:
        page.put("rate_hz", _rounded(stream.rate_hz), "measured" if not stream.time.index_rate_hz else "")
    page.given(stream, "one_row_a_file", "array", "topic")
    if stream.unit:
        page.put("unit", stream.unit, "correct this" if not stream.file_unit else "")
    page.given(stream, "file_unit")
    if stream.convert:
        page.put("convert", stream.convert, "without loss, since training decodes JPEG and PNG")
    if stream.kind == "csv":
        _dialect(page, stream.dialect)
        if stream.missing:
            page.put("missing", list(dict.fromkeys(["", *stream.missing])), "texts that stand for no value")
        if stream.drop:
            page.comment(*_why_dropped(stream.drop))
            page.put("drop", [name for name, _ in stream.drop])
    page.table(f"{path}.time")
    page.comment(*stream.time_reasons)
    _time(page, stream)
    for field in stream.fields:
        page.table(f"{path}.fields.{field.name}")
        _field(page, field)


def _why_dropped(drop: Sequence[tuple[str, str]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in drop:
        by_reason.setdefault(reason, []).append(name)
    said = [f"{reason}: {', '.join(names)}" for reason, names in by_reason.items()]
    return ["not kept; declare a column as a field to keep it: " + "; ".join(said)]


def _dialect(page: _Page, dialect: Dialect) -> None:
    plain = Dialect()
    if dialect.row_line is not None:
        page.put("row_line", dialect.row_line)
    elif dialect.header_commented:
        page.put("header", "commented")
    elif dialect.header_rows != 1:
        page.put("header", dialect.header_rows or False)
    for key in ("delimiter", "quote", "escape", "decimal", "thousands", "encoding", "comment"):
        value = getattr(dialect, key)
        if key == "delimiter" and dialect.skip_blanks:
            page.put(key, f"{value} ")
        elif value != getattr(plain, key):
            page.put(key, value)
    page.given(dialect, "skip_lines", "skip_after_header", "skip_footer", "trailing_delimiter", "index_column")
    page.given(dialect, "short_rows", "row_kind")
    if dialect.row_kind:
        page.put("kind_column", dialect.kind_column)
    if dialect.names:
        variants = [_ranges(names) for names in dialect.names]
        page.put("names", variants[0] if len(variants) == 1 else variants)


def _time(page: _Page, stream: StreamGuess) -> None:
    time, kind = stream.time, stream.kind
    if time.rows_of or time.rate_line:
        page.given(time, "rows_of", "start_line", "rate_line")
        return
    page.given(time, "file")
    if time.sources:
        of_array = kind != "csv" and (stream.fields or stream.array or stream.topic)
        page.put("array" if of_array else "column", time.sources[0] if len(time.sources) == 1 else time.sources)
    page.given(time, "name_column", "pattern")
    if kind == "video" and not time.file:
        pass  # the times of the video itself
    elif time.index_rate_hz:
        is_stated = (kind == "csv" or stream.fields) and not stream.assumed
        page.put("rate_hz", *((time.index_rate_hz,) if is_stated else (_rounded(time.index_rate_hz), "correct this")))
    elif time.parts:
        page.put("parts", dict(time.parts))
    elif time.format:
        page.put("format", time.format)
    else:
        page.put("unit", time.unit)
        if time.exact:
            page.put("exact", True)
        elif time.integer or time.unit in ("us", "ns"):
            page.put("integer", time.integer, "kept as whole nanoseconds" if time.integer else "")
    if time.plus:
        page.put("plus", time.plus)
        if not time.format:  # a date and a time that are joined as text have no unit
            page.put("plus_unit", time.plus_unit)
    if time.offset_s:
        page.put("offset_s", time.offset_s, "so that it counts from 1970")
    page.given(time, "starts_with")


def _field(page: _Page, field: FieldGuess) -> None:
    page.comment(*field.reasons)
    if field.shape is None:
        page.put("columns", _ranges(field.columns))
    elif len(field.columns) == 1:
        page.put("array", field.columns[0])
    else:
        page.put("arrays", field.columns)
    if field.dtype != "float32":
        page.put("dtype", field.dtype)
    page.given(field, "width", "shape")
    if field.length:
        page.put("list", field.length)
    if field.words:
        page.put("words", dict(field.words))
    for key, values in (("unit", field.unit), ("period", field.period)):
        if values:
            page.put(key, values[0] if len(set(values)) == 1 else list(values))
    page.given(field, "quaternion", "normalize", "on_missing", "optional")


def _action(page: _Page, guess: SchemaGuess) -> None:
    action = guess.action
    page.table("action")
    page.comment(*guess.action_reasons)
    page.put("kind", action.kind)
    page.put("of", list(action.of))
    if action.period_s:
        page.put("period_s", _rounded(action.period_s))
        page.put("tolerance_s", _rounded(action.tolerance_s), "how far from that time the row ahead may lie")


def _sample(page: _Page, guess: SchemaGuess) -> None:
    sample = guess.sample
    page.table("sample")
    page.put("state", list(sample.state))
    for key in ("state_rows", "sensor_rows", "image_rows", "action_rows", "action_stride"):
        page.put(key, getattr(sample, key))
    if sample.sensors:
        page.table("sample.sensors")
        for name, path in sample.sensors:
            page.put(name, path)


def _ranges(names: Sequence[str]) -> list[str]:
    """Shorten three or more names that differ in a number that counts up, as ``joint_{1..6}``."""
    short: list[str] = []
    i = 0
    while i < len(names):
        match = _NUMBERED.match(names[i])
        run = 1
        if match is not None and "{" not in names[i]:
            first = int(match[2])
            while i + run < len(names) and names[i + run] == f"{match[1]}{first + run}{match[3]}":
                run += 1
        if match is not None and run > 2:
            short.append(f"{match[1]}{{{match[2]}..{first + run - 1}}}{match[3]}")
            i += run
        else:
            short.append(names[i])
            i += 1
    return short


def _rounded(value: float) -> float | int:
    value = float(f"{value:.4g}")
    return int(value) if value == int(value) else value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A TOML literal string shows backslashes as they are.
        if "\\" in value and "'" not in value and value.isprintable():
            return f"'{value}'"
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        keys = {key: key if _BARE_KEY.fullmatch(key) else _toml(key) for key in value}
        return "{ " + ", ".join(f"{keys[key]} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        text = "[" + ", ".join(map(_toml, value)) + "]"
        return text if len(text) < _LINE else "[\n  " + ",\n  ".join(_wrapped(value)) + ",\n]"
    if isinstance(value, float):
        return repr(int(value)) if value == int(value) else repr(value)
    return repr(value)


def _wrapped(values: Sequence[Any]) -> list[str]:
    """Put the items of a long list on lines, as many on a line as fit."""
    lines: list[str] = []
    for item in map(_toml, values):
        if lines and len(lines[-1]) + len(item) + 4 < _LINE:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines
