"""Tries a schema on recordings and reports, stream by stream, what was found and what the schema asks for."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.check.across_episodes import check_what_is_left_out
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.discover.file_tree import walk
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.infer.trial import Trial, try_schema
from vlapipe.pipeline.read.csv.rows import open_rows
from vlapipe.pipeline.read.csv.table import as_plain_table
from vlapipe.pipeline.read.text import read_bytes, read_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream, ImageStream, Schema, Stream
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["SchemaCheck", "check_schema"]

_MAX_NAMES = 20
_MAX_FILES = 8
_MAX_OF_A_KIND = 2
_MAX_FAULTS = 10
_ABOUT_COLUMNS = {"csv.missing_column", "csv.bad_time", "csv.column_count", "csv.duplicate_column"}


@dataclass(frozen=True)
class SchemaCheck:
    """The report, line by line, and whether every episode that was tried is good."""

    lines: tuple[str, ...]
    good: bool


def check_schema(root: Path, schema: Schema, *, num_episodes: int) -> SchemaCheck:
    """Try a schema on the first episodes below ``root``.

    Raises:
        UsageError: the folder does not exist.
    """
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "no such folder"
        raise UsageError(f"{root}: {problem}", "give the folder that holds the recordings")
    try:
        trial = try_schema(root, schema, num_episodes=num_episodes)
    except UsageError as error:
        return SchemaCheck((str(error), *_what_is_there(root, schema)), good=False)
    lines = list(_episodes(trial, schema))
    notes = list(_notes(trial))
    if notes:
        lines += ["", "kept all the same:", *notes]
    left_out = Findings(schema.checks.severity)
    check_what_is_left_out(trial.discovery, schema, left_out)
    if left_out:
        lines += ["", "left out:", *(f"  {finding.severity}: {finding}" for finding in left_out)]
    good = not trial.rejects and not left_out.errors
    return SchemaCheck((*lines, "", _verdict(trial, good=good)), good=good)


def _verdict(trial: Trial, *, good: bool) -> str:
    tried, bad = len(trial.tried), len(trial.rejects)
    if not good and not bad:
        return "what is left out is an error"
    of = f"{tried} of {len(trial.discovery.episodes)}" if tried <= len(trial.discovery.episodes) else f"{tried}"
    return f"{bad} of {tried} episodes have errors" if bad else f"good: {of} episodes tried, no errors"


def _what_is_there(root: Path, schema: Schema) -> Iterator[str]:
    """Yield what each stream looks for, and the first files of a folder in which no episode was found."""
    for stream in schema.streams:
        yield f"  stream {stream.name!r} looks for {' or '.join(stream.files)}"
    files = list(walk(root.resolve()).files)
    yield f"  {root} holds {len(files):,} files" + (", such as" if files else "")
    kinds = Counter[str]()
    shown = 0
    for path in files:
        suffix = PurePosixPath(path).suffix
        kinds[suffix] += 1
        if kinds[suffix] <= _MAX_OF_A_KIND and shown < _MAX_FILES:
            shown += 1
            yield f"    {path}"
    names = sorted({PurePosixPath(path).name for path in files})
    for pattern in schema.anchor_stream.files:
        near = did_you_mean(pattern.rpartition("/")[2], names)
        if near.startswith("did"):
            yield f"  for {pattern!r}: {near}"


def _episodes(trial: Trial, schema: Schema) -> Iterator[str]:
    rows = {row["id"]: row for row in trial.rows}
    rejects = {reject["episode"]: reject for reject in trial.rejects}
    for raw in trial.tried:
        row = rows.get(raw.id)
        yield f"{raw.id}: good, {row['num_frames']:,} frames" if row else f"{raw.id}: set aside"
        for stream in schema.streams:
            yield from _streams(trial, raw, stream, row)
        errors = [reason for reason in rejects.get(raw.id, {}).get("reasons", ()) if reason["severity"] == "error"]
        yield from _faults(trial, raw, schema, errors)


def _streams(trial: Trial, raw: RawEpisode, stream: Stream, row: Record | None) -> Iterator[str]:
    names = trial.cameras[stream.name] if isinstance(stream, ImageStream) else (stream.name,)
    if not names:
        yield f"  {stream.name}: no camera in most episodes; the schema looks for {' or '.join(stream.files)}"
    for name in names:
        yield f"  {name}: {_files(raw.files.get(name, ()), raw, stream)}{_rows(name, row)}"
        if isinstance(stream, CsvStream) and len(raw.files.get(name, ())) == 1:
            said = _columns(trial.discovery.root, raw.files[name][0], stream)
            if said:
                yield f"    {said}"


def _files(files: Sequence[RawFile], raw: RawEpisode, stream: Stream) -> str:
    if not files:
        return f"no file; the schema looks for {' or '.join(stream.files)}"
    start = 0 if raw.folder == "." else len(raw.folder) + 1
    first = files[0].path[start:]
    return first if len(files) == 1 else f"{len(files):,} files, {first} the first"


def _rows(name: str, row: Record | None) -> str:
    if row is None:
        return ""
    if not row[f"{name}/rows"]:
        return ": absent, which the schema allows"
    count, span = row[f"{name}/rows"], row[f"{name}/last_s"] - row[f"{name}/first_s"]
    rate = f", {(count - 1) / span:.4g} Hz" if span > 0 else ""
    return f": {count:,} rows over {span:.4g} s{rate}"


def _header(root: Path, file: RawFile, stream: CsvStream) -> tuple[str, ...]:
    """Return a file's column names as the schema's dialect reads them; empty if the file cannot be read."""
    ignored = Findings()
    raw = read_bytes(root / file.path, file.path, ignored)
    text = None if raw is None else read_text(raw, stream.dialect.encoding, file.path, ignored)
    plain = None if text is None else as_plain_table(text, stream, file.path, ignored)
    rows = None if plain is None else open_rows(plain[0], plain[1].dialect, file.path, ignored)
    return () if rows is None else tuple(name for name in rows.names if name)


def _wanted(stream: CsvStream) -> list[tuple[str, ...]]:
    """For each column that a file must have, return the names that the schema accepts for the column."""
    clock = [stream.time.sources] if stream.time.sources and stream.time.file is None else []
    return [
        *clock,
        *_beside_clock(stream),
        *(names for field in stream.fields if not field.optional for names in field.columns),
    ]


def _beside_clock(stream: CsvStream) -> list[tuple[str, ...]]:
    """Return the columns other than the clock's own from which a stamp is combined."""
    time = stream.time
    return [(name,) for name in (*filter(None, [time.plus]), *(name for _, name in time.parts))]


