"""Reads an MCAP file from its beginning to its end, in one pass, without the index at its end.

Record layout: the MCAP specification, https://mcap.dev/spec. The checksum of a chunk is checked if the chunk has one.
"""

from __future__ import annotations

import zlib
from io import BufferedReader
from struct import Struct, error

from vlapipe.pipeline.read.bags.byte_source import ByteSource, cut_short
from vlapipe.pipeline.read.bags.topics import Kind, Topic, Topics
from vlapipe.pipeline.read.bags.unpack import MOST_AT_ONCE, unpack
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["MCAP_MAGIC", "read_mcap"]

MCAP_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F
_RECORD = Struct("<BQ")
_MESSAGE_HEADER = Struct("<HIQQ")
_CHUNK_HEADER = Struct("<QQQI")
_FORMS = {"ros1msg": "msg", "ros2msg": "msg", "ros2idl": "idl", "omgidl": "idl", "jsonschema": "json"}
_LATEST = (1 << 63) - 1


def read_mcap(file: BufferedReader, num_bytes: int, topics: Topics) -> None:
    """Adds the topics and messages of a file to ``topics``.

    Raises:
        RefusedError: the file is damaged or ends too early. What stands before that place has been added.
    """
    source = ByteSource(file, num_bytes)
    if num_bytes < len(MCAP_MAGIC) or bytes(source.take(len(MCAP_MAGIC))) != MCAP_MAGIC:
        raise RefusedError("bag.damaged", "an MCAP file", "other bytes at its beginning")
    records = _Records(topics)
    while source.left:
        at = source.position
        opcode, length = _RECORD.unpack(source.take(_RECORD.size))
        if opcode == _FOOTER:
            if bytes(source.take(length, MOST_AT_ONCE)) and bytes(source.take(len(MCAP_MAGIC))) == MCAP_MAGIC:
                return
            raise RefusedError("bag.damaged", "MCAP's mark at the end", f"other bytes after byte {at}")
        if opcode == _CHUNK:
            records.read_chunk(source.take(length, MOST_AT_ONCE), f"byte {at}")
        elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
            records.read(opcode, source.take(length, MOST_AT_ONCE), f"byte {at}")
        else:
            source.skip(length)
    raise cut_short(f"the end of the file at byte {num_bytes}, before its last records")


class _Records:
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Topic] = {}

    def read_chunk(self, body: memoryview, place: str) -> None:
        """Reads the records of a chunk."""
        try:
            _, _, num_unpacked, checksum = _CHUNK_HEADER.unpack_from(body, 0)
            compression, at = _text(body, _CHUNK_HEADER.size)
            num_packed = int.from_bytes(body[at : at + 8], "little")
        except (error, UnicodeDecodeError):
            raise RefusedError("bag.damaged", "a chunk", f"a damaged header at {place}") from None
        packed = body[at + 8 : at + 8 + num_packed]
        if len(packed) < num_packed:
            raise RefusedError("bag.damaged", f"{num_packed} bytes in a chunk", f"{len(packed)} at {place}")
        if compression not in ("", "lz4", "zstd"):
            raise RefusedError("bag.damaged", "chunks packed by lz4 or zstd", f"{compression!r:.40} at {place}")
        data = unpack(packed, compression, num_unpacked, place) if compression else packed
        if len(data) != num_unpacked:
            raise RefusedError("bag.damaged", f"{num_unpacked} unpacked bytes", f"{len(data)} in the chunk at {place}")
        if checksum and zlib.crc32(data) != checksum:
            raise RefusedError("bag.damaged", "the checksum of the chunk", f"another one at {place}")
        self._read_all(memoryview(data), place)

    def _read_all(self, data: memoryview, place: str) -> None:
        at, end, add, channels = 0, len(data), self._topics.add, self._channels
        record, message = _RECORD.unpack_from, _MESSAGE_HEADER.unpack_from
        first = _RECORD.size + _MESSAGE_HEADER.size
        while at < end:
            opcode, length = record(data, at) if at + 9 <= end else (0, end)
            stop = at + 9 + length
            if stop > end:
                raise RefusedError("bag.damaged", "whole records in a chunk", f"a longer one in the chunk at {place}")
            if opcode == _MESSAGE and length >= _MESSAGE_HEADER.size:
                channel, _, received, _ = message(data, at + 9)
                topic = channels.get(channel)
                if topic is None or received > _LATEST:
                    raise _bad_message(channel, received, place)
                if topic.is_wanted:
                    add(topic, received, data[at + first : stop])
                else:
                    topic.num_messages += 1
            elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                self.read(opcode, data[at + 9 : stop], place)
            at = stop

    def read(self, opcode: int, body: memoryview, place: str) -> None:
        """Reads a schema, a channel or a message."""
        try:
            if opcode == _SCHEMA:
                self._read_schema(body)
            elif opcode == _CHANNEL:
                self._read_channel(body, place)
            else:
                channel, _, received, _ = _MESSAGE_HEADER.unpack_from(body, 0)
                if channel not in self._channels or received > _LATEST:
                    raise _bad_message(channel, received, place)
                self._topics.add(self._channels[channel], received, body[_MESSAGE_HEADER.size :])
        except (error, UnicodeDecodeError, IndexError):
            raise RefusedError("bag.damaged", "a whole record", f"a damaged one at {place}") from None

    def _read_schema(self, body: memoryview) -> None:
        name, at = _text(body, 2)
        encoding, at = _text(body, at)
        length = int.from_bytes(body[at : at + 4], "little")
        is_text = encoding in _FORMS
        definition = str(body[at + 4 : at + 4 + length], "utf-8") if is_text else ""
        self._schemas[int.from_bytes(body[:2], "little")] = (name, encoding, definition)

    def _read_channel(self, body: memoryview, place: str) -> None:
        number, schema = int.from_bytes(body[:2], "little"), int.from_bytes(body[2:4], "little")
        name, at = _text(body, 4)
        encoding, _ = _text(body, at)
        if schema and schema not in self._schemas:
            raise RefusedError("bag.damaged", f"the type of {name!r:.80}", f"no record of it before {place}")
        of_type, form, definition = self._schemas.get(schema, ("", "", ""))
        kind = Kind(of_type, encoding, _FORMS.get(form, form), definition)
        self._channels[number] = self._topics.topic(name, kind)


def _text(body: memoryview, at: int) -> tuple[str, int]:
    length = int.from_bytes(body[at : at + 4], "little")
    if at + 4 + length > len(body):
        raise IndexError(at)
    return str(body[at + 4 : at + 4 + length], "utf-8"), at + 4 + length


def _bad_message(channel: int, received: int, place: str) -> RefusedError:
    if received > _LATEST:
        return RefusedError("bag.damaged", "a time of 63 bits", f"{received} at {place}")
    return RefusedError("bag.damaged", f"a record of channel {channel} before its messages", f"none before {place}")
