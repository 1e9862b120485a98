"""Finds, verifies and reads checkpoints: safetensors and JSON, never pickle.

``OUT/checkpoints/step-00000200/`` holds the tensors of each part of the run (``policy.safetensors``, and so on) and
``state.json``. A part that several ranks wrote has several files, ``policy-00001-of-00004.safetensors``, and Hugging
Face's index of them. Each tensor is whole in one file, so any number of ranks reads any checkpoint. ``state.json``
lists the other files with size and SHA-256, and ends with a digest of itself. A checkpoint is complete or absent,
because its folder is renamed last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlapipe.schemas.errors import DamageError, NewerFormatError
from vlapipe.schemas.surroundings import raise_if_stopped
from vlapipe.train.config import flat_saved

__all__ = [
    "FOLDER",
    "FORMAT",
    "STATE_FILE",
    "VERSION",
    "StoredCheckpoint",
    "StoredPart",
    "StoredTensors",
    "all_checkpoints",
    "checkpoint_path",
    "damage_of",
    "digest_of",
    "latest_checkpoint",
    "open_checkpoint",
    "read_checkpoint",
    "sealed",
    "step_of",
]

VERSION = 2
FOLDER = "checkpoints"
FORMAT = "vlapipe-checkpoint"
STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{8,})\Z")
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n\}\n\Z')
_UNSEALED = b"0" * 64
_OF_VERSION_1 = ("policy", "optimizer", "rng")  # each was one file; the other values stood in the state itself

Index = EllipsisType | slice | tuple[slice, ...]


def all_checkpoints(out: Path) -> list[Path]:
    """Returns the checkpoints of the run in ``out``, oldest first. They may be damaged."""
    return sorted((path for path in (out / FOLDER).glob("step-*") if _NAME.match(path.name)), key=step_of)


def latest_checkpoint(out: Path) -> Path | None:
    """Returns the newest checkpoint of the run in ``out``, or None if there is none."""
    found = all_checkpoints(out)
    return found[-1] if found else None


def checkpoint_path(out: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after ``step`` steps of the run in ``out``."""
    return out / FOLDER / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint, from its folder's name."""
    match = _NAME.match(path.name)
    assert match is not None  # all_checkpoints returns only folders with such a name
    return int(match[1])


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a part, by name. A tensor is read when it is asked for: whole by ``[name]``, or a slice of it."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Open the files, which must have been verified: a file that is cut short later would end the process."""
        self._file_of: dict[str, Any] = {}
        for path in files:
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise_if_stopped(error, path)
                raise _damage(path, f"cannot be read: {error}") from None
            self._file_of |= dict.fromkeys(file.keys(), file)  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)
        return tensor

    def read(self, name: str, index: Index = ...) -> Tensor:
        """Returns ``self[name][index]``, and reads no other bytes of the tensor."""
        tensor: Tensor = self._file_of[name].get_slice(name)[index]
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape, without reading the tensor."""
        return tuple(self._file_of[name].get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """A part of a checkpoint: tensors, and JSON values."""

    path: Path  # the checkpoint, for messages
    options: Mapping[str, Any]  # of the run at that time, by flat names
    tensors: StoredTensors
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint whose state has been read. Its tensors are read when they are asked for."""

    path: Path
    state: Mapping[str, Any]  # "config", "spec", and other entries of the trainer

    @property
    def step(self) -> int:
        """Number of steps that the run had made."""
        return int(self.state["step"])

    @property
    def options(self) -> Mapping[str, Any]:
        """Options that the run had, by flat names."""
        return flat_saved(self.state["config"])

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Size (``bytes``) and digest (``sha256``) of every file except the state, by name."""
        files: Mapping[str, Mapping[str, Any]] = self.state["files"]
        return files

    def files_of(self, *parts: str) -> list[str]:
        """Returns the names of the files with the tensors of these parts."""
        return [name for part in parts for name in self.state["parts"].get(part, {}).get("files", [])]

    def __contains__(self, part: object) -> bool:
        return part in self.state["parts"]

    def part(self, name: str) -> StoredPart:
        """Returns a part. Verify its files first.

        Raises:
            KeyError: the run had no such part.
            DamageError: a file is no safetensors file.
        """
        values = self.state["parts"][name].get("values", {})
        files = [self.path / file for file in self.files_of(name)]
        return StoredPart(path=self.path, options=self.options, tensors=StoredTensors(files), values=values)


def read_checkpoint(path: Path, *parts: str) -> StoredCheckpoint:
    """Read the state of a checkpoint, and verify the files of ``parts``; of all parts if none is named.

    Raises:
        DamageError: a file is missing, cut short or altered.
        NewerFormatError: a newer vlapipe wrote the checkpoint.
    """
    stored = open_checkpoint(path)
    for name in stored.files_of(*parts) if parts else stored.files:
        _verify(path / name, stored.files[name])
    return stored


def damage_of(stored: StoredCheckpoint, files: Sequence[str]) -> str:
    """Returns the first damage of these files of a checkpoint as a text; empty if all are whole."""
    for name in files:
        try:
            _verify(stored.path / name, stored.files[name])
        except DamageError as error:
            return error.problem
    return ""


def open_checkpoint(path: Path) -> StoredCheckpoint:
    """Read and verify the state of a checkpoint, but not its other files.

    Raises:
        DamageError: the state is missing or altered.
        NewerFormatError: a newer vlapipe wrote the checkpoint.
    """
    return StoredCheckpoint(path=path, state=_read_state(path))


def sealed(state: Mapping[str, Any]) -> bytes:
    """Returns a state as the bytes of ``state.json``. Its last entry is the digest of all its other bytes."""
    data = (json.dumps({**state, "sha256": _UNSEALED.decode()}, indent=1) + "\n").encode()
    return _with_digest(data, hashlib.sha256(data).hexdigest().encode())


def digest_of(file: Path) -> str:
    """Returns the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _with_digest(data: bytes, digest: bytes) -> bytes:
    match = _SEAL.search(data)
    assert match is not None
    return data[: match.start(1)] + digest + data[match.end(1) :]


