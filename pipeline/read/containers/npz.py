"""Opens NPZ and NPY files."""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vlapipe.pipeline.read.containers.arrays import ArrayEntry, stop_for
from vlapipe.pipeline.read.refused import RefusedError, refuse_size
from vlapipe.pipeline.read.text import first_line
from vlapipe.pipeline.shards.format.npy_header import read_npy_header
from vlapipe.schemas.findings import Findings

__all__ = ["holds_one_array", "open_npy", "open_npz"]

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def holds_one_array(path: Path) -> bool:
    """Returns whether a file is NPY by its name, or, if the name has no extension, by its first bytes."""
    if path.suffix or not path.is_file():
        return path.suffix == ".npy"
    with path.open("rb") as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def open_npz(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> dict[str, ArrayEntry] | None:
    """Returns the arrays of an NPZ file, which stays open as long as ``stack``; ``None`` with a finding if it is none.

    With ``base``, the names of arrays below it count from it. Findings call the file ``label``.
    """
    try:
        archive = np.load(stack.enter_context(path.open("rb")), allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - a broken archive fails in a dozen ways
        stop_for(error, label)
        findings.add("npz.unreadable", label, expected="an NPZ archive", found=first_line(error))
        return None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        findings.add("npz.unreadable", label, expected="an NPZ archive", found="a single array (name it .npy)")
        return None
    stack.enter_context(archive)
    arrays = {name: ArrayEntry(file=label, load=_MemberLoader(archive, name)) for name in archive.files}
    start = f"{base}/" if base else ""
    below = {name.removeprefix(start): entry for name, entry in arrays.items() if name.startswith(start)}
    return {**below, **{f"/{name}": entry for name, entry in arrays.items()}} if base else below


def open_npy(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> dict[str, ArrayEntry] | None:
    """Returns the one array of an NPY file, named after the file."""
    del base, findings
    file = stack.enter_context(path.open("rb"))

    def load(rows: slice | None) -> Any:
        file.seek(0)
        _refuse_header(file, path.stat().st_size, path.stat().st_size)
        file.seek(0)
        # np.load would also open the file if it were an archive.
        array = np.lib.format.read_array(file, allow_pickle=False)
        return array if rows is None else array[rows]

    return {PurePosixPath(label).stem: ArrayEntry(file=label, load=load)}


class _MemberLoader:
    """Loads one member, which may not claim far more bytes than it takes in the archive."""

    def __init__(self, archive: Any, name: str) -> None:
        self._archive, self._name = archive, name

    def __call__(self, rows: slice | None) -> Any:
        names = {member.filename: member for member in self._archive.zip.infolist()}
        member = names.get(self._name) or names[f"{self._name}.npy"]
        if member.compress_type not in _PACKED:  # LZMA, which no writer of NPZ files uses, may ask for 4 GB
            raise RefusedError("npz.codec", "an array stored or packed by deflate", f"method {member.compress_type}")
        with self._archive.zip.open(member) as file:
            _refuse_header(file, member.file_size, member.compress_size)
        array = self._archive[self._name]
        return array if rows is None else array[rows]


def _refuse_header(file: Any, num_bytes: int, stored_bytes: int) -> None:
    """Raises if the header claims more memory than the file can fill. Anything else is left to the library."""
    try:
        shape, _, dtype = read_npy_header(file)
    except (ValueError, EOFError):
        return
    refuse_size(shape, dtype.itemsize, min(num_bytes, stored_bytes))
