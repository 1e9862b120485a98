"""Episodes that are files, links, and unusual names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from factories import make_episode

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode, discover
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

MECA = load_schema("meca500")


def schema(
    files: str = '"*.csv"', episodes: str = "per_file = true", *, sensor: str = "", camera: str = "", more: str = ""
) -> Schema:
    other = f'[streams.sensor]\nkind = "csv"\nfiles = [{sensor}]\ntime = {{ column = "t" }}\n' if sensor else ""
    other += '[streams.sensor.fields.f]\ncolumns = ["f"]\n' if sensor else ""
    other += f'[streams.camera]\nkind = "images"\nfiles = [{camera}]\n[streams.camera.time]\n' if camera else ""
    return parse_schema(
        f"""
        name = "t"
        anchor = "robot"
        [episodes]
        {episodes}
        [streams.robot]
        kind = "csv"
        files = [{files}]
        time = {{ column = "t" }}
        fields = {{ x = {{ columns = ["x"] }} }}
        {other}
        {more}
        [action]
        kind = "next"
        of = ["robot/x"]
        [sample]
        state = ["robot/x"]
        """,
        "t",
    )


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def ids(found: Discovery) -> list[str]:
    return [episode.id for episode in found.episodes]


def paths(episode: RawEpisode, stream: str) -> list[str]:
    return [file.path for file in episode.files[stream]]


def test_each_file_is_an_episode_called_by_its_path_without_extensions(tmp_path: Path) -> None:
    names = ("run 1.csv", "deep/er/lauf ä.csv", "deep/b.csv.gz", "c.zip", "2024.10.11.csv", "notes.md")
    found = discover(
        touch(tmp_path, *names), schema('"*.csv", "*.csv.gz", "*.zip"', 'per_file = true\ntask = "{stem}"')
    )
    assert ids(found) == ["2024.10.11", "c", "deep/b", "deep/er/lauf ä", "run 1"]
    assert [episode.task for episode in found.episodes] == ["2024.10.11", "c", "b", "lauf ä", "run 1"]
    assert [episode.folder for episode in found.episodes] == [".", ".", "deep", "deep/er", "."]
    assert [(each.first, each.num_files) for each in found.unread] == [("notes.md", 1)]


def test_task_of_a_file_is_the_folder_that_holds_it(tmp_path: Path) -> None:
    found = discover(touch(tmp_path / "lab", "red/1.csv", "2.csv"), schema())
    assert [(episode.id, episode.task) for episode in found.episodes] == [("2", "lab"), ("red/1", "red")]


def test_files_whose_ids_collide_keep_their_extensions(tmp_path: Path) -> None:
    found = discover(touch(tmp_path, "a.csv", "a.csv.gz", "b.csv", "a.csv.txt"), schema('"*.csv", "*.csv.*"'))
    assert ids(found) == ["a.csv", "a.csv.gz", "a.csv.txt", "b"]


def test_stem_joins_the_streams_of_one_episode(tmp_path: Path) -> None:
    touch(tmp_path, "a/run1.csv", "a/run10.csv", "a/run1_force.csv", "a/run10_force.csv", "a/run1.json", "a/x[1].csv")
    touch(tmp_path, "a/run1_frames/left/1.jpg", "a/run1_frames/left/2.jpg", "a/run10_frames/right/1.jpg")
    touch(tmp_path, "a/x[1]_force.csv", "a/x1_force.csv")
    spec = schema(
        sensor='"{stem}_force.csv"',
        camera='"{stem}_frames/{camera}/*.jpg"',
        episodes='per_file = true\nmetadata = "{stem}.json"',
    )
    found = discover(tmp_path, spec)
    first, tenth, bracket, stray = sorted(found.episodes, key=lambda e: (e.stem == "x1_force", e.id))
    assert ids(found) == ["a/run1", "a/run10", "a/x1_force", "a/x[1]"]  # x1_force belongs to no other episode
    assert paths(first, "sensor") == ["a/run1_force.csv"]
    assert paths(tenth, "sensor") == ["a/run10_force.csv"]
    assert paths(bracket, "sensor") == ["a/x[1]_force.csv"]
    assert paths(stray, "sensor") == []
    assert first.cameras == {"camera": ("left",)}
    assert paths(first, "left") == ["a/run1_frames/left/1.jpg", "a/run1_frames/left/2.jpg"]
    assert tenth.cameras == {"camera": ("right",)}
    assert first.metadata is not None
    assert tenth.metadata is None


def test_stem_may_be_part_of_the_anchors_name(tmp_path: Path) -> None:
    touch(tmp_path, "r1_robot.csv", "r1_force.csv", "r2_robot.csv", "r2_force.csv")
    found = discover(tmp_path, schema('"{stem}_robot.csv"', sensor='"{stem}_force.csv"'))
    assert [(e.id, e.stem, paths(e, "sensor")) for e in found.episodes] == [
        ("r1_robot", "r1", ["r1_force.csv"]),
        ("r2_robot", "r2", ["r2_force.csv"]),
    ]


def test_pattern_with_a_folder_is_relative_to_the_folder_that_it_begins_in(tmp_path: Path) -> None:
    touch(tmp_path, "mon/robot/1.csv", "mon/force/1.csv", "tue/robot/1.csv", "tue/force/1.csv", "tue/force/2.csv")
    found = discover(tmp_path, schema('"robot/*.csv"', sensor='"force/{stem}.csv"'))
    assert ids(found) == ["mon/robot/1", "tue/robot/1"]
    assert paths(found.episodes[1], "sensor") == ["tue/force/1.csv"]
    assert [episode.task for episode in found.episodes] == ["mon", "tue"]


def test_single_file_or_folder_of_one_file_is_an_episode(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.csv", "two/a.csv", "two/b.csv", "two/a_force.csv", "two/b.txt")
    spec = schema(sensor='"{stem}_force.csv"')
    assert ids(discover(tmp_path / "one", spec, single=True)) == ["a"]
    (episode,) = discover(tmp_path / "two" / "a.csv", spec, single=True).episodes
    assert (episode.id, episode.task, paths(episode, "sensor")) == ("a", "two", ["a_force.csv"])
    with pytest.raises(UsageError, match="holds 2 episodes"):
        discover(tmp_path / "two", spec, single=True)
    with pytest.raises(UsageError, match="looks for files named"):
        discover(tmp_path / "two" / "b.txt", spec, single=True)
    with pytest.raises(UsageError, match="not a folder"):
        discover(tmp_path / "two" / "a.csv", spec)


def test_thousands_of_files_in_one_folder_are_sorted_in_no_time(tmp_path: Path) -> None:
    """Each episode looks its own files up; it does not go through everyone's."""
    count = 1500
    for i in range(count):
        (tmp_path / f"{i}.csv").touch()
        (tmp_path / f"{i}_force.csv").touch()
    found = discover(tmp_path, schema(sensor='"{stem}_force.csv"'))
    assert len(found.episodes) == count
    assert all(len(episode.files["sensor"]) == 1 for episode in found.episodes)


