"""Where whole files come from: a copy of the dataset, or the recordings (``from_source``)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from vlapipe.pipeline.shards.manifest.manifest import MANIFEST, Manifest
from vlapipe.schemas.errors import UsageError
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
    """A copy of the dataset in another folder."""

    def __init__(self, dataset: Path, copy: Path) -> None:
        if not copy.is_dir():
            raise UsageError(f"--from {copy}: no such folder", "give the folder of a copy of the dataset")
        if copy.resolve() == dataset.resolve():
            raise UsageError(f"--from {copy}: is the dataset itself", "give the folder of a copy of it")
        self._copy = copy

    def make(self, files: list[str], folder: Path, manifest: Manifest | None) -> None:
        """Copy the files."""
        del manifest
        for file in files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(self._copy / file, target)
            except OSError as error:
                raise_if_stopped(error, target)
                target.unlink(missing_ok=True)

    def is_same_dataset(self, manifest: bytes) -> bool:
        """Compare the copy's manifest."""
        try:
            return (self._copy / MANIFEST).read_bytes() == manifest
        except OSError as error:
            raise_if_stopped(error, self._copy / MANIFEST)
            return False

    def why(self, file: str) -> str:
        """Say what is wrong with the copy's file."""
        state = "has other bytes too" if (self._copy / file).is_file() else "is missing too"
        return f"{self._copy / file} {state}"
