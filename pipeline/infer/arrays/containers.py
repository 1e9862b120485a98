"""Guesses a schema for HDF5, Zarr and Parquet files, from the names, shapes and first values of their arrays."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import FileTree
from vlapipe.pipeline.infer.arrays.arrays import clock_of_values
from vlapipe.pipeline.infer.arrays.container_fields import Array, arrays_of, plain_name, sort_arrays
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess, looks_like_time
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.files.beside_files import cameras_beside, has_files_beside, pattern_of_anchor, videos_beside
from vlapipe.pipeline.infer.files.cameras import Beside
from vlapipe.pipeline.infer.files.layout import Bucket, Layout
from vlapipe.pipeline.infer.files.unread import unread_files
from vlapipe.pipeline.infer.guess import FieldGuess, SchemaGuess, StreamGuess
from vlapipe.pipeline.infer.roles.sample import choose_sample
from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.pipeline.read.containers.container import attributes_of, kind_of, open_container
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayKind, EpisodeLayout, InstructionSpec, TimeSpec

__all__ = ["guess_containers"]

_ANCHOR = "robot"
_KINDS: tuple[ArrayKind, ...] = ("hdf5", "zarr", "parquet")
_LOOKED_AT = 3
_MAX_LISTED = 12
_EPISODE = re.compile(
    r"(demo|demonstration|episode|ep|traj|trajectory|rollout|run|sample|seq|sequence)[_-]?\d+|\d+", re.I
)
_ENDS = re.compile(r"episode_?ends?|ends?", re.I)
_CUTS = re.compile(r"episode(_?(index|id|idx))?", re.I)
_RATES = ("control_freq", "control_frequency", "fps", "rate_hz", "hz", "frequency", "sampling_rate", "sample_rate")
_INSTRUCTIONS = (
    *("language_instruction", "instruction", "language_raw", "language", "lang", "task_description", "task_desc"),
    *("prompt", "task"),
)
_FASTEST_HZ = 100_000
_OF_TASKS = re.compile(r"language|instruction|task(_description)?|prompt|annotation", re.I)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """How the episodes lie in a container, and the reason for the guess."""

    layout: EpisodeLayout
    base: str | None  # the first episode's group
    stop: int | None  # the first episode's number of rows, if the container holds several end to end
    reason: str

    @property
    def are_several(self) -> bool:
        """Returns whether a container may hold several episodes."""
        return bool(self.layout.ends or self.layout.group or self.layout.split_column)


def guess_containers(tree: FileTree, choices: Choices) -> SchemaGuess | None:
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
        attributes = dict(_flat(attributes_of(opened.arrays, parts.base or "")))
    layout = _layout(tree, files, parts)
    if not parts.are_several:
        pattern = pattern_of_anchor(layout)[0] if pattern != f"*{_suffix(files[0])}" or layout.up else pattern
    with open_container(tree.root, samples[:1], findings, kind=kind, base=parts.base) as opened:
        if opened is None:
            return None
        arrays = [each for each in arrays_of(opened) if not (parts.base and each.name.startswith("/"))]
        for sample in samples[1:]:
            with open_container(tree.root, [sample], findings, kind=kind, base=parts.base) as other:
                arrays = [each for each in arrays if other is None or not other.arrays or each.name in other.arrays]
        guess = _guess(layout, kind, pattern, parts, arrays, opened, attributes, choices)
    if guess is None:
        return None
    unread = unread_files(
        tree, guess.streams, counted=[line for line in guess.not_read if " videos an episode" in line]
    )
    return replace(guess, not_read=(*guess.not_read, *beside, *(line for line in unread if line not in beside)))


def _layout(tree: FileTree, files: Sequence[str], parts: _Parts) -> Layout:
    """Tell how the files lie: each in a folder of its own, which is then the episode, or several in one folder.

    In a folder with other files of an episode the folder above may hold them: ``data/run_1.h5``, ``video/run_1.mp4``.
    """
    folders = [file.split("/")[:-1] for file in files]
    layout = Layout(tree=tree, anchor=Bucket(files=tuple(files), looks=()), others=(), per_file=True, up=0, reasons=())
    if not parts.are_several and len(files) > 1 and len({tuple(folder) for folder in folders}) == len(files):
        up = 0
        while len({tuple(folder[: -up - 1]) for folder in folders}) == len(files) and min(map(len, folders)) > up + 1:
            up += 1
        return replace(layout, per_file=False, up=up)
    for up in range(min(map(len, folders)) + 1) if len(files) > 1 else ():
        raised = replace(layout, up=up)
        if any(has_files_beside(raised, files[i]) for i in (0, -1)):
            return raised
    return layout


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


def _parts(opened: ArrayFiles, kind: ArrayKind, num_files: int) -> _Parts:
    arrays = arrays_of(opened)
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
    cut = next((a.name for a in arrays if kind == "parquet" and _CUTS.fullmatch(a.name) and a.kind in "iuO"), None)
    if cut is not None:
        layout = EpisodeLayout(per_file=True, split_column=cut, metadata=None, task="{parent}")
        reason = f"an episode is the rows with one value of {cut!r}"
        return _Parts(layout=layout, base=None, stop=_first_part(opened, cut), reason=reason)
    layout = EpisodeLayout(per_file=True, metadata=None, task="{parent}")
    reason = f"{num_files} such file{'' if num_files == 1 else 's'}: each is taken for an episode"
    return _Parts(layout=layout, base=None, stop=None, reason=reason)


def _first_part(opened: ArrayFiles, name: str) -> int | None:
    """Count the rows that begin the container with one value of ``split_column``."""
    values = opened.load(name, Findings(), kinds="iuSUO")
    if values is None or not len(values):
        return None
    other = np.flatnonzero(values != values[0])
    return int(other[0]) if len(other) else len(values)


def _ends(opened: ArrayFiles, arrays: Sequence[Array]) -> tuple[str, int] | None:
    """Find the array that says where episodes end: rising whole numbers, the last of which counts all rows."""
    lengths = {each.shape[0] for each in arrays}
    for each in arrays:
        if len(each.shape) != 1 or each.kind not in "iu" or not _ENDS.fullmatch(each.last):
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
    layout: Layout,
    kind: ArrayKind,
    pattern: str,
    parts: _Parts,
    arrays: Sequence[Array],
    opened: ArrayFiles,
    attributes: Mapping[str, Any],
    choices: Choices,
) -> SchemaGuess | None:
    tree, files = layout.tree, layout.anchor.files
    arrays = [each for each in arrays if each.name not in (parts.layout.ends, parts.layout.split_column, *attributes)]
    lengths = Counter(each.shape[0] for each in arrays if each.kind in "iufb" and each.shape[0] > 1)
    if not lengths:
        return None
    most = max(lengths, key=lambda length: (lengths[length], length))
    rows = parts.stop or most
    clock = _clock(opened, [each for each in arrays if each.shape[0] == most], rows, attributes)
    left = [each for each in arrays if each.name not in clock.columns]
    contents = sort_arrays(opened, left, most, pattern, _ANCHOR, {_ANCHOR, "timestamp"})
    if not contents.fields:
        return None
    stream = StreamGuess(
        name=_ANCHOR,
        kind=kind,
        files=(pattern,),
        time=clock.time,
        time_reasons=clock.reasons,
        rate_hz=clock.rate_hz,
        fields=tuple(contents.fields),
        assumed=clock.assumed,
    )
    streams = [stream, *([_between(stream, tuple(contents.between))] if contents.between else [])]
    cameras, not_read = contents.cameras, contents.not_read
    if not cameras and not parts.are_several:
        cameras, unnamed = _cameras_of_files(layout, clock, rows)
        not_read = [*not_read, *unnamed]
    action, reasons, sample = choose_sample([*streams, *cameras], clock, rows, choices)
    listed = not_read[:_MAX_LISTED]
    episodes, reason = parts.layout, parts.reason
    if not layout.per_file:
        episodes = replace(episodes, per_file=False)
        reason = f"{len(files)} folders with one such file: each is taken for an episode"
    return SchemaGuess(
        name=plain_name(tree.root.name, "recordings"),
        description=f"{tree.root.name}: {files[0]}",
        episodes=episodes,
        episode_reasons=(reason,),
        instruction=_instruction(stream, attributes),
        streams=(*streams, *cameras),
        action=action,
        action_reasons=tuple(reasons),
        sample=sample,
        not_read=(*listed, *([f"{len(not_read) - len(listed)} more arrays"] if len(not_read) > len(listed) else ())),
    )


def _cameras_of_files(layout: Layout, clock: ClockGuess, rows: int) -> tuple[list[StreamGuess], list[str]]:
    """Guess the cameras whose images or videos lie beside the containers. Returns what is not read too."""
    files = layout.anchor.files
    chosen = [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})][:_LOOKED_AT]
    beside = Beside(name=_ANCHOR, clock=clock, num_rows=rows)
    by_stem = layout.per_file and len(files) > 1
    cameras = cameras_beside(layout, chosen, beside, by_stem=by_stem)
    videos, not_read = videos_beside(layout, chosen, beside, by_stem=by_stem)
    return [*cameras, *videos], not_read


def _instruction(anchor: StreamGuess, attributes: Mapping[str, Any]) -> InstructionSpec:
    """Find the text that says what the robot was told to do: an attribute, or a text in each row."""
    texts = [name for name, value in attributes.items() if isinstance(value, str) and value]
    wanted = [name for key in _INSTRUCTIONS for name in texts if name.rpartition(".")[2] == key]
    rows = [array.name for array in anchor.fields if not array.numeric and _OF_TASKS.search(array.name)]
    column = f"{anchor.name}/{rows[0]}" if rows and not wanted else None
    return InstructionSpec(metadata_key=wanted[0] if wanted else None, file=None, column=column)


def _flat(attributes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the attributes, those in nested tables as ``a.b``."""
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _clock(opened: ArrayFiles, arrays: Sequence[Array], rows: int, attributes: Mapping[str, Any]) -> ClockGuess:
    """Guess the clock: the array whose name says so and whose values rise in the first episode, or a stated rate."""
    flat = [each for each in arrays if len(each.shape) == 1 and each.kind in "iuf"]
    flat = [each for each in flat if each.dtype is not None and each.dtype.itemsize >= 8]
    named = [(rank, each) for each in flat if (rank := looks_like_time(_column(each.last))) is not None]
    for _, each in sorted(named, key=lambda item: item[0]):
        values = opened.load(each.name, Findings())
        stamps: NDArray[Any] | None = None if values is None else values[:rows].reshape(-1)
        if stamps is not None and np.all(np.diff(stamps) >= 0) and stamps[-1] > stamps[0]:
            return clock_of_values(each.name, stamps)
    for key in _RATES:
        for name, value in attributes.items():
            is_rate = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _FASTEST_HZ
            if is_rate and name.rpartition(".")[2].lower() == key:
                said = (f"no array is a clock; the attribute {name} says {value:g} rows a second",)
                return ClockGuess(time=TimeSpec(index_rate_hz=float(value)), rate_hz=float(value), reasons=said)
    return clock_of_values(None, None)


def _column(name: str) -> Column:
    return Column(name=name, position=0, kind="number", cells=(), unit="", base=name, decimal=".")


def _between(anchor: StreamGuess, arrays: tuple[FieldGuess, ...]) -> StreamGuess:
    return StreamGuess(
        name="between",
        kind=anchor.kind,
        files=anchor.files,
        time=TimeSpec(rows_of=_ANCHOR),
        reasons=("one row fewer: they lie between two rows of robot, and belong to the first of them",),
        fields=arrays,
    )
