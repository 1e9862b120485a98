"""Reads a ROS 1 bag (format 2.0) from its beginning to its end, in one pass, without the index at its end.

Record layout: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

from io import BufferedReader
from struct import Struct

from vlapipe.pipeline.read.bags.byte_source import ByteSource, cut_short
from vlapipe.pipeline.read.bags.topics import Kind, Topic, Topics
from vlapipe.pipeline.read.bags.unpack import MOST_AT_ONCE, unpack
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["ROS1_MAGIC", "read_ros1"]

ROS1_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _CHUNK, _CONNECTION = 2, 3, 5, 7
_MOST_IN_HEADER = 1 << 20
_LENGTH = Struct("<I")
_TIME = Struct("<II")


def read_ros1(file: BufferedReader, num_bytes: int, topics: Topics) -> None:
    """Adds the topics and messages of a file to ``topics``.

    Raises:
        RefusedError: the file is damaged or ends too early. What stands before that place has been added.
    """
    source = ByteSource(file, num_bytes)
    if num_bytes < len(ROS1_MAGIC) or bytes(source.take(len(ROS1_MAGIC))) != ROS1_MAGIC:
        raise RefusedError("bag.damaged", "a ROS bag of format 2.0", "other bytes at its beginning")
    records, index_at, num_chunks = _Records(topics), 0, 0
    while source.left:
        at = source.position
        header = _fields(source.take(_length(source), _MOST_IN_HEADER), f"byte {at}")
        operation, size = header.get(b"op", b""), _length(source)
        if operation == bytes([_BAG_HEADER]):
            if header.get(b"encryptor"):
                raise RefusedError("bag.damaged", "a bag that is not encrypted", f"{header[b'encryptor']!r:.40}")
            index_at, num_chunks = (int.from_bytes(header.get(key, b""), "little") for key in _INDEX)
            source.skip(size)
        elif operation == bytes([_CHUNK]):
            num_chunks -= 1
            records.read_chunk(header, source.take(size, MOST_AT_ONCE), f"byte {at}")
        elif operation in (bytes([_CONNECTION]), bytes([_MESSAGE])):
            records.read(header, source.take(size, MOST_AT_ONCE), f"byte {at}")
        else:
            source.skip(size)
    if not index_at or index_at > num_bytes or num_chunks > 0:
        raise cut_short(f"the end of the file at byte {num_bytes}, without an index")


_INDEX = (b"index_pos", b"chunk_count")


def _length(source: ByteSource) -> int:
    return int.from_bytes(source.take(4), "little")


def _fields(header: memoryview, place: str) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(header):
        stop = at + 4 + int.from_bytes(header[at : at + 4], "little")
        name, sign, value = bytes(header[at + 4 : stop]).partition(b"=")
        if stop > len(header) or not sign:
            raise RefusedError("bag.damaged", "the header of a record", f"other bytes at {place}")
        fields[name] = value
        at = stop
    return fields


class _Records:
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._connections: dict[bytes, Topic] = {}

    def read_chunk(self, header: dict[bytes, bytes], body: memoryview, place: str) -> None:
        """Reads the records of a chunk."""
        compression = header.get(b"compression", b"").decode("ascii", "replace")
        size = int.from_bytes(header.get(b"size", b""), "little")
        if compression not in ("none", "bz2", "lz4"):
            raise RefusedError("bag.damaged", "chunks packed by bz2 or lz4", f"{compression!r:.40} at {place}")
        data = memoryview(body if compression == "none" else unpack(body, compression, size, place))
        if len(data) != size:
            raise RefusedError("bag.damaged", f"{size} bytes in a chunk", f"{len(data)} in the chunk at {place}")
        at, end, length = 0, len(data), _LENGTH.unpack_from
        while at < end:
            start = at + 4 + (length(data, at)[0] if at + 4 <= end else end)
            stop = start + 4 + (length(data, start)[0] if start + 4 <= end else end)
            if stop > end:
                raise RefusedError("bag.damaged", "whole records in a chunk", f"a longer one in the chunk at {place}")
            self.read(_fields(data[at + 4 : start], place), data[start + 4 : stop], place)
            at = stop

    def read(self, header: dict[bytes, bytes], body: memoryview, place: str) -> None:
        """Reads a message or a connection."""
        operation, number = header.get(b"op"), header.get(b"conn", b"")
        if operation == bytes([_MESSAGE]):
            topic, time = self._connections.get(number), header.get(b"time", b"")
            if topic is None or len(time) != _TIME.size:
                raise RefusedError("bag.damaged", "a connection and a time", f"a message without at {place}")
            seconds, nanoseconds = _TIME.unpack(time)
            self._topics.add(topic, seconds * 1_000_000_000 + nanoseconds, body)
        elif operation == bytes([_CONNECTION]) and number not in self._connections:
            described = _fields(body, place)
            try:
                name, of_type, definition = (
                    value.decode() for value in (header[b"topic"], described[b"type"], described[b"message_definition"])
                )
            except (KeyError, UnicodeDecodeError):
                raise RefusedError("bag.damaged", "a topic and its type", f"a connection without at {place}") from None
            self._connections[number] = self._topics.topic(name, Kind(of_type, "ros1", "msg", definition))
