"""Damages single files of a dataset, for the tests of ``verify`` and ``repair``."""

from __future__ import annotations

from pathlib import Path

from tiny_lab import ingest_lab, make_lab, schema_text


def lab_dataset(root: Path, *, num_episodes: int = 8) -> Path:
    """A dataset of several shards with two episodes each."""
    make_lab(root / "raw", {f"ep{i}": {} for i in range(num_episodes)})
    size = sum(file.stat().st_size for file in (root / "raw" / "ep0").iterdir()) // 8 * 2 + 2
    ingest_lab(root / "raw", root / "data", schema_text(), shard_bytes=size, workers=1)
    return root / "data"


def flip(file: Path, *, at: float = 0.5) -> Path:
    """Flip one bit."""
    data = bytearray(file.read_bytes())
    data[int(len(data) * at)] ^= 1
    return rewrite(file, bytes(data))


def rewrite(file: Path, data: bytes) -> Path:
    """Give a file, which may be read-only, other bytes."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    return file


def tree(folder: Path) -> dict[str, bytes]:
    """All files with their bytes, by path."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def shards_of(dataset: Path) -> list[Path]:
    """The files of the shards, in order."""
    return sorted((dataset / "shards").iterdir())
