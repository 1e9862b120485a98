"""What is known of one episode before it is read: its files by stream, and what else was written down about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.many_files import ManyFiles, sizes_of
from vlapipe.pipeline.discover.unread import Unread

__all__ = ["MetadataSays", "RawEpisode", "digest_of"]

_OF_A_FILE = {"metadata", "instruction_file", "container", "ranges"}
_OF_MANY = ("folder", "pattern", "camera", "first", "num_files", "num_bytes")
_AS_THEY_ARE = (
    *("id", "task", "folder", "cameras", "stem", "rows", "num_rows", "again_at", "entry", "group", "times", "shares"),
    *("missing", "reads_part", "num_groups", "numbers", "digest", "unread"),
)
_AT_ONCE = 10_000
_NOT_SET: tuple[Any, ...] = (None, {}, ())


@dataclass(frozen=True, kw_only=True)
class MetadataSays:
    """What a dataset's own metadata says about the rows of an episode. Reading the rows compares them with it.

    ``first_row`` counts in the whole dataset. ``tasks`` are the episode's texts by their numbers, ``dtypes`` those of
    columns by name.
    """

    episode_index: int
    length: int
    first_row: int | None
    rate_hz: float
    tasks: tuple[tuple[int, str], ...]
    dtypes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RawEpisode:
    """One episode. ``files`` holds the files of each stream, sorted by name; each camera is a stream.

    Many files of a stream are listed again when they are asked for, see ``ManyFiles``; ``listed`` does so once.

    ``clock_files`` holds the clock's files of each stream or camera whose schema names such a file. If the episode is a
    part of a file, its anchor rows are ``rows[0] <= row < rows[1]``, counted as the reader returns them, and
    ``num_rows`` is the number of rows of the whole file.
    """

    id: str
    task: str
    folder: str  # relative to the dataset; "." for the dataset's own folder
    files: Mapping[str, Sequence[RawFile]]
    cameras: Mapping[str, tuple[str, ...]]  # by image stream, for streams with several cameras
    metadata: RawFile | None
    instruction_file: RawFile | None
    clock_files: Mapping[str, Sequence[RawFile]] = field(default_factory=dict)
    stem: str | None = None  # the value of {stem} if each file is an episode
    rows: tuple[int, int] | None = None
    num_rows: int | None = None
    again_at: int | None = None  # a later row with the same value of split_column, after rows with other values
    entry: dict[str, Any] = field(default_factory=dict)  # of the dataset's table of metadata
    group: str | None = None  # the episode's group in its container
    times: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds of a video that are the episode's
    shares: dict[str, float] = field(default_factory=dict)  # of a stream's files; else ``share`` of each
    missing: dict[str, str] = field(default_factory=dict)  # by stream: a file that metadata names and that is not there
    says: MetadataSays | None = None
    container: RawFile | None = None  # the anchor's container; its attributes are metadata
    reads_part: bool = False  # only ``rows`` are read, not the whole file
    num_groups: int = 1  # episodes in the container, each a group
    ranges: RawFile | None = None  # the file with the numbers of each episode's files
    numbers: tuple[int, int] | None = None  # the first and the last number of the episode's files
    digest: str | None = None  # of the names, sizes and times of all files, if they are not all named here
    unread: tuple[Unread, ...] = ()  # files in the episode's folder that the schema does not ask for

    @property
    def share(self) -> float:
        """Returns the fraction of the files that belongs to this episode: 1 unless the files are cut into several."""
        rows = (self.rows[1] - self.rows[0]) / self.num_rows if self.rows and self.num_rows else 1.0
        return rows / self.num_groups

    def share_of(self, stream: str) -> float:
        """Returns the fraction of a stream's files that belongs to this episode."""
        return self.shares.get(stream, self.share)

    @property
    def every_file(self) -> list[RawFile]:
        """Returns all files that are read: those of streams and clocks, the metadata and the instruction."""
        groups = [*self.files.values(), *self.clock_files.values()]
        single = [file for file in (self.metadata, self.instruction_file, self.ranges) if file is not None]
        return [*(file for group in groups for file in group), *single]

    @property
    def files_digest(self) -> str:
        """Returns a digest of the names, sizes and times of all files, as they were when the episode was found."""
        return self.digest or digest_of(self.every_file)

    def listed(self) -> RawEpisode:
        """Returns the episode with every file named. Folders of many files are listed again."""
        files, clocks = ({name: tuple(each) for name, each in of.items()} for of in (self.files, self.clock_files))
        return replace(self, files=files, clock_files=clocks)

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of the streams' files that are this episode's; a file of several streams counts once."""
        sizes = {
            path: self.share_of(name) * num_bytes
            for name, files in self.files.items()
            for path, num_bytes in sizes_of(files).items()
        }
        return int(sum(sizes.values()))

    def to_plain(self) -> dict[str, Any]:
        """Returns the episode as JSON has it, without what is not set."""
        plain = {name: value for name in _AS_THEY_ARE if (value := getattr(self, name)) not in _NOT_SET}
        plain |= {name: astuple(value) for name in _OF_A_FILE if (value := getattr(self, name)) is not None}
        plain |= {
            name: {each: _plain_files(files) for each, files in value.items()}
            for name in ("files", "clock_files")
            if (value := getattr(self, name))
        }
        return {**plain, **({"says": {**vars(self.says)}} if self.says is not None else {})}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RawEpisode:
        """Restore an episode from what ``to_plain`` returns, after it was JSON."""
        for name in _OF_A_FILE & plain.keys():
            plain[name] = RawFile(*plain[name])
        for name in ("files", "clock_files"):
            plain[name] = {each: _files_of(files) for each, files in plain.get(name, {}).items()}
        for name in {"rows", "numbers"} & plain.keys():
            plain[name] = tuple(plain[name])
        for name in ("cameras", "times"):
            plain[name] = {each: tuple(values) for each, values in plain.get(name, {}).items()}
        if "says" in plain:
            pairs = {name: tuple(map(tuple, plain["says"][name])) for name in ("tasks", "dtypes")}
            plain["says"] = MetadataSays(**plain["says"] | pairs)
        plain["unread"] = tuple(Unread(*each) for each in plain.get("unread", ()))
        needed: dict[str, Any] = {**dict.fromkeys(_OF_A_FILE), "task": ""}
        return cls(**needed | plain)


def _plain_files(files: Sequence[RawFile]) -> dict[str, Any] | list[tuple[str, int, int]]:
    if isinstance(files, ManyFiles):
        return {name: getattr(files, name) for name in _OF_MANY} | {"root": str(files.root)}
    return [(file.path, file.num_bytes, file.mtime_ns) for file in files]


def _files_of(plain: dict[str, Any] | list[list[Any]]) -> Sequence[RawFile]:
    if isinstance(plain, dict):
        return ManyFiles(**plain | {"root": Path(plain["root"])})
    return tuple(RawFile(*each) for each in plain)


def digest_of(files: Iterable[RawFile]) -> str:
    """Returns a digest of the names, sizes and times of files."""
    ordered = sorted(files, key=lambda file: (file.path, file.num_bytes, file.mtime_ns))
    digest = sha256(b"[")
    for start in range(0, len(ordered), _AT_ONCE):  # a folder may hold a million files
        some = [(file.path, file.num_bytes, file.mtime_ns) for file in ordered[start : start + _AT_ONCE]]
        digest.update(f"{', ' if start else ''}{json.dumps(some)[1:-1]}".encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]
