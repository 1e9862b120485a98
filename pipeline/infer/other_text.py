"""Whether a file whose suffix says nothing is text that may be a table, by its first bytes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_other_text"]

_HEAD_BYTES = 4 << 10
_MOSTLY = 0.95
_PRINTABLE = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_NEVER = {  # text, and no recording
    ".md", ".rst", ".json", ".jsonl", ".xml", ".html", ".htm", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".m",
    ".c", ".cpp", ".h", ".hpp", ".js", ".sh", ".bat", ".urdf", ".xacro", ".launch", ".ipynb", ".svg", ".tex", ".bib",
    ".pdf", ".jpg", ".jpeg", ".png", ".obj", ".stl", ".ply", ".pcd",
}  # fmt: skip


def is_other_text(path: Path) -> bool:
    """Whether nearly all of the first bytes can be printed, and none is zero."""
    if path.suffix.lower() in _NEVER or path.name.startswith("."):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    printable = len(head) - len(head.translate(None, _PRINTABLE))
    return b"\0" not in head and printable > _MOSTLY * len(head)
