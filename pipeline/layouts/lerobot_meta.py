"""Reads the metadata of a LeRobot dataset, v2.0 to v3: features, tasks, episodes, and the files that hold each.

v2 keeps a data file and a video an episode, and its metadata in JSON lines. v3 keeps many episodes in a file, and its
metadata in Parquet files. Nothing here opens a data file or a video.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.discover.proportion import limit_bytes
from vlapipe.schemas.errors import UsageError, is_text
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Feature", "LeRobotEpisode", "LeRobotMeta", "Span", "is_lerobot", "read_meta"]

INFO = "meta/info.json"
_SLOT = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")
_DATA = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_VIDEO = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_BOOKKEEPING = ("stats/", "data/", "videos/", "meta/", "dataset_from_index", "dataset_to_index")
_LINE = "\0line"  # key of an entry's line in its file; no metadata has it
_MOST_JSON = 1 << 28  # bytes of a JSON file of metadata
_FASTEST = 1e6  # frames per second
_MOST_FEATURES = 4096
_MOST_NUMBERS = 1 << 24  # of one row of a feature that is no image
_LATEST_S = 1e9  # of a video
_FEW = 100_000  # episodes, or rows of a file, that are read whatever else there is


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One entry of ``features`` in info.json. ``names`` are those of the numbers of a row, or none."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    is_depth: bool = False

    @property
    def is_video(self) -> bool:
        """Returns whether the feature's values are frames of videos."""
        return self.dtype == "video"

    @property
    def is_camera(self) -> bool:
        """Returns whether the feature's values are images."""
        return self.dtype in ("video", "image")


@dataclass(frozen=True, kw_only=True)
class Span:
    """A file, and the seconds in it that are an episode's; ``None`` if the whole file is."""

    file: str
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class LeRobotEpisode:
    """One episode: its number, its rows, its texts, and its files. ``first_row`` counts in the whole dataset."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data_file: str
    first_row: int | None
    videos: dict[str, Span]  # by feature
    others: dict[str, Any] = field(default_factory=dict)  # what else the metadata says


@dataclass(frozen=True, kw_only=True)
class LeRobotMeta:
    """What the files below ``meta/`` say."""

    version: str
    fps: float
    robot_type: str
    features: tuple[Feature, ...]
    tasks: dict[int, str]
    episodes: tuple[LeRobotEpisode, ...]
    totals: dict[str, int]  # total_episodes, total_frames, total_tasks as info.json has them

    @property
    def cameras(self) -> tuple[Feature, ...]:
        """Returns the features that are images or videos."""
        return tuple(feature for feature in self.features if feature.is_camera)


def is_lerobot(tree: WholeTree) -> bool:
    """Returns whether a folder looks like a LeRobot dataset."""
    return INFO in tree.files and any(path.startswith("data/") for path in tree.files)


def read_meta(root: Path) -> LeRobotMeta:
    """Reads the metadata of the dataset in ``root``.

    Raises:
        UsageError: the metadata is missing, damaged, or of a version that is not read.
    """
    info = _read_info(root)
    version = str(info.get("codebase_version", ""))
    match = re.fullmatch(r"v?([23])\.\d+(\.\d+)?", version)
    if match is None:
        cure = "convert it with LeRobot's own scripts to v2.1 or v3.0"
        raise UsageError(f"{INFO}: codebase_version: expected v2.0 to v3, found {version!r:.40}", cure)
    major = int(match[1])
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= _FASTEST:
        raise UsageError(f"{INFO}: fps: expected frames per second, found {fps!r:.40}", "correct it")
    features = _features(info)
    tasks = _tasks_of_parquet(root) if major == 3 else _tasks_of_lines(root)
    read = _episodes_of_parquet if major == 3 else _episodes_of_lines
    episodes = read(root, info, [feature.key for feature in features if feature.is_video])
    indices = [episode.index for episode in episodes]
    twice = next((index for index, other in itertools.pairwise(indices) if index == other), None)
    if twice is not None:
        raise UsageError(f"meta/episodes: episode {twice} has two entries", "keep one of them")
    totals = {key: info[key] for key in ("total_episodes", "total_frames", "total_tasks") if _is_count(info.get(key))}
    return LeRobotMeta(
        version=version,
        fps=float(fps),
        robot_type=str(info.get("robot_type") or ""),
        features=features,
        tasks=tasks,
        episodes=episodes,
        totals=totals,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_text(root: Path, name: str) -> str:
    path = root / name
    try:
        if path.stat().st_size > _MOST_JSON:
            raise UsageError(f"{name}: larger than {_MOST_JSON >> 20} MB", "is it a file of metadata?")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name}: not UTF-8 text", "download it again") from None
    except OSError as error:
        raise_if_stopped(error, path)
        cure = "a LeRobot dataset (v2.0 to v3) has it: give the folder that holds meta/, data/ and videos/"
        raise UsageError(f"{root / name}: {error.strerror or error}", cure) from None


def _read_info(root: Path) -> dict[str, Any]:
    try:
        info = json.loads(_read_text(root, INFO))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{INFO}: not JSON: {error}", "download it again") from None
    if not isinstance(info, dict):
        raise UsageError(f"{INFO}: expected a JSON object, found {type(info).__name__}", "download it again")
    return info


def _features(info: dict[str, Any]) -> tuple[Feature, ...]:
    given = info.get("features")
    if not isinstance(given, dict) or not given:
        raise UsageError(f"{INFO}: features: expected a table of features, found {given!r:.40}", "download it again")
    if len(given) > _MOST_FEATURES:
        raise UsageError(f"{INFO}: features: expected at most {_MOST_FEATURES}, found {len(given)}", "leave some out")
    return tuple(_feature(key, entry) for key, entry in given.items())


def _feature(key: str, entry: Any) -> Feature:
    where = f"{INFO}: features: {key!r:.80}"
    if not is_text(key) or not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise UsageError(f"{where}: expected a table with dtype and shape, found {entry!r:.60}", "correct it")
    shape = entry.get("shape", [])
    if not isinstance(shape, list) or not all(_is_count(n) and 0 < n < 1 << 31 for n in shape):
        raise UsageError(f"{where}: shape: expected a list of whole numbers, found {shape!r:.60}", "correct it")
    if math.prod(shape) > _MOST_NUMBERS and entry["dtype"] not in ("video", "image"):
        raise UsageError(
            f"{where}: shape: expected at most {_MOST_NUMBERS:,} numbers, found {shape!r:.60}", "correct it"
        )
    about = entry.get("info") or entry.get("video_info") or {}
    depth = isinstance(about, dict) and about.get("video.is_depth_map", about.get("is_depth_map")) is True
    return Feature(
        key=key,
        dtype=entry["dtype"],
        shape=tuple(shape),
        names=_names(entry.get("names"), math.prod(shape)),
        is_depth=depth,
    )


def _names(given: Any, count: int) -> tuple[str, ...]:
    """Returns the names of a row's numbers, which LeRobot keeps as a list, or as lists in a table; else none."""
    if isinstance(given, dict):
        lists = [value for value in given.values() if isinstance(value, list)]
        given = [name for value in lists for name in value] if lists else list(given)
    if not isinstance(given, list) or len(given) != count or not all(isinstance(n, str) and is_text(n) for n in given):
        return ()
    return tuple(given)


