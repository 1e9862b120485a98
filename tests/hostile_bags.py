"""Bags that no recorder writes: each lies about a length, a type or a place. Written by hand, byte by byte."""

from __future__ import annotations

import bz2
import sqlite3
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from struct import pack

import lz4.frame
import zstandard
from bag_writing import START_NS, STATES, robot, store_of, write_ros1, write_ros2

MAGIC = b"\x89MCAP0\r\n"
ZEROS = bytes(1 << 20)
POSITIONS = "float64[] position\n"


def text(value: str) -> bytes:
    return pack("<I", len(value.encode())) + value.encode()


def record(opcode: int, body: bytes, length: int | None = None) -> bytes:
    return pack("<BQ", opcode, len(body) if length is None else length) + body


def schema(definition: str = POSITIONS, name: str = "lab/msg/Arm", form: str = "ros2msg") -> bytes:
    return record(3, pack("<H", 1) + text(name) + text(form) + text(definition))


def channel(schema_id: int = 1, encoding: str = "cdr") -> bytes:
    return record(4, pack("<HH", 1, schema_id) + text(STATES) + text(encoding) + pack("<I", 0))


def message(payload: bytes, *, at: int = START_NS, of: int = 1) -> bytes:
    return record(5, pack("<HIQQ", of, 0, at, at) + payload)


def chunk(data: bytes, *, compression: str = "", size: int | None = None, checksum: int = 0) -> bytes:
    body = pack("<QQQI", 0, 0, len(data) if size is None else size, checksum)
    return record(6, body + text(compression) + pack("<Q", len(data)) + data)


@cache
def zstd_zeros(megabytes: int, before: bytes = b"", after: bytes = b"") -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [packer.compress(before), *(packer.compress(ZEROS) for _ in range(megabytes)), packer.compress(after)]
    return b"".join([*pieces, packer.flush()])


def mcap(*records: bytes, closed: bool = True) -> bytes:
    head = MAGIC + record(1, text("ros2") + text("lab"))
    return head + b"".join(records) + (record(2, bytes(20)) + MAGIC if closed else b"")


def cdr(*values: float, length: int | None = None) -> bytes:
    return b"\0\1\0\0" + pack("<II", len(values) if length is None else length, 0) + pack(f"<{len(values)}d", *values)


KNOWN = schema() + channel()
BIG_MESSAGE = pack("<BQ", 5, 22 + (200 << 20)) + pack("<HIQQ", 1, 0, START_NS, START_NS)
ZEROS_200 = zstd_zeros(200, BIG_MESSAGE)
CHAIN = "lab/T0 first\n" + "".join(f"{'=' * 80}\nMSG: lab/T{i}\nlab/T{i + 1} a\nlab/T{i + 1} b\n" for i in range(20))
CHAIN += f"{'=' * 80}\nMSG: lab/T20\nfloat64 position\n"
DEEP = "lab/T0 first\n" + "".join(f"{'=' * 80}\nMSG: lab/T{i}\nlab/T{i + 1} a\n" for i in range(400))
DEEP += f"{'=' * 80}\nMSG: lab/T400\nfloat64 position\n"

