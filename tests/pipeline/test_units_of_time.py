"""Stamps in another unit than declared: one finding with the likelier unit and location; the episode is set aside."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from factories import make_jpeg

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest

START_S = 1_740_416_404
FACTOR = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
STEPS = range(40)
SCHEMA = """
name = "t"
anchor = "robot"
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["robot.csv"]
{robot}
[streams.robot.fields.x]
columns = ["x"]
{streams}
[action]
kind = "next"
of = ["robot/x"]
[sample]
state = ["robot/x"]
"""


def stamps(unit: str) -> list[int] | list[float]:
    """Stamps at 50 Hz, whole ones unless they are in seconds."""
    if unit == "s":
        return [START_S + i / 50 for i in STEPS]
    return [START_S * FACTOR[unit] + i * FACTOR[unit] // 50 for i in STEPS]


def write_csv(folder: Path, times: list[object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{t},{i % 7}.5\n" for i, t in enumerate(times))
    (folder / "robot.csv").write_text(f"t,x\n{rows}")


def good(folder: Path) -> None:
    write_csv(folder, [START_S + i / 50 for i in STEPS])


Writer = Callable[[Path, str], None]


def csv_of(text: Callable[[float], object] = str) -> Writer:
    return lambda folder, unit: write_csv(folder, [text(t) for t in stamps(unit)])


def npz(folder: Path, unit: str, dtype: str = "f8") -> None:
    good(folder)
    np.savez(folder / "sensor.npz", t=np.array(stamps(unit), dtype=dtype), v=np.arange(40.0))


def npy_clock(folder: Path, unit: str) -> None:
    good(folder)
    np.savez(folder / "sensor.npz", v=np.arange(40.0))
    np.save(folder / "clock.npy", np.array(stamps(unit)))


def text_clock(folder: Path, unit: str) -> None:
    good(folder)
    np.savez(folder / "sensor.npz", v=np.arange(40.0))
    (folder / "clock.txt").write_text("stamp\n" + "".join(f"{t}\n" for t in stamps(unit)))


def images(folder: Path, unit: str) -> None:
    good(folder)
    (folder / "cam").mkdir()
    for i, t in enumerate(stamps(unit)[:5]):
        (folder / "cam" / f"{t}.jpg").write_bytes(make_jpeg(i))


SENSOR = '[streams.sensor]\nkind = "npz"\nfiles = ["sensor.npz"]\ntime = {}\n[streams.sensor.fields.v]\narray = "v"\n'
CAMERA = '[streams.cam]\nkind = "images"\nfiles = ["cam/*.jpg"]\ntime = {}\n'
TIME_OF_CSV = 'time = {{ column = "t", unit = "{}"{} }}'
# What writes the clock, the schema's lines for it with {} for the unit, and the place that the finding must name.
READERS: dict[str, tuple[Writer, str, str, str]] = {
    "csv of floats": (
        csv_of(lambda t: f"{t}.0" if isinstance(t, int) else t),
        'time = {{ column = "t", unit = "{}" }}',
        "",
        "robot.csv:2: t",
    ),
    "csv of integers": (csv_of(), 'time = {{ column = "t", unit = "{}", integer = true }}', "", "robot.csv:2: t"),
    "csv, exact": (csv_of(), 'time = {{ column = "t", unit = "{}", exact = true }}', "", "robot.csv:2: t"),
    "npz of floats": (npz, "", SENSOR.format('{{ array = "t", unit = "{}" }}'), "sensor.npz: t"),
    "npz of integers": (
        lambda folder, unit: npz(folder, unit, "i8"),
        "",
        SENSOR.format('{{ array = "t", unit = "{}", integer = true }}'),
        "sensor.npz: t",
    ),
    "npy clock": (npy_clock, "", SENSOR.format('{{ file = "clock.npy", unit = "{}" }}'), "clock.npy: clock"),
    "text clock": (
        text_clock,
        "",
        SENSOR.format('{{ file = "clock.txt", array = "stamp", unit = "{}" }}'),
        "clock.txt:2: stamp",
    ),
    "image names": (images, "", CAMERA.format('{{ unit = "{}" }}'), f"cam/{START_S}"),
    "image names of integers": (
        images,
        "",
        CAMERA.format('{{ unit = "{}", integer = true }}'),
        f"cam/{START_S}",
    ),
}


def run(root: Path, robot: str, streams: str = "") -> IngestReport:
    (root / "s.toml").write_text(SCHEMA.format(robot=robot or 'time = { column = "t" }', streams=streams))
    return ingest(IngestConfig(source=root / "raw", dry_run=True, schema=str(root / "s.toml")))


def only_error(report: IngestReport) -> str:
    (reject,) = report.rejects
    (error,) = [reason for reason in reject["reasons"] if reason["severity"] == "error"]
    assert error["code"] == "clock.unit", error
    return str(error["message"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("unit", "declared"), [("ms", "s"), ("us", "s"), ("ns", "s"), ("us", "ms"), ("ns", "ms")])
def test_finer_unit_than_declared_lies_in_far_years(tmp_path: Path, reader: str, unit: str, declared: str) -> None:
    write, robot, streams, place = READERS[reader]
    write(tmp_path / "raw" / "episode", unit)
    message = only_error(run(tmp_path, robot.format(declared), streams.format(declared)))
    assert message.startswith(f"episode/{place}")
    assert f"found stamps lie in the year {'5' if FACTOR[unit] == 1000 * FACTOR[declared] else ''}" in message
    assert f": {unit}?" in message
    assert "(correct unit of time in the schema)" in message


@pytest.mark.parametrize("reader", ["csv of floats", "npz of floats", "npy clock", "text clock", "image names"])
def test_seconds_declared_as_a_finer_unit_stand_in_january_1970(tmp_path: Path, reader: str) -> None:
    write, robot, streams, place = READERS[reader]
    write(tmp_path / "raw" / "episode", "s")
    message = only_error(run(tmp_path, robot.format("ms"), streams.format("ms")))
    place = {"image names": "cam", "npy clock": "clock.npy"}.get(reader, place)
    assert message.startswith(f"episode/{place}: ")
    assert "found stamps in January 1970, " in message
    assert ": s?" in message


@pytest.mark.parametrize(("unit", "declared"), [("ms", "s"), ("s", "ms"), ("ns", "us"), ("us", "ms"), ("us", "s")])
def test_clock_that_begins_at_0_is_told_by_the_declared_rate(tmp_path: Path, unit: str, declared: str) -> None:
    times = [f"{i / 50 * FACTOR[unit]:.6f}" for i in STEPS]
    write_csv(tmp_path / "raw" / "episode", times)
    robot = f'rate_hz = 50\ntime = {{ column = "t", unit = "{declared}" }}'
    message = only_error(run(tmp_path, robot))
    assert message.startswith(f"episode/robot.csv:2: t: expected about 50 Hz by a time in {declared}, found ")
    assert f" Hz: {unit}?" in message


@pytest.mark.parametrize(
    ("times", "robot"),
    [
        ([START_S * 1000 + 20 * i for i in STEPS], 'rate_hz = 50\ntime = { column = "t", unit = "ms" }'),
        (
            [1_740_416_404 + i for i in STEPS],
            'rate_hz = 1000\ntime = { column = "t", unit = "ms" }',
        ),  # 20 days of uptime
        ([1_740_416_404 + i for i in STEPS], 'time = { column = "t", unit = "ms" }\nrate_hz = 1000'),
        ([1_740_416_404 + 10 * i for i in STEPS], 'time = { column = "t", unit = "ms" }'),
        ([10 * i for i in STEPS], 'rate_hz = 25\ntime = { column = "t", unit = "ms" }'),  # another rate, warned of
        ([i / 20000 for i in STEPS], 'time = { column = "t" }'),
    ],
)
def test_clocks_in_their_declared_unit_pass(tmp_path: Path, times: list[object], robot: str) -> None:
    write_csv(tmp_path / "raw" / "episode", times)
    assert run(tmp_path, robot).rejects == []


@pytest.mark.parametrize("declared", ["us", "ns"])
@pytest.mark.parametrize("reader", ["csv of floats", "npz of floats", "npy clock", "text clock", "image names"])
def test_seconds_declared_as_whole_numbers_are_refused_at_their_place(
    tmp_path: Path, reader: str, declared: str
) -> None:
    write, robot, streams, _ = READERS[reader]
    write(tmp_path / "raw" / "episode", "s")
    (reject,) = run(tmp_path, robot.format(declared), streams.format(declared)).rejects
    errors = [reason for reason in reject["reasons"] if reason["severity"] == "error"]
    assert {error["code"].partition(".")[2] for error in errors} <= {"bad_time", "bad_name"}
    assert all(f"whole {declared}" in error["message"] for error in errors)


def test_other_episodes_are_kept(tmp_path: Path) -> None:
    csv_of()(tmp_path / "raw" / "bad", "ms")
    good(tmp_path / "raw" / "good")
    report = run(tmp_path, "")
    assert (report.num_episodes, "found stamps lie in the year 57121: ms?" in only_error(report)) == (1, True)


def write_times(folder: Path, unit: str, factor: float, digits: int) -> None:
    """40 rows at 50 Hz as decimal text in a unit, beginning after 90 minutes."""
    write_csv(folder, [f"{(5400 + i / 50) / factor:.{digits}f}" for i in STEPS])


LONG_UNITS = {"min": (60.0, 10), "h": (3600.0, 11), "d": (86_400.0, 11)}


@pytest.mark.parametrize("unit", LONG_UNITS)
@pytest.mark.parametrize("keys", ["", ", exact = true"])
def test_clock_in_minutes_or_hours(tmp_path: Path, unit: str, keys: str) -> None:
    write_times(tmp_path / "raw" / "episode", unit, *LONG_UNITS[unit])
    (tmp_path / "s.toml").write_text(
        SCHEMA.format(robot=f'rate_hz = 50\ntime = {{ column = "t", unit = "{unit}"{keys} }}', streams="")
    )
    out = tmp_path / "data"
    report = ingest(IngestConfig(source=tmp_path / "raw", out=out, schema=str(tmp_path / "s.toml")))
    assert report.rejects == []
    clock = vlapipe.open_dataset(out).episode(0)["robot/timestamp"]
    texts = [line.partition(",")[0] for line in (tmp_path / "raw/episode/robot.csv").read_text().splitlines()[1:]]
    if keys:
        factor = int(LONG_UNITS[unit][0])
        assert clock.tolist() == [int(Fraction(Decimal(text)) * factor * 10**9) for text in texts]
    else:
        assert clock.tolist() == [float(text) * LONG_UNITS[unit][0] for text in texts]
        assert clock.tolist() == pytest.approx([5400 + i / 50 for i in STEPS], abs=1e-6)


def test_minutes_are_added_as_a_second_column(tmp_path: Path) -> None:
    """Whole hours in one column, minutes of the hour in another."""
    folder = tmp_path / "raw" / "episode"
    folder.mkdir(parents=True)
    rows = "".join(f"{i // 6},{i % 6 * 10},{i}\n" for i in STEPS)
    (folder / "robot.csv").write_text(f"h,m,x\n{rows}")
    robot = 'time = { column = "h", unit = "h", integer = true, plus = "m", plus_unit = "min" }'
    (tmp_path / "s.toml").write_text(SCHEMA.format(robot=robot, streams=""))
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data", schema=str(tmp_path / "s.toml")))
    clock = vlapipe.open_dataset(tmp_path / "data").episode(0)["robot/timestamp"]
    assert clock.tolist() == [i * 600 * 10**9 for i in STEPS]


@pytest.mark.parametrize(("declared", "true"), [("min", "s"), ("h", "s"), ("h", "min"), ("min", "ms")])
def test_minutes_and_hours_that_are_none_are_told(tmp_path: Path, declared: str, true: str) -> None:
    scale = {"min": 60.0, "s": 1.0, "ms": 1e-3}[true]
    write_csv(tmp_path / "raw" / "episode", [f"{i / 50 / scale:.9f}" for i in STEPS])
    message = only_error(run(tmp_path, f'rate_hz = 50\ntime = {{ column = "t", unit = "{declared}" }}'))
    assert f": {true}?" in message


def test_rate_of_1_hz_instead_of_60_is_a_rate_and_no_unit(tmp_path: Path) -> None:
    write_csv(tmp_path / "raw" / "episode", list(STEPS))
    report = run(tmp_path, 'rate_hz = 60\ntime = { column = "t" }')
    assert report.rejects == []
    assert "clock.rate" in {finding["code"] for finding in report.findings}
