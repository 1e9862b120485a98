"""Sorts the images of an episode by how they are read: as they are, as depth, or turned into PNG. Looks at headers."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from PIL import Image

__all__ = ["CONVERTED", "DEPTH", "METRES", "sort_images"]

CONVERTED = {".webp", ".bmp", ".tif", ".tiff"}
DEPTH = "depth"
METRES = "depth in metres"
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}
_BOTH = (".jpg", ".png")
_FORMATS = ("PNG", "TIFF")


def sort_images(root: Path, paths: list[str]) -> dict[str, list[str]]:
    """Return the paths by their kind: a suffix in lower case, ``DEPTH`` for one channel of 16 bits, or ``METRES``.

    ``METRES`` are fractions in one channel, as depth cameras write them.

    Only the first image of each folder and name (digits left open) is opened.
    """
    kind_of: dict[tuple[str, str], str] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        pure = PurePosixPath(path)
        key = (str(pure.parent), _open(pure.name))
        if key not in kind_of:
            suffix = pure.suffix.lower()
            kind_of[key] = _depth(root / path) or _SAME.get(suffix, suffix)
        found[kind_of[key]].append(path)
    _join_alike(found)
    return dict(sorted(found.items(), key=lambda item: (item[0] in (DEPTH, METRES), item[0])))


def _join_alike(found: dict[str, list[str]]) -> None:
    """Counts PNG files as JPEG files if one camera wrote both: names are alike, and no image is there as both."""
    jpg, png = ({path: str(PurePosixPath(path).with_suffix("")) for path in found.get(kind, ())} for kind in _BOTH)
    twice = {_open(stem) for stem in set(jpg.values()) & set(png.values())}
    alike = {_open(stem) for stem in jpg.values()} - twice
    moved = {path for path, stem in png.items() if _open(stem) in alike}
    if moved:
        found[".jpg"] = sorted([*jpg, *moved])
        found[".png"] = [path for path in png if path not in moved]
        if not found[".png"]:
            del found[".png"]


def _open(name: str) -> str:
    """Returns a name with its digits left open."""
    return re.sub(r"\d+", "#", name)


def _depth(path: Path) -> str | None:
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        return None
    try:
        with Image.open(path, formats=_FORMATS) as image:  # reads the header alone
            return DEPTH if image.mode.startswith("I") else METRES if image.mode == "F" else None
    except Exception:  # noqa: BLE001 - a damaged header fails in a dozen ways; the reader reports it
        return None
