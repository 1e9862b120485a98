"""Episodes and cameras inside containers: groups, ends and numbered files; each is read on its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from container_writing import (
    pictures,
    push_t,
    umi,
    write_aloha,
    write_calvin,
    write_libero,
    write_replay_buffer,
    write_robomimic,
)

import vlapipe
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.read.segments import cut_files
from vlapipe.schemas.registry import load_schema


def take(root: Path, schema: str) -> IngestReport:
    return ingest(IngestConfig(source=root / "raw", schema=schema, out=root / "data"))


def reasons(report: IngestReport) -> list[tuple[str, str]]:
    return [(reject["episode"], reason["code"]) for reject in report.rejects for reason in reject["reasons"]]


def test_several_files_each_with_several_episodes(tmp_path: Path) -> None:
    for name in ("lift", "can"):
        write_robomimic(tmp_path / "raw" / f"{name}.hdf5", images=False, demos=12)
    report = take(tmp_path, "robomimic")
    assert (report.num_episodes, report.rejects) == (24, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert "can/demo_11" in dataset.episodes.column("id").to_pylist()
    files = list((tmp_path / "raw").iterdir())
    assert report.raw_bytes == sum(path.stat().st_size for path in files)


def test_an_episode_counts_its_share_of_the_file(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "raw" / "lift.hdf5", demos=10)
    schema = load_schema("robomimic")
    discovery = cut_files(discover(tmp_path / "raw", schema), schema)
    sizes = [raw.num_bytes for raw in discovery.episodes]
    assert len(sizes) == 10
    assert abs(sum(sizes) - path.stat().st_size) < 20


def test_a_demonstration_with_a_fault_leaves_the_others(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "raw" / "lift.hdf5", images=False)
    with h5py.File(path, "a") as file:
        file["data/demo_1/actions"][7, 3] = np.nan
        del file["data/demo_2/obs/robot0_eef_pos"]
    report = take(tmp_path, "robomimic")
    assert report.num_episodes == 1
    found = {reject["episode"]: reject["reasons"] for reject in report.rejects}
    wrong = [reason for reason in found["lift/demo_1"] if reason["severity"] == "error"]
    assert [(r["code"], r["column"], r["found"]) for r in wrong] == [
        ("npz.not_finite", "actions", "NaN or infinity in row 7")
    ]
    wrong = [reason for reason in found["lift/demo_2"] if reason["severity"] == "error"]
    assert [(r["code"], r["column"]) for r in wrong] == [("npz.missing_array", "obs/robot0_eef_pos")]


def test_a_file_without_such_groups_says_so(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with h5py.File(tmp_path / "raw" / "lift.hdf5", "w") as file:
        file["episodes/0/actions"] = np.zeros((3, 7))
    report = take(tmp_path, "robomimic")
    assert reasons(report) == [("lift", "npz.missing_array")]
    assert "groups called 'data/demo_*'" in report.rejects[0]["reasons"][0]["message"]


@pytest.mark.parametrize("ends", [[30, 30, 95], [30, 20, 95], [0, 30, 95], [-5, 30, 95]])
def test_ends_that_do_not_rise_are_refused(tmp_path: Path, ends: list[int]) -> None:
    data, _ = push_t()
    write_replay_buffer(tmp_path / "raw" / "a.zarr", data, ends)
    report = take(tmp_path, "diffusion_policy")
    assert reasons(report) == [("a", "npz.ends")]
    assert report.rejects[0]["reasons"][0]["column"] == "meta/episode_ends"


def test_rows_after_the_last_end_are_told(tmp_path: Path) -> None:
    data, _ = push_t()
    write_replay_buffer(tmp_path / "raw" / "a.zarr", data, [30, 55])
    report = take(tmp_path, "diffusion_policy")
    assert report.num_episodes == 2
    told = [(f["episode"], f["code"], f["found"]) for f in report.findings if f["code"] == "npz.rows_left"]
    assert told == [("a/part_0001", "npz.rows_left", "95")]


def test_an_array_that_is_shorter_than_the_ends_is_refused(tmp_path: Path) -> None:
    data, ends = push_t()
    data["action"] = data["action"][:90]
    write_replay_buffer(tmp_path / "raw" / "a.zarr", data, ends)
    report = take(tmp_path, "diffusion_policy")
    assert report.num_episodes == 0
    assert {code for _, code in reasons(report)} >= {"npz.length"}


def test_a_lost_chunk_sets_aside_only_the_episode_that_has_it(tmp_path: Path) -> None:
    data, ends = push_t()
    path = write_replay_buffer(tmp_path / "raw" / "a.zarr", data, ends)
    (path / "data/img/40.0.0.0").unlink()
    report = take(tmp_path, "diffusion_policy")
    assert reasons(report) == [("a/part_0001", "npz.not_written")]
    assert "none from row 40" in report.rejects[0]["reasons"][0]["message"]


def test_a_store_with_a_damaged_description_leaves_the_others(tmp_path: Path) -> None:
    data, ends = umi()
    for name in ("a", "b"):
        write_replay_buffer(tmp_path / "raw" / f"{name}.zarr", data, ends, compressor=None)
    (tmp_path / "raw/b.zarr/data/camera0_rgb/.zarray").write_text("{")
    report = take(tmp_path, "umi")
    assert report.num_episodes == 2
    assert {(name, code) for name, code in reasons(report) if code == "npz.unreadable"} == {
        ("b/part_0000", "npz.unreadable"),
        ("b/part_0001", "npz.unreadable"),
    }


def test_a_file_with_a_damaged_group_leaves_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = write_robomimic(tmp_path / "raw" / f"{name}.hdf5")
    whole = bytearray(path.read_bytes())
    at = whole.find(b"agentview_image")
    whole[at - 200 : at + 400] = bytes(600)
    path.write_bytes(whole)
    report = take(tmp_path, "robomimic")
    assert report.num_episodes >= 3
    assert all(reject["episode"].startswith("b") for reject in report.rejects)
    assert "episode.failed" not in str(report.rejects)


def test_a_time_step_that_is_missing_sets_its_episode_aside(tmp_path: Path) -> None:
    write_calvin(tmp_path / "raw" / "training", [(0, 19), (20, 39)])
    (tmp_path / "raw/training/episode_0000025.npz").unlink()
    report = take(tmp_path, "calvin")
    assert report.num_episodes == 1
    wrong = [r for r in report.rejects[0]["reasons"] if r["severity"] == "error"]
    assert ("file.missing", "none with number 25") in [(r["code"], r["found"]) for r in wrong]


def test_a_damaged_time_step_is_named(tmp_path: Path) -> None:
    write_calvin(tmp_path / "raw" / "training", [(0, 19), (20, 39)])
    (tmp_path / "raw/training/episode_0000031.npz").write_bytes(b"PK")
    report = take(tmp_path, "calvin")
    assert report.num_episodes == 1
    assert "episode_0000031.npz" in report.rejects[0]["reasons"][0]["message"]


@pytest.mark.parametrize("ranges", [np.zeros(3), [[5, 2]], np.zeros((0, 2), dtype=int), "none"])
def test_ranges_that_are_none_are_refused(tmp_path: Path, ranges: object) -> None:
    write_calvin(tmp_path / "raw" / "training", [(0, 9)])
    place = tmp_path / "raw/training/ep_start_end_ids.npy"
    place.unlink()
    if not isinstance(ranges, str):
        np.save(place, ranges)  # type: ignore[arg-type]
    report = take(tmp_path, "calvin")
    assert report.num_episodes == 0
    assert reasons(report)[0][1] == ("file.missing" if isinstance(ranges, str) else "npz.ends")


def test_groups_of_an_npz_are_the_beginnings_of_names(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    arrays = {f"run_{i}/q": np.cumsum(np.ones((20 + i, 2)), axis=0) for i in range(3)}
    np.savez(tmp_path / "raw" / "all.npz", **arrays)  # type: ignore[arg-type]
    schema = tmp_path / "lab.toml"
    schema.write_text("""
