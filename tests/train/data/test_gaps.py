"""No batch holds a window across a gap. All other frames are drawn once an epoch, and a resume is exact."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import make_episode

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.ingest_text import print_ingest_report
from vlapipe.schemas.errors import DamageError, UsageError, VlapipeError
from vlapipe.schemas.registry import load_schema
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

LIMITS = {"robot": 0.05, "sensor": 0.03, "camera": 0.3}
WINDOW = Window(state_rows=6, sensor_rows=20, image_rows=2, action_rows=3, action_stride=4)


def gappy_schema(folder: Path) -> Path:
    text = load_schema("meca500").toml
    for stream, limit in LIMITS.items():
        text = text.replace(f"[streams.{stream}]", f"[streams.{stream}]\nmax_gap_s = {limit}")
    (folder / "gappy.toml").write_text(text)
    return folder / "gappy.toml"


def drop_rows(first: int, last: int) -> Any:
    def edit(rows: list[list[str]]) -> None:
        del rows[first:last]

    return edit


def drop_sensor_rows(episode: Path, first: int, last: int) -> None:
    with np.load(episode / "sensor_data.npz") as arrays:
        kept = {name: np.delete(values, slice(first, last), axis=0) for name, values in arrays.items()}
    np.savez(episode / "sensor_data.npz", **kept)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six episodes: whole, a gap in the robot's rows, in the sensor's, in a camera, a camera that stops, all of it."""
    root = tmp_path_factory.mktemp("gaps")
    raw = root / "raw"
    for i in range(6):
        robot = i in (1, 5)
        make_episode(
            raw / f"episode_{i}",
            seed=i,
            num_rows=150,
            num_images=15,
            edit_rows=drop_rows(60, 72) if robot else None,
        )
    for i in (2, 5):
        drop_sensor_rows(raw / f"episode_{i}", 400, 460)
    for i, images in ((3, (4, 9)), (4, (9, 15)), (5, (2, 7))):
        for image in sorted((raw / f"episode_{i}" / "images" / "View2").iterdir())[slice(*images)]:
            image.unlink()
    config = IngestConfig(
        source=raw, out=root / "data", schema=str(gappy_schema(root)), codec="none", shard_bytes=3_000_000
    )
    report = ingest(config)
    assert not report.rejects, report.rejects
    return vlapipe.open_dataset(root / "data")


