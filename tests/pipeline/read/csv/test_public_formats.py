"""Text files as well-known recorders write them, each read by a short schema; every value equals plain Python's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlapipe import open_dataset
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema

HEAD = 'schema_version = 1\nname = "x"\nanchor = "robot"\n'
TAIL = '[action]\nkind = "next"\nof = ["robot/v"]\n[sample]\nstate = ["robot/v"]\n'


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
    return root


def read(tmp_path: Path, files: dict[str, str], streams: str) -> tuple[dict[str, Any], IngestReport]:
    """The arrays of the first episode, and the report."""
    root = write(tmp_path / "lab", files)
    schema = tmp_path / "s.toml"
    schema.write_text(HEAD + streams + TAIL)
    report = ingest(IngestConfig(source=root, out=tmp_path / "out", schema=str(schema), workers=1))
    assert report.rejects == []
    return open_dataset(tmp_path / "out").episode(0), report


def refused(tmp_path: Path, files: dict[str, str], streams: str) -> list[tuple[str, str, int | None]]:
    """Code, file and line of each error of the only episode."""
    root = write(tmp_path / "lab", files)
    schema = tmp_path / "s.toml"
    schema.write_text(HEAD + streams + TAIL)
    report = ingest(IngestConfig(source=root, out=tmp_path / "out", schema=str(schema), workers=1))
    assert len(report.rejects) == 1
    reasons = report.rejects[0]["reasons"]
    return [(r["code"], r["file"], r["line"]) for r in reasons if r["severity"] == "error"]


ARDUPILOT = """[streams.robot]
kind = "csv"
files = ["flight.log"]
delimiter = ", "
row_kind = "IMU"
header_line = '^FMT, *\\d+, *\\d+, *IMU, *\\w+, *(.*)'
time = { column = "TimeUS", unit = "us" }
fields.v = { columns = ["Gyr{X,Y,Z}"], dtype = "float64" }
drop = ["I"]
[streams.attitude]
kind = "csv"
files = ["flight.log"]
delimiter = ", "
header = false
row_kind = "ATT"
names = ["TimeUS", "Roll", "Mode"]
time = { column = "TimeUS", unit = "us" }
fields.roll = { columns = ["Roll"] }
drop = ["Mode"]
"""


def ardupilot(num: int = 12) -> str:
    lines = [
        "FMT, 128, 89, FMT, BBnNZ, Type,Length,Name,Format,Columns",
        "FMT, 131, 47, IMU, QBfff, TimeUS,I,GyrX,GyrY,GyrZ",
        "FMT, 144, 47, ATT, Qcc, TimeUS,Roll,Mode",
        "PARM, 90, IMU_RATE, 50",
        "MSG, 95, ArduCopter V4.3, IMU ready",
    ]
    for i in range(num):
        lines.append(f"IMU, {1000 * i + 7}, 0, {i / 7:.6f}, {-i / 3:.5f}, 1e-3")
        if i % 2 == 0:
            lines.append(f"ATT, {1000 * i + 9}, {i}.5, AUTO")
    return "\n".join(lines) + "\n"


def test_messages_of_several_kinds_with_their_names_in_a_line_of_the_file(tmp_path: Path) -> None:
    text = ardupilot()
    episode, _ = read(tmp_path, {"ep/flight.log": text}, ARDUPILOT)
    rows = [line.split(", ") for line in text.splitlines() if line.startswith("IMU,")]
    np.testing.assert_array_equal(episode["robot/v"], [[float(cell) for cell in row[3:]] for row in rows])
    np.testing.assert_array_equal(episode["robot/timestamp"], [int(row[1]) * 1000 for row in rows])
    rolls = [line.split(", ") for line in text.splitlines() if line.startswith("ATT,")]
    np.testing.assert_array_equal(episode["attitude/roll"], np.float32([row[2] for row in rolls]))


def test_a_fault_in_one_kind_of_messages_has_its_line_in_the_file(tmp_path: Path) -> None:
    text = ardupilot().replace("IMU, 3007, 0, ", "IMU, 3007, 0, x")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if ", x" in row)
    assert refused(tmp_path, {"ep/flight.log": text}, ARDUPILOT) == [("csv.not_a_number", "ep/flight.log", line)]


def test_a_kind_that_no_line_has_is_answered_with_the_kinds_there_are(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {"ep/flight.log": ardupilot()})
    (tmp_path / "s.toml").write_text(HEAD + ARDUPILOT.replace('row_kind = "IMU"', 'row_kind = "IMU2"') + TAIL)
    report = ingest(IngestConfig(source=root, out=tmp_path / "out", schema=str(tmp_path / "s.toml"), workers=1))
    (reason,) = report.rejects[0]["reasons"]
    assert reason["code"] == "csv.no_such_kind"
    assert "IMU, ATT, FMT" in reason["found"]


def test_kinds_in_another_column_below_one_header(tmp_path: Path) -> None:
    rows = [f"{i},{'acc' if i % 2 else 'gyr'},{i / 7:.6f}" for i in range(20)]
    episode, _ = read(
        tmp_path,
        {"ep/log.csv": "t,sensor,x\n" + "\n".join(rows)},
        '[streams.robot]\nkind = "csv"\nfiles = ["log.csv"]\nrow_kind = "gyr"\nkind_column = 2\n'
        'time = { column = "t" }\nfields.v = { columns = ["x"] }\n',
    )
    np.testing.assert_array_equal(episode["robot/v"], np.float32([f"{i / 7:.6f}" for i in range(0, 20, 2)]))


def test_android_gnss_logger_whose_names_are_comments(tmp_path: Path) -> None:
    text = "# Header\n#\n# Raw,utcTimeMillis,Cn0\n# UncalGyro,utcTimeMillis,X,Y,Z\n"
    text += "".join(f"Raw,{1000 + i},2{i % 10}\nUncalGyro,{1000 + i},{i}.5,{i},-{i}\n" for i in range(9))
    episode, _ = read(
        tmp_path,
        {"ep/gnss_log.txt": text},
        '[streams.robot]\nkind = "csv"\nfiles = ["gnss_log.txt"]\ncomment = "#"\nrow_kind = "UncalGyro"\n'
        "header_line = '^# UncalGyro,(.*)'\n"
        'time = { column = "utcTimeMillis", unit = "ms" }\nfields.v = { columns = ["X", "Y", "Z"] }\n',
    )
    np.testing.assert_array_equal(episode["robot/v"], [[i + 0.5, i, -i] for i in range(9)])


OXTS = """[streams.robot]
kind = "csv"
files = ["oxts/data/*.txt"]
one_row_a_file = true
header = false
delimiter = " "
names = ["c{0..29}"]
time = { file = "oxts/timestamps.txt", format = "iso" }
fields.v = { columns = ["c{0..5}"], dtype = "float64" }
drop = ["c{6..29}"]
"""


def oxts(num: int = 12) -> dict[str, str]:
    """KITTI's raw GPS and IMU data: a line of 30 numbers a file, and a file of stamps with nine digits."""
    files = {
        f"drive/oxts/data/{i:010d}.txt": " ".join(str(49 + i / 7 + k) for k in range(30)) + "\n" for i in range(num)
    }
    stamps = [f"2011-09-26 13:02:{i:02d}.594360375" for i in range(num)]
    return {**files, "drive/oxts/timestamps.txt": "\n".join(stamps) + "\n"}