def _fill(template: str, what: str, values: Mapping[str, int | str]) -> str:
    """Fills in a template of a path. Only names, and widths of numbers, may stand in it."""

    def value(match: re.Match[str]) -> str:
        given = values.get(match[1])
        if given is None:
            raise UsageError(f"{INFO}: {what}: {match[0]!r} is not known", f"it may use {', '.join(sorted(values))}")
        return f"{given:0{match[2]}d}" if match[2] and isinstance(given, int) else str(given)

    path = _SLOT.sub(value, template)
    if "{" in path or "}" in path:
        raise UsageError(f"{INFO}: {what}: cannot fill in {template!r:.80}", f"it may use {', '.join(sorted(values))}")
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise UsageError(f"{INFO}: {what}: expected a path within the dataset, found {path!r:.80}", "correct it")
    return path


def _template(info: dict[str, Any], key: str, default: str) -> str:
    given = info.get(key) or default
    if not isinstance(given, str):
        raise UsageError(f"{INFO}: {key}: expected a path, found {given!r:.60}", "download it again")
    return given


def _lines(root: Path, name: str) -> list[dict[str, Any]]:
    entries = []
    text = _read_text(root, name)
    num_lines = text.count("\n")
    if num_lines > _FEW and num_lines > 2 * sum(1 for _ in (root / "data").glob("*/*")):
        raise UsageError(f"{name}: {num_lines:,} lines, more than there are data files", "download the dataset whole")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}:{number}: not JSON: {error}", "download it again") from None
        if not isinstance(entry, dict):
            raise UsageError(f"{name}:{number}: expected a JSON object, found {line:.40}", "download it again")
        entries.append({**entry, _LINE: number})
    return entries


