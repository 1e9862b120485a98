"""Unpacks chunks, messages and files of bags. What is unpacked never exceeds a limit, whatever its header says.

The readers of rosbags and mcap unpack without a limit, so that 1 MB of a hostile file fills any memory.
"""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.extras import need

__all__ = ["MOST_AT_ONCE", "ZSTD_MAGIC", "unpack", "unpack_file"]

MOST_AT_ONCE = 256 << 20  # bytes of one chunk or message; recorders write chunks of 0.8 to 4 MB
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST_OF_FILE = (256 << 20, 500)  # a packed file may become this large, or this many times as large
_PIECE = 4 << 20


def unpack(data: Any, compression: str, most: int, place: str) -> bytes:
    """Returns the unpacked bytes: at most ``most``, and never more than ``MOST_AT_ONCE``.

    Args:
        data: the packed bytes.
        compression: ``bz2``, ``lz4`` (frames) or ``zstd``.
        most: what the header says, or a limit.
        place: where the bytes stand, for the error.

    Raises:
        RefusedError: the bytes are damaged, or become more than they may.
    """
    if most > MOST_AT_ONCE:
        raise RefusedError("bag.damaged", f"at most {MOST_AT_ONCE >> 20} MB at once", f"{most} bytes at {place}")
    try:
        unpacked = _unpack(data, compression, most + 1)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - each package has errors of its own
        raise RefusedError("bag.damaged", f"bytes packed by {compression}", f"others at {place} ({error})") from None
    if len(unpacked) > most:
        raise RefusedError("bag.damaged", f"{most} unpacked bytes, as its header says", f"more at {place}")
    return unpacked


def _unpack(data: Any, compression: str, most: int) -> bytes:
    if compression == "zstd":
        zstandard = need("zstandard", "bags", "a bag packed by zstd")
        stated = zstandard.frame_content_size(data)  # -1: not stated
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
            unpacked: bytes = reader.read(min(most, stated + 1) if stated >= 0 else most)
            return unpacked
    if compression == "lz4":
        frame = need("lz4.frame", "bags", "a bag packed by lz4")
        return bytes(frame.LZ4FrameDecompressor().decompress(data, max_length=most))
    return bz2.BZ2Decompressor().decompress(data, max_length=most)


def unpack_file(packed: Path, into: Path, label: str) -> None:
    """Writes the content of a file that is packed by zstd as a whole.

    Raises:
        RefusedError: the file is damaged, or becomes more than a recording does.
        OSError: the disk is full, for example.
    """
    zstandard = need("zstandard", "bags", "a bag packed by zstd")
    most = max(_MOST_OF_FILE[0], _MOST_OF_FILE[1] * packed.stat().st_size)
    written = 0
    with packed.open("rb") as source, into.open("wb") as target:
        try:
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source) as reader:
                while piece := reader.read(_PIECE):
                    written += len(piece)
                    if written > most:
                        raise RefusedError("bag.damaged", f"at most {most} unpacked bytes", f"more in {label}")
                    target.write(piece)
        except zstandard.ZstdError as error:
            raise RefusedError("bag.damaged", "a file packed by zstd", f"{label}: {error}") from None