episodes = { per_file = true, group = "run_*" }
action = { kind = "next", of = "robot/q" }
sample = { state = "robot/q" }
[streams.robot]
kind = "npz"
files = ["*.npz"]
time = { rate_hz = 10 }
fields.q = { array = "q", shape = [2] }
""")
    report = take(tmp_path, str(schema))
    assert (report.num_episodes, report.rejects) == (3, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert dataset.episodes.column("id").to_pylist() == ["all/run_0", "all/run_1", "all/run_2"]
    assert np.array_equal(dataset.episode(2)["robot/q"], arrays["run_2/q"])


def test_a_camera_that_one_episode_lacks_is_absent_there(tmp_path: Path) -> None:
    for i in range(3):
        path = write_aloha(tmp_path / "raw", index=i)
    with h5py.File(path, "a") as file:
        del file["observations/images/cam_low"]
        del file["compress_len"]
    report = take(tmp_path, "aloha")
    assert report.num_episodes == 3
    absent = [f["found"] for f in report.findings if f["code"] == "stream.absent"]
    assert absent == ["no cam_low"]


def test_cameras_inside_an_npz_are_no_state(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    frames, state = pictures(np.random.default_rng(0), 40), np.cumsum(np.ones((40, 9)), axis=0).astype("f4")
    np.savez(tmp_path / "raw" / "trajectory.npz", t=np.arange(40) * 0.1, obs_rgb=frames, obs_state=state)
    schema = tmp_path / "lab.toml"
    schema.write_text("""
