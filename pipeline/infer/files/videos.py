"""Guesses the cameras of an episode that were recorded as videos, from their paths and their numbers of frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.files.cameras import Beside
from vlapipe.pipeline.infer.files.layout import escape, pattern_of
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.pipeline.read.video.open_video import DEEP_GRAY, open_video
from vlapipe.schemas.schema import TimeSpec

__all__ = ["depth_videos", "frames_as_rows", "guess_videos"]

_STAMPS = {".json", ".csv", ".txt", ".npy"}


def guess_videos(
    episodes: list[list[str]], stamps: Sequence[str], beside: Beside, depth: Container[str] = ()
) -> tuple[list[StreamGuess], list[str]]:
    """Guess the video streams of a dataset. Returns them, and what is not read with the reason.

    Args:
        episodes: for each episode looked at, the paths of its videos relative to the episode's folder.
        stamps: the paths of other files of the first of these episodes, which may hold the frames' stamps.
        beside: the other data of the episode.
        depth: those of the first episode's videos that hold depth.
    """
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
        if all(len(paths) == 1 for paths in found):  # one video an episode, called in any way
            name = identifier(stems[0][0] if len({s[0] for s in stems}) == 1 else PurePosixPath(folder).name, "video")
            files = pattern_of([path for paths in found for path in paths], [])
            stream = _video(name, files, stems[0][0], stamps, beside)
            streams.append(replace(stream, unit="mm") if found[0][0] in depth else stream)
        elif any(path in depth for path in found[0]) and all(each == stems[0] for each in stems):
            # A unit is said of a stream, so depth cannot be one camera of several in a stream.
            for path, stem in zip(found[0], stems[0], strict=True):
                stream = _video(identifier(stem, "video"), (escape(path),), stem, stamps, beside)
                streams.append(replace(stream, unit="mm") if path in depth else stream)
        elif any(set(one) & set(other) for one in stems for other in stems if one is not other) or len(stems) == 1:
            pattern = f"{inside}{{camera}}{suffix}"
            stream = _video("camera", (pattern,), stems[0][0], stamps, beside)
            named = ", ".join(sorted({stem for each in stems for stem in each})[:8])
            streams.append(replace(stream, reasons=(f"each video is a camera: {named}",)))
        else:
            first = PurePosixPath(found[0][0]).name
            not_read.append(
                f"{inside}*{suffix}: {len(found[0])} videos an episode, such as {first}, with other names in each:"
                f" name a camera in a stream of kind = 'video'"
            )
    return streams, not_read


def _video(name: str, files: tuple[str, ...], stem: str, stamps: Sequence[str], beside: Beside) -> StreamGuess:
    """Describe one stream of videos. ``stem`` is the name of the first video, beside which its stamps may lie."""
    for table in beside.tables:
        if table.alone and PurePosixPath(table.pattern).name.startswith(stem):
            reason = f"{table.pattern} has the times of its frames"
            time = replace(table.time, file=_of_each(table.pattern, stem, files))
            return StreamGuess(name=name, kind="video", files=files, time=time, time_reasons=(reason,))
    near = [path for path in stamps if PurePosixPath(path).name.startswith(f"{stem}_") and _is_of_stamps(path)]
    if len(near) == 1:
        clock = _of_each(near[0], stem, files)
        unit = beside.clock.time.unit
        said = (f"{near[0]} has the times of its frames, as its name says; its unit is that of {beside.name}",)
        time = TimeSpec(file=clock, unit=unit, integer=unit in ("us", "ns"))
        return StreamGuess(name=name, kind="video", files=files, time=time, time_reasons=said)
    said = (f"the video's own times, taken to start with {beside.name}; or say file, a file with a stamp a frame",)
    time = TimeSpec(starts_with=beside.name)
    return StreamGuess(name=name, kind="video", files=files, time=time, time_reasons=said)


def _of_each(clock: str, stem: str, files: tuple[str, ...]) -> str:
    """Returns the path of the stamps of any camera of a stream, from the path of those of the first."""
    return clock.replace(stem, "{camera}") if "{camera}" in files[0] else clock


def depth_videos(folder: Path, paths: Sequence[str]) -> list[str]:
    """Returns those videos that hold one channel of more than 8 bits. Opens their heads alone."""
    found = []
    for path in paths:
        try:
            with open_video(folder / path) as opened:
                if DEEP_GRAY.match(str(opened.stream.codec_context.pix_fmt)):
                    found.append(path)
        except (OSError, ValueError):  # as below
            continue
    return found


def frames_as_rows(stream: StreamGuess, video: Path, beside: Beside) -> StreamGuess:
    """Gives frame i the time of row i if a video without stamps has as many frames as there are rows, or one fewer.

    A video that is written from single images plays at any rate, so its own times then say less than the count.
    """
    if stream.time != TimeSpec(starts_with=beside.name):
        return stream
    try:
        with open_video(video) as opened:
            count = opened.num_declared or sum(1 for packet in opened.container.demux(opened.stream) if packet.size)
    except (OSError, ValueError):  # PyAV is an extra; and a trial of the schema will tell what is wrong with the video
        return stream
    if beside.num_rows - count not in (0, 1):
        return stream
    few = "as many frames as" if count == beside.num_rows else "one frame fewer than"
    said = f"{few} {beside.name} has rows: frame i belongs to row i"
    return replace(stream, time=TimeSpec(rows_of=beside.name), time_reasons=(said,))


def _is_of_stamps(path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in _STAMPS and any(word in name.stem.lower() for word in ("time", "stamp"))
