"""Parses a schema's TOML. Every key is checked; an error names the table and the nearest correct key."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import PurePath
from typing import Any, get_args

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import CODES, SEVERITIES
from vlapipe.schemas.parse_streams import parse_stream
from vlapipe.schemas.renamed import bring_up_to_date, warn_renamed
from vlapipe.schemas.schema import (
    ActionConstant,
    ActionKind,
    ActionSpec,
    CheckSpec,
    CsvStream,
    EpisodeLayout,
    ImageStream,
    InstructionSpec,
    Rotation,
    SampleDefaults,
    Schema,
    Stream,
)
from vlapipe.schemas.templates import fill_template
from vlapipe.schemas.toml_table import TomlTable, did_you_mean, is_number

__all__ = ["SCHEMA_VERSION", "check_sample", "field_paths", "parse_action", "parse_schema"]

SCHEMA_VERSION = 1
_CHOSEN_SEVERITIES = (*SEVERITIES, "off")


def parse_schema(text: str, source: str, *, is_stored: bool = False) -> Schema:
    """Parses a schema from TOML text; errors call the schema ``source``.

    Old names are accepted with a ``RenamedWarning``. If ``is_stored`` (the schema comes from a dataset), there is no
    warning.

    Raises:
        UsageError: the text is not TOML, or says something that no schema can say.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"schema {source}: not valid TOML: {error}") from None
    for old, new in bring_up_to_date(values):
        if not is_stored:
            warn_renamed(f"schema {source}", old, new)
    top = TomlTable(source, "", values)
    version = top.number("schema_version", 1)
    if version != SCHEMA_VERSION:
        top.fail(f"schema_version: expected {SCHEMA_VERSION}, found {version!r}", "a newer vlapipe may read it")
    streams = tuple(parse_stream(name, table) for name, table in top.tables("streams").items())
    anchor = _parse_anchor(top, streams)
    episodes = _parse_episodes(top.table("episodes", {}))
    if episodes.split_column:
        streams = tuple(_without(episodes.split_column, s) if s.name == anchor else s for s in streams)
    streams = tuple(_with_other_clock(stream, streams) for stream in streams)
    instruction = _parse_instruction(top.table("instruction", {}))
    streams = tuple(_with_blanks(instruction.column, stream) for stream in streams)
    sample = _parse_sample(top.table("sample", {}), _numbers_of(anchor, streams), streams)
    schema = Schema(
        name=top.text("name", PurePath(source).stem),
        description=top.text("description", ""),
        embodiment=top.text("embodiment", ""),
        anchor=anchor,
        episodes=episodes,
        streams=streams,
        action=parse_action(top.table("action", {"kind": "next", "of": list(sample.state)})),
        sample=sample,
        instruction=instruction,
        checks=_parse_checks(top.table("checks", {})),
        val_fraction=_parse_split(top.table("split", {})),
        toml=text,
    )
    top.finish()
    _check_references(top, schema)
    return schema


def _parse_anchor(top: TomlTable, streams: tuple[Stream, ...]) -> str:
    """Returns the stream on whose clock frames lie: the one that the schema names, else the first that is no camera."""
    with_rows = [stream.name for stream in streams if not isinstance(stream, ImageStream)]
    if not with_rows:
        top.fail("streams: frames lie on the clock of a csv or npz stream, and there is none", "declare one")
    anchor: str = top.text("anchor", with_rows[0])
    names = [stream.name for stream in streams]
    if anchor not in names:
        top.fail(f"anchor: no stream {anchor!r}", did_you_mean(anchor, names))
    if anchor not in with_rows:
        top.fail(f"anchor: {anchor!r} is a camera", "frames lie on the clock of a csv or npz stream")
    if next(stream for stream in streams if stream.name == anchor).optional:
        top.fail(f"streams.{anchor}: the anchor cannot be optional", "frames lie on its rows; name another anchor")
    return anchor


def _numbers_of(anchor: str, streams: tuple[Stream, ...]) -> tuple[str, ...]:
    """Returns every field of the anchor that holds numbers. They are the state if the schema names no state."""
    return tuple(
        f"{stream.name}/{field.name}"
        for stream in streams
        if stream.name == anchor and not isinstance(stream, ImageStream)
        for field in stream.fields
        if not field.text
    )