def _columns(root: Path, file: RawFile, stream: CsvStream) -> str:
    header = _header(root, file, stream)
    if not header or any(field.regex for field in stream.fields):
        return ""
    used = {name for field in stream.fields for names in field.columns for name in names}
    used |= {*stream.time.sources, *(name for names in _beside_clock(stream) for name in names)}
    unused = [name for name in header if name.strip() not in used]
    said = f"{len(header) - len(unused)} of {len(header)} columns used"
    return f"{said}; not kept: {_list(unused)}" if unused else said


def _list(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _faults(trial: Trial, raw: RawEpisode, schema: Schema, errors: list[Record]) -> Iterator[str]:
    for error in errors[:_MAX_FAULTS]:
        yield f"  error: {error['message']}"
    if len(errors) > _MAX_FAULTS:
        yield f"  and {len(errors) - _MAX_FAULTS} more errors"
    explained = {error["file"] for error in errors if error["code"] in _ABOUT_COLUMNS}
    for stream in schema.streams:
        for file in raw.files.get(stream.name, ()) if isinstance(stream, CsvStream) else ():
            if file.path in explained:
                assert isinstance(stream, CsvStream)
                yield from _against(_header(trial.discovery.root, file, stream), file, stream)


def _against(header: tuple[str, ...], file: RawFile, stream: CsvStream) -> Iterator[str]:
    """Yield the columns that a file has, and the columns that the schema asks for and the file lacks."""
    has = {name.strip() for name in header}
    lacking = [names for names in _wanted(stream) if has.isdisjoint(names)]
    yield f"    {PurePosixPath(file.path).name} has the columns {_list(header) or '(none that can be read)'}"
    if lacking:
        yield f"    the schema asks for, and it lacks: {_list([_with_nearest(names, has) for names in lacking])}"
    if len(header) == 1 and len(_wanted(stream)) > 1:
        yield f"    one column only: is {stream.dialect.delimiter!r} the delimiter? `vlapipe schema infer` finds out"


def _with_nearest(names: tuple[str, ...], has: set[str]) -> str:
    near = difflib.get_close_matches(names[0], sorted(has), n=1)
    return " or ".join(names) + (f" ({near[0]}?)" if near else "")


def _notes(trial: Trial) -> Iterator[str]:
    """Yield the first finding of each kind about good episodes."""
    seen: set[str] = set()
    for finding in trial.findings:
        if finding["code"] not in seen:
            seen.add(finding["code"])
            yield f"  {finding['severity']}: {finding['message']}"
