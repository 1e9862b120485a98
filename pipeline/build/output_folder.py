"""The folder that ingest writes to: locks the folder, finds finished shards, and lets a killed run be finished.

A folder is new or empty, unfinished (shards without a manifest), finished, or holds the user's own files. A folder
with the user's own files is refused.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlapipe.pipeline.build.build import RecordFile
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.record import Record, finished_records
from vlapipe.pipeline.discover.listing import is_ignored
from vlapipe.pipeline.plan.plan import Plan
from vlapipe.pipeline.shards.format.atomic import remove_folder, sweep_temporaries, try_lock
from vlapipe.pipeline.shards.manifest.manifest import (
    MADE_FROM,
    MANIFEST,
    REJECTS,
    SHARD_FOLDER,
    WORK_FOLDER,
    Manifest,
    is_table,
)
from vlapipe.pipeline.shards.verify.faults import files_of_all_generations
from vlapipe.pipeline.shards.verify.verify import verify_opened
from vlapipe.schemas.errors import DamageError, NotADatasetError, UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["OutputFolder", "check_output", "is_whole", "open_output", "tidy"]

_OURS = (MANIFEST, REJECTS, SHARD_FOLDER)


class OutputFolder:
    """An output folder that this process has locked."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self._made = not path.exists()
        self.shards = path / SHARD_FOLDER
        self.work = path / WORK_FOLDER
        self._plan = plan

    @property
    def place(self) -> RecordFile:
        """The folders where workers put shards and records."""
        return RecordFile(shards=self.shards, records=self.work)

    def finished(self) -> Iterator[Record]:
        """Yield the records of finished shards of an earlier run that this plan would make again."""
        planned = {shard.index: shard.digest for shard in self._plan.shards}
        return finished_records(self.work, self.shards, planned)

    def close(self, kept: set[str]) -> None:
        """Remove the records, and the shard files that the manifest does not list. ``kept`` names the listed files."""
        _close(self.path, kept)

    def discard_if_empty(self) -> None:
        """Remove the work folder, and remove the folders that this run made if they are empty."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.shards, *([self.path] if self._made else [])):
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_output(path: Path, dataset: Path) -> None:
    """Refuse an output folder that holds something else, before any input is read.

    Raises:
        UsageError: the folder holds the user's own files, or lies inside the raw dataset.
    """
    if path.resolve().is_relative_to(dataset.resolve()):
        raise UsageError(f"--out {path}: lies inside the raw dataset {dataset}", "choose a folder outside it")
    if path.is_file():
        raise UsageError(f"--out {path}: is a file", "give a folder")
    if not path.is_dir() or (path / WORK_FOLDER).exists() or (path / MANIFEST).exists():
        return
    others = sorted(entry.name for entry in path.iterdir() if not is_ignored(entry.name))
    if (path / MADE_FROM).exists():
        others = [name for name in others if name not in _OURS and not is_table(name)]
    if others:
        raise UsageError(f"--out {path}: holds something else: {others[0]}", "choose a new or empty folder")


def is_whole(path: Path, made_from: MadeFrom) -> bool:
    """Return True if the folder holds a finished, undamaged dataset that was made from the same source and options.

    Raises:
        UsageError: the folder holds a dataset that was made from something else.
        NewerFormatError: a newer vlapipe wrote the dataset.
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
    if not has_manifest:
        return False
    try:
        return not verify_opened(path, Manifest.read(path)).damage
    except (NotADatasetError, DamageError):  # the manifest itself is damaged, and is written again
        return False


def tidy(path: Path) -> None:
    """Remove leftovers of a run that was killed after it wrote its manifest."""
    work = path / WORK_FOLDER
    if work.is_dir():
        kept = {file.removeprefix(f"{SHARD_FOLDER}/") for file in files_of_all_generations(path)}
        with (work / "lock").open("w") as lock:
            if try_lock(lock.fileno()) is not False:
                _close(path, kept)


def _close(path: Path, kept: set[str]) -> None:
    sweep_temporaries(path / SHARD_FOLDER)  # of workers that were killed
    for shard in (path / SHARD_FOLDER).glob("shard-*"):
        if shard.name not in kept:
            shard.unlink()
    remove_folder(path / WORK_FOLDER)


@contextlib.contextmanager
def open_output(path: Path, plan: Plan, *, has_manifest: bool = False) -> Iterator[OutputFolder]:
    """Make and lock the folder, or continue in the folder that a killed run left.

    ``has_manifest`` says that the folder holds a finished dataset that lost files, which this run makes again.

    Raises:
        UsageError: another run has locked the folder, or another run has finished there meanwhile.
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
            remove_folder(output.work)
            cure = "run the same command again to compare, or choose another --out"
            raise UsageError(f"--out {path}: already holds a finished dataset, made meanwhile by another run", cure)
        for folder in (path, output.shards, output.work):
            sweep_temporaries(folder)
        yield output
