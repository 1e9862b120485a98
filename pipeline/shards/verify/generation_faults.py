"""Faults of the files that describe generations: each generation's own file, ``manifest.json``, and the history."""

from __future__ import annotations

import json
from pathlib import Path

from vlapipe.pipeline.shards.format.sealed_json import Seal, is_cut
from vlapipe.pipeline.shards.manifest.generations import MANIFEST, generation_file, generations
from vlapipe.pipeline.shards.manifest.history import history_files
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.verify.faults import Fault, ListedFile, kept_generations, listed_files
from vlapipe.schemas.errors import DamageError, NotADatasetError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["description_fault", "faults_of_generations", "generation_of"]

_ALTERED = "its bytes differ from those that were written"


def faults_of_generations(
    path: Path, newest: Manifest, unknown: list[str]
) -> tuple[list[Fault], dict[str, ListedFile], list[str]]:
    """Return the faults of the files that describe generations, the files that older ones list, and remarks.

    The newest generation's own file has been read, and is whole. ``unknown`` collects damaged tables of shards.
    """
    if not generations(path):
        return [], {}, []
    faults: list[Fault] = []
    notes: list[str] = []
    files: dict[str, ListedFile] = {}
    there = kept_generations(path, newest)
    known = {part.shards["file"] for part in newest.all_parts if part.shards is not None}
    data = {generation_file(there[-1]): (path / generation_file(there[-1])).read_bytes()}
    for number in range(newest.oldest or 1, there[-1]):
        name = generation_file(number)
        try:
            manifest = Manifest.read_file(path / name, path)
            if (manifest.generation or 1) != number:
                raise DamageError(name)
            listed = listed_files(manifest, unknown=unknown, without=known)
            known |= {part.shards["file"] for part in manifest.all_parts if part.shards is not None}
            data[name] = (path / name).read_bytes()
        except (DamageError, NotADatasetError, FileNotFoundError):
            if (Manifest.read(path).oldest or 1) <= number:  # else gc has removed it meanwhile
                faults.append(description_fault(path, name))
            continue
        files |= {file.file: file.only_in(number) for file in listed}
    found = (path / MANIFEST).read_bytes() if (path / MANIFEST).is_file() else None
    if found is None or found not in data.values():
        missing = generation_of(found)
        if missing is not None and missing > there[-1]:
            if not (path / generation_file(missing)).exists():  # else it was made meanwhile
                faults.append(description_fault(path, generation_file(missing)))
        elif missing is None or generation_file(missing) in data:
            faults.append(description_fault(path, MANIFEST))
    elif found != data[generation_file(there[-1])]:
        notes.append(
            f"{MANIFEST} is that of an earlier generation; the next command that changes the dataset renews it"
        )
    for name in (generation_file(number) for number in generations(path) if number < there[0]):
        problem = "of a generation that gc was removing; vlapipe gc goes on"
        faults.append(Fault(kind="unlisted", file=name, problem=problem, is_listed=False))
    for _, _, entry in history_files(path):
        seal = Seal.of(entry.read_bytes())
        if seal.stated is None or seal.is_broken:
            faults.append(description_fault(path, entry.relative_to(path).as_posix()))
    return faults, files, notes


def generation_of(data: bytes | None) -> int | None:
    """Return the generation that the bytes of a manifest describe; ``None`` if they are damaged."""
    if data is None or Seal.of(data).is_broken:
        return None
    try:
        return int(json.loads(data).get("generation") or 1)
    except (ValueError, TypeError, AttributeError):
        return None


def description_fault(path: Path, name: str) -> Fault:
    """Return the fault of a file that describes a generation and cannot be used."""
    try:
        data = (path / name).read_bytes()
    except FileNotFoundError:
        return Fault(kind="missing", file=name, problem="no such file")
    except OSError as reason:
        raise_if_stopped(reason, path / name)
        return Fault(kind="altered", file=name, problem=f"cannot be read: {reason.strerror}")
    if is_cut(data):
        problem = f"its end is missing: found {len(data):,} bytes"
        return Fault(kind="truncated", file=name, problem=problem, found_bytes=len(data))
    return Fault(kind="altered", file=name, problem=_ALTERED, found_bytes=len(data))
