"""Every value of a bag equals what rosbags and mcap read by themselves, whatever wrote the bag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_writing import (
    COLOUR,
    COMMANDS,
    DEPTH,
    JOINTS,
    POSES,
    START_NS,
    STATES,
    WAYS,
    Sent,
    header,
    joint_state,
    robot,
    store_of,
    write_json,
    write_mcap,
    write_ros1,
    write_ros2,
)
from mcap.reader import make_reader
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vlapipe.pipeline.read.bags.together import read_together
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.schemas.findings import Findings


def files_of(root: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob(pattern))


def load(root: Path, files: list[str], topic: str, *paths: str) -> list[NDArray[Any]]:
    findings = Findings()
    with open_container(root, files, findings, kind="bag", base=topic) as opened:
        assert opened is not None, list(findings)
        loaded = [opened.load_any(path) for path in paths]
    assert not list(findings)
    return loaded


def by_libraries(path: Path, ros: int) -> Iterator[tuple[str, int, Any]]:
    """Topic, time of receipt, and message, in the order of receipt; read without any code of ours."""
    if path.suffix == ".mcap" and path.name == "run.mcap":
        store = store_of(ros)
        with path.open("rb") as file:
            for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
                assert schema is not None
                name = schema.name if "/msg/" in schema.name else schema.name.replace("/", "/msg/")
                read = store.deserialize_ros1 if ros == 1 else store.deserialize_cdr
                yield channel.topic, message.log_time, read(message.data, name)
        return
    with AnyReader([path if ros == 1 else path.parent]) as reader:
        for connection, received, raw in reader.messages():
            yield connection.topic, received, reader.deserialize(raw, connection.msgtype)


@pytest.mark.parametrize("way", WAYS)
def test_values_equal_those_of_the_libraries(tmp_path: Path, way: str) -> None:
    ros, pattern, write = WAYS[way]
    store = store_of(ros)
    write(tmp_path / "ep", list(robot(store, num_rows=23)), store)
    files = files_of(tmp_path, pattern)
    read = list(by_libraries(tmp_path / files[0], ros))
    assert len(read) == 3 * 23 + 2 * 5

    def each(topic: str) -> list[tuple[int, Any]]:
        return [(received, message) for name, received, message in read if name == topic]

    def same(topic: str, path: str, expected: list[Any]) -> None:
        (loaded,) = load(tmp_path, files, topic, path)
        assert loaded.dtype == np.array(expected).dtype
        assert np.array_equal(loaded, np.array(expected)), path

    def stamp(message: Any) -> int:
        return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)

    same(STATES, "received", [received for received, _ in each(STATES)])
    same(STATES, "header.stamp", [stamp(message) for _, message in each(STATES)])
    same(STATES, "position", [message.position for _, message in each(STATES)])
    same(STATES, "velocity[1]", [message.velocity[1] for _, message in each(STATES)])
    same(STATES, "position[wrist, shoulder]", [message.position[[2, 0]] for _, message in each(STATES)])
    same(STATES, "name", [message.name for _, message in each(STATES)])
    same(STATES, "header.frame_id", [message.header.frame_id for _, message in each(STATES)])
    same(COMMANDS, "data", [message.data for _, message in each(COMMANDS)])
    poses = [message.pose for _, message in each(POSES)]
    same(POSES, "pose.position.y", [pose.position.y for pose in poses])
    same(POSES, "pose.position", [[pose.position.x, pose.position.y, pose.position.z] for pose in poses])
    turns = [[pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w] for pose in poses]
    same(POSES, "pose.orientation", turns)
    whole = [[p.position.x, p.position.y, p.position.z, *turn] for p, turn in zip(poses, turns, strict=True)]
    same(POSES, "pose", whole)
    same(DEPTH, "header.stamp", [stamp(message) for _, message in each(DEPTH)])
    same(DEPTH, "step", [np.uint32(message.step) for _, message in each(DEPTH)])
    same(COLOUR, "format", [message.format for _, message in each(COLOUR)])


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_splits_of_a_bag_are_one_recording_in_the_order_of_receipt(tmp_path: Path, storage: str) -> None:
    store = store_of(2)
    sent = [each for each in robot(store, num_rows=120) if each.topic == STATES]
    for split in (0, 1, 11):  # 11 comes after 1, not between 1 and 2
        rows = {0: slice(0, 40), 1: slice(40, 80), 11: slice(80, None)}[split]
        write_ros2(tmp_path / f"bag_{split}", sent[rows], store, storage=storage)
    files = [f for pattern in ("*.db3", "*.mcap") for f in files_of(tmp_path, pattern)]
    (received,) = load(tmp_path, files, STATES, "received")
    assert received.tolist() == [each.received for each in sent]


def test_messages_that_were_written_out_of_order_stand_in_the_order_of_receipt(tmp_path: Path) -> None:
    store = store_of(2)
    sent = [each for each in robot(store) if each.topic == STATES]
    write_mcap(tmp_path / "run.mcap", sent[::-1], store)
    stamps, position = load(tmp_path, ["run.mcap"], STATES, "header.stamp", "position")
    assert (np.diff(stamps) > 0).all()
    assert np.array_equal(position, [each.message.position for each in sent])


def test_joints_are_found_by_name_when_messages_order_them_differently(tmp_path: Path) -> None:
    store = store_of(2)
    names = [("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a")]
    sent = [
        Sent(
            STATES, START_NS + row, joint_state(store, START_NS + row, names[row % 3], [ord(n) for n in names[row % 3]])
        )
        for row in range(30)
    ]
    write_ros2(tmp_path / "ep", sent, store)
    (picked, raw) = load(tmp_path, ["ep/ep.db3"], STATES, "position[c, a]", "position")
    assert (picked == [ord("c"), ord("a")]).all()
    assert not (raw == raw[0]).all()


def test_joint_that_a_message_lacks_is_not_a_number_there(tmp_path: Path) -> None:
    """Two drivers publish on one topic, as an arm and its gripper do."""
    store = store_of(2)
    sent = []
    for row in range(20):
        at = START_NS + row * 1000
        sent.append(Sent(STATES, at, joint_state(store, at, ("arm1", "arm2"), [row, -row])))
        sent.append(Sent(STATES, at + 5, joint_state(store, at + 5, ("finger",), [row / 100])))
    write_ros2(tmp_path / "ep", sent, store)
    arm, finger = load(tmp_path, ["ep/ep.db3"], STATES, "position[arm1, arm2]", "position[finger]")
    assert np.array_equal(arm[::2], [[row, -row] for row in range(20)])
    assert np.isnan(arm[1::2]).all()
    assert finger.shape == (40,)
    assert np.array_equal(finger[1::2], np.arange(20) / 100)


CUSTOM = "uint8 mode\nfloat64[3] force\nlab/Finger[2] fingers\nlab/Finger[] more\nduration age\nint16 last\n"
FINGER = "bool closed\nfloat32 width\nstring label\n"


@pytest.mark.parametrize("ros", [1, 2])
def test_custom_types_are_read_by_the_definitions_in_the_bag(tmp_path: Path, ros: int) -> None:
    store = get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.ROS2_HUMBLE)
    text = CUSTOM if ros == 1 else CUSTOM.replace("duration", "builtin_interfaces/Duration")
    store.register(get_types_from_msg(text, "lab/msg/Hand"))
    store.register(get_types_from_msg(FINGER, "lab/msg/Finger"))
    hand, finger, span = (
        store.types[f"{n}"] for n in ("lab/msg/Hand", "lab/msg/Finger", "builtin_interfaces/msg/Duration")
    )
    sent = []
    for row in range(12):
        ours = [finger(row % 2 == 0, i + row / 8, "x" * (row % 3)) for i in range(4)]
        force = np.arange(3.0) + row
        sent.append(Sent("/hand", START_NS + row, hand(row, force, ours[:2], ours[2:], span(-row, 5), -row)))
    if ros == 1:
        write_ros1(tmp_path / "run.bag", sent, store)
    else:
        write_ros2(tmp_path / "run.bag", sent, store)
    files = ["run.bag"] if ros == 1 else ["run.bag/run.bag.db3"]
    paths = ("mode", "force", "fingers[1].width", "more[0].width", "more[1].closed", "age", "last")
    mode, force, width, more, closed, age, last = load(tmp_path, files, "/hand", *paths)
    rows = np.arange(12)
    assert np.array_equal(mode, rows)
    assert mode.dtype == np.uint8
    assert np.array_equal(force, rows[:, None] + np.arange(3.0))
    assert np.array_equal(width, (1 + rows / 8).astype(np.float32))
    assert np.array_equal(more, (2 + rows / 8).astype(np.float32))
    assert np.array_equal(closed, rows % 2 == 0)
    assert np.array_equal(age, -rows * 10**9 + 5)
    assert np.array_equal(last, -rows)


def test_messages_of_json_have_the_same_paths(tmp_path: Path) -> None:
    sent = [
        ("/arm", START_NS + row, {
            "stamp": {"sec": 7, "nsec": row}, "name": ["b", "a"] if row % 2 else ["a", "b"], "position": [row, -row],
            "pose": {"x": row / 2, "y": 1.0}, "mode": "run",
        })
        for row in range(10)
    ]  # fmt: skip
    write_json(tmp_path / "run.mcap", sent)
    stamp, position, a, pose, mode, one = load(
        tmp_path, ["run.mcap"], "/arm", "stamp", "position", "position[a]", "pose", "mode", "position[1]"
    )
    rows = np.arange(10)
    assert np.array_equal(stamp, 7 * 10**9 + rows)
    assert np.array_equal(position, np.stack([rows, -rows], axis=1))
    assert np.array_equal(a, np.where(rows % 2, -rows, rows))
    assert np.array_equal(pose, np.stack([rows / 2, np.ones(10)], axis=1))
    assert mode.tolist() == ["run"] * 10
    assert np.array_equal(one, -rows)


def test_streams_of_an_episode_read_a_bag_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(2)
    write_mcap(tmp_path / "run.mcap", list(robot(store)), store)
    opened: list[Path] = []
    open_before = Path.open

    def counted(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(self)
        return open_before(self, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    topics = [STATES, COMMANDS, POSES]
    with read_together([(["run.mcap"], topic) for topic in topics]):
        for topic in topics:
            load(tmp_path, ["run.mcap"], topic, "received")
    assert len(opened) == 2  # once for the digest, once for the messages


def test_wrong_paths_name_what_there_is(tmp_path: Path) -> None:
    store = store_of(2)
    write_mcap(tmp_path / "run.mcap", list(robot(store)), store)
    cases = {
        (STATES, "postion"): ("npz.missing_array", "did you mean 'position'?"),
        (STATES, "position[knee]"): ("bag.path", f"only {', '.join(sorted(JOINTS))}"),
        (STATES, "position[7]"): ("bag.message", "3 in message 0 "),
        (POSES, "pose.position.w"): ("npz.missing_array", "did you mean 'pose.position"),
        (POSES, "header"): ("bag.path", "a time in header.stamp"),
        (COMMANDS, "data[a]"): ("bag.path", "none in std_msgs/msg/Float64MultiArray"),
    }
    for (topic, path), (code, found) in cases.items():
        findings = Findings()
        with open_container(tmp_path, ["run.mcap"], findings, kind="bag", base=topic) as arrays:
            assert arrays is not None
            name = arrays.find((path,), findings)
            assert name is None or arrays.load(name, findings) is None
        (finding,) = findings
        assert finding.code == code, finding
        assert found in finding.found, finding
        assert finding.file == "run.mcap"


def test_array_of_another_length_is_refused_with_the_message(tmp_path: Path) -> None:
    store = store_of(2)
    sent = [
        Sent(STATES, START_NS + r, joint_state(store, r, JOINTS[: 3 - (r == 7)], [0.0] * (3 - (r == 7))))
        for r in range(9)
    ]
    write_ros2(tmp_path / "ep", sent, store)
    findings = Findings()
    with open_container(tmp_path, ["ep/ep.db3"], findings, kind="bag", base=STATES) as arrays:
        assert arrays is not None
        assert arrays.load("position", findings) is None
    (finding,) = findings
    assert (finding.code, finding.file, finding.column) == ("bag.message", "ep/ep.db3", "position")
    assert finding.expected == "3 values of position, as before"
    assert finding.found == "2 in message 7 (received at 1700000000.000000 s)"


def test_missing_topic_lists_topics_with_types_and_counts(tmp_path: Path) -> None:
    store = store_of(2)
    write_ros2(tmp_path / "ep", list(robot(store)), store)
    findings = Findings()
    with open_container(tmp_path, ["ep/ep.db3"], findings, kind="bag", base="/joint_state") as arrays:
        assert arrays is None
    (finding,) = findings
    assert finding.code == "bag.missing_topic"
    assert finding.found == (
        "did you mean '/joint_states'? The bag has /cam/color/compressed (sensor_msgs/msg/CompressedImage, 12), "
        "/cam/depth (sensor_msgs/msg/Image, 12), /command (std_msgs/msg/Float64MultiArray, 60), "
        "/joint_states (sensor_msgs/msg/JointState, 60), /tool (geometry_msgs/msg/PoseStamped, 60)"
    )


def test_transforms_between_frames_are_refused(tmp_path: Path) -> None:
    store = store_of(2)
    types = store.types
    move = types["geometry_msgs/msg/Transform"](
        types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0), types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    )
    one = types["geometry_msgs/msg/TransformStamped"](header(store, 0), "tool", move)
    write_ros2(tmp_path / "ep", [Sent("/tf", START_NS, types["tf2_msgs/msg/TFMessage"]([one]))], store)
    findings = Findings()
    with open_container(tmp_path, ["ep/ep.db3"], findings, kind="bag", base="/tf") as arrays:
        assert arrays is None
    assert [finding.code for finding in findings] == ["bag.type"]