def test_kitti_with_one_row_a_file(tmp_path: Path) -> None:
    files = oxts()
    episode, report = read(tmp_path, files, OXTS)
    rows = [text.split() for path, text in sorted(files.items()) if "/data/" in path]
    np.testing.assert_array_equal(episode["robot/v"], [[float(cell) for cell in row[:6]] for row in rows])
    first = int(np.datetime64("2011-09-26T13:02:00.594360375", "ns").astype(np.int64))
    np.testing.assert_array_equal(episode["robot/timestamp"], first + 10**9 * np.arange(12))
    assert not [finding for finding in report.findings if finding["severity"] != "note"]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("0000000004.txt", "1 2 x " + "0 " * 26 + "0\n", "csv.not_a_number"),
        ("0000000004.txt", "1 2 3\n", "csv.column_count"),
        ("0000000004.txt", "", "csv.empty"),
        ("0000000004.txt", ("0 " * 29 + "0\n") * 2, "csv.one_row"),
    ],
)
def test_a_fault_in_one_of_many_files_names_that_file(tmp_path: Path, name: str, text: str, code: str) -> None:
    files = oxts() | {f"drive/oxts/data/{name}": text}
    ((found, file, _),) = refused(tmp_path, files, OXTS)
    assert (found, file) == (code, f"drive/oxts/data/{name}")


def test_another_number_of_stamps_than_files_is_refused(tmp_path: Path) -> None:
    files = oxts()
    del files["drive/oxts/data/0000000004.txt"]
    assert refused(tmp_path, files, OXTS) == [("clock.count", "drive/oxts/timestamps.txt", None)]


