"""No batch holds a window across a gap; what remains is drawn once an epoch, and a resume is exact."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_episode

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.ingest_text import print_ingest_report
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.registry import load_schema
from vlapipe.train.loader import Loader
from vlapipe.train.window import Window

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


def has_gap(stamps: Any, limit: float) -> bool:
    return any(later - earlier > limit for earlier, later in itertools.pairwise(stamps))


def frames_without_gaps(dataset: Dataset, window: Window) -> set[tuple[int, int]]:
    """Every frame whose windows have no gap, frame by frame and stamp by stamp."""
    rows = window.resolve(dataset.schema.sample)
    found = set()
    for index in range(len(dataset)):
        episode = dataset.episode(index)
        clock = episode["robot/timestamp"].tolist()
        start = episode.row["frame_start"]
        others = [("sensor", rows.sensor_rows, "sensor")]
        others += [(view, rows.image_rows, "camera") for view in dataset.views]
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
def test_every_frame_without_a_gap_is_drawn_once_and_no_other(dataset: Dataset, window: Window) -> None:
    loader = Loader(dataset, window=window, batch_size=32, split=None, num_workers=0)
    expected = frames_without_gaps(dataset, window)
    found = drawn(loader)
    assert len(found) == len(set(found)) == loader.num_frames
    assert set(found) == expected
    assert loader.num_frames + loader.num_left_out == int(dataset.column("num_frames").sum())
    assert len({episode for episode, _ in expected}) >= 4
    assert loader.num_left_out > 0


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
    assert "left out 169 frames: their windows would cross a gap" in capsys.readouterr().out


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
