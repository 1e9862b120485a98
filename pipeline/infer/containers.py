"""Guesses a schema for HDF5, Zarr and Parquet files, from the names, shapes and first values of their arrays."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import FileTree
from vlapipe.pipeline.infer.actions import guess_sample, look_ahead
from vlapipe.pipeline.infer.arrays import clock_of_values, dtype_to_keep
from vlapipe.pipeline.infer.clock import ClockGuess, looks_like_time
from vlapipe.pipeline.infer.columns import Column
from vlapipe.pipeline.infer.groups import identifier
from vlapipe.pipeline.infer.guess import ArrayGuess, SchemaGuess, StreamGuess
from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.pipeline.read.containers.container import kind_of, open_container
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ActionSpec, ArrayKind, EpisodeLayout, InstructionSpec, TimeSpec

__all__ = ["guess_containers"]

_ANCHOR = "robot"
_KINDS: tuple[ArrayKind, ...] = ("hdf5", "zarr", "parquet")
_LOOKED_AT = 3
_WIDEST_STATE = 64  # numbers a row
_WIDEST_FIELD = 4096
_MAX_LISTED = 12
_LEAST_SIDE = 16  # of an image, in pixels
_EPISODE = re.compile(
    r"(demo|demonstration|episode|ep|traj|trajectory|rollout|run|sample|seq|sequence)[_-]?\d+|\d+", re.I
)
_ENDS = re.compile(r"episode_?ends?|ends?", re.I)
_CUTS = re.compile(r"episode(_?(index|id|idx))?", re.I)
_COMMANDS = re.compile(r"action|command|cmd|ctrl|control|target", re.I)
_REACHED = re.compile(r"pos|joint|q$|angle|eef|ee_|tcp|gripper|quat|orient|rot", re.I)
_OF_RATES = re.compile(r"vel|effort|torque|force|acc|current", re.I)
_NO_STATE = re.compile(
    r"(^|/)next_|reward|done|terminal|truncat|success|discount|is_(first|last)|index|(^|_)idx|mask|pad", re.I
)
_OF_CODE = (b"\xff\xd8\xff", b"\x89PNG")


@dataclass(frozen=True)
class _Array:
    """An array of one episode: its name in the container, the shape of all its rows, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def last(self) -> str:
        return self.name.rstrip("/").rpartition("/")[2]

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def is_picture(self) -> bool:
        """True if each row is an image of pixels; a picture without colours counts only if it measures depth."""
        if len(self.shape) == 4 and self.shape[3] == 3 and (self.dtype == np.uint8 or self.dtype.kind == "f"):
            return min(self.shape[1:3]) >= _LEAST_SIDE
        flat = self.shape[:3] if len(self.shape) == 4 and self.shape[3] == 1 else self.shape
        return len(flat) == 3 and min(flat[1:]) >= _LEAST_SIDE and self.is_depth

    @property
    def is_depth(self) -> bool:
        return "depth" in self.last.lower() and (self.dtype == np.uint16 or self.dtype.kind == "f")


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """How the episodes lie in a container, and the reason for the guess."""

    layout: EpisodeLayout
    base: str | None  # the first episode's group
    stop: int | None  # the first episode's number of rows, if the container holds several end to end
    reason: str


def guess_containers(tree: FileTree) -> SchemaGuess | None:
    """Guess a schema for the containers of a dataset. Returns ``None`` if there are none with a row a frame."""
    chosen = _files(tree)
    if chosen is None:
        return None
    kind, pattern, files, beside = chosen
    findings = Findings()
    samples = [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})][:_LOOKED_AT]
    with open_container(tree.root, samples[:1], findings, kind=kind) as opened:
        if opened is None:
            return None
        parts = _parts(opened, kind, len(files))
    with open_container(tree.root, samples[:1], findings, kind=kind, base=parts.base) as opened:
        if opened is None:
            return None
        arrays = [each for each in _arrays(opened) if not each.name.startswith("/")] if parts.base else _arrays(opened)
        for sample in samples[1:]:
            with open_container(tree.root, [sample], findings, kind=kind, base=parts.base) as other:
                arrays = [each for each in arrays if other is None or not other.arrays or each.name in other.arrays]
        guess = _guess(tree, kind, pattern, files, parts, arrays, opened)
    return None if guess is None else replace(guess, not_read=(*guess.not_read, *beside))