def test_files_without_a_clock_take_the_number_in_their_name_over_the_rate(tmp_path: Path) -> None:
    files = oxts()
    del files["drive/oxts/data/0000000004.txt"], files["drive/oxts/timestamps.txt"]
    episode, _ = read(tmp_path, files, OXTS.replace('file = "oxts/timestamps.txt", format = "iso"', "rate_hz = 10"))
    numbers = np.array([i for i in range(12) if i != 4])
    np.testing.assert_array_equal(episode["robot/timestamp"], numbers * 100_000_000)


def test_donkeycar_with_one_json_a_row_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    records = [{"user/angle": i / 7, "user/mode": "user", "ms": 50 * i, "imu": {"a": [i, 0.5]}} for i in range(12)]
    episode, _ = read(
        tmp_path,
        {f"tub/record_{i}.json": json.dumps(record) for i, record in enumerate(records)},
        '[streams.robot]\nkind = "csv"\nfiles = ["record_*.json"]\none_row_a_file = true\n'
        'time = { column = "ms", unit = "ms" }\ndrop = ["user/mode"]\n'
        'fields.v = { columns = ["user/angle"], dtype = "float64" }\nfields.imu = { columns = ["imu.a"], list = 2 }\n',
    )
    np.testing.assert_array_equal(episode["robot/v"], [record["user/angle"] for record in records])
    np.testing.assert_array_equal(episode["robot/imu"], [record["imu"]["a"] for record in records])  # type: ignore[index]


TWINCAT = """[streams.robot]
kind = "csv"
files = ["scope.csv"]
delimiter = "\\t"
header_line = '^(Name\\t\\S+\\tName\\t.*)'
skip_after_header = 5
skip_footer = 1
on_missing = "drop"
time = { column = "Name", nearest = true, unit = "ms" }
fields.v = { columns = ["Axis.ActPos"], dtype = "float64" }
drop = ["Axis.Torque", "Valve open"]
[streams.torque]
kind = "csv"
files = ["scope.csv"]
delimiter = "\\t"
header_line = '^(Name\\t\\S+\\tName\\t.*)'
skip_after_header = 5
skip_footer = 1
short_rows = true
on_missing = "drop"
time = { column = "Name", nearest = true, unit = "ms" }
fields.torque = { columns = ["Axis.Torque"] }
drop = ["Axis.ActPos", "Valve open"]
"""


def twincat(*, cut: bool = False) -> str:
    """A Scope export: each channel has its own time column, and channels of lower rates end earlier."""
    head = [
        "Name\tscope",
        "File\tC:\\scope.svdx",
        "Starttime of export\t132959733843760000\tMontag, 2. Mai 2022\t15:56:24.376",
        "Endtime of export\t132959733853750000\tMontag, 2. Mai 2022\t15:56:25.375",
        "",
        "Name\tAxis.ActPos\tName\tAxis.Torque\tName\tValve open",
        "SymbolComment\t\tSymbolComment\t\tSymbolComment\t",
        "Data-Type\tREAL64\tData-Type\tREAL32\tData-Type\tBIT",
        "SampleTime[ms]\t1\tSampleTime[ms]\t2\tSampleTime[ms]\t4",
        "Unit\tmm\tUnit\tNm\tUnit\t(None)",
        "",
    ]
    rows = []
    for i in range(20):
        cells = [str(i), f"{i / 7:.9f}"]
        cells += [f"{2 * i}", f"{i / 3:.4f}"] if i < 10 else ["", ""]
        cells += [f"{4 * i}", "1"] if i < 5 else ["", ""]
        rows.append("\t".join(cells).rstrip("\t") if cut else "\t".join(cells))
    return "\r\n".join([*head, *rows, "EOF"]) + "\r\n"


def test_twincat_scope_with_a_time_column_a_channel_and_channels_that_end_early(tmp_path: Path) -> None:
    episode, _ = read(tmp_path, {"ep/scope.csv": twincat()}, TWINCAT)
    np.testing.assert_array_equal(episode["robot/v"], [float(f"{i / 7:.9f}") for i in range(20)])
    np.testing.assert_array_equal(episode["torque/torque"], np.float32([f"{i / 3:.4f}" for i in range(10)]))
    np.testing.assert_allclose(episode["torque/timestamp"], np.arange(10) * 0.002)


