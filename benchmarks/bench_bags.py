"""Measures how fast bags are ingested, against what rosbags takes to read and decode the same topics.

One JSON line a case and format:

- ``compressed``: an arm at 500 Hz, commands at 100 Hz, two cameras of JPEG at 30 Hz.
- ``raw``: the same arm and commands, one camera of raw rgb8 at 15 Hz.
- ``joints``: the arm and the commands alone, ten times as long.

A ratio is the baseline's time divided by ours. The baseline is rosbags' ``AnyReader`` on the topics that are wanted,
each message decoded, numbers and images gathered into arrays; it hashes nothing and checks nothing. Ours is reading the
episode as ingest does: hashing, checking of stamps and images, units. ``ingest_s`` is ``vlapipe ingest`` as a whole in
this process, with the shard on disk. CPU times are of all threads, and tell more on a busy machine. Repeats are
interleaved and medians compared. Input is in the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from machine import machine, rounded
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.read.images.image_options import AS_RECORDED
from vlapipe.pipeline.read.streams import read_streams
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import ImageStream

START_NS = 1_700_000_000_000_000_000
FORMATS = {"ros1": "*.bag", "db3": "*.db3", "mcap": "*.mcap", "mcap zstd": "*.mcap"}
CAMERAS = {"compressed": ("left", "right"), "raw": ("left",), "joints": ()}
SCHEMA = """
name = "bench"
anchor = "arm"
action = { kind = "next", of = "arm/q" }
sample = { state = ["arm/q"] }
split = { val = 0.0 }
streams.arm = { kind = "bag", files = ["*"], topic = "/joint_states", time = { array = "header.stamp" }, fields = { q = { array = "position", shape = [7], dtype = "float64" }, v = { array = "velocity", shape = [7], dtype = "float64" } } }
streams.command = { kind = "bag", files = ["*"], topic = "/command", time = { array = "received" }, fields = { q = { array = "data", shape = [7], dtype = "float64" } } }
"""  # noqa: E501 - TOML's inline tables stand on one line
CAMERA = 'streams.{0} = {{ kind = "images", files = ["*"], topic = "/{0}", time = {{ array = "header.stamp" }} }}\n'


def write_bag(folder: Path, form: str, case: str, seconds: float) -> Path:
    """Write one recording, messages in the order of their times."""
    store = get_typestore(Stores.ROS1_NOETIC if form == "ros1" else Stores.ROS2_HUMBLE)
    types, rng = store.types, np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640]
    scene = (100 + 60 * np.sin(columns / 90) + 40 * np.cos(rows / 70))[..., None].repeat(3, axis=2).astype(np.uint8)
    noise = rng.integers(0, 12, (480, 640, 3), dtype=np.uint8)

    def header(stamp: int) -> Any:
        of, at = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
        return of(0, at, "base") if form == "ros1" else of(at, "base")

    def arm(stamp: int) -> Any:
        names = [f"joint_{i}" for i in range(7)]
        return types["sensor_msgs/msg/JointState"](header(stamp), names, *rng.normal(size=(3, 7)))

    def command(_: int) -> Any:
        layout = types["std_msgs/msg/MultiArrayLayout"]([], 0)
        return types["std_msgs/msg/Float64MultiArray"](layout, rng.normal(size=7))

    def picture(stamp: int) -> Any:
        pixels = scene + np.roll(noise, stamp // 10**7 % 40 * 16, axis=1)
        if case == "raw":
            return types["sensor_msgs/msg/Image"](header(stamp), 480, 640, "rgb8", 0, 1920, pixels.ravel())
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
        return types["sensor_msgs/msg/CompressedImage"](header(stamp), "jpeg", np.frombuffer(jpeg, np.uint8))

    image_type = "sensor_msgs/msg/Image" if case == "raw" else "sensor_msgs/msg/CompressedImage"
    kinds: list[tuple[str, str, float, Any]] = [
        ("/joint_states", "sensor_msgs/msg/JointState", 500, arm),
        ("/command", "std_msgs/msg/Float64MultiArray", 100, command),
        *((f"/{name}", image_type, 15 if case == "raw" else 30, picture) for name in CAMERAS[case]),
    ]
    events = sorted(
        (START_NS + int(i * 1e9 / rate), number)
        for number, (_, _, rate, _) in enumerate(kinds)
        for i in range(int(seconds * rate))
    )
    folder.mkdir(parents=True)
    if form == "ros1":
        path, writer = folder / "run.bag", Writer1(folder / "run.bag")
    else:
        path = folder / "run"
        writer = Writer2(path, version=9, storage_plugin=StoragePlugin["SQLITE3" if form == "db3" else "MCAP"])
        if form == "mcap zstd":
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        opened = [writer.add_connection(topic, of, typestore=store) for topic, of, _, _ in kinds]
        for stamp, number in events:
            message, of = kinds[number][3](stamp), kinds[number][1]
            raw = store.serialize_ros1(message, of) if form == "ros1" else store.serialize_cdr(message, of)
            writer.write(opened[number], stamp + 1_000_000, raw)
    return path


def by_rosbags(path: Path) -> int:
    """Read and decode all topics into arrays; the number of bytes gathered."""
    stamps: dict[str, list[int]] = {}
    values: dict[str, list[Any]] = {}
    with AnyReader([path]) as reader:
        for connection, received, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            topic = connection.topic
            if topic == "/joint_states":
                values.setdefault("v", []).append(message.velocity)
            taken = message.data if topic != "/joint_states" else message.position
            values.setdefault(topic, []).append(taken)
            head = getattr(message, "header", None)
            stamp = received if head is None else head.stamp.sec * 10**9 + head.stamp.nanosec
            stamps.setdefault(topic, []).append(stamp)
    gathered = {topic: np.array(each) for topic, each in stamps.items()}
    for topic, each in values.items():
        is_image = topic not in ("/joint_states", "/command", "v")
        gathered[f"{topic} values"] = np.concatenate(each) if is_image else np.array(each)
    return sum(each.nbytes for each in gathered.values())


def by_us(root: Path, schema_text: str) -> int:
    """Read the episode as ingest does; the number of bytes gathered."""
    schema = parse_schema(schema_text, "bench")
    (raw,) = discover(root, schema).episodes
    cameras = {stream.name: (stream.name,) for stream in schema.streams if isinstance(stream, ImageStream)}
    findings = Findings()
    streams = read_streams(root, raw, schema, cameras, findings, AS_RECORDED)
    assert not findings.errors, list(findings)
    return sum(
        rows.timestamp.nbytes
        + (sum(f.nbytes for f in rows.fields.values()) if hasattr(rows, "fields") else rows.data.nbytes)
        for rows in streams.values()
    )


def main() -> None:
    """Print one JSON line a case and format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one recording")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=list(CAMERAS))
    options = parser.parse_args()
    for case in options.cases:
        seconds = options.seconds * (10 if case == "joints" else 1)
        for form, pattern in FORMATS.items():
            with tempfile.TemporaryDirectory() as place:
                root = Path(place) / "raw"
                path = write_bag(root / "episode", form, case, seconds)
                text = SCHEMA + "".join(CAMERA.format(name) for name in CAMERAS[case])
                text = text.replace('"*"', f'"{pattern}"')
                schema = Path(place) / "bench.toml"
                schema.write_text(text)
                times: dict[str, list[float]] = {"rosbags_s": [], "read_s": [], "ingest_s": []}
                times |= {"rosbags_cpu_s": [], "read_cpu_s": []}
                for number in range(options.repeats):
                    begin, cpu = time.perf_counter(), time.process_time()
                    theirs = by_rosbags(path)
                    times["rosbags_s"].append(time.perf_counter() - begin)
                    times["rosbags_cpu_s"].append(time.process_time() - cpu)
                    forget()
                    begin, cpu = time.perf_counter(), time.process_time()
                    ours = by_us(root, text)
                    times["read_s"].append(time.perf_counter() - begin)
                    times["read_cpu_s"].append(time.process_time() - cpu)
                    forget()
                    begin = time.perf_counter()
                    out = Path(place) / f"out{number}"
                    report = ingest(IngestConfig(source=root, out=out, schema=str(schema)))
                    times["ingest_s"].append(time.perf_counter() - begin)
                    assert report.num_episodes == 1, report.rejects
                    assert theirs == ours, (theirs, ours)
                num_bytes = sum(each.stat().st_size for each in root.rglob("*") if each.is_file())
            median = {name: statistics.median(each) for name, each in times.items()}
            line = {
                "case": case,
                "format": form,
                "mb": num_bytes / 1e6,
                **median,
                "ratio_read": median["rosbags_s"] / median["read_s"],
                "ratio_read_cpu": median["rosbags_cpu_s"] / median["read_cpu_s"],
                "ratio_ingest": median["rosbags_s"] / median["ingest_s"],
                "repeats": options.repeats,
                **machine(),
            }
            sys.stdout.write(json.dumps({name: rounded(value) for name, value in line.items()}) + "\n")
            sys.stdout.flush()


def forget() -> None:
    """Forget digests of files, so that each repeat hashes."""
    from vlapipe.pipeline.read.containers import arrays

    arrays._digest.cache_clear()


if __name__ == "__main__":
    main()