def _files(tree: FileTree) -> tuple[ArrayKind, str, list[str], list[str]] | None:
    """Choose the containers that hold most bytes. Files of other names are told."""
    named: dict[tuple[ArrayKind, str], list[str]] = defaultdict(list)
    for path in tree.files:
        kind = kind_of(path)
        if kind in _KINDS:
            name, suffix = PurePosixPath(path).name, _suffix(path)
            named[kind, re.sub(r"\d+", "*", name.removesuffix(suffix)) + suffix].append(path)
    if not named:
        return None
    sizes = {key: sum(tree.files[path].num_bytes for path in paths) for key, paths in named.items()}
    key = max(named, key=lambda each: sizes[each])
    kind, name = key
    alike = [other for other in named if other[0] == kind and _suffix(other[1]) == _suffix(name)]
    folders = Counter(str(PurePosixPath(path).parent) for other in alike for path in named[other])
    if len(alike) > 1 and max(folders.values()) == sum(folders.values()):
        # Files of many names in one folder are episodes that somebody has named.
        files = sorted(path for other in alike for path in named[other])
        return kind, f"*{_suffix(name)}", files, []
    others = [f"{named[other][0]}: not the kind of file that holds most" for other in named if other != key]
    return kind, name, sorted(named[key]), others[:_MAX_LISTED]


def _suffix(name: str) -> str:
    return ".zarr.zip" if name.lower().endswith(".zarr.zip") else PurePosixPath(name).suffix


def _arrays(opened: ArrayFiles) -> list[_Array]:
    """List the arrays of numbers that have rows."""
    found = []
    for name, entry in opened.arrays.items():
        if entry.shape and entry.dtype is not None:
            found.append(_Array(name, entry.shape, entry.dtype))
    return found


def _parts(opened: ArrayFiles, kind: ArrayKind, num_files: int) -> _Parts:
    arrays = _arrays(opened)
    ends = _ends(opened, arrays)
    if ends is not None:
        name, first = ends
        layout = EpisodeLayout(per_file=True, ends=name, metadata=None, task="{parent}")
        return _Parts(layout=layout, base=None, stop=first, reason=f"{name!r} has the row past each episode's end")
    group = _group([each.name for each in arrays])
    if group is not None:
        pattern, first_group, count = group
        layout = EpisodeLayout(per_file=True, group=pattern, metadata=None, task="{parent}")
        reason = f"{count} groups like {first_group!r} with the same arrays: each is taken for an episode"
        return _Parts(layout=layout, base=first_group, stop=None, reason=reason)
    cut = next((a.name for a in arrays if kind == "parquet" and _CUTS.fullmatch(a.name) and a.dtype.kind in "iu"), None)
    if cut is not None:
        layout = EpisodeLayout(per_file=True, split_column=cut, metadata=None, task="{parent}")
        return _Parts(layout=layout, base=None, stop=None, reason=f"an episode is the rows with one value of {cut!r}")
    layout = EpisodeLayout(per_file=True, metadata=None, task="{parent}")
    reason = f"{num_files} such file{'' if num_files == 1 else 's'}: each is taken for an episode"
    return _Parts(layout=layout, base=None, stop=None, reason=reason)


def _ends(opened: ArrayFiles, arrays: Sequence[_Array]) -> tuple[str, int] | None:
    """Find the array that says where episodes end: rising whole numbers, the last of which counts all rows."""
    lengths = {each.shape[0] for each in arrays}
    for each in arrays:
        if len(each.shape) != 1 or each.dtype.kind not in "iu" or not _ENDS.fullmatch(each.last):
            continue
        values = opened.load(each.name, Findings())
        if values is not None and len(values) and np.all(np.diff(values) > 0) and int(values[-1]) in lengths:
            return each.name, int(values[0])
    return None


