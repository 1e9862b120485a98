"""The folder that ingest writes to: takes hold of it, remembers finished shards, and lets a killed run be finished."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlapipe.pipeline.build import RecordPlace
from vlapipe.pipeline.plan import Plan
from vlapipe.pipeline.record import Record
from vlapipe.pipeline.shards.atomic import sweep_temporaries, write_bytes
from vlapipe.pipeline.shards.manifest import MANIFEST, SHARD_FOLDER
from vlapipe.schemas.errors import UsageError

__all__ = ["OutputFolder", "check_output", "open_output"]

_WORK_FOLDER = ".ingest"  # commit records and the lock; gone once the manifest stands
_PLAN_FILE = "plan.json"


class OutputFolder:
    """An output folder that this process holds."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.shards = path / SHARD_FOLDER
        self.work = path / _WORK_FOLDER
        self._plan = plan

    @property
    def place(self) -> RecordPlace:
        """Where workers put shards and records."""
        return RecordPlace(shards=self.shards, records=self.work, plan_digest=self._plan.digest)

    def finished(self) -> dict[int, Record]:
        """Records of shards that an earlier run of the same plan finished, by shard."""
        records: dict[int, Record] = {}
        for path in sorted(self.work.glob("shard-*.json")):
            record = json.loads(path.read_bytes())
            shard = self.shards / record["shard"]["file"]
            whole = shard.is_file() and shard.stat().st_size == record["shard"]["num_bytes"]
            if whole and record["plan"] == self._plan.digest:
                records[record["index"]] = record
        return records

    def close(self) -> None:
        """Remove the records: the manifest says it all now."""
        shutil.rmtree(self.work)

    def discard_if_empty(self) -> None:
        """Leave nothing of ours where nothing was written."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.shards, self.path):
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
    if (path / MANIFEST).exists():
        raise UsageError(f"--out {path}: already holds a finished dataset", "choose another --out, or remove it first")
    others = [entry.name for entry in path.iterdir()]
    if others and not (path / _WORK_FOLDER / _PLAN_FILE).exists():
        raise UsageError(f"--out {path}: holds something else: {sorted(others)[0]}", "choose a new or empty folder")


@contextlib.contextmanager
def open_output(path: Path, plan: Plan) -> Iterator[OutputFolder]:
    """Make the folder, or take up what a killed run of the same plan left there.

    Raises:
        UsageError: another run holds it, or it belongs to another plan.
    """
    output = OutputFolder(path, plan)
    try:
        output.work.mkdir(parents=True, exist_ok=True)
        output.shards.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be made: {error.strerror}", "check its permissions") from None
    with (output.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"--out {path}: another ingest is writing there", "wait for it, or choose another"
            ) from None
        plan_file = output.work / _PLAN_FILE
        if plan_file.exists() and json.loads(plan_file.read_bytes())["digest"] != plan.digest:
            raise UsageError(
                f"--out {path}: holds an unfinished ingest of other input or with other options",
                "repeat it exactly to finish it, or choose another --out",
            )
        write_bytes(plan_file, json.dumps({"digest": plan.digest}).encode())
        sweep_temporaries(output.shards)
        sweep_temporaries(output.work)
        yield output
