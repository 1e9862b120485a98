"""Datasets and runs for reports: four planted faults that ingest keeps, and names of every kind that are hostile."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from factories import make_episode

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.manifest.findings_table import findings_table
from vlapipe.pipeline.shards.manifest.manifest import write_generation

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


def repeated(base: Path, out: Path, count: int) -> Path:
    """Make a dataset whose table has ``count`` episodes: those of the first shard of ``base`` over and over."""
    dataset = vlapipe.open_dataset(base)
    entry, own = dataset.manifest.shards[0], dataset.manifest.shards[0]["episodes"]
    (out / "shards").mkdir(parents=True)
    os.link(base / entry["file"], out / entry["file"])
    table = dataset.episodes.take(pa.array(np.arange(count) % own))
    ids = [f"task/episode_{i:07d}" for i in range(count)]
    for name, values in {
        "episode_index": np.arange(count),
        "shard": np.arange(count) // own,
        "id": ids,
        "seconds": dataset.column("seconds")[np.arange(count) % own]
        * np.random.default_rng(0).uniform(0.9, 1.1, count),
    }.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    found = [
        {"episode": each, "code": code, "severity": "warning", "file": f"{each}/{file}", "count": 1} | about
        for each in ids
        for code, file, about in (
            (
                "clock.jitter",
                "robot_states.csv",
                {"column": "origin_timestamp", "expected": "even steps", "found": each},
            ),
            ("image.frozen", "images/View1", {"line": 7, "found": f"image 21 (counted from 0) 25 times, {each}"}),
        )
    ]
    totals = {**dataset.manifest.totals, "episodes": count, "findings": {"clock.jitter": count, "image.frozen": count}}
    manifest = {**vars(dataset.manifest), "shards": [entry] * -(-count // own), "totals": totals}
    findings = findings_table(found, {each: i for i, each in enumerate(ids)})
    write_generation(out, manifest, table, [], None, findings)
    return out


def as_file_name(text: str) -> str:
    """The text with a slash that is none."""
    return text.replace("/", "\u2215")


def hostile_columns(folder: Path, *, shift: float = 0.0) -> Path:
    """A dataset whose episodes, files and columns are called by hostile names; every other episode is rejected."""
    columns = json.dumps(HOSTILE, ensure_ascii=False)
    (folder / "hostile.toml").write_text(
        'name = "hostile"\n[episodes]\nfolders = ["ep*"]\n[streams.robot]\nkind = "csv"\nfiles = ["robot*.csv"]\n'
        f'[streams.robot.time]\ncolumn = ["t"]\n[streams.robot.fields.q]\ncolumns = {columns}\n'
        '[sample]\nstate = ["robot/q"]\naction_rows = 2\n[split]\nval = 0.0\n',
        encoding="utf-8",
    )
    rows = np.random.default_rng(0).normal(size=(len(HOSTILE), 30, len(HOSTILE))) + shift
    for i, text in enumerate(HOSTILE):
        episode = folder / "raw" / f"ep{i:02d} {as_file_name(text)}"
        episode.mkdir(parents=True)
        with (episode / f"robot {as_file_name(text)}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["t", *HOSTILE])
            table.writerows([1000 + 10 * i + k / 10, *values] for k, values in enumerate(rows[i].tolist()))
            if i % 2:
                table.writerow([1000 + 10 * i + 3, *HOSTILE])
    config = IngestConfig(source=folder / "raw", out=folder / "data", workers=1, schema=str(folder / "hostile.toml"))
    ingest(config)
    return folder / "data"


def written_run(folder: Path, *, learning_rate: float = 1e-3) -> Path:
    """The folder of a training run, written by hand with hostile names, so that no torch is needed."""
    folder.mkdir(parents=True)
    size = len(HOSTILE)
    config = {
        "policy": HOSTILE[0],
        "data": {"paths": [HOSTILE[1]], "batch_size": 8},
        "optim": {"learning_rate": learning_rate},
        "policy_args": dict.fromkeys(HOSTILE, f"{HOSTILE[2]} {learning_rate}"),
        "max_steps": 20,
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {
            "step": step,
            "train/loss": 1 / step + learning_rate,
            "train/step": 7.25 + learning_rate,
            "train/grad_norm": 0.5 * step,
            "time/forward_ms": 3.125 * step,
            "time/data_wait_ms": 1.5,
            **({"val/loss": 1.5 / step, f"val/loss/{HOSTILE[3]}": 2.5 / step} if step % 5 == 0 else {}),
        }
        for step in range(1, 21)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def errors(scale: float) -> dict[str, Any]:
        by_step = [[scale * (step + 1) * (i + 1) for i in range(size)] for step in range(2)]
        return {
            "relative": scale * 0.71,
            "relative_by_step": [scale * 0.6, scale * 0.8],
            "by_dimension": [scale * 1.53 * (i + 1) for i in range(size)],
            "by_step": by_step,
        }

    predictors = {"policy": errors(0.25), "hold": errors(0.37), HOSTILE[4]: errors(0.55)}
    figures = {"dimensions": HOSTILE, "units": HOSTILE, "predictors": predictors}
    (folder / "validation.json").write_text(json.dumps({**figures, "step": 20}))
    (folder / "eval").mkdir()
    (folder / "eval" / f"{as_file_name(HOSTILE[5])}.json").write_text(json.dumps(figures))
    share = {"successes": 3, "num_episodes": 7, "share": 3 / 7, "low": 0.158, "high": 0.75}
    closed = {"environment": HOSTILE[6], "success": share, "tasks": dict.fromkeys(HOSTILE, share)}
    (folder / "eval" / "closed.json").write_text(json.dumps({**closed, "outcomes": dict.fromkeys(HOSTILE, 4)}))
    return folder


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
    """Writes the page of ``vlapipe inspect`` beside the dataset or run; skips without the extra."""
    return written(data, data.parent / name, "inspect", str(data), *arguments)


def written(data: Path, path: Path, *command: str, exit_code: int = 0) -> Report:
    """Writes the page of a command with --html and --json; skips without the extra."""
    pytest.importorskip("matplotlib", reason="plots need the extra 'report'")
    pytest.importorskip("jinja2", reason="pages need the extra 'report'")
    done = CliRunner().invoke(cli, [*command, "--html", str(path), "--json"])
    assert done.exit_code == exit_code, (done.output[:2000], done.exception)
    return Report(data, path, json.loads(done.stdout, parse_constant=pytest.fail))


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def faults_of(value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str = "") -> list[str]:
    """What of a value is not as the schema says: types, needed keys, no other keys. Enough of JSON Schema for ours."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    types = schema.get("type", list(TYPES))
    types = [types] if isinstance(types, str) else types
    if not any(isinstance(value, TYPES[one]) and (one == "boolean" or not isinstance(value, bool)) for one in types):
        return [f"{at}: {value!r} is no {' or '.join(types)}"]
    found = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value]
        for key, one in value.items():
            rule = properties.get(key, schema.get("additionalProperties", {}))
            found += (
                [f"{at}.{key}: not in the schema"]
                if rule is False
                else faults_of(one, rule, whole, f"{at}.{key}".lstrip("."))
            )
    if isinstance(value, list) and "items" in schema:
        for i, one in enumerate(value):
            found += faults_of(one, schema["items"], whole, f"{at}[{i}]")
    return found
