"""Names the files of recordings that no stream of a guessed schema reads, and asks about those that matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from vlapipe.pipeline.discover.file_kinds import IMAGES, VIDEOS, kind_that_reads, suffix_of
from vlapipe.pipeline.discover.file_tree import WholeTree, match_end
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.files.cameras import FEW_IMAGES
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon

__all__ = ["unread_files"]


def unread_files(
    tree: WholeTree, streams: Sequence[StreamGuess], choices: Choices, *, tables: Collection[str], told: bool
) -> list[str]:
    """Return one line for each kind of data file that no stream reads. Files that may hold recordings are asked about.

    Args:
        tree: all files.
        streams: the streams of the schema.
        choices: takes the questions.
        tables: the tables of numbers, of which other lines tell if no stream reads them.
        told: other lines tell of videos.
    """
    read = [
        pattern for stream in streams for pattern in (*stream.files, *([stream.time.file] if stream.time.file else []))
    ]
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    never = lexicon().table("unread")
    for path in tree.files:
        suffix = suffix_of(path)
        if suffix in never or suffix == ".npy" or kind_that_reads(path) is not None or path in tables:
            places[path.rpartition("/")[0], suffix].append(path)
    left: dict[str, list[str]] = defaultdict(list)
    matter: dict[str, list[str]] = defaultdict(list)
    for (folder, suffix), paths in places.items():
        near = [pattern for pattern in read if _is_below(folder, pattern)]
        names = [pattern.rpartition("/")[2] if "{stem}" not in pattern else pattern for pattern in near]
        found = [path for path in paths if not any(_fits(path, name) for name in names)]
        left[suffix] += found
        if suffix not in {*IMAGES, ".gif"} or len(found) >= FEW_IMAGES:
            matter[suffix] += [path for path in found if not lexicon().likeness(_stem(path), "files", "aside")]
    lines = []
    for suffix, paths in sorted(left.items()):
        if not paths:
            continue
        what = f"{len(paths)} {suffix} file{'s' if len(paths) > 1 else ''}, such as {paths[0]}"
        kind = "npz" if suffix == ".npy" else kind_that_reads(paths[0]) or "csv"
        if suffix in never:
            lines.append(f"{what}: {never[suffix]} format, which is not read")
        elif kind != "csv" and not (suffix in VIDEOS and told):
            lines.append(f"{what}: no stream above names them; one of kind = {kind!r} reads such files")
        if asked := matter[suffix]:
            number = f"{len(asked)} {suffix} file{'s' if len(asked) > 1 else ''}, such as {asked[0]}"
            line = "convert them first" if suffix in never else f'a stream of kind = "{kind}"'
            choices.ask(f"files: {number}", "left out", "no stream", "read", line)
    return lines


def _fits(path: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if star and not set("*?[{/") & {*before, *after}:  # most patterns; a dataset has many images to compare
        name = path[path.rfind("/") + 1 :]
        return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)
    return match_end(path, pattern) is not None


def _is_below(folder: str, pattern: str) -> bool:
    """Return whether files of a folder may fit a pattern."""
    above = pattern.rpartition("/")[0]
    return not above or match_end(folder, above) is not None


def _stem(path: str) -> str:
    return PurePosixPath(path).name.partition(".")[0]
