"""Finds the images and videos that lie beside the files of a recording, and the patterns that lead to them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from vlapipe.pipeline.discover.file_kinds import IMAGES, VIDEOS
from vlapipe.pipeline.discover.file_tree import match_end
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.files.cameras import Beside, guess_cameras
from vlapipe.pipeline.infer.files.layout import Layout, pattern_of
from vlapipe.pipeline.infer.files.videos import STAMPS, guess_videos
from vlapipe.pipeline.infer.guess import StreamGuess

__all__ = [
    "Found",
    "cameras_beside",
    "files_below",
    "pattern_of_anchor",
    "raised_to_images",
    "relative_path",
    "videos_beside",
]

_STEM = "STEM"
_CONVERTED = {".webp", ".bmp", ".tif", ".tiff"}
_DEPTH = "depth"
_METRES = "depth in metres"
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}
_BOTH = (".jpg", ".png")
_FORMATS = ("PNG", "TIFF")


class Found(NamedTuple):
    """Streams, and lines about what is not read."""

    streams: list[StreamGuess]
    not_read: list[str]


def pattern_of_anchor(layout: Layout) -> tuple[str, ...]:
    """Return a pattern for the anchor's files, with enough parent folders that tables of the same name do not match."""
    others = [file for bucket in layout.others for file in bucket.files] + list(layout.unlike)
    most = min(file.count("/") for file in layout.anchor.files) - layout.up
    for above in range(most + 1):
        ends = [relative_path(layout, file, above) for file in layout.anchor.files]
        found = pattern_of(ends, [relative_path(layout, file, above) for file in others])
        if not any(match_end(file, pattern) is not None for file in others for pattern in found):
            return found
    return pattern_of(
        [relative_path(layout, file) for file in layout.anchor.files], map(partial(relative_path, layout), others)
    )


def relative_path(layout: Layout, file: str, above: int = 0) -> str:
    """Return the last parts of a path: from the episode's folder on, plus ``above`` parent folders."""
    parts = file.split("/")
    return "/".join(parts[-1 - layout.up - above :])


def files_below(layout: Layout, file: str, suffixes: set[str]) -> list[str]:
    """List the files of an anchor file's episode with one of these suffixes, relative to the episode's folder."""
    folder = layout.folder(file)
    found = [other.path for other in layout.tree.below(folder or ".")]
    start = len(folder) + 1 if folder else 0
    return [path[start:] for path in found if PurePosixPath(path).suffix.lower() in suffixes]


def cameras_beside(
    layout: Layout, chosen: list[str], beside: Beside, choices: Choices, *, by_stem: bool
) -> list[StreamGuess]:
    """Guess the cameras whose images are files, kind by kind: a stream of depth has a unit, others may be converted."""
    episodes = [_of_episode(layout, file, IMAGES, by_stem=by_stem) for file in chosen]
    if by_stem:
        beside = replace(beside, tables=())
    sorted_out = [
        _sort_images(layout.tree.root / layout.folder(file), paths)
        for file, paths in zip(chosen, episodes, strict=True)
    ]
    cameras: list[StreamGuess] = []
    every = list(dict.fromkeys(kind for kinds in sorted_out for kind in kinds))
    for kind in every:
        of_kind = [kinds.get(kind, []) for kinds in sorted_out]
        if by_stem:
            of_kind = [_with_placeholder(layout, file, paths) for file, paths in zip(chosen, of_kind, strict=True)]
        is_depth = kind in (_DEPTH, _METRES)
        name = _DEPTH if is_depth else "camera"
        for stream in guess_cameras(of_kind, beside, choices, name):
            suffix, folder = PurePosixPath(stream.files[0]).suffix.lower(), PurePosixPath(stream.files[0]).parent.name
            if stream.name == name and len(every) > 1 and folder and "{" not in folder and "*" not in folder:
                stream = replace(stream, name=identifier(folder, name))
            convert = "png" if {kind, suffix} & _CONVERTED else None
            unit, file_unit = "mm" if is_depth else None, "m" if kind == _METRES else None
            cameras.append(_with_stem(replace(stream, unit=unit, file_unit=file_unit, convert=convert)))
    return cameras


