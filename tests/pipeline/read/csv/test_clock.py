"""Clocks of CSV streams are exact to the last nanosecond if they are written with nanoseconds."""

from __future__ import annotations

import calendar
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.read.clocks.stamps import clock_from_index, parse_stamp
from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CsvStream, Dialect, FieldSpec, TimeSpec

S = 1_000_000_000
START = calendar.timegm((2024, 3, 1, 12, 0, 0)) * S


def read(
    tmp_path: Path,
    text: str,
    name: str = "x.csv",
    field: FieldSpec | None = None,
    dialect: Dialect | None = None,
    **time: Any,
) -> tuple[StreamRows | None, list[Finding]]:
    path = tmp_path / name
    path.write_text(text, newline="")
    spec = CsvStream(
        name="robot",
        files=("*.csv",),
        time=TimeSpec(**time),
        fields=(field or FieldSpec(name="a", columns=(("a",),)),),
        dialect=dialect or Dialect(),
    )
    findings = Findings()
    return read_csv_stream(path, f"ep/{name}", spec, findings), list(findings)


def clock(tmp_path: Path, text: str, name: str = "x.csv", **more: Any) -> list[Any]:
    rows, findings = read(tmp_path, text, name, **more)
    assert rows is not None, findings
    return list(rows.timestamp.tolist())


def rows_of(*stamps: str) -> str:
    return "t,a\n" + "".join(f"{stamp},1\n" for stamp in stamps)


