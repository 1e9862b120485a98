"""Reports on and clears a folder of unpacked shards. Clearing removes only our own files that no process uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.file_locks import is_locked, remove_unlocked
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.mapped.cache_files import CacheFile, cache_folder, cache_limit, list_cache, read_header
from vlapipe.pipeline.shards.mapped.mapped_shards import fetched_key, shard_key
from vlapipe.pipeline.shards.stores.copies import copy_at, shown
from vlapipe.pipeline.show.readable_numbers import counted, format_bytes

__all__ = ["CacheChoice", "cache_lines", "clear_cache", "describe_cache"]

_FETCHED = "fetched from stores"


@dataclass(frozen=True)
class CacheChoice:
    """The cache folder that the user chose, and the dataset if one was given.

    ``keys`` are the cache keys of the dataset's shards, computed from its manifest alone; ``None`` without a dataset.
    ``fetched_keys`` are those of the files that were fetched, if the dataset lies in a store.
    """

    folder: Path
    dataset: Path | None
    keys: frozenset[str] | None
    fetched_keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, dataset: Path | None, cache_dir: Path | None) -> CacheChoice:
        """Resolve the user's choice. Without a dataset, the choice covers every dataset that is unpacked in the folder.

        Raises:
            NotADatasetError: ``dataset`` is not a dataset.
        """
        if dataset is None:
            return cls(cache_folder(None, cache_dir), None, None)
        manifest = Manifest.read(dataset)
        keys = frozenset(shard_key(manifest, shard) for shard in range(len(manifest.shards)))
        fetched = frozenset(fetched_key(manifest, shard) for shard in range(len(manifest.shards)))
        return cls(cache_folder(dataset, cache_dir), dataset, keys, fetched if copy_at(dataset) else frozenset())

    def files(self) -> list[tuple[CacheFile, dict[str, Any]]]:
        """List the cache entries, each with its header."""
        found = []
        for file in _list(self.folder):
            keys = self.fetched_keys if _is_fetched(file) else self.keys
            if file.key is None or (self.keys is not None and file.key not in (keys or ())):
                continue
            header = {"dataset": _FETCHED} if _is_fetched(file) else _header(file.path)
            if header is not None:
                found.append((file, header))
        return found

    def unfinished(self) -> list[CacheFile]:
        """List the files that a process is unpacking now, or was unpacking when it died."""
        return [file for file in _list(self.folder) if file.key is None]


def describe_cache(choice: CacheChoice) -> dict[str, Any]:
    """Report on the cache folder and, by dataset, on its unpacked shards.

    For each dataset: number of shards (if known), how many are unpacked and in use, their bytes, and the last use.
    """
    by_dataset: dict[str, list[CacheFile]] = {}
    for file, header in choice.files():
        name = str(shown(choice.dataset) if choice.dataset is not None else header.get("dataset"))
        by_dataset.setdefault(name, []).append(file)
    if choice.dataset is not None:
        by_dataset.setdefault(str(shown(choice.dataset)), [])
    return {
        "folder": str(choice.folder),
        "limit_bytes": cache_limit(None),
        "datasets": [
            {
                "dataset": name,
                "num_shards": None if choice.keys is None else len(choice.keys),
                "num_unpacked": sum(not _is_fetched(file) for file in files),
                "num_fetched": sum(map(_is_fetched, files)),
                "num_in_use": sum(is_locked(file.path) for file in files),
                "num_bytes": sum(file.num_bytes for file in files),
                "last_used": max((_time(file) for file in files), default=None),
            }
            for name, files in sorted(by_dataset.items())
        ],
        "unfinished": {"num_files": len(choice.unfinished()), "num_bytes": _bytes(choice.unfinished())},
    }


def clear_cache(choice: CacheChoice) -> dict[str, Any]:
    """Remove the entries that no process uses and the files that killed processes left. Returns what was freed."""
    files = [file for file, _ in choice.files()]
    removed = [file for file in files if remove_unlocked(file.path, if_unknown=True)]
    swept = [file for file in choice.unfinished() if remove_unlocked(file.path, if_unknown=False)]
    return {
        "folder": str(choice.folder),
        "num_removed": len(removed),
        "num_in_use": len(files) - len(removed),
        "freed_bytes": _bytes(removed + swept),
    }


def cache_lines(report: dict[str, Any]) -> list[str]:
    """Return the report of ``describe_cache`` as lines of text."""
    lines = [f"{report['folder']}: {_summary(report)}"]
    for entry in report["datasets"]:
        of = "" if entry["num_shards"] is None else f" of {entry['num_shards']}"
        line = f"  {entry['dataset']}: {entry['num_unpacked']}{of} shards unpacked"
        line += f", {entry['num_fetched']} fetched" if entry["num_fetched"] else ""
        if entry["num_bytes"]:
            line += f", {format_bytes(entry['num_bytes'])}, last used {entry['last_used']}"
            line += f", {entry['num_in_use']} in use" if entry["num_in_use"] else ", none in use"
        lines.append(line)
    if report["unfinished"]["num_files"]:
        unfinished = report["unfinished"]
        lines.append(f"  being unpacked or left by a killed process: {format_bytes(unfinished['num_bytes'])}")
    return lines


def _summary(report: dict[str, Any]) -> str:
    unpacked = sum(entry["num_unpacked"] for entry in report["datasets"])
    if not any(entry["num_bytes"] for entry in report["datasets"]):
        return "nothing is unpacked"
    num_bytes = sum(entry["num_bytes"] for entry in report["datasets"])
    limit = "" if report["limit_bytes"] is None else f" of {format_bytes(report['limit_bytes'])} allowed"
    return f"{counted(unpacked, 'shard')}, {format_bytes(num_bytes)}{limit}"


def _is_fetched(file: CacheFile) -> bool:
    """Return whether the file is a shard as it lies in a store."""
    return file.path.suffix == ".fetched"


def _list(folder: Path) -> list[CacheFile]:
    return list_cache(folder) if folder.is_dir() else []


def _header(path: Path) -> dict[str, Any] | None:
    """Return the header, or ``None`` if the file is not ours and only has such a name."""
    try:
        with path.open("rb") as file:
            return read_header(file)
    except OSError:
        return None


def _time(file: CacheFile) -> str:
    return datetime.fromtimestamp(file.last_used_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _bytes(files: Iterable[CacheFile]) -> int:
    return sum(file.num_bytes for file in files)