def test_rows_that_end_early_are_filled_only_if_the_schema_allows_them(tmp_path: Path) -> None:
    both = TWINCAT.replace("skip_footer = 1\non_missing", "skip_footer = 1\nshort_rows = true\non_missing")
    episode, _ = read(tmp_path, {"ep/scope.csv": twincat(cut=True)}, both)
    np.testing.assert_array_equal(episode["torque/torque"], np.float32([f"{i / 3:.4f}" for i in range(10)]))
    found = refused(tmp_path / "not", {"ep/scope.csv": twincat(cut=True)}, TWINCAT)
    assert {code for code, _, _ in found} == {"csv.ragged_row"}
    assert found[0][2] == 17  # 11 lines above, five whole rows


def test_short_rows_are_missing_cells_and_longer_rows_stay_faults(tmp_path: Path) -> None:
    rows = ["t,a,b", "0,1,2", "1,3", '2,"4"', "3,5,6", "4"]
    streams = (
        '[streams.robot]\nkind = "csv"\nfiles = ["log.csv"]\nshort_rows = true\non_missing = "mask"\n'
        'time = { column = "t" }\nfields.v = { columns = ["a", "b"] }\n'
    )
    episode, _ = read(tmp_path, {"ep/log.csv": "\n".join(rows)}, streams)
    np.testing.assert_array_equal(episode["robot/v"], [[1, 2], [3, 2], [4, 2], [5, 6], [5, 6]])
    np.testing.assert_array_equal(episode["robot/v_is_missing"], [[0, 0], [0, 1], [0, 1], [0, 0], [1, 1]])
    longer = {"ep/log.csv": "\n".join([*rows, "5,1,2,3"])}
    assert refused(tmp_path / "not", longer, streams) == [("csv.ragged_row", "ep/log.csv", 7)]


def test_dspace_with_names_units_and_paths_above_the_table(tmp_path: Path) -> None:
    head = [
        '"type";"ControlDesk measurement"',
        '"trace_count";3',
        "",
        '"name";"Time";"motor speed";"angle"',
        '"path";"";"Platform()://Model/motor speed";"Platform()://Model/angle"',
        '"unit";"s";"rpm";"deg"',
    ]
    rows = [f'"{"trace_values" if i == 0 else ""}";{i / 1000:.3f};{i / 7:.5f};{i}' for i in range(10)]
    episode, _ = read(
        tmp_path,
        {"ep/rec.csv": "\n".join([*head, *(row.replace(".", ",") for row in rows)])},
        '[streams.robot]\nkind = "csv"\nfiles = ["rec.csv"]\ndelimiter = ";"\ndecimal = ","\n'
        'header_line = \'^"name";.*\'\nskip_after_header = 2\ndrop = ["name"]\n'
        'time = { column = "Time" }\nfields.v = { columns = ["motor speed", "angle"] }\n',
    )
    np.testing.assert_array_equal(episode["robot/v"], [[np.float32(f"{i / 7:.5f}"), i] for i in range(10)])


EMPATICA = """[streams.robot]
kind = "csv"
files = ["ACC.csv"]
delimiter = ", "
header = false
names = ["x", "y", "z"]
skip_lines = 2
time = { start_line = 1, rate_line = 2 }
fields.v = { columns = ["x", "y", "z"] }
[streams.bvp]
kind = "csv"
files = ["BVP.csv"]
header = false
names = ["bvp"]
skip_lines = 2
time = { start_line = 1, rate_line = 2 }
fields.bvp = { columns = ["bvp"] }
[streams.ibi]
kind = "csv"
files = ["IBI.csv"]
header = false
names = ["t", "ibi"]
skip_lines = 1
time = { start_line = 1, column = "t" }
fields.ibi = { columns = ["ibi"] }
"""


def empatica() -> dict[str, str]:
    acc = "1544027337.123456, 1544027337.123456, 1544027337.123456\n32.000000, 32.000000, 32.000000\n"
    bvp = "1544027337.000000\n64.000000\n" + "".join(f"{i / 7:.2f}\n" for i in range(40))
    ibi = "1544027337.000000, IBI\n" + "".join(f"{i / 10},0.8{i}\n" for i in range(6))
    return {
        "p1/ACC.csv": acc + "".join(f"{i},{-i},6{i % 10}\n" for i in range(20)),
        "p1/BVP.csv": bvp,
        "p1/IBI.csv": ibi,
    }


