"""The files of one stream of an episode, when there are many: memory holds how to find them, and not their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

from vlapipe.pipeline.discover.file_tree import FileTree, escaped
from vlapipe.pipeline.discover.listing import RawFile

__all__ = ["ManyFiles", "bytes_of", "first_of", "in_number_order", "number_of", "sizes_of"]

_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyFiles(Sequence[RawFile]):
    """A sequence of files that are listed again each time they are asked for, in the order of ``FileTree.find``.

    ``num_files`` and ``num_bytes`` are those of the first time. A file that is gone or new since then is missing or
    there when the files are read; a later ingest sees by the episode's digest that the recording has changed.
    """

    root: Path
    folder: str
    pattern: str  # in which {stem} is filled in
    camera: str | None  # the only value of {camera}, if not all are in question
    first: str  # path of the first file
    num_files: int
    num_bytes: int

    @classmethod
    def of(
        cls, root: Path, folder: str, pattern: str, stem: str | None, camera: str | None, files: Sequence[RawFile]
    ) -> ManyFiles:
        """Returns the files that ``FileTree(root).find(folder, pattern, stem)`` has found, of one camera or of all."""
        return cls(
            root=root,
            folder=folder,
            pattern=pattern if stem is None else pattern.replace("{stem}", escaped(stem)),
            camera=camera,
            first=files[0].path,
            num_files=len(files),
            num_bytes=sum(file.num_bytes for file in files),
        )

    @property
    def only_folder(self) -> str | None:
        """The folder that holds all of them, if the pattern names one."""
        above = self._narrow.rpartition("/")[0]
        return None if any(sign in above for sign in "*?[{") else str(PurePosixPath(self.first).parent)

    def __len__(self) -> int:
        return self.num_files

    def __iter__(self) -> Iterator[RawFile]:
        return iter(self._listed())

    @overload
    def __getitem__(self, at: int) -> RawFile: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[RawFile, ...]: ...
    def __getitem__(self, at: int | slice) -> RawFile | tuple[RawFile, ...]:
        return self._listed()[at]

    @property
    def _narrow(self) -> str:
        """The pattern with the camera's folder filled in, so that other cameras' folders are not listed."""
        parts = self.pattern.split("/")
        if self.camera is not None:
            parts[:-1] = [escaped(self.camera) if part == "{camera}" else part for part in parts[:-1]]
        return "/".join(parts)

    def _listed(self) -> tuple[RawFile, ...]:
        pattern = self._narrow
        found = FileTree(self.root).find(self.folder, pattern)
        is_any = self.camera is None or "{camera}" not in pattern
        ours = [one.file for one in found if is_any or one.camera == self.camera]
        return tuple(ours)


def number_of(path: str) -> int:
    """Returns the last number in a file's name, -1 if there is none."""
    found = _NUMBERS.findall(PurePosixPath(path).stem)
    return int(found[-1]) if found else -1


def in_number_order(files: Iterable[RawFile]) -> tuple[RawFile, ...]:
    """Returns files of one row each in the order of the numbers in their names."""
    return tuple(sorted(files, key=lambda file: (number_of(file.path), file.path)))


def first_of(files: Sequence[RawFile]) -> str:
    """Returns the path of the first of one or more files. No folder is listed for it."""
    return files.first if isinstance(files, ManyFiles) else files[0].path


def sizes_of(files: Sequence[RawFile]) -> dict[str, int]:
    """Returns bytes by path; many files count as one, under the path of the first."""
    if isinstance(files, ManyFiles):
        return {files.first: files.num_bytes}
    return {file.path: file.num_bytes for file in files}


def bytes_of(files: Sequence[RawFile]) -> int:
    """Returns the bytes of all files."""
    return sum(sizes_of(files).values())
