"""Where whole files come from: a copy of the dataset, or the recordings (``from_source``)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from vlapipe.pipeline.shards.manifest.manifest import MANIFEST, Manifest
from vlapipe.pipeline.shards.stores.copies import shown
from vlapipe.pipeline.shards.stores.store import Store
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import Address
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["FromCopy", "Origin"]


class Origin(Protocol):
    """Makes files of a dataset again. The caller compares their digests, so a wrong file does no harm."""

    def make(self, files: list[str], folder: Path, manifest: Manifest | None) -> None:
        """Write into ``folder`` those of these files that can be made, under their paths within the dataset.

        ``manifest`` is the dataset's, or ``None`` if it is the manifest that is to be made.
        """

    def is_same_dataset(self, manifest: bytes) -> bool:
        """Return whether the files come from a dataset with exactly this manifest."""

    def why(self, file: str) -> str:
        """Say why a file was not made, or came out with other bytes."""


class FromCopy:
    """A copy of the dataset in another folder, or in a store."""

    def __init__(self, dataset: Path, copy: Path) -> None:
        if shown(dataset) == copy or (not isinstance(copy, Address) and copy.resolve() == dataset.resolve()):
            raise UsageError(f"--from {copy}: is the dataset itself", "give the folder of a copy of it")
        if not isinstance(copy, Address) and not copy.is_dir():
            raise UsageError(f"--from {copy}: no such folder", "give the folder of a copy of the dataset")
        self._copy = copy
        self._store = Store(copy) if isinstance(copy, Address) else None
        self._present: set[str] = set()  # of the files that were asked for

    def make(self, files: list[str], folder: Path, manifest: Manifest | None) -> None:
        """Copy the files."""
        del manifest
        for file in files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._take(file, target)
                self._present.add(file)
            except OSError as error:
                raise_if_stopped(error, target)
                target.unlink(missing_ok=True)

    def _take(self, file: str, target: Path) -> None:
        if self._store is None:
            shutil.copyfile(self._copy / file, target)
            return
        num_bytes = self._store.size(file)
        if num_bytes is None:
            raise FileNotFoundError(file)
        with target.open("wb") as written:
            self._store.download(file, written, num_bytes)

    def is_same_dataset(self, manifest: bytes) -> bool:
        """Compare the copy's manifest."""
        try:
            found = (self._copy / MANIFEST).read_bytes() if self._store is None else self._store.read(MANIFEST)
        except OSError as error:
            raise_if_stopped(error, self._copy / MANIFEST)
            return False
        return found == manifest

    def why(self, file: str) -> str:
        """Say what is wrong with the copy's file."""
        return f"{self._copy / file} {'has other bytes too' if file in self._present else 'is missing too'}"