def _group(names: Iterable[str]) -> tuple[str, str, int] | None:
    """Find groups that are episodes. Returns their pattern, the first one, and how many there are."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts)):
            if _EPISODE.fullmatch(parts[depth - 1]):
                below["/".join(parts[:depth])].add("/".join(parts[depth:]))
                break
    by_pattern: dict[str, list[str]] = defaultdict(list)
    for group in below:
        head, _, last = group.rpartition("/")
        by_pattern[f"{head}/" * bool(head) + re.sub(r"\d+", "*", last)].append(group)
    for pattern, groups in by_pattern.items():
        groups.sort(key=lambda group: [int(n) for n in re.findall(r"\d+", group)])
        if all(below[group] & below[groups[0]] for group in groups):
            return pattern, groups[0], len(groups)
    return None


def _guess(
    tree: FileTree,
    kind: ArrayKind,
    pattern: str,
    files: Sequence[str],
    parts: _Parts,
    arrays: Sequence[_Array],
    opened: ArrayFiles,
) -> SchemaGuess | None:
    arrays = [each for each in arrays if each.name not in (parts.layout.ends, parts.layout.split_column)]
    numbers = [each for each in arrays if each.dtype.kind in "iufb"]
    lengths = Counter(each.shape[0] for each in numbers if each.shape[0] > 1)
    if not lengths:
        return None
    most = max(lengths, key=lambda length: (lengths[length], length))
    rows = parts.stop or most
    not_read = []
    clock = _clock(opened, [each for each in numbers if each.shape[0] == most], rows)
    anchor: list[ArrayGuess] = []
    late: list[ArrayGuess] = []  # arrays with one row fewer: actions lie between observations
    cameras: list[StreamGuess] = []
    state: list[str] = []
    taken = {_ANCHOR, "timestamp"}
    for each in arrays:
        if each.name in clock.columns:
            continue
        coded = _is_coded(opened, each) if each.shape[0] == most and len(each.shape) <= 2 else False
        if each.shape[0] == most and (each.is_picture or coded):
            cameras.append(_camera(pattern, each, _new(each, taken, numbers), coded=coded))
            continue
        why = _why_not(each, most)
        if why is not None:
            not_read.append(f"{each.name} {each.shape} {each.dtype}: {why}")
            continue
        field = _new(each, taken, numbers)
        array = ArrayGuess(name=field, array=each.name, shape=each.shape[1:], dtype=dtype_to_keep(each.dtype))
        (anchor if each.shape[0] == most else late).append(array)
        is_state = each.shape[0] == most and len(each.shape) <= 2 and each.width <= _WIDEST_STATE
        if is_state and not _NO_STATE.search(each.name) and not _COMMANDS.search(each.last):
            state.append(f"{_ANCHOR}/{field}")
    if not anchor:
        return None
    stream = StreamGuess(
        name=_ANCHOR,
        kind=kind,
        files=(pattern,),
        time=clock.time,
        time_reasons=clock.reasons,
        rate_hz=clock.rate_hz,
        arrays=tuple(anchor),
        assumed=clock.assumed,
    )
    streams = [stream]
    if late:
        streams.append(_between(stream, tuple(late)))
    action, reasons = _action(streams, state, clock, rows)
    sample = guess_sample(streams[:1], clock, action)
    commanded = action.of if action.kind == "column" else ()
    wanted = tuple(path for path in state if path not in commanded) or sample.state[:1]
    listed = not_read[:_MAX_LISTED]
    return SchemaGuess(
        name=identifier(tree.root.name, "recordings"),
        description=f"{tree.root.name}: {files[0]}",
        episodes=parts.layout,
        episode_reasons=(parts.reason,),
        instruction=InstructionSpec(metadata_key=None, file=None),
        streams=(*streams, *cameras),
        action=action,
        action_reasons=tuple(reasons),
        sample=replace(sample, state=wanted),
        not_read=(*listed, *([f"{len(not_read) - len(listed)} more arrays"] if len(not_read) > len(listed) else ())),
    )


def _why_not(each: _Array, most: int) -> str | None:
    """Say why an array cannot be a field; ``None`` if it can."""
    if each.dtype.kind not in "iufb":
        return "no numbers"
    if each.shape[0] not in (most, most - 1):
        return f"not {most} rows"
    if each.width > _WIDEST_FIELD:
        return f"{each.width} numbers a row"
    return None


def _new(each: _Array, taken: set[str], others: Sequence[_Array]) -> str:
    """Return a name that no other stream or field has: the last part of the array's name if that is enough."""
    alone = sum(other.last == each.last for other in others) == 1
    name = identifier(each.last if alone else each.name.strip("/"))
    while name in taken:
        name += "_value"
    taken.add(name)
    return name