episodes = { per_file = true }
action = { kind = "next", of = "robot/state" }
[streams.robot]
kind = "npz"
files = ["*.npz"]
time = { array = "t" }
fields.state = { array = "obs_state", shape = [9] }
[streams.cameras]
kind = "images"
files = ["{stem}.npz"]
array = "obs_{camera}"
cameras = ["rgb"]
time = { rows_of = "robot" }
""")
    report = take(tmp_path, str(schema))
    assert (report.num_episodes, report.rejects) == (1, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert dataset.schema.sample.state == ("robot/state",)
    assert np.array_equal(dataset.episode(0)["rgb/pixels"], frames)


def test_cameras_of_the_anchors_own_files_are_named_as_the_anchor_is(tmp_path: Path) -> None:
    for i in range(2):
        write_aloha(tmp_path / "raw" / "open_cup", index=i)
    text = (
        'name = "lab"\nepisodes.per_file = true\n'
        'streams.robot = { kind = "hdf5", files = ["episode_*.hdf5"], time.rate_hz = 50,'
        ' fields.q = { array = "observations/qpos", shape = [14] } }\n'
        'streams.cameras = { kind = "images", files = ["episode_*.hdf5"],'
        ' array = "observations/images/{camera}", time.rows_of = "robot" }\n'
        'action = { kind = "next", of = "robot/q" }\n'
    )
    (tmp_path / "lab.toml").write_text(text)
    report = take(tmp_path, str(tmp_path / "lab.toml"))
    assert (report.num_episodes, report.rejects) == (2, [])
    assert set(vlapipe.open_dataset(tmp_path / "data").cameras) == {"cam_high", "cam_left_wrist", "cam_low"}


def test_demonstrations_of_one_length_in_one_file_are_not_the_same_but_copies_of_a_file_are(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "raw" / "open_demo.hdf5", "open it", demos=3)
    assert not [f for f in take(tmp_path, "libero").findings if f["code"] == "episode.duplicate"]
    shutil.copy(path, path.with_name("other_demo.hdf5"))
    shutil.rmtree(tmp_path / "data")
    found = [f for f in take(tmp_path, "libero").findings if f["code"] == "episode.duplicate"]
    assert [f["file"] for f in found] == [f"other_demo/demo_{i}" for i in range(3)]
    assert [f["found"] for f in found] == [f"the same bytes as open_demo/demo_{i}" for i in range(3)]
