"""Recordings as other projects' tools write them go in by what ``schema infer`` writes, or by a few lines by hand.

Each value is compared with the one that the writer of the files had.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from inferring import infer_and_ingest
from numpy.typing import NDArray
from PIL import Image
from videos import frames_of, make_video

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest

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
    assert inferred.units == ("depth",)
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
