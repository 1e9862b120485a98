"""LeRobot v3.0: the files as its documentation describes them, read by plain pyarrow and PyAV, and by LeRobot itself.

Set ``VLAPIPE_LEROBOT_PYTHON`` to the Python of an environment with LeRobot, and its own loader is tried too.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_dataset, make_jpeg
from naive_frames import NaiveEpisode, naive_episode
from PIL import Image

import vlapipe
from vlapipe.pipeline.export import lerobot_metadata, lerobot_tables
from vlapipe.pipeline.export.export import export
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import UsageError

LEROBOT = os.environ.get("VLAPIPE_LEROBOT_PYTHON")

# Columns of LeRobot's table of episodes, and statistics of each feature.
OF_EPISODE = [
    "episode_index",
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
]
OF_EPISODES_FILE = ["meta/episodes/chunk_index", "meta/episodes/file_index"]
OF_VIDEO = ["chunk_index", "file_index", "from_timestamp", "to_timestamp"]
STATISTICS = ["min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"]
NUMBERS = {
    "observation.state": pa.list_(pa.float32(), 12),
    "action": pa.list_(pa.float32(), 7),
    "observation.force": pa.float32(),
    "observation.aline": pa.list_(pa.float32(), 1025),
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def frames_of(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "data").rglob("*.parquet"))])


def episodes_of(out: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted((out / "meta" / "episodes").rglob("*.parquet"))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def info_of(out: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((out / "meta" / "info.json").read_text())
    return info


def decoded(image: dict[str, Any]) -> np.ndarray:
    """As LeRobot's loader does: PIL, without a conversion."""
    return np.asarray(Image.open(io.BytesIO(image["bytes"])))


def naive_episodes(data: Path, fps: float) -> list[NaiveEpisode]:
    dataset = vlapipe.open_dataset(data)
    return [naive_episode(dataset, i, fps) for i in range(len(dataset))]


def test_numbers_images_and_indices_are_those_of_the_dataset(tiny_dataset: Path, tmp_path: Path) -> None:
    export(tiny_dataset, tmp_path / "out", fps=30)
    table, naive = frames_of(tmp_path / "out"), naive_episodes(tiny_dataset, 30)
    images = {f"observation.images.{camera}": IMAGE for camera in ("View1", "View2")}
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == {**NUMBERS, **images}
    lengths = [len(episode.rows) for episode in naive]
    counts = np.concatenate([np.arange(n) for n in lengths])
    for name, wanted in {
        "observation.state": np.concatenate([episode.state for episode in naive]),
        "action": np.concatenate([episode.action for episode in naive]),
        "timestamp": (counts / 30).astype(np.float32),
        "frame_index": counts,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(sum(lengths)),
    }.items():
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), dtype=wanted.dtype), wanted)
    for camera in ("View1", "View2"):
        stored = table[f"observation.images.{camera}"].to_pylist()
        assert [image["bytes"] for image in stored] == [jpeg for episode in naive for jpeg in episode.jpegs[camera]]
        assert stored[1]["path"] == "frame-000001.jpg"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["observation.images.View1"] == {"_type": "Image"}
    assert features["action"]["length"] == 7


def test_metadata_is_as_lerobot_writes_it(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(tiny_dataset, out)
    naive, info = naive_episodes(tiny_dataset, 100), info_of(out)
    lengths = [len(episode.rows) for episode in naive]
    tasks = list(dict.fromkeys(episode.instruction for episode in naive))
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "meca500",
        "total_episodes": 4,
        "total_frames": sum(lengths),
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 100,
        "splits": lerobot_tables.splits_of(vlapipe.open_dataset(tiny_dataset).column("split").tolist()),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
    }
    assert features["observation.state"]["names"][:2] == ["joint_1", "joint_2"]
    assert features["action"] == {
        "dtype": "float32",
        "shape": [7],
        "names": ["pose_x", "pose_y", "pose_z", "pose_a", "pose_b", "pose_r", "gripper"],
    }
    assert features["observation.images.View1"] == {
        "dtype": "image",
        "shape": [24, 32, 3],
        "names": ["height", "width", "channels"],
    }
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    table = pq.read_table(out / "meta" / "tasks.parquet").to_pandas()
    assert table.index.tolist() == tasks
    assert table["task_index"].tolist() == list(range(len(tasks)))
    rows, first = episodes_of(out), 0
    assert list(rows[0]) == [
        *OF_EPISODE,
        *(f"stats/{feature}/{name}" for feature in features for name in STATISTICS),
        *OF_EPISODES_FILE,
    ]
    for i, row in enumerate(rows):
        assert row["episode_index"] == i
        assert row["tasks"] == [naive[i].instruction]
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (first, first + lengths[i])
        assert row["length"] == lengths[i]
        first += lengths[i]
    stats = json.loads((out / "meta" / "stats.json").read_text())
    assert list(stats) == list(features)
    assert np.array(stats["observation.images.View1"]["std"]).shape == (3, 1, 1)


