"""The folder that ingest writes to: takes hold of it, remembers finished shards, and lets a killed run be finished.

A folder is new or empty, unfinished (shards without a manifest), finished, or the user's own, which is refused.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlapipe.pipeline.build.build import RecordFile
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.record import Record, finished_records
from vlapipe.pipeline.discover.file_tree import is_ignored
from vlapipe.pipeline.plan.plan import Plan
from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, try_lock
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM, MANIFEST, REJECTS, SHARD_FOLDER, WORK_FOLDER, Manifest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["OutputFolder", "check_output", "is_whole", "open_output", "tidy"]

_OURS = re.compile(rf"{MANIFEST}|{REJECTS}|{SHARD_FOLDER}|(?:episodes|gaps)-[0-9a-f]{{8}}\.parquet")


class OutputFolder:
    """An output folder that this process holds."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self._made = not path.exists()
        self.shards = path / SHARD_FOLDER
        self.work = path / WORK_FOLDER
        self._plan = plan

    @property
    def place(self) -> RecordFile:
        """Where workers put shards and records."""
        return RecordFile(shards=self.shards, records=self.work)

    def finished(self) -> dict[int, Record]:
        """Records of shards that an earlier run finished and that this plan would make again, by shard."""
        planned = {shard.index: shard.digest for shard in self._plan.shards}
        return finished_records(self.work, self.shards, planned)

    def close(self, kept: set[str]) -> None:
        """Remove what an unfinished run left and the manifest does not name, and the records; ``kept`` are shards."""
        _close(self.path, kept)

    def discard_if_empty(self) -> None:
        """Leave nothing of ours where nothing was written."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.shards, *([self.path] if self._made else [])):
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_output(path: Path, dataset: Path) -> None:
    """Refuse a folder that holds something else, before anything is read.

    Raises:
        UsageError: the user's own files, or a place inside the raw dataset.
    """
    if path.resolve().is_relative_to(dataset.resolve()):
        raise UsageError(f"--out {path}: lies inside the raw dataset {dataset}", "choose a folder outside it")
    if path.is_file():
        raise UsageError(f"--out {path}: is a file", "give a folder")
    if not path.is_dir() or (path / WORK_FOLDER).exists() or (path / MANIFEST).exists():
        return
    others = sorted(entry.name for entry in path.iterdir() if not is_ignored(entry.name))
    if (path / MADE_FROM).exists():
        others = [name for name in others if not _OURS.fullmatch(name)]
    if others:
        raise UsageError(f"--out {path}: holds something else: {others[0]}", "choose a new or empty folder")


def is_whole(path: Path, made_from: MadeFrom) -> bool:
    """Whether the folder holds a finished dataset, with every file, that was made from just this.

    Raises:
        UsageError: it holds one that was made from something else.
        VlapipeError: its manifest cannot be read.
    """
    has_manifest = (path / MANIFEST).exists()
    if not has_manifest and ((path / WORK_FOLDER).exists() or not (path / SHARD_FOLDER).exists()):
        return False
    before = MadeFrom.read(path)
    cure = "choose another --out, or remove it first"
    if before is None:
        problem = "already holds a finished dataset, and what it was made from is not known"
        raise UsageError(f"--out {path}: {problem}", cure)
    changes = made_from.changes(before)
    if changes:
        raise UsageError(f"--out {path}: already holds a dataset made from something else: {changes}", cure)
    return has_manifest and not Manifest.read(path).damage(path)


def tidy(path: Path, kept: set[str]) -> None:
    """Remove what a run left that was killed after its manifest stood; ``kept`` are the shards' names."""
    work = path / WORK_FOLDER
    if work.is_dir():
        with (work / "lock").open("w") as lock:
            if try_lock(lock.fileno()) is not False:
                _close(path, kept)


def _close(path: Path, kept: set[str]) -> None:
    for shard in (path / SHARD_FOLDER).glob("shard-*"):
        if shard.name not in kept:
            shard.unlink()
    shutil.rmtree(path / WORK_FOLDER)


@contextlib.contextmanager
def open_output(path: Path, plan: Plan, *, has_manifest: bool = False) -> Iterator[OutputFolder]:
    """Make the folder, or take up what a killed run left there; ``has_manifest`` if it is a dataset that lost files.

    Raises:
        UsageError: another run holds it, or finished there meanwhile.
    """
    output = OutputFolder(path, plan)
    try:
        output.work.mkdir(parents=True, exist_ok=True)
        output.shards.mkdir(exist_ok=True)
    except OSError as error:
        raise_if_stopped(error, path)
        raise UsageError(f"--out {path}: cannot be made: {error.strerror}", "check its permissions") from None
    with (output.work / "lock").open("w") as lock:
        if try_lock(lock.fileno()) is False:
            raise UsageError(f"--out {path}: another ingest is writing there", "wait for it, or choose another")
        if (path / MANIFEST).exists() and not has_manifest:
            shutil.rmtree(output.work)
            cure = "run the same command again to compare, or choose another --out"
            raise UsageError(f"--out {path}: already holds a finished dataset, made meanwhile by another run", cure)
        sweep_temporaries(output.shards)
        sweep_temporaries(output.work)
        yield output