@pytest.fixture(scope="module")
def dataset_of_before(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same as it was written before there was a table of gaps."""
    copy = tmp_path_factory.mktemp("before") / "data"
    shutil.copytree(dataset.path, copy)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / manifest.pop("gaps")["file"]).unlink()
    del manifest["sha256"]  # nor did it hold its own digest
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return vlapipe.open_dataset(copy)


def has_gap(stamps: Any, limit: float) -> bool:
    return any(later - earlier > limit for earlier, later in itertools.pairwise(stamps))


def frames_without_gaps(dataset: Dataset, window: Window) -> set[tuple[int, int]]:
    """Every frame whose windows have no gap, frame by frame and stamp by stamp."""
    rows = window.choose(dataset).schema.sample
    found = set()
    for index in range(len(dataset)):
        episode = dataset.episode(index)
        clock = episode["robot/timestamp"].tolist()
        start = episode.row["frame_start"]
        others = [("sensor", rows.sensor_rows, "sensor")]
        others += [(camera, rows.image_rows, "camera") for camera in dataset.cameras]
        for frame in range(start, start + episode.row["num_frames"]):
            spans = [
                (clock[max(0, frame - rows.state_rows + 1) : frame + 1], LIMITS["robot"]),
                (clock[frame : frame + (rows.action_rows - 1) * rows.action_stride + 1], LIMITS["robot"]),
            ]
            for name, count, limit in others:
                newest = int(episode[f"align/{name}"][frame])
                seen = episode[f"{name}/timestamp"][max(0, newest - count + 1) : newest + 1].tolist()
                spans.append(([*seen, clock[frame]], LIMITS[limit]))
            if not any(has_gap(stamps, limit) for stamps, limit in spans):
                found.add((index, frame))
    return found


def drawn(loader: Loader) -> list[tuple[int, int]]:
    return [
        frame
        for batch in loader
        for frame in zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    "window",
    [WINDOW, Window(state_rows=1, sensor_rows=1, image_rows=1, action_rows=1), Window(image_rows=4), Window()],
)
@pytest.mark.parametrize("written", ["dataset", "dataset_of_before"])
def test_every_frame_without_a_gap_is_drawn_once_and_no_other(
    request: pytest.FixtureRequest, written: str, window: Window
) -> None:
    dataset: Dataset = request.getfixturevalue(written)
    loader = Loader(dataset, window=window, batch_size=32, split=None, num_workers=0)
    expected = frames_without_gaps(dataset, window)
    found = drawn(loader)
    assert len(found) == len(set(found)) == loader.num_frames
    assert set(found) == expected
    assert loader.num_frames + loader.num_left_out == int(dataset.column("num_frames").sum())
    assert len({episode for episode, _ in expected}) >= 4
    assert loader.num_left_out > 0


@pytest.mark.parametrize("window", [WINDOW, Window(), Window(sensor_rows=130, image_rows=5)])
def test_frames_are_known_without_a_shard(dataset: Dataset, tmp_path: Path, window: Window) -> None:
    shutil.copytree(dataset.path, tmp_path / "data", ignore=shutil.ignore_patterns("shards", ".cache"))
    without = Loader(vlapipe.open_dataset(tmp_path / "data"), window=window, split=None)
    assert without.num_frames == Loader(dataset, window=window, split=None).num_frames > 0


def test_tables_are_read_as_often_for_many_episodes_with_gaps_as_for_one(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for name in ("read", "read_row_group"):
        real = getattr(pq.ParquetFile, name)

        def counted(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
            read.append(name)
            return real(*args, **options)

        monkeypatch.setattr(pq.ParquetFile, name, counted)
    Loader(vlapipe.open_dataset(dataset.path), window=WINDOW, split=None)
    assert read.count("read_row_group") == 1  # of the gaps
    assert read.count("read") <= 2  # columns of the episodes


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_table_of_gaps_is_refused(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    shutil.copytree(dataset.path, tmp_path / "data", ignore=shutil.ignore_patterns("shards", ".cache"))
    [table] = (tmp_path / "data").glob("gaps-*.parquet")
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.unlink()
    if damage == "altered":
        table.write_bytes(data)
    with pytest.raises(DamageError, match=r"gaps-.*parquet: (its bytes differ|cannot be read)"):
        Loader(vlapipe.open_dataset(tmp_path / "data"), split=None)


def test_gaps_are_the_same_bytes_for_any_workers_and_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    raw = dataset.path.parent / "raw"
    options: dict[str, Any] = {"source": raw, "schema": str(gappy_schema(tmp_path)), "shard_bytes": 1}
    ingest(IngestConfig(out=tmp_path / "one", workers=1, **options))
    ingest(IngestConfig(out=tmp_path / "three", workers=3, **options))
    broken = raw / "episode_4" / "robot_states.csv"
    good = broken.read_text()
    try:
        broken.write_text("")
        with pytest.raises(VlapipeError, match="--strict"):
            ingest(IngestConfig(out=tmp_path / "resumed", workers=1, strict=True, **options))
    finally:
        broken.write_text(good)
    assert ingest(IngestConfig(out=tmp_path / "resumed", workers=1, **options)).num_resumed_shards >= 3
    manifests = {(tmp_path / name / "manifest.json").read_bytes() for name in ("one", "three", "resumed")}
    assert len(manifests) == 1
    assert json.loads(manifests.pop())["gaps"]["count"] == 5


def test_ingest_counts_what_the_schemas_own_window_leaves_out(dataset: Dataset) -> None:
    loader = Loader(dataset, split=None)
    assert int(dataset.column("num_left_out").sum()) == loader.num_left_out
    assert dataset.column("num_left_out")[0] == 0


def test_ingest_says_how_many_frames_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_episode(tmp_path / "raw" / "episode_1", num_rows=400, num_images=40, edit_rows=drop_rows(260, 272))
    schema = str(gappy_schema(tmp_path))
    report = ingest(IngestConfig(source=tmp_path / "raw", dry_run=True, schema=schema))
    assert report.num_left_out == 70 + 99  # 7 strides of 10 rows ahead of the gap, 99 rows of state behind it
    print_ingest_report(report, dry_run=True)
    assert "left out 169 frames: their windows would cross a gap, or they lie in a pause\n" in capsys.readouterr().out


def test_resume_goes_on_exactly_and_needs_the_same_window(dataset: Dataset) -> None:
    def loader() -> Loader:
        return Loader(dataset, window=WINDOW, batch_size=8, seed=3, split=None, endless=True, num_workers=0)

    whole = [batch["index"].tolist() for batch in itertools.islice(loader(), 12)]
    first, second = loader(), loader()
    begun = [batch["index"].tolist() for batch in itertools.islice(first, 5)]
    second.load_state_dict(first.state_dict())
    assert begun + [batch["index"].tolist() for batch in itertools.islice(second, 7)] == whole
    with pytest.raises(UsageError, match="window"):
        Loader(dataset, window=Window(state_rows=1), batch_size=8, seed=3, split=None).load_state_dict(
            first.state_dict()
        )


def test_dataset_without_limits_leaves_nothing_out(tiny_dataset: Path) -> None:
    plain = vlapipe.open_dataset(tiny_dataset)
    loader = Loader(plain, split=None)
    assert loader.num_left_out == 0
    assert loader.num_frames == int(plain.column("num_frames").sum())
