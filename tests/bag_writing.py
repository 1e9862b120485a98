"""Writes small bags by the writers of rosbags and mcap: a robot with joints, a camera, a depth camera, and commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from factories import make_jpeg
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

START_NS = 1_700_000_000_000_000_000
JOINTS = ("shoulder", "elbow", "wrist")
STATES, COMMANDS, COLOUR, DEPTH, POSES = "/joint_states", "/command", "/cam/color/compressed", "/cam/depth", "/tool"
TYPES = {
    STATES: "sensor_msgs/msg/JointState",
    COMMANDS: "std_msgs/msg/Float64MultiArray",
    COLOUR: "sensor_msgs/msg/CompressedImage",
    DEPTH: "sensor_msgs/msg/Image",
    POSES: "geometry_msgs/msg/PoseStamped",
}
DEFAULT = {"structure_needs_at_least_one_member": 0}


@dataclass(frozen=True)
class Sent:
    """A message: its topic, when it was received, and its content as the typestore has it."""

    topic: str
    received: int
    message: Any


def store_of(ros: int) -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.ROS2_HUMBLE)


def header(store: Typestore, stamp: int) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
    of = store.types["std_msgs/msg/Header"]
    return of(0, time, "base") if "seq" in of.__dataclass_fields__ else of(time, "base")  # type: ignore[attr-defined]


def joint_state(store: Typestore, stamp: int, names: tuple[str, ...], values: Any) -> Any:
    position = np.asarray(values, dtype=np.float64)
    return store.types[TYPES[STATES]](header(store, stamp), list(names), position, position * 2, np.zeros(0))


def image(store: Typestore, stamp: int, pixels: Any, encoding: str, *, padding: int = 0, big: int = 0) -> Any:
    """A raw image of ``(height, width, ...)`` pixels; ``padding`` bytes follow each row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    step = rows.shape[1] + padding
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=99).ravel()
    of = store.types[TYPES[DEPTH]]
    return of(header(store, stamp), len(pixels), len(pixels[0]), encoding, big, step, data)


def compressed(store: Typestore, stamp: int, data: bytes, form: str = "jpeg") -> Any:
    return store.types[TYPES[COLOUR]](header(store, stamp), form, np.frombuffer(data, dtype=np.uint8))


def robot(store: Typestore, *, num_rows: int = 60, seed: int = 0, start: int = START_NS) -> Iterator[Sent]:
    """A recording of 60 rows at 50 Hz, images at 10 Hz; messages are received 1 to 3 ms after their stamps."""
    rng = np.random.default_rng(seed)
    layout = store.types["std_msgs/msg/MultiArrayLayout"]([], 0)
    for row in range(num_rows):
        stamp = start + row * 20_000_000
        late = stamp + int(rng.integers(1_000_000, 3_000_000))
        values = np.sin(np.arange(3) + row / 10 + seed)
        yield Sent(STATES, late, joint_state(store, stamp, JOINTS, values))
        yield Sent(COMMANDS, late + 10, store.types[TYPES[COMMANDS]](layout, values + 0.01))
        point, turn = store.types["geometry_msgs/msg/Point"], store.types["geometry_msgs/msg/Quaternion"]
        pose = store.types["geometry_msgs/msg/Pose"](point(*values.tolist()), turn(0.0, 0.0, 0.0, 1.0))
        yield Sent(POSES, late + 15, store.types[TYPES[POSES]](header(store, stamp), pose))
        if row % 5 == 0:
            yield Sent(COLOUR, late + 20, compressed(store, stamp, make_jpeg(seed * 1000 + row)))
            depth = rng.integers(0, 5000, (24, 32), dtype=np.uint16)
            yield Sent(DEPTH, late + 30, image(store, stamp, depth, "16UC1", padding=6))


