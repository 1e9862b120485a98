"""Reads and writes checkpoints: all that an exact resume needs, in safetensors and JSON, without pickle.

``OUT/checkpoints/step-00000200/`` contains ``policy.safetensors``, ``optimizer.safetensors``, ``rng.safetensors`` and
``state.json``, which lists the other files with size and SHA-256. A checkpoint is complete or absent: its folder is
written under a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX, fsync_folder
from vlapipe.schemas.errors import DamageError, NewerFormatError, VlapipeError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "FOLDER",
    "VERSION",
    "Checkpoint",
    "checkpoint_path",
    "latest_checkpoint",
    "read_checkpoint",
    "read_policy_part",
    "step_of",
    "write_checkpoint",
]

VERSION = 1
FOLDER = "checkpoints"
_FORMAT = "vlapipe-checkpoint"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})\Z")
_PARTS = ("policy", "optimizer", "rng")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after ``step`` steps. Tensors are by name, and on the CPU after reading. ``state`` is JSON."""

    step: int
    policy: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    rng: Mapping[str, Tensor]
    state: Mapping[str, Any]  # "loader", "config", "spec", and other entries of the trainer


def latest_checkpoint(out: Path) -> Path | None:
    """Returns the newest checkpoint of the run in ``out``, or None if there is none."""
    found = _all(out / FOLDER)
    return found[-1] if found else None


def checkpoint_path(out: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after ``step`` steps of the run in ``out``."""
    return out / FOLDER / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint, from its folder's name."""
    match = _NAME.match(path.name)
    assert match is not None  # latest_checkpoint returns only folders with such a name
    return int(match[1])


def write_checkpoint(out: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write the checkpoint, then remove all but the newest ``keep`` checkpoints. Returns the checkpoint's folder.

    Only one process may write to a run's folder.
    """
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    _sweep(folder)
    path = checkpoint_path(out, checkpoint.step)
    temporary = folder / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    temporary.mkdir()
    try:
        _write_parts(temporary, checkpoint)
        if path.exists():
            _remove(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_folder(folder)
    for old in _all(folder)[:-keep]:
        _remove(old)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        DamageError: a file is missing, cut short or altered.
        NewerFormatError: a newer vlapipe wrote the checkpoint.
    """
    state = _read_state(path)
    tensors = {part: _read_part(path, part, state["files"]) for part in _PARTS}
    return Checkpoint(step=state["step"], state=state, **tensors)


def read_policy_part(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify only the policy's weights and the state of a checkpoint.

    Raises:
        DamageError: one of the two files is missing, cut short or altered.
        NewerFormatError: a newer vlapipe wrote the checkpoint.
    """
    state = _read_state(path)
    return _read_part(path, "policy", state["files"]), state


def _write_parts(folder: Path, checkpoint: Checkpoint) -> None:
    files: dict[str, dict[str, Any]] = {}
    for part in _PARTS:
        name = f"{part}.safetensors"
        # Tensors are cloned because safetensors refuses tensors that share memory (tied weights).
        tensors = {key: _stored(part, key, value) for key, value in getattr(checkpoint, part).items()}
        save_file(tensors, folder / name)
        files[name] = {"bytes": (folder / name).stat().st_size, "sha256": _digest(folder / name)}
        _fsync(folder / name)
    own = {"format": _FORMAT, "version": VERSION, "step": checkpoint.step, "files": files}
    (folder / _STATE).write_text(json.dumps({**own, **checkpoint.state}, indent=1) + "\n", encoding="utf-8")
    _fsync(folder / _STATE)
    fsync_folder(folder)


def _stored(part: str, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise VlapipeError(
            f"{part} state {key!r} cannot be saved: it is a {type(value).__name__}",
            "hold what must be saved in buffers",
        )
    return value.detach().cpu().clone().contiguous()


def _read_state(path: Path) -> dict[str, Any]:
    file = path / _STATE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise_if_stopped(error, file)
        raise _damage(file, f"cannot be read: {error}") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT or not isinstance(state.get("version"), int):
        raise _damage(file, f"expected a {_FORMAT}, found something else")
    if state["version"] > VERSION:
        found = f"{file}: checkpoint version {state['version']}, this vlapipe reads up to {VERSION}"
        raise NewerFormatError(found, "update vlapipe")
    missing = [key for key in ("step", "files", "loader", "config", "spec") if key not in state]
    if missing:
        raise _damage(file, f"has no {', '.join(missing)}")
    return state


def _read_part(path: Path, part: str, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    file = path / f"{part}.safetensors"
    try:
        expected = files[file.name]
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise _damage(file, f"expected {expected['bytes']} bytes, found {size}")
        if _digest(file) != expected["sha256"]:
            raise _damage(file, "its bytes have changed since it was written")
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise_if_stopped(error, file)
        raise _damage(file, f"cannot be read: {error}") from None
    return tensors


def _damage(file: Path, problem: str) -> DamageError:
    return DamageError(f"{file}: {problem}", f"remove {file.parent.name} to go on from the checkpoint before it")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fsync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _all(folder: Path) -> list[Path]:
    """Returns the checkpoints in ``folder``, oldest first."""
    return sorted((path for path in folder.glob("step-*") if _NAME.match(path.name)), key=step_of)


def _remove(path: Path) -> None:
    """Rename the checkpoint before deleting it, so that a kill during the deletion leaves no partial checkpoint."""
    hidden = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-old-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _sweep(folder: Path) -> None:
    """Remove the temporary folders that killed runs left."""
    for left in folder.glob(f"{TEMP_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
