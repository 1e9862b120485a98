"""A fault of a stored file: its kind, its shard, and the episodes in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vlapipe.pipeline.shards.format.digest import RESTORE, file_sha256
from vlapipe.pipeline.shards.format.whole_zip import is_whole_zip
from vlapipe.pipeline.shards.manifest.generations import MANIFEST, generations
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.manifest.shards_table import ShardTables
from vlapipe.pipeline.shards.stores.copies import copy_at
from vlapipe.pipeline.shards.stores.store import leads_out
from vlapipe.schemas.errors import DamageError, printable

__all__ = ["Fault", "Kind", "ListedFile", "files_of_all_generations", "kept_generations", "listed_files"]

Kind = Literal["missing", "truncated", "altered", "swapped", "stale", "unlisted"]
_OF_SHARD = ("file", "bytes", "sha256", "episodes")
_ALTERED = "its bytes differ from those that were written"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with one file. ``file`` is its path within the dataset, ``shard`` its place in the manifest."""

    kind: Kind
    file: str
    problem: str
    is_listed: bool = True  # False for a file that the dataset does not list
    shard: int | None = None  # None for a file that is no shard of the dataset
    episodes: range | None = None  # None unless the file is a shard
    expected_bytes: int | None = None
    found_bytes: int | None = None
    generation: int | None = None  # of a file that only this older generation lists

    @property
    def is_shard(self) -> bool:
        """Returns whether the file is a shard, of this generation or of an older one."""
        return self.file.startswith(f"{SHARD_FOLDER}/")

    def __str__(self) -> str:
        of = f"generation {self.generation}: " if self.generation is not None else ""
        episodes = f"{_numbered(self.episodes)}: " if self.episodes is not None else ""
        return printable(f"{self.kind}: {self.file}: {of}{episodes}{self.problem}")

    def to_json(self) -> dict[str, Any]:
        """Return the fault as JSON, with the line that the terminal shows."""
        episodes = None if self.episodes is None else list(self.episodes)
        return {**vars(self), "episodes": episodes, "line": str(self)}


