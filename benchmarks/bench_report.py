"""How long ``vlapipe inspect`` takes for 5,000 episodes and its page for 10,000; one JSON line a case.

A few recorded episodes with two cameras and a sensor stand in the table of episodes over and over, each with its own id
and two findings. Each command runs in a process of its own, from the start of Python to its end, with its largest
memory. The baseline is a process that imports pyarrow and click and reads the same table. The best of each counts.

``python benchmarks/bench_report.py --out benchmarks/results/report.jsonl``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine, rounded

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from factories import make_dataset
from report_lab import repeated

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest

INSPECT_S, INSPECT_MB = 1.5, 200
PAGE_S, PAGE_MB = 20, 15
# A process begins with the memory of the one that starts it, so that one has to be small.
LAUNCHER = """
import os, sys, time
began = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, used = os.wait4(child, 0)
assert status == 0, status
print(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
BASELINE = "import sys, click, pyarrow.parquet as p; p.read_table(sys.argv[1])"


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inspected", type=int, default=5000, help="episodes of vlapipe inspect")
    parser.add_argument("--shown", type=int, default=10_000, help="episodes of the page")
    parser.add_argument("--recorded", type=int, default=20, help="episodes that are recorded and repeated")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder) / "raw", num_episodes=options.recorded, num_rows=200)
        ingest(IngestConfig(source=Path(folder) / "raw", out=Path(folder) / "base", workers=1))
        few = repeated(Path(folder) / "base", Path(folder) / "few", options.inspected)
        many = repeated(Path(folder) / "base", Path(folder) / "many", options.shown)
        results = [
            inspected(few, options.inspected, options.repeat),
            shown(many, Path(folder) / "page.html", options.shown, options.repeat),
        ]
    lines = "".join(json.dumps({name: rounded(value) for name, value in each.items()}) + "\n" for each in results)
    sys.stdout.write(lines)
    if options.out is not None:
        options.out.write_text(lines)


def inspected(data: Path, count: int, repeat: int) -> dict[str, Any]:
    """Measure ``vlapipe inspect`` beside the baseline."""
    table = vlapipe.open_dataset(data).manifest.episodes["file"]
    command = [sys.executable, "-m", "vlapipe", "inspect", str(data)]
    runs = [run(command) for _ in range(repeat)]
    base = [run([sys.executable, "-c", BASELINE, str(data / table)]) for _ in range(repeat)]
    seconds, baseline = min(runs)[0], min(base)[0]
    return {
        "case": "inspect",
        "episodes": count,
        "seconds": seconds,
        "cpu_s": min(cpu for _, cpu, _ in runs),
        "target_s": INSPECT_S,
        "mb": max(mb for _, _, mb in runs),
        "target_mb": INSPECT_MB,
        "baseline_s": baseline,
        "baseline_mb": max(mb for _, _, mb in base),
        "ratio": seconds / baseline,
        **machine(),
    }


def shown(data: Path, page: Path, count: int, repeat: int) -> dict[str, Any]:
    """Measure the page, and the table of findings that it shows, beside the same numbers without a page."""
    plain = [sys.executable, "-m", "vlapipe", "inspect", str(data), "--episodes", "--json"]
    runs = [run([*plain[:-2], "--html", str(page)]) for _ in range(repeat)]
    seconds, baseline = min(runs)[0], min(run(plain)[0] for _ in range(repeat))
    findings = vlapipe.open_dataset(data).manifest.findings
    assert findings is not None
    return {
        "case": "page",
        "episodes": count,
        "seconds": seconds,
        "cpu_s": min(cpu for _, cpu, _ in runs),
        "target_s": PAGE_S,
        "mb": max(mb for _, _, mb in runs),
        "page_mb": page.stat().st_size / 1e6,
        "target_page_mb": PAGE_MB,
        "findings": findings["count"],
        "findings_bytes": findings["bytes"],
        "baseline_s": baseline,
        "ratio": seconds / baseline,
        **machine(),
    }


def run(command: list[str]) -> tuple[float, float, float]:
    """Returns the seconds on the clock and of the processor that a process takes, and its largest memory in MB.

    Raises:
        CalledProcessError: it failed.
    """
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    seconds, cpu, kilobytes = map(float, done.stdout.split())
    return seconds, cpu, kilobytes * 1024 / 1e6


if __name__ == "__main__":
    main()