def _camera(pattern: str, each: _Array, name: str, *, coded: bool) -> StreamGuess:
    what = "encoded images" if coded else f"images of {each.shape[2]}x{each.shape[1]}"
    return StreamGuess(
        name=name,
        kind="images",
        files=(pattern,),
        time=TimeSpec(rows_of=_ANCHOR),
        reasons=(f"{each.name}: {what}, one a row",),
        array=each.name,
        unit="mm" if each.is_depth and not coded else None,
        file_unit="m" if each.is_depth and not coded and each.dtype.kind == "f" else None,
    )


def _is_coded(opened: ArrayFiles, each: _Array) -> bool:
    """Return whether each row is the bytes of an image file."""
    if not (each.dtype.kind in "OSV" or (each.dtype == np.uint8 and each.width > _WIDEST_STATE)):
        return False
    entry = opened.arrays[each.name]
    try:
        first = entry.load(slice(0, 1))[0]
        start = bytes(first[:4]) if isinstance(first, bytes) else np.asarray(first, dtype=np.uint8)[:4].tobytes()
    except Exception:  # noqa: BLE001 - what a damaged file makes of it: then it is told as an array that is not read
        return False
    return start.startswith(_OF_CODE)


def _clock(opened: ArrayFiles, arrays: Sequence[_Array], rows: int) -> ClockGuess:
    """Guess the clock: the array whose name says so and whose values rise within the first episode."""
    flat = [each for each in arrays if each.width == 1 and each.dtype.kind in "iuf" and each.dtype.itemsize >= 8]
    named = [(rank, each) for each in flat if (rank := looks_like_time(_column(each.last))) is not None]
    for _, each in sorted(named, key=lambda item: item[0]):
        values = opened.load(each.name, Findings())
        stamps: NDArray[Any] | None = None if values is None else values[:rows].reshape(-1)
        if stamps is not None and np.all(np.diff(stamps) >= 0) and stamps[-1] > stamps[0] and len(each.shape) == 1:
            return clock_of_values(each.name, stamps)
    return clock_of_values(None, None)


def _column(name: str) -> Column:
    return Column(name=name, position=0, kind="number", cells=(), unit="", base=name, decimal=".")


def _between(anchor: StreamGuess, arrays: tuple[ArrayGuess, ...]) -> StreamGuess:
    return StreamGuess(
        name="between",
        kind=anchor.kind,
        files=anchor.files,
        time=TimeSpec(rows_of=_ANCHOR),
        reasons=("one row fewer: they lie between two rows of robot, and belong to the first of them",),
        arrays=arrays,
    )


def _action(
    streams: Sequence[StreamGuess], state: Sequence[str], clock: ClockGuess, rows: int
) -> tuple[ActionSpec, list[str]]:
    """Choose the array called action, else one that was commanded, else where the robot is a little later."""
    arrays = [(stream.name, array) for stream in streams for array in stream.arrays]
    arrays = [(name, array) for name, array in arrays if not _NO_STATE.search(array.name)]
    last = {array.array: array.array.rpartition("/")[2].lower() for _, array in arrays}
    exact = [(name, array) for name, array in arrays if last[array.array] in ("action", "actions")]
    alike = [(name, array) for name, array in arrays if _COMMANDS.search(last[array.array]) and len(array.shape) <= 1]
    for found, why in ((exact, "by its name"), (alike, "by its name what was commanded")):
        if found:
            name, array = found[0]
            others = ", ".join(other.array for _, other in found[1:])
            said = [why] + ([f"{others} would do as well"] if others else [])
            return ActionSpec(kind="column", of=(f"{name}/{array.name}",)), said
    reached = [path for path in state if _REACHED.search(path) and not _OF_RATES.search(path)]
    why = "where the robot is, by their names" if reached else "the whole state: no name tells where the robot is"
    return look_ahead(tuple(reached or state) or (f"{_ANCHOR}/{streams[0].arrays[0].name}",), clock, rows, why)
