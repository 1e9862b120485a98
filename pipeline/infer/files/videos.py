"""Guesses the cameras of an episode that were recorded as videos, from their paths and their numbers of frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.evidence import Evidence
from vlapipe.pipeline.infer.files.cameras import Beside, clock_answer
from vlapipe.pipeline.infer.files.layout import escape, pattern_of
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.read.video.open_video import DEEP_GRAY, open_video
from vlapipe.schemas.schema import TimeSpec

__all__ = ["STAMPS", "guess_videos"]

STAMPS = {".json", ".csv", ".txt", ".npy"}


def guess_videos(
    episodes: list[list[str]], stamps: Sequence[str], beside: Beside, places: Mapping[str, Path], choices: Choices
) -> tuple[list[StreamGuess], list[str]]:
    """Guess the video streams of a dataset. Returns them, and what is not read with the reason.

    Args:
        episodes: for each episode looked at, the paths of its videos relative to the episode's folder.
        stamps: the paths of other files of the first of these episodes, which may hold the frames' stamps.
        beside: the other data of the episode.
        places: where the first episode's videos lie, by these paths.
        choices: takes the choices of clocks.
    """
    opened = _Opened(places)
    by_folder: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for paths in episodes:
        here: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path in paths:
            here[str(PurePosixPath(path).parent), PurePosixPath(path).suffix].append(path)
        for key, paths_here in here.items():
            by_folder[key].append(sorted(paths_here))
    streams, not_read = [], []
    for (folder, suffix), found in sorted(by_folder.items()):
        inside = "" if folder == "." else f"{escape(folder)}/"
        stems = [[PurePosixPath(path).stem for path in paths] for paths in found]
        first = found[0][0]
        if all(len(paths) == 1 for paths in found):  # one video an episode, called in any way
            name = identifier(stems[0][0] if len({s[0] for s in stems}) == 1 else PurePosixPath(folder).name, "video")
            files = pattern_of([path for paths in found for path in paths], [])
            streams.append(_video(name, files, first, stamps, beside, opened, choices))
        elif all(each == stems[0] for each in stems) and any(map(opened.is_depth, found[0])):
            # A unit is said of a stream, so depth cannot be one camera of several in a stream.
            named = [(identifier(stem, "video"), path) for path, stem in zip(found[0], stems[0], strict=True)]
            streams += [_video(name, (escape(path),), path, stamps, beside, opened, choices) for name, path in named]
        elif any(set(one) & set(other) for one in stems for other in stems if one is not other) or len(stems) == 1:
            files = (f"{inside}{{camera}}{suffix}",)
            stream = _video("camera", files, first, stamps, beside, opened, choices)
            said = f"each video is a camera: {', '.join(sorted({stem for each in stems for stem in each})[:8])}"
            streams.append(replace(stream, reasons=(said,)))
        else:
            not_read.append(
                f"{inside}*{suffix}: {len(found[0])} videos an episode, such as {PurePosixPath(first).name}, with other"
                f" names in each: name a camera in a stream of kind = 'video'"
            )
    return streams, not_read


def _video(
    name: str,
    files: tuple[str, ...],
    first: str,
    stamps: Sequence[str],
    beside: Beside,
    opened: _Opened,
    choices: Choices,
) -> StreamGuess:
    """Describe one stream of videos by its ``first`` one, beside which its stamps may lie."""
    stem = PurePosixPath(first).stem
    answers = [*_stamps_beside(files, stem, stamps, beside, opened.count(first)), *_rows(beside, opened.count(first))]
    own = f"the video's own times, taken to start with {beside.name}; or say file, a file with a stamp a frame"
    line = f'starts_with = "{beside.name}"'
    answers.append(
        clock_answer(TimeSpec(starts_with=beside.name), Evidence("own_times", 1.0, own), "its own times", line)
    )
    taken = choices.pick(f"{name}: clock", answers)
    numbers = _frame_numbers(beside, opened.count(first)) if taken.value.starts_with else None
    if numbers is not None:
        what = f"the times of the rows where {numbers} begins each frame"
        choices.ask(f"{name}: clock", taken.says, taken.line, what, 'file = "...", a stamp a frame')
    unit = "mm" if opened.is_depth(first) else None
    return StreamGuess(name=name, kind="video", files=files, time=taken.value, time_reasons=taken.reasons, unit=unit)


def _stamps_beside(
    files: tuple[str, ...], stem: str, stamps: Sequence[str], beside: Beside, count: int | None
) -> Iterator[Option[TimeSpec]]:
    """Yield the clocks of files beside a video: one called after it, or one with a stamp for each frame."""
    for table in beside.tables:
        called = PurePosixPath(table.pattern).name.startswith(stem)
        if table.alone and (called or table.num_rows == count):
            time = replace(table.time, file=_of_each(table.pattern, stem, files))
            said = f"{table.pattern} has the times of its frames"
            seen = Evidence("named_by_table" if called else "stamp_an_image", 1.0, said)
            yield clock_answer(time, seen, f"the stamps in {table.pattern}", f'file = "{time.file}"')
            if called:
                return
    near = [path for path in stamps if PurePosixPath(path).name.startswith(f"{stem}_") and _is_of_stamps(path)]
    for path in near if len(near) == 1 else ():
        unit = beside.clock.time.unit
        said = f"{path} has the times of its frames, as its name says; its unit is that of {beside.name}"
        time = TimeSpec(file=_of_each(path, stem, files), unit=unit, integer=unit in ("us", "ns"))
        yield clock_answer(
            time, Evidence("stamp_an_image", 1.0, said), f"the stamps in {path}", f'file = "{time.file}"'
        )


def _rows(beside: Beside, count: int | None) -> Iterator[Option[TimeSpec]]:
    """Yield that frame i belongs to row i if a video has as many frames as there are rows, or one fewer.

    A video that is written from single images plays at any rate, so its own times then say less than the count.
    """
    if count is not None and beside.num_rows - count in (0, 1):
        few = "as many frames as" if count == beside.num_rows else "one frame fewer than"
        seen = Evidence("image_a_row", 1.0, f"{few} {beside.name} has rows: frame i belongs to row i")
        yield clock_answer(TimeSpec(rows_of=beside.name), seen, "one a row", f'rows_of = "{beside.name}"')


def _frame_numbers(beside: Beside, count: int | None) -> str | None:
    """Return the column of a table that has the numbers of a video's frames, several rows a frame."""
    for table in beside.tables:
        for column in table.columns if not table.alone else ():
            if column.whole and column.rises and lexicon().likeness(column.base, "roles", "counter") >= 0.8:
                frames = column.finite[-1] - column.finite[0] + 1
                if count is not None and frames == count < len(column.cells) == table.num_rows:
                    return f"{column.name!r} of {table.pattern}"
    return None


def _of_each(clock: str, stem: str, files: tuple[str, ...]) -> str:
    """Returns the path of the stamps of any camera of a stream, from the path of those of the first."""
    return clock.replace(stem, "{camera}") if "{camera}" in files[0] else clock


class _Opened:
    """The first episode's videos by their paths, each opened once at most. What is wrong with one, a trial tells."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places
        self._told: dict[str, tuple[int | None, bool]] = {}

    def count(self, path: str) -> int | None:
        """Returns the number of frames; ``None`` if the video cannot be opened."""
        return self._tell(path)[0]

    def is_depth(self, path: str) -> bool:
        """Returns whether a video holds one channel of more than 8 bits."""
        return self._tell(path)[1]

    def _tell(self, path: str) -> tuple[int | None, bool]:
        if path not in self._told:
            self._told[path] = None, False
            with suppress(OSError, ValueError, KeyError), open_video(self._places[path]) as opened:
                count = opened.num_declared or sum(1 for packet in opened.container.demux(opened.stream) if packet.size)
                self._told[path] = count, bool(DEEP_GRAY.match(str(opened.stream.codec_context.pix_fmt)))
        return self._told[path]


def _is_of_stamps(path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in STAMPS and any(word in name.stem.lower() for word in ("time", "stamp"))
