"""Guesses which column is the clock and its unit, and says so if the guess is not certain."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferring import asked

from vlapipe.pipeline.infer.columns.clock import ClockGuess, guess_clock
from vlapipe.pipeline.infer.columns.columns import columns_of
from vlapipe.pipeline.infer.columns.stamp_text import strptime_form
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.infer.text.dialect import look_at_table


def clock_of(folder: Path, header: str, rows: list[str]) -> ClockGuess:
    path = folder / "log.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    table = look_at_table(path, "log.csv")
    assert table is not None
    return guess_clock(columns_of(table))


def stamps(start: float, step: float, digits: int = 0) -> list[str]:
    return [f"{start + i * step:.{digits}f},{i % 3}.5" for i in range(12)]


@pytest.mark.parametrize(
    ("name", "rows", "unit", "integer"),
    [
        ("time", stamps(0, 0.01, 2), "s", False),
        ("time", stamps(0, 10), "ms", True),
        ("time", stamps(0, 2_000), "us", True),
        ("time", stamps(0, 4_000_000), "ns", True),
        ("stamp", stamps(1_700_000_000, 0.5, 3), "s", False),
        ("stamp", stamps(1_700_000_000_000, 5), "ms", True),
        ("stamp", stamps(1_700_000_000_000_000, 5_000), "us", True),
        ("stamp", stamps(1_700_000_000_000_000_000, 5_000_000), "ns", True),
        ("time_ms", stamps(0, 0.5, 1), "ms", False),
        ("time [min]", stamps(0, 0.001, 4), "min", False),
        ("elapsed_min", stamps(0, 0.001, 4), "min", False),
        ("t (h)", stamps(0, 0.00001, 6), "h", False),
        ("Hours", stamps(0, 0.00001, 6), "h", False),
        ("Time (us)", stamps(0, 100), "us", True),
        ("t [s]", stamps(5, 1), "s", True),
        ("TimeUS", stamps(98_000_000, 400), "us", True),
        ("time_us", stamps(0, 400), "us", True),
        ("timestampUs", stamps(0, 20_000), "us", True),
        ("t_ms", stamps(0, 400), "ms", True),
        ("TimeMS", stamps(0, 1_000), "ms", True),
        ("timestampNs", stamps(0, 4_000_000), "ns", True),
        ("times", stamps(0, 0.01, 2), "s", False),
    ],
)
def test_unit_follows_from_magnitude_name_or_step(
    name: str, rows: list[str], unit: str, integer: bool, tmp_path: Path
) -> None:
    guess = clock_of(tmp_path, f"{name},x", rows)
    assert (guess.time.sources, guess.time.unit, guess.time.integer) == ((name,), unit, integer)


def test_other_plausible_units_are_said(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "time,x", stamps(0, 1))
    assert any("possible too" in reason for reason in guess.reasons)


def test_measured_time_goes_before_received_time(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + i},{1_700_000_000 + i},{i}.5" for i in range(9)]
    guess = clock_of(tmp_path, "recv_timestamp,origin_timestamp,x", rows)
    assert guess.time.sources == ("origin_timestamp",)
    assert any("'recv_timestamp' would do as well" in reason for reason in guess.reasons)


def test_column_that_runs_back_is_no_clock(tmp_path: Path) -> None:
    assert clock_of(tmp_path, "time,x", [*stamps(5, 1), "0,1"]).assumed


def test_clock_without_a_name_ticks_evenly(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "k,v", [f"{i * 0.02 + 3:.2f},{i * i % 7}.5" for i in range(20)])
    assert guess.time.sources == ("k",)


def test_counter_is_no_clock_but_numbers_rows(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "frame_index,x", [f"{i},{i % 3}.5" for i in range(12)])
    assert guess.assumed
    assert (guess.time.sources, guess.time.index_rate_hz) == (("frame_index",), 10)


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("2024-05-01T10:00:00.{:03d}", "iso"),
        ("2024-05-01 10:00:00.{:03d}+02:00", "iso"),
        ("01.05.2024 10:00:00.{:03d}", "%d.%m.%Y %H:%M:%S.%f"),
        ("2024/05/01 10:00:00.{:03d}", "%Y/%m/%d %H:%M:%S.%f"),
        ("10:00:00.{:03d}", "%H:%M:%S.%f"),
        ("12-May-2021 14:03:22.{:03d}", "%d-%b-%Y %H:%M:%S.%f"),
        ("img/cam_2024_05_01_10_00_00_{:03d}.jpg", "cam_%Y_%m_%d_%H_%M_%S_%f.jpg"),
        ("20240501_100000_{:03d}", "%Y%m%d_%H%M%S_%f"),
    ],
)
def test_time_as_text(cell: str, form: str, tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "when,x", [f"{cell.format(i * 20)},{i}.5" for i in range(9)])
    assert guess.time.format == form
    assert guess.rate_hz == pytest.approx(50)


def test_day_and_month_that_could_be_either_are_said(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "date,x", [f"05/04/2024 10:00:0{i},{i}.5" for i in range(9)])
    assert any("does the day come first?" in reason for reason in guess.reasons)


def test_name_without_a_time_has_no_form() -> None:
    assert strptime_form("frame_000123.jpg") is None


def test_seconds_and_nanoseconds_by_their_endings(tmp_path: Path) -> None:
    rows = [f"{1_600_000_000 + i // 10},{i % 10 * 100_000_000},{i}.5" for i in range(30)]
    guess = clock_of(tmp_path, "ZeitInSec,ZeitInNanoSec,x", rows)
    assert (guess.time.sources, guess.time.plus, guess.time.plus_unit) == (("ZeitInSec",), "ZeitInNanoSec", "ns")
    assert guess.rate_hz == pytest.approx(10)


@pytest.mark.parametrize("name", ["Packet number", "PacketCounter", "frame_seq", "Sample"])
def test_counter_of_messages_is_no_clock_however_evenly_it_rises(name: str, tmp_path: Path) -> None:
    guess = clock_of(tmp_path, f"{name},x", [f"{115 + 2 * i},{i % 3}.5" for i in range(12)])
    assert guess.assumed
    assert (guess.time.sources, guess.time.index_rate_hz) == ((name,), 10)
    assert guess.rate_hz == pytest.approx(5)  # every second count is there
    assert any("only assumed" in reason for reason in guess.reasons)


def test_ticks_of_a_sample_clock_are_a_clock(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "SampleTimeFine,x", [f"{4_000 + 10 * i},{i % 3}.5" for i in range(12)])
    assert not guess.assumed
    assert guess.columns == ("SampleTimeFine",)


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [
        (["1609060336768428032", "1609060336868428033", "1609060336868428034", "1609060337968428035"], "ns"),
        (["1698131923.699656", "1698131923.799656", "1698131923.799657", "1698131924.99"], "s"),
    ],
)
def test_dates_without_a_name_are_a_clock_however_unevenly_they_rise(
    stamps: list[str], unit: str, tmp_path: Path
) -> None:
    (tmp_path / "log.txt").write_text("".join(f"{stamp} {i}.5 {-i}.25\n" for i, stamp in enumerate(stamps)))
    table = look_at_table(tmp_path / "log.txt", "log.txt")
    assert table is not None
    guess = guess_clock(columns_of(table))
    assert (guess.columns, guess.time.unit, guess.assumed) == (("c1",), unit, False)


@pytest.mark.parametrize(("unit", "per_s"), [("ns", 10**9), ("us", 10**6)])
def test_seconds_without_a_name_have_their_fraction_beside_them(unit: str, per_s: int, tmp_path: Path) -> None:
    rows = [[1_700_000_000 + i // 50, i % 50 * (per_s // 50) + 7, i * 7 % 5] for i in range(120)]
    (tmp_path / "x.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    table = look_at_table(tmp_path / "x.csv", "x.csv")
    assert table is not None
    guess = guess_clock(columns_of(table))
    assert (guess.columns, guess.time.plus_unit, guess.time.dtype) == (("c1", "c2"), unit, "int64")
    assert guess.rate_hz == pytest.approx(50, rel=1e-3)


def test_numbers_beside_seconds_that_do_not_go_on_are_no_fraction(tmp_path: Path) -> None:
    rows = [[1_700_000_000 + i // 50, i * 700_001 % 1_000_003 % 999_983, i * 7 % 5] for i in range(120)]
    (tmp_path / "x.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    table = look_at_table(tmp_path / "x.csv", "x.csv")
    assert table is not None
    guess = guess_clock(columns_of(table))
    assert (guess.columns, guess.assumed, guess.rate_hz) == ((), True, 50)  # rows that share whole seconds are counted


def test_a_clock_in_text_that_is_no_date_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Time,q\n" + "".join(f"{i / 100} ticks,{i * 7 % 5}\n" for i in range(20)))
    table = look_at_table(tmp_path / "x.csv", "x.csv")
    assert table is not None
    guess = guess_clock(columns_of(table))
    assert guess.assumed
    assert guess.reasons[-1].startswith("'Time' is called a clock, but holds text such as '0.0 ticks'")


@pytest.mark.parametrize(
    ("dates", "times"),
    [
        ("12.03.2021", "23:59:{:02d},250"),
        ("2021-03-12", "23:59:{:02d}"),
        ("2021/03/12", "11:59:{:02d} PM"),
        ("12.03.21", "23:59:{:02d}.5"),
    ],
)
def test_a_date_beside_a_time_of_day_is_joined_to_it_whatever_they_are_called(
    dates: str, times: str, tmp_path: Path
) -> None:
    rows = [f'{dates},"{times.format(40 + i)}",{i}.5' for i in range(12)]
    guess = clock_of(tmp_path, "Datum,Uhrzeit,x", rows)
    assert (guess.time.sources, guess.time.plus) == (("Datum",), "Uhrzeit")
    assert guess.stamps_s[0] // 1 == 1_615_593_580
    assert guess.rate_hz == pytest.approx(1)


def test_years_of_two_digits_are_read_and_the_other_order_is_said(tmp_path: Path) -> None:
    sure = clock_of(tmp_path, "Timestamp,x", [f"14/03/25 10:00:{i:02d},{i}.5" for i in range(12)])
    assert (sure.time.format, sure.stamps_s[0]) == ("%d/%m/%y %H:%M:%S", 1_741_946_400)
    unsure = clock_of(tmp_path, "Timestamp,x", [f"04/03/25 10:00:{i:02d},{i}.5" for i in range(12)])
    assert any("does the day come first?" in reason for reason in unsure.reasons)


def test_minutes_and_seconds_with_a_fraction_are_a_clock(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "Time,x", [f"05:{i:02d}.5,{i}.5" for i in range(12)])
    assert guess.time.format == "duration"
    assert guess.rate_hz == pytest.approx(1)


@pytest.mark.parametrize(
    ("header", "row", "start_s"),
    [
        ("year,month,day,hour,minute,second", "2023,4,5,13,{m},{s:.3f}", 1_680_699_600),
        ("YYYY,MM,DD,hh,mm,ss", "2023,4,5,13,{m},{s:.3f}", 1_680_699_600),
        ("Year,DOY,Hour,Min,Sec [s]", "2023,95,13,{m},{s:.3f}", 1_680_699_600),
        ("Min,Hour,Sec,ms", "{m},13,{whole},{ms}", 46_800),
    ],
)
def test_a_time_in_parts_is_added_up(header: str, row: str, start_s: float, tmp_path: Path) -> None:
    times = [50 + i / 4 for i in range(400)]
    lines = [
        row.format(m=int(t // 60), s=t % 60, whole=int(t) % 60, ms=round(t % 1 * 1000)) + f",{t * 7 % 5:.4f}"
        for t in times
    ]
    (tmp_path / "x.csv").write_text(f"{header},joint_1\n" + "\n".join(lines))
    inferred = infer_schema(tmp_path)
    assert (asked(inferred, "rows a second"), inferred.faults) == (set(), ())
    guess = clock_of(tmp_path, f"{header},joint_1", lines)
    assert guess.stamps_s == pytest.approx([start_s + t for t in times], abs=1e-6)
    assert guess.rate_hz == pytest.approx(4)
    assert not any("begins again" in reason for reason in inferred.reasons)


def test_a_clock_beside_a_time_in_parts_goes_before_it(tmp_path: Path) -> None:
    guess = clock_of(tmp_path, "timestamp,hour,minute,x", [f"{i / 10},13,{i // 10},{i * 7 % 5}.5" for i in range(20)])
    assert guess.time.sources == ("timestamp",)
    assert guess.reasons[-1] == "the time in parts ('hour', 'minute') would do as well"


@pytest.mark.parametrize("row", ["0,0,{x}", "13,{back},{x}", "13,,{x}"])
def test_parts_that_stand_still_run_back_or_have_holes_are_no_clock(row: str, tmp_path: Path) -> None:
    rows = [row.format(back=40 - i, x=i * 7 % 5 + 0.5) for i in range(20)]
    rows[-1] = "13,9,1.5" if ",," in row else rows[-1]
    guess = clock_of(tmp_path, "h,min,x", rows)
    assert guess.assumed
    assert "('h', 'min') stands still, runs back or has holes" in guess.reasons[-1]
