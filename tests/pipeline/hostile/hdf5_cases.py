"""Hostile HDF5 files."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bombs import deflated_zeros
from lab import MARKER, Lab, Payload, case

Q = np.add.outer(np.arange(30) / 10, np.arange(3)).astype(np.float32)
T = np.arange(30) / 10


def good(path: Path, libver: str = "earliest") -> Path:
    """Write an episode that is read without a finding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver=libver) as file:
        file["t"], file["q"] = T, Q
    return path


def replaced(lab: Lab, name: str = "q") -> Any:
    """Return an open file that lacks one array."""
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        del file[name]
    return h5py.File(lab.raw / "a.h5", "a")


def secret(lab: Lab) -> Path:
    """Write a good file beside the dataset."""
    path = good(lab.outside / "b.h5")
    with h5py.File(path, "a") as file:
        file.attrs["text"] = MARKER.decode()
    return path


@case("hdf5", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    good(lab.raw / "a.h5")


@case("hdf5", "cut short at 24 places", "a23.h5")
def _(lab: Lab) -> None:
    data = good(lab.raw / "a.h5").read_bytes()
    (lab.raw / "a.h5").unlink()
    places = [0, 1, 7, 8, 9, 48, 95, 96, 97, *np.linspace(100, len(data) - 1, 15).astype(int).tolist()]
    for i, at in enumerate(places):
        lab.file(f"a{i:02d}.h5", data[:at])


@case("hdf5", "four bytes overwritten at 80 places", kept=True)
def _(lab: Lab) -> None:
    data = good(lab.raw / "a.h5").read_bytes()
    rng = np.random.default_rng(0)
    for i, at in enumerate(np.linspace(0, min(len(data), 6000) - 4, 80).astype(int).tolist()):
        with_hole = bytearray(data)
        with_hole[at : at + 4] = b"\xff\xff\xff\xff" if i % 2 else rng.bytes(4)
        lab.file(f"a{i:02d}.h5", bytes(with_hole))


@case("hdf5", "text of another kind", "a.h5")
def _(lab: Lab) -> None:
    lab.file("a.h5", "<html>not found</html>" * 100)


@case("hdf5", "external link to an array", "a.h5", "q", "another file")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = h5py.ExternalLink(str(secret(lab)), "/q")


@case("hdf5", "external link by a relative path", "a.h5", "q", "another file")
def _(lab: Lab) -> None:
    secret(lab)
    with replaced(lab) as file:
        file["q"] = h5py.ExternalLink("../outside/b.h5", "/q")


@case("hdf5", "external link on the way to an array", "a.h5", "d/q", schema="hdf5 deep")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["d"] = h5py.ExternalLink(str(secret(lab)), "/")


@case("hdf5", "soft link to an external link", "a.h5", "q", "another file")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["x"] = h5py.ExternalLink(str(secret(lab)), "/q")
        file["q"] = h5py.SoftLink("/x")


@case("hdf5", "soft links in a circle", "a.h5", "q", "circle")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"], file["r"] = h5py.SoftLink("/r"), h5py.SoftLink("/q")


@case("hdf5", "soft link to nothing", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = h5py.SoftLink("/../../outside/b.h5")


@case("hdf5", "soft link within the file", kept=True)
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["r"] = Q
        file["q"] = h5py.SoftLink("/r")


@case("hdf5", "virtual array of another file", "a.h5", "q", "virtual")
def _(lab: Lab) -> None:
    layout = h5py.VirtualLayout(shape=Q.shape, dtype=Q.dtype)
    layout[:] = h5py.VirtualSource(str(secret(lab)), "q", shape=Q.shape)
    with replaced(lab) as file:
        file.create_virtual_dataset("q", layout)


@case("hdf5", "virtual array of itself", "a.h5", "q", "virtual")
def _(lab: Lab) -> None:
    layout = h5py.VirtualLayout(shape=Q.shape, dtype=Q.dtype)
    layout[:] = h5py.VirtualSource(".", "q", shape=Q.shape)
    with replaced(lab) as file:
        file.create_virtual_dataset("q", layout)


@case("hdf5", "numbers in another file", "a.h5", "q", "another file")
def _(lab: Lab) -> None:
    path = lab.outside / "numbers.bin"
    path.write_bytes(Q.tobytes())
    with replaced(lab) as file:
        file.create_dataset("q", Q.shape, Q.dtype, external=[(str(path), 0, Q.nbytes)])


@case("hdf5", "images are virtual", "a.h5", "img", "virtual", schema="hdf5 camera")
def _(lab: Lab) -> None:
    with h5py.File(lab.outside / "b.h5", "w") as file:
        file["img"] = np.zeros((30, 48, 64, 3), np.uint8)
    layout = h5py.VirtualLayout(shape=(30, 48, 64, 3), dtype=np.uint8)
    layout[:] = h5py.VirtualSource(str(lab.outside / "b.h5"), "img", shape=(30, 48, 64, 3))
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        file.create_virtual_dataset("img", layout)


@case("hdf5", "a shape of 2**60", "a.h5", "q", "shape")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file.create_dataset("q", (1 << 60, 3), np.float32, chunks=(1024, 3))


@case("hdf5", "a shape of 2**31 rows in few chunks", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file.create_dataset("q", (1 << 31, 3), np.float32, chunks=(1 << 20, 3), compression="gzip")[:30] = Q


@case("hdf5", "the clock has a shape of 2**50", "a.h5", "t")
def _(lab: Lab) -> None:
    with replaced(lab, "t") as file:
        file.create_dataset("t", (1 << 50,), np.float64, chunks=(1024,))


@case("hdf5", "chunks of 4 GB", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", (30, 3), np.float32, chunks=(30, 3), maxshape=(None, 3), compression="gzip")
        made[:] = Q
        made = file.create_dataset("r", ((1 << 28) + 1, 3), np.float32, chunks=((1 << 28) + 1, 3), compression="gzip")
        made.id.write_direct_chunk((0, 0), deflated_zeros(12 * ((1 << 28) + 1), 15))
        del file["q"]
        file["q"] = file["r"]


@case("hdf5", "a chunk that unpacks to 4 GB", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", (30, 3), np.float32, chunks=(30, 3), compression="gzip")
        made.id.write_direct_chunk((0, 0), deflated_zeros(4 << 30, 15))


@case("hdf5", "a chunk of 16-bit halves that unpacks to 4 GB", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:  # scale-offset is no filter that our own code unpacks: the library does
        made = file.create_dataset("q", (30, 3), np.float32, chunks=(30, 3), compression="gzip", fletcher32=True)
        made.id.write_direct_chunk((0, 0), deflated_zeros(4 << 30, 15) + bytes(4))


@case("hdf5", "a hundred chunks of zeros, 2 GB", "a.h5", "q")
def _(lab: Lab) -> None:
    chunk = deflated_zeros(20_000_000, 15)
    with replaced(lab) as file:
        made = file.create_dataset("q", (166_666_600, 3), np.float32, chunks=(1_666_666, 3), compression="gzip")
        chunk = deflated_zeros(1_666_666 * 12, 15)
        for i in range(100):
            made.id.write_direct_chunk((i * 1_666_666, 0), chunk)


@case("hdf5", "images of zeros, 3 GB", "a.h5", "img", schema="hdf5 camera")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        made = file.create_dataset("img", (30, 6000, 6000, 3), np.uint8, chunks=(1, 6000, 6000, 3), compression="gzip")
        chunk = deflated_zeros(6000 * 6000 * 3, 15)
        for i in range(30):
            made.id.write_direct_chunk((i, 0, 0, 0), chunk)


@case("hdf5", "a filter that nobody has", "a.h5", "q", "filter 999")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((30, 3))
        made.set_filter(999, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        h5py.h5d.create(file.id, b"q", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((30, 3)), made)


@case("hdf5", "pickles in texts", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = np.array([np.void(pickle.dumps(Payload(lab)))] * 30)
        file.attrs["pickle"] = np.void(pickle.dumps(Payload(lab)))


@case("hdf5", "lists of unequal length where numbers belong", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", (30,), h5py.vlen_dtype(np.float32))
        for i in range(30):
            made[i] = np.arange(i)


@case("hdf5", "texts where numbers belong", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = np.array([[b"x"] * 3] * 30)


@case("hdf5", "references where numbers belong", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", (30, 3), h5py.ref_dtype)
        made[0, 0] = file.ref


@case("hdf5", "region references where numbers belong", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", (30,), h5py.regionref_dtype)
        made[0] = file["t"].regionref[:3]


@case("hdf5", "records of records, and a record of texts", "a.h5", "q")
def _(lab: Lab) -> None:
    inner: Any = np.float32
    for _ in range(60):
        inner = np.dtype([("a", inner)])
    with replaced(lab) as file:
        file.create_dataset("r", (30,), inner)
        file.create_dataset("q", (30,), np.dtype([("a", h5py.string_dtype()), ("b", np.float32)]))


@case("hdf5", "texts that are 2 GB wide", "a.h5", "q")
def _(lab: Lab) -> None:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size((1 << 31) - 1)
    with replaced(lab) as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1,))
        space = h5py.h5s.create_simple((30,), (h5py.h5s.UNLIMITED,))
        try:
            h5py.h5d.create(file.id, b"q", kind, space, made)
        except (ValueError, RuntimeError):
            h5py.h5d.create(file.id, b"q", kind, h5py.h5s.create_simple((30,)))


@case("hdf5", "many rows that name one large text", "a.h5", "img", schema="hdf5 camera")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        made = file.create_dataset("img", (30,), h5py.vlen_dtype(np.uint8))
        made[0] = np.zeros(40_000_000, np.uint8)
    data = bytearray((lab.raw / "a.h5").read_bytes())
    with h5py.File(lab.raw / "a.h5", "r") as file:
        start = file["img"].id.get_offset()
    for i in range(1, 30):
        data[start + 16 * i : start + 16 * (i + 1)] = data[start : start + 16]
    (lab.raw / "a.h5").write_bytes(data)


@case("hdf5", "not-a-number, infinite and falling stamps", "a.h5", "t")
def _(lab: Lab) -> None:
    for i, values in enumerate(([np.nan], [np.inf], [-np.inf], [1e300], [-5.0])):
        stamps = T.copy()
        stamps[5] = values[0]
        with h5py.File(good(lab.raw / f"{'abcde'[i]}.h5"), "a") as file:
            file["t"][:] = stamps


@case("hdf5", "an array without a shape, and one of no rows", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = h5py.Empty("f4")
    with h5py.File(good(lab.raw / "b.h5"), "a") as file:
        del file["q"]
        file["q"] = np.zeros((0, 3), np.float32)


@case("hdf5", "numbers of 16 bytes and of bits", "b.h5", "q", kept=True)
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        file["q"] = Q.astype(np.longdouble)
    with h5py.File(good(lab.raw / "b.h5"), "a") as file:
        del file["q"]
        file["q"] = Q.astype(np.complex128)


@case("hdf5", "groups in groups, 3000 deep, and one that holds itself", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["again"] = file["/"]


@case("hdf5", "20000 groups", "a.h5", "q")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5", "latest"), "a", libver="latest") as file:
        del file["q"]
        for i in range(20_000):
            file.create_group(f"g{i}")


@case("hdf5", "10000 groups that are episodes", "a.h5", schema="hdf5 groups", slow=True, limit_s=120)
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5", "latest"), "a", libver="latest") as file:
        data = file.create_group("data")
        for i in range(10_000):
            data.create_group(f"demo_{i}")


@case("hdf5", "names of control characters, line ends and dots", "a.h5", "'t'", schema="hdf5 groups")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        for name in ("\x1b[2J\x1b[31m", "a\nb\r\n", "..", "\u202egpj", "x" * 4000, "\x7f\x80"):
            file.create_group(f"data/{name}")


@case("hdf5", "groups of which one is a link to another file", "a.h5", "q", schema="hdf5 groups")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        file["data/a"] = h5py.ExternalLink(str(secret(lab)), "/")
        file.create_group("data/b")


@case("hdf5", "an attribute of 50 MB, and 20000 attributes", kept=True)
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5", "latest"), "a", libver="latest") as file:
        file.attrs["huge"] = np.zeros(50_000_000, np.uint8)
        for i in range(20_000):
            file.attrs[f"a{i}"] = i


@case("hdf5", "an attribute of JSON, 100000 deep", kept=True)
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5", "latest"), "a", libver="latest") as file:
        file.attrs["json"] = "[" * 60_000
        file.attrs["number"] = "[" + "9" * 60_000 + "]"


@case("hdf5", "ends of episodes beyond the rows", "a.h5", "ends", "30 rows", schema="hdf5 ends")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        file["ends"] = np.array([1 << 61, 1 << 62])


@case("hdf5", "ends of 20 million episodes", "a.h5", "ends", schema="hdf5 ends")
def _(lab: Lab) -> None:
    with h5py.File(good(lab.raw / "a.h5"), "a") as file:
        chunk = np.arange(1, 20_000_001, dtype=np.int32)
        made = file.create_dataset("ends", chunk.shape, np.int32, chunks=chunk.shape)
        made.id.write_direct_chunk((0,), chunk.tobytes())


@case("hdf5", "ends that fall, overflow, or are no numbers", "a.h5", "ends", schema="hdf5 ends")
def _(lab: Lab) -> None:
    for name, ends in {"a": [20, 10], "b": [2**64 - 1], "c": [np.nan], "d": [], "e": [-5, 30]}.items():
        with h5py.File(good(lab.raw / f"{name}.h5"), "a") as file:
            file["ends"] = np.array(ends, dtype=np.uint64 if ends == [2**64 - 1] else None)


@case("hdf5", "a chunk whose deflate stream is damaged in the middle", "a.h5", "q")
def _(lab: Lab) -> None:
    with replaced(lab) as file:
        made = file.create_dataset("q", Q.shape, Q.dtype, chunks=Q.shape, compression="gzip", shuffle=True)
        packed = bytearray(zlib.compress(Q.tobytes()))
        packed[len(packed) // 2] ^= 0xFF
        made.id.write_direct_chunk((0, 0), bytes(packed))


@case("hdf5", "a link of the file system to a file elsewhere", "a.h5", "a link to", "elsewhere.h5", kept=True)
def _(lab: Lab) -> None:
    good(lab.raw / "b.h5")
    (lab.raw / "a.h5").symlink_to(good(lab.root / "elsewhere.h5"))