def videos_beside(layout: Layout, chosen: list[str], beside: Beside, choices: Choices, *, by_stem: bool) -> Found:
    """Guess the cameras that were recorded as videos. Returns what is not read too."""
    found = [_of_episode(layout, file, VIDEOS, by_stem=by_stem) for file in chosen]
    stamps = _of_episode(layout, chosen[0], STAMPS, by_stem=by_stem) if found[0] else []
    folder, named = layout.tree.root / layout.folder(chosen[0]), found
    if by_stem:
        named = [_with_placeholder(layout, file, paths) for file, paths in zip(chosen, found, strict=True)]
        stamps, beside = _with_placeholder(layout, chosen[0], stamps), replace(beside, tables=())
    places = {name: folder / path for name, path in zip(named[0], found[0], strict=True)}
    streams, not_read = guess_videos(named, stamps, beside, places, choices)
    return Found([_with_stem(stream) for stream in streams], not_read)


def raised_to_images(layout: Layout) -> Layout:
    """Take a folder above the files for that of the episodes if only that holds images or videos with their names.

    In ``data/run_1.h5`` beside ``videos/run_1.mp4`` it is the folder above ``data``.
    """
    files = layout.anchor.files
    most = min(file.count("/") for file in files) if len(files) > 1 else 0
    for up in range(most + 1):
        raised = replace(layout, up=up)
        if all(_of_episode(raised, files[i], IMAGES | VIDEOS, by_stem=True) for i in (0, -1)):
            return raised
    return layout


def _of_episode(layout: Layout, file: str, suffixes: set[str], *, by_stem: bool) -> list[str]:
    """List an episode's files with these suffixes; if each file is an episode, those whose path has its name."""
    paths = files_below(layout, file, suffixes)
    if not by_stem:
        return paths
    return [path for path in paths if any(_is_named(part, layout.stem(file)) for part in path.split("/"))]


def _is_named(part: str, stem: str) -> bool:
    """Return True if a part of a path is an episode's name, alone or beside another word."""
    at = part.find(stem)
    edges = part[max(0, at - 1) : at] + part[at + len(stem) : at + len(stem) + 1]
    return at >= 0 and not any(edge.isalnum() for edge in edges)


def _with_placeholder(layout: Layout, file: str, paths: list[str]) -> list[str]:
    return [path.replace(layout.stem(file), _STEM) for path in paths]


def _with_stem(stream: StreamGuess) -> StreamGuess:
    clock = stream.time.file and stream.time.file.replace(_STEM, "{stem}")
    files = tuple(pattern.replace(_STEM, "{stem}") for pattern in stream.files)
    return replace(stream, files=files, time=replace(stream.time, file=clock))


def _sort_images(root: Path, paths: list[str]) -> dict[str, list[str]]:
    """Return the paths by their kind: a suffix in lower case, ``_DEPTH`` for one channel of 16 bits, or ``_METRES``.

    ``_METRES`` are fractions in one channel, as depth cameras write them.

    Only the first image of each folder and name (digits left open) is opened.
    """
    kind_of: dict[tuple[str, str], str] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        pure = PurePosixPath(path)
        key = (str(pure.parent), _open(pure.name))
        if key not in kind_of:
            suffix = pure.suffix.lower()
            kind_of[key] = _depth(root / path) or _SAME.get(suffix, suffix)
        found[kind_of[key]].append(path)
    _join_alike(found)
    return dict(sorted(found.items(), key=lambda item: (item[0] in (_DEPTH, _METRES), item[0])))


def _join_alike(found: dict[str, list[str]]) -> None:
    """Counts PNG files as JPEG files if one camera wrote both: names are alike, and no image is there as both."""
    jpg, png = ({path: str(PurePosixPath(path).with_suffix("")) for path in found.get(kind, ())} for kind in _BOTH)
    twice = {_open(stem) for stem in set(jpg.values()) & set(png.values())}
    alike = {_open(stem) for stem in jpg.values()} - twice
    moved = {path for path, stem in png.items() if _open(stem) in alike}
    if moved:
        found[".jpg"] = sorted([*jpg, *moved])
        found[".png"] = [path for path in png if path not in moved]
        if not found[".png"]:
            del found[".png"]


def _open(name: str) -> str:
    """Returns a name with its digits left open."""
    return re.sub(r"\d+", "#", name)


def _depth(path: Path) -> str | None:
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        return None
    try:
        with Image.open(path, formats=_FORMATS) as image:  # reads the header alone
            return _DEPTH if image.mode.startswith("I") else _METRES if image.mode == "F" else None
    except Exception:  # noqa: BLE001 - a damaged header fails in a dozen ways; the reader reports it
        return None
