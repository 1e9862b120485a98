"""Makes small datasets that differ in one thing or another, for tests of joining them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset

SCHEMA = """
name = "bench"
anchor = "robot"
[episodes]
folders = ["ep_*"]
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["robot.csv"]
max_gap_s = 1.0
time = { column = "t" }
fields = { joint = { columns = ["a", "b"], unit = "rad" }, grip = { columns = ["g"], unit = "m" } }
[streams.wrench]
kind = "csv"
files = ["ft.csv"]
max_gap_s = 1.0
time = { column = "t" }
fields = { newton = { columns = ["x", "y", "z"], unit = "N" } }
[action]
kind = "delta"
of = ["robot/joint"]
period_s = 0.1
append = { gripper = { field = "robot/grip", threshold = 0.02, above = 1, below = 0 } }
[sample]
state = ["robot/joint", "robot/grip"]
sensors = { force = "wrench/newton" }
state_rows = 3
sensor_rows = 4
action_rows = 5
action_stride = 2
"""
RENAMED = {"streams.robot": "streams.arm", '"robot/': '"arm/', '"robot"': '"arm"', "wrench": "ft"}


def make(
    root: Path,
    *,
    edits: dict[str, str] | None = None,
    rate_hz: float = 50,
    sensor_hz: float = 100,
    scaled: dict[str, tuple[float, float]] | None = None,
    **ingest_options: Any,
) -> Dataset:
    """Two episodes; each column is the time in seconds, and the schema's text is edited.

    ``scaled`` columns are the time multiplied by a factor, plus an offset.
    """
    text = SCHEMA
    for old, new in (edits or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    for i in range(2):
        folder = root / "raw" / f"ep_{i}"
        folder.mkdir(parents=True)
        for name, header, rate in (("robot", "t,a,b,g", rate_hz), ("ft", "t,x,y,z", sensor_hz)):
            clock = np.arange(int(rate * (3 + i))) / rate
            if name == "ft":
                clock = np.delete(clock, np.flatnonzero((clock > 1) & (clock < 2.2)))  # a gap that no window may cross
            by = [(scaled or {}).get(column, (1, 0)) for column in header.split(",")]
            rows = [",".join(f"{t * factor + offset:.9f}" for factor, offset in by) for t in clock]
            (folder / f"{name}.csv").write_text("\n".join([header, *rows, ""]))
    root.joinpath("schema.toml").write_text(text)
    schema = str(root / "schema.toml")
    report = ingest(IngestConfig(source=root / "raw", out=root / "data", schema=schema, **ingest_options))
    assert report.num_episodes == 2, report.rejects
    return vlapipe.open_dataset(root / "data")