MCAP: dict[str, Callable[[], bytes]] = {
    "record of 4 EB": lambda: mcap(record(5, b"", 1 << 62)),
    "chunk of 4 EB": lambda: mcap(record(6, b"x" * 99, 1 << 62)),
    "chunk that says 1 TB": lambda: mcap(KNOWN, chunk(zstd_zeros(1), compression="zstd", size=1 << 40)),
    "zstd of 2 GB that says 200 MB": lambda: mcap(KNOWN, chunk(zstd_zeros(2048), compression="zstd", size=200 << 20)),
    "zstd of 2 GB that says 100 bytes": lambda: mcap(KNOWN, chunk(zstd_zeros(2048), compression="zstd", size=100)),
    "lz4 of 1 GB that says 1 MB": lambda: mcap(
        KNOWN, chunk(lz4.frame.compress(bytes(1 << 30)), compression="lz4", size=1 << 20)
    ),
    "50 chunks of 200 MB": lambda: mcap(
        KNOWN, *[chunk(ZEROS_200, compression="zstd", size=len(BIG_MESSAGE) + (200 << 20))] * 50
    ),
    "50 messages of 200 MB": lambda: mcap(KNOWN, *[message(zstd_zeros(200))] * 50),
    "message in a chunk beyond its end": lambda: mcap(KNOWN, chunk(record(5, bytes(30), 1 << 40))),
    "chunk of an unknown packer": lambda: mcap(KNOWN, chunk(b"abc", compression="../../x")),
    "chunk with another checksum": lambda: mcap(KNOWN, chunk(message(cdr(1.0)), checksum=zlib.crc32(b"other"))),
    "chunk that is no zstd": lambda: mcap(KNOWN, chunk(b"abcdefgh" * 9, compression="zstd", size=400)),
    "message of no channel": lambda: mcap(message(cdr(1.0), of=7)),
    "channel of no type": lambda: mcap(channel(schema_id=9), message(cdr(1.0))),
    "time of 64 bits": lambda: mcap(KNOWN, message(cdr(1.0), at=(1 << 64) - 1)),
    "text beyond its record": lambda: mcap(record(3, pack("<HI", 1, 1 << 31) + b"x"), channel()),
    "names that are no text": lambda: mcap(record(3, pack("<HI", 1, 2) + b"\xff\xfe" + text("") + text(""))),
    "short channel": lambda: mcap(record(4, b"\1")),
    "no end": lambda: mcap(KNOWN, message(cdr(1.0)), closed=False),
    "nothing else": lambda: MAGIC,
    "array of 4 billion numbers": lambda: mcap(KNOWN, message(cdr(1.0, length=0xFFFFFFFF))),
    "message of no bytes": lambda: mcap(KNOWN, message(b"")),
    "message of another coding": lambda: mcap(KNOWN, message(b"\0\7\0\0" + bytes(16))),
    "bytes after the message": lambda: mcap(KNOWN, message(cdr(1.0) + bytes(64))),
    "definition of 10 MB": lambda: mcap(schema("float64 x\n" * 1_000_000), channel(), message(cdr(1.0))),
    "definition within itself": lambda: mcap(schema("lab/Arm position\n"), channel(), message(cdr(1.0))),
    "array of a billion texts": lambda: mcap(schema("string[1000000000] position\n"), channel(), message(cdr(1.0))),
    "a million messages of a million members": lambda: mcap(schema(CHAIN), channel(), message(cdr(1.0))),
    "messages 400 deep": lambda: mcap(schema(DEEP), channel(), message(cdr(1.0))),
    "code in a definition": lambda: mcap(
        schema("float64 position; __import__('os').system('touch hostile')\n"), channel(), message(cdr(1.0))
    ),
    "code in a type's name": lambda: mcap(
        schema(name="lab/msg/A\n__import__('os').system('touch hostile')"), channel(), message(cdr(1.0))
    ),
    "definition in no language": lambda: mcap(
        schema(form="omgidl", definition="module {{{{"), channel(), message(cdr(1.0))
    ),
    "definition that is missing": lambda: mcap(schema("lab/Other position\n"), channel(), message(cdr(1.0))),
    "wide texts": lambda: mcap(schema("wstring position\n"), channel(), message(cdr(1.0))),
    "protobuf": lambda: mcap(schema(form="protobuf"), channel(encoding="protobuf"), message(b"\x08\1")),
    "4 billion empty messages": lambda: mcap(
        schema(f"lab/None[] position\n{'=' * 80}\nMSG: lab/None\n"), channel(), message(cdr(length=0xFFFFFFF0))
    ),
    "JSON within JSON": lambda: mcap(schema(form="jsonschema"), channel(encoding="json"), message(b"[" * 1_000_000)),
    "JSON that is none": lambda: mcap(schema(form="jsonschema"), channel(encoding="json"), message(b'{"position": ')),
    "JSON of lists": lambda: mcap(
        schema(form="jsonschema"), channel(encoding="json"), message(b'{"position": [[1], [2, 3]]}')
    ),
}


def field(name: str, value: bytes) -> bytes:
    return pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value


def entry(data: bytes, length: int | None = None, **fields: bytes) -> bytes:
    header = b"".join(field(name, value) for name, value in fields.items())
    return pack("<I", len(header)) + header + pack("<I", len(data) if length is None else length) + data


def ros1(*entries: bytes, index: int = 1, chunks: int = 0, **fields: bytes) -> bytes:
    head = entry(b" " * 9, op=b"\3", index_pos=pack("<Q", index), chunk_count=pack("<I", chunks), **fields)
    return b"#ROSBAG V2.0\n" + head + b"".join(entries)


def connection(definition: str = POSITIONS) -> bytes:
    data = field("type", b"lab/Arm") + field("message_definition", definition.encode())
    return entry(data, op=b"\7", conn=bytes(4), topic=STATES.encode())


def packed(data: bytes, compression: bytes, size: int) -> bytes:
    return entry(data, op=b"\5", compression=compression, size=pack("<I", size))


def sent(payload: bytes) -> bytes:
    return entry(payload, op=b"\2", conn=bytes(4), time=pack("<II", 1, 2))


