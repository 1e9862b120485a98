"""Training reads from packed and mapped shards exactly what was ingested; arrays keep their shape and dtype."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_dataset
from numpy.typing import NDArray

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset

KINDS = [("zarr", None), ("zarr", "none"), ("npz", None), ("npz", "none")]

# Every way in which a field can be a batch entry: alone or beside others, in its own dtype or converted, derived, with
# rows of no, one or two dimensions, wanted by two entries at once.
SCHEMA = """
schema_version = 1
name = "packed"
description = "a table with fields of many kinds"
anchor = "arm"
[streams.arm]
kind = "csv"
files = ["arm.csv"]
rate_hz = 100
[streams.arm.time]
column = "t"
unit = "s"
[streams.arm.fields.joints]
columns = ["j1", "j2", "j3"]
[streams.arm.fields.exact]
columns = ["e1", "e2"]
dtype = "float64"
[streams.arm.fields.count]
columns = ["n"]
dtype = "int32"
[streams.arm.fields.grip]
columns = ["g"]
[streams.arm.fields.turn]
columns = ["qx", "qy", "qz", "qw"]
quaternion = "xyzw"
[streams.arm.derived]
turn_6d = {{ kind = "rotation_6d", of = "turn" }}
[action]
kind = "next"
of = ["arm/joints"]
[sample]
state = [{state}]
sensors = {{ grip = "arm/grip", exact = "arm/exact", again = "arm/grip" }}
"""


def ingested(tmp_path: Path, state: list[str], *, shard_format: str = "zarr", codec: str | None = None) -> Dataset:
    for episode in range(2):
        folder = tmp_path / "raw" / "task" / f"e{episode}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(episode)
        lines = ["t,j1,j2,j3,e1,e2,n,g,qx,qy,qz,qw"]
        for row in range(20 + episode):
            values = rng.normal(size=7).tolist()
            turn = [0.0, 0.0, np.sin(row / 9), np.cos(row / 9)]
            lines.append(",".join(map(repr, [row / 100, *values[:5], row * 7, values[5], *map(float, turn)])))
        (folder / "arm.csv").write_text("\n".join([*lines, ""]))
    schema = tmp_path / "packed.toml"
    schema.write_text(SCHEMA.format(state=", ".join(f'"{path}"' for path in state)))
    config = IngestConfig(
        source=tmp_path / "raw", out=tmp_path / "data", schema=str(schema), shard_format=shard_format, codec=codec
    )
    report = ingest(config)
    assert not report.rejects
    return vlapipe.open_dataset(tmp_path / "data")


def map_of(array: NDArray[Any]) -> np.memmap[Any, Any] | None:
    """What the array is a part of, if that is a map of a file."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return base if isinstance(base, np.memmap) else None


def is_mapped(array: NDArray[Any]) -> bool:
    return map_of(array) is not None


STATES = [
    ["arm/joints"],
    ["arm/grip"],
    ["arm/exact"],
    ["arm/count", "arm/joints", "arm/exact"],
    ["arm/joints", "arm/turn_6d", "arm/grip"],
    ["arm/turn_6d"],
]


@pytest.mark.parametrize(("shard_format", "codec"), KINDS)
@pytest.mark.parametrize("state", STATES)
def test_batch_entries_are_their_fields_side_by_side(
    tmp_path: Path, state: list[str], shard_format: str, codec: str | None
) -> None:
    dataset = ingested(tmp_path, state, shard_format=shard_format, codec=codec)
    arrays, sample = dataset.arrays(0), dataset.sample_arrays(0)
    num_rows = len(arrays["arm/timestamp"])
    columns = [arrays[path].reshape(num_rows, -1) for path in state]
    assert np.array_equal(sample["observation.state"], np.concatenate(columns, axis=1).astype(np.float32))
    for name, path in (("grip", "arm/grip"), ("exact", "arm/exact"), ("again", "arm/grip")):
        assert np.array_equal(sample[f"observation.sensors.{name}"], arrays[path].astype(np.float32))
    assert np.array_equal(sample["action"], arrays["action/value"])
    assert np.array_equal(sample["action/row"], arrays["action/row"])
    for name, array in sample.items():
        kinds = {"action/row": np.int32, "timestamp": np.float64}
        assert array.dtype == kinds.get(name, np.float32), name
        assert array.flags.c_contiguous, name
        assert not array.flags.writeable, name
        assert is_mapped(array), name
        assert array.ctypes.data % 64 == 0, name


