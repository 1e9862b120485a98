"""One rate: which row stands for each frame, and what the report says was changed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import make_dataset
from naive_frames import naive_episode
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.pipeline.export.export import export
from vlapipe.pipeline.export.one_rate import Change, episode_frames
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import UsageError


@pytest.mark.parametrize("fps", [100.0, 30.0, 7.3, 240.0])
def test_each_frame_has_the_nearest_row_and_no_image_of_the_future(tiny_dataset: Path, fps: float) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    for which in range(len(dataset)):
        episode = dataset.episode(which)
        frames = episode_frames(dataset, episode, fps, dataset.cameras)
        assert frames.anchor_rows.tolist() == naive_episode(dataset, which, fps).rows
        clock = episode["robot/timestamp"][frames.anchor_rows]
        for camera in dataset.cameras:
            assert (episode[f"{camera}/timestamp"][frames.rows[camera]] <= clock).all()


def test_report_counts_rows_that_are_dropped_repeated_and_outside(tiny_dataset: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    episode = dataset.episode(0)
    for fps in (100.0, 30.0, 240.0):
        frames = episode_frames(dataset, episode, fps, dataset.cameras)
        for stream, rows in {"robot": frames.anchor_rows, **frames.rows}.items():
            change, used = frames.changes[stream], set(rows.tolist())
            between = range(min(used), max(used) + 1)
            assert change.rows == len(episode[f"{stream}/timestamp"])
            assert change.frames == len(frames)
            assert change.dropped == len(set(between) - used)
            assert change.repeated == sum(a == b for a, b in pairwise(rows))
            assert change.outside == change.rows - len(between)
            first = episode["robot/timestamp"][frames.anchor_rows[0]]
            moved = [abs(episode[f"{stream}/timestamp"][row] - first - i / fps) for i, row in enumerate(rows)]
            assert change.moved_s == pytest.approx(max(moved), abs=1e-6)


def test_clock_at_the_declared_rate_keeps_every_row_and_says_so(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", {"ep0": {}, "ep1": {}}, num_rows=31)
    text = schema_text().replace('kind = "csv"', 'kind = "csv"\nrate_hz = 10')
    data = tmp_path / "data"
    ingest_lab(raw, data, text)
    report = export(data, tmp_path / "out")
    change = report.tally.changes["robot"]
    assert report.fps == 10
    assert change.is_none
    assert (change.rows, change.frames, change.outside) == (62, 60, 2)  # the last row has no action


def test_schema_without_a_rate_needs_fps(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", {"ep0": {}})
    data = tmp_path / "data"
    ingest_lab(raw, data, schema_text())
    with pytest.raises(UsageError, match=r"--fps is missing.*declares no rate for robot.*10 Hz is measured.*--fps 10"):
        export(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(data, tmp_path / "out", fps=5).tally.changes["robot"].dropped > 0


def test_hole_in_the_recording_shows_in_the_largest_move(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    (table,) = raw.rglob("robot_states.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:20], *lines[26:], ""]))  # 0.06 s are missing
    data = tmp_path / "data"
    ingest(IngestConfig(source=raw, out=data))
    change = export(data, tmp_path / "out").tally.changes["robot"]
    assert change.repeated >= 5
    assert 0.025 < change.moved_s < 0.04
    assert not change.is_none


def test_no_change_is_none_if_any_row_moved() -> None:
    assert Change(rows=5, frames=4, outside=1).is_none
    assert not Change(rows=5, frames=5, moved_s=1e-3).is_none
    assert not Change(rows=5, frames=5, repeated=1).is_none
    assert not Change(rows=5, frames=4, dropped=1).is_none


def test_delta_actions_are_the_recorded_ones_at_another_rate(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    export(tiny_dataset, tmp_path / "out", fps=20)
    (file,) = (tmp_path / "out" / "data").rglob("*.parquet")
    table = pq.read_table(file)
    stored = np.array(table["action"].to_pylist(), dtype=np.float32)
    naive = [naive_episode(dataset, which, 20).action for which in range(len(dataset))]
    np.testing.assert_array_equal(stored, np.concatenate(naive))
