"""Reads a file from its beginning to its end in pieces. No length is believed beyond the end of the file."""

from __future__ import annotations

from io import BufferedReader

import numpy as np

from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["ByteSource", "cut_short"]

_BLOCK = 4 << 20


def cut_short(where: str) -> RefusedError:
    """Returns the error of a file that ends too early."""
    return RefusedError("bag.cut_short", "a bag that was closed by its recorder", where)


class ByteSource:
    """The bytes of a file, of which the next ones can be taken or skipped."""

    def __init__(self, file: BufferedReader, num_bytes: int) -> None:
        self._file = file
        self._num_bytes = num_bytes
        self._block = memoryview(b"")
        self._at = 0  # within the block
        self._read = 0  # bytes of the file up to the end of the block

    @property
    def position(self) -> int:
        """Returns the place in the file of the next byte."""
        return self._read - len(self._block) + self._at

    @property
    def left(self) -> int:
        """Returns the number of bytes up to the end of the file."""
        return self._num_bytes - self.position

    def take(self, count: int, most: int | None = None) -> memoryview:
        """Returns the next ``count`` bytes.

        Raises:
            RefusedError: the file ends before, or ``count`` is more than ``most``.
        """
        stop = self._at + count
        if stop <= len(self._block):
            taken = self._block[self._at : stop]
            self._at = stop
            return taken
        if count > self.left:
            raise cut_short(f"the end of the file within a record, at byte {self.position}")
        if most is not None and count > most:
            raise RefusedError("bag.damaged", f"a record of at most {most} bytes", f"{count} at byte {self.position}")
        rest = self._block[self._at :]
        # Memory of numpy, because it is not filled with zeros first. Chunks of 1 MB are then seldom copied.
        num_bytes = min(len(rest) + self._num_bytes - self._read, max(_BLOCK, count))
        block = np.empty(num_bytes, dtype=np.uint8).data
        block[: len(rest)] = rest
        num_read = self._file.readinto(block[len(rest) :])
        if len(rest) + num_read < count:
            raise cut_short(f"the end of the file at byte {self._read + num_read}: it became shorter")
        self._read += num_read
        self._block, self._at = block[: len(rest) + num_read], count
        return self._block[:count]

    def skip(self, count: int) -> None:
        """Passes over bytes.

        Raises:
            RefusedError: the file ends before.
        """
        if count > self.left:
            raise cut_short(f"the end of the file within a record, at byte {self.position}")
        if self._at + count <= len(self._block):
            self._at += count
            return
        self._read = self.position + count
        self._file.seek(self._read)
        self._block, self._at = memoryview(b""), 0