@pytest.mark.parametrize("codec", [None, "lz4"])
@pytest.mark.parametrize("state", STATES)
def test_rows_out_of_a_compressed_shard_are_those_of_an_unpacked_one(
    tmp_path: Path, state: list[str], codec: str | None
) -> None:
    dataset = ingested(tmp_path, state, codec=codec)
    rows = dataset.sample_rows(0)
    assert rows is not None
    whole = dataset.sample_arrays(0)
    assert dataset.sample_rows(0) is None
    for episode in range(2):
        start = dataset.row(episode)["arm/start"]
        stop = start + dataset.row(episode)["arm/rows"]
        for name, array in whole.items():
            assert rows.num_rows(name) == len(array)
            for first, last in ((start, stop), (start, start + 1), (stop - 1, stop), (start + 3, start + 9)):
                found = rows.read(name, first, last)
                assert found.flags.c_contiguous
                assert found.dtype == array.dtype
                assert np.array_equal(found, array[first:last]), name


@pytest.mark.parametrize(("shard_format", "codec"), [("npz", None), ("zarr", "pcodec")])
def test_what_can_only_be_decoded_whole_has_no_rows_to_give(
    tmp_path: Path, shard_format: str, codec: str | None
) -> None:
    dataset = ingested(tmp_path, ["arm/joints"], shard_format=shard_format, codec=codec)
    assert dataset.sample_rows(0) is None


@pytest.mark.parametrize(("shard_format", "codec"), KINDS)
def test_arrays_are_as_they_were_ingested_though_they_lie_within_the_state(
    tmp_path: Path, shard_format: str, codec: str | None
) -> None:
    dataset = ingested(tmp_path, ["arm/joints", "arm/exact"], shard_format=shard_format, codec=codec)
    raw = [np.loadtxt(tmp_path / "raw" / "task" / f"e{i}" / "arm.csv", delimiter=",", skiprows=1) for i in range(2)]
    for episode, table in enumerate(raw):
        found = dataset.episode(episode)
        assert np.array_equal(found["arm/joints"], table[:, 1:4].astype(np.float32))
        assert np.array_equal(found["arm/exact"], table[:, 4:6])
        assert np.array_equal(found["arm/count"], table[:, 6].astype(np.int32))
        assert found["arm/count"].shape == (len(table),)
        assert found["arm/turn_6d"].shape == (len(table), 6)
        for name, array in found.items():
            assert not array.flags.writeable, name
            assert is_mapped(array), name


def test_field_that_is_float32_already_is_not_stored_twice(tmp_path: Path) -> None:
    dataset = ingested(tmp_path, ["arm/joints", "arm/turn", "arm/grip"])
    arrays, state = dataset.arrays(0), dataset.sample_arrays(0)["observation.state"]
    assert np.shares_memory(arrays["arm/joints"], state)
    assert np.shares_memory(arrays["arm/turn"], state)
    # A sensor's rows must follow each other, so it is the state that has a copy of this one.
    assert np.shares_memory(arrays["arm/grip"], dataset.sample_arrays(0)["observation.sensors.grip"])


def test_what_lies_uncompressed_is_mapped_in_the_shard_and_nowhere_else(tmp_path: Path) -> None:
    dataset = ingested(tmp_path, ["arm/turn"], codec="none")
    [cached] = (tmp_path / "data" / ".cache").iterdir() if dataset.arrays(0) else []
    state = dataset.sample_arrays(0)["observation.state"]
    assert np.shares_memory(state, dataset.arrays(0)["arm/turn"])
    base = map_of(state)
    assert base is not None
    assert Path(str(base.filename)).parent.name == "shards"
    num_rows, action_columns, exact_columns, derived_columns = 41, 3, 2, 6
    floats = action_columns + exact_columns + derived_columns
    assert cached.stat().st_size < 4096 + num_rows * (4 * floats + 8) + 4 * 64


def test_cameras_sensors_and_alignment_of_the_built_in_schema(tiny_dataset: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    for shard in range(len(dataset.manifest.shards)):
        arrays, sample = dataset.arrays(shard), dataset.sample_arrays(shard)
        state = np.concatenate([arrays["robot/joint_position"], arrays["robot/tcp_pose"]], axis=1)
        assert np.array_equal(sample["observation.state"], state)
        assert np.shares_memory(sample["observation.sensors.aline"], arrays["sensor/aline"])
        assert sample["observation.sensors.force"].shape == arrays["sensor/force"].shape
        for stream in ("sensor", "View1", "View2"):
            assert sample[f"align/{stream}"].dtype == np.int32
        for name, array in itertools.chain(arrays.items(), sample.items()):
            assert is_mapped(array), name


def test_shards_of_one_format_give_the_same_arrays_as_the_other(tmp_path: Path) -> None:
    make_dataset(tmp_path / "raw", num_episodes=2)
    found = []
    for shard_format, codec in KINDS:
        out = tmp_path / f"{shard_format}-{codec}"
        ingest(IngestConfig(source=tmp_path / "raw", out=out, shard_format=shard_format, codec=codec))
        found.append(vlapipe.open_dataset(out).sample_arrays(0))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, array in other.items():
            assert np.array_equal(array, found[0][name]), name
