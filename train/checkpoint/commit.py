"""Writes a checkpoint: each rank writes its own files, then rank 0 commits them by renaming their folder.

The commit has no collective, so it may run in a thread while the run goes on. Each rank tells the store of the ranks
which files it has written. Rank 0 waits for these reports, writes ``state.json`` and renames the folder. If a rank
fails or dies, the folder keeps its temporary name, which no reader looks at.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from torch._C._distributed_c10d import Store

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX, fsync_folder
from vlapipe.schemas.errors import DamageError, StoppedError, UsageError, VlapipeError
from vlapipe.train.checkpoint.files import (
    FOLDER,
    FORMAT,
    STATE_FILE,
    VERSION,
    checkpoint_path,
    digest_of,
    sealed,
)
from vlapipe.train.parallel.ranks import Ranks, gather_bytes
from vlapipe.train.stopping import explain_surroundings

__all__ = ["Cancelled", "PartState", "Plan", "Snapshot", "plan_files", "remove", "sweep", "write_checkpoint"]

_SEEN_WITHIN_S = 30.0  # a network file system shows another machine's file some seconds late
_ERRORS: dict[str, type[VlapipeError]] = {
    kind.__name__: kind for kind in (DamageError, StoppedError, UsageError, VlapipeError)
}


@dataclass(frozen=True, kw_only=True)
class PartState:
    """What a part of the run has to save: CPU copies of the whole tensors that this rank writes, and JSON values.

    Only the values of rank 0 are written.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a run after ``step`` steps, as far as this rank writes it."""

    step: int
    parts: Mapping[str, PartState]
    state: Mapping[str, Any]  # "config", "spec", and other entries of the trainer


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which ranks write tensors of which part; the same on every rank."""

    rank: int = 0
    writers: Mapping[str, Sequence[int]]  # by part, in order of rank
    token: str  # makes the temporary folder and the reports of this save unique
    store: Store | None = None  # None with one rank

    @property
    def others(self) -> list[int]:
        """Ranks whose reports rank 0 waits for."""
        return sorted({rank for ranks in self.writers.values() for rank in ranks} - {0})

    def files(self, part: str) -> dict[int, str]:
        """Returns the file of each rank that writes tensors of ``part``."""
        ranks = self.writers.get(part, ())
        if len(ranks) == 1:
            return {ranks[0]: f"{part}.safetensors"}
        return {r: f"{part}-{i:05d}-of-{len(ranks):05d}.safetensors" for i, r in enumerate(ranks, start=1)}

    def key(self, rank: int) -> str:
        """Returns the store's key for the report of ``rank``."""
        return f"vlapipe/save/{self.token}/{rank}"


class Cancelled(Exception):  # noqa: N818 - not an error: the run ended meanwhile
    """The run ended before all ranks had reported their files."""


def plan_files(parts: Mapping[str, PartState], ranks: Ranks) -> Plan:
    """Find out which ranks have tensors to write; a collective."""
    mine = {"token": _token(), "parts": [name for name, part in parts.items() if part.tensors]}
    every = [json.loads(text) for text in gather_bytes(json.dumps(mine).encode(), ranks)]
    writers = {name: [r for r, other in enumerate(every) if name in other["parts"]] for name in parts}
    store = None if ranks.links is None else ranks.links.store
    return Plan(rank=ranks.rank, writers=writers, token=every[0]["token"], store=store)


def _token() -> str:
    return os.urandom(6).hex()


def write_checkpoint(
    out: Path, snapshot: Snapshot, plan: Plan | None = None, *, cancelled: threading.Event | None = None
) -> Path | None:
    """Write this rank's files. Rank 0 then waits for the other ranks and commits. No collective.

    Returns the checkpoint's folder on rank 0, None on the others. Only one run may write to the folder ``out``.

    Raises:
        Cancelled: ``cancelled`` was set while rank 0 waited for another rank.
    """
    if plan is None:
        plan = Plan(writers={name: [0] for name, part in snapshot.parts.items() if part.tensors}, token=_token())
    path = checkpoint_path(out, snapshot.step)
    temporary = path.with_name(f"{TEMP_PREFIX}{plan.token}-{path.name}")
    try:
        if plan.rank:
            if plan.rank in plan.others:
                _write_and_report(temporary, snapshot, plan)
            return None
        reports = [_write_files(temporary, snapshot, plan)]
        reports += [_report_of(rank, temporary, plan, cancelled) for rank in plan.others]
        _write_state(temporary, snapshot, plan, reports)
        if path.exists():
            remove(path)
        temporary.rename(path)
    finally:
        if not plan.rank:
            shutil.rmtree(temporary, ignore_errors=True)
    fsync_folder(path.parent)
    return path


