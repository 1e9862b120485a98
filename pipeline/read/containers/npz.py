"""Opens NPZ and NPY files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vlapipe.pipeline.read.containers.arrays import ArrayEntry, stop_for
from vlapipe.pipeline.read.text import first_line
from vlapipe.schemas.findings import Findings

__all__ = ["open_npy", "open_npz"]


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
    arrays = {name: ArrayEntry(file=label, load=_member_loader(archive, name)) for name in archive.files}
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
        # np.load would also open the file if it were an archive.
        array = np.lib.format.read_array(file, allow_pickle=False)
        return array if rows is None else array[rows]

    return {PurePosixPath(label).stem: ArrayEntry(file=label, load=load)}


def _member_loader(archive: Any, name: str) -> Any:
    return lambda rows: archive[name] if rows is None else archive[name][rows]
