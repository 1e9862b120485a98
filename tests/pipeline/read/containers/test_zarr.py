"""Zarr stores of both formats: every value as zarr-python reads it; tricks with paths and codecs are refused."""

from __future__ import annotations

import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import Part
from vlapipe.pipeline.read.containers.container import attributes_of, groups_of, open_container
from vlapipe.schemas.findings import Finding, Findings

RNG = np.random.default_rng(0)
STORES = ["2 folder", "2 zip", "3 folder", "3 zip"]
VALUES = RNG.integers(0, 200, (23, 5, 3))
DTYPES = ["f4", ">f8", "u1", "?", "i8", "f2", "U5", "S3"]
CODECS: dict[str, list[Any]] = {
    "2": [
        None,
        numcodecs.Blosc("lz4"),
        numcodecs.Blosc("zstd", shuffle=2),
        numcodecs.Zstd(3),
        numcodecs.GZip(),
        numcodecs.LZ4(),
        numcodecs.BZ2(),
        numcodecs.LZMA(),
        numcodecs.Zlib(),
    ],
    "3": [
        None,
        zarr.codecs.BloscCodec(),
        zarr.codecs.ZstdCodec(),
        zarr.codecs.GzipCodec(),
        [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()],
    ],
}
warnings.filterwarnings("ignore", category=UserWarning, module="zarr")


def make_store(root: Path, kind: str) -> tuple[str, Any, zarr.Group]:
    version, form = kind.split()
    name = "s.zarr" if form == "folder" else "s.zarr.zip"
    store: Any = (
        zarr.storage.LocalStore(root / name) if form == "folder" else zarr.storage.ZipStore(root / name, mode="w")
    )
    return name, store, zarr.create_group(store, zarr_format=int(version))  # type: ignore[arg-type]


def read_back(root: Path, name: str) -> zarr.Group:
    store: Any = zarr.storage.ZipStore(root / name, mode="r") if name.endswith(".zip") else root / name
    return zarr.open_group(store, mode="r")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", STORES)
def test_values_are_those_of_zarr_whole_and_in_parts(tmp_path: Path, kind: str) -> None:
    name, store, root = make_store(tmp_path, kind)
    for i, dtype in enumerate(DTYPES):
        for order in "CF":
            values = (VALUES > 99).astype(dtype) if dtype == "?" else VALUES.astype(dtype)
            extra: dict[str, Any] = {"order": order} if kind[0] == "2" else {}
            if kind[0] == "3" and order == "F":
                extra = {"filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))]}
            root.create_array(f"dtypes/{i}{order}", shape=values.shape, dtype=values.dtype, chunks=(4, 5, 2), **extra)[
                :
            ] = values
    for i, codec in enumerate(CODECS[kind[0]]):
        values = RNG.normal(size=(23, 7)).astype("f4")
        root.create_array(f"codecs/{i}", shape=values.shape, dtype="f4", chunks=(3, 7), compressors=codec)[:] = values
    texts = np.array(["pick", "", "größer", "x" * 70, "place"], dtype=object)
    root.create_array("texts", shape=(5,), dtype=str, chunks=(2,))[:] = texts
    root.create_array("single", shape=(), dtype="f4")[()] = 3
    if kind[0] == "2":
        root.create_array("delta", shape=(20,), dtype="i4", chunks=(6,), filters=[numcodecs.Delta("i4")])[:] = (
            np.arange(20)
        )
    store.close()
    recorded, findings = read_back(tmp_path, name), Findings()
    with open_container(tmp_path, [name], findings) as opened:
        assert opened is not None
        assert len(opened.arrays) == len(DTYPES) * 2 + len(CODECS[kind[0]]) + 2 + (kind[0] == "2")
        for path in opened.arrays:
            wanted = np.asarray(recorded[path][...])  # type: ignore[index]
            found = opened.load(path, findings, kinds="iufbUSO")
            assert found is not None, (path, [str(f) for f in findings])
            assert found.shape == wanted.shape, path
            assert (found == wanted).all(), path
            for rows in (slice(0, 1), slice(3, 9), slice(4, 4)) if wanted.ndim else ():
                assert (opened.arrays[path].load(rows) == wanted[rows]).all(), path
    assert not list(findings)


def one_array(root: Path, kind: str = "2 folder", **settings: Any) -> tuple[Path, NDArray[np.float32]]:
    values = RNG.normal(size=(20, 3)).astype("f4")
    name, store, group = make_store(root, kind)
    settings = {"compressors": numcodecs.Blosc() if kind[0] == "2" else "auto", **settings}
    group.create_array("data/x", shape=values.shape, dtype="f4", chunks=(5, 3), **settings)[:] = values
    store.close()
    return root / name, values


def refused(root: Path, name: str = "data/x", *, file: str = "s.zarr") -> Finding:
    findings = Findings()
    with open_container(root, [file], findings) as opened:
        assert opened is not None, list(findings)
        assert name in opened.arrays
        assert opened.load(name, findings) is None
    assert len(findings) == 1, list(findings)
    return next(iter(findings))


def described(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "data/x/.zarray").read_text())
    return found


def describe(path: Path, **changes: Any) -> None:
    (path / "data/x/.zarray").write_text(json.dumps({**described(path), **changes}))


def pickled(path: Path) -> None:
    describe(path, dtype="|O", filters=[{"id": "pickle", "protocol": 4}])


def json_objects(path: Path) -> None:
    describe(path, dtype="|O", filters=[{"id": "json2"}])


def a_codec_that_unpickles(path: Path) -> None:
    describe(path, compressor={"id": "pickle", "protocol": 4})


def an_unknown_codec(path: Path) -> None:
    describe(path, compressor={"id": "lab_codec"})