def test_empatica_with_start_and_rate_in_the_first_lines(tmp_path: Path) -> None:
    episode, _ = read(tmp_path, empatica(), EMPATICA)
    np.testing.assert_array_equal(episode["robot/v"], [[i, -i, 60 + i % 10] for i in range(20)])
    step = 1_000_000_000 // 32
    np.testing.assert_array_equal(episode["robot/timestamp"], 1544027337123456000 + step * np.arange(20))
    np.testing.assert_array_equal(episode["bvp/timestamp"], 1544027337000000000 + step // 2 * np.arange(40))
    np.testing.assert_array_equal(
        episode["ibi/timestamp"], 1544027337000000000 + np.array([0, 100, 200, 300, 400, 500]) * 1_000_000
    )


@pytest.mark.parametrize(("line", "found"), [("none", 2), ("0", 2), ("", 2)])
def test_a_rate_that_the_line_does_not_hold_is_refused_with_its_line(tmp_path: Path, line: str, found: int) -> None:
    files = empatica()
    files["p1/BVP.csv"] = files["p1/BVP.csv"].replace("64.000000", line)
    assert refused(tmp_path, files, EMPATICA) == [("csv.bad_time", "p1/BVP.csv", found)]


def test_rate_and_start_found_by_regular_expressions(tmp_path: Path) -> None:
    text = "Device: X\nStart: 2020-03-01 10:00:00.5\nSample rate: 50.0Hz\nx\n1\n2\n3\n"
    episode, _ = read(
        tmp_path,
        {"ep/log.csv": text},
        '[streams.robot]\nkind = "csv"\nfiles = ["log.csv"]\nskip_lines = 3\nfields.v = { columns = ["x"] }\n'
        "time = { rate_line = 'Sample rate: *([0-9.]+)', start_line = 'Start: (.*)', format = \"iso\" }\n",
    )
    first = int(np.datetime64("2020-03-01T10:00:00.5", "ns").astype(np.int64))
    np.testing.assert_array_equal(episode["robot/timestamp"], first + 20_000_000 * np.arange(3))


def test_hexadecimal_columns_of_a_can_log(tmp_path: Path) -> None:
    rows = [f"{i / 100:.2f};{0x1A0 + i:X};0x{i:02x};{i:02X} FF {2 * i:02x}" for i in range(12)]
    episode, _ = read(
        tmp_path,
        {"ep/can.csv": "time;id;d0;data\n" + "\n".join(rows) + "\n"},
        '[streams.robot]\nkind = "csv"\nfiles = ["can.csv"]\ndelimiter = ";"\ntime = { column = "time" }\n'
        'fields.id = { columns = ["id"], number = "hex", dtype = "int32" }\n'
        'fields.v = { columns = ["d0"], number = "hex" }\n'
        'fields.data = { columns = ["data"], number = "hex", list = 3, dtype = "uint8" }\n',
    )
    np.testing.assert_array_equal(episode["robot/id"], 0x1A0 + np.arange(12))
    np.testing.assert_array_equal(episode["robot/v"], np.arange(12))
    np.testing.assert_array_equal(episode["robot/data"], [[i, 255, 2 * i] for i in range(12)])


@pytest.mark.parametrize(
    ("cell", "code"),
    [("0xG1", "csv.not_a_number"), ("-1A", "csv.not_a_number"), ("", "csv.missing_value"), ("100", "csv.not_a_number")],
)
def test_cells_that_are_no_hexadecimal_byte_are_refused(tmp_path: Path, cell: str, code: str) -> None:
    streams = (
        '[streams.robot]\nkind = "csv"\nfiles = ["can.csv"]\ntime = { column = "t" }\n'
        'fields.v = { columns = ["d"], number = "hex", dtype = "uint8" }\n'
    )
    text = f"t,d\n0,1A\n1,0x2b\n2,{cell}\n3,FF\n"
    assert refused(tmp_path, {"ep/can.csv": text}, streams) == [(code, "ep/can.csv", 4)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('kind_column = 2\ntime = { column = "t" }', "of which kind are the rows?"),
        ("time = { rate_line = 0 }", "rate_line: expected the number of a line"),
        ("time = { rate_line = 'Rate' }", "has no group"),
        ("time = { rate_line = 2, rate_hz = 50 }", "rate_line and another clock"),
        ('time = { column = "t", format = "iso", start_line = 1 }', "stamps of a format have their date"),
        ("header = false\nheader_line = '('\ntime = { column = \"t\" }", "is not a regular expression"),
        ("header = true\nheader_line = 'a'\ntime = { column = \"t\" }", "header and header_line"),
        ("one_row_a_file = true\ntime = { rate_line = 2 }", "no file states the rate of the others"),
        ("time = { pattern = '(a)' }", "only images have their time in their name"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: str, said: str) -> None:
    stream = f'[streams.robot]\nkind = "csv"\nfiles = ["x.csv"]\n{keys}\nfields.v = {{ columns = ["x"] }}\n'
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        parse_schema(HEAD + stream + TAIL, "test")
