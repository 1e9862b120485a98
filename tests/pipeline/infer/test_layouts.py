"""Guesses the episodes and the files of their streams. Each layout is ingested with the inferred schema."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factories import make_dataset, make_jpeg, meca_values
from inferring import ROWS, WAVE, asked, infer_and_ingest, text_of

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema

START_S = 1_700_000_000.0


def table(start_s: float = START_S, step_s: float = 0.02, names: str = "timestamp,joint_1,joint_2") -> str:
    width = names.count(",")
    rows = [[f"{start_s + i * step_s:.6f}", *map(float, WAVE[i, :width])] for i in range(ROWS)]
    return f"{names}\n{text_of(rows)}"


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_meca500_layout_of_the_demo(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "lab")
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert report.num_episodes == 4
    schema = parse_schema(inferred.toml, "inferred")
    assert [stream.name for stream in schema.streams] == ["robot", "sensor_data", "camera"]
    assert schema.anchor_stream.time.sources == ("origin_timestamp",)
    assert '"images/{camera}/*.jpg"' in inferred.toml
    dataset = open_dataset(tmp_path / "out")
    episode = dataset.episode(0)
    assert set(dataset.manifest.streams) == {"robot", "sensor_data", "View1", "View2"}
    values = meca_values(65, 1)
    np.testing.assert_array_equal(episode["robot/joint_position"], values[:, :6])
    np.testing.assert_array_equal(episode["robot/pose"], values[:, 6:])
    assert episode["sensor_data/alines"].shape[1:] == (1025,)
    assert {ep["instruction"] for ep in dataset.episodes.to_pylist()} == {
        "insert the needle into the red target",
        "insert the needle into the blue target",
    }


def test_angles_that_come_round_have_a_period(tmp_path: Path) -> None:
    inferred, _ = infer_and_ingest(make_dataset(tmp_path / "lab", num_rows=200), tmp_path / "out")
    pose = parse_schema(inferred.toml, "inferred").field("robot/pose")
    assert pose.period == (0, 0, 0, 360, 360, 360)
    assert pose.unit[3:] == ("deg", "deg", "deg")


def test_files_in_a_flat_folder_are_episodes(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {f"run_{i:03d}.csv": table(START_S + 100 * i) for i in range(4)})
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert "per_file = true" in inferred.toml
    assert 'files = ["run_*.csv"]' in inferred.toml
    assert report.num_episodes == 4


def test_files_of_any_names_with_the_same_columns_are_episodes(tmp_path: Path) -> None:
    root = write(
        tmp_path / "lab", {f"{n}.csv": table(START_S + 100 * i) for i, n in enumerate(["pick", "place", "pour"])}
    )
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert "per_file = true" in inferred.toml
    assert report.num_episodes == 3


def test_files_of_one_folder_recorded_at_once_are_streams(tmp_path: Path) -> None:
    files = {f"episode_{i}/{side}.csv": table(START_S + 100 * i) for i in range(3) for side in ("left", "right")}
    inferred, report = infer_and_ingest(write(tmp_path / "lab", files), tmp_path / "out")
    assert report.num_episodes == 3
    assert len(parse_schema(inferred.toml, "inferred").streams) == 2


def test_files_of_one_name_in_several_folders_of_an_episode_are_streams(tmp_path: Path) -> None:
    files = {f"ep_{i}/state.csv": table(START_S + 100 * i, names="timestamp,a,b,c,d,e,f,g") for i in range(2)}
    files |= {f"ep_{i}/{side}/imu.csv": table(START_S + 100 * i) for i in range(2) for side in ("left", "right")}
    inferred, report = infer_and_ingest(write(tmp_path / "lab", files), tmp_path / "out")
    assert report.num_episodes == 2
    assert [s.name for s in parse_schema(inferred.toml, "inferred").streams] == ["robot", "imu", "right_imu"]


def test_clock_that_begins_again_cuts_a_file(tmp_path: Path) -> None:
    rows = [[f"{(i % 20) * 0.1:.3f}", *map(float, WAVE[i, :3])] for i in range(ROWS)]
    root = write(tmp_path / "lab", {"all.csv": "time,x,y,z\n" + text_of(rows)})
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert "split_gap_s = " in inferred.toml
    assert report.num_episodes == 2
    np.testing.assert_allclose(open_dataset(tmp_path / "out").episode(1)["robot/timestamp"], np.arange(20) * 0.1)


def test_pause_of_a_clock_is_said_and_left_to_the_user(tmp_path: Path) -> None:
    rows = [[f"{START_S + i * 0.1 + (60 if i >= 20 else 0):.3f}", *map(float, WAVE[i, :3])] for i in range(ROWS)]
    inferred = infer_schema(write(tmp_path / "lab", {"all.csv": "time,x,y,z\n" + text_of(rows)}))
    assert "# the clock jumps by 60.1 s: several recordings? then say split_gap_s" in inferred.toml


def test_streams_of_a_flat_folder_are_joined_by_the_files_name(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    for i in range(3):
        force = table(START_S + 100 * i, 0.01, "timestamp,fx,fy,fz")
        write(
            root,
            {
                f"run{i}.csv": table(START_S + 100 * i, names="timestamp," + ",".join("abcdef")),
                f"run{i}_force.csv": force,
            },
        )
        (root / f"run{i}").mkdir()
        for k in range(5):
            (root / f"run{i}" / f"{START_S + 100 * i + k * 0.1:.3f}.jpg").write_bytes(make_jpeg(10 * i + k))
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert '"{stem}_force.csv"' in inferred.toml
    assert '"{stem}/*.jpg"' in inferred.toml
    assert report.num_episodes == 3


def test_table_in_a_folder_beside_the_cameras(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    for i in range(2):
        episode = write(root / f"ep{i}", {"robot/state.csv": table(START_S + 100 * i)})
        for camera in ("front", "wrist"):
            (episode / "cams" / camera).mkdir(parents=True)
            for k in range(5):
                stamp = round((START_S + 100 * i + k * 0.1) * 1e9)
                (episode / "cams" / camera / f"{stamp}.jpg").write_bytes(make_jpeg(k))
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert 'files = ["robot/state.csv"]' in inferred.toml
    assert 'files = ["cams/{camera}/*.jpg"]' in inferred.toml
    assert report.num_episodes == 2


def test_numbered_images_one_a_row(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {"episode_0/state.csv": table()})
    (root / "episode_0" / "rgb").mkdir()
    for k in range(ROWS):
        (root / "episode_0" / "rgb" / f"frame_{k:06d}.jpg").write_bytes(make_jpeg(k))
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert 'rows_of = "robot"' in inferred.toml
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["align/camera"], np.arange(ROWS))


def test_numbered_images_take_their_times_from_a_table_that_names_them(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {"episode_0/state.csv": table()})
    lines = [f"{k},rgb/{k:06d}.jpg,{START_S + 0.05 * k + 0.003:.6f}" for k in range(12)]
    write(root, {"episode_0/frames.csv": "frame,filename,timestamp\n" + "\n".join(lines) + "\n"})
    (root / "episode_0" / "rgb").mkdir()
    for k in range(12):
        (root / "episode_0" / "rgb" / f"{k:06d}.jpg").write_bytes(make_jpeg(k))
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert 'name_column = "filename"' in inferred.toml
    assert len(parse_schema(inferred.toml, "inferred").streams) == 2
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_allclose(episode["camera/timestamp"], START_S + 0.05 * np.arange(12) + 0.003, atol=1e-6)


def test_rows_and_images_take_their_times_from_files_of_stamps(tmp_path: Path) -> None:
    poses = text_of([list(map(float, WAVE[i, :12])) for i in range(ROWS)], " ")
    stamps = "".join(f"{i * 0.1:.6e}\n" for i in range(ROWS))
    root = write(tmp_path / "lab", {"00/poses.txt": poses, "00/times.txt": stamps})
    for camera in ("image_0", "image_1"):
        (root / "00" / camera / "data").mkdir(parents=True)
        write(root / "00", {f"{camera}/timestamps.txt": "".join(f"{i * 0.2:.6e}\n" for i in range(ROWS // 2))})
        for k in range(ROWS // 2):
            (root / "00" / camera / "data" / f"{k:06d}.jpg").write_bytes(make_jpeg(k))
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert 'file = "times.txt"' in inferred.toml
    assert 'file = "{camera}/timestamps.txt"' in inferred.toml
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_allclose(episode["robot/timestamp"], np.arange(ROWS) * 0.1)
    np.testing.assert_allclose(episode["image_1/timestamp"], np.arange(ROWS // 2) * 0.2)


def test_column_that_some_files_lack_is_optional(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {"episode_0/state.csv": table()})
    write(root, {"episode_1/state.csv": table(START_S + 100, names="timestamp,joint_1,joint_2,gripper")})
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert report.num_episodes == 2
    assert parse_schema(inferred.toml, "inferred").field("robot/gripper").optional


def test_files_without_a_header_of_two_widths(tmp_path: Path) -> None:
    def text(width: int) -> str:
        return text_of([[f"{START_S + i * 0.02:.6f}", *map(float, WAVE[i, :width])] for i in range(ROWS)])

    root = write(tmp_path / "lab", {"episode_0/state.csv": text(6), "episode_1/state.csv": text(12)})
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert report.num_episodes == 2
    assert len(parse_schema(inferred.toml, "inferred").anchor_stream.dialect.names) == 2  # type: ignore[union-attr]


def test_instruction_is_found_in_any_json_of_each_episode(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    for i in range(2):
        meta = json.dumps({"language_instruction": "pour the tea"})
        write(root, {f"episode_{i}/state.csv": table(START_S + 100 * i), f"episode_{i}/info.json": meta})
    infer_and_ingest(root, tmp_path / "out")
    assert open_dataset(tmp_path / "out").episodes["instruction"].to_pylist() == ["pour the tea"] * 2


def test_arrays_alone(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    for i in range(2):
        (root / f"episode_{i}").mkdir(parents=True)
        stamps = np.arange(ROWS, dtype=np.int64) * 10_000_000 + 1_700_000_000_000_000_000
        np.savez(
            root / f"episode_{i}" / "data.npz", time_ns=stamps, qpos=WAVE[:, :6], action=WAVE[:, 6:12], n=np.array(3)
        )
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert report.num_episodes == 2
    assert 'of = ["robot/action"]' in inferred.toml
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["robot/timestamp"], stamps)
    np.testing.assert_array_equal(episode["robot/qpos"], WAVE[:, :6])


def test_array_files_beside_the_table(tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {f"ep_{i}/state.csv": table(START_S + 100 * i) for i in range(2)})
    for i in range(2):
        (root / f"ep_{i}" / "tactile").mkdir()
        np.save(root / f"ep_{i}" / "tactile" / "timestamps.npy", START_S + 100 * i + np.arange(200) * 0.005)
        np.save(root / f"ep_{i}" / "tactile" / "pressure.npy", np.full((200, 4, 4), 0.5, dtype=np.float32))
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert 'files = ["tactile/*.npy"]' in inferred.toml
    assert open_dataset(tmp_path / "out").episode(0)["tactile/pressure"].shape == (200, 4, 4)


def test_tables_of_one_name_and_other_columns_are_streams_of_their_folders(tmp_path: Path) -> None:
    files = {}
    for i in range(2):
        truth = table(START_S + 100 * i, names="#timestamp,px,py,pz,vx,vy,vz")
        imu = table(START_S + 100 * i, 0.005, "#timestamp,wx,wy,wz,ax,ay,az")
        files |= {f"MH_0{i}/mav0/state_groundtruth_estimate0/data.csv": truth, f"MH_0{i}/mav0/imu0/data.csv": imu}
    inferred, report = infer_and_ingest(write(tmp_path / "lab", files), tmp_path / "out")
    assert report.num_episodes == 2
    episode = open_dataset(tmp_path / "out").episode(0)
    names = [s.name for s in parse_schema(inferred.toml, "inferred").streams]
    assert names == ["robot", "imu_0"]
    np.testing.assert_allclose(episode["imu_0/angular_velocity"], WAVE[:, :3], atol=1e-6)


def test_tables_of_like_names_and_unlike_columns_are_not_mixed(tmp_path: Path) -> None:
    files = {"a/a_log.csv": table(), "b/b_log.csv": table(START_S + 100), "c/c_log.csv": "k,l,m\n1,2,3\n2,3,4\n"}
    inferred, report = infer_and_ingest(write(tmp_path / "lab", files), tmp_path / "out")
    assert report.num_episodes == 2
    assert any("c_log.csv" in reason for reason in inferred.reasons)


def test_other_tables_are_named_as_not_read(tmp_path: Path) -> None:
    files = {f"episode_{i}/state.csv": table(START_S + 100 * i) for i in range(3)}
    inferred = infer_schema(write(tmp_path / "lab", {**files, "calibration.csv": "a,b\n1,2\n3,4\n"}))
    assert any("calibration.csv" in reason for reason in inferred.reasons)


@pytest.mark.parametrize("name", ["baxter_rec_0{i}", "walk{i}.mot", "run{i}.lvm"])
def test_text_of_unknown_suffix_is_looked_at_where_no_table_is(name: str, tmp_path: Path) -> None:
    root = write(tmp_path / "lab", {name.format(i=i): table(START_S + 100 * i) for i in range(2)})
    write(root, {"README.md": "a,b\n1,2\n", "setup.json": '{"a": [1, 2]}'})
    (root / "weights.bin").write_bytes(bytes(range(256)) * 20)
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    assert report.num_episodes == 2
    assert any("no table has a usual suffix" in reason for reason in inferred.reasons)


def test_refusal_says_which_suffixes_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "run.bin").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UsageError, match=r"only \.bin.*\.csv.*files = "):
        infer_schema(tmp_path / "lab")


def test_files_of_one_row_are_refused_with_what_to_do(tmp_path: Path) -> None:
    files = {f"oxts/data/{i:010d}.txt": text_of([list(map(float, WAVE[i, :12]))], " ") for i in range(ROWS)}
    with pytest.raises(UsageError, match=r"holds one row.*one_row_a_file = true"):
        infer_schema(write(tmp_path / "lab", files))


def test_table_of_one_row_is_no_stream(tmp_path: Path) -> None:
    files = {f"ep_{i}/state.csv": table(START_S + 100 * i) for i in range(2)}
    files |= {f"ep_{i}/Metadata.csv": "version,recording epoch time,rate\n3,1700000000000,10.5\n" for i in range(2)}
    inferred, _ = infer_and_ingest(write(tmp_path / "lab", files), tmp_path / "out")
    assert [s.name for s in parse_schema(inferred.toml, "inferred").streams] == ["robot"]
    assert any("Metadata.csv: a file of one row" in reason for reason in inferred.reasons)


@pytest.mark.parametrize("files", [{}, {"a.txt": "hello\n"}, {"a.csv": ""}])
def test_folder_without_numbers_is_refused_in_one_line(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    with pytest.raises(UsageError, match="no table of numbers"):
        infer_schema(write(tmp_path / "lab", files))


@pytest.mark.parametrize("header", ["frame,label", "time,label"])
def test_clock_beside_nothing_but_text_is_refused_in_one_line(header: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(header + "\n" + "".join(f"{i},a{i}\n" for i in range(9)))
    with pytest.raises(UsageError, match="no table of numbers"):
        infer_schema(tmp_path)


def test_dump_without_a_clock_begins_with_the_count_beside_it(tmp_path: Path) -> None:
    (tmp_path / "imu.csv").write_text(
        "Packet number,x,y\n" + "".join(f"{115 + i},{i % 3}.5,{i % 2}.5\n" for i in range(99))
    )
    (tmp_path / "registers.csv").write_text("value,gain\n" + "".join(f"{i % 7}.5,{i % 5}.5\n" for i in range(60)))
    assert not infer_schema(tmp_path).faults


@pytest.mark.real
def test_two_joint_log(real: Path, tmp_path: Path) -> None:
    _, report = infer_and_ingest(real / "two_joint", tmp_path / "out")
    lines = (real / "two_joint" / "joint_states.csv").read_text().splitlines()[1:]
    expected = np.array([line.split(",")[1:] for line in lines], dtype=np.float32)
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["robot/joint_position"], expected)
    assert report.num_episodes == 1


@pytest.mark.real
def test_meca500_log(real: Path, tmp_path: Path) -> None:
    inferred, _ = infer_and_ingest(real / "meca500" / "logger_example_traj_file", tmp_path / "out")
    (path,) = (real / "meca500" / "logger_example_traj_file").glob("*.csv")
    lines = path.read_text().splitlines()[1:]
    episode = open_dataset(tmp_path / "out").episode(0)
    stamps = np.array([int(line.split(",")[0]) * 1000 for line in lines])
    np.testing.assert_array_equal(episode["robot/timestamp"], stamps)
    expected = np.array([line.split(",")[1:7] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(episode["robot/cart_pos"], expected)
    assert "period = [0, 0, 0, 360, 360, 360]" in inferred.toml


@pytest.mark.real
def test_robond_log(real: Path, tmp_path: Path) -> None:
    inferred, report = infer_and_ingest(real / "robond", tmp_path / "out")
    assert report.num_episodes == 1
    assert 'of = ["robot/steer_angle", "robot/throttle", "robot/brake"]' in inferred.toml
    lines = (real / "robond" / "test_dataset" / "robot_log.csv").read_text().splitlines()[1:]
    episode = open_dataset(tmp_path / "out").episode(0)
    expected = np.array([line.split(";")[5:7] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(episode["robot/position"], expected)
    np.testing.assert_array_equal(episode["robot/timestamp"], episode["camera/timestamp"])


def test_a_table_from_before_the_recording_is_left_out_and_named(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    for number in (1, 2):
        start_s = START_S + 1000 * number
        files = {
            "robot.csv": table(start_s),
            "calibration.csv": table(start_s - 100, names="timestamp,force_x,force_y"),
            "touch.csv": table(start_s, names="timestamp,left,right"),
        }
        write(root / f"run_{number}", files)
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert set(open_dataset(tmp_path / "out").manifest.streams) == {"robot", "touch"}
    (question,) = inferred.questions
    assert question.startswith(
        "files: the times of calibration.csv lie wholly before or after those of robot: left out"
    )


def test_a_table_that_misses_one_recording_is_a_fault(tmp_path: Path) -> None:
    for number, late_s in ((1, 0), (2, 500)):
        files = {"robot.csv": table(), "touch.csv": table(START_S + late_s, names="timestamp,left,right")}
        write(tmp_path / f"run_{number}", files)
    inferred = infer_schema(tmp_path)
    assert "streams.touch" in inferred.toml
    assert [fault for fault in inferred.faults if "clock.no_overlap" in fault]


def test_a_counter_that_comes_round_cuts_no_episodes(tmp_path: Path) -> None:
    rows = [[(65_000 + 10 * i) % 65_536, float(WAVE[i % ROWS, 0]), float(WAVE[i % ROWS, 1])] for i in range(90)]
    write(tmp_path / "lab", {"arm.csv": "time_ms,joint_1,joint_2\n" + text_of(rows)})
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert (report.num_episodes, asked(inferred, "rows a second")) == (1, {"robot"})
    assert any("'time_ms' counts in 16 bits and begins again: no clock" in reason for reason in inferred.reasons)
    stamps = open_dataset(tmp_path / "out").episode(0)["robot/timestamp"]
    assert (np.diff(stamps) == 10_000_000).all()


def test_a_counter_that_comes_round_is_refused_as_a_clock(tmp_path: Path) -> None:
    rows = [[(65_000 + 10 * i) % 65_536, float(WAVE[i % ROWS, 0])] for i in range(90)]
    write(tmp_path / "lab", {"arm.csv": "time_ms,joint_1\n" + text_of(rows)})
    schema = tmp_path / "mine.toml"
    schema.write_text(
        'schema_version = 1\nname = "x"\nanchor = "robot"\n[streams.robot]\nkind = "csv"\nfiles = ["arm.csv"]\n'
        '[streams.robot.time]\ncolumn = "time_ms"\nunit = "ms"\n[streams.robot.fields.joint]\ncolumns = ["joint_1"]\n'
        '[action]\nkind = "next"\nof = ["robot/joint"]\n'
    )
    report = ingest(IngestConfig(source=tmp_path / "lab", out=tmp_path / "out", schema=str(schema), dry_run=True))
    (reason,) = [r for reject in report.rejects for r in reject["reasons"] if r["severity"] == "error"]
    assert (reason["code"], reason["line"], reason["column"]) == ("clock.backwards", 56, "time_ms")


def test_sensors_of_one_device_are_streams_though_their_columns_are_alike(tmp_path: Path) -> None:
    """A clock since boot, no header: gyro.txt and acce.txt are not two episodes."""
    for name, late_ns in (("gyro", 0), ("acce", 1234)):
        rows = [[98_765_432_101_234 + late_ns + 5_000_000 * i, *map(float, WAVE[i, :3])] for i in range(ROWS)]
        write(tmp_path / "walk", {f"{name}.txt": text_of(rows, " ")})
    _, report = infer_and_ingest(tmp_path / "walk", tmp_path / "out")
    assert report.num_episodes == 1
    assert set(open_dataset(tmp_path / "out").manifest.streams) == {"robot", "gyro"}


def test_stamps_of_a_table_longer_than_what_is_looked_at_are_its_clock(tmp_path: Path) -> None:
    """Poses of 12 numbers a row without a clock, their times in another file, as of a well-known benchmark."""
    poses = "".join(f"{np.sin(i) + 2:.6e} {np.cos(i):.6e} {i % 7 / 8:.6e} {i % 5 / 4:.6e}\n" for i in range(6000))
    times = "".join(f"{i * 0.1037 + (i % 3) * 0.001:.6e}\n" for i in range(6000))
    write(tmp_path / "00", {"poses.txt": poses, "times.txt": times})
    assert len(poses) > 1.1 * (256 << 10)
    inferred, _ = infer_and_ingest(tmp_path / "00", tmp_path / "out")
    assert asked(inferred, "rows a second") == set()
    stamps = open_dataset(tmp_path / "out").episode(0)["robot/timestamp"]
    assert stamps.tolist() == [float(line) for line in times.split()]


def test_labels_called_as_their_recordings_are_no_recordings(tmp_path: Path) -> None:
    files = {}
    for name in ("Suture_B001", "Suture_B002", "Suture_C001"):
        files[f"lab/Suture/kinematics/all/{name}.txt"] = text_of([[*map(float, row)] for row in WAVE])
        files[f"lab/Suture/labels/{name}.txt"] = "1 20 G1\n21 40 G5\n41 60 G2\n"
    inferred, report = infer_and_ingest(write(tmp_path, files) / "lab", tmp_path / "out")
    assert 'files = ["all/Suture_*.txt"]' in inferred.toml
    assert report.num_episodes == 3


def test_a_gripper_that_is_logged_as_a_word_is_state_and_action(tmp_path: Path) -> None:
    header = "timestamp,joint_1,joint_2,gripper_state"
    rows = [
        [f"{START_S + i * 0.02:.6f}", *map(float, WAVE[i, :2]), "open" if i < ROWS // 2 else "closed"]
        for i in range(ROWS)
    ]
    root = write(tmp_path / "lab", {f"episode_{i}/robot.csv": f"{header}\n{text_of(rows)}" for i in range(2)})
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    schema = parse_schema(inferred.toml, "inferred")
    assert schema.action.of == ("robot/joint_position", "robot/gripper_state")
    assert schema.sample.state == schema.action.of
    stored = open_dataset(tmp_path / "out").episode(0)["robot/gripper_state"]
    np.testing.assert_array_equal(stored, [1.0] * (ROWS // 2) + [0.0] * (ROWS // 2))