def remove(path: Path) -> None:
    """Rename the checkpoint before deleting it, so that a kill during the deletion leaves no partial checkpoint."""
    hidden = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-old-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def sweep(out: Path) -> None:
    """Remove the temporary folders that killed runs left. No save may be in progress."""
    for left in (out / FOLDER).glob(f"{TEMP_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


Report = dict[str, dict[str, Any]]  # a rank's files by name, with part, size, digest and the names of the tensors


def _write_files(folder: Path, snapshot: Snapshot, plan: Plan) -> Report:
    folder.mkdir(parents=True, exist_ok=True)
    written: Report = {}
    for part, state in snapshot.parts.items():
        name = plan.files(part).get(plan.rank)
        if name is None:
            continue
        file = folder / name
        save_file(dict(state.tensors), file)
        _fsync(file)
        written[name] = {
            "part": part,
            "bytes": file.stat().st_size,
            "sha256": digest_of(file),
            "tensors": list(state.tensors),
            "tensor_bytes": sum(tensor.nbytes for tensor in state.tensors.values()),
        }
    fsync_folder(folder)
    return written


def _write_and_report(folder: Path, snapshot: Snapshot, plan: Plan) -> None:
    """Write the files of a rank that is not rank 0, and tell rank 0 of them, or of the error."""
    assert plan.store is not None
    try:
        with explain_surroundings(folder.parent.parent):
            report: dict[str, Any] = {"files": _write_files(folder, snapshot, plan)}
    except BaseException as error:
        known = isinstance(error, VlapipeError)
        said = (error.problem, error.cure) if known else (f"{type(error).__name__}: {error}", "")  # type: ignore[attr-defined]
        report = {"error": [type(error).__name__ if known else "VlapipeError", *said]}
        plan.store.set(plan.key(plan.rank), json.dumps(report))
        raise
    plan.store.set(plan.key(plan.rank), json.dumps(report))


def _report_of(rank: int, folder: Path, plan: Plan, cancelled: threading.Event | None) -> Report:
    """Returns what another rank has written, and waits for it as long as that takes.

    The wait polls: ``Store.wait`` would keep all other threads of this process from the store meanwhile.
    """
    assert plan.store is not None
    pause = 0.001
    while not plan.store.check([plan.key(rank)]):
        if cancelled is not None and cancelled.is_set():
            raise Cancelled
        time.sleep(pause)
        pause = min(0.1, 2 * pause)
    report = json.loads(plan.store.get(plan.key(rank)))
    plan.store.delete_key(plan.key(rank))
    if "error" in report:
        kind, problem, cure = report["error"]
        raise _ERRORS.get(kind, VlapipeError)(f"rank {rank} cannot write its part of the checkpoint: {problem}", cure)
    files: Report = report["files"]
    _require_visible(rank, folder, files)
    return files


def _require_visible(rank: int, folder: Path, files: Report) -> None:
    """Check that this rank sees the files of another rank.

    Raises:
        UsageError: the ranks write to different folders.
    """
    deadline = time.monotonic() + _SEEN_WITHIN_S
    for name, entry in files.items():
        while not _has_size(folder / name, entry["bytes"]):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"{folder.parent.parent}: rank 0 does not see the file {name} that rank {rank} has written there",
                    "give an --out folder that all machines share",
                )
            time.sleep(0.1)


def _has_size(file: Path, num_bytes: int) -> bool:
    try:
        return file.stat().st_size == num_bytes
    except FileNotFoundError:
        return False


def _write_state(folder: Path, snapshot: Snapshot, plan: Plan, reports: Sequence[Report]) -> None:
    """Write the index of each part with several files, and ``state.json``, which makes the checkpoint whole."""
    written = {name: entry for report in reports for name, entry in report.items()}
    files = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in written.items()}
    parts: dict[str, dict[str, Any]] = {}
    for part, state in snapshot.parts.items():
        names = list(plan.files(part).values())
        parts[part] = ({"files": names} if names else {}) | ({"values": dict(state.values)} if state.values else {})
        if len(names) > 1:
            files |= _write_index(folder / f"{part}.safetensors.index.json", {name: written[name] for name in names})
    own = {"format": FORMAT, "version": VERSION, "step": snapshot.step, "parts": parts, "files": files}
    _write(folder / STATE_FILE, sealed({**own, **snapshot.state}))
    fsync_folder(folder)


def _write_index(path: Path, files: Report) -> dict[str, dict[str, Any]]:
    """Write the index that Hugging Face's libraries read. Returns its own entry in the list of files."""
    index = {
        "metadata": {"total_size": sum(entry["tensor_bytes"] for entry in files.values())},
        "weight_map": {tensor: name for name, entry in files.items() for tensor in entry["tensors"]},
    }
    _write(path, (json.dumps(index, indent=1) + "\n").encode())
    return {path.name: {"bytes": path.stat().st_size, "sha256": digest_of(path)}}


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _fsync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
