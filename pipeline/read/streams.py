"""Reads the streams of one raw episode: each stream's files and, if the clock has a file of its own, that file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.many_files import in_number_order, number_of
from vlapipe.pipeline.read.bags.together import lacks_topic, read_together
from vlapipe.pipeline.read.clock_file import ClockFile, read_clock_file
from vlapipe.pipeline.read.containers.arrays import Part
from vlapipe.pipeline.read.containers.names import is_named_as_array
from vlapipe.pipeline.read.csv.one_row_files import read_one_row_files
from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.pipeline.read.images.bag_camera import read_bag_camera
from vlapipe.pipeline.read.images.camera_files import read_images
from vlapipe.pipeline.read.images.image_array import read_image_array
from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.read.moved_clocks import start_with_others, take_rows_of_others
from vlapipe.pipeline.read.npz.arrays import read_array_stream
from vlapipe.pipeline.read.video.video import read_video
from vlapipe.pipeline.stream_rows import ImageRows, Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, CsvStream, ImageStream, Schema, Stream

__all__ = ["place_of", "read_rows", "read_streams"]

_MOST_NAMED = 8  # limit on the files that a finding lists


def read_streams(
    root: Path,
    raw: RawEpisode,
    schema: Schema,
    cameras: dict[str, tuple[str, ...]],
    findings: Findings,
    images: ImageOptions,
) -> dict[str, Rows]:
    """Returns the streams that could be read, in the schema's order; each camera is one stream.

    An optional stream without files is left out, without a finding. The arguments are those of ``read_episode``.
    """
    streams: dict[str, Rows] = {}
    with read_together(_topics(raw, schema, cameras)):
        for stream in schema.streams:
            if isinstance(stream, ImageStream):
                streams |= _read_cameras(root, raw, stream, cameras[stream.name], findings, images)
            elif _is_there(root, raw, stream, stream.name, findings) or not stream.optional:
                rows = read_rows(root, raw, stream, findings, in_parts=raw.rows is not None)
                if rows is not None:
                    streams[stream.name] = rows
    return take_rows_of_others(start_with_others(streams, schema, cameras, findings), schema, cameras, findings)


def _topics(raw: RawEpisode, schema: Schema, cameras: dict[str, tuple[str, ...]]) -> Iterator[tuple[list[str], str]]:
    """Yields the topics that an episode's streams take from bags, each with the bag's files."""
    for stream in schema.streams:
        if isinstance(stream, CsvStream) or stream.topic is None:
            continue
        for name in cameras[stream.name] if isinstance(stream, ImageStream) else (stream.name,):
            yield [file.path for file in raw.files.get(name, ())], stream.topic.replace("{camera}", name)


def _is_there(root: Path, raw: RawEpisode, stream: Stream, name: str, findings: Findings) -> bool:
    """Returns whether an episode has the files of a stream, or of the camera ``name``, and its topic in them."""
    files = [file.path for file in raw.files.get(name, ())]
    if not files or isinstance(stream, CsvStream) or stream.topic is None or not stream.optional:
        return bool(files)
    return not lacks_topic(root, files, stream.topic.replace("{camera}", name), findings)


def read_rows(
    root: Path, raw: RawEpisode, stream: CsvStream | ArrayStream, findings: Findings, *, in_parts: bool = False
) -> StreamRows | None:
    """Reads one stream that is not a camera, with its clock. Returns ``None`` if errors were found.

    ``in_parts``: the files hold several episodes; faults of single rows of a table are then told by ``faults``.
    """
    files = raw.files[stream.name]
    if stream.name in raw.missing:
        _refuse_missing(raw, stream.name, findings)
        return None
    joined = stream.one_row_a_file
    is_array = isinstance(stream, ArrayStream)
    if is_array and joined:
        files = in_number_order(files)
        _report_missing_numbers(raw, files, findings)
    many = is_array and (stream.kind == "bag" or all(is_named_as_array(file.path) for file in files))
    if not files or (len(files) > 1 and not (many or joined)):
        _refuse_files(files, raw, stream.files, findings)
        return None
    has_clock, clock = _read_clock(root, raw, stream.name, stream, findings)
    if isinstance(stream, ArrayStream):
        paths = [file.path for file in files]
        part = _part_of(raw)
        return read_array_stream(root, paths, stream, findings, clock, group=raw.group, part=part, says=raw.says)
    if joined:
        rows = read_one_row_files(root, [file.path for file in files], stream, findings)
    else:
        rows = read_csv_stream(root / files[0].path, files[0].path, stream, findings, in_parts=in_parts)
    if rows is None or not has_clock:
        return None
    return rows if clock is None else _with_clock(rows, clock, stream, findings)


def _report_missing_numbers(raw: RawEpisode, files: Sequence[RawFile], findings: Findings) -> None:
    """Reports rows of which there is no file, or several."""
    numbers = [number_of(file.path) for file in files]
    first, last = raw.numbers or (min(numbers, default=0), max(numbers, default=-1))
    present = Counter(numbers)
    num_lacking = last - first + 1 - len(present)
    if num_lacking > 0:
        found = f"none with number {next(n for n in range(first, last + 1) if n not in present)}"
        expected = f"a file for each number from {first} to {last}"
        findings.add("file.missing", raw.folder, expected=expected, found=found, count=num_lacking)
    elif len(present) < len(numbers):
        twice = present.most_common(1)[0][0]
        findings.add("file.several", raw.folder, expected="one file for each number", found=f"several with {twice}")


def _with_clock(rows: StreamRows, clock: ClockFile, stream: CsvStream, findings: Findings) -> StreamRows | None:
    """Replaces the row numbers that ``rows`` has as its clock by the stamps of the rows with these numbers."""
    numbers = rows.timestamp
    num_rows = int(numbers[-1]) + 1
    may_drop = stream.on_bad == "drop" or any(field.on_missing == "drop" for field in stream.fields)
    at_least = may_drop and len(clock.timestamp) >= num_rows  # rows dropped after the last kept row are not counted
    if not at_least and not clock.fits(num_rows, rows.source.path, findings):
        return None
    line_of = clock.place.line_of
    place = replace(clock.place, line_of=lambda row: line_of(int(numbers[row])))
    return replace(rows, timestamp=clock.timestamp[numbers], clock_location=place)


def _refuse_files(files: Sequence[RawFile], raw: RawEpisode, patterns: tuple[str, ...], findings: Findings) -> None:
    patterns = tuple(pattern.replace("{stem}", raw.stem or "{stem}") for pattern in patterns)
    code = "file.several" if files else "file.missing"
    found = ", ".join(PurePosixPath(file.path).name for file in files[:_MOST_NAMED]) or "no such file"
    found += f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    findings.add(code, _join(raw.folder, patterns[0]), expected=" or ".join(patterns), found=found)


def _refuse_missing(raw: RawEpisode, name: str, findings: Findings) -> None:
    findings.add("file.missing", raw.missing[name], expected=f"{name} of {raw.id}, as meta/ says", found="no such file")


def _read_clock(
    root: Path, raw: RawEpisode, name: str, stream: Stream, findings: Findings
) -> tuple[bool, ClockFile | None]:
    """Returns whether the stream has what its clock needs, and the clock's file if the clock has a file of its own.

    If the clock cannot be read, the caller still reads the stream's own files, so that their faults are reported too.
    """
    if stream.time.file is None:
        return True, None
    files = raw.clock_files.get(name, ())
    if len(files) != 1:
        _refuse_files(files, raw, (stream.time.file,), findings)
        return False, None
    clock = read_clock_file(root / files[0].path, files[0].path, stream.time, findings)
    return clock is not None, clock


def place_of(raw: RawEpisode, stream: Stream, name: str) -> str:
    """Returns where an episode's stream, or the camera ``name``, would be, for findings about an absent one."""
    if isinstance(stream, ImageStream) and stream.array:
        named = stream.array[0].replace("{camera}", name)
        return f"{_join(raw.folder, stream.files[0].replace('{stem}', raw.stem or '{stem}'))}: {named}"
    if isinstance(stream, ImageStream) and stream.many_cameras:
        return _join(raw.folder, stream.files[0].split("{camera}")[0] + name)
    return _join(raw.folder, stream.files[0].replace("{stem}", raw.stem or "{stem}"))


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _read_cameras(
    root: Path,
    raw: RawEpisode,
    stream: ImageStream,
    cameras: tuple[str, ...],
    findings: Findings,
    images: ImageOptions,
) -> dict[str, ImageRows]:
    present = [camera for camera in cameras if _is_there(root, raw, stream, camera, findings)]
    told = [camera for camera in cameras if camera in raw.missing]
    for camera in told:
        _refuse_missing(raw, camera, findings)
    cameras = tuple(camera for camera in cameras if camera not in told)
    if not present and not told and not stream.optional:
        expected = f"images of {', '.join(cameras) or 'a camera'}"
        place = _join(raw.folder, stream.files[0].partition("*")[0].partition("{")[0].rstrip("/"))
        findings.add("image.none", place, expected=expected, found="none")
        return {}
    for camera in sorted(set(cameras) - set(present)) if not stream.optional else ():
        place = place_of(raw, stream, camera)
        findings.add("image.missing_camera", place, expected=f"images of {camera}", found="none")
    for camera in sorted(set(raw.cameras.get(stream.name, ())) - set(cameras)):
        findings.add("image.extra_camera", str(PurePosixPath(raw.files[camera][0].path).parent), found="not kept")
    read: dict[str, ImageRows] = {}
    for camera in present:
        has_clock, clock = _read_clock(root, raw, camera, stream, findings)
        found = raw.files[camera]
        files = [file.path for file in (in_number_order(found) if stream.in_container else found)]
        only_size = dict(images.camera_sizes).get(camera)
        read_one = partial(
            _reader_of(raw, stream, camera), root, files, stream, findings, clock, images=images, only_size=only_size
        )
        rows = read_one(in_parts=raw.rows is not None and _part_of(raw) is None)
        if rows is not None and has_clock:
            read[camera] = rows
    return read


def _part_of(raw: RawEpisode) -> Part | None:
    """Returns the rows of the episode in its container, if only these are read."""
    return Part(*raw.rows, raw.num_rows) if raw.reads_part and raw.rows and raw.num_rows else None


def _reader_of(raw: RawEpisode, stream: ImageStream, camera: str) -> Callable[..., ImageRows | None]:
    """Returns the function that reads the camera's images: from files, from a video, or from a container."""
    if stream.kind == "video":
        return partial(read_video, times=raw.times.get(camera))
    if stream.topic is not None:
        return partial(read_bag_camera, camera=camera if stream.many_cameras else None)
    if stream.in_container:
        name = camera if stream.many_cameras else None
        return partial(read_image_array, camera=name, group=raw.group, part=_part_of(raw))
    return read_images