# stamps as printed, time, clock
CLOCKS: dict[str, tuple[tuple[str, ...], dict[str, Any], list[Any]]] = {
    "seconds": (("1.5", "2.25"), {}, [1.5, 2.25]),
    "milliseconds": (("1500", "2250.5"), {"unit": "ms"}, [1.5, 2.2505]),
    "whole nanoseconds": (("1740416404047049801", "1740416404047049802"), {"unit": "ns", "integer": True},
                          [1740416404047049801, 1740416404047049802]),
    "whole microseconds": (("5", "+6", "7.0"), {"unit": "us", "integer": True}, [5000, 6000, 7000]),
    "exact seconds": (("1740416404.047049801", "1740416404.047049802"), {"exact": True},
                      [1740416404047049801, 1740416404047049802]),
    "exact seconds of all lengths": (("1", " 1.5", "+2.000000001", "3.0000000010000"), {"exact": True},
                                     [S, S + S // 2, 2 * S + 1, 3 * S + 1]),
    "exact milliseconds": (("0.000001", "1e3"), {"exact": True, "unit": "ms"}, [1, S]),
    "negative": (("-0.5", "0.5"), {"exact": True}, [-S // 2, S // 2]),
    "strptime": (("2024-03-01 12:00:00", "2024-03-01 12:00:01"), {"format": "%Y-%m-%d %H:%M:%S"}, [START, START + S]),
    "strptime to the microsecond": (("01/03/2024 12:00:00.000001",), {"format": "%d/%m/%Y %H:%M:%S.%f"},
                                    [START + 1000]),
    "strptime to the nanosecond": (("2024-03-01 12:00:00.123456789",), {"format": "%Y-%m-%d %H:%M:%S.%f"},
                                   [START + 123456789]),
    "strptime with a zone": (("2024-03-01 14:00:00 +0200",), {"format": "%Y-%m-%d %H:%M:%S %z"}, [START]),
    "in a path": (("../IMG/cam_2024_03_01_12.jpg", "..\\IMG\\cam_2024_03_01_13.jpg"), {"format": "cam_%Y_%m_%d_%H.jpg"},
                  [START, START + 3600 * S]),
    "strptime, some without a fraction": (("2024-03-01 12:00:00", "2024-03-01 12:00:00.5"),
                                          {"format": "%Y-%m-%d %H:%M:%S.%f"}, [START, START + S // 2]),
    "strptime with a colon before the fraction": (("2024-03-01 12:00:00:250",), {"format": "%Y-%m-%d %H:%M:%S:%f"},
                                                  [START + S // 4]),
    "duration": (("0:00:00", "00:00:00.012500", "1:02.5", "25:00:00", '"1 day, 0:00:01"', "2 days 00:00:00.000000001"),
                 {"format": "duration"},
                 [0, 12_500_000, 62_500_000_000, 90_000 * S, 86_401 * S, 172_800 * S + 1]),
    "a number with its unit": (("0 sec", "0.02 s", "12.5 ms", '"0,5 min"', "1 hr", "1 day"), {"format": "duration"},
                               [0, S // 50, 12_500_000, 30 * S, 3600 * S, 86_400 * S]),
    "days": (("45352", "45352.5"), {"unit": "d", "offset_s": -25_569 * 86_400.0}, [START / S - 43_200, START / S]),
    "iso": (("2024-03-01T12:00:00", "2024-03-01 12:00:00.000000001"), {"format": "iso"}, [START, START + 1]),
    "iso in UTC": (("2024-03-01T12:00:00Z", "2024-03-01T12:00:00.5Z"), {"format": "iso"}, [START, START + S // 2]),
    "iso in other zones": (("2024-03-01T12:00:00+00:00", "2024-03-01T08:00:01-0400"), {"format": "iso"},
                           [START, START + S]),
    "iso with and without a zone": (("2024-03-01T12:00:00", "2024-03-01T12:00:01Z", "2024-03-01T12:00:02.5+00"),
                                    {"format": "iso"}, [START, START + S, START + 2 * S + S // 2]),
    "offset": (("1", "2"), {"offset_s": 0.5}, [1.5, 2.5]),
    "offset of whole stamps": (("1", "2"), {"unit": "ns", "integer": True, "offset_s": 1e-9}, [2, 3]),
    "whole numbers over a rate": (("10", "12"), {"index_rate_hz": 100.0}, [S // 10, 12 * S // 100]),
}  # fmt: skip


@pytest.mark.parametrize("case", CLOCKS)
def test_clock_is_read_as_declared(tmp_path: Path, case: str) -> None:
    stamps, time, expected = CLOCKS[case]
    rows, findings = read(tmp_path, rows_of(*stamps), sources=("t",), **time)
    assert rows is not None, findings
    assert rows.timestamp.tolist() == expected
    assert rows.timestamp.dtype == TimeSpec(sources=("t",), **time).dtype
    assert rows.clock_name == "t"


# second stamp, time
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("noon", {}),
    "NaN": ("nan", {}),
    "infinity": ("inf", {}),
    "fraction of a whole stamp": ("1.5", {"unit": "us", "integer": True}),
    "hexadecimal": ("0x10", {"unit": "us", "integer": True}),
    "more than nine digits": ("1.0000000001", {"exact": True}),
    "exact, but no number": ("1.0.0", {"exact": True}),
    "exact, and endless": ("1e999999999", {"exact": True}),
    "no such day": ("2024-02-30 12:00:00", {"format": "%Y-%m-%d %H:%M:%S"}),
    "no such minute in a duration": ("1:60:00", {"format": "duration"}),
    "no duration": ("12:30:61", {"format": "duration"}),
    "a unit that is none of time": ("0.02 mm", {"format": "duration"}),
    "a duration of a thousand years": ("365000 days", {"format": "duration"}),
    "a fraction of nothing": ("2024-03-01 12:00.5", {"format": "%Y-%m-%d %H:%M:%S.%f"}),
    "no such second in iso": ("2024-03-01T12:00:61", {"format": "iso"}),
    "ten digits in iso": ("2024-03-01T12:00:00.1234567891", {"format": "iso"}),
    "beyond 64 bits in iso": ("9999-03-01T12:00:00", {"format": "iso"}),
    "no index": ("1.5", {"index_rate_hz": 10.0}),
}
FIRST = {
    "%Y-%m-%d %H:%M:%S": "2024-03-01 12:00:00",
    "iso": "2024-03-01T12:00:00",
    "duration": "0:00:00",
    "%Y-%m-%d %H:%M:%S.%f": "2024-03-01 12:00:00",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_stamp_is_placed(tmp_path: Path, case: str) -> None:
    stamp, time = BAD[case]
    rows, findings = read(tmp_path, rows_of(FIRST.get(time.get("format", ""), "1"), stamp), sources=("t",), **time)
    assert rows is None
    assert [(f.code, f.line, f.column) for f in findings] == [("csv.bad_time", 3, "t")]


@pytest.mark.parametrize("time", [{}, {"integer": True}, {"exact": True}, {"format": "iso"}, {"index_rate_hz": 1.0}])
def test_empty_stamp_is_a_missing_value(tmp_path: Path, time: dict[str, Any]) -> None:
    rows, findings = read(tmp_path, rows_of(FIRST.get(time.get("format", ""), "1"), ""), sources=("t",), **time)
    assert rows is None
    assert [(f.code, f.line, f.column) for f in findings] == [("csv.missing_value", 3, "t")]


def test_stamps_that_overflow_are_refused(tmp_path: Path) -> None:
    for stamp, time in (
        ("99999999999", {"integer": True}),
        ("99999999999", {"exact": True}),
        ("1e300", {"start_format": "x"}),
    ):
        rows, findings = read(tmp_path, rows_of(stamp), "x.csv", sources=("t",), **time)
        assert rows is None
        assert [(f.code, f.line) for f in findings] == [("clock.unit", 2)]


def test_seconds_and_nanoseconds_in_two_columns(tmp_path: Path) -> None:
    text = "sec,nsec,a\n1740416404,47049801,1\n1740416404,47049802,1\n"
    stamps = clock(tmp_path, text, sources=("sec",), plus="nsec", integer=True)
    assert stamps == [1740416404047049801, 1740416404047049802]


def test_date_and_time_in_two_columns(tmp_path: Path) -> None:
    text = "date,time,a\n2024-03-01,12:00:00.25,1\n"
    time = {"sources": ("date",), "plus": "time", "format": "%Y-%m-%d %H:%M:%S.%f"}
    assert clock(tmp_path, text, **time) == [START + S // 4]
    assert clock(tmp_path, text, **{**time, "format": "iso"}) == [START + S // 4]


def test_fractions_in_a_second_column(tmp_path: Path) -> None:
    text = "s,ms,a\n1,500,1\n2,250,1\n"
    assert clock(tmp_path, text, sources=("s",), plus="ms", plus_unit="ms") == [1.5, 2.25]


@pytest.mark.filterwarnings("error")
def test_infinite_parts_of_a_stamp_are_refused_without_a_warning_beside(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, "s,ms,a\n1,500,1\ninf,-inf,1\n", sources=("s",), plus="ms", plus_unit="ms")
    assert rows is None
    assert [(finding.code, finding.line, finding.column) for finding in findings] == [
        ("csv.bad_time", 3, "s"),
        ("csv.bad_time", 3, "ms"),
    ]


def test_nearest_of_several_clocks(tmp_path: Path) -> None:
    text = "time,x,time,a,time\n1,0,2,0,3\n"
    assert clock(tmp_path, text, sources=("time",), nearest=True) == [2]
    rows, findings = read(tmp_path, "a,time\n1,2\n", sources=("time",), nearest=True)
    assert rows is None
    assert [(f.code, f.column) for f in findings] == [("csv.missing_column", "time")]


def test_rows_at_a_fixed_rate(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a\n1\n2\n3\n", index_rate_hz=30.0)
    assert rows is not None
    assert rows.timestamp.tolist() == [0, 33_333_333, 66_666_667]
    assert rows.clock_name is None


def test_dropped_rows_keep_their_time_at_a_fixed_rate(tmp_path: Path) -> None:
    field = FieldSpec(name="a", columns=(("a",),), on_missing="drop")
    assert clock(tmp_path, "a,b\n1,1\n,1\n3,1\n", field=field, index_rate_hz=1.0) == [0, 2 * S]


@settings(max_examples=200, deadline=None)
@given(
    index=st.lists(st.integers(-(10**9), 10**9), max_size=5),
    rate=st.sampled_from([1.0, 3.0, 29.97, 30.0, 100.0, 650.0, 1024.0, 1 / 3, 1e6, 123.456789]),
)
def test_index_over_rate_is_rounded_exactly(index: list[int], rate: float) -> None:
    clock = clock_from_index(np.array(index, dtype=np.int64), rate)
    assert clock.tolist() == [round(i * S / Fraction(repr(rate))) for i in index]


@pytest.mark.parametrize("name", ["log_20240301_120000.csv", "log_20240301_120000.csv.zip.csv", "log_20240301_120000"])
def test_file_name_gives_the_start(tmp_path: Path, name: str) -> None:
    time = {"sources": ("t",), "start_format": "log_%Y%m%d_%H%M%S"}
    assert clock(tmp_path, rows_of("0.25", "1"), name, **time) == [START + S // 4, START + S]
    assert clock(tmp_path, rows_of("5", "6"), name, unit="ns", integer=True, **time) == [START + 5, START + 6]


def test_file_name_gives_the_day_of_a_time(tmp_path: Path) -> None:
    time = {"sources": ("t",), "start_format": "%Y-%m-%d", "format": "%H:%M:%S"}
    assert clock(tmp_path, rows_of("12:00:00", "12:00:01"), "2024-03-01.csv", **time) == [START, START + S]


def test_file_name_of_another_form_is_refused(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, rows_of("0"), "other.csv", sources=("t",), start_format="log_%Y")
    assert rows is None
    assert [(f.code, f.found) for f in findings] == [("csv.bad_time", "other.csv")]


def test_clock_of_another_file_is_left_open(tmp_path: Path) -> None:
    field = FieldSpec(name="a", columns=(("a",),), on_missing="drop")
    assert clock(tmp_path, "a,b\n1,1\n,1\n3,1\n", field=field, file="times.txt") == [0, 2]


def test_exact_stamps_with_a_decimal_comma(tmp_path: Path) -> None:
    dialect = Dialect(delimiter=";", decimal=",")
    text = "t;a\n1,000000001;1\n"
    assert clock(tmp_path, text, dialect=dialect, sources=("t",), exact=True) == [S + 1]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    stamps=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=10), form=st.sampled_from(["ns", "exact", "iso"])
)
def test_every_nanosecond_survives(tmp_path: Path, stamps: list[int], form: str) -> None:
    if form == "ns":
        texts, time = [str(stamp) for stamp in stamps], {"unit": "ns", "integer": True}
    elif form == "exact":
        texts = [f"{'-' * (s < 0)}{abs(s) // S}.{abs(s) % S:09d}" for s in stamps]
        time = {"exact": True}
    else:
        texts = [str(np.datetime64(stamp, "ns")) for stamp in stamps]
        time = {"format": "iso"}
    assert clock(tmp_path, rows_of(*texts), sources=("t",), **time) == stamps


@given(
    moment=st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2200, 1, 1)),
    nanoseconds=st.integers(0, 999),
)
def test_one_stamp_is_parsed_as_a_column_is(moment: datetime, nanoseconds: int) -> None:
    stamp = calendar.timegm(moment.timetuple()) * S + moment.microsecond * 1000 + nanoseconds
    text = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}{nanoseconds:03d}"
    assert parse_stamp(text, TimeSpec(format="iso")) == stamp
    assert parse_stamp(text, TimeSpec(format="%Y-%m-%d %H:%M:%S.%f")) == stamp


PARTS = ("year", "month", "day", "hour", "minute", "second")


def of_parts(names: tuple[str, ...] = PARTS) -> Any:
    return tuple((name, name[:5]) for name in names)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)).map(lambda t: t.replace(microsecond=0)),
            st.integers(0, S - 1),
        ),
        min_size=1,
    ).map(sorted),
    st.booleans(),
)
def test_a_time_in_parts_keeps_each_nanosecond(
    tmp_path: Path, times: list[tuple[datetime, int]], by_day_of_year: bool
) -> None:
    names = ("year", "day_of_year", "hour", "minute", "second") if by_day_of_year else PARTS
    lines = []
    for time, fraction in times:
        day = [time.timetuple().tm_yday] if by_day_of_year else [time.month, time.day]
        cells = [time.year, *day, time.hour, time.minute, f"{time.second}.{fraction:09d}", 1]
        lines.append(",".join(map(str, cells)))
    text = ",".join(column for _, column in of_parts(names)) + ",a\n" + "\n".join(lines) + "\n"
    expected = [calendar.timegm(time.timetuple()) * S + fraction for time, fraction in times]
    assert clock(tmp_path, text, parts=of_parts(names)) == expected


def test_small_parts_without_a_date_count_from_midnight(tmp_path: Path) -> None:
    names = ("hour", "minute", "second", "millisecond", "microsecond", "nanosecond")
    text = "a,nanos,micro,milli,secon,minut,hour\n1,7,6,5,4,3,2\n"
    assert clock(tmp_path, text, parts=of_parts(names)) == [((2 * 60 + 3) * 60 + 4) * S + 5_006_007]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("2023,2,29,0,0,0", "day"),
        ("2023,13,1,0,0,0", "month"),
        ("23,1,1,0,0,0", "year"),
        ("2023,1,1,24,0,0", "hour"),
        ("2023,1,1,0,60,0", "minut"),
        ("2023,1,1,0,0.5,0", "minut"),
        ("2023,1,1,0,0,61.0", "secon"),
        ("2023,1,1,0,0,x", "secon"),
        ("2023,1,1,0,0,nan", "secon"),
    ],
)
def test_a_part_that_no_time_has_is_refused_with_its_cell(row: str, column: str, tmp_path: Path) -> None:
    text = "year,month,day,hour,minut,secon,a\n2022,12,31,0,0,0,1\n" + row + ",1\n"
    rows, findings = read(tmp_path, text, parts=of_parts())
    assert rows is None
    assert [(f.code, f.line, f.column) for f in findings if f.severity == "error"] == [("csv.bad_time", 3, column)]


def test_a_part_that_is_missing_is_refused(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, "hour,minut,a\n1,2,3\n1,,3\n", parts=of_parts(("hour", "minute")))
    assert rows is None
    assert [(f.code, f.line, f.column) for f in findings] == [("csv.missing_value", 3, "minut")]