def _parse_episodes(table: TomlTable) -> EpisodeLayout:
    layout = EpisodeLayout(
        folders=table.texts("folders", ()),
        per_file=table.flag("per_file", False),
        split_column=table.text("split_column", None),
        split_gap_s=table.number("split_gap_s", None, least=1e-9),
        idle=table.choice("idle", ("keep", "trim"), "keep"),
        idle_s=float(table.number("idle_s", 1.0, least=1e-9)),
        task=table.text("task", "{parent}"),
        metadata=table.text("metadata", "metadata.json") or None,
        metadata_table=table.text("metadata_table", None),
        exclude=table.texts("exclude", ()),
        group=table.text("group", None),
        ends=table.text("ends", None),
        ranges=table.text("ranges", None),
        layout=table.choice("layout", ("lerobot",), None) if "layout" in table.values else None,
        where=_parse_where(table),
    )
    _check_template(table, "task", layout.task, {"parent": "", "folder": "", "dataset": "", "stem": ""})
    if layout.per_file and layout.folders:
        table.fail("per_file and folders cannot both be given", "with per_file each file of the anchor is an episode")
    cuts = [key for key in ("split_column", "split_gap_s", "group", "ends", "ranges") if getattr(layout, key)]
    if len(cuts) > 1:
        table.fail(f"{' and '.join(cuts)} cannot both be given", "choose one")
    table.finish()
    return layout


def _parse_where(table: TomlTable) -> str | None:
    """Returns an expression; ``where = { success = true }`` becomes one. The expression itself is parsed at its use."""
    where = table.get("where", None)
    if isinstance(where, dict):
        return " and ".join(_conditions(table, where)) or None
    text: str | None = table.text("where", None)
    return text


def _conditions(table: TomlTable, where: dict[str, Any], above: str = "") -> list[str]:
    """Returns a condition for each entry: equal to its value, or to one of the values of a list."""
    found = []
    for key, value in where.items():
        if isinstance(value, dict):
            found += _conditions(table, value, f"{above}{key}.")
            continue
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str | bool | int | float) for each in listed):
            table.fail(f"where: {above}{key}: expected true, false, numbers or texts, found {value!r}")
        literals = [repr(each) if isinstance(each, str) else json.dumps(each) for each in listed]
        test = f"in [{', '.join(literals)}]" if isinstance(value, list) else f"== {literals[0]}"
        found.append(f"metadata[{above + key!r}] {test}")
    return found


def _without(column: str, stream: Stream) -> Stream:
    """Adds ``column`` to the stream's known columns that are not kept; a field may still read the same column."""
    return replace(stream, drop=(*stream.drop, column)) if isinstance(stream, CsvStream) else stream


def _with_other_clock(stream: Stream, streams: tuple[Stream, ...]) -> Stream:
    """Gives a clock with ``rows_of`` the dtype of the clock that it takes."""
    others = [other.time.dtype for other in streams if other.name == stream.time.rows_of]
    return replace(stream, time=replace(stream.time, integer=others[0] == "int64")) if others else stream


def _with_blanks(path: str | None, stream: Stream) -> Stream:
    """Lets the text field ``path`` hold empty texts: where a row has no instruction, the episode's holds."""
    if not isinstance(stream, CsvStream) or path is None:
        return stream
    fields = (replace(f, may_be_blank=f.text and f"{stream.name}/{f.name}" == path) for f in stream.fields)
    return replace(stream, fields=tuple(fields))


def _parse_instruction(table: TomlTable) -> InstructionSpec:
    instruction = InstructionSpec(
        metadata_key=table.text("metadata_key", "instruction") or None,
        file=table.text("file", "instruction.txt") or None,
        template=table.text("template", "{task_words}"),
        paraphrases=table.flag("paraphrases", False),
        ignore=table.texts("ignore", ()),
        column=table.text("column", None),
    )
    _check_template(table, "template", instruction.template, {"task": "", "task_words": ""})
    table.finish()
    return instruction


def _check_template(table: TomlTable, key: str, template: str, words: dict[str, str]) -> None:
    try:
        fill_template(template, words)
    except (KeyError, IndexError, ValueError, AttributeError):
        known = ", ".join(f"{{{w}}}" for w in [*words, "metadata.KEY"])
        table.fail(f"{key}: cannot fill in {template!r}", f"it may use {known}")


def _parse_split(table: TomlTable) -> float:
    fraction = table.number("val", 0.1, least=0)
    if not fraction < 1:
        table.fail(f"val: expected a fraction below 1, found {fraction!r}")
    table.finish()
    return float(fraction)


def parse_action(table: TomlTable) -> ActionSpec:
    """Parses ``[action]``."""
    kind = table.choice("kind", ("delta", "absolute", "next", "column"))
    append = table.table("append", {})
    period_s = float(table.number("period_s", 0.0, least=0))
    action = ActionSpec(
        kind=kind,
        of=table.texts("of"),
        period_s=period_s,
        tolerance_s=float(table.number("tolerance_s", period_s / 4, least=0)),
        append=tuple(_parse_constant(name, append) for name in append.values),
    )
    if not action.of:
        table.fail("of: an action of nothing", "name at least one field")
    if (kind in ("column", "next")) != (period_s == 0):
        cure = "leave period_s out" if period_s else "say how far ahead in seconds, e.g. period_s = 0.1"
        table.fail(f"period_s: does not fit kind = {kind!r}", cure)
    table.finish()
    return action


