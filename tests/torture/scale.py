"""Makes a dataset of a million episodes in 40,000 shards, appends to it and looks at it; prints what that takes.

``python tests/torture/scale.py --shards 40000 --limits``

The tables have their full size, and no two episodes the same id or digests. All shards are names of one file, which no
command may read. Each command runs in a process of its own; its time and memory are those after the imports. With
``--limits`` the script fails where a figure is larger than promised.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
from factories import make_dataset, make_episode

import vlapipe
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.change.statistics import key_of, sums_of
from vlapipe.pipeline.change.sums import PartMoments, PartSums
from vlapipe.pipeline.check.flicker import FlickerSums
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, table_bytes
from vlapipe.pipeline.shards.manifest.manifest import episodes_bytes, write_generation, write_named
from vlapipe.pipeline.shards.manifest.parts import Part, runs, sum_of_totals
from vlapipe.pipeline.shards.manifest.shards_table import shards_bytes

PER_SHARD = 25
# Seconds, and megabytes beyond the imports.
LIMITS = {"open": (1, 300), "append": (10, 500), "again": (10, 500), "log": (5, None), "diff": (5, None)}
LIMITS |= {"inspect": (5, None)}
COMMANDS = {
    "open": "ds = vlapipe.open_dataset(data); ds.row(len(ds) // 2)",
    "append": "ingest(IngestConfig(source=raw / 'first', out=data, workers=1))",
    "again": "ingest(IngestConfig(source=raw / 'second', out=data, workers=1))",
    "log": "entries(data)",
    "diff": "difference_of(vlapipe.open_dataset(data, generation=2), vlapipe.open_dataset(data))",
    "inspect": "inspect_dataset(vlapipe.open_dataset(data))",
}
CHILD = """
import json, re, sys, time
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.pipeline.show.inspection import inspect_dataset
data, raw = Path(sys.argv[1]), Path(sys.argv[2])
def peak(): return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
imported, started, busy = peak(), time.perf_counter(), time.process_time()
{command}
took = time.perf_counter() - started
print(json.dumps([took, time.process_time() - busy, (peak() - imported) / 1024]))
"""


def make_large(root: Path, num_shards: int, seed: int) -> Path:
    """Write the tables of a dataset of so many shards, and links to one shard."""
    chance = np.random.default_rng(seed)
    make_dataset(root / "raw", num_episodes=PER_SHARD, num_rows=40)
    ingest(IngestConfig(source=root / "raw", out=root / "small"))
    small = vlapipe.open_dataset(root / "small")
    (shard,) = small.manifest.shards
    data = root / "data"
    (data / "shards").mkdir(parents=True)
    sums, computed = sums_of(small)
    shard_moments, still = computed[0].shards[shard["file"]], computed[0].still
    names = [f"task_{i // PER_SHARD % 50:02d}/episode_{i:07d}" for i in range(num_shards * PER_SHARD)]
    parts: list[Part] = []
    for piece in runs([PER_SHARD] * num_shards):
        shards = []
        for number in piece:
            digest = chance.bytes(32).hex()
            file = f"shards/shard-{number:05d}-{digest[:8]}.zarr.zip"
            os.link(small.path / shard["file"], data / file)
            shards.append({**shard, "file": file, "sha256": digest})
        ids = names[piece.start * PER_SHARD : piece.stop * PER_SHARD]
        table = _repeated(small.episodes, len(piece), ids, chance)
        moments = PartMoments(shards={each["file"]: shard_moments for each in shards})
        moments.still = {
            name: still[old]
            for name, old in zip(ids, small.column("id").tolist() * len(piece), strict=True)
            if old in still
        }
        flicker = FlickerSums.of_table(table["statistics"].combine_chunks(), moments.still.values(), small.recorded)
        totals = sum_of_totals([small.manifest.totals] * len(piece))
        part = Part(
            episodes=write_named(data, "episodes", episodes_bytes(table), len(table)),
            num_shards=len(piece),
            shards=write_named(data, "shards", shards_bytes(shards), len(shards)),
            gaps=write_named(data, "gaps", table_bytes(gaps_table([])), 0),
            moments=write_named(data, "moments", *moments.to_bytes()),
            totals=totals,
        )
        merged = moments.merged([each["file"] for each in shards])
        sums.parts[key_of(part)] = PartSums(moments=merged, flicker=flicker)
        parts.append(part)
    sums.parts = {key_of(part): sums.parts[key_of(part)] for part in parts}
    sums.count(sums.histograms, times=num_shards - 1)
    entries: dict[str, Any] = {name: value for name, value in vars(small.manifest).items() if name != "rejects"}
    entries |= {"parts": [part.to_json() for part in parts], "episodes": None, "gaps": None, "findings": None}
    entries |= {"totals": {**sum_of_totals([part.totals for part in parts]), "findings": {}}}
    entries |= {"sums": write_named(data, "statistics", *sums.to_bytes())}
    write_generation(data, entries, pa.table({}), [])
    made_from = MadeFrom.read(small.path)
    assert made_from is not None
    replace(made_from, episodes={name: chance.bytes(8).hex() for name in names}).write(data)
    return data


def _repeated(table: pa.Table, times: int, ids: list[str], chance: np.random.Generator) -> pa.Table:
    count = len(table) * times
    table = table.take(pa.array(np.tile(np.arange(len(table)), times))).combine_chunks()
    sources = table["sources"].combine_chunks()
    fields = {field.name: part for field, part in zip(sources.values.type, sources.values.flatten(), strict=True)}
    fields["sha256"] = pa.array([chance.bytes(32).hex() for _ in range(len(sources.values))])
    own = pa.StructArray.from_arrays(list(fields.values()), fields=list(sources.values.type))
    columns = {
        "episode_index": pa.array(np.arange(count)),
        "id": pa.array(ids),
        "shard": pa.array(np.repeat(np.arange(times), PER_SHARD)),
        "sources": pa.ListArray.from_arrays(sources.offsets, own),
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def measure(what: str, data: Path, raw: Path) -> tuple[float, float, float]:
    """Run a command; return its seconds, those of the processor alone, and its megabytes beyond the imports."""
    code = CHILD.replace("{command}", COMMANDS[what])
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(raw)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    took_s, busy_s, num_mb = json.loads(done.stdout.splitlines()[-1])
    return took_s, busy_s, num_mb


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the dataset, which is kept")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp()) if asked.keep is None else asked.keep
    root.mkdir(exist_ok=True)
    try:
        started = time.perf_counter()
        data = root / "data" if (root / "data").exists() else make_large(root, asked.shards, asked.seed)
        for source in ("first", "second"):
            for i in range(0 if (root / source).exists() else 10):
                make_episode(root / source / "new" / f"episode_20260202_{source}{i:02d}", seed=100 + i, num_rows=40)
        say(
            f"made in {time.perf_counter() - started:.0f} s; manifest {(data / 'manifest.json').stat().st_size:,} bytes"
        )
        before = {path.name for path in data.iterdir()}
        too_much = []
        for what, (most_s, most_mb) in LIMITS.items():
            took_s, busy_s, num_mb = measure(what, data, root)
            say(f"{what}: {took_s:.2f} s ({busy_s:.2f} s of processor), {num_mb:.0f} MB beyond the imports")
            if took_s > most_s or (most_mb is not None and num_mb > most_mb):
                too_much.append(what)
        opened = vlapipe.open_dataset(data)
        written = sum(
            (data / path).stat().st_size
            for path in {path.name for path in data.iterdir()} - before
            if path.endswith("parquet")
        )
        say(f"{len(opened)} episodes, {len(opened.manifest.shards)} shards, {opened.generation} generations")
        say(f"the appends wrote {written:,} bytes of tables")
        assert len(opened) == asked.shards * PER_SHARD + 20, len(opened)
        assert not (asked.limits and too_much), too_much
    finally:
        if asked.keep is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
