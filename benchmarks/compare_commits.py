"""Measures ingest and loader of several checkouts in turns, to see whether a change has made either slower.

``python benchmarks/compare_commits.py BEFORE AFTER`` takes folders with a checkout each (``git worktree add BEFORE
COMMIT``). Every turn runs each checkout in a process of its own, on the demo's recordings and on 12 columns of states.
Prints one JSON line a turn and checkout, then the ratio of the medians of each figure to those of the first checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TURN = """
import json, shutil, sys, time
from pathlib import Path
import torch, vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
raw, states, out = map(Path, sys.argv[1:4])
torch.set_num_threads(1)
def ingested(source, schema):
    shutil.rmtree(out, ignore_errors=True)
    began_cpu_s, began_s = time.process_time(), time.perf_counter()
    ingest(IngestConfig(source=source, out=out, workers=2, schema=schema))
    return time.process_time() - began_cpu_s, time.perf_counter() - began_s
def best_rate(batch_size, num_batches, num_workers):
    dataset = vlapipe.open_dataset(out)
    stream = iter(vlapipe.Loader(dataset, batch_size=batch_size, num_workers=num_workers, endless=True))
    for _ in range(20):
        next(stream)
    rates = []
    for _ in range(5):
        began_s = time.perf_counter()
        for _ in range(num_batches):
            next(stream)
        rates.append(num_batches * batch_size / (time.perf_counter() - began_s))
    return max(rates)
cpu_s, wall_s = ingested(raw, "meca500")
figures = {"ingest_cpu_s": cpu_s, "ingest_s": wall_s, "camera_samples_per_s": best_rate(32, 8, 2)}
figures["csv_ingest_cpu_s"], figures["csv_ingest_s"] = ingested(states, str(states / "states.toml"))
figures["state_samples_per_s_64"], figures["state_samples_per_s_1024"] = best_rate(64, 1500, 0), best_rate(1024, 100, 0)
print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))
"""

STATES = """
import sys
from pathlib import Path
import numpy as np
folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
header = ",".join(["t", *(f"q{i}" for i in range(12))])
for i in range(20):
    (folder / f"ep_{i:02d}").mkdir(parents=True)
    rows = np.column_stack([np.arange(15_000) / 100, rng.normal(size=(15_000, 12)).cumsum(0) / 100])
    np.savetxt(folder / f"ep_{i:02d}" / "log.csv", rows, delimiter=",", fmt="%.6f", header=header, comments="")
columns = ", ".join(f'"q{i}"' for i in range(12))
(folder / "states.toml").write_text(f'''
anchor = "robot"
[episodes]
folders = ["ep_*"]
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["log.csv"]
time = {{ column = "t" }}
fields = {{ q = {{ columns = [{columns}] }} }}
[action]
kind = "delta"
of = ["robot/q"]
period_s = 0.1
[sample]
state = ["robot/q"]
state_rows = 100
action_rows = 8
''')
"""


def run(checkout: Path, code: str, *arguments: Path) -> str:
    """What a program prints with the checkout's code."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Run the turns, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    checkouts: list[Path] = [path.resolve() for path in options.checkouts]
    figures: dict[Path, list[dict[str, float]]] = {path: [] for path in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        raw, states, out = (Path(scratch) / name for name in ("raw", "states", "out"))
        demo = "import sys\nfrom pathlib import Path\nfrom vlapipe.pipeline.demo import make_demo\n"
        run(checkouts[0], f"{demo}make_demo(Path(sys.argv[1]), num_episodes=16, workers=1)", raw)
        run(checkouts[0], STATES, states)
        for turn in range(options.turns):
            for checkout in checkouts:
                found = json.loads(run(checkout, TURN, raw, states, out))
                figures[checkout].append(found)
                print(json.dumps({"bench": "compare_commits", "turn": turn, "checkout": checkout.name, **found}))
    medians = {path: {k: statistics.median(f[k] for f in each) for k in each[0]} for path, each in figures.items()}
    first = medians[checkouts[0]]
    for path in checkouts[1:]:
        ratios = {name: round(medians[path][name] / first[name], 3) for name in first}
        print(json.dumps({"bench": "compare_commits", "against": checkouts[0].name, "checkout": path.name, **ratios}))


if __name__ == "__main__":
    main()
