"""Opens the containers of one stream of an episode, whatever their kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.read.containers.arrays import ArrayEntry, ArrayFiles, Part, source_of
from vlapipe.pipeline.read.containers.bag import open_bag
from vlapipe.pipeline.read.containers.hdf5 import open_hdf5
from vlapipe.pipeline.read.containers.npz import open_npy, open_npz
from vlapipe.pipeline.read.containers.parquet import open_parquet
from vlapipe.pipeline.read.containers.zarr import open_zarr
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayKind
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["kind_of", "open_container"]

_KINDS: dict[str, ArrayKind] = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".bag": "bag",
    ".db3": "bag",
    ".mcap": "bag",
}
_OPENERS = {"npz": open_npz, "hdf5": open_hdf5, "zarr": open_zarr, "parquet": open_parquet, "bag": open_bag}


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
) -> Iterator[ArrayFiles | None]:
    """Opens one container, or NPY files that are named after their arrays. Yields ``None`` if it is unreadable.

    Args:
        root: the dataset's folder.
        files: paths relative to ``root``.
        findings: collects the faults.
        kind: the container's kind; by default the one that its name tells.
        base: the group or topic below which names are looked up. A name with a leading ``/`` counts from the top.
        part: the rows of the episode, if the container holds several.
    """
    label = files[0] if len(files) == 1 else str(PurePosixPath(files[0]).parent)
    arrays: Mapping[str, ArrayEntry] = {}
    with contextlib.ExitStack() as stack:
        try:
            source = source_of(root, files, label)
            for file in files:
                opener = open_npy if file.endswith(".npy") else _OPENERS[kind or kind_of(file)]
                found = opener(root / file, file, base, stack, findings)
                if found is None:
                    yield None
                    return
                arrays = {**arrays, **found} if arrays else found
        except OSError as error:
            raise_if_stopped(error, root / label)
            findings.add("file.unreadable", label, found=error.strerror or str(error))
            yield None
            return
        yield ArrayFiles(label=label, source=source, arrays=arrays, part=part)