ROS1: dict[str, Callable[[], bytes]] = {
    "no index": lambda: ros1(connection(), sent(pack("<Id", 1, 1.0)), index=0),
    "header of 4 GB": lambda: b"#ROSBAG V2.0\n" + pack("<I", 0xFFFFFFFF) + bytes(99),
    "data of 4 GB": lambda: ros1(entry(b"", 0xFFFFFFFF, op=b"\5", compression=b"none", size=bytes(4))),
    "encrypted": lambda: ros1(encryptor=b"rosbag/AesCbcEncryptor"),
    "bz2 of 400 MB that says 1 MB": lambda: ros1(packed(bz2.compress(bytes(400 << 20), 9), b"bz2", 1 << 20)),
    "lz4 of 1 GB that says 4 GB": lambda: ros1(packed(lz4.frame.compress(bytes(1 << 30)), b"lz4", 0xFFFFFFFF)),
    "chunk of an unknown packer": lambda: ros1(packed(b"abc", b"gzip", 3)),
    "record beyond its chunk": lambda: ros1(packed(pack("<I", 1 << 30) + bytes(9), b"none", 13)),
    "field beyond its header": lambda: ros1(pack("<II", 8, 1 << 30) + bytes(12)),
    "message of no connection": lambda: ros1(sent(b"")),
    "connection without a type": lambda: ros1(entry(b"", op=b"\7", conn=bytes(4), topic=b"/x")),
    "array of 4 billion numbers": lambda: ros1(connection(), sent(pack("<I", 0xFFFFFFFF))),
    "4 billion messages of no bytes": lambda: ros1(
        connection(f"lab/None[] position\n{'=' * 80}\nMSG: lab/None\n"), sent(pack("<I", 0xFFFFFFFF))
    ),
    "chunks that are missing": lambda: ros1(connection(), sent(pack("<Id", 1, 1.0)), chunks=4),
    "empty definition": lambda: ros1(connection("\n"), sent(b"")),
    "format 1.2": lambda: b"#ROSBAG V1.2\n" + bytes(99),
}

VIEW = (
    "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT i AS id, 1 AS topic_id, i AS timestamp, zeroblob(100000000) AS data FROM n"
)
COMPUTED = "CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB AS (zeroblob(200000000)))"
PLAIN = "CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)"
SQLITE: dict[str, tuple[str, ...]] = {
    "messages without end": (VIEW,),
    "messages that are computed": (COMPUTED, *["INSERT INTO messages VALUES (1, 1, 1)"] * 40),
    "no messages": (),
    "texts in place of bytes": (PLAIN, "INSERT INTO messages VALUES (1, 1, 1, 'abc')"),
    "texts in place of times": (PLAIN, "INSERT INTO messages VALUES (1, 1, 'now', x'00010000')"),
    "messages of no topic": (PLAIN, "INSERT INTO messages VALUES (1, 99, 1, x'00010000')"),
    "message of no bytes": (PLAIN, "INSERT INTO messages VALUES (1, 1, 1, x'')"),
    "packed message of 2 GB": (PLAIN, f"INSERT INTO messages VALUES (1, 1, 1, x'{zstd_zeros(2048).hex()}')"),  # noqa: S608
}


def write_hostile(folder: Path) -> list[Path]:
    """Writes every one of them; returns their files."""
    made = []
    for kind, files in (("mcap", MCAP), ("bag", ROS1)):
        for name, make in files.items():
            path = folder / f"{name}.{kind}"
            path.write_bytes(make())
            made.append(path)
    for name, statements in SQLITE.items():
        path = folder / f"{name}.db3"
        base = sqlite3.connect(path)
        base.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        base.execute("INSERT INTO topics VALUES (1, ?, 'sensor_msgs/msg/JointState', 'cdr')", [STATES])
        for statement in statements:
            base.execute(statement)
        base.commit()
        base.close()
        made.append(path)
    bomb = folder / "file of 1 GB.db3.zstd"
    bomb.write_bytes(zstd_zeros(1024))
    empty, other = folder / "empty.mcap", folder / "other.bag"
    empty.write_bytes(b"")
    other.write_bytes(b"PK\3\4 not a bag")
    return [*made, bomb, empty, other]


def whole_bags(folder: Path) -> list[Path]:
    """Small bags as recorders write them, to be damaged."""
    bag1 = write_ros1(folder / "run.bag", list(robot(store_of(1), num_rows=6)), store_of(1), compression="LZ4")
    for storage in ("SQLITE3", "MCAP"):
        write_ros2(folder / storage, list(robot(store_of(2), num_rows=6)), store_of(2), storage=storage)
    return [bag1, folder / "SQLITE3" / "SQLITE3.db3", folder / "MCAP" / "MCAP.mcap"]
