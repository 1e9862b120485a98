"""Makes datasets from arrays through ingest's own writers.

Gigabytes of states take a hundredth of the time that printing them as CSV would take. Episodes have about 1000 rows at
100 Hz. Shards, episodes table and manifest are as ingest makes them. Only the statistics cover just the first shard,
since no benchmark uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from bench_ingest import CAMERA, SCHEMA
from numpy.typing import NDArray

from vlapipe.pipeline.build.commit import manifest_of
from vlapipe.pipeline.build.record import ShardRecord
from vlapipe.pipeline.build.records import Records
from vlapipe.pipeline.change.first import write_first
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.plan.plan import Plan
from vlapipe.pipeline.read.episode import Episode
from vlapipe.pipeline.read.images.image_options import AS_RECORDED
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW
from vlapipe.pipeline.shards.derive.rows_in_time import action_rows, last_row_at_or_before
from vlapipe.pipeline.shards.format.codec import parse_codec
from vlapipe.pipeline.shards.format.joined import Joined
from vlapipe.pipeline.shards.format.shard_file import write_shard
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import Schema

__all__ = [
    "ONE_TABLE",
    "ROBOT",
    "ROBOT_AND_CAMERAS",
    "ROBOT_AND_SENSOR",
    "SHARD_BYTES",
    "THREE_TABLES",
    "make_episodes",
    "write_dataset",
]

ROWS = 1000  # rows of an episode, give or take a tenth
SENSOR_HZ = 650
ALINE = 1025  # columns of the sensor's field aline; its field force has one
SHARD_BYTES = 256_000_000  # ingest's default, counted before compression
ROBOT = SCHEMA
ROBOT_AND_CAMERAS = SCHEMA.replace("[action]", f"{CAMERA}[action]")
SENSOR = f"""
[streams.sensor]
kind = "npz"
files = ["sensor_data.npz"]
rate_hz = {SENSOR_HZ}
[streams.sensor.time]
array = "timestamps"
unit = "s"
[streams.sensor.fields.force]
array = "forces"
unit = "N"
[streams.sensor.fields.aline]
array = "alines"
shape = [{ALINE}]
"""
ROBOT_AND_SENSOR = (
    SCHEMA.replace("[action]", f"{SENSOR}[action]")
    + 'sensor_rows = 65\nsensors = { force = "sensor/force", aline = "sensor/aline" }\n'
)


_TABLE = """
[streams.{0}]
kind = "csv"
files = ["{0}.csv"]
rate_hz = 100
time = {{ column = "t" }}
fields = {{ q = {{ columns = ["q_{{1..4}}"] }} }}
"""
THREE_TABLES = f"""
schema_version = 1
name = "three_tables"
{"".join(_TABLE.format(name) for name in ("robot", "left", "right"))}
[action]
kind = "delta"
of = ["robot/q", "left/q", "right/q"]
period_s = 0.1
tolerance_s = 0.02
[sample]
state = ["robot/q", "left/q", "right/q"]
state_rows = 100
action_rows = 8
action_stride = 10
"""
ONE_TABLE = ROBOT.replace('of = ["robot/tcp_pose"]', 'of = ["robot/joint_position", "robot/tcp_pose"]').replace(
    "append = { gripper = 1.0 }\n", ""
)


def rows_of(number: int) -> int:
    """Return the number of rows of an episode. Neighbouring episodes differ, as in recordings."""
    return ROWS + (37 * number) % 201 - 100


def make_episodes(toml: str, num_rows: int) -> Iterator[Episode]:
    """Yield episodes of the schema until they have ``num_rows`` rows of the robot in all."""
    schema = parse_schema(toml, "bench")
    made = number = 0
    while made < num_rows:
        yield _episode(schema, number)
        made += rows_of(number)
        number += 1


def _episode(schema: Schema, number: int) -> Episode:
    rows = rows_of(number)
    clock = 1.7e9 + 1000.0 * number + np.arange(rows) * 0.01
    offset = np.linspace(-20, 20, 12, dtype=np.float32) + np.float32(number % 1009) / 32
    states = _motions()[number % len(_motions())][:rows] + offset
    # The CSV reader returns column-major fields.
    fields = {"joint_position": np.asfortranarray(states[:, :6]), "tcp_pose": np.asfortranarray(states[:, 6:])}
    streams = {"robot": StreamRows(timestamp=clock, fields=fields, source=_source(number, "robot_states.csv"))}
    names = [stream.name for stream in schema.streams]
    if "sensor" in names:
        streams["sensor"] = _sensor(number, clock[0], rows * SENSOR_HZ // 100)
    if "left" in names:
        streams = dict(_in_three_tables(streams["robot"], number))
    others = {name: stream.timestamp for name, stream in streams.items() if name != "robot"}
    align = {name: last_row_at_or_before(clock, theirs) for name, theirs in others.items()}
    action_row = action_rows(clock, schema)
    task = f"insert_the_needle_{number % 4}"
    return Episode(
        raw=RawEpisode(
            id=f"{task}/episode_20260101_{number:06d}",
            task=task,
            folder=f"{task}/episode_20260101_{number:06d}",
            files={},
            cameras={},
            metadata=None,
            instruction_file=None,
        ),
        instructions=(task.replace("_", " "),),
        metadata={},
        streams={**streams},
        looks={},
        align=align,
        gaps=dict.fromkeys(streams, np.empty(0, dtype=np.int32)),
        max_gaps_s=dict.fromkeys(streams),
        action_row=action_row,
        frame_start=0,
        num_frames=int(np.flatnonzero(action_row >= 0)[-1]) + 1,
    )


def _in_three_tables(robot: StreamRows, number: int) -> Iterator[tuple[str, StreamRows]]:
    """Yield the same columns as three tables, four columns each, whose clocks are 3 ms apart."""
    columns = np.concatenate([robot.fields["joint_position"], robot.fields["tcp_pose"]], axis=1)
    for i, name in enumerate(("robot", "left", "right")):
        values = {"q": np.asfortranarray(columns[:, 4 * i : 4 * i + 4])}
        clock = robot.timestamp - 0.003 * i
        yield name, StreamRows(timestamp=clock, fields=values, source=_source(number, f"{name}.csv"))


def _source(number: int, file: str) -> SourceFile:
    return SourceFile(path=f"task/episode_{number}/{file}", num_files=1, num_bytes=280_000, sha256=f"{number:064x}")


def _sensor(number: int, start_s: float, rows: int) -> StreamRows:
    values = _alines()[number % 1000 :][:rows]
    fields = {"force": values[:, 0], "aline": values}
    clock = start_s + np.arange(rows) / SENSOR_HZ
    return StreamRows(timestamp=clock, fields=fields, source=_source(number, "sensor_data.npz"))


@cache
def _motions() -> list[NDArray[np.float32]]:
    """Return smooth motions with a little noise, ``(rows, 12)`` each."""
    rng = np.random.default_rng(0)
    time_s = np.arange(2 * ROWS)[:, None] * 0.01
    hz, reach, phase = rng.uniform(0.02, 0.2, (16, 12)), rng.uniform(2, 25, (16, 12)), rng.uniform(0, 6, (16, 12))
    motions = reach[:, None] * np.sin(2 * np.pi * hz[:, None] * time_s + phase[:, None])
    return list((motions + rng.normal(0, 1e-3, motions.shape)).astype(np.float32))


@cache
def _alines() -> NDArray[np.float32]:
    """Return values as from a 12-bit converter."""
    rng = np.random.default_rng(1)
    rows = 2 * ROWS * SENSOR_HZ // 100
    return (rng.integers(0, 4096, (rows, ALINE), dtype=np.int16) / np.float32(4096)).astype(np.float32)


def write_dataset(folder: Path, toml: str, episodes: Iterable[Episode], *, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write Zarr shards and their manifest. A folder that has a manifest is left as it is."""
    if (folder / "manifest.json").exists():
        return folder
    schema = parse_schema(toml, "bench")
    (folder / SHARD_FOLDER).mkdir(parents=True)
    chosen = parse_codec(None, "zarr")
    records = Records()
    for group in _shards(episodes, shard_bytes):
        described = ShardRecord(schema)
        for episode in group:
            described.add(episode, "train")
        stored = write_shard(
            folder / SHARD_FOLDER, len(records), _join(group), shard_format="zarr", codec=chosen, num_threads=2
        )
        statistics = {} if records else described.statistics(2)
        records.add(
            {"index": len(records), "shard": vars(stored), "episodes": described.rows, "statistics": statistics}
        )
    plan = Plan(root=folder, schema=schema, cameras={}, images=AS_RECORDED, shards=())
    manifest = manifest_of(plan, records.rows, shard_format="zarr", codec=str(chosen))
    write_first(folder, manifest, records, [], [], schema)
    return folder


def _shards(episodes: Iterable[Episode], shard_bytes: int) -> Iterator[list[Episode]]:
    group: list[Episode] = []
    filled = 0
    for episode in episodes:
        size = sum(values.nbytes for values in episode.fields().values())
        if group and filled + size > shard_bytes:
            yield group
            group, filled = [], 0
        group.append(episode)
        filled += size
    if group:
        yield group


def _join(episodes: list[Episode]) -> dict[str, Joined]:
    arrays = {}
    for stream in episodes[0].streams:
        arrays[f"{stream}/timestamp"] = Joined([episode.streams[stream].timestamp for episode in episodes])
    for path in episodes[0].fields():
        arrays[path] = Joined([episode.fields()[path] for episode in episodes])
    for stream in episodes[0].align:
        arrays[f"align/{stream}"] = Joined([episode.align[stream] for episode in episodes])
    arrays[ACTION_ROW] = Joined([episode.action_row for episode in episodes])
    return arrays
