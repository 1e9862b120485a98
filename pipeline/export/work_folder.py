"""The folder in which an export keeps what it has finished, so that a killed export goes on where it was.

It holds a lock, what the export is made from, and a record of each finished part. It lies in the output folder, or
beside the output file, and is removed when the export is whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, try_lock, write_bytes
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["MadeFrom", "WorkFolder", "changes", "open_work_folder"]

MadeFrom = dict[str, str]  # the dataset's digest and the options, as messages show them

_MADE_FROM = "made_from"
_LOCK = "lock"


class WorkFolder:
    """A work folder that this process has locked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, name: str) -> dict[str, Any] | None:
        """Returns the record of a finished part, or ``None`` if there is none that can be read."""
        try:
            record = json.loads((self.path / f"{name}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def keep(self, name: str, record: Mapping[str, Any]) -> None:
        """Write the record of a finished part."""
        write_bytes(self.path / f"{name}.json", json.dumps(record).encode())

    def remove(self) -> None:
        """Remove the folder: the export is whole."""
        shutil.rmtree(self.path)


@contextlib.contextmanager
def open_work_folder(path: Path, made_from: MadeFrom, out: Path) -> Iterator[WorkFolder]:
    """Make and lock the folder, or go on with the one that a killed export left.

    Raises:
        UsageError: another export is writing there, or the folder was made from something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("w")
    except OSError as error:
        raise_if_stopped(error, out)
        raise UsageError(f"{out}: cannot be made: {error.strerror}", "check its permissions") from None
    with lock:
        if try_lock(lock.fileno()) is False:
            raise UsageError(f"{out}: another export is writing there", "wait for it, or choose another OUT")
        sweep_temporaries(path)
        folder = WorkFolder(path)
        before = folder.record(_MADE_FROM)
        if before is not None and (said := changes(before, made_from)):
            raise UsageError(
                f"{out}: holds an unfinished export of something else: {said}",
                "finish that one by its own command, remove it, or choose another OUT",
            )
        folder.keep(_MADE_FROM, made_from)
        yield folder


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describes in words how the options of two exports differ; empty if they do not."""
    names = sorted(before.keys() | now.keys())
    return "; ".join(
        f"{name} was {before.get(name, 'not given')} and is {now.get(name, 'not given')}"
        for name in names
        if before.get(name) != now.get(name)
    )
