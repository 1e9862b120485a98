"""Recordings as other projects' tools write them go in by what ``schema infer`` writes, or by a few lines by hand.

Each value is compared with the one that the writer of the files had.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferring import asked, infer_and_ingest
from numpy.typing import NDArray
from PIL import Image
from videos import frames_of, make_video

import vlapipe
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.schemas.errors import UsageError

START_S = 1_700_000_000.0
CAMERAS = {"top": 0.05, "wrist": 0.125}  # seconds after the robot


def picture(number: int) -> NDArray[np.uint8]:
    return frames_of(number + 1, 32, 24)[number] if number < 3 else np.roll(frames_of(3, 32, 24)[2], number, axis=1)


def depth(number: int) -> NDArray[np.uint16]:
    return (np.add.outer(300 * np.arange(24), 7 * np.arange(32)) + 11 * number + 400).astype(np.uint16)


def save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def printed(stamp: float) -> float:
    return float(f"{stamp:.6f}")


def joints(number: float) -> list[float]:
    return [round(float(np.sin(number / 10 + j)), 6) for j in range(6)]


def write_robot(path: Path, *, hz: float = 50, num: int = 60, start: float = START_S, of: int = 0) -> None:
    """A table with a stamp and six joints; ``of`` is the number of the episode."""
    rows = [f"{start + i / hz:.6f}," + ",".join(map(str, joints(i + 7 * of))) for i in range(num)]
    write(path, "\n".join(["timestamp," + ",".join(f"joint_{j}" for j in range(1, 7)), *rows, ""]))


def by_hand(raw: Path, out: Path, schema: str) -> IngestReport:
    file = out.with_suffix(".toml")
    file.write_text(schema)
    report = ingest(IngestConfig(source=raw, out=out, schema=str(file), workers=1))
    assert report.rejects == []
    return report


def episode(out: Path, index: int = 0) -> Any:
    return vlapipe.open_dataset(out).episode(index)


def files(recorded: Any, camera: str) -> list[bytes]:
    return [bytes(recorded.image_file(camera, i)) for i in range(len(recorded[f"{camera}/timestamp"]))]


def decoded(recorded: Any, camera: str) -> list[NDArray[Any]]:
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files(recorded, camera)]


STEREO = """
name = "stereo"
anchor = "robot"
streams.robot = { kind = "csv", files = ["robot.csv"], time.column = "timestamp", fields.q.columns = ["joint_{1..6}"] }
streams.cam = { kind = "images", files = ["{camera}/*.png"], time = { file = "frames.csv", column = "t" } }
action = { kind = "next", of = ["robot/q"] }
"""


def test_one_file_of_stamps_is_the_clock_of_all_cameras(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "take"
    write_robot(raw / "robot.csv")
    for camera in ("left", "right"):
        for i in range(10):
            save(raw / camera / f"{i:03d}.png", picture(i))
    stamps = [printed(START_S + i / 9) for i in range(10)]
    write(raw / "frames.csv", "\n".join(["t", *(f"{stamp:.6f}" for stamp in stamps), ""]))
    by_hand(tmp_path / "raw", tmp_path / "out", STEREO)
    for camera in ("left", "right"):
        assert np.array_equal(episode(tmp_path / "out")[f"{camera}/timestamp"], stamps)


def test_depth_in_a_video_beside_colour_is_a_camera_with_a_unit(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "raw" / f"take_{number}"
        write_robot(folder / "robot.csv", of=number)
        make_video(folder / "colour.mkv", [picture(i) for i in range(20)])
        frames = [depth(i + number) for i in range(20)]
        make_video(folder / "depth.mkv", frames, codec="ffv1", pix_fmt="gray16le", array_format="gray16le")
    inferred, _ = infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    assert asked(inferred, "a depth of 1") == {"depth"}
    assert np.array_equal(decoded(episode(tmp_path / "out"), "depth"), [depth(i) for i in range(20)])


def test_each_video_has_the_stamps_of_the_table_beside_it(tmp_path: Path) -> None:
    stamps = {
        camera: [printed(START_S + at + i / 15 + np.sin(i) / 500) for i in range(12)] for camera, at in CAMERAS.items()
    }
    for number in range(2):
        folder = tmp_path / "raw" / f"take_{number}"
        write_robot(folder / "robot.csv", of=number)
        for camera in CAMERAS:
            make_video(folder / "videos" / f"{camera}.mp4", [picture(i) for i in range(12)])
            rows = [f"{i},{stamp:.6f}" for i, stamp in enumerate(stamps[camera])]
            write(folder / "videos" / f"{camera}_timestamps.csv", "\n".join(["frame,timestamp", *rows, ""]))
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    for camera in CAMERAS:
        assert np.array_equal(episode(tmp_path / "out")[f"{camera}/timestamp"], stamps[camera])


def test_one_camera_of_jpeg_and_png(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "take"
    write_robot(raw / "robot.csv")
    for i in range(20):
        save(raw / "cam" / f"{START_S + i / 20:.6f}.{'jpg' if i % 5 else 'png'}", picture(i))
    _, report = infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    assert report.cameras["camera"]["as"] == "jpeg and png"
    assert vlapipe.open_dataset(tmp_path / "out").cameras == ["camera"]
    assert files(episode(tmp_path / "out"), "camera") == [file.read_bytes() for file in sorted((raw / "cam").iterdir())]


def test_colour_and_mask_of_one_name_are_two_cameras(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "take"
    write_robot(raw / "robot.csv")
    for i in range(20):
        save(raw / "cam" / f"{i:04d}.jpg", picture(i))
        save(raw / "cam" / f"{i:04d}.png", picture(i)[..., 0])
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    assert len(vlapipe.open_dataset(tmp_path / "out").cameras) == 2


def test_realsense_colour_and_depth_listed_by_an_associations_file(tmp_path: Path) -> None:
    """As TUM RGB-D's tool writes it: no header, and two times a line."""
    raw = tmp_path / "raw" / "take"
    write_robot(raw / "robot.csv")
    stamps = [(printed(START_S + i / 20 + np.sin(i) / 500), printed(START_S + i / 20 + 0.014)) for i in range(20)]
    lines = []
    for i, (at, depth_at) in enumerate(stamps):
        name = f"{i + 1:06d}.png"
        save(raw / "color" / name, picture(i))
        save(raw / "depth" / name, depth(i))
        lines.append(f"{at:.6f} color/{name} {depth_at:.6f} depth/{name}")
    write(raw / "associations.txt", "\n".join(lines) + "\n")
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    recorded = episode(tmp_path / "out")
    assert recorded["color/timestamp"].tolist() == [at for at, _ in stamps]
    assert recorded["depth/timestamp"].tolist() == [at for _, at in stamps]
    assert np.array_equal(decoded(recorded, "depth"), [depth(i) for i in range(20)])
    assert not [name for name in recorded if name.startswith("associations")]


