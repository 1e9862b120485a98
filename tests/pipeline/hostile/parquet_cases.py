"""Hostile Parquet files."""

from __future__ import annotations

import base64
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from lab import MARKER, Lab, Payload, case

Q = np.add.outer(np.arange(30) / 10, np.arange(3)).astype(np.float32)
T = np.arange(30) / 10
_LISTS = pa.array(list(Q), pa.list_(pa.float32()))


def table(**columns: Any) -> pa.Table:
    """Return the table of an episode."""
    return pa.table({"t": T, "q": _LISTS, **columns})


def write(lab: Lab, content: pa.Table, name: str = "a.parquet", **options: Any) -> Path:
    """Write a table."""
    path = lab.file(name)
    pq.write_table(content, path, **options)
    return path


def with_images(lab: Lab, images: list[Any], name: str = "a.parquet") -> None:
    """Write an episode with a camera."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    write(lab, table(img=pa.array(images, kind)), name)


def jpeg() -> bytes:
    """Return a picture."""
    return bytes(simplejpeg.encode_jpeg(np.zeros((48, 64, 3), np.uint8)))


@case("parquet", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    write(lab, table())


@case("parquet", "cut short at 24 places", "a23.parquet")
def _(lab: Lab) -> None:
    path = write(lab, table())
    data = path.read_bytes()
    path.unlink()
    for i, at in enumerate([0, 1, 4, 8, 12, *np.linspace(20, len(data) - 1, 19).astype(int).tolist()]):
        lab.file(f"a{i:02d}.parquet", data[:at])


@case("parquet", "four bytes overwritten at 100 places", kept=True)
def _(lab: Lab) -> None:
    data = write(lab, table()).read_bytes()
    rng = np.random.default_rng(0)
    for i, at in enumerate(np.linspace(0, len(data) - 4, 100).astype(int).tolist()):
        broken = bytearray(data)
        broken[at : at + 4] = b"\xff\xff\xff\xff" if i % 2 else rng.bytes(4)
        lab.file(f"a{i:02d}.parquet", bytes(broken))


@case("parquet", "a footer of 4 GB, an encrypted footer, only a mark", "a.parquet")
def _(lab: Lab) -> None:
    for i, end in enumerate(
        (b"\xff\xff\xff\xffPAR1", b"\x10\0\0\0PARE", b"\0\0\0\0PAR1", b"PAR1", b"\xff\xff\xff\x7fPAR1")
    ):
        lab.file(f"{'abcde'[i]}.parquet", b"PAR1" + bytes(200) + end)


@case("parquet", "forty million rows of one value, in a few kilobytes", "a.parquet", "q")
def _(lab: Lab) -> None:
    rows = pa.table({"t": np.zeros(2_000_000), "q": np.zeros(2_000_000)})
    path = lab.file("a.parquet")
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(rows, row_group_size=2_000_000)


@case("parquet", "a billion rows of one value", "a.parquet", slow=True, limit_s=60)
def _(lab: Lab) -> None:
    rows = pa.table({"t": np.zeros(20_000_000), "q": np.zeros(20_000_000, np.float32)})
    with pq.ParquetWriter(lab.file("a.parquet"), rows.schema, compression="zstd") as writer:
        for _ in range(50):
            writer.write_table(rows, row_group_size=20_000_000)


@case("parquet", "a picture of 20 MB that thirty rows share", "a.parquet", "img", schema="parquet camera")
def _(lab: Lab) -> None:
    shared = pa.DictionaryArray.from_arrays(np.zeros(30, np.int32), pa.array([bytes(20_000_000)], pa.binary()))
    write(lab, table(img=shared), compression="zstd")


@case("parquet", "pages of zeros, 400 MB", "a.parquet", "img", schema="parquet camera")
def _(lab: Lab) -> None:
    images = pa.table({"t": T[:1], "q": _LISTS[:1], "img": pa.array([bytes(40_000_000)], pa.binary())})
    with pq.ParquetWriter(lab.file("a.parquet"), images.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(10):
            writer.write_table(images)


@case("parquet", "images by paths out of the dataset", "a.parquet", "img", "in row", schema="parquet camera")
def _(lab: Lab) -> None:
    (lab.outside / "b.jpg").write_bytes(jpeg() + MARKER)
    paths = [
        "../outside/b.jpg", str(lab.outside / "b.jpg"), f"file://{lab.outside}/b.jpg", "link.jpg", "folder/../../outside/b.jpg",  # noqa: E501
        f"http://127.0.0.1:{lab.port}/b.jpg", "a\0b.jpg", "", ".", "/dev/zero", "/proc/self/environ", "x" * 5000, "~/b.jpg",  # noqa: E501
    ]  # fmt: skip
    lab.file("folder/c.jpg", jpeg())
    (lab.raw / "link.jpg").symlink_to(lab.outside / "b.jpg")
    for i, path in enumerate(paths):
        with_images(lab, [{"bytes": None, "path": path}] * 30, f"{'abcdefghijklm'[i]}.parquet")


@case("parquet", "an image by a path to a pipe", "a.parquet", "img", schema="parquet camera")
def _(lab: Lab) -> None:
    os.mkfifo(lab.file("x").with_name("pipe.jpg"))
    with_images(lab, [{"bytes": None, "path": "pipe.jpg"}] * 30)


@case("parquet", "an image by a path to a file of holes", "a.parquet", "img", "large.jpg", schema="parquet camera")
def _(lab: Lab) -> None:
    with lab.file("large.jpg", jpeg()).open("r+b") as file:
        file.truncate(4 << 30)
    with_images(lab, [{"bytes": None, "path": "large.jpg"}] * 30)


@case("parquet", "images without bytes or path", "a.parquet", "img", "row 0", schema="parquet camera")
def _(lab: Lab) -> None:
    with_images(lab, [None] * 30)
    with_images(lab, [{"bytes": None, "path": None}] * 30, "b.parquet")


@case("parquet", "an extension type that is a pickle", kept=True)
def _(lab: Lab) -> None:
    """Before version 14.0.1, pyarrow unpickled such a type when it read the schema."""
    about = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(lab)),
    }
    fields = [pa.field("t", pa.float64()), pa.field("q", _LISTS.type, metadata=about)]
    schema = pa.schema(fields, metadata={b"pandas": b"[" * 50_000, b"huggingface": b"\xff\xfe"})
    write(lab, pa.table([T, _LISTS], schema=schema))


@case("parquet", "metadata of Arrow that is damaged", kept=True)
def _(lab: Lab) -> None:
    for i, text in enumerate(
        (b"!!!!", base64.b64encode(bytes(400)), base64.b64encode(struct.pack("<II", 0xFFFFFFFF, 1 << 31)))
    ):
        write(lab, table().replace_schema_metadata({b"ARROW:schema": text}), f"{'abc'[i]}.parquet", store_schema=False)


@case("parquet", "lists in lists, 100 deep, and structs in structs", "a.parquet", "q")
def _(lab: Lab) -> None:
    deep: Any = 1.0
    kind = pa.float64()
    inner: Any = {"a": 1.0}
    struct_kind = pa.struct([("a", pa.float64())])
    for _ in range(60):
        deep, kind = [deep], pa.list_(kind)
        inner, struct_kind = {"a": inner}, pa.struct([("a", struct_kind)])
    write(lab, pa.table({"t": T, "q": pa.array([deep] * 30, kind)}))
    write(lab, pa.table({"t": T, "q": pa.array([inner] * 30, struct_kind)}), "b.parquet")


@case("parquet", "odd columns: decimals, maps, nulls, texts, unions of lengths", "b.parquet", "q")
def _(lab: Lab) -> None:
    columns = [
        pa.array([10**30] * 30, pa.decimal256(70)), pa.array([[("a", 1)]] * 30, pa.map_(pa.string(), pa.int64())),
        pa.nulls(30), pa.array(["x" * i for i in range(30)]), pa.array([list(range(i)) for i in range(30)]),
        pa.array([[None] * 3] * 30, pa.list_(pa.int64())), pa.array([[]] * 30, pa.list_(pa.float32())),
        pa.array([b""] * 30, pa.binary()), pa.array([2**63] * 30, pa.uint64()),
    ]  # fmt: skip
    for i, column in enumerate(columns):
        write(lab, pa.table({"t": T, "q": column}), f"{'abcdefghi'[i]}.parquet")


@case("parquet", "names of dots, line ends and control characters; two of one name", "b.parquet", kept=True)
def _(lab: Lab) -> None:
    write(lab, table(**{"\x1b[2J\n": T, "..": T, "a.b.c": T, "": T, "\u202e": T}))
    write(lab, pa.table([T, _LISTS, _LISTS], names=["t", "q", "q"]), "b.parquet")


@case("parquet", "20000 columns", "a.parquet", "q", limit_s=60, slow=True)
def _(lab: Lab) -> None:
    write(lab, pa.table({f"x{i}": T[:2] for i in range(20_000)}))


@case("parquet", "20000 row groups of one row", kept=True, limit_s=60, slow=True)
def _(lab: Lab) -> None:
    rows = pa.table({"t": np.arange(20_000) / 10, "q": pa.array([[1.0, 2.0, 3.0]] * 20_000)})
    write(lab, rows, row_group_size=1)


@case("parquet", "stamps that are no time", "a.parquet", "t")
def _(lab: Lab) -> None:
    for i, value in enumerate((np.nan, np.inf, -np.inf, 1e300)):
        stamps = T.copy()
        stamps[7] = value
        write(lab, pa.table({"t": stamps, "q": _LISTS}), f"{'abcd'[i]}.parquet")
    write(lab, pa.table({"t": pa.array([2**62] * 30, pa.timestamp("us")), "q": _LISTS}), "e.parquet")


@case("parquet", "a struct that holds the numbers and a path", kept=True, schema="parquet struct")
def _(lab: Lab) -> None:
    rows = [{"q": row.tolist(), "path": str(lab.outside / "secret.txt")} for row in Q]
    write(lab, pa.table({"t": T, "s": pa.array(rows)}))
