"""What a line of a benchmark says about its machine and commit, and how its numbers are rounded."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

__all__ = ["machine", "rounded"]


def machine() -> dict[str, object]:
    """Describe the machine and the commit."""
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    named = f"{platform.machine()}, {os.cpu_count()} cores, {model}"
    return {"machine": named, "commit": os.environ.get("VLAPIPE_COMMIT") or commit.stdout.strip()}


def rounded(value: object) -> object:
    """Round a number to its significant digits."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if not isinstance(value, float):
        return value
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
