"""Datasets for reports: one with four planted faults that ingest keeps, and one whose names are hostile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from factories import make_episode

from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest

NUM_EPISODES, NUM_ROWS = 8, 240
GAP, FROZEN, STUCK, DRIFT = 1, 2, 3, 4  # numbers of the episodes with a fault
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "javascript:alert(5)",
    "<svg onload=alert(6)>",
    "<!-- <script>alert(7)</script>",
    "--><script>alert(8)</script>",
    "]]><script>alert(9)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "&lt;b&gt;&#60;script&#62;",
    "<style>*{display:none}</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=0>",
    "</title><iframe src=//evil.example>",
    "</textarea></select><b>bold",
    "`${alert(18)}`",
    "$\\frac{x}{",
    "<a href='data:text/html,x'>link</a>",
]


def plant(folder: Path, number: int) -> None:
    """Break an episode in a way that ingest notices at most by a warning."""
    if number == GAP:
        lines = (folder / "robot_states.csv").read_text().splitlines(keepends=True)
        (folder / "robot_states.csv").write_text("".join(lines[:100] + lines[160:]))
    if number == FROZEN:
        images = sorted((folder / "images" / "View1").iterdir())
        for image in images[8:28]:
            image.write_bytes(images[8].read_bytes())
    if number in (STUCK, DRIFT):
        arrays = dict(np.load(folder / "sensor_data.npz"))
        if number == STUCK:
            arrays["forces"][300:1000] = arrays["forces"][300]
        else:
            first = arrays["timestamps"][0]
            arrays["timestamps"] = first + (arrays["timestamps"] - first) * 1.02
        np.savez(folder / "sensor_data.npz", **arrays)


def planted_dataset(folder: Path) -> Path:
    """A dataset of eight episodes, four of them with a fault, in a new folder."""
    for i in range(NUM_EPISODES):
        episode = make_episode(
            folder / "raw" / "insert" / f"episode_20260101_{i:06d}",
            num_rows=NUM_ROWS,
            num_images=36,
            seed=i,
            cameras=("View1",),
        )
        plant(episode, i)
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", workers=1))
    return folder / "data"


def hostile_dataset(folder: Path) -> Path:
    """A dataset whose tasks, instructions, metadata keys and values are hostile; half of its episodes are rejected."""
    for i, text in enumerate(HOSTILE):
        episode = make_episode(
            folder / "raw" / text.replace("/", "\u2215") / f"episode_20260101_{i:06d}",
            num_rows=40,
            num_images=2,
            seed=i,
            cameras=("View1",),
            edit_rows=(lambda rows: rows[20].__setitem__(5, "<img src=x onerror=alert(0)>")) if i % 2 else None,
        )
        metadata = json.loads((episode / "metadata.json").read_text())
        metadata |= {"instruction": text, "operator": text, text[:40]: text}
        (episode / "metadata.json").write_text(json.dumps(metadata))
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", workers=1))
    return folder / "data"


@dataclass(frozen=True)
class Report:
    """A page and what --json printed with it."""

    data: Path
    path: Path
    facts: dict[str, Any]

    @property
    def html(self) -> str:
        """The page."""
        return self.path.read_text(encoding="utf-8")


def reported(data: Path, name: str, *arguments: str) -> Report:
    """Writes the page beside the dataset; skips without the extra."""
    pytest.importorskip("matplotlib", reason="plots need the extra 'report'")
    pytest.importorskip("jinja2", reason="pages need the extra 'report'")
    path = data.parent / name
    done = CliRunner().invoke(cli, ["inspect", str(data), "--html", str(path), "--json", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return Report(data, path, json.loads(done.stdout, parse_constant=pytest.fail))
