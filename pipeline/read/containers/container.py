"""Opens the containers of one stream of an episode, whatever their kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.read.containers.arrays import ArrayEntry, ArrayFiles, Part, source_of
from vlapipe.pipeline.read.containers.attributes import plain_attributes
from vlapipe.pipeline.read.containers.bag import open_bag
from vlapipe.pipeline.read.containers.hdf5 import open_hdf5
from vlapipe.pipeline.read.containers.lazy import LazyArrays
from vlapipe.pipeline.read.containers.names import fits_parts
from vlapipe.pipeline.read.containers.npz import holds_one_array, open_npy, open_npz
from vlapipe.pipeline.read.containers.one_row import rows_of_files
from vlapipe.pipeline.read.containers.parquet import open_parquet
from vlapipe.pipeline.read.containers.pickle_arrays import open_pickle
from vlapipe.pipeline.read.containers.zarr import open_zarr
from vlapipe.pipeline.read.refused import RefusedError, refuse_holes
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayKind
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["attributes_of", "groups_of", "kind_of", "open_container"]

_KINDS: dict[str, ArrayKind] = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".bag": "bag",
    ".db3": "bag",
    ".mcap": "bag",
    ".pkl": "pickle",
    ".pickle": "pickle",
}
_OPENERS = {"npz": open_npz, "hdf5": open_hdf5, "zarr": open_zarr, "parquet": open_parquet, "pickle": open_pickle}


def kind_of(path: str) -> ArrayKind:
    """Returns the kind of a container by its name; ``npz`` if the name tells nothing."""
    name = path.lower()
    return "zarr" if name.endswith(".zarr.zip") else _KINDS.get(PurePosixPath(name).suffix, "npz")


@contextlib.contextmanager
def open_container(
    root: Path,
    files: list[str],
    findings: Findings,
    *,
    kind: ArrayKind | None = None,
    base: str | None = None,
    part: Part | None = None,
    one_row_a_file: bool = False,
    hashed: bool = True,
) -> Iterator[ArrayFiles | None]:
    """Opens one container, or NPY files that are named after their arrays. Yields ``None`` if it is unreadable.

    Args:
        root: the dataset's folder.
        files: paths relative to ``root``.
        findings: collects the faults.
        kind: the container's kind; by default the one that its name tells.
        base: the group or topic below which names are looked up. A name with a leading ``/`` counts from the top.
        part: the rows of the episode, if the container holds several.
        one_row_a_file: each file is a container with one row of each array.
        hashed: the digest of the files is wanted.
    """
    label = files[0] if len(files) == 1 else str(PurePosixPath(files[0]).parent)
    with contextlib.ExitStack() as stack:
        # Opened before the thread that hashes starts, so that the thread is waited for even if an array is damaged.
        hashing = stack.enter_context(ThreadPoolExecutor(1))
        try:
            for file in files:
                refuse_holes(root / file)
            if (kind or kind_of(files[0])) == "bag":
                arrays: Mapping[str, ArrayEntry] | None = open_bag(root, files, base or "", findings)
            elif one_row_a_file:
                open_one = partial(_open, root, base=base, kind=kind)
                arrays = rows_of_files(files, open_one, findings)
            else:
                arrays = _open(root, files, stack, findings, base=base, kind=kind)
        except RefusedError as refused:
            findings.add(refused.code, file, expected=refused.expected, found=refused.found)
            arrays = None
        except OSError as error:
            raise_if_stopped(error, root / label)
            findings.add("file.unreadable", label, found=error.strerror or str(error))
            arrays = None
        if arrays is None:
            yield None
            return
        source = hashing.submit(source_of, root, files, label) if hashed else None
        yield ArrayFiles(label=label, arrays=arrays, part=part, hashed=source)


def _open(
    root: Path,
    files: list[str],
    stack: contextlib.ExitStack,
    findings: Findings,
    *,
    base: str | None,
    kind: ArrayKind | None,
) -> Mapping[str, ArrayEntry] | None:
    arrays: Mapping[str, ArrayEntry] = {}
    for file in files:
        opener = open_npy if holds_one_array(root / file) else _OPENERS[kind or kind_of(file)]
        found = opener(root / file, file, base, stack, findings)
        if found is None:
            return None
        arrays = {**arrays, **found} if arrays else found
    return arrays


def groups_of(arrays: Mapping[str, ArrayEntry], pattern: str) -> list[str]:
    """Returns the groups of a container, opened without a base, that fit ``pattern`` part by part, in natural order."""
    if isinstance(arrays, LazyArrays):
        return arrays.groups(pattern)
    depth = pattern.strip("/").count("/") + 1
    starts = {"/".join(name.split("/")[:depth]) for name in arrays if name.count("/") >= depth}
    return sorted((start for start in starts if fits_parts(start, pattern)), key=natural_order)


def attributes_of(arrays: Mapping[str, ArrayEntry], group: str) -> dict[str, Any]:
    """Returns the attributes of a group and of the groups above it, by name; those of the inner group win."""
    if not isinstance(arrays, LazyArrays):
        return {}
    parts = group.strip("/").split("/") if group.strip("/") else []
    found: dict[str, Any] = {}
    for end in range(len(parts) + 1):
        found |= arrays.attributes("/".join(parts[:end]))
    return plain_attributes(found)