def test_tum_rgbd_with_a_list_for_each_camera(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "rgbd_dataset_freiburg1_xyz"
    rows = [f"{START_S + i / 50:.4f} {np.cos(i / 40):.4f} {np.sin(i / 40):.4f} 1.5 0.0 0.0 0.0 1.0" for i in range(60)]
    write(raw / "groundtruth.txt", "\n".join(["# ground truth", "# timestamp tx ty tz qx qy qz qw", *rows, ""]))
    for camera, late, image in (("rgb", 0.0, picture), ("depth", 0.014, depth)):
        names = [f"{START_S + late + i / 20:.6f}" for i in range(20)]
        for i, name in enumerate(names):
            save(raw / camera / f"{name}.png", image(i))
        lines = ["# maps", "# timestamp filename", *(f"{name} {camera}/{name}.png" for name in names), ""]
        write(raw / f"{camera}.txt", "\n".join(lines))
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    recorded = episode(tmp_path / "out")
    position = np.float32([[float(cell) for cell in row.split()[1:4]] for row in rows])
    assert np.array_equal(recorded["robot/position"], position)
    for camera in ("rgb", "depth"):
        images = sorted((raw / camera).iterdir())
        assert files(recorded, camera) == [file.read_bytes() for file in images]
        assert recorded[f"{camera}/timestamp"].tolist() == [float(file.stem) for file in images]


def test_euroc_with_a_table_for_each_camera(tmp_path: Path) -> None:
    raw, start = tmp_path / "raw" / "MH_01_easy" / "mav0", 1403636579763555584
    imu = [[start + i * 5_000_000, *np.sin(np.arange(6) + i / 50).tolist()] for i in range(200)]
    names = [f"{kind}_RS_S_{axis} [{unit}]" for kind, unit in (("w", "rad s^-1"), ("a", "m s^-2")) for axis in "xyz"]
    lines = [",".join(["#timestamp [ns]", *names]), *(",".join(map(repr, row)) for row in imu), ""]
    write(raw / "imu0" / "data.csv", "\r\n".join(lines))
    for number, camera in enumerate(("cam0", "cam1")):
        stamps = [start + 1_000_000 * number + i * 50_000_000 for i in range(20)]
        for i, stamp in enumerate(stamps):
            save(raw / camera / "data" / f"{stamp}.png", picture(i)[..., 0])
        lines = ["#timestamp [ns],filename", *(f"{stamp},{stamp}.png" for stamp in stamps), ""]
        write(raw / camera / "data.csv", "\r\n".join(lines))
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    recorded = episode(tmp_path / "out")
    assert recorded["robot/timestamp"].tolist() == [row[0] for row in imu]
    for camera in ("cam0", "cam1"):
        images = sorted((raw / camera / "data").iterdir())
        assert recorded[f"{camera}/timestamp"].tolist() == [int(file.stem) for file in images]
        assert files(recorded, camera) == [file.read_bytes() for file in images]


def write_tub(folder: Path, *, lost: int | None = None) -> Path:
    """A donkeycar log with a pause of two seconds; images are called by the number of their row, without zeros."""
    rows = [f"{i},{int(START_S * 1000) + i * 50 + 2000 * (i >= 30)},{joints(i)[0]},0.5" for i in range(60)]
    write(folder / "log.csv", "\n".join(["index,ms,steering,throttle", *rows, ""]))
    for i in range(60):
        if i != lost:
            save(folder / "images" / f"{i}_cam_image_array_.jpg", picture(i))
    return folder


def test_image_i_belongs_to_row_i_whatever_the_clock_does(tmp_path: Path) -> None:
    write_tub(tmp_path / "raw" / "tub_0")
    lossy = write_tub(tmp_path / "raw" / "tub_1", lost=17)
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    assert np.array_equal(episode(tmp_path / "out")["align/camera"], np.arange(60))
    recorded = episode(tmp_path / "out", 1)
    there = [i for i in range(60) if i != 17]  # a lost image moves no other
    assert np.array_equal(recorded["camera/timestamp"], recorded["robot/timestamp"][there])
    assert files(recorded, "camera") == [(lossy / "images" / f"{i}_cam_image_array_.jpg").read_bytes() for i in there]


def write_catalog(folder: Path, *, cut: bool = False) -> list[dict[str, Any]]:
    """A donkeycar tub of version 2: a JSON object a line, images called by their number. ``cut`` ends its last line."""
    rows = [
        {
            "_index": i,
            "_timestamp_ms": int(START_S * 1000) + 50 * i + i % 3,
            "cam/image_array": f"{i}_cam_image_array_.jpg",
            "user/angle": joints(i)[0],
            "user/mode": "user",
            "user/throttle": abs(joints(i)[1]),
            "imu": {"acc": joints(i)[:3]},
        }
        for i in range(30)
    ]
    for row in rows:
        save(folder / "images" / row["cam/image_array"], picture(row["_index"]))
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    write(folder / "catalog_0.catalog", lines[:-30] if cut else lines)
    return rows


def test_donkeycar_catalog_with_a_json_object_a_line(tmp_path: Path) -> None:
    rows = write_catalog(tmp_path / "raw" / "tub_0")
    write_catalog(tmp_path / "raw" / "tub_1")
    infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    recorded = episode(tmp_path / "out")
    assert recorded["robot/timestamp"].tolist() == [row["_timestamp_ms"] * 1_000_000 for row in rows]
    assert np.array_equal(recorded["camera/timestamp"], recorded["robot/timestamp"])
    assert np.array_equal(recorded["robot/user_angle"], np.float32([row["user/angle"] for row in rows]))
    assert np.array_equal(recorded["robot/imu_acc"], np.float32([row["imu"]["acc"] for row in rows]))


CATALOG = """
name = "donkey"
anchor = "log"
streams.log = { kind = "csv", files = ["*.catalog"], time = { column = "_timestamp_ms", unit = "ms" }, BAD fields.angle.columns = ["user/angle"] }
action = { kind = "column", of = "log/angle" }
"""  # noqa: E501


def test_a_json_line_that_is_cut_short_is_named_or_left_out(tmp_path: Path) -> None:
    write_catalog(tmp_path / "raw" / "tub_0", cut=True)
    (tmp_path / "out.toml").write_text(CATALOG.replace("BAD", ""))
    report = ingest(IngestConfig(source=tmp_path / "raw", schema=str(tmp_path / "out.toml"), dry_run=True, workers=1))
    ((fault,),) = (reject["reasons"] for reject in report.rejects)
    assert (fault["code"], fault["file"], fault["line"]) == ("csv.bad_json", "tub_0/catalog_0.catalog", 30)
    by_hand(tmp_path / "raw", tmp_path / "out", CATALOG.replace("BAD", 'on_bad = "drop",'))
    assert len(episode(tmp_path / "out")["log/angle"]) == 29


CANDUMP = r"""
name = "can"
anchor = "arm"
episodes.per_file = true
streams.arm = { kind = "csv", files = ["*.log"], row_line = '^\((?P<t>[\d.]+)\) can0 181#(?P<b0>..)(?P<b1>..)(?P<b2>..)$', time.column = "t", fields.bytes = { columns = ["b{0..2}"], number = "hex", dtype = "int32" } }
action = { kind = "next", of = ["arm/bytes"] }
"""  # noqa: E501


def test_candump_by_a_regular_expression_whose_groups_are_the_cells(tmp_path: Path) -> None:
    frames = [(START_S + i / 100, bytes([i, 255 - i, 7])) for i in range(40)]
    lines = []
    for i, (at, frame) in enumerate(frames):
        lines += [f"({at:.6f}) can0 181#{frame.hex().upper()}", f"({at + 0.0004:.6f}) can0 201#{i:04X}"]
    write(tmp_path / "raw" / "candump-2023-11-14_221320.log", "\n".join(lines) + "\n")
    by_hand(tmp_path / "raw", tmp_path / "out", CANDUMP)
    recorded = episode(tmp_path / "out")
    assert np.array_equal(recorded["arm/bytes"], [list(frame) for _, frame in frames])
    assert recorded["arm/timestamp"].tolist() == [printed(at) for at, _ in frames]
    bad = CANDUMP.replace("(?P<b2>..)$", "(?P<b2>..)!")
    (tmp_path / "bad.toml").write_text(bad)
    report = ingest(IngestConfig(source=tmp_path / "raw", schema=str(tmp_path / "bad.toml"), dry_run=True, workers=1))
    assert [reason["code"] for reject in report.rejects for reason in reject["reasons"]] == ["csv.no_such_kind"]


def test_empatica_states_start_and_rate_above_its_rows(tmp_path: Path) -> None:
    rows = [[int(60 * np.sin(i / 9)), int(60 * np.cos(i / 7)), i % 40] for i in range(200)]
    lead = [f"{START_S:.6f}, {START_S:.6f}, {START_S:.6f}", "32.000000, 32.000000, 32.000000"]
    write(tmp_path / "raw" / "S1" / "ACC.csv", "\r\n".join([*lead, *(",".join(map(str, row)) for row in rows), ""]))
    inferred, _ = infer_and_ingest(tmp_path / "raw", tmp_path / "out")
    assert asked(inferred, "rows a second") == set()
    recorded = episode(tmp_path / "out")
    assert np.array_equal(recorded["robot/values"], rows)
    assert recorded["robot/timestamp"].tolist() == [int(START_S) * 10**9 + i * 10**9 // 32 for i in range(200)]


SCANNET = """
name = "scannet"
anchor = "pose"
streams.pose = { kind = "csv", files = ["pose/*.txt"], one_row_a_file = true, header = false, delimiter = " ", names = ["m{0..15}"], time.rate_hz = 30, fields.m.columns = ["m{0..15}"] }
streams.color = { kind = "images", files = ["color/*.png"], time.rows_of = "pose" }
streams.depth = { kind = "images", files = ["depth/*.png"], unit = "mm", time.rows_of = "pose" }
action = { kind = "next", of = ["pose/m"] }
"""  # noqa: E501


def test_scannet_with_a_matrix_a_file_beside_colour_and_depth(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "scene0000_00"
    poses = [np.round(np.eye(4) * np.cos(i / 40) + i * np.arange(16).reshape(4, 4) / 100, 6) for i in range(12)]
    for i, pose in enumerate(poses):
        write(raw / "pose" / f"{i}.txt", "".join(" ".join(f"{cell:.6f}" for cell in row) + "\n" for row in pose))
        save(raw / "color" / f"{i}.png", picture(i))
        save(raw / "depth" / f"{i}.png", depth(i))
    write(raw / "intrinsic" / "intrinsic_color.txt", (raw / "pose" / "0.txt").read_text())
    with pytest.raises(UsageError, match="one_row_a_file"):  # the matrices are no recordings of four rows
        infer_schema(tmp_path / "raw")
    by_hand(tmp_path / "raw", tmp_path / "out", SCANNET)
    recorded = episode(tmp_path / "out")
    assert np.array_equal(recorded["pose/m"], np.float32([pose.ravel() for pose in poses]))
    assert np.array_equal(decoded(recorded, "depth"), [depth(i) for i in range(12)])
    assert np.array_equal(recorded["align/color"], np.arange(12))


COMMA = """
name = "comma"
anchor = "accelerometer"
streams.accelerometer = { kind = "npz", files = ["processed_log/IMU/accelerometer/*"], time.array = "t", fields.v = { array = "value", shape = [3], dtype = "float64" } }
action = { kind = "next", of = ["accelerometer/v"] }
"""  # noqa: E501


def test_comma2k19_with_arrays_whose_files_have_no_extension(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "Chunk_1" / "3" / "processed_log" / "IMU" / "accelerometer"
    folder.mkdir(parents=True)
    stamps = 123456.7 + np.arange(50) / 100
    values = np.sin(np.arange(150).reshape(50, 3))
    for name, array in (("t", stamps), ("value", values)):
        with (folder / name).open("wb") as file:
            np.save(file, array)
    by_hand(tmp_path / "raw", tmp_path / "out", COMMA)
    recorded = episode(tmp_path / "out")
    assert np.array_equal(recorded["accelerometer/v"], values)
    assert np.array_equal(recorded["accelerometer/timestamp"], stamps)
