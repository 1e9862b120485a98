"""Each kind of clock is found and ingested with its true times, or a question is asked: never a wrong clock in silence.

Each test writes one table of joints that swing, and beside them the clock, or what looks like one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from inferring import asked

from vlapipe import open_dataset
from vlapipe.pipeline.infer.columns.clock import clock_options, guess_clock
from vlapipe.pipeline.infer.columns.columns import column_of_values
from vlapipe.pipeline.infer.infer import Inferred, infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.parse import parse_schema

ROWS = 120
NOON = datetime(2024, 5, 1, 12)
Cell = Callable[[int], str]


def swing(i: int, phase: float) -> str:
    return f"{math.sin(i / 9 + phase):.4f}"


def table(name: str, cell: Cell, rows: int = ROWS) -> str:
    return f"{name},joint_1,joint_2\n" + "".join(f"{cell(i)},{swing(i, 0)},{swing(i, 1)}\n" for i in range(rows))


def infer(folder: Path, text: str) -> Inferred:
    (folder / "rec").mkdir()
    (folder / "rec" / "log.csv").write_text(text)
    return infer_schema(folder / "rec")


def clock_asked(inferred: Inferred) -> list[str]:
    return [question for question in inferred.questions if "clock" in question or "rows a second" in question]


def stamp(i: int, form: str, step_s: float = 0.02) -> str:
    return (NOON + timedelta(seconds=i * step_s)).strftime(form)


FOUND: dict[str, tuple[str, Cell, float]] = {  # the name, the cells, and rows a second
    "minutes in brackets": ("Time [min]", lambda i: f"{i / 80 / 60:.8f}", 80),
    "minutes in the name": ("elapsed_minutes", lambda i: f"{i / 80 / 60:.8f}", 80),
    "hours": ("t (h)", lambda i: f"{i / 80 / 3600:.10f}", 80),
    "seconds first in the name": ("seconds_elapsed", lambda i: f"{i / 80:.4f}", 80),
    "milliseconds without a unit": ("timestamp", lambda i: f"{5000 + 20 * i + i % 2}", 50),
    "microseconds without a unit": ("t", lambda i: f"{4000 * i}", 250),
    "nanoseconds since the start": ("timestamp", lambda i: f"{123_456_789_000 + 4_000_000 * i}", 250),
    "an oscilloscope": ("TIME", lambda i: f"{-1e-3 + i * 4e-6:.9f}", 250_000),
    "timedelta": ("time", lambda i: str(timedelta(seconds=i * 0.0125)), 80),
    "timedelta over a day": ("time", lambda i: str(timedelta(days=1, seconds=i / 2)), 2),
    "pandas timedelta": ("time", lambda i: f"0 days 00:00:{i * 0.02:09.6f}", 50),
    "minutes and seconds": ("time", lambda i: f"{i // 60:02d}:{i % 60:02d}.5", 1),
    "a colon before the milliseconds": ("time", lambda i: stamp(i, "%H:%M:%S:") + f"{20 * i % 1000:03d}", 50),
    "letters between": ("time", lambda i: stamp(i, "%Hh%Mm%S.%fs"), 50),
    "AM and PM": ("when", lambda i: stamp(i, "%m/%d/%Y %I:%M:%S.%f %p"), 50),
    "ISO, whole seconds without a fraction": ("time", lambda i: (NOON + timedelta(seconds=i / 4)).isoformat(), 4),
    "a time of day": ("time", lambda i: (NOON + timedelta(seconds=i / 4)).time().isoformat(), 4),
    "a spreadsheet's days": ("Timestamp", lambda i: f"{45_321.5123 + i / 10 / 86_400:.10f}", 10),
    "an elapsed time with jitter": ("elapsed", lambda i: f"{i / 30 + i * 7 % 5 / 300:.4f}", 30),
    "days since 1970 in ms": ("stamp", lambda i: f"{1_700_000_000_000 + 20 * i}", 50),
}  # fmt: skip


@pytest.mark.parametrize(("name", "cell", "rate_hz"), FOUND.values(), ids=FOUND)
def test_a_clock_is_found_and_stored_with_its_rate(name: str, cell: Cell, rate_hz: float, tmp_path: Path) -> None:
    inferred = infer(tmp_path, table(name, cell))
    assert (clock_asked(inferred), inferred.faults) == ([], ())
    assert name in parse_schema(inferred.toml, "inferred").anchor_stream.time.sources
    (tmp_path / "s.toml").write_text(inferred.toml)
    ingest(IngestConfig(source=tmp_path / "rec", out=tmp_path / "data", schema=str(tmp_path / "s.toml"), workers=1))
    stamps = np.asarray(open_dataset(tmp_path / "data").episode(0)["robot/timestamp"])
    seconds = stamps / 1e9 if stamps.dtype.kind == "i" else stamps
    assert len(seconds) == ROWS
    assert (seconds[-1] - seconds[0]) / (ROWS - 1) == pytest.approx(1 / rate_hz, rel=0.02)


def test_days_of_a_spreadsheet_count_from_1970(tmp_path: Path) -> None:
    inferred = infer(tmp_path, table(*FOUND["a spreadsheet's days"][:2]))
    time = parse_schema(inferred.toml, "inferred").anchor_stream.time
    assert 45_321.5123 * 86_400 + time.offset_s == pytest.approx(
        datetime(2024, 1, 30, 12, 17, 42).timestamp(), abs=43_200
    )


ASKED: dict[str, tuple[str, Cell, float]] = {  # the name, the cells, and the rate that the question proposes
    "a turntable": ("table_deg", lambda i: f"{3 * i}", 10),
    "an encoder": ("left_encoder", lambda i: f"{1000 + 37 * i}", 10),
    "a temperature": ("temperature", lambda i: f"{20 + i / 10:.1f}", 10),
    "t is a torque": ("t", lambda i: f"{math.sin(i / 5):.3f}", 10),
    "t is a temperature": ("t", lambda i: f"{22 + math.sin(i / 40) + i / 1000:.2f}", 10),
    "time stands still": ("time_s", lambda _: "0.02", 10),
    "whole seconds": ("time", lambda i: f"{1_700_000_000 + i // 30}", 30),
    "whole seconds as text": ("time", lambda i: stamp(i, "%Y-%m-%d %H:%M:%S", 1 / 30), 30),
    "stamps rounded to float32": ("timestamp", lambda i: f"{1_700_000_000 // 128 * 128 + i // 60 * 128:.1f}", 10),
    "steps that vary": ("dt", lambda i: f"{0.02 + i % 3 / 100:.3f}", 33.33),
    "ticks of .NET": ("Timestamp", lambda i: f"{638_500_000_000_000_000 + 200_000 * i}", 50),
    "ticks of Windows": ("timestamp", lambda i: f"{133_500_000_000_000_000 + 200_000 * i}", 50),
    "days of MATLAB": ("time", lambda i: f"{739_000.5 + i / 10 / 86_400:.10f}", 10),
}  # fmt: skip


@pytest.mark.parametrize(("name", "cell", "rate_hz"), ASKED.values(), ids=ASKED)
def test_what_is_no_clock_of_the_rows_is_asked_with_the_rate_that_it_tells(
    name: str, cell: Cell, rate_hz: float, tmp_path: Path
) -> None:
    inferred = infer(tmp_path, table(name, cell))
    time = parse_schema(inferred.toml, "inferred").anchor_stream.time
    assert (time.sources, time.index_rate_hz) == ((), pytest.approx(rate_hz, rel=0.05))
    assert asked(inferred, "rows a second") == {"robot"}


def test_rows_that_each_take_the_same_time_have_a_rate_that_is_no_question(tmp_path: Path) -> None:
    inferred = infer(tmp_path, table("dt", lambda _: "0.02"))
    assert (clock_asked(inferred), parse_schema(inferred.toml, "i").anchor_stream.time.index_rate_hz) == ([], 50)


def test_even_steps_under_an_unknown_name_are_asked_once(tmp_path: Path) -> None:
    inferred = infer(tmp_path, table("foo", lambda i: f"{i / 50:.2f}"))
    assert [question.split("(")[0] for question in clock_asked(inferred)] == ["robot: clock: 'foo' in s "]


DAMAGED: dict[str, tuple[Cell, str]] = {
    "a letter": (lambda i: f"{i / 50:.2f}", "1.2o"),
    "nothing": (lambda i: f"{i / 50:.2f}", ""),
    "a digit too few": (lambda i: f"{i / 50:.2f}", "0.02"),
    "a number far off": (lambda i: f"{i / 50:.2f}", "99999"),
    "a letter in a date": (lambda i: stamp(i, "%Y-%m-%d %H:%M:%S.%f"), "2024-05-01 12:0x:03.1"),
}


@pytest.mark.parametrize(("cell", "bad"), DAMAGED.values(), ids=DAMAGED)
def test_one_damaged_stamp_leaves_the_clock_and_is_a_fault_with_its_line(cell: Cell, bad: str, tmp_path: Path) -> None:
    inferred = infer(tmp_path, table("time", lambda i: bad if i == 60 else cell(i)))
    assert parse_schema(inferred.toml, "inferred").anchor_stream.time.sources == ("time",)
    assert [fault.partition(": time")[0] for fault in inferred.faults] in (["log.csv:62"], ["log.csv:63"])


MIDNIGHT = datetime(2024, 5, 1, 23, 59, 59)


@pytest.mark.parametrize(
    "cell",
    [
        lambda i: (MIDNIGHT + timedelta(seconds=i / 50)).strftime("%H:%M:%S.%f"),
        lambda i: f"{(86_399 + i / 50) % 86_400:.2f}",
    ],
    ids=["text", "seconds"],
)
def test_a_time_of_day_that_passes_midnight_is_the_clock_and_a_fault(cell: Cell, tmp_path: Path) -> None:
    inferred = infer(tmp_path, table("time_of_day", cell))
    schema = parse_schema(inferred.toml, "inferred")
    assert (schema.anchor_stream.time.sources, schema.episodes.split_gap_s) == (("time_of_day",), None)
    assert [fault.partition(":")[0] for fault in inferred.faults] == ["log.csv"]


def test_a_clock_that_begins_again_cuts_the_file_into_episodes(tmp_path: Path) -> None:
    inferred = infer(tmp_path, table("time", lambda i: f"{i % 40 / 50:.2f}"))
    schema = parse_schema(inferred.toml, "inferred")
    assert (schema.anchor_stream.time.sources, inferred.faults, clock_asked(inferred)) == (("time",), (), [])
    assert 0.02 < (schema.episodes.split_gap_s or 0) < 0.78


def test_of_two_clocks_that_run_alike_the_sample_time_is_taken_without_a_question(tmp_path: Path) -> None:
    text = "log_time,sample_time,joint_1\n"
    text += "".join(f"{i / 50 + 0.003:.3f},{i / 50:.3f},{swing(i, 0)}\n" for i in range(ROWS))
    inferred = infer(tmp_path, text)
    assert clock_asked(inferred) == []
    assert parse_schema(inferred.toml, "inferred").anchor_stream.time.sources == ("sample_time",)


@pytest.mark.parametrize("names", ["secs,nsecs", "header.stamp.sec,header.stamp.nanosec", "tv_sec,tv_nsec"])
def test_seconds_and_their_nanoseconds_are_one_clock(names: str, tmp_path: Path) -> None:
    rows = "".join(f"{1_700_000_000 + i // 50},{i % 50 * 20_000_000},{swing(i, 0)}\n" for i in range(ROWS))
    inferred = infer(tmp_path, f"{names},joint_1\n{rows}")
    time = parse_schema(inferred.toml, "inferred").anchor_stream.time
    assert (",".join((*time.sources, time.plus or "")), clock_asked(inferred)) == (names, [])


def test_a_decimal_comma_and_the_last_column_are_no_hindrance(tmp_path: Path) -> None:
    rows = "".join(f"{swing(i, 0)};{swing(i, 1)};{i / 50:.2f}\n".replace(".", ",") for i in range(ROWS))
    inferred = infer(tmp_path, f"joint_1;joint_2;zeit\n{rows}")
    assert parse_schema(inferred.toml, "inferred").anchor_stream.time.sources == ("zeit",)
    assert clock_asked(inferred) == []


@pytest.mark.parametrize(
    ("line", "rate_hz"), [("# FPS: 30", 30), ("# frame rate = 60 Hz", 60), ("# sampling period: 5 ms", 200)]
)
def test_counted_frames_come_at_the_rate_that_stands_above_them(line: str, rate_hz: float, tmp_path: Path) -> None:
    inferred = infer(tmp_path, f"{line}\n{table('frame', str)}")
    time = parse_schema(inferred.toml, "inferred").anchor_stream.time
    assert (time.sources, time.index_rate_hz, clock_asked(inferred)) == (("frame",), rate_hz, [])


def test_numbered_columns_are_no_clock_however_evenly_the_first_rises(tmp_path: Path) -> None:
    rows = "".join(f"{i / 50:.3f},{swing(i, 0)},{swing(i, 1)}\n" for i in range(ROWS))
    inferred = infer(tmp_path, f"ax1,ax2,ax3\n{rows}")
    assert parse_schema(inferred.toml, "inferred").anchor_stream.time.sources == ()
    assert asked(inferred, "rows a second") == {"robot"}


def test_arrays_are_weighed_as_columns_are_but_no_two_are_added() -> None:
    seconds = 1_700_000_000 + np.arange(100) // 50
    arrays = [("sec", seconds), ("nanosec", np.arange(100) % 50 * 20_000_000), ("obs/t_ms", np.arange(100) * 20.0)]
    columns = [column_of_values(name, i, values) for i, (name, values) in enumerate(arrays)]
    guess = guess_clock(columns)
    assert (guess.columns, guess.time.unit, guess.rate_hz) == (("obs/t_ms",), "ms", pytest.approx(50))
    assert [option.value.columns for option in clock_options(columns[:2])] == [()]


def test_an_own_word_for_time_is_known(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[clock]\ntime = ["zwok"]\n')
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "log.csv").write_text(table("zwok", lambda i: f"{i / 50:.2f}"))
    assert clock_asked(infer_schema(tmp_path / "rec"))
    assert clock_asked(infer_schema(tmp_path / "rec", lexicon=tmp_path / "own.toml")) == []


def test_what_is_asked_of_one_clock_is_one_question(tmp_path: Path) -> None:
    rows = "".join(f"{i * 0.75:.2f},{swing(i, 0)},{swing(i, 1)}\n" for i in range(60))
    asked = clock_asked(infer(tmp_path, f"turntable,tilt,reach\n{rows}"))
    assert len(asked) == 1
    assert all(line in asked[0] for line in ('unit = "s"', 'unit = "ms"', "rate_hz = 10")), asked


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("datenum", lambda i: f"{739377.5 + i * 0.02 / 86400:.10f}"),
        ("DateTime.Ticks", lambda i: f"{638_500_000_000_000_000 + i * 200_000}"),
        ("a", lambda i: f"{133_500_000_000_000_000 + i * 200_000}"),
    ],
)
def test_stamps_with_another_beginning_say_the_rate_and_are_no_field(name: str, cell: Cell, tmp_path: Path) -> None:
    inferred = infer(tmp_path, table(name, cell))
    assert "nothing states: 50 (rate_hz = 50)" in clock_asked(inferred)[0]
    assert f'drop = ["{name}"]' in inferred.toml