def write_ros1(path: Path, sent: list[Sent], store: Typestore, *, compression: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer1(path)
    if compression:
        writer.set_compression(Writer1.CompressionFormat[compression])
    with writer:
        opened: dict[str, Any] = {}
        for each in sent:
            of = each.message.__msgtype__
            if each.topic not in opened:
                opened[each.topic] = writer.add_connection(each.topic, of, typestore=store)
            writer.write(opened[each.topic], each.received, store.serialize_ros1(each.message, of))
    return path


def write_ros2(
    folder: Path,
    sent: list[Sent],
    store: Typestore,
    *,
    storage: str = "SQLITE3",
    compression: str | None = None,
    little: bool = True,
) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer2(folder, version=9, storage_plugin=StoragePlugin[storage])
    if compression:
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        opened: dict[str, Any] = {}
        for each in sent:
            of = each.message.__msgtype__
            if each.topic not in opened:
                opened[each.topic] = writer.add_connection(each.topic, of, typestore=store)
            raw = store.serialize_cdr(each.message, of, little_endian=little)
            writer.write(opened[each.topic], each.received, raw)
    return folder


def write_mcap(
    path: Path,
    sent: list[Sent],
    store: Typestore,
    *,
    ros: int = 2,
    compression: CompressionType = CompressionType.ZSTD,
    chunked: bool = True,
) -> Path:
    """Writes by mcap's own writer, as other recorders do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=4096, compression=compression, use_chunking=chunked)
        writer.start("ros1" if ros == 1 else "ros2")
        channels: dict[str, int] = {}
        for each in sent:
            of = each.message.__msgtype__
            if each.topic not in channels:
                text, _ = store.generate_msgdef(of, ros_version=ros)
                name = of.replace("/msg/", "/") if ros == 1 else of
                schema = writer.register_schema(name, "ros1msg" if ros == 1 else "ros2msg", text.encode())
                channels[each.topic] = writer.register_channel(each.topic, "ros1" if ros == 1 else "cdr", schema)
            raw = store.serialize_ros1(each.message, of) if ros == 1 else store.serialize_cdr(each.message, of)
            writer.add_message(channels[each.topic], each.received, bytes(raw), each.received - 5)
        writer.finish()
    return path


def write_json(path: Path, sent: list[tuple[str, int, Any]]) -> Path:
    """Writes an MCAP file whose messages are JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        channels: dict[str, int] = {}
        for topic, received, message in sent:
            if topic not in channels:
                schema = writer.register_schema(f"of{topic}", "jsonschema", b'{"type": "object"}')
                channels[topic] = writer.register_channel(topic, "json", schema)
            writer.add_message(channels[topic], received, json.dumps(message).encode(), received)
        writer.finish()
    return path


# Each way to write a bag: the ROS version, the pattern of the files, and the writer of the folder of one episode.
Write = Callable[[Path, list[Sent], Typestore], Path]
WAYS: dict[str, tuple[int, str, Write]] = {
    "ros1": (1, "*.bag", lambda f, sent, store: write_ros1(f / "run.bag", sent, store)),
    "ros1 bz2": (1, "*.bag", lambda f, sent, store: write_ros1(f / "run.bag", sent, store, compression="BZ2")),
    "ros1 lz4": (1, "*.bag", lambda f, sent, store: write_ros1(f / "run.bag", sent, store, compression="LZ4")),
    "ros2 db3": (2, "*.db3", write_ros2),
    "ros2 db3 big-endian": (2, "*.db3", lambda f, sent, store: write_ros2(f, sent, store, little=False)),
    "ros2 db3 messages": (2, "*.db3", lambda f, sent, store: write_ros2(f, sent, store, compression="MESSAGE")),
    "ros2 db3 file": (2, "*.db3.zstd", lambda f, sent, store: write_ros2(f, sent, store, compression="FILE")),
    "ros2 mcap": (2, "*.mcap", lambda f, sent, store: write_ros2(f, sent, store, storage="MCAP")),
    "ros2 mcap zstd": (
        2,
        "*.mcap",
        lambda f, sent, store: write_ros2(f, sent, store, storage="MCAP", compression="STORAGE"),
    ),
    "mcap": (2, "*.mcap", lambda f, sent, store: write_mcap(f / "run.mcap", sent, store)),
    "mcap lz4": (
        2,
        "*.mcap",
        lambda f, sent, store: write_mcap(f / "run.mcap", sent, store, compression=CompressionType.LZ4),
    ),
    "mcap without chunks": (
        2,
        "*.mcap",
        lambda f, sent, store: write_mcap(f / "run.mcap", sent, store, chunked=False),
    ),
    "mcap of ros1": (1, "*.mcap", lambda f, sent, store: write_mcap(f / "run.mcap", sent, store, ros=1)),
}