def test_statistics_are_those_of_the_values(tiny_dataset: Path, tmp_path: Path) -> None:
    export(tiny_dataset, tmp_path / "out")
    naive = naive_episodes(tiny_dataset, 100)
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    state = np.concatenate([episode.state for episode in naive]).astype(np.float64)
    pixels = np.concatenate([episode.pixels("View2") for episode in naive]) / 255
    for found, values in ((stats["observation.state"], state), (stats["observation.images.View2"], pixels)):
        axes = tuple(range(values.ndim - 1))
        for name, wanted in {
            "min": values.min(axis=axes),
            "max": values.max(axis=axes),
            "mean": values.mean(axis=axes),
            "std": values.std(axis=axes),
        }.items():
            np.testing.assert_allclose(np.array(found[name]).reshape(-1), wanted, rtol=2e-4, atol=1e-4)
        assert found["count"] == [len(values)]
    one = episodes_of(tmp_path / "out")[0]
    for share, name in ((0.1, "q10"), (0.5, "q50"), (0.99, "q99")):
        below = (naive[0].state <= np.array(one[f"stats/observation.state/{name}"])).sum(axis=0)
        assert (np.abs(below - share * len(naive[0].rows)) <= 1.5).all()


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_video_has_every_frame_at_its_time_within_its_stated_loss(
    tiny_dataset: Path, tmp_path: Path, codec: str
) -> None:
    av = pytest.importorskip("av")
    report = export(tiny_dataset, tmp_path / "out", fps=29.97, video=codec)
    naive, info = naive_episodes(tiny_dataset, 29.97), info_of(tmp_path / "out")
    rows = episodes_of(tmp_path / "out")
    assert info["fps"] == 29.97
    for camera in ("View1", "View2"):
        key = f"observation.images.{camera}"
        assert info["features"][key]["dtype"] == "video"
        assert info["features"][key]["info"]["video.codec"] == codec
        assert key not in frames_of(tmp_path / "out").column_names
        path = tmp_path / "out" / "videos" / key / "chunk-000" / "file-000.mp4"
        with av.open(str(path)) as container:
            frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        wanted = np.concatenate([episode.pixels(camera) for episode in naive])
        assert len(frames) == len(wanted)
        worst = max(
            float(np.mean((frame - image.astype(float)) ** 2)) for (_, frame), image in zip(frames, wanted, strict=True)
        )
        loss = report.tally.losses[camera]
        assert worst < 2 * loss.mse_worst
        assert loss.psnr_db >= loss.worst_psnr_db > 20
        first = 0
        for row, episode in zip(rows, naive, strict=True):
            assert list(row)[7:11] == [f"videos/observation.images.View1/{name}" for name in OF_VIDEO]
            for i in range(len(episode.rows)):
                assert frames[first + i][0] == pytest.approx(row[f"videos/{key}/from_timestamp"] + i / 29.97, abs=1e-5)
            first += len(episode.rows)


