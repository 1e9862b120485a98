"""The folder that ingest writes to: takes hold of it, remembers finished shards, and lets a killed run be finished."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlapipe.pipeline.build import RecordPlace
from vlapipe.pipeline.file_tree import is_ignored
from vlapipe.pipeline.plan import Plan
from vlapipe.pipeline.record import Record
from vlapipe.pipeline.shards.atomic import lock_alone, sweep_temporaries
from vlapipe.pipeline.shards.manifest import MANIFEST, SHARD_FOLDER
from vlapipe.schemas.errors import UsageError, stop_for

__all__ = ["OutputFolder", "check_output", "open_output"]

_WORK_FOLDER = ".ingest"  # commit records and the lock; gone once the manifest stands


class OutputFolder:
    """An output folder that this process holds."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self._made = not path.exists()
        self.shards = path / SHARD_FOLDER
        self.work = path / _WORK_FOLDER
        self._plan = plan

    @property
    def place(self) -> RecordPlace:
        """Where workers put shards and records."""
        return RecordPlace(shards=self.shards, records=self.work)

    def finished(self) -> dict[int, Record]:
        """Records of shards that an earlier run finished and that this plan would make again, by shard."""
        planned = {shard.index: shard.digest for shard in self._plan.shards}
        records: dict[int, Record] = {}
        for path in sorted(self.work.glob("shard-*.json")):
            record = json.loads(path.read_bytes())
            shard = self.shards / record["shard"]["file"]
            whole = shard.is_file() and shard.stat().st_size == record["shard"]["num_bytes"]
            if whole and record["plan"] == planned.get(record["index"]):
                records[record["index"]] = record
        return records

    def close(self, kept: set[str]) -> None:
        """Remove what an unfinished run left and the manifest does not name, and the records; ``kept`` are shards."""
        for path in self.shards.glob("shard-*"):
            if path.name not in kept:
                path.unlink()
        shutil.rmtree(self.work)

    def discard_if_empty(self) -> None:
        """Leave nothing of ours where nothing was written."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.shards, *([self.path] if self._made else [])):
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_output(path: Path, dataset: Path) -> None:
    """Refuse a folder that holds something else, before anything is read.

    Raises:
        UsageError: a finished dataset, the user's own files, or a place inside the raw dataset.
    """
    if path.resolve().is_relative_to(dataset.resolve()):
        raise UsageError(f"--out {path}: lies inside the raw dataset {dataset}", "choose a folder outside it")
    if path.is_file():
        raise UsageError(f"--out {path}: is a file", "give a folder")
    if not path.is_dir():
        return
    _refuse_finished(path)
    others = [entry.name for entry in path.iterdir() if not is_ignored(entry.name)]
    if others and not (path / _WORK_FOLDER).exists():
        raise UsageError(f"--out {path}: holds something else: {sorted(others)[0]}", "choose a new or empty folder")


def _refuse_finished(path: Path) -> None:
    if (path / MANIFEST).exists():
        raise UsageError(f"--out {path}: already holds a finished dataset", "choose another --out, or remove it first")


@contextlib.contextmanager
def open_output(path: Path, plan: Plan) -> Iterator[OutputFolder]:
    """Make the folder, or take up what a killed run left there.

    Raises:
        UsageError: another run holds it, or finished there meanwhile.
    """
    output = OutputFolder(path, plan)
    try:
        output.work.mkdir(parents=True, exist_ok=True)
        output.shards.mkdir(exist_ok=True)
    except OSError as error:
        stop_for(error, path)
        raise UsageError(f"--out {path}: cannot be made: {error.strerror}", "check its permissions") from None
    with (output.work / "lock").open("w") as lock:
        if lock_alone(lock.fileno()) is False:
            raise UsageError(f"--out {path}: another ingest is writing there", "wait for it, or choose another")
        try:
            _refuse_finished(path)  # another run may have finished since we looked
        except UsageError:
            shutil.rmtree(output.work)
            raise
        sweep_temporaries(output.shards)
        sweep_temporaries(output.work)
        yield output