def a_huge_shape(path: Path) -> None:
    describe(path, shape=[10**12, 3])


def a_huge_chunk(path: Path) -> None:
    describe(path, chunks=[10**10, 3])


def a_chunk_of_no_rows(path: Path) -> None:
    describe(path, chunks=[0, 3])


def a_chunk_that_is_a_link(path: Path) -> None:
    (path.parent / "outside").write_bytes((path / "data/x/1.0").read_bytes())
    (path / "data/x/1.0").unlink()
    (path / "data/x/1.0").symlink_to(path.parent / "outside")


def a_chunk_that_is_cut_short(path: Path) -> None:
    (path / "data/x/1.0").write_bytes((path / "data/x/1.0").read_bytes()[:-9])


def a_bomb(path: Path) -> None:
    describe(path, compressor={"id": "zlib", "level": 9})
    packed = zlib.compress(bytes(10**7))
    for row in range(4):
        (path / f"data/x/{row}.0").write_bytes(packed)


def a_zstd_bomb(path: Path) -> None:
    describe(path, compressor={"id": "zstd", "level": 1})
    for row in range(4):
        (path / f"data/x/{row}.0").write_bytes(numcodecs.Zstd().encode(bytes(10**8)))


def no_json(path: Path) -> None:
    (path / "data/x/.zarray").write_text("{")


HOSTILE = {
    pickled: ("npz.object_array", "codec 'pickle'"),
    json_objects: ("npz.object_array", "codec 'json2'"),
    a_codec_that_unpickles: ("npz.codec", "codec 'pickle'"),
    an_unknown_codec: ("npz.codec", "codec 'lab_codec'"),
    a_huge_shape: ("npz.too_large", "chunks"),
    a_huge_chunk: ("npz.too_large", "bytes"),
    a_chunk_of_no_rows: ("npz.unreadable", "chunks of (0, 3)"),
    a_chunk_that_is_a_link: ("npz.outside", "a link at 'data/x/1.0'"),
    a_chunk_that_is_cut_short: ("npz.unreadable", "chunk data/x/1.0"),
    a_bomb: ("npz.unreadable", "more than its"),
    a_zstd_bomb: ("npz.unreadable", "more than its"),
    no_json: ("npz.unreadable", "Expecting property name"),
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_leads_out_or_cannot_be_true_is_refused(tmp_path: Path, make: Any) -> None:
    path, _ = one_array(tmp_path)
    make(path)
    code, found = HOSTILE[make]
    finding = refused(tmp_path)
    assert (finding.code, finding.column, finding.file) == (code, "data/x", "s.zarr")
    assert found in f"{finding.expected} {finding.found}"


def test_a_folder_of_the_store_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    path, _ = one_array(tmp_path)
    (path / "data").rename(tmp_path / "outside")
    (path / "data").symlink_to(tmp_path / "outside")
    assert refused(tmp_path).code == "npz.outside"


@pytest.mark.parametrize("name", ["../outside/x", "data/../../outside/x", "/../outside/x"])
def test_a_name_that_leads_out_of_the_store_finds_nothing(tmp_path: Path, name: str) -> None:
    one_array(tmp_path)
    other, _ = one_array(tmp_path / "other")
    (other / "data").rename(tmp_path / "outside")
    findings = Findings()
    with open_container(tmp_path, ["s.zarr"], findings) as opened:
        assert opened is not None
        assert name not in opened.arrays or opened.load(name, findings) is None


@pytest.mark.parametrize("kind", ["2 folder", "3 folder"])
def test_a_chunk_that_is_not_there_is_told_with_its_row(tmp_path: Path, kind: str) -> None:
    path, values = one_array(tmp_path, kind)
    (path / ("data/x/2.0" if kind[0] == "2" else "data/x/c/2/0")).unlink()
    for part, row in ((None, 10), (Part(12, 20, 20), 12), (Part(0, 10, 20), None)):
        findings = Findings()
        with open_container(tmp_path, ["s.zarr"], findings, part=part) as opened:
            assert opened is not None
            found = opened.load("data/x", findings)
        told = [(f.code, f.severity, f.found) for f in findings]
        assert told == ([("npz.not_written", "error", f"none from row {row}")] if row is not None else [])
        if row is None:
            assert np.array_equal(found, values[:10])  # type: ignore[arg-type]


def test_a_zip_whose_member_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    path, _ = one_array(tmp_path, "2 zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("data/x/1.0", bytes(280_000_000), compresslevel=1)
    assert refused(tmp_path, file="s.zarr.zip").code == "npz.too_large"


def test_a_zip_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path, _ = one_array(tmp_path, "2 zip")
    path.write_bytes(path.read_bytes()[:-30])
    findings = Findings()
    with open_container(tmp_path, ["s.zarr.zip"], findings) as opened:
        assert opened is None
    assert [f.code for f in findings] == ["npz.unreadable"]


@pytest.mark.parametrize("kind", STORES)
def test_groups_and_attributes(tmp_path: Path, kind: str) -> None:
    name, store, root = make_store(tmp_path, kind)
    root.attrs["robot"] = "arm"
    for i in (10, 2):
        demo = root.create_group(f"data/demo_{i}")
        demo.attrs["num_samples"] = i
        demo.create_array("x", shape=(3,), dtype="f4")[:] = 1
    store.close()
    with open_container(tmp_path, [name], Findings()) as opened:
        assert opened is not None
        assert groups_of(opened.arrays, "data/demo_*") == ["data/demo_2", "data/demo_10"]
        assert attributes_of(opened.arrays, "data/demo_2") == {"robot": "arm", "num_samples": 2}