def test_folder_that_holds_the_anchors_file_is_an_episode_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/states.csv", "a/b/extra/states.csv", "c d/é/states.csv", "x/robot/s.csv")
    found = discover(tmp_path, schema('"states.csv", "robot/s.csv"', ""))
    assert ids(found) == ["a/b", "c d/é", "x"]


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    elsewhere = make_episode(tmp_path / "elsewhere" / "episode_1", num_rows=3, num_images=1)
    lab = tmp_path / "lab"
    (lab / "deep" / "er").mkdir(parents=True)
    (lab / "episode_1").symlink_to(elsewhere)
    (lab / "deep" / "er" / "top").symlink_to(lab)
    (lab / "deep" / "self").symlink_to("self")
    (elsewhere / "up").symlink_to(lab / "deep")
    found = discover(lab, MECA)
    # Through the loop the same folders would come again and again, at every depth.
    assert ids(found) == ["episode_1"]
    assert {path.partition("/")[0] for path in paths(found.episodes[0], "View1")} == {"episode_1"}


def test_link_to_another_folder_of_the_dataset_is_an_episode_of_its_own(tmp_path: Path) -> None:
    make_episode(tmp_path / "all" / "episode_1", num_rows=3, num_images=1)
    (tmp_path / "picked").mkdir()
    (tmp_path / "picked" / "episode_1").symlink_to(tmp_path / "all" / "episode_1")
    assert ids(discover(tmp_path, MECA)) == ["all/episode_1", "picked/episode_1"]


@pytest.mark.parametrize("cameras", [("cam 1", "cam.2"), ("カメラ1", "相机1"), ("left", "правый")])
def test_cameras_keep_their_own_images_whatever_their_names(tmp_path: Path, cameras: tuple[str, str]) -> None:
    make_episode(tmp_path / "episode_1", num_rows=3, num_images=2, cameras=cameras)
    (episode,) = discover(tmp_path, MECA).episodes
    names = episode.cameras["camera"]
    assert len(names) == 2
    assert all(name.isascii() and " " not in name for name in names)
    assert sorted({Path(path).parent.name for name in names for path in paths(episode, name)}) == sorted(cameras)
    assert all(len({Path(path).parent for path in paths(episode, name)}) == 1 for name in names)


def test_cameras_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    make_episode(tmp_path / "episode_1", num_rows=3, num_images=2, cameras=("cam 1", "cam_1"))
    with pytest.raises(UsageError, match=r"'cam 1' and 'cam_1'"):
        discover(tmp_path, MECA)


def test_name_that_is_not_text_is_left_out_and_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    try:
        (tmp_path / os.fsdecode(b"\xff")).mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    found = discover(tmp_path, schema())
    assert ([e.id for e in found.episodes], found.misnamed) == (["a"], ("\\xff",))


def test_order_and_digest_of_files_do_not_depend_on_the_file_system(tmp_path: Path) -> None:
    names = [f"{name}.csv" for name in "qwertyuiop"]
    one, other = touch(tmp_path / "1" / "d", *names), touch(tmp_path / "2" / "d", *reversed(names))
    for root in (one, other):
        for name in names:
            os.utime(root / name, ns=(0, 0))
    plans = [make_plan(discover(root, schema()), schema(), shard_bytes=1, options={}) for root in (one, other)]
    assert [shard.digest for shard in plans[0].shards] == [shard.digest for shard in plans[1].shards]
    assert [e.id for shard in plans[0].shards for e in shard.episodes] == sorted("qwertyuiop")


def test_view_in_a_files_name_is_as_short_as_it_can_be(tmp_path: Path) -> None:
    names = [f"IMG/{camera}_2016_12_0{i}.jpg" for camera in ("center", "left") for i in (1, 2)]
    root = touch(tmp_path / "lab", "log.csv", *names)
    (episode,) = discover(root, schema('"log.csv"', "", camera='"IMG/{camera}_*.jpg"')).episodes
    assert episode.cameras["camera"] == ("center", "left")
