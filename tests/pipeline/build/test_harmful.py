"""Episodes that end or block the process that reads them are found, and a process whose work hangs ends itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harmful_episodes import make_hook
from tiny_lab import lab_task, make_lab

from vlapipe.pipeline.build.alone import Limits, find_harmful
from vlapipe.pipeline.build.build import build_shard

HANGS = {
    "a thread": "time.sleep(60)",
    "the interpreter": "ctypes.PyDLL(None).sleep(60)",  # with its lock held, so that no other thread runs
}
HANG = """
import ctypes, time
from vlapipe.pipeline.build.hangs import ends_if_hung
with ends_if_hung(2.0):
    with ends_if_hung(0.5) as go_on:
        for _ in range(8):
            time.sleep(0.1)
            go_on()
        print("at work", flush=True)
        HANG
"""


def test_episodes_that_end_or_block_their_process_are_found_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = lab_task(make_lab(tmp_path / "raw", {f"ep{i}": {"n": i} for i in range(5)}))
    hook = make_hook(tmp_path / "hook", {"ep1": "crashes", "ep4": "hangs"})
    monkeypatch.setattr(sys, "path", [str(hook), *sys.path])
    harmful = find_harmful(task, Limits(seconds=1.0, num_bytes=10**9))
    assert harmful == {"ep1": ("episode.crashes", "exit code 3"), "ep4": ("episode.hangs", "nothing after 1 s")}
    record = build_shard(replace(task, harmful=harmful))
    assert [row["id"] for row in record["episodes"]] == ["ep0", "ep2", "ep3"]
    rejects = {each["episode"]: each["reasons"][0]["code"] for each in record["rejects"]}
    assert rejects == {"ep1": "episode.crashes", "ep4": "episode.hangs"}


@pytest.mark.parametrize("name", HANGS)
def test_work_that_hangs_ends_its_process(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HANG.replace("HANG", HANGS[name])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (1, "at work\n"), done.stderr
