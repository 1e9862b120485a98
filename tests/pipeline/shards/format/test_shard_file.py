"""One suite for both shard formats: exact values, plain readers, alignment, determinism, damage."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format import npz_format, zarr_format
from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.pipeline.shards.format.codec import parse_codec
from vlapipe.pipeline.shards.format.joined import Block, Joined
from vlapipe.pipeline.shards.format.shard_file import StoredShard, map_arrays, read_into, write_shard
from vlapipe.pipeline.shards.format.zip_file import ALIGNMENT
from vlapipe.schemas.errors import DamageError, UsageError

Arrays = dict[str, NDArray[Any]]
KINDS = [("zarr", None), ("zarr", "lz4"), ("zarr", "zstd:1"), ("zarr", "none"), ("npz", None), ("npz", "none")]


def make_arrays(seed: int = 0, num_rows: int = 500) -> Arrays:
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 0.1, (num_rows, 6)), axis=0).astype(np.float32)
    return {
        "robot/timestamp": 1.74e9 + np.arange(num_rows) / 100,
        "robot/joint_position": np.asfortranarray(smooth),
        "sensor/force": np.zeros(num_rows, dtype=np.float32),
        "sensor/aline": rng.normal(size=(num_rows, 70)).astype(np.float32),
        "View1/bytes": rng.integers(0, 256, 12345).astype(np.uint8),
        "View1/offset": np.array([0, 5000, 12345]),
        "align/View1": (np.arange(num_rows) // 7 - 1).astype(np.int32),
    }


def write(folder: Path, arrays: Arrays, kind: str, codec: str | None) -> StoredShard:
    return write_shard(folder, 3, arrays, shard_format=kind, codec=parse_codec(codec, kind))


def read_all(path: Path, kind: str, like: Arrays) -> Arrays:
    _, mapped = map_arrays(path, kind)
    decoded = {name: np.zeros_like(array, order="C") for name, array in like.items() if name not in mapped}
    read_into(path, decoded, kind, num_threads=2)
    return {name: mapped[name] if name in mapped else decoded[name] for name in like}


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_every_array_reads_back_to_the_last_bit(tmp_path: Path, kind: str, codec: str | None) -> None:
    arrays = make_arrays()
    stored = write(tmp_path, arrays, kind, codec)
    for name, array in read_all(tmp_path / stored.file, kind, arrays).items():
        assert array.dtype == arrays[name].dtype
        assert np.array_equal(array, arrays[name])


@pytest.mark.parametrize("codec", [None, "none"])
def test_plain_numpy_opens_an_npz_shard(tmp_path: Path, codec: str | None) -> None:
    arrays = make_arrays()
    stored = write(tmp_path, arrays, "npz", codec)
    with np.load(tmp_path / stored.file, allow_pickle=False) as archive:
        assert set(archive.files) == set(arrays)
        assert all(np.array_equal(archive[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("codec", [None, "lz4", "none"])
def test_plain_zarr_opens_a_zarr_shard(tmp_path: Path, codec: str | None) -> None:
    arrays = make_arrays()
    stored = write(tmp_path, arrays, "zarr", codec)
    with zarr.storage.ZipStore(tmp_path / stored.file, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        assert set(group.group_keys()) == {"robot", "sensor", "View1", "align"}
        assert all(np.array_equal(np.asarray(group[name]), array) for name, array in arrays.items())


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_uncompressed_arrays_are_mapped_aligned_and_read_only(tmp_path: Path, kind: str, codec: str | None) -> None:
    arrays = make_arrays()
    _, mapped = map_arrays(tmp_path / write(tmp_path, arrays, kind, codec).file, kind)
    assert set(mapped) == (set(arrays) if codec == "none" else {"View1/bytes"})
    for array in mapped.values():
        assert array.ctypes.data % ALIGNMENT == 0
        assert not array.flags.writeable
        assert not array.flags.owndata


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_same_arrays_give_the_same_bytes_and_name(tmp_path: Path, kind: str, codec: str | None) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one, two = write(first, make_arrays(), kind, codec), write(second, make_arrays(), kind, codec)
    assert one == two
    assert (first / one.file).read_bytes() == (second / two.file).read_bytes()
    assert one.sha256[:8] in one.file
    other = write(first, make_arrays(seed=1), kind, codec)
    assert other.file != one.file


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_neither_parts_nor_threads_change_the_bytes(tmp_path: Path, kind: str, codec: str | None) -> None:
    arrays = make_arrays(num_rows=3000)
    parted = {
        name: array if name.endswith("offset") else Joined(np.array_split(array, 7)) for name, array in arrays.items()
    }
    parse = parse_codec(codec, kind)
    whole = write_shard(tmp_path, 3, arrays, shard_format=kind, codec=parse)
    assert write_shard(tmp_path, 3, parted, shard_format=kind, codec=parse, num_threads=4) == whole


@pytest.mark.parametrize("codec", ["zstd", "lz4:9", "zstd:1"])
def test_zarr_chunks_are_what_zarr_itself_writes(tmp_path: Path, codec: str) -> None:
    arrays = make_arrays()
    path = tmp_path / write(tmp_path, arrays, "zarr", codec).file
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        for name, array in arrays.items():
            members: dict[str, Any] = {}
            ours: Any = group[name]
            theirs = zarr.create_array(
                store=zarr.storage.MemoryStore(members),
                name=name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=ours.chunks,
                compressors=ours.compressors,
                config={"write_empty_chunks": True},
            )
            theirs[...] = array
            with zipfile.ZipFile(path) as archive:
                for key in (key for key in members if key.startswith(f"{name}/")):
                    assert archive.read(key) == members[key].to_bytes(), key


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_last_zarr_chunk_and_slice_may_be_short(
    tmp_path: Path, kind: str, codec: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_format, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(npz_format, "_SLICE_BYTES", 1000)
    arrays = make_arrays(num_rows=777)
    stored = write(tmp_path, arrays, kind, codec)
    back = read_all(tmp_path / stored.file, kind, arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_deflate_searches_for_repetitions_only_where_there_are_some(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 50, 20_000).astype(np.float32)
    steps = np.repeat(noise[:200], 100)
    stored = {
        name: write(tmp_path, {"s/a": array}, "npz", None).arrays["s/a"]["bytes"]
        for name, array in (("noise", noise), ("steps", steps))
    }
    assert stored["steps"] < 0.1 * steps.nbytes
    assert stored["noise"] < 1.02 * len(zlib.compress(noise.tobytes(), 1))


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_python_finds_no_fault_with_the_zip(tmp_path: Path, kind: str, codec: str | None) -> None:
    with zipfile.ZipFile(tmp_path / write(tmp_path, make_arrays(), kind, codec).file) as archive:
        assert archive.testzip() is None
        assert all(member.date_time == (1980, 1, 1, 0, 0, 0) for member in archive.infolist())


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_zeros_are_stored_like_any_values(tmp_path: Path, kind: str, codec: str | None) -> None:
    """A zarr_chunk that is left out reads as zeros, so a lost one would go unnoticed."""
    stored = write(tmp_path, {"sensor/force": np.zeros(100, dtype=np.float32)}, kind, codec)
    assert stored.arrays["sensor/force"]["bytes"] > 0
    if kind == "zarr":
        assert "sensor/force/c/0" in zipfile.ZipFile(tmp_path / stored.file).namelist()


def test_shard_is_read_only_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    stored = write(tmp_path, make_arrays(), "zarr", None)
    assert (tmp_path / stored.file).stat().st_mode & 0o777 == 0o444
    assert [p.name for p in tmp_path.iterdir()] == [stored.file]


@pytest.mark.parametrize("kind", ["zarr", "npz"])
def test_codec_that_lies_is_found_before_the_shard_gets_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Joined.read

    def lying(self: Joined, block: Block) -> NDArray[Any]:
        values = real(self, block).copy()
        values.reshape(-1)[-1] += 1
        return values

    monkeypatch.setattr(Joined, "read", lying)
    with pytest.raises(DamageError, match="reads back differently"):
        write(tmp_path, make_arrays(), kind, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["zarr", "npz"])
def test_shard_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / write(tmp_path, make_arrays(), kind, None).file
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamageError):
        map_arrays(path, kind)


def test_temporary_name_is_one_that_a_sweep_recognises(tmp_path: Path) -> None:
    from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, temporary_file

    with temporary_file(tmp_path) as (path, _):
        assert path.name.startswith(TEMP_PREFIX)
    (tmp_path / f"{TEMP_PREFIX}1-x").write_bytes(b"left by a killed run")
    (tmp_path / "precious.csv").write_bytes(b"the user's")
    assert sweep_temporaries(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["precious.csv"]


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("zarr", "deflate"), ("npz", "zstd"), ("zarr", "zstd:99"), ("zarr", "zstd:x"), ("npz", "none:3")],
)
def test_codec_that_the_kind_does_not_have_is_refused(kind: str, codec: str) -> None:
    with pytest.raises(UsageError):
        parse_codec(codec, kind)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "uint16"]),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=20),
    ),
    kind_and_codec=st.sampled_from(KINDS),
    fortran=st.booleans(),
)
def test_any_array_survives_a_round_trip(
    tmp_path: Path, array: NDArray[Any], kind_and_codec: tuple[str, str | None], fortran: bool
) -> None:
    kind, codec = kind_and_codec
    array = np.asfortranarray(array) if fortran else array
    stored = write(tmp_path, {"s/a": array}, kind, codec)
    back = read_all(tmp_path / stored.file, kind, {"s/a": array})["s/a"]
    (tmp_path / stored.file).unlink()
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
