"""Images that are too many for memory lie in files without names; what is stored is the same, and nothing is left."""

from __future__ import annotations

import errno
import itertools
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_writing import robot, store_of, write_mcap
from container_writing import write_aloha
from small_recordings import pictures
from videos import make_video

from vlapipe.pipeline import long_images
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.long_images import LongImages, Pieces, empty_images, picked
from vlapipe.schemas.errors import StoppedError

HEAD = """
name = "long"
anchor = "robot"
action = { kind = "next", of = "robot/q" }
sample = { state = ["robot/q"], action_rows = 4 }
split = { val = 0.0 }
"""
ALOHA = """
[streams.robot]
kind = "hdf5"
files = ["*.hdf5"]
time = { rate_hz = 50 }
fields.q = { array = "observations/qpos", shape = [14] }
[streams.camera]
kind = "images"
files = ["*.hdf5"]
array = "observations/images/{camera}"
time = { rate_hz = 50 }
"""
BAG = """
[streams.robot]
kind = "bag"
files = ["*.mcap"]
topic = "/joint_states"
time.array = "header.stamp"
fields.q = { array = "position", shape = [3] }
[streams.front]
kind = "images"
files = ["*.mcap"]
topic = "/cam/color/compressed"
time.array = "header.stamp"
"""
VIDEO = """
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = { column = "t" }
fields.q = { columns = ["q"] }
[streams.front]
kind = "video"
files = ["front.mp4"]
time = { rate_hz = 30 }
"""
EPISODES = 'episodes = { folders = ["episode_*"] }\n'


def images_of_bags(raw: Path) -> str:
    store = store_of(2)
    write_mcap(raw / "episode_0" / "run.mcap", list(robot(store)), store)
    return EPISODES + BAG


def padded_files(raw: Path) -> str:
    write_aloha(raw / "episode_0", index=0)
    return EPISODES + ALOHA


def pixels(raw: Path) -> str:
    write_aloha(raw / "episode_0", index=0, compress=False)
    return EPISODES + ALOHA


def frames_of_a_video(raw: Path) -> str:
    folder = raw / "episode_0"
    folder.mkdir(parents=True)
    make_video(folder / "front.mp4", list(pictures(0, 45)))
    (folder / "robot.csv").write_text("t,q\n" + "".join(f"{i / 30:.4f},{i / 7:.3f}\n" for i in range(45)))
    return EPISODES + VIDEO


MAKERS = [images_of_bags, padded_files, pixels, frames_of_a_video]
OPTIONS: list[dict[str, Any]] = [{}, {"image_storage": "raw"}, {"image_size": (16, 12)}]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("shard-*"))}


@pytest.fixture
def num_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets every image lie in a file, and counts these files."""
    monkeypatch.setattr(long_images, "MOST_HELD", 1000)
    made, file = [0], LongImages.file

    def counted(self: LongImages) -> Any:
        made[0] += 1
        return file(self)

    monkeypatch.setattr(LongImages, "file", counted)
    return made


@pytest.mark.parametrize("options", OPTIONS, ids=["recorded", "raw", "small"])
@pytest.mark.parametrize("make", MAKERS)
def test_shards_are_the_same_wherever_the_images_lay(
    tmp_path: Path, make: Callable[[Path], str], options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    (tmp_path / "long.toml").write_text(HEAD + make(tmp_path / "raw"))
    for name in ("in memory", "in files"):
        if name == "in files":
            num_files = request.getfixturevalue("num_files")
        config = IngestConfig(
            source=tmp_path / "raw", out=tmp_path / name, schema=str(tmp_path / "long.toml"), workers=1, **options
        )
        assert ingest(config).num_episodes == 1
    assert num_files[0] > 0
    assert tree(tmp_path / "in memory") == tree(tmp_path / "in files") != {}
    assert [path.name for path in (tmp_path / "in files").rglob("*tmp*")] == []


def test_files_of_a_lab_are_the_same_too(tiny_raw: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ingest(IngestConfig(source=tiny_raw, out=tmp_path / "a", workers=1))
    num_files = request.getfixturevalue("num_files")
    ingest(IngestConfig(source=tiny_raw, out=tmp_path / "b", workers=1))
    assert num_files[0] > 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != {}


@pytest.mark.parametrize("make", MAKERS)
def test_full_disk_stops_the_command_and_sets_no_episode_aside(
    tmp_path: Path, make: Callable[[Path], str], num_files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "long.toml").write_text(HEAD + make(tmp_path / "raw"))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    config = IngestConfig(source=tmp_path / "raw", out=tmp_path / "data", schema=str(tmp_path / "long.toml"), workers=1)
    with pytest.raises(StoppedError, match="the disk is full"):
        ingest(config)
    assert num_files[0] > 0


def memory_mb() -> int:
    found = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


def test_what_was_written_is_there_after_it_was_handed_back(tmp_path: Path) -> None:
    with LongImages(tmp_path) as long, long.of_this_thread():
        before = memory_mb()
        array = empty_images((300, 1 << 20), np.uint8)
        for row in range(300):
            array[row] = row % 251
            if row % 50 == 49:
                long_images.hand_back()
        assert memory_mb() - before < 100
        assert list(tmp_path.iterdir()) == []
    assert (array[:, 0] == np.arange(300) % 251).all()
    assert (array[:, -1] == np.arange(300) % 251).all()


def test_thread_ends_with_the_shard(tmp_path: Path, new_threads: Callable[[str], list[threading.Thread]]) -> None:
    with LongImages(tmp_path) as long, long.of_this_thread():
        empty_images((long_images.MOST_HELD + 1,), np.uint8)
        assert new_threads("vlapipe-long-images")
    assert not new_threads("vlapipe-long-images")


def test_pieces_keep_their_order_and_their_bytes(tmp_path: Path, num_files: list[int]) -> None:
    random = np.random.default_rng(0)
    wanted = [random.bytes(int(size)) for size in random.integers(0, 400, 40)]
    with LongImages(tmp_path) as long, long.of_this_thread():
        pieces, order = Pieces(), random.permutation(40).tolist()
        for each in wanted:
            pieces.append(each)
        data, offset = pieces.joined()
        assert list(pieces) == wanted
        assert pieces[-1] == wanted[-1]
        assert pieces[3:5] == wanted[3:5]
        pieces.sort(order)
        assert list(pieces) == [wanted[each] for each in order]
        assert pieces.sizes == [len(wanted[each]) for each in order]
    assert num_files == [1]
    assert [data[a:b].tobytes() for a, b in itertools.pairwise(offset)] == wanted


def test_picked_bytes_are_those_at_the_positions(tmp_path: Path, num_files: list[int]) -> None:
    with LongImages(tmp_path) as long, long.of_this_thread():
        data = empty_images((50_000,), np.uint8)
        data[:] = np.random.default_rng(0).integers(0, 256, 50_000)
        at = np.random.default_rng(1).integers(0, 50_000, (3000, 8))
        assert np.array_equal(picked(data, at), data[at])
    assert num_files == [1]


def test_full_disk_is_told_before_anything_is_written_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        LongImages(tmp_path) as long,
        long.of_this_thread(),
        pytest.raises(StoppedError, match=f"{tmp_path}: the disk is full"),
    ):
        empty_images((long_images.MOST_HELD + 1,), np.uint8)
