"""A stream with a clock of its own starts together with another stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_episode, make_jpeg

from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.pipeline.read.episode import Episode, read_episode
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

CAMERA = '[streams.camera.time]\nunit = "s"'


def schema_with(camera_time: str = CAMERA, **replacements: str) -> Schema:
    text = load_schema("meca500").toml
    assert CAMERA in text
    text = text.replace(CAMERA, camera_time)
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return parse_schema(text, "test")


def read(root: Path, schema: Schema) -> tuple[Episode | None, list[Finding]]:
    discovery = discover(root, schema)
    plan = make_plan(discovery, schema, shard_bytes=1 << 30, options={})
    findings = Findings(schema.checks.severity)
    episode = read_episode(root, plan.shards[0].episodes[0], schema, plan.cameras, findings)
    return episode, list(findings)


def rename_images(folder: Path, form: str) -> None:
    """Number the images of each view from 0, in the order of their times."""
    for camera in sorted((folder / "images").iterdir()):
        for i, image in enumerate(sorted(camera.iterdir())):
            image.rename(camera / form.format(i))


def stamps_s(episode: Episode, name: str) -> Any:
    timestamp = episode.streams[name].timestamp
    return timestamp / 1e9 if timestamp.dtype == np.int64 else timestamp


def test_numbered_images_start_with_the_robot(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1")
    rename_images(folder, "frame_{}.jpg")
    (folder / "images" / "View2" / "frame_0.jpg").unlink()  # the first image of one view is lost
    (folder / "images" / "View2" / "frame_9.jpg").write_bytes(make_jpeg(7))
    schema = schema_with('[streams.camera.time]\nrate_hz = 15\nstarts_with = "robot"\noffset_s = 0.25')
    episode, findings = read(tmp_path, schema)
    assert episode is not None, findings
    begin = episode.streams["robot"].timestamp[0]
    for camera, first in (("View1", 0), ("View2", 1)):
        assert episode.streams[camera].timestamp.dtype == np.int64
        expected = begin + 0.25 + np.arange(first, first + 9) / 15
        assert np.allclose(stamps_s(episode, camera), expected, rtol=0, atol=1e-6)
    data = episode.streams["View1"]
    assert data.num_rows == 9


def test_chain_of_clocks_is_moved_from_its_end(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1")
    arrays = dict(np.load(folder / "sensor_data.npz"))
    arrays["timestamps"] = arrays["timestamps"] - arrays["timestamps"][0] + 7
    np.savez(folder / "sensor_data.npz", **arrays)
    rename_images(folder, "{}.jpg")
    schema = schema_with(
        '[streams.camera.time]\nrate_hz = 15\nstarts_with = "robot"\noffset_s = 0.1',
        # Stands before the camera in the schema, and must be moved after it.
        **{'array = "timestamps"\nunit = "s"': 'array = "timestamps"\nstarts_with = "camera"'},
    )
    episode, findings = read(tmp_path, schema)
    assert episode is not None, findings
    begin = episode.streams["robot"].timestamp[0]
    sensor = episode.streams["sensor"].timestamp
    assert sensor[0] == pytest.approx(begin + 0.1, abs=1e-6)
    assert np.allclose(np.diff(sensor), 1 / 650, rtol=0, atol=1e-6)
    assert stamps_s(episode, "View1")[0] == pytest.approx(sensor[0], abs=1e-6)


def test_clocks_that_start_with_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="goes round in a circle"):
        schema_with(
            '[streams.camera.time]\nstarts_with = "sensor"',
            **{'array = "timestamps"\nunit = "s"': 'array = "timestamps"\nstarts_with = "camera"'},
        )


def test_times_in_a_file_beside_the_images(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1")
    for camera in ("View1", "View2"):
        stamps = sorted(float(image.stem) for image in (folder / "images" / camera).iterdir())
        (folder / "images" / camera / "times.txt").write_text("".join(f"{stamp:.6f}\n" for stamp in stamps))
    plain, _ = read(tmp_path, schema_with())
    for camera in ("View1", "View2"):
        images = sorted((folder / "images" / camera).glob("*.jpg"))
        for i, image in enumerate(images):
            image.rename(image.with_name(f"{i}.jpg"))
    schema = schema_with('[streams.camera.time]\nfile = "images/{camera}/times.txt"')
    episode, findings = read(tmp_path, schema)
    assert episode is not None, findings
    assert plain is not None
    for camera in ("View1", "View2"):
        assert np.array_equal(episode.streams[camera].timestamp, plain.streams[camera].timestamp)

    times = folder / "images" / "View2" / "times.txt"
    lines = times.read_text().splitlines()
    times.write_text("\n".join([lines[1], lines[0], *lines[2:]]))
    _, findings = read(tmp_path, schema)
    place = "task/episode_1/images/View2/times.txt"
    assert [(f.code, f.file, f.line) for f in findings if f.severity == "error"] == [("clock.backwards", place, 2)]
    times.unlink()
    _, findings = read(tmp_path, schema)
    assert [f.code for f in findings if f.severity == "error"] == ["file.missing"]


def test_plan_changes_with_the_clocks_file(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1", cameras=("View1",))
    schema = schema_with('[streams.camera.time]\nfile = "images/{camera}/times.txt"')
    times = folder / "images" / "View1" / "times.txt"
    digests = set()
    for text in ("1\n", "1\n2\n"):
        times.write_text(text)
        digests.add(make_plan(discover(tmp_path, schema), schema, shard_bytes=1, options={}).shards[0].digest)
    assert len(digests) == 2


def test_robots_clock_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1", num_rows=40)
    plain, _ = read(tmp_path, schema_with())
    assert plain is not None
    stamps = plain.streams["robot"].timestamp
    np.save(folder / "robot_time.npy", stamps)
    own = {'column = ["origin_timestamp", "timestamp"]': 'file = "robot_time.npy"\n#'}
    episode, findings = read(tmp_path, schema_with(**own))
    assert episode is not None, findings
    assert np.array_equal(episode.streams["robot"].timestamp, stamps)
    np.save(folder / "robot_time.npy", stamps[:-1])
    episode, findings = read(tmp_path, schema_with(**own))
    errors = [f for f in findings if f.severity == "error"]
    assert [(f.code, f.found) for f in errors] == [("clock.count", "39")]
    assert errors[0].expected.startswith("40 stamps")


def test_episode_with_sensor_windows_equals_the_one_with_flat_arrays(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1")
    plain, _ = read(tmp_path, load_schema("meca500"))
    flat = dict(np.load(folder / "sensor_data.npz"))
    rows = np.column_stack([flat["forces"], flat["alines"]])
    ends = np.arange(65, len(rows) + 1, 13)
    windows = np.stack([rows[end - 65 : end] for end in ends])
    np.savez(folder / "sensor_data.npz", data=windows, timestamps=flat["timestamps"][ends - 1])
    episode, findings = read(tmp_path, load_schema("meca500"))
    assert episode is not None, findings
    assert plain is not None
    assert "npz.windows" in [f.code for f in findings]
    fields, expected = episode.fields(), plain.fields()
    for name in ("sensor/force", "sensor/aline"):
        assert np.array_equal(fields[name], expected[name][: ends[-1]])
    assert np.allclose(
        episode.streams["sensor"].timestamp, plain.streams["sensor"].timestamp[: ends[-1]], rtol=0, atol=1e-6
    )