def _parse_constant(name: str, append: TomlTable) -> ActionConstant:
    """Parses a number, or a table with field, threshold, above and below."""
    if not isinstance(append.values[name], dict):
        return ActionConstant(name=name, value=float(append.number(name)))
    table = append.table(name)
    constant = ActionConstant(
        name=name,
        field=table.text("field"),
        threshold=table.number("threshold", None),
        value=float(table.number("above", 1.0)),
        below=float(table.number("below", 0.0)),
    )
    if constant.threshold is None and ("above" in table.values or "below" in table.values):
        table.fail("above and below need a threshold", "add threshold, or leave them out to take the field as it is")
    table.finish()
    return constant


def _parse_checks(table: TomlTable) -> CheckSpec:
    severity = table.table("severity", {})
    chosen = []
    for code in severity.values:
        if code not in CODES:
            severity.fail(f"no finding has the code {code!r}", did_you_mean(code, CODES, page="docs/errors.md"))
        wanted = severity.choice(code, _CHOSEN_SEVERITIES)
        if CODES[code].fatal and wanted != "error":
            severity.fail(f"{code!r} stays an error", "there would be nothing to keep")
        chosen.append((code, wanted))
    checks = CheckSpec(
        min_seconds=float(table.number("min_seconds", 0.0, least=0)),
        min_frames=table.count("min_frames", 1),
        edge_s=float(table.number("edge_s", 1.0, least=0)),
        max_jitter=float(table.number("max_jitter", 0.5, least=0)),
        max_drift=float(table.number("max_drift", 0.01, least=0)),
        severity=tuple(chosen),
    )
    table.finish()
    return checks


def _parse_sample(table: TomlTable, every_field: tuple[str, ...], streams: tuple[Stream, ...]) -> SampleDefaults:
    sensors = table.table("sensors", {})
    state = table.texts("state", every_field)
    if not state:
        table.fail("state: a sample without a state", "name at least one field")
    named = tuple((name, sensors.text(name)) for name in sensors.values)
    declared = {stream.name: stream.rate_hz for stream in streams}
    of_windows = {
        "state": declared.get(state[0].partition("/")[0]),
        "sensor": declared.get(named[0][1].partition("/")[0]) if named else None,
        "image": next((stream.rate_hz for stream in streams if isinstance(stream, ImageStream)), None),
        "action": declared.get(state[0].partition("/")[0]),
    }
    windows: dict[str, Any] = {}
    for window, rate_hz in of_windows.items():
        windows |= _parse_window(table, window, rate_hz)
    sample = SampleDefaults(
        state=state,
        sensors=named,
        cameras=table.texts("cameras") if "cameras" in table.values else None,
        ahead_rows=table.count("ahead_rows", 0, least=0),
        action_form=table.choice("action_form", get_args(ActionKind), "absolute"),
        rotation=table.choice("rotation", get_args(Rotation), None) if "rotation" in table.values else None,
        relative_to=table.texts("relative_to", ()),
        delta_timestamps=_parse_timestamps(table),
        **windows,
    )
    table.finish()
    return sample


def _parse_timestamps(table: TomlTable) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Returns the seconds of each batch entry that has its own, as LeRobot's ``delta_timestamps`` says them."""
    given = table.table("delta_timestamps", {})
    found = []
    for entry, seconds in given.values.items():
        times = seconds if isinstance(seconds, list) else [seconds]
        if not times or not all(is_number(t) for t in times) or sorted(times) != times:
            given.fail(f"{entry}: expected ascending numbers of seconds, found {seconds!r}", "for example [-0.1, 0.0]")
        found.append((entry, tuple(float(t) for t in times)))
    return tuple(found)


def _parse_window(table: TomlTable, window: str, rate_hz: float | None) -> dict[str, Any]:
    """Returns rows, stride and seconds of a window; with seconds alone, the declared rate gives the rows."""
    seconds = table.number(f"{window}_s", None, least=1e-9)
    if seconds is not None and f"{window}_stride" in table.values:
        table.fail(f"{window}_s and {window}_stride cannot both be given", "the rows lie at equal times, or at rows")
    if seconds is not None and f"{window}_rows" not in table.values:
        if rate_hz is None:
            table.fail(f"{window}_s: how many rows are that?", f"add {window}_rows, or rate_hz in the stream")
        rows = max(1, round(seconds * rate_hz))
    else:
        rows = 1
    return {
        f"{window}_rows": table.count(f"{window}_rows", rows),
        f"{window}_stride": table.count(f"{window}_stride", 1),
        f"{window}_s": None if seconds is None else float(seconds),
    }


