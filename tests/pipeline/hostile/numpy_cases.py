"""Hostile NPZ, NPY and pickle files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from bombs import deflated_zeros, zip_of
from lab import MARKER, Lab, Payload, case

Q = np.add.outer(np.arange(30) / 10, np.arange(3)).astype(np.float32)
T = np.arange(30) / 10
_STORED, _DEFLATED, _LZMA = 0, 8, 14


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    """Return an array as an NPY file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def header(text: str, version: int = 1, length: int | None = None) -> bytes:
    """Return the head of an NPY file."""
    body = text.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(body) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + body


def described(dtype: str = "'<f4'", shape: str = "(30, 3)", order: str = "False") -> str:
    """Return the text of an NPY header."""
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}"


def archive(lab: Lab, q: bytes, name: str = "a.npz", *, packed: bool = True) -> Path:
    """Write an NPZ whose array q is these bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as members:
        members.writestr("t.npy", npy(T))
        members.writestr("q.npy", q)
    return lab.file(name, file.getvalue())


def packed(lab: Lab, content: bytes, method: int, size: int) -> None:
    """Write an NPZ whose array q is packed already."""
    clock = npy(T)
    lab.file(
        "a.npz",
        zip_of(("t.npy", clock, _STORED, len(clock), zlib.crc32(clock)), ("q.npy", content, method, size, 0)),
    )


@case("npz", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    archive(lab, npy(Q))


@case("npz", "cut short at 24 places", "a23.npz")
def _(lab: Lab) -> None:
    path = archive(lab, npy(Q))
    data = path.read_bytes()
    path.unlink()
    for i, at in enumerate([0, 1, 3, 4, *np.linspace(10, len(data) - 1, 20).astype(int).tolist()]):
        lab.file(f"a{i:02d}.npz", data[:at])


@case("npz", "two bytes overwritten at 60 places", kept=True)
def _(lab: Lab) -> None:
    data = archive(lab, npy(Q)).read_bytes()
    rng = np.random.default_rng(0)
    for i, at in enumerate(np.linspace(0, len(data) - 2, 60).astype(int).tolist()):
        broken = bytearray(data)
        broken[at : at + 2] = b"\xff\xff" if i % 2 else rng.bytes(2)
        lab.file(f"a{i:02d}.npz", bytes(broken))


@case("npz", "an array of pickled objects", "a.npz", "q", "Python objects")
def _(lab: Lab) -> None:
    archive(lab, npy(np.array([Payload(lab)] * 30, dtype=object), allow_pickle=True))


@case("npz", "an array of records with pickled objects", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, header(described("[('a', '<f4'), ('b', '|O')]", "(30,)")) + pickle.dumps(Payload(lab)))


@case("npz", "a pickle called NPZ", "a.npz")
def _(lab: Lab) -> None:
    lab.file("a.npz", pickle.dumps(Payload(lab)))


@case("npz", "a pickle as a member", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, pickle.dumps(Payload(lab)))


@case("npz", "a member that is no array", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, MARKER[:4] * 100)


@case("npz", "4 GB of zeros with an honest header", "a.npz", "q")
def _(lab: Lab) -> None:
    head = header(described(shape=f"({(4 << 30) // 12}, 3)"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    packed(lab, start + deflated_zeros((4 << 30) // 12 * 12, -15), _DEFLATED, len(head) + (4 << 30) // 12 * 12)


@case("npz", "4 GB of zeros where the directory says 400 bytes", "a.npz", "q")
def _(lab: Lab) -> None:
    head = header(described(shape=f"({(4 << 30) // 12}, 3)"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    packed(lab, start + deflated_zeros(4 << 30, -15), _DEFLATED, 400)


@case("npz", "a small array followed by 4 GB of zeros", kept=True)
def _(lab: Lab) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(npy(Q)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed(lab, start + deflated_zeros(4 << 30, -15), _DEFLATED, len(npy(Q)) + (4 << 30))


@case("npz", "a member packed by LZMA with a dictionary of 4 GB", "a.npz", "q")
def _(lab: Lab) -> None:
    packed(lab, b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(100), _LZMA, len(npy(Q)))


@case("npz", "a member packed by an unknown method", "a.npz", "q")
def _(lab: Lab) -> None:
    packed(lab, npy(Q), 99, len(npy(Q)))


@case("npz", "a member that needs a password", "a.npz", "q")
def _(lab: Lab) -> None:
    data = bytearray(archive(lab, npy(Q)).read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    lab.file("a.npz", bytes(data))


@case("npz", "shapes of 2**60, negative, of bools and of 100 axes", "a.npz", "q")
def _(lab: Lab) -> None:
    shapes = [
        "(1152921504606846976, 3)",
        "(-1, 3)",
        "(30, -3)",
        "(True, 3)",
        "(" + "1, " * 100 + ")",
        "(30.0, 3)",
        "30",
    ]
    for i, shape in enumerate(shapes):
        archive(lab, header(described(shape=shape)) + Q.tobytes(), f"{'abcdefgh'[i]}.npz")


@case("npz", "a shape that overflows 64 bits to something small", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, header(described(shape="(4294967296, 4294967296, 30)")) + Q.tobytes())


@case("npz", "a header that is Python code", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, header(f"{{'descr': {lab.code}, 'fortran_order': False, 'shape': (30, 3)}}") + Q.tobytes())


@case("npz", "a header that nests brackets 9000 deep", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, header(described(shape="(" * 4500 + ")" * 4500)) + Q.tobytes())
    archive(lab, header(described(dtype="[" * 4500 + "]" * 4500)) + Q.tobytes(), "b.npz")


@case("npz", "a header of 4 GB, and one of 60 kB", "a.npz", "q")
def _(lab: Lab) -> None:
    archive(lab, header(described(), 2, 0xFFFFFFFF) + Q.tobytes())
    archive(lab, header(described() + " " * 60_000) + Q.tobytes(), "b.npz")


@case("npz", "odd dtypes: void of 2 GB, texts, dates, objects in subarrays", "b.npz", "q")
def _(lab: Lab) -> None:
    kinds = ["'|V2147483647'", "'<U536870911'", "'<M8[ns]'", "('|O', (3,))", "'|S0'", "'>c16'", "'x'", "[]", "'<f4,|O'"]
    for i, kind in enumerate(kinds):
        archive(lab, header(described(kind, "(30,)")) + Q.tobytes(), f"{'abcdefghi'[i]}.npz")


@case("npz", "names that lead out of the archive", kept=True)
def _(lab: Lab) -> None:
    with zipfile.ZipFile(archive(lab, npy(Q)), "a") as members:
        for name in ("../outside/new.npy", str(lab.outside / "new.npy"), "..\\outside\\new.npy"):
            members.writestr(name, npy(Q))


@case("npz", "two members of one name, and 20000 members", "a.npz", kept=True)
def _(lab: Lab) -> None:
    with zipfile.ZipFile(archive(lab, npy(Q)), "a") as members:
        members.writestr("q.npy", npy(np.array([Payload(lab)], dtype=object), allow_pickle=True))
    with zipfile.ZipFile(archive(lab, npy(Q), "b.npz"), "a") as members:
        for i in range(20_000):
            members.writestr(f"x{i}", b"")


@case("npz", "members that share their bytes", kept=True)
def _(lab: Lab) -> None:
    """As in the bomb of D. Fifield, where each of thousands of members is the same packed bytes."""
    clock, q = npy(T), npy(Q)
    data = zip_of(("t.npy", clock, 0, len(clock), zlib.crc32(clock)), ("q.npy", q, 0, len(q), zlib.crc32(q)))
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[data.rindex(b"PK\x01\x02") : end].replace(b"q.npy", b"%05d")
    more = b"".join(entry.replace(b"%05d", b"%05d" % i) for i in range(5000))
    tail = bytearray(data[end:])
    tail[8:12] = struct.pack("<HH", 5002, 5002)
    tail[12:16] = struct.pack("<I", end - start + len(more))
    lab.file("a.npz", data[:end] + more + bytes(tail))


@case("npz", "stamps that are no time", "a.npz", "t")
def _(lab: Lab) -> None:
    for i, value in enumerate((np.nan, np.inf, -np.inf, 1e300)):
        stamps = T.copy()
        stamps[7] = value
        np.savez(lab.file(f"{'abcd'[i]}.npz"), t=stamps, q=Q)


@case("npz", "images that unpack to 4 GB", "a.npz", "img", schema="npz camera")
def _(lab: Lab) -> None:
    head = header(described("'|u1'", "(30, 7000, 7000, 3)"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    size = 30 * 7000 * 7000 * 3
    members = [(f"{name}.npy", each, 0, len(each), zlib.crc32(each)) for name, each in (("t", npy(T)), ("q", npy(Q)))]
    images = ("img.npy", start + deflated_zeros(size, -15), 8, len(head) + size, 0)
    lab.file("a.npz", zip_of(*members, images))


@case("npz", "images that are pickled", "a.npz", "img", schema="npz camera")
def _(lab: Lab) -> None:
    images = np.array([Payload(lab)] * 30, dtype=object)
    np.savez(lab.file("a.npz"), t=T, q=Q, img=images, allow_pickle=True)


@case("npz", "a picture of 1e5 x 1e5 pixels as a text of bytes", "a.npz", "img", schema="npz camera")
def _(lab: Lab) -> None:
    np.savez(lab.file("a.npz"), t=T, q=Q, img=np.array([b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03"] * 30))


@case("npz", "an NPY file of pickled objects", "q.npy", schema="npy")
def _(lab: Lab) -> None:
    lab.file("episode_1/t.npy", npy(T))
    lab.file("episode_1/q.npy", npy(np.array([Payload(lab)] * 30, dtype=object), allow_pickle=True))


@case("npz", "an NPY file that is an archive, a pickle, empty, or huge", "q.npy", schema="npy")
def _(lab: Lab) -> None:
    content = [archive(lab, npy(Q)).read_bytes(), pickle.dumps(Payload(lab)), b"", header(described(shape="(1<<60,)"))]
    content += [header(described(shape="(1152921504606846976,)")), npy(Q)[:-1]]
    for i, data in enumerate(content):
        lab.file(f"episode_{i}/t.npy", npy(T))
        lab.file(f"episode_{i}/q.npy", data)


@case("npz", "an NPY file with holes, 8 GB of zeros", "q.npy", "are on the disk", schema="npy")
def _(lab: Lab) -> None:
    lab.file("episode_1/t.npy", npy(T))
    path = lab.file("episode_1/q.npy", header(described(shape=f"({(8 << 30) // 12}, 3)")))
    with path.open("r+b") as file:
        file.truncate(8 << 30)


@case("npz", "one row a file: first and last numbers of 2**62", "number 30", schema="npz rows", kept=True)
def _(lab: Lab) -> None:
    lab.file("ends.npy", npy(np.array([[0, 1 << 62], [-(1 << 62), 1 << 62]])))
    for i in range(30):
        np.savez(lab.file(f"step_{i}.npz"), t=T[i], q=Q[i])


@case("npz", "one row a file: a row of pickled objects", "step_7.npz", schema="npz rows")
def _(lab: Lab) -> None:
    lab.file("ends.npy", npy(np.array([[0, 29]])))
    for i in range(30):
        np.savez(lab.file(f"step_{i}.npz"), t=T[i], q=Q[i] if i != 7 else np.array([Payload(lab)] * 3, dtype=object))


@case("npz", "one row a file: the ranges are pickled", "ends.npy", schema="npz rows")
def _(lab: Lab) -> None:
    lab.file("ends.npy", npy(np.array([Payload(lab)], dtype=object), allow_pickle=True))
    for i in range(30):
        np.savez(lab.file(f"step_{i}.npz"), t=T[i], q=Q[i])


@case("npz", "one row a file: each row is 200 MB of zeros", "step_0.npz", schema="npz rows")
def _(lab: Lab) -> None:
    head = header(described(shape="(16000000, 3)"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    row = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + deflated_zeros(192_000_000, -15)
    lab.file("ends.npy", npy(np.array([[0, 29]])))
    for i in range(30):
        clock = npy(T[i : i + 1].reshape(()))
        lab.file(
            f"step_{i}.npz",
            zip_of(("t.npy", clock, 0, len(clock), zlib.crc32(clock)), ("q.npy", row, 8, len(head) + 192_000_000, 0)),
        )


def _pickles(lab: Lab) -> list[bytes]:
    deep = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    return [
        pickle.dumps({"t": T, "q": Q, "x": Payload(lab)}),
        pickle.dumps({"t": T, "q": [Payload(lab)] * 30}, protocol=0),
        b"cos\nsystem\n(S'touch " + str(lab.executed).encode() + b"'\ntR.",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"x.",
        deep,
        b"\x80\x04" + b"2" * 200_000 + b".",
        b"\x80\x04]\x94" + b"(h\0h\0h\0h\0h\0h\0h\0h\0e0" * 50 + b"h\0.",
        pickle.dumps({"t": T, "q": Q})[:-30],
        b"",
        b"\x80\x04N" + b"\x94" * 1_000_000 + b".",
    ]


@case("npz", "pickles that run code, that are damaged, deep, or endless", "a0.pkl", schema="npz pickle")
def _(lab: Lab) -> None:
    for i, data in enumerate(_pickles(lab)):
        lab.file(f"a{i}.pkl", data)
