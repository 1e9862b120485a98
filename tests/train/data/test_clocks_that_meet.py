"""Clocks that tick together: rounded stamps, other units, shared stamps, and streams of one name or of no image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

import vlapipe
from vlapipe import Loader, Window
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError

SCHEMA = """
anchor = "arm"
[streams.arm]
kind = "csv"
files = ["arm.csv"]
time = { column = "t" }
fields = { q = { columns = ["q"] } }
[streams.other]
kind = "csv"
files = ["other.csv"]
time = { column = "t", unit = "UNIT" }
ALIGN
fields = { q = { columns = ["q"] } }
[streams.camera]
kind = "images"
files = ["images/{camera}/*.jpg"]
optional = true
time = { unit = "s" }
[action]
kind = "column"
of = ["other/q"]
[sample]
state = ["arm/q", "other/q"]
sensors = { other = "other/q" }
[split]
val = 0
"""
NUM_ROWS = 30


def decimal(places: int) -> Callable[[Fraction], str]:
    """Writes a time in seconds with so many digits after the point."""

    def write(time: Fraction) -> str:
        whole, rest = divmod(round(time * 10**places), 10**places)
        return f"{whole}.{rest:0{places}d}"

    return write


def nanoseconds(time: Fraction) -> str:
    """Writes a time in whole nanoseconds, of whole microseconds."""
    return str(round(time * 10**6) * 1000)


def times(rate_hz: int, count: int = NUM_ROWS, begin: int = 1_716_290_000) -> list[Fraction]:
    return [begin + Fraction(k, rate_hz) for k in range(count)]


def recorded(
    folder: Path,
    arm: Sequence[str],
    other: Sequence[str],
    *,
    images: Mapping[str, Sequence[str]] | None = None,
    align: str = "",
    unit: str = "s",
) -> Dataset:
    """One episode, whose values are the numbers of the rows, and the images' greys eight times these."""
    raw = folder / "raw" / "task" / "e0"
    raw.mkdir(parents=True)
    for name, clock in (("arm", arm), ("other", other)):
        (raw / f"{name}.csv").write_text("".join(["t,q\n", *(f"{stamp},{k + 1}\n" for k, stamp in enumerate(clock))]))
    for camera, clock in (images or {}).items():
        (raw / "images" / camera).mkdir(parents=True)
        for k, stamp in enumerate(clock):
            grey = simplejpeg.encode_jpeg(np.full((16, 16, 3), 8 * k, np.uint8), quality=98)
            (raw / "images" / camera / f"{stamp}.jpg").write_bytes(grey)
    (folder / "lab.toml").write_text(SCHEMA.replace("ALIGN", align).replace("UNIT", unit))
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", schema=str(folder / "lab.toml"), workers=1))
    return vlapipe.open_dataset(folder / "data")


def batch_of(dataset: Dataset, window: Window | None = None) -> dict[str, Any]:
    [batch] = Loader(dataset, window=window, shuffle=False, batch_size=1000)
    return batch


def shown(images: Any) -> list[list[int]]:
    """The number of each image (B, T)."""
    numbers: list[list[int]] = (images[:, :, 0, 8, 8].float() / 8).round().int().tolist()
    return numbers


@pytest.mark.parametrize("places", [3, 6])
@pytest.mark.parametrize(
    "window",
    [
        Window(image_s=0.1, image_rows=3, sensor_s=0.03, sensor_rows=3),
        Window(delta_timestamps={
            "observation.images.front": [-2 / 30, -1 / 30, 0.0], "observation.sensors.other": [-0.02, -0.01, 0.0],
        }),
    ],
    ids=["seconds", "delta_timestamps"],
)  # fmt: skip
def test_a_window_in_steps_of_the_clock_has_each_row_once(tmp_path: Path, places: int, window: Window) -> None:
    write = decimal(places)
    ticks = [*map(write, times(30))]
    dataset = recorded(tmp_path, ticks, [*map(write, times(100, 100))], images={"front": ticks})
    batch = batch_of(dataset, window)
    rows = batch["frame_index"].tolist()
    assert rows == [*range(NUM_ROWS)]
    assert shown(batch["observation.images.front"])[2:] == [[row - 2, row - 1, row] for row in rows[2:]]
    force, is_pad = batch["observation.sensors.other"], batch["observation.sensors.other_is_pad"]
    for row in rows[1:]:
        newest = int(force[row, 2])
        assert force[row].tolist() == [newest - 2, newest - 1, newest]
    assert not is_pad[1:].any()