def _count(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _is_count(value):
        raise UsageError(f"{where}: {key}: expected a whole number, found {value!r:.40}", "correct it")
    return int(value)  # type: ignore[arg-type]


def _tasks_of_lines(root: Path) -> dict[int, str]:
    name = "meta/tasks.jsonl"
    found = {}
    for entry in _lines(root, name):
        where = f"{name}:{entry[_LINE]}"
        found[_count(entry, "task_index", where)] = _text(entry.get("task"), where)
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not is_text(value):
        raise UsageError(f"{where}: task: expected a text, found {value!r:.40}", "correct it")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(dict.fromkeys(_text(each, where) for each in listed))


def _episodes_of_lines(root: Path, info: dict[str, Any], videos: list[str]) -> tuple[LeRobotEpisode, ...]:
    name = "meta/episodes.jsonl"
    per_chunk = info.get("chunks_size") or 1000
    if not _is_count(per_chunk):
        raise UsageError(f"{INFO}: chunks_size: expected a whole number, found {per_chunk!r:.40}", "correct it")
    data, video = _template(info, "data_path", _DATA[2]), _template(info, "video_path", _VIDEO[2])
    episodes = []
    for entry in sorted(_lines(root, name), key=lambda one: _count(one, "episode_index", f"{name}:{one[_LINE]}")):
        where = f"{name}:{entry[_LINE]}"
        index = _count(entry, "episode_index", where)
        slots = {"episode_chunk": index // per_chunk, "episode_index": index}
        files = {key: Span(file=_fill(video, "video_path", {**slots, "video_key": key})) for key in videos}
        known = {"episode_index", "length", "tasks", _LINE}
        episodes.append(
            LeRobotEpisode(
                index=index,
                length=_count(entry, "length", where),
                tasks=_texts(entry.get("tasks"), where),
                data_file=_fill(data, "data_path", slots),
                first_row=None,
                videos=files,
                others={key: value for key, value in entry.items() if key not in known},
            )
        )
    return tuple(episodes)


def _table(root: Path, name: str, wanted: Callable[[str], bool]) -> pa.Table:
    path = root / name
    try:
        with pq.ParquetFile(path) as file:
            columns = [field.name for field in file.schema_arrow if wanted(field.name)]
            num_bytes, about = path.stat().st_size, file.metadata
            unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if about.num_rows > max(_FEW, num_bytes // 4) or unpacked > limit_bytes(num_bytes):
                raise ValueError(f"{about.num_rows:,} rows, {unpacked:,} bytes of a file of {num_bytes:,}")
            return file.read(columns=columns, use_threads=False).select(columns)
    except Exception as error:  # noqa: BLE001 - a damaged file fails in a dozen ways
        if isinstance(error, OSError):
            raise_if_stopped(error, path)
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{name}: no such file", "download the dataset's meta folder whole") from None
        raise UsageError(
            f"{name}: not a whole Parquet file: {str(error).splitlines()[0]:.120}", "download it again"
        ) from None


def _tasks_of_parquet(root: Path) -> dict[int, str]:
    name = "meta/tasks.parquet"
    table = _table(root, name, lambda _: True)
    texts = [each for each in table.schema if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)]
    if "task_index" not in table.column_names or not texts:
        raise UsageError(f"{name}: expected task_index and a column of texts, found {table.column_names}", "correct it")
    column = "task" if "task" in table.column_names else texts[0].name
    indices, tasks = table["task_index"].to_pylist(), table[column].to_pylist()
    rows = enumerate(zip(indices, tasks, strict=True))
    return {
        _count({"task_index": i}, "task_index", f"{name}: row {n}"): _text(t, f"{name}: row {n}") for n, (i, t) in rows
    }


def _is_kept(column: str) -> bool:
    return not column.startswith("stats/")


def _episodes_of_parquet(root: Path, info: dict[str, Any], videos: list[str]) -> tuple[LeRobotEpisode, ...]:
    folder = root / "meta/episodes"
    names = sorted(path.relative_to(root).as_posix() for path in folder.glob("*/*.parquet"))
    if not names:
        raise UsageError(f"{folder}: no Parquet file", "download the dataset's meta folder whole")
    data, video = _template(info, "data_path", _DATA[3]), _template(info, "video_path", _VIDEO[3])
    episodes = []
    for name in names:
        for number, entry in enumerate(_table(root, name, _is_kept).to_pylist()):
            episodes.append(_episode(entry, f"{name}: row {number}", data, video, videos))
    return tuple(sorted(episodes, key=lambda episode: episode.index))


def _episode(entry: dict[str, Any], where: str, data: str, video: str, videos: list[str]) -> LeRobotEpisode:
    def file(template: str, what: str, start: str, **more: str) -> str:
        slots = {key: _count(entry, f"{start}/{key}", where) for key in ("chunk_index", "file_index")}
        return _fill(template, what, {**slots, **more})

    known = {"episode_index", "length", "tasks"}
    first, stop = _count(entry, "dataset_from_index", where), _count(entry, "dataset_to_index", where)
    length = _count(entry, "length", where) if "length" in entry else stop - first
    if stop - first != length:
        expected = f"dataset_from_index and dataset_to_index {length} rows apart, as length says"
        raise UsageError(f"{where}: expected {expected}, found {first} and {stop}", "correct it")
    found = {}
    for key in videos:
        start = f"videos/{key}"
        if entry.get(f"{start}/file_index") is None:
            continue  # this episode has no such video
        seconds: tuple[Any, ...] = tuple(entry.get(f"{start}/{end}_timestamp") for end in ("from", "to"))
        if not all(isinstance(each, int | float) and abs(each) < _LATEST_S for each in seconds):
            raise UsageError(
                f"{where}: {start}: expected from_timestamp and to_timestamp, found {seconds}", "correct it"
            )
        path = file(video, "video_path", start, video_key=key)
        found[key] = Span(file=path, seconds=(float(seconds[0]), float(seconds[1])))
    return LeRobotEpisode(
        index=_count(entry, "episode_index", where),
        length=length,
        tasks=_texts(entry.get("tasks"), where),
        data_file=file(data, "data_path", "data"),
        first_row=first,
        videos=found,
        others={k: v for k, v in entry.items() if k not in known and not k.startswith(_BOOKKEEPING) and v is not None},
    )