def test_files_are_cut_by_size(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    export(tiny_dataset, tmp_path / "one", fps=20, video="h264")
    monkeypatch.setattr(lerobot_tables, "DATA_FILE_BYTES", 1)
    monkeypatch.setattr(lerobot_tables, "VIDEO_FILE_BYTES", 5_000)
    monkeypatch.setattr(lerobot_tables, "CHUNK_FILES", 3)
    monkeypatch.setattr(lerobot_metadata, "_EPISODES_A_GROUP", 1)
    export(tiny_dataset, tmp_path / "many", fps=20, video="h264")
    rows = episodes_of(tmp_path / "many")
    assert [(row["data/chunk_index"], row["data/file_index"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [row["meta/episodes/file_index"] for row in rows] == [0, 1, 2, 0]
    assert len({row["videos/observation.images.View1/file_index"] for row in rows}) > 1
    for row in rows:
        path = tmp_path / "many" / lerobot_tables.data_path((row["data/chunk_index"], row["data/file_index"]))
        assert set(pq.read_table(path)["episode_index"].to_pylist()) == {row["episode_index"]}
    assert frames_of(tmp_path / "many").equals(frames_of(tmp_path / "one"))


def test_where_and_cameras_choose(tiny_dataset: Path, tmp_path: Path) -> None:
    report = export(tiny_dataset, tmp_path / "out", where='task == "insert_blue"', cameras=["View2"])
    assert (report.episodes, report.of_episodes) == (2, 4)
    assert [row["tasks"] for row in episodes_of(tmp_path / "out")] == [["insert the needle into the blue target"]] * 2
    features = info_of(tmp_path / "out")["features"]
    assert [name for name in features if "images" in name] == ["observation.images.View2"]


def test_splits_are_ranges_of_episodes_in_their_order() -> None:
    assert lerobot_tables.splits_of(["train", "train", "val"]) == {"train": "0:2", "val": "2:3"}
    assert lerobot_tables.splits_of(["train", "val", "train", "train"]) == {"train": "0:1,2:4", "val": "1:2"}


def with_other_images(tmp_path: Path, change: Any, **options: Any) -> Path:
    """A dataset of two episodes with one camera, whose images went through ``change`` before they were ingested."""
    raw = make_dataset(tmp_path / "raw", num_episodes=2, num_rows=40)
    for path in raw.rglob("*.jpg"):
        path.write_bytes(change(path.read_bytes()))
    schema = options.pop("schema", "meca500")
    ingest(IngestConfig(source=raw, out=tmp_path / "data", schema=schema, **options))
    return tmp_path / "data"


def upside_down(jpeg: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(file, "jpeg", exif=exif, quality=95)
    return file.getvalue()


def gray(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).convert("L").save(file, "jpeg", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("change", [upside_down, gray])
def test_image_that_others_decode_otherwise_becomes_png_of_the_same_pixels(tmp_path: Path, change: Any) -> None:
    data = with_other_images(tmp_path, change)
    report = export(data, tmp_path / "out", cameras=["View1"])
    naive = naive_episodes(data, 100)
    stored = frames_of(tmp_path / "out")["observation.images.View1"].to_pylist()
    np.testing.assert_array_equal(
        np.stack([decoded(image) for image in stored]), np.concatenate([episode.pixels("View1") for episode in naive])
    )
    assert report.tally.remade == {"View1": len(stored)}
    assert stored[0]["path"] == "frame-000000.png"


def test_raw_pixels_and_exchanged_colours_come_out_as_rgb(tmp_path: Path) -> None:
    from vlapipe.schemas.registry import load_schema

    toml = load_schema("meca500").toml.replace(
        'files = ["images/{camera}', 'channels = "bgr"\nfiles = ["images/{camera}'
    )
    (tmp_path / "bgr.toml").write_text(toml)
    data = with_other_images(tmp_path, lambda jpeg: jpeg, schema=str(tmp_path / "bgr.toml"))
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "pixels", image_storage="raw"))
    export(data, tmp_path / "out", cameras=["View1"])
    export(tmp_path / "pixels", tmp_path / "of_pixels", cameras=["View1"])
    wanted = np.concatenate([episode.pixels("View1") for episode in naive_episodes(data, 100)])
    exchanged, pixels = (
        np.stack([decoded(image) for image in frames_of(tmp_path / name)["observation.images.View1"].to_pylist()])
        for name in ("out", "of_pixels")
    )
    np.testing.assert_array_equal(exchanged, wanted[..., ::-1])
    np.testing.assert_array_equal(pixels, wanted)


def test_odd_or_different_sizes_and_a_missing_camera_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("av")
    raw = make_dataset(tmp_path / "raw", num_episodes=2, num_rows=40)
    for path in sorted(raw.rglob("View1/*.jpg")):
        path.write_bytes(odd_jpeg())
    for path in sorted((raw / "insert_red").rglob("View2/*.jpg")):
        path.write_bytes(make_jpeg(0, height=48))
    ingest(IngestConfig(source=raw, out=tmp_path / "data"))
    with pytest.raises(UsageError, match=r"--video h264: View1 has images of 33x25.*leave out --video"):
        export(tmp_path / "data", tmp_path / "out", video="h264", cameras=["View1"])
    with pytest.raises(UsageError, match=r"View2: expected images of one size.*32x24 in 1, 32x48 in 1.*--image-size"):
        export(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def odd_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (25, 33, 3), dtype=np.uint8)).save(file, "jpeg")
    return file.getvalue()


@pytest.mark.skipif(LEROBOT is None, reason="VLAPIPE_LEROBOT_PYTHON is not set")
@pytest.mark.parametrize("video", [None, "h264", "av1"])
@pytest.mark.parametrize("fps", [None, 30])
def test_lerobots_own_loader_gives_the_same(
    tiny_dataset: Path, tmp_path: Path, video: str | None, fps: float | None
) -> None:
    assert LEROBOT is not None
    report = export(tiny_dataset, tmp_path / "out", video=video, fps=fps)
    naive = naive_episodes(tiny_dataset, report.fps)
    np.savez(
        tmp_path / "expected.npz",
        state=np.concatenate([episode.state for episode in naive]),
        action=np.concatenate([episode.action for episode in naive]),
        tasks=np.array([episode.instruction for episode in naive for _ in episode.rows]),
        lengths=np.array([len(episode.rows) for episode in naive]),
        **{f"pixels/{c}": np.concatenate([episode.pixels(c) for episode in naive]) for c in ("View1", "View2")},
    )
    script = Path(__file__).parent / "with_lerobot.py"
    command = [LEROBOT, str(script), str(tmp_path / "out"), str(tmp_path / "expected.npz")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "same"
