"""Parquet: each column equals what pyarrow reads, some rows at a time; what cannot be an array is refused by name."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_jpeg
from PIL import Image

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.read.containers import parquet
from vlapipe.pipeline.read.containers.arrays import ArrayFiles, Part
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.pipeline.read.containers.kept_columns import KeptColumns
from vlapipe.schemas.findings import Findings

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@contextlib.contextmanager
def opened(path: Path, findings: Findings | None = None, part: Part | None = None) -> Iterator[ArrayFiles]:
    found = findings if findings is not None else Findings()
    with open_container(path.parent, [path.name], found, part=part) as files:
        assert files is not None, list(found)
        yield files


def load(path: Path, name: str, part: Part | None = None) -> Any:
    with opened(path, part=part) as files:
        return files.load_any(name)


def fault(path: Path, name: str) -> str:
    findings = Findings()
    with opened(path, findings) as files:
        assert files.load(name, findings) is None
    (finding,) = findings.errors
    assert finding.file == path.name
    assert finding.column == name
    return str(finding)


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_numbers_lists_and_members_of_structs_equal_plain_pyarrow_in_every_range_of_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 23
    table = pa.table(
        {
            "x": rng.normal(size=n).astype(np.float32),
            "half": pa.array(rng.normal(size=n).astype(np.float16)),
            "whole": np.arange(n) - 5,
            "small": np.arange(n, dtype=np.uint8),
            "flag": np.arange(n) % 3 == 0,
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * n)), 3),
            "listed": pa.array([[i, i + 1] for i in range(n)]),
            "nested": pa.array([[[i, 1.5], [2, i], [0, 0]] for i in range(n)], pa.list_(pa.list_(pa.float32()))),
            "money": pa.array([Decimal(i) / 8 for i in range(n)], pa.decimal128(10, 3)),
            "pose": pa.array([{"x": i, "inner": {"y": [i, -i]}} for i in range(n)]),
            "observation.state": pa.array([[i] for i in range(n)]),
            "observation.state.extra": np.arange(n),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=5)
    wanted = {name: np.array(table[name].to_pylist()) for name in table.column_names if name not in ("pose", "money")}
    wanted |= {"pose.x": np.arange(n), "pose.inner.y": np.array([[i, -i] for i in range(n)]), "money": np.arange(n) / 8}
    with opened(tmp_path / "t.parquet") as files:
        assert set(files.arrays) == set(wanted)
    for name, values in wanted.items():
        for start, stop in ((0, n), (0, 5), (4, 6), (7, 8), (5, 10), (n - 1, n)):
            got = load(tmp_path / "t.parquet", name, Part(start, stop, n))
            np.testing.assert_array_equal(got, values[start:stop], err_msg=name)
        with opened(tmp_path / "t.parquet") as files:
            entry = files.arrays[name]
            assert entry.shape == values.shape[: len(entry.shape or ())], name
            assert entry.dtype == got.dtype, name


def test_only_the_row_groups_of_the_wanted_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).normal(size=40)}), path, row_group_size=10)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[4 : 4 + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    assert len(load(path, "x", Part(10, 35, 40))) == 25
    assert "npz.unreadable" in fault(path, "x")


def test_a_row_group_of_many_episodes_is_decoded_once_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(1000)}), path)
    decoded = []
    read = parquet._read_group
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_read_group", lambda *where: decoded.append(where) or read(*where))
        for start in range(0, 1000, 100):
            part = load(path, "x", Part(start, start + 100, 1000))
            np.testing.assert_array_equal(part, np.arange(start, start + 100))
        assert len(decoded) == 1
        pq.write_table(pa.table({"x": np.arange(1000) + 1}), path)
        os.utime(path, ns=(1, 1))
        assert load(path, "x", Part(0, 100, 1000))[0] == 1


def test_kept_columns_are_bounded_and_the_least_recent_go_first() -> None:
    kept = KeptColumns(100 * 8)
    columns = {name: pa.chunked_array([np.arange(40)]) for name in "abc"}
    for name in "abaca":
        assert kept.get(name, lambda name=name: columns[name]) is columns[name]
    assert kept.get("b", lambda: columns["c"]) is columns["c"]
    assert kept.get("a", lambda: columns["b"]) is columns["a"]
    large = pa.chunked_array([np.arange(200)])
    assert kept.get("large", lambda: large) is large
    assert kept.get("large", lambda: columns["a"]) is columns["a"]


def test_times_are_whole_nanoseconds_and_dictionaries_are_their_values(tmp_path: Path) -> None:
    moment = dt.datetime(2025, 3, 1, 12, 0, 1, 250_000, tzinfo=dt.UTC)
    table = pa.table(
        {
            "us": pa.array([moment], pa.timestamp("us", "UTC")),
            "ms": pa.array([moment], pa.timestamp("ms", "UTC")),
            "ns": pa.array([1_740_830_401_250_000_001], pa.timestamp("ns")),
            "day": pa.array([dt.date(1970, 1, 3)]),
            "clock": pa.array([dt.time(0, 0, 2)], pa.time32("s")),
            "span": pa.array([dt.timedelta(milliseconds=7)], pa.duration("ms")),
            "word": pa.array(["open"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    ns = 1_740_830_401_250_000_000
    wanted = {"us": ns, "ms": ns, "ns": ns + 1, "day": 2 * 86_400 * 10**9, "clock": 2 * 10**9, "span": 7 * 10**6}
    for name, value in wanted.items():
        (got,) = load(tmp_path / "t.parquet", name)
        assert (got, type(got)) == (value, np.int64), name
    assert load(tmp_path / "t.parquet", "word").tolist() == ["open"]


def test_a_missing_number_is_nan_and_other_missing_values_are_named_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "x": pa.array([1.0, None, 3.0], pa.float32()),
            "whole": pa.array([1, None, 3]),
            "flag": pa.array([True, None, False]),
            "listed": pa.array([[1.0, 2.0], None, [3.0, None]]),
            "large": pa.array([1 << 60, None, 3]),
            "word": pa.array(["a", None, "b"]),
            "image": pa.array([{"bytes": png(), "path": None}, {"bytes": None, "path": None}, None], IMAGE),
        }
    )
    pq.write_table(table, path)
    nan = float("nan")
    np.testing.assert_array_equal(load(path, "x"), np.array([1, nan, 3], dtype=np.float32))
    np.testing.assert_array_equal(load(path, "whole"), [1, nan, 3])
    np.testing.assert_array_equal(load(path, "flag"), [1, nan, 0])
    np.testing.assert_array_equal(load(path, "listed"), [[1, 2], [nan, nan], [3, nan]])
    assert "row 1" in fault(path, "large")
    for name in ("word", "image"):
        assert "none in row 1" in fault(path, name), name


def test_a_list_of_another_length_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    lists = [[1.0, 2.0]] * 30
    lists[17] = [1.0, 2.0, 3.0]
    pq.write_table(pa.table({"q": lists, "m": [[each, each] for each in lists]}), path, row_group_size=10)
    assert "expected 2 values as in row 10, found 3 in row 17" in fault(path, "q")
    assert "in row 17" in fault(path, "m")
    np.testing.assert_array_equal(load(path, "q", Part(20, 30, 30)), np.array(lists[20:]))
    whole_groups = [[1.0, 2.0]] * 10 + [[1.0]] * 10
    pq.write_table(pa.table({"q": whole_groups}), path, row_group_size=10)
    assert "expected 2 values as in row 0, found 1 in row 10" in fault(path, "q")


def test_encoded_images_are_untouched_and_a_path_stays_in_the_dataset(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    (root / "frames").mkdir(parents=True)
    (root / "frames/1.png").write_bytes(png(9))
    (tmp_path / "secret.png").write_bytes(png(1))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    path = root / "t.parquet"
    rows = [{"bytes": png(3), "path": "../secret.png"}, {"bytes": None, "path": "frames/1.png"}]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE), "plain": [png(1), b"x"]}), path)
    assert [bytes(each) for each in load(path, "image")] == [png(3), png(9)]
    assert [bytes(each) for each in load(path, "plain")] == [png(1), b"x"]
    for outside in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "frames/../../secret.png", "gone.png"):
        pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": outside}], IMAGE)}), path)
        assert "in row 0" in fault(path, "image"), outside


@pytest.mark.parametrize("what", ["cut", "empty", "text", "footer"])
def test_a_file_that_is_not_whole_is_refused_with_its_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(1000)}), path)
    data = path.read_bytes()
    damaged = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "text": b"t,x\n0,1\n",
        "footer": data[:-40] + b"\xff" * 32 + data[-8:],
    }
    path.write_bytes(damaged[what])
    findings = Findings()
    with open_container(tmp_path, ["t.parquet"], findings) as files:
        assert files is None
    assert [(each.code, each.file) for each in findings] == [("npz.unreadable", "t.parquet")]


@pytest.mark.slow
def test_a_few_bytes_that_claim_gigabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = 35_000_000  # 280 MB of one number, in a file of some hundred bytes
    schema = pa.schema([("x", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        zeros = pa.table({"x": pa.array(np.zeros(1_000_000, dtype=np.int64))})
        for _ in range(rows // 1_000_000):
            writer.write_table(zeros, row_group_size=1_000_000)
    assert path.stat().st_size < 1_000_000
    assert "npz.too_large" in fault(path, "x")
    big = b"\0" * (1 << 20)
    pq.write_table(pa.table({"image": pa.array([big] * 280).dictionary_encode()}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    assert "npz.too_large" in fault(path, "image")
    pq.write_table(pa.table({"image": pa.array([big] * 280)}), path, compression="zstd", store_schema=False)
    assert "npz.too_large" in fault(path, "image")


SCHEMA = """
name = "lab"
anchor = "robot"
[episodes]
per_file = true
{split}
[split]
val = 0
[streams.robot]
kind = "parquet"
files = ["*.parquet"]
time = {{ array = "t", unit = "ns" }}
[streams.robot.fields]
joints = {{ arrays = ["j1", "j2"], shape = [2], unit = "deg", to = "rad"{more} }}
gripper = {{ array = "gripper", words = {{ open = 1, closed = 0 }} }}
[streams.camera]
kind = "images"
files = ["*.parquet"]
array = ["image"]
time = {{ rows_of = "robot" }}
[action]
kind = "next"
of = ["robot/joints"]
[sample]
state = ["robot/joints", "robot/gripper"]
"""


def write_lab(path: Path, *, rows: int = 12, part: Any = None, joint: Any = None) -> list[bytes]:
    images = [make_jpeg(i) for i in range(rows)]
    base = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
    table = {
        "t": pa.array([base + dt.timedelta(milliseconds=20 * i) for i in range(rows)], pa.timestamp("us", "UTC")),
        "j1": pa.array(joint if joint is not None else [float(i) for i in range(rows)]),
        "j2": pa.array([float(-i) for i in range(rows)]),
        "gripper": pa.array(["open" if i % 2 else "closed" for i in range(rows)]).dictionary_encode(),
        "image": pa.array([{"bytes": image, "path": None} for image in images], IMAGE),
        **({"part": pa.array(part)} if part is not None else {}),
    }
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=5)
    return images


def ingested(tmp_path: Path, *, split: str = "", more: str = "") -> Any:
    schema = tmp_path / "lab.toml"
    schema.write_text(SCHEMA.format(split=split, more=more))
    return ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "out", schema=str(schema)))


def test_a_table_of_any_lab_goes_in_with_units_words_and_images(tmp_path: Path) -> None:
    images = write_lab(tmp_path / "raw/a.parquet")
    report = ingested(tmp_path)
    assert report.num_episodes == 1, report.rejects
    episode = vlapipe.open_dataset(tmp_path / "out").episode(0)
    table = pq.read_table(tmp_path / "raw/a.parquet")
    joints = np.stack([table["j1"].to_numpy(), table["j2"].to_numpy()], axis=1)
    np.testing.assert_allclose(episode["robot/joints"], np.deg2rad(joints), rtol=1e-6)
    assert episode["robot/gripper"].tolist() == [float(i % 2) for i in range(12)]
    stamps = table["t"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    np.testing.assert_array_equal(episode["robot/timestamp"], stamps)
    np.testing.assert_array_equal(episode["camera/timestamp"], stamps)
    assert [bytes(episode.jpeg("camera", i)) for i in range(12)] == images


@pytest.mark.parametrize("part", [[7] * 5 + [9] * 7, ["x"] * 5 + ["y/z"] * 7])
def test_a_column_splits_a_file_into_episodes_with_their_rows_and_images(tmp_path: Path, part: list[Any]) -> None:
    images = write_lab(tmp_path / "raw/a.parquet", part=part)
    report = ingested(tmp_path, split='split_column = "part"')
    assert not report.rejects
    dataset = vlapipe.open_dataset(tmp_path / "out")
    names = [str(part[0]), str(part[-1]).replace("/", "_")]
    assert dataset.episodes["id"].to_pylist() == [f"a/{name}" for name in names]
    for i, rows in enumerate((range(5), range(5, 12))):
        episode = dataset.episode(i)
        np.testing.assert_allclose(episode["robot/joints"][:, 0], np.deg2rad(np.array(rows, dtype=float)), rtol=1e-6)
        assert [bytes(episode.jpeg("camera", k)) for k in range(len(rows))] == images[rows.start : rows.stop]


def test_a_value_that_comes_again_after_others_is_told(tmp_path: Path) -> None:
    write_lab(tmp_path / "raw/a.parquet", part=[1] * 4 + [2] * 4 + [1] * 4)
    report = ingested(tmp_path, split='split_column = "part"')
    assert [reject["episode"] for reject in report.rejects] == ["a/1"]
    assert report.rejects[0]["reasons"][0]["code"] == "episode.interleaved"


def test_a_missing_number_is_refused_dropped_or_masked_as_the_schema_says(tmp_path: Path) -> None:
    write_lab(tmp_path / "raw/a.parquet", joint=[1.0, None, *map(float, range(10))])
    report = ingested(tmp_path)
    assert "row 1" in report.rejects[0]["reasons"][0]["message"]
    report = ingested(tmp_path, more=', on_missing = "mask"')
    assert not report.rejects
    episode = vlapipe.open_dataset(tmp_path / "out").episode(0)
    assert episode["robot/joints_is_missing"].tolist()[:3] == [[0, 0], [1, 0], [0, 0]]
