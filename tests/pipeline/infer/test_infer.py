"""Recordings in the styles of well-known logs: each is inferred, ingested by that schema, and equals its file."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferring import ROWS, WAVE, infer_and_ingest, text_of
from numpy.typing import NDArray

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import CsvStream

EPOCH_NS = 1_403_636_579_763_555_584
QUATERNION = np.concatenate([WAVE[:, :3], np.ones((ROWS, 1))], axis=1)
QUATERNION /= np.linalg.norm(QUATERNION, axis=1, keepdims=True)


@dataclass(frozen=True)
class Style:
    """One way of logging: the file, and what must come out of it."""

    name: str
    text: str
    fields: dict[str, NDArray[Any]]
    clock: NDArray[Any]  # int64 nanoseconds, or float64 seconds
    says: tuple[str, ...] = ()  # lines that the schema must hold
    encoding: str = "utf-8"
    newline: str = "\n"
    episodes: int = 1
    dropped: tuple[str, ...] = field(default=())


def stamps_ns(step: int) -> NDArray[np.int64]:
    return EPOCH_NS + step * np.arange(ROWS, dtype=np.int64)


def ros_bag() -> Style:
    stamp = stamps_ns(10_000_000)
    header = "%time,field.header.seq,field.header.stamp,field.header.frame_id," + ",".join(
        f"field.pose.{p}" for p in ("position.x", "position.y", "position.z")
    )
    header += "," + ",".join(f"field.pose.orientation.{a}" for a in "xyzw")
    rows = [
        [int(stamp[i]) + 300, i, int(stamp[i]), "base", *map(float, WAVE[i, :3]), *map(float, QUATERNION[i])]
        for i in range(ROWS)
    ]
    return Style(
        "bag.csv",
        header + "\n" + text_of(rows),
        {"pose_position": WAVE[:, :3], "pose_orientation": QUATERNION},
        stamp,
        ('column = "field.header.stamp"', 'quaternion = "xyzw"', 'unit = "ns"', 'header = "commented"'),
        dropped=("time", "field.header.seq", "field.header.frame_id"),
    )


def euroc() -> Style:
    header = "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []"
    stamp = stamps_ns(5_000_000) + 1  # odd: float64 cannot hold it
    wxyz = QUATERNION[:, [3, 0, 1, 2]]
    rows = [[int(stamp[i]), *map(float, WAVE[i, :3]), *map(float, wxyz[i])] for i in range(ROWS)]
    return Style(
        "data.csv",
        header + "\n" + text_of(rows),
        {"p_rs_r": WAVE[:, :3], "q_rs": QUATERNION},
        stamp,
        ('quaternion = "wxyz"', 'unit = "m"'),
        newline="\r\n",
    )


def tum() -> Style:
    exact = [f"{1305031102 + i // 100}.{(i % 100) * 10_000_000 + 175_304_123:09d}" for i in range(ROWS)]
    rows = [[exact[i], *map(float, WAVE[i, :3]), *map(float, QUATERNION[i])] for i in range(ROWS)]
    head = "# ground truth trajectory\n# file: 'desk.bag'\n# timestamp tx ty tz qx qy qz qw\n"
    clock = np.array([int(text.replace(".", "")) for text in exact], dtype=np.int64)
    fields = {"position": WAVE[:, :3], "orientation": QUATERNION}
    return Style("groundtruth.txt", head + text_of(rows, " "), fields, clock, ("exact = true", '"whitespace"'))


def kitti() -> Style:
    rows = [list(map(float, WAVE[i, :12])) for i in range(ROWS)]
    fields = {"values": WAVE[:, :12]}
    return Style(
        "poses.txt", text_of(rows, " "), fields, np.arange(ROWS) * 100_000_000, ("header = false", "rate_hz = 10")
    )


def matlab() -> Style:
    rows = [[i * 0.01, *map(float, WAVE[i, :2]), float(i)] for i in range(ROWS)]
    head = "Messung vom 3. März\n\nZeit [s];Winkel (°);Kraft (N);Weg [mm]\n"
    fields = {"winkel": WAVE[:, 0], "kraft": WAVE[:, 1], "weg": np.arange(ROWS)}
    says = ('decimal = ","', 'delimiter = ";"', "skip_lines = 2", 'unit = "deg"', 'encoding = "cp1252"')
    return Style("Messung.csv", head + text_of(rows, ";", ","), fields, np.arange(ROWS) * 0.01, says, encoding="cp1252")


def lerobot() -> Style:
    head = "index,episode_index,frame_index,timestamp," + ",".join(f"observation.state.{j}" for j in range(6))
    head += "," + ",".join(f"action.{j}" for j in range(6)) + ",task_index\n"
    rows = []
    for i in range(ROWS):
        episode, frame = divmod(i, ROWS // 2)
        rows.append([i, episode, frame, frame / 50, *map(float, WAVE[i, :6]), *map(float, WAVE[i, 6:12]), 0])
    return Style(
        "all.csv",
        head + text_of(rows),
        {"observation_state": WAVE[: ROWS // 2, :6], "action": WAVE[: ROWS // 2, 6:12]},
        np.arange(ROWS // 2) / 50,
        ('split_column = "episode_index"', 'kind = "column"', 'of = ["robot/action"]'),
        episodes=2,
        dropped=("index", "frame_index", "task_index"),
    )


def rtde() -> Style:
    head = "timestamp " + " ".join(f"{n}_{j}" for n in ("target_q", "actual_q", "actual_qd") for j in range(6)) + "\n"
    rows = [[1234.5 + i * 0.008, *map(float, np.tile(WAVE[i, :6], 3))] for i in range(ROWS)]
    fields = {"target_q": WAVE[:, :6], "joint_position": WAVE[:, :6], "joint_velocity": WAVE[:, :6]}
    return Style(
        "robot_data.csv", head + text_of(rows, " "), fields, 1234.5 + np.arange(ROWS) * 0.008, ("rate_hz = 125",)
    )


def franka() -> Style:
    head = "time, " + ", ".join(f"q[{j}]" for j in range(7)) + ", " + ", ".join(f"tau_J[{j}]" for j in range(7)) + "\n"
    rows = [[i, *map(float, WAVE[i, :14])] for i in range(ROWS)]
    fields = {"joint_position": WAVE[:, :7], "joint_torque": WAVE[:, 7:14]}
    clock = np.arange(ROWS) * 1_000_000
    return Style("franka.csv", head + text_of(rows, ", "), fields, clock, ('unit = "ms"', "# unit s is possible too"))


def pandas_index() -> Style:
    rows = [[i, 1.7e9 + i * 0.05, *map(float, WAVE[i, :3])] for i in range(ROWS)]
    fields = {"position": WAVE[:, :3]}
    text = ",stamp,x,y,z\n" + text_of(rows)
    return Style("frame.csv", text, fields, 1.7e9 + np.arange(ROWS) * 0.05, ("index_column = true",))


def phone() -> Style:
    stamp = 1_600_000_000_123 + 10 * np.arange(ROWS, dtype=np.int64)
    rows = [[int(stamp[i]), *map(float, WAVE[i, :6]), ""] for i in range(ROWS)]
    head = "timestamp_ms,accX,accY,accZ,gyroX,gyroY,gyroZ,\n"
    fields = {"acceleration": WAVE[:, :3], "angular_velocity": WAVE[:, 3:6]}
    says = ('unit = "ms"', "trailing_delimiter = true")
    return Style("imu.csv", head + text_of(rows), fields, stamp * 1_000_000, says, encoding="utf-8-sig")


def time_of_day() -> Style:
    rows = [[f"12:59:59.{i * 20:03d}", *map(float, WAVE[i, :2]), "moving"] for i in range(ROWS)]
    fields = {"joint_position": WAVE[:, :2]}
    second = 12 * 3600 + 59 * 60 + 59
    start = -2_208_988_800 + second  # 1900: a time of day alone has no date
    clock = np.array([start * 10**9 + i * 20_000_000 for i in range(ROWS)], dtype=np.int64)
    text = "Time\tjoint1\tjoint2\tstate\n" + text_of(rows, "\t")
    says = ('format = "%H:%M:%S.%f"', 'delimiter = "\\t"')
    return Style("log.tsv", text, fields, clock, says, dropped=("state",), encoding="utf-16")


def iso_text() -> Style:
    rows = [[f"2024-05-01T10:00:00.{i * 20:03d}Z", *map(float, WAVE[i, :3])] for i in range(ROWS)]
    clock = 1_714_557_600 * 10**9 + np.arange(ROWS, dtype=np.int64) * 20_000_000
    text = "datetime,ee_x,ee_y,ee_z\n,m,m,m\n" + text_of(rows)
    return Style("ee.csv", text, {"ee": WAVE[:, :3]}, clock, ('format = "iso"', "skip_after_header = 1", 'unit = "m"'))


def two_columns_of_time() -> Style:
    stamp = stamps_ns(10_000_000)
    rows = [[int(s) // 10**9, int(s) % 10**9, *map(float, WAVE[i, :4])] for i, s in enumerate(stamp)]
    text = "header.stamp.secs,header.stamp.nsecs,q1,q2,q3,grip width\n" + text_of(rows)
    fields = {"joint_position": WAVE[:, :3], "grip_width": WAVE[:, 3]}
    return Style("joint_states.csv", text, fields, stamp, ('plus = "header.stamp.nsecs"', 'plus_unit = "ns"'))


def gaps_in_cells() -> Style:
    rows: list[list[object]] = [[i * 0.02, float(WAVE[i, 0]), float(WAVE[i, 1])] for i in range(ROWS)]
    for i in range(3, ROWS, 4):
        rows[i][2] = "NaN"
    text = "t,-a b,größe\n" + text_of(rows)
    return Style("x.csv", text, {"a_b": WAVE[:, 0]}, np.arange(ROWS) * 0.02, ('on_missing = "mask"', '"NaN"'))


STYLES = [
    ros_bag, euroc, tum, kitti, matlab, lerobot, rtde, franka, pandas_index, phone, time_of_day, iso_text,
    two_columns_of_time, gaps_in_cells,
]  # fmt: skip


@pytest.mark.parametrize("make", STYLES, ids=lambda make: make.__name__)
def test_log_is_inferred_ingested_and_equal_to_its_file(make: Callable[[], Style], tmp_path: Path) -> None:
    style = make()
    root = tmp_path / "recordings"
    root.mkdir()
    (root / style.name).write_bytes(style.text.replace("\n", style.newline).encode(style.encoding))
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    for line in style.says:
        assert line in inferred.toml, inferred.toml
    assert report.num_episodes == style.episodes
    dataset = open_dataset(tmp_path / "out")
    episode = dataset.episode(0)
    for name, expected in style.fields.items():
        found = episode[f"robot/{name}"]
        np.testing.assert_allclose(found, np.round(expected, 6), rtol=1e-6, atol=1e-6, err_msg=name)
    clock = episode["robot/timestamp"]
    if clock.dtype == np.int64:
        assert np.asarray(style.clock).dtype == np.int64
        np.testing.assert_array_equal(clock, style.clock)
    else:
        np.testing.assert_allclose(clock, style.clock, rtol=0, atol=5e-7)
    stream = parse_schema(inferred.toml, "inferred").anchor_stream
    assert isinstance(stream, CsvStream)
    assert set(style.dropped) <= set(stream.drop)


def test_every_comment_reaches_the_caller_as_a_reason(tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    (root / "poses.txt").write_text(kitti().text)
    inferred = infer_schema(root)
    assert any("correct rate_hz" in reason for reason in inferred.reasons)
    assert "correct rate_hz" in inferred.toml


def test_missing_cells_beyond_the_first_rows_are_found_by_reading(tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    lines = [f"{i / 100:.2f},{i % 7}.{i % 10},{i % 11}.{i % 3}" for i in range(40_000)]
    lines[39_000] = "390.00,,1.0"
    (root / "log.csv").write_text("t,joint_1,joint_2\n" + "\n".join(lines) + "\n")
    assert (root / "log.csv").stat().st_size > 1.5 * (256 << 10)
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert 'on_missing = "mask"' in inferred.toml
    assert report.num_episodes == 1
    assert open_dataset(tmp_path / "out").episode(0)["robot/joint_position_is_missing"].sum() == 1  # no row is lost


def test_faults_that_remain_are_said(tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    lines = [f"{i / 100:.2f},{i % 7}.{i % 10},{i % 11}.{i % 3}" for i in range(40_000)]
    lines[39_000] = "390.00,1.0"
    (root / "log.csv").write_text("t,joint_1,joint_2\n" + "\n".join(lines) + "\n")
    inferred = infer_schema(root)
    assert len(inferred.faults) == 1
    assert "log.csv:39002" in inferred.faults[0]
    parse_schema(inferred.toml, "inferred")


@settings(deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="01.5-,;\t \n\"'#ax_é[]{}", max_size=200).map(str.encode),
    )
)
def test_whatever_a_file_holds_a_schema_is_written_or_the_folder_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / "log.csv").write_bytes(data)
    with contextlib.suppress(UsageError):  # no table of numbers
        parse_schema(infer_schema(root).toml, "inferred")


@settings(deadline=None, max_examples=50)
@given(names=st.lists(st.text(max_size=8), min_size=2, max_size=5), delimiter=st.sampled_from([",", ";", "\t", " "]))
def test_whatever_columns_are_called_a_schema_is_written(
    names: list[str], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    root.mkdir(exist_ok=True)
    rows = [["time", *names], *([f"{i * 0.1:.1f}", *(f"{i % 3}.5" for _ in names)] for i in range(12))]
    with (root / "log.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    with contextlib.suppress(UsageError):  # a name may hold what parts lines or cells
        parse_schema(infer_schema(root).toml, "inferred")
