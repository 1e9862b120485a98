"""Defines the codecs that compress arrays in a shard. All codecs are lossless.

docs/decisions/0002-shard-format-and-codecs.md has the measurements behind the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlapipe.schemas.errors import UsageError

__all__ = ["RAW", "SHARD_FORMATS", "Codec", "parse_codec"]

SHARD_FORMATS = ("zarr", "npz")

# Name -> (default level, highest level). The lowest level is always 1.
_ZARR_CODECS = {"zstd": (3, 9), "lz4": (5, 9), "pcodec": (8, 12)}
_NPZ_CODECS = {"deflate": (1, 9)}
_CODECS = {"zarr": _ZARR_CODECS, "npz": _NPZ_CODECS}
_DEFAULT_CODEC = {"zarr": "zstd", "npz": "deflate"}


@dataclass(frozen=True)
class Codec:
    """A compression and its level. ``none`` stores bytes uncompressed, so they can be mapped in place."""

    name: str
    level: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.level}" if self.level else self.name


RAW = Codec("none")


def parse_codec(text: str | None, shard_format: str) -> Codec:
    """Parse ``NAME`` or ``NAME:LEVEL``. ``None`` gives the default codec of the shard format.

    Raises:
        UsageError: the format has no such codec or level.
    """
    name, _, level_text = (text or _DEFAULT_CODEC[shard_format]).partition(":")
    if name == RAW.name and not level_text:
        return RAW
    known = _CODECS[shard_format]
    if name not in known:
        choices = ", ".join([*known, RAW.name])
        raise UsageError(f"--codec {text}: a {shard_format} shard has no codec {name!r}", f"choose from {choices}")
    default, highest = known[name]
    if level_text and not (level_text.isdigit() and 1 <= int(level_text) <= highest):
        raise UsageError(f"--codec {text}: expected a level from 1 to {highest}", f"for example {name}:{default}")
    return Codec(name, int(level_text) if level_text else default)