def _numbered(episodes: range) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"episodes {episodes[0]} to {episodes[-1]}" if episodes else "no episode"


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file as the manifest describes it. ``num_bytes`` is ``None`` for a table of an older vlapipe."""

    file: str
    num_bytes: int | None
    sha256: str
    shard: int | None = None
    episodes: range | None = None
    generation: int | None = None  # of a file that only this older generation lists

    @property
    def is_shard(self) -> bool:
        """Returns whether the file is a shard, of this generation or of an older one."""
        return self.file.startswith(f"{SHARD_FOLDER}/")

    def only_in(self, generation: int) -> ListedFile:
        """Return the file as one that the dataset no longer needs, of an older generation."""
        return replace(self, shard=None, episodes=None, generation=generation)

    def fault(self, kind: Kind, problem: str, found_bytes: int | None = None) -> Fault:
        """Return a fault of this file."""
        return Fault(
            kind=kind,
            file=self.file,
            problem=problem,
            shard=self.shard,
            episodes=self.episodes,
            expected_bytes=self.num_bytes,
            found_bytes=found_bytes,
            generation=self.generation,
        )

    def check_size(self, folder: Path, found: int | None, others: dict[str, ListedFile]) -> Fault | None:
        """Compare the size; ``found`` is ``None`` if there is no file. Only a file of a wrong size may be read."""
        if found is None:
            return self.fault("missing", "no such file")
        if self.num_bytes in (None, found):
            return None
        sizes = f"expected {self.num_bytes:,} bytes, found {found:,}"
        if any(found == other.num_bytes for other in others.values()):
            same_digest = others.get(self._sha256(folder, found))
            if same_digest is not None:
                return self._swapped(same_digest, found)
        if self.num_bytes is not None and found < self.num_bytes and not self._is_stale(folder, found):
            return self.fault("truncated", sizes, found)
        return self._altered(folder, f"{_ALTERED}: {sizes}", found)

    def check_bytes(self, folder: Path, found_bytes: int, others: dict[str, ListedFile]) -> Fault | None:
        """Read the file, whose size is as written, and compare its digest. ``others`` are all files by digest."""
        try:
            digest = self._sha256(folder, found_bytes)
        except DamageError as error:
            return self.fault("altered", error.problem.partition(": ")[2], found_bytes)
        if digest == self.sha256:
            return None
        if digest in others:
            return self._swapped(others[digest], found_bytes)
        return self._altered(folder, _ALTERED, found_bytes)

    def _swapped(self, other: ListedFile, found_bytes: int) -> Fault:
        return self.fault("swapped", f"it holds the bytes of {other.file}", found_bytes)

    def _altered(self, folder: Path, problem: str, found_bytes: int) -> Fault:
        if self._is_stale(folder, found_bytes):
            return self.fault("stale", "it is a whole shard, but of another ingest", found_bytes)
        return self.fault("altered", problem, found_bytes)

    def _sha256(self, folder: Path, num_bytes: int) -> str:
        copy = copy_at(folder)
        return copy.store.sha256(self.file, num_bytes) if copy else file_sha256(folder / self.file)

    def _is_stale(self, folder: Path, found_bytes: int) -> bool:
        if copy_at(folder):
            return False  # it would have to be fetched whole to be told from one whose bytes were altered
        may_be_deflated = found_bytes != self.num_bytes
        return self.is_shard and is_whole_zip(folder / self.file, may_be_deflated=may_be_deflated)


def listed_files(
    manifest: Manifest, *, unknown: list[str] | None = None, without: Collection[str] = ()
) -> list[ListedFile]:
    """Returns the tables and then the shards that the manifest lists, with the episodes of each shard.

    Episodes are in the order of the shards, so their numbers follow from the list of shards.

    Args:
        manifest: of one generation.
        unknown: collects the names of damaged tables of shards, whose shards are left out.
        without: tables whose shards are left out, because they are known.

    Raises:
        DamageError: the manifest names a file outside the dataset, or lacks an entry; or a table of shards is damaged
            and ``unknown`` is not given.
    """
    try:
        files = _files_of(manifest, unknown, without)
        for file in files:
            if file.file.count("/") > 1 or leads_out(file.file):
                raise DamageError(f"{MANIFEST}: names a file outside the dataset: {file.file}")
    except (KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"{MANIFEST}: an entry is missing or altered: {error}", RESTORE) from None
    return files


def _files_of(manifest: Manifest, unknown: list[str] | None, without: Collection[str]) -> list[ListedFile]:
    files = [ListedFile(file=t["file"], num_bytes=t.get("bytes"), sha256=t["sha256"]) for t in manifest.tables]
    for number, part in enumerate(manifest.all_parts):
        if part.shards is None or not isinstance(manifest.shards, ShardTables):
            shards = [tuple(shard[name] for name in _OF_SHARD) for shard in manifest.shards]
        elif part.shards["file"] in without:
            continue
        else:
            try:
                shards = manifest.shards.of_table(number, _OF_SHARD)
            except DamageError:
                if unknown is None:
                    raise
                unknown.append(part.shards["file"])
                continue
        first = part.first_episode
        for i, (file, num_bytes, sha256, count) in enumerate(shards, part.first_shard):
            episodes = range(first, first + count)
            first = episodes.stop
            files.append(ListedFile(file=file, num_bytes=num_bytes, sha256=sha256, shard=i, episodes=episodes))
    return files


def files_of_all_generations(folder: Path) -> dict[str, ListedFile]:
    """Returns every file that any generation of a dataset lists, by its path within the dataset.

    Files of the newest generation come first. Generations that gc is removing are not read.

    Raises:
        DamageError: a generation's file is damaged.
    """
    newest = Manifest.read(folder)
    files = {file.file: file for file in listed_files(newest)}
    for number in reversed(kept_generations(folder, newest)[:-1]):
        for file in listed_files(Manifest.read(folder, number), without=files.keys()):
            files.setdefault(file.file, file.only_in(number))
    return files


def kept_generations(folder: Path, newest: Manifest) -> list[int]:
    """Returns the numbers of the generations that have a file and are to be kept, the newest one last."""
    return [number for number in generations(folder) if number >= (newest.oldest or 1)] or [1]
