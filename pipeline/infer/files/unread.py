"""Names the files of recordings that no stream of a guessed schema reads, each kind with what would read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from vlapipe.pipeline.discover.file_kinds import VIDEOS, kind_that_reads
from vlapipe.pipeline.discover.file_tree import FileTree, match_end
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.guess import StreamGuess

__all__ = ["unread_files"]

# Formats of recordings that nothing here reads.
_NEVER = {
    ".mat": "MATLAB's",
    ".tfrecord": "TensorFlow's records",
    ".svo": "the ZED camera's",
    ".xlsx": "a spreadsheet's",
    ".tdms": "LabVIEW's",
    ".mf4": "a measurement format",
    ".gif": "an animation's",
}


def unread_files(
    tree: FileTree, streams: Sequence[StreamGuess], choices: Choices, *, counted: Sequence[str] = ()
) -> list[str]:
    """Return one line for each kind of data file that no stream reads.

    ``counted`` are lines about videos that were written before.
    """
    read = [
        pattern for stream in streams for pattern in (*stream.files, *([stream.time.file] if stream.time.file else []))
    ]
    left: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        suffix = PurePosixPath(path).suffix.lower()
        is_data = suffix in _NEVER or kind_that_reads(path) is not None
        if is_data and not any(match_end(path, pattern) is not None for pattern in read):
            left[suffix].append(path)
    lines = []
    for suffix, paths in sorted(left.items()):
        what = f"{len(paths)} {suffix} file{'s' if len(paths) > 1 else ''}, such as {paths[0]}"
        if suffix in _NEVER:
            lines.append(f"{what}: {_NEVER[suffix]} format, which is not read")
        elif not (suffix in VIDEOS and counted):
            lines.append(
                f"{what}: no stream above names them; one of kind = {kind_that_reads(paths[0])!r} reads such files"
            )
    return lines
