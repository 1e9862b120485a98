"""Episodes that have been found take little memory, however many files they have, and still read the same files."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import pytest
from factories import make_episode
from torture.discovery import Year

from vlapipe.pipeline.discover import listing
from vlapipe.pipeline.discover.discovery import MetadataSays, RawEpisode, discover
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.many_files import ManyFiles
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.discover.unread import Unread
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.schemas.registry import load_schema

MECA = load_schema("meca500")


def test_names_of_many_files_are_listed_again_in_the_same_order(tmp_path: Path) -> None:
    make_episode(tmp_path / "episode_1", num_rows=30, num_images=12, cameras=("left", "right"))
    (found,) = discover(tmp_path, MECA).episodes
    left, sensor = found.files["left"], found.files["sensor"]
    assert isinstance(left, ManyFiles)
    assert isinstance(sensor, tuple)  # a single file is named
    names = sorted(f"episode_1/images/left/{path.name}" for path in (tmp_path / "episode_1/images/left").iterdir())
    assert [file.path for file in left] == names
    assert (len(left), left[0].path, left[-1].path) == (12, names[0], names[-1])
    assert left.num_bytes == sum((tmp_path / name).stat().st_size for name in names)
    assert [file.path for file in found.listed().files["left"]] == names
    assert found.listed().files_digest == found.files_digest


@pytest.mark.parametrize("change", ["new", "gone", "written again"])
def test_digest_sees_each_change_of_many_files(tmp_path: Path, change: str) -> None:
    folder = make_episode(tmp_path / "episode_1", num_rows=30, num_images=12) / "images" / "View1"
    (before,) = discover(tmp_path, MECA).episodes
    last = max(folder.iterdir())
    if change == "new":
        (folder / f"{last.stem}5.jpg").write_bytes(last.read_bytes())
    elif change == "gone":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes() + b"\0")
    (after,) = discover(tmp_path, MECA).episodes
    assert after.files_digest != before.files_digest


def test_file_that_is_gone_since_it_was_found_is_not_named_when_it_is_read(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "episode_1", num_rows=30, num_images=12) / "images" / "View1"
    (found,) = discover(tmp_path, MECA).episodes
    max(folder.iterdir()).unlink()
    assert len(found.listed().files["View1"]) == 11


def kept_bytes(root: Path, episodes: int, images: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Bytes an episode that stay in memory after all have been found and planned."""
    year = Year(root, episodes, images, flat=False)
    monkeypatch.setattr(listing, "_entries", year.entries)
    tracemalloc.start()
    plan = make_plan(discover(root, MECA), MECA, shard_bytes=10_000_000, options={})
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(shard.episodes) for shard in plan.shards) == episodes
    return kept / episodes


def test_memory_does_not_grow_with_files_and_by_little_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (kept_bytes(tmp_path.resolve(), 300, images, monkeypatch) for images in (12, 120))
    assert many < 1000
    assert many - few < 500  # 108 names would take 30,000 bytes


def test_packed_episodes_are_those_that_were_packed() -> None:
    file = RawFile("a/b.csv", 3, 1_790_000_000_123_456_789)
    episodes = [
        RawEpisode(
            id=f"é{i}",
            task="t",
            folder=".",
            files={"robot": (file,), "none": ()},
            cameras={"camera": ("left", "right")},
            metadata=file if i % 2 else None,
            instruction_file=None,
            rows=(i, i + 5),
            entry={"nested": {"a": [1, 2.5, None, "x"]}},
            times={"left": (0.1, 2.0)},
            shares={"left": 0.25},
            says=MetadataSays(
                episode_index=i, length=5, first_row=None, rate_hz=10.0, tasks=((0, "do it"),), dtypes=(("q", "float"),)
            ),
            unread=(Unread(".md", "", "notes.md", 2),),
        )
        for i in range(200)
    ]
    packed = Packed(iter(episodes))
    assert list(packed) == list(pickle.loads(pickle.dumps(packed))) == episodes  # noqa: S301
    assert packed == Packed(episodes)
    assert packed != Packed(episodes[1:])
    assert (len(packed), packed[0], packed[-1], packed[130]) == (200, episodes[0], episodes[-1], episodes[130])
    assert packed[63:66] == tuple(episodes[63:66])
    with pytest.raises(IndexError):
        packed[200]
