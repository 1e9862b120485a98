"""HDF5 files: every value as h5py reads it; what leads out of the file or cannot be true is refused with its place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vlapipe.pipeline.read.containers.arrays import Part
from vlapipe.pipeline.read.containers.container import groups_of, open_container
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Finding, Findings

RNG = np.random.default_rng(0)


def refused(root: Path, name: str, *, file: str = "a.h5") -> Finding:
    """The one finding about an array that cannot be loaded."""
    findings = Findings()
    with open_container(root, [file], findings) as opened:
        if opened is not None:
            assert name in opened.arrays
            assert opened.load(name, findings) is None
    assert len(findings) == 1, list(findings)
    finding = next(iter(findings))
    assert finding.file == file
    return finding


ARRAYS: dict[str, dict[str, Any]] = {
    "plain": {"data": RNG.normal(size=(50, 3))},
    "chunked": {"data": RNG.normal(size=(50, 3)), "chunks": (7, 2)},
    "gzip": {"data": RNG.normal(size=(50, 3)), "chunks": (7, 2), "compression": "gzip"},
    "gzip and shuffle": {
        "data": RNG.integers(0, 9, (50, 5, 4)),
        "chunks": (7, 2, 3),
        "compression": 4,
        "shuffle": True,
    },
    "gzip of bytes": {"data": RNG.integers(0, 9, (50, 8), dtype=np.uint8), "compression": 9, "shuffle": True},
    "lzf": {"data": RNG.normal(size=(50, 3)), "compression": "lzf"},
    "checksum": {"data": RNG.normal(size=(50, 3)), "fletcher32": True, "compression": "gzip"},
    "scaled": {"data": RNG.integers(0, 200, (50, 3)), "scaleoffset": 0},
    "big-endian": {"data": RNG.normal(size=(50, 3)).astype(">f4"), "compression": "gzip", "shuffle": True},
    "float16": {"data": RNG.normal(size=(50, 3)).astype("f2")},
    "bool": {"data": RNG.integers(0, 2, (50,)).astype(bool), "compression": "gzip"},
    "growing": {"data": RNG.normal(size=(50, 3)), "maxshape": (None, 3), "chunks": (16, 3), "compression": "gzip"},
    "a scalar": {"data": 3.5},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_values_are_those_of_h5py_whole_and_in_parts(tmp_path: Path, case: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/x", **ARRAYS[case])
    findings = Findings()
    with open_container(tmp_path, ["a.h5"], findings, base="group") as opened, h5py.File(tmp_path / "a.h5") as file:
        assert opened is not None
        assert list(opened.arrays) == ["x"]
        wanted = np.asarray(file["group/x"][()])
        assert np.array_equal(opened.load("x", findings), wanted)  # type: ignore[arg-type]
        assert np.array_equal(opened.load("/group/x", findings), wanted)  # type: ignore[arg-type]
        for rows in (slice(0, 1), slice(6, 15), slice(49, 50), slice(20, 20)) if wanted.ndim else ():
            assert np.array_equal(opened.arrays["x"].load(rows), wanted[rows])
    assert not list(findings)


def test_members_of_records_are_arrays(tmp_path: Path) -> None:
    dtype = np.dtype([("t", "<f8"), ("pose", [("x", ">f4"), ("q", "<f4", (4,))])])
    values = np.zeros(20, dtype=dtype)
    values["t"], values["pose"]["q"] = np.arange(20), RNG.normal(size=(20, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["log"] = values
    findings = Findings()
    with open_container(tmp_path, ["a.h5"], findings, part=Part(5, 15, 20)) as opened:
        assert opened is not None
        assert sorted(opened.arrays) == ["log.pose.q", "log.pose.x", "log.t"]
        assert np.array_equal(opened.load("log.t", findings), np.arange(5.0, 15))  # type: ignore[arg-type]
        assert np.array_equal(opened.load("log.pose.q", findings), values["pose"]["q"][5:15])  # type: ignore[arg-type]


def test_links_within_the_file_are_followed_and_circles_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/x"] = np.arange(4.0)
        file["near"] = h5py.SoftLink("data/x")
        file["round"], file["about"] = h5py.SoftLink("/about"), h5py.SoftLink("/round")
        file["data/up"] = file["/"]
    findings = Findings()
    with open_container(tmp_path, ["a.h5"], findings) as opened:
        assert opened is not None
        assert np.array_equal(opened.load("near", findings), np.arange(4.0))  # type: ignore[arg-type]
        assert set(opened.arrays) == {"data/x", "near"}
    assert refused(tmp_path, "round").code == "npz.outside"


def link_to(path: Path) -> None:
    with h5py.File(path.with_name("outside.h5"), "w") as other:
        other["secret"] = np.arange(4.0)
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink("outside.h5", "secret")


def link_by_way_of_a_link(path: Path) -> None:
    link_to(path)
    with h5py.File(path, "w") as file:
        file["group"] = h5py.ExternalLink("outside.h5", "/")
        file["x"] = h5py.SoftLink("/group/secret")


def virtual(path: Path) -> None:
    link_to(path)
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("outside.h5", "secret", shape=(4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)


def external_storage(path: Path) -> None:
    path.with_name("raw.bin").write_bytes(np.arange(4.0).tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(4,), dtype="f8", external=[("raw.bin", 0, 32)])


def references(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["y"] = np.arange(4.0)
        file.create_dataset("x", data=[file["y"].ref] * 4, dtype=h5py.ref_dtype)


def region_references(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["y"] = np.arange(4.0)
        file.create_dataset("x", data=[file["y"].regionref[0:2]], dtype=h5py.regionref_dtype)


def texts_in_records(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(3,), dtype=np.dtype([("a", "f4"), ("b", h5py.string_dtype())]))
        file["x"][0] = (1.0, "one")


def a_huge_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(10**9, 10**6), dtype="f4", chunks=(10, 10))


def a_huge_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(3,), maxshape=(None,), dtype="u1", chunks=(10**9,), compression="gzip")
        file["x"].id.write_direct_chunk((0,), b"\x78\x9c\x03\x00\x00\x00\x00\x01")


def a_bomb(path: Path) -> None:
    import zlib

    packed = zlib.compress(bytes(10**8))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(20, 10**8), dtype="u1", chunks=(1, 10**8), compression="gzip")
        for row in range(20):
            file["x"].id.write_direct_chunk((row, 0), packed)


def a_chunk_that_unpacks_to_more(path: Path) -> None:
    import zlib

    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(8,), dtype="u1", chunks=(8,), compression="gzip")
        file["x"].id.write_direct_chunk((0,), zlib.compress(bytes(10**7)))


def one_large_text_named_by_many_rows(path: Path) -> None:
    kind = h5py.vlen_dtype(np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(20_000,), dtype=kind, chunks=(20_000,))
        file["x"][0] = np.ones(1_000_000, dtype=np.uint8)
        _, raw = file["x"].id.read_direct_chunk((0,))
        file["x"].id.write_direct_chunk((0,), raw[:16] * 20_000)


HOSTILE = {
    link_to: ("npz.outside", "a link to another file"),
    link_by_way_of_a_link: ("npz.outside", "a link to another file"),
    virtual: ("npz.outside", "a virtual one"),
    external_storage: ("npz.outside", "another file"),
    references: ("npz.object_array", "references"),
    region_references: ("npz.object_array", "references"),
    texts_in_records: ("npz.object_array", "records with texts"),
    a_huge_shape: ("npz.too_large", "4,000,000,000,000,000 bytes"),
    a_huge_chunk: ("npz.too_large", "1,000,000,000 bytes"),
    a_bomb: ("npz.too_large", "2,000,000,000 bytes"),
    a_chunk_that_unpacks_to_more: ("npz.unreadable", "another number of bytes"),
    one_large_text_named_by_many_rows: ("npz.too_large", "more by row"),
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_leads_out_or_cannot_be_true_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "a.h5")
    code, found = HOSTILE[make]
    finding = refused(tmp_path, "x")
    assert (finding.code, finding.column) == (code, "x")
    assert found in finding.found


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((4,))
        made.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, ())
        space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.IEEE_F32LE
        h5py.h5d.create(file.id, b"x", kind, space, dcpl=made).write_direct_chunk((0,), bytes(16))
    finding = refused(tmp_path, "x")
    assert finding.code == "npz.codec"
    assert "filter 32008 (bitshuffle), which is not installed here" in finding.found


@pytest.mark.parametrize("kept", [0, 8, 100, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["x"] = np.arange(1000.0)
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: int(kept) if kept > 1 or kept == 0 else int(kept * len(whole))])
    assert refused(tmp_path, "x").code == "npz.unreadable"


@pytest.mark.parametrize("chunks", [(10,), None])
def test_rows_that_were_never_written_are_told(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(100,), dtype="f4", chunks=chunks)
        if chunks:
            file["x"][:30] = 1
            file["x"][50:] = 1
    for part, row in (
        (None, 30 if chunks else 0),
        (Part(35, 60, 100), 35),
        (Part(60, 90, 100), None if chunks else 60),
    ):
        findings = Findings()
        with open_container(tmp_path, ["a.h5"], findings, part=part) as opened:
            assert opened is not None
            opened.load("x", findings)
        told = [(f.code, f.column, f.found) for f in findings]
        assert told == ([("npz.not_written", "x", f"none from row {row}")] if row is not None else [])


def test_a_file_that_another_program_writes_is_refused(tmp_path: Path) -> None:
    import fcntl

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    with (tmp_path / "a.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another program writes" in refused(tmp_path, "x").found


def test_groups_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in (10, 2, 1):
            file[f"data/demo_{i}/x"] = np.arange(3)
        file["data/other/x"] = np.arange(3)
        file["data/demo_3"] = h5py.ExternalLink("b.h5", "/")
    with open_container(tmp_path, ["a.h5"], Findings()) as opened:
        assert opened is not None
        assert groups_of(opened.arrays, "data/demo_*") == ["data/demo_1", "data/demo_2", "data/demo_10"]


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match="h5py"), open_container(tmp_path, ["a.h5"], Findings()):
        pass


warnings.filterwarnings("ignore", category=DeprecationWarning, module="h5py")
