"""Hostile Zarr stores of format 2 and 3, folders and ZIP files."""

from __future__ import annotations

import bz2
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bombs import deflated_zeros, gzipped_zeros, zip_of
from lab import MARKER, Lab, Payload, case
from numcodecs import blosc

Q = np.add.outer(np.arange(30) / 10, np.arange(3)).astype("<f4")
T = np.arange(30) / 10


def described(**changes: Any) -> dict[str, Any]:
    """Return the description of q in format 2."""
    return {
        "zarr_format": 2, "shape": [30, 3], "chunks": [30, 3], "dtype": "<f4", "compressor": None, "fill_value": 0,
        "order": "C", "filters": None, **changes,
    }  # fmt: skip


def described3(**changes: Any) -> dict[str, Any]:
    """Return the description of q in format 3."""
    return {
        "zarr_format": 3, "node_type": "array", "shape": [30, 3], "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [30, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": {}, **changes,  # noqa: E501
    }  # fmt: skip


def store(lab: Lab, name: str = "a.zarr", chunk: bytes | None = None, **changes: Any) -> Path:
    """Write a store of format 2 whose array q is changed."""
    lab.file(f"{name}/.zgroup", '{"zarr_format": 2}')
    lab.file(f"{name}/t/.zarray", json.dumps(described(shape=[30], chunks=[30], dtype="<f8")))
    lab.file(f"{name}/t/0", T.tobytes())
    lab.file(f"{name}/q/.zarray", json.dumps(described(**changes)))
    lab.file(f"{name}/q/0.0", Q.tobytes() if chunk is None else chunk)
    return lab.raw / name