def _read_state(path: Path) -> dict[str, Any]:
    file = path / STATE_FILE
    try:
        data = file.read_bytes()
    except OSError as error:
        raise_if_stopped(error, file)
        raise _damage(file, f"cannot be read: {error}") from None
    seal = _SEAL.search(data)
    if seal and hashlib.sha256(_with_digest(data, _UNSEALED)).hexdigest().encode() != seal[1]:
        raise _damage(file, "its bytes have changed since it was written")
    try:
        state: Any = json.loads(data)
    except ValueError as error:
        raise _damage(file, f"cannot be read: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("version"), int):
        raise _damage(file, f"expected a {FORMAT}, found something else")
    if state["version"] > VERSION:
        found = f"{file}: checkpoint version {state['version']}, this vlapipe reads up to {VERSION}"
        raise NewerFormatError(found, "update vlapipe")
    if state["version"] == VERSION and not seal:
        raise _damage(file, "its bytes have changed since it was written")
    values: dict[str, Any] = state if state["version"] == VERSION else _as_version_2(state)
    missing = [key for key in ("step", "files", "parts", "config", "spec") if values.get(key) is None]
    if missing:
        raise _damage(file, f"has no {', '.join(missing)}")
    return values


def _as_version_2(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state that version 2 would have written for the same checkpoint."""
    parts: dict[str, Any] = {part: {"files": [f"{part}.safetensors"]} for part in _OF_VERSION_1}
    if "loader" in state:
        parts["loader"] = {"values": state["loader"]}
    parts["counters"] = {"values": {"val_loss": state.get("val_loss")}}
    return state | {"parts": parts}


def _verify(file: Path, expected: Mapping[str, Any]) -> None:
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise _damage(file, f"expected {expected['bytes']} bytes, found {size}")
        if digest_of(file) != expected["sha256"]:
            raise _damage(file, "its bytes have changed since it was written")
    except OSError as error:
        raise_if_stopped(error, file)
        raise _damage(file, f"cannot be read: {error}") from None


def _damage(file: Path, problem: str) -> DamageError:
    return DamageError(f"{file}: {problem}", f"remove {file.parent.name} to go on from the checkpoint before it")