def _check_references(top: TomlTable, schema: Schema) -> None:
    """Checks that the schema declares every name that it uses."""
    names = [stream.name for stream in schema.streams]
    for stream in schema.streams:
        like = stream.time.rows_of
        if like is not None and (like not in names or like == stream.name or schema.stream(like).time.rows_of):
            cure = did_you_mean(like, names) if like not in names else "name a stream with a clock of its own"
            top.fail(f"streams.{stream.name}.time.rows_of: no other stream {like!r} with a clock", cure)
        if like is not None and isinstance(schema.stream(like), ImageStream):
            top.fail(f"streams.{stream.name}.time.rows_of: {like!r} is a camera", "name a stream that is none")
        other = stream.time.starts_with
        if other is not None and (other not in names or other == stream.name):
            top.fail(f"streams.{stream.name}.time.starts_with: no other stream {other!r}", did_you_mean(other, names))
        seen = {stream.name}
        while other is not None:
            if other in seen:
                top.fail(f"streams.{stream.name}.time.starts_with: goes round in a circle", "leave one of them out")
            seen.add(other)
            other = schema.stream(other).time.starts_with if other in names else None
    if not schema.episodes.per_file:
        _refuse_stem(top, schema)
    column = schema.instruction.column
    texts = [path for path in field_paths(schema) if schema.is_on_anchor(path) and schema.field(path).text]
    if column is not None and column not in texts:
        problem = f"instruction.column: no text field {column!r} of {schema.anchor!r}"
        top.fail(problem, did_you_mean(column, texts) if texts else 'declare one with dtype = "text"')
    check_sample(top, schema)


def check_sample(top: TomlTable, schema: Schema) -> None:
    """Checks that the schema declares every field that its sample and its action name.

    Raises:
        UsageError: a field is not declared, is text, or cannot be used there.
    """
    fields = field_paths(schema)
    uses = [("action.of", path) for path in schema.action.of]
    uses += [("action.append", constant.field) for constant in schema.action.append if constant.field]
    uses += [("sample.state", path) for path in schema.sample.state]
    uses += [("sample.sensors", path) for _, path in schema.sample.sensors]
    uses += [("sample.relative_to", path) for path in schema.sample.relative_to if path]  # '' stays absolute
    for name, _ in schema.sample.sensors:
        if name.endswith("_is_pad"):
            top.fail(f"sample.sensors: {name!r} would be the mask of another sensor", "call it something else")
    for where, path in uses:
        if path not in fields:
            top.fail(f"{where}: no field {path!r}", did_you_mean(path, fields))
        if schema.field(path).text:
            top.fail(f"{where}: {path!r} is text", "only numbers can be trained on")
    derived = {f"{s.name}/{d.name}" for s in schema.streams if not isinstance(s, ImageStream) for d in s.derived}
    for path in schema.action.of if schema.action.kind == "delta" else ():
        if schema.field(path).quaternion or path in derived:
            top.fail(f"action.of: the difference of two rotations is none: {path!r}", "use kind = 'absolute'")
    for constant in schema.action.append:
        if constant.field and schema.field(constant.field).num_columns != 1:
            top.fail(f"action.append: {constant.field!r} has several numbers a row", "choose a field with one")


def _refuse_stem(top: TomlTable, schema: Schema) -> None:
    """Refuses ``{stem}`` in a schema without ``per_file``: an episode has a stem only if each file is an episode."""
    texts = [("episodes.task", schema.episodes.task), ("episodes.metadata", schema.episodes.metadata or "")]
    texts.append(("instruction.file", schema.instruction.file or ""))
    for stream in schema.streams:
        texts += [(f"streams.{stream.name}.files", pattern) for pattern in stream.files]
        texts.append((f"streams.{stream.name}.time.file", stream.time.file or ""))
    for where, text in texts:
        if "{stem}" in text:
            top.fail(f"{where}: {{stem}} in {text!r} stands for nothing", "say per_file = true under [episodes]")


def field_paths(schema: Schema) -> list[str]:
    """Returns each ``<stream>/<field>`` that an episode has, including masks and derived fields."""
    paths: list[str] = []
    for stream in schema.streams:
        if isinstance(stream, ImageStream):
            continue
        names = [field.name for field in stream.fields]
        names += [field.mask.name for field in stream.fields if field.mask is not None]
        names += [derived.name for derived in stream.derived]
        paths += [f"{stream.name}/{name}" for name in names]
    return paths