def store3(lab: Lab, name: str = "a.zarr", chunk: bytes | None = None, key: str = "c/0/0", **changes: Any) -> Path:
    """Write a store of format 3 whose array q is changed."""
    lab.file(f"{name}/zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    grid = {"name": "regular", "configuration": {"chunk_shape": [30]}}
    lab.file(f"{name}/t/zarr.json", json.dumps(described3(shape=[30], data_type="float64", chunk_grid=grid)))
    lab.file(f"{name}/t/c/0", T.tobytes())
    lab.file(f"{name}/q/zarr.json", json.dumps(described3(**changes)))
    lab.file(f"{name}/q/{key}", Q.tobytes() if chunk is None else chunk)
    return lab.raw / name


@case("zarr", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    store(lab)
    store3(lab, "b.zarr")


@case("zarr", "objects by a pickling codec", "a.zarr", "q", "Python objects")
def _(lab: Lab) -> None:
    chunk = pickle.dumps([Payload(lab)] * 90)
    store(lab, chunk=chunk, dtype="|O", filters=[{"id": "pickle"}])
    store(lab, "b.zarr", chunk=chunk, dtype="|O", filters=[{"id": "msgpack2"}])
    store(lab, "c.zarr", chunk=chunk, dtype="|O")
    store(lab, "d.zarr", chunk=chunk, dtype=[["a", "<f4"], ["b", "|O"]], shape=[30], chunks=[30])
    store(lab, "e.zarr", chunk=chunk, compressor={"id": "pickle"})
    store(lab, "f.zarr", chunk=chunk, filters=[{"id": "pickle"}])
    store3(lab, "g.zarr", chunk=chunk, codecs=[{"name": "numcodecs.pickle"}])
    store3(lab, "h.zarr", chunk=chunk, data_type="numcodecs.object", codecs=[{"name": "numcodecs.pickle"}])


@case("zarr", "a fill value that is a pickle", "a.zarr", kept=True)
def _(lab: Lab) -> None:
    text = pickle.dumps(Payload(lab), protocol=0).decode()
    store(lab, fill_value=text, shape=[60, 3])
    store(lab, "b.zarr", fill_value=text, dtype="|O", filters=[{"id": "pickle"}])


@case("zarr", "a codec that names a module", "a.zarr", "q", "codec")
def _(lab: Lab) -> None:
    store(lab, compressor={"id": "os.system", "command": f"touch {lab.executed}"})


_PACKERS = {
    "zlib": deflated_zeros(4 << 30, 15),
    "gzip": gzipped_zeros(4 << 30),
    "bz2": bz2.compress(bytes(64 << 20)),
    "lzma": lzma.compress(bytes(64 << 20), preset=0),
    "zstd": pa.compress(bytes(64 << 20), codec="zstd", asbytes=True),
    "blosc": blosc.compress(bytes(64 << 20), b"zstd", 1),
    "lz4": struct.pack("<I", 0x7FFFFFFF) + pa.compress(bytes(64 << 20), codec="lz4_raw", asbytes=True),
}


def _bomb(packer: str) -> None:
    @case("zarr", f"a chunk that unpacks to far too much: {packer}", "a.zarr", "q")
    def _(lab: Lab) -> None:
        store(lab, chunk=_PACKERS[packer], compressor={"id": packer})
        store3(lab, "b.zarr", chunk=_PACKERS[packer], codecs=[{"name": packer}])


for _packer in _PACKERS:
    _bomb(_packer)


@case("zarr", "chunks of zeros that are as large as they say, 4 GB", "a.zarr", "q")
def _(lab: Lab) -> None:
    chunk = deflated_zeros(192_000_000, 15)
    store(lab, chunk=chunk, shape=[352_000_000, 3], chunks=[16_000_000, 3], compressor={"id": "zlib"})
    for i in range(22):
        lab.file(f"a.zarr/q/{i}.0", chunk)


@case("zarr", "filters of which each makes eight times as much", "a.zarr", "q")
def _(lab: Lab) -> None:
    store(lab, chunk=bytes([0]) * 400, filters=[{"id": "packbits"}] * 12)
    wide = {"id": "astype", "encode_dtype": "|i1", "decode_dtype": "<f8"}
    store(lab, "b.zarr", chunk=bytes(400), filters=[wide] * 12)
    scaled = {"id": "fixedscaleoffset", "offset": 0, "scale": 1, "dtype": "<f8", "astype": "|u1"}
    store(lab, "c.zarr", chunk=bytes(400), filters=[scaled] * 12)


@case("zarr", "filters with dtypes of objects, of texts and of 2 GB", "a.zarr", "q")
def _(lab: Lab) -> None:
    for i, kind in enumerate(("|O", "<U536870911", "|V2147483647", "<M8[ns]", "x", 7, None, ["a"])):
        store(lab, f"{'abcdefgh'[i]}.zarr", filters=[{"id": "astype", "encode_dtype": kind, "decode_dtype": "<f4"}])
        store(lab, f"{'ijklmnop'[i]}.zarr", filters=[{"id": "delta", "dtype": kind, "astype": kind}])
        store(lab, f"{'qrstuvwx'[i]}.zarr", filters=[{"id": "shuffle", "elementsize": kind}])


@case("zarr", "shapes of 2**60, negative, of fractions, bools and texts", "a.zarr", "q")
def _(lab: Lab) -> None:
    shapes: list[Any] = [
        [1 << 60, 3], [-30, 3], [30.5, 3], [True, 3], ["30", 3], [[30], 3], None, {}, [], [30] * 70, [10**400, 3],
    ]  # fmt: skip
    for i, shape in enumerate(shapes):
        store(lab, f"{'abcdefghijk'[i]}.zarr", shape=shape, chunks=shape if i == 0 else [30, 3])
    for i, shape in enumerate(shapes):
        store3(lab, f"{'lmnopqrstuv'[i]}.zarr", shape=shape)


@case("zarr", "chunks of 2**60, of nothing and of less", "a.zarr", "q")
def _(lab: Lab) -> None:
    for i, chunks in enumerate([[1 << 60, 3], [0, 3], [-1, 3], [1, 1], [1 << 40, 1 << 40], "30", [30]]):
        store(lab, f"{'abcdefgh'[i]}.zarr", chunks=chunks, shape=[1 << 31, 3] if chunks == [1, 1] else [30, 3])


@case("zarr", "a shape of a billion rows that nobody wrote", "a.zarr", "q")
def _(lab: Lab) -> None:
    store(lab, shape=[10**9, 3], chunks=[10**6, 3])


@case("zarr", "odd dtypes", "a.zarr", "q")
def _(lab: Lab) -> None:
    kinds: list[Any] = [
        "|V2147483647",
        "<U536870911",
        "<M8[ns]",
        "x",
        5,
        None,
        [["a", "<f4", [1 << 40]]],
        "|S99999999999",
    ]
    for i, kind in enumerate(kinds):
        store(lab, f"{'abcdefgh'[i]}.zarr", dtype=kind)
    for i, kind in enumerate(["float", {"name": "fixed_length_utf32", "configuration": {"length_bytes": 1 << 60}}, 5]):
        store3(lab, f"{'ijk'[i]}.zarr", data_type=kind)


@case("zarr", "separators and encodings of keys that lead elsewhere", kept=True)
def _(lab: Lab) -> None:
    store(lab, dimension_separator="/../../../outside/")
    for i, encoding in enumerate(
        (
            {"name": "default", "configuration": {"separator": "/../"}},
            {"name": "../../outside", "configuration": {"separator": "/"}},
            {"name": "v2", "configuration": {"separator": "/../../"}},
            {"name": "fanout"},
            "default",
            7,
        )
    ):
        store3(lab, f"{'bcdefg'[i]}.zarr", chunk_key_encoding=encoding)


@case("zarr", "a chunk that is a link to another file", "a.zarr", "q", "link")
def _(lab: Lab) -> None:
    path = store(lab) / "q/0.0"
    path.unlink()
    (lab.outside / "chunk").write_bytes(Q.tobytes())
    path.symlink_to(lab.outside / "chunk")


@case("zarr", "an array that is a link to another folder", "a.zarr", "q", "link")
def _(lab: Lab) -> None:
    path = store(lab) / "q"
    path.rename(lab.outside / "q")
    path.symlink_to("../../outside/q")


@case("zarr", "a description that is a link to another file", "a.zarr", "q", "link")
def _(lab: Lab) -> None:
    path = store(lab) / "q/.zarray"
    path.rename(lab.outside / "zarray")
    path.symlink_to(lab.outside / "zarray")


@case("zarr", "a chunk that is a pipe, and one that is a folder", "b.zarr", "q")
def _(lab: Lab) -> None:
    path = store(lab) / "q/0.0"
    path.unlink()
    os.mkfifo(path)
    path = store(lab, "b.zarr") / "q/0.0"
    path.unlink()
    path.mkdir()


@case("zarr", "consolidated metadata that names arrays elsewhere", "a.zarr", "q")
def _(lab: Lab) -> None:
    path = store(lab)
    (path / "q/.zarray").unlink()
    listed = {"../../outside/q/.zarray": described(), "q/.zarray": described(), "/etc/.zarray": described()}
    lab.file("a.zarr/.zmetadata", json.dumps({"zarr_consolidated_format": 1, "metadata": listed}))


@case("zarr", "JSON that is 100000 deep, endless numbers, NaN, no JSON", "a.zarr")
def _(lab: Lab) -> None:
    texts = [
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 100_000,
        "NaN",
        "{",
        "",
        "\x00",
        '"text"',
        '{"zarr_format": 1e999}',
    ]
    for i, text in enumerate(texts):
        store(lab, f"{'abcdefghi'[i]}.zarr")
        lab.file(f"{'abcdefghi'[i]}.zarr/q/.zarray", text)
        lab.file(f"{'abcdefghi'[i]}.zarr/.zattrs", text)


@case("zarr", "a description of 5 MB, and attributes of 5 MB", "a.zarr", "q")
def _(lab: Lab) -> None:
    store(lab, attributes={"a": "x" * 5_000_000})
    store(lab, "b.zarr")
    lab.file("b.zarr/.zattrs", json.dumps({"a": "x" * 5_000_000}))


@case("zarr", "texts whose lengths lie", "a.zarr", "q")
def _(lab: Lab) -> None:
    for i, count in enumerate((90, 1 << 31, 0xFFFFFFFF)):
        chunk = struct.pack("<I", count) + struct.pack("<I", 0x7FFFFFFF) + b"x" * 40
        store(lab, f"{'abc'[i]}.zarr", chunk=chunk, dtype="|O", filters=[{"id": "vlen-utf8"}])
        store(lab, f"{'def'[i]}.zarr", chunk=zlib.compress(chunk), dtype="|O", filters=[{"id": "vlen-bytes"}], compressor={"id": "zlib"})  # fmt: skip  # noqa: E501
        store(lab, f"{'ghi'[i]}.zarr", chunk=chunk, dtype="|O", filters=[{"id": "vlen-utf8"}], shape=[1 << 30], chunks=[1 << 30])  # fmt: skip  # noqa: E501


@case("zarr", "shards within chunks", "a.zarr", "q")
def _(lab: Lab) -> None:
    inner = {"chunk_shape": [1 << 40, 3], "codecs": [{"name": "bytes"}], "index_codecs": [{"name": "crc32c"}]}
    store3(lab, codecs=[{"name": "sharding_indexed", "configuration": inner}])


@case("zarr", "a codec list that is odd", "a.zarr", "q")
def _(lab: Lab) -> None:
    odd: list[Any] = [
        [{"name": "transpose", "configuration": {"order": [5, 9]}}, {"name": "bytes"}],
        [{"name": "transpose", "configuration": {"order": [0, 0]}}, {"name": "bytes"}],
        [{"name": "bytes"}] * 50_000,
        "bytes", 7, [7], [{}], [{"name": "imagecodecs_jpegxl"}], [{"name": "imagecodecs_../../x"}],
        [{"name": "imagecodecs___import__"}], [{"name": "zfpy"}], [{"name": "n5_wrapper"}],
    ]  # fmt: skip
    for i, codecs in enumerate(odd):
        store3(lab, f"{'abcdefghijkl'[i]}.zarr", codecs=codecs)


@case("zarr", "a picture codec with a picture of 65500 x 65500", "a.zarr", "q")
def _(lab: Lab) -> None:
    picture = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda\0\x0c" + bytes(
        50
    )
    store(lab, chunk=picture, dtype="|u1", filters=[{"id": "imagecodecs_jpeg"}])


@case("zarr", "ends of episodes of 2**62, falling, and a billion of them", "a.zarr", "ends", schema="zarr ends")
def _(lab: Lab) -> None:
    for i, ends in enumerate(([1 << 61, 1 << 62], [20, 10], [-5, 30], [0, 30])):
        store(lab, f"{'abcd'[i]}.zarr")
        lab.file(f"{'abcd'[i]}.zarr/ends/.zarray", json.dumps(described(shape=[2], chunks=[2], dtype="<i8")))
        lab.file(f"{'abcd'[i]}.zarr/ends/0", np.array(ends, dtype="<i8").tobytes())
    store(lab, "e.zarr")
    lab.file("e.zarr/ends/.zarray", json.dumps(described(shape=[10**9], chunks=[10**6], dtype="<i8")))
    lab.file("e.zarr/ends/0", bytes(8_000_000))


@case("zarr", "3000 groups in groups, and 3000 arrays", "a.zarr", "q")
def _(lab: Lab) -> None:
    path = store(lab)
    (path / "q/.zarray").unlink()
    for i in range(3000):
        lab.file(f"a.zarr/x{i}/.zarray", "{}")
    deep = "g/" * 900
    (path / deep[:1500]).mkdir(parents=True, exist_ok=True)


def _zip(lab: Lab, name: str, *more: tuple[str, bytes, int, int, int], without: str = "") -> None:
    members = []
    for path in sorted(store(lab, "x.zarr").rglob("*")):
        key = path.relative_to(lab.raw / "x.zarr").as_posix()
        if path.is_file() and key != without:
            members.append((key, path.read_bytes(), 0, path.stat().st_size, zlib.crc32(path.read_bytes())))
    lab.file(name, zip_of(*members, *more))


@case("zarr", "a ZIP whose members lie elsewhere", "a.zarr.zip", "q", schema="zarr zip")
def _(lab: Lab) -> None:
    more = [("../outside/q/.zarray", b"{}", 0, 2, 0), ("/q/.zarray", b"{}", 0, 2, 0), ("q\\.zarray", b"{}", 0, 2, 0)]
    _zip(lab, "a.zarr.zip", *more, without="q/.zarray")


@case("zarr", "a ZIP whose description unpacks to 4 GB", "a.zarr.zip", "q", schema="zarr zip")
def _(lab: Lab) -> None:
    for i, size in enumerate((4 << 30, 300)):
        _zip(lab, f"{'ab'[i]}.zarr.zip", ("q/.zarray", deflated_zeros(4 << 30, -15), 8, size, 0), without="q/.zarray")


@case("zarr", "a ZIP whose chunk unpacks to 4 GB", "a.zarr.zip", "q", schema="zarr zip")
def _(lab: Lab) -> None:
    for i, size in enumerate((4 << 30, 360)):
        _zip(lab, f"{'ab'[i]}.zarr.zip", ("q/0.0", deflated_zeros(4 << 30, -15), 8, size, 0), without="q/0.0")


@case("zarr", "a ZIP that is cut short at 12 places", "a11.zarr.zip", schema="zarr zip")
def _(lab: Lab) -> None:
    _zip(lab, "a.zarr.zip")
    data = (lab.raw / "a.zarr.zip").read_bytes()
    (lab.raw / "a.zarr.zip").unlink()
    for i, at in enumerate(np.linspace(0, len(data) - 1, 12).astype(int).tolist()):
        lab.file(f"a{i}.zarr.zip", data[:at])


@case("zarr", "a ZIP of 50000 members that are folders in folders", kept=True, schema="zarr zip")
def _(lab: Lab) -> None:
    _zip(lab, "a.zarr.zip")
    with zipfile.ZipFile(lab.raw / "a.zarr.zip", "a") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}/.zgroup", b"")
        archive.writestr("g/" * 20_000 + "x", MARKER[:5])
