"""A lab whose recordings are one small table an episode, and whatever else a test writes beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlapipe.pipeline.build.build import ShardTask
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, find_recordings, ingest, plan_recordings, shard_tasks
from vlapipe.schemas.parse import parse_schema

SCHEMA = """
name = "lab"
[episodes]
folders = ["ep*"]
{episodes}
[instruction]
{instruction}
[streams.robot]
kind = "csv"
files = ["robot.csv"]
[streams.robot.time]
column = ["t"]
[streams.robot.fields.q]
columns = ["q"]
{fields}
[sample]
state = ["robot/q"]
action_rows = 2
[split]
val = {val}
"""


def make_lab(root: Path, told: Mapping[str, Any], *, num_rows: int = 12, steps: list[str] | None = None) -> Path:
    """Write an episode for each path; ``told`` is its metadata, of which ``None`` writes no file.

    ``steps`` are the texts of the column ``step``, row by row and again from the first.
    """
    for number, (path, metadata) in enumerate(told.items()):
        folder = root / path
        folder.mkdir(parents=True)
        lines = ["t,q,step" if steps else "t,q"]
        for i in range(num_rows):
            step = f",{steps[i % len(steps)]}" if steps else ""
            lines.append(f"{1000 + 100 * number + i / 10},{number + i / 100}{step}")
        (folder / "robot.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
        if metadata is not None:
            (folder / "metadata.json").write_text(json.dumps(metadata))
    return root


def schema_text(
    *, episodes: str = "", instruction: str = "", steps: bool = False, val: float = 0.0, width: int = 32
) -> str:
    """The TOML of the lab's schema; ``steps`` declares the column of texts."""
    field = f'[streams.robot.fields.step]\ncolumns = ["step"]\ndtype = "text"\nwidth = {width}\n' if steps else ""
    return SCHEMA.format(episodes=episodes, instruction=instruction, fields=field, val=val)


def ingest_lab(raw: Path, out: Path, schema: str, **options: Any) -> IngestReport:
    """Ingest with this schema's text, which is written beside ``out``."""
    file = out.parent / f"{out.name}.toml"
    file.write_text(schema)
    return ingest(IngestConfig(source=raw, out=out, schema=str(file), **options))


def lab_task(raw: Path) -> ShardTask:
    """The task to check all episodes of a lab, in one shard that is not written."""
    config = IngestConfig(source=raw, dry_run=True)
    schema = parse_schema(schema_text(), "lab.toml")
    _, plan = plan_recordings(config, schema, find_recordings(config, schema)[0])
    (task,) = shard_tasks(config, plan, None)
    return task