def test_a_row_of_the_past_is_never_newer_than_the_frame(tmp_path: Path) -> None:
    frames = times(10)
    late = [time + Fraction(1, 2000) for time in frames]  # half a millisecond after each frame
    dataset = recorded(tmp_path, [*map(decimal(6), frames)], [*map(decimal(6), late)])
    batch = batch_of(dataset, Window(delta_timestamps={"observation.sensors.other": [-0.0001, 0.0]}))
    for row, seen in zip(batch["frame_index"].tolist(), batch["observation.sensors.other"].tolist(), strict=True):
        assert seen == [row, row]  # the row of the frame before, numbered from 1


def test_nanoseconds_and_seconds_of_one_time_are_one_time(tmp_path: Path) -> None:
    ticks = [time + Fraction(k * k * 7 % 900, 10**6) for k, time in enumerate(times(30, 200))]
    dataset = recorded(tmp_path, [*map(decimal(6), ticks)], [*map(nanoseconds, ticks)], unit="ns")
    batch = batch_of(dataset)
    assert len(batch["task"]) == 200
    assert (batch["observation.state"][:, 0, 0] == batch["observation.state"][:, 0, 1]).all()
    assert (batch["action"][:, 0, 0] == batch["observation.state"][:, 0, 0]).all()
    assert (batch["observation.sensors.other"][:, 0] == batch["observation.state"][:, 0, 0]).all()


def test_linear_takes_the_last_of_rows_that_share_a_stamp(tmp_path: Path) -> None:
    write, frames = decimal(6), times(10)
    twice = [write(time) for time in frames[::2] for _ in range(2)]
    batch = batch_of(recorded(tmp_path, [*map(write, frames)], twice, align='align = "linear"'))
    for row, value in enumerate(batch["observation.state"][: NUM_ROWS - 1, 0, 1].tolist()):
        # Rows 1 and 2 have the first stamp, 3 and 4 the third: between them it goes from 2 to 3.
        assert value == pytest.approx(row + 2 if row % 2 == 0 else row + 1.5, abs=1e-4)
    assert not batch["action_is_pad"][: NUM_ROWS - 1].any()


def test_an_action_before_the_first_frame_is_padding_where_there_is_none(tmp_path: Path) -> None:
    write, frames = decimal(6), times(10)
    dataset = recorded(tmp_path, [*map(write, frames)], [*map(write, frames[10:])], align="tolerance_s = 0.05")
    batch = batch_of(dataset, Window(state=["arm/q", "other/q"], delta_timestamps={"action": [-0.3, 0.0]}))
    assert batch["frame_index"][0] == 10
    assert batch["action_is_pad"][:, 0].tolist() == [row < 13 for row in batch["frame_index"].tolist()]
    assert batch["action"][3:, 0, 0].tolist() == [row - 3 - 10 + 1 for row in batch["frame_index"][3:].tolist()]


def test_a_sensor_may_have_the_name_of_a_camera(tmp_path: Path) -> None:
    write = decimal(6)
    images = {"front": [*map(write, times(15, 15))]}
    dataset = recorded(tmp_path, [*map(write, times(30))], [*map(write, times(100, 100))], images=images)
    named = {"front": "other/q"}
    for window in (
        Window(sensors=named),
        Window(sensors=named, image_s=0.2, sensor_s=0.02, image_rows=1, sensor_rows=1),
    ):
        batch = batch_of(dataset, window)
        for row in range(NUM_ROWS - 1):
            assert shown(batch["observation.images.front"][row][None]) == [[row // 2]]
            assert int(batch["observation.sensors.front"][row, 0]) == row * 100 // 30 + 1


def test_a_camera_without_any_image_needs_a_size(tmp_path: Path) -> None:
    write = decimal(6)
    text = SCHEMA.replace('["images/{camera}/*.jpg"]', '["images/*.jpg"]')
    ticks = [*map(write, times(30))]
    recorded(tmp_path / "first", ticks, ticks)
    (tmp_path / "lab.toml").write_text(text.replace("ALIGN", "").replace("UNIT", "s"))
    ingest(
        IngestConfig(
            source=tmp_path / "first" / "raw", out=tmp_path / "data", schema=str(tmp_path / "lab.toml"), workers=1
        )
    )
    dataset = vlapipe.open_dataset(tmp_path / "data")
    with pytest.raises(UsageError, match=r"no episode has an image of camera, .*leave the camera out"):
        Loader(dataset)
    assert "observation.images.camera" not in batch_of(dataset, Window(cameras=[]))
    [batch] = Loader(dataset, image_size=(8, 8), batch_size=1000)
    assert batch["observation.images.camera_is_pad"].all()
