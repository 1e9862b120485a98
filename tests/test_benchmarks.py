"""The benchmarks run, on little data; what they measure then means nothing and is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_ingest_benchmark_gives_every_case_with_its_target(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_ingest.py"), "--small", "--scratch", str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert {(r["case"], r["target"]) for r in results} == {
        ("command", 5.0),
        ("work", 0.8),
        ("small", 1.0),
        ("images", 0.8),
    }
    assert {(r["format"], r["workers"]) for r in results if r["case"] == "command"} == {
        ("zarr", 1),
        ("zarr", 2),
        ("npz", 1),
        ("npz", 2),
    }
    assert all(r["ratio"] > 0 for r in results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stored_images_benchmark_gives_every_case() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_stored_images.py"), "--episodes", "2"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    sizes = {(r["quality"], r["colorsubsampling"]): r["bytes"] for r in results if r["case"] == "encoding"}
    assert len(sizes) == 8
    assert sizes[85, "420"] < sizes[95, "420"] < sizes[95, "444"]
    stored = {r["way"]: r["stored_bytes"] for r in results if r["case"] == "ingest"}
    assert stored["small"] < stored["as recorded"] < stored["small, raw"] < stored["raw"]
