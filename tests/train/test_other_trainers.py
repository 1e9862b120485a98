"""The examples with other trainers: they run on two ranks, and the page shows them as they are."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from free_ports import free_port
from launching import environment

import vlapipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "trainers"
NAMES = ["accelerate", "deepspeed", "lightning"]
STEPS, BATCH_SIZE = 40, 8
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]


def test_page_shows_each_example_as_it_is() -> None:
    shown = re.findall(
        r"^```python\n(\"\"\"Trains .*?)^```", (ROOT / "docs" / "other-trainers.md").read_text(), re.M | re.S
    )
    assert sorted(shown) == sorted(path.read_text() for path in EXAMPLES.glob("*.py"))
    assert [path.stem for path in sorted(EXAMPLES.glob("*.py"))] == [f"{name}_example" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_example_is_short_and_compiles(name: str) -> None:
    text = (EXAMPLES / f"{name}_example.py").read_text()
    compile(text, name, "exec")
    assert len(text.splitlines()) <= 40


def run(data: Path, folder: Path, name: str, *launcher: str, **more: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    command = [sys.executable, *launcher, str(EXAMPLES / f"{name}_example.py"), str(data)]
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained(done.stdout, vlapipe.open_dataset(data))


def assert_trained(said: str, dataset: vlapipe.Dataset) -> None:
    """The loss fell, and each rank read frames of its own."""
    found = re.findall(r"rank (\d) step (\d+) loss ([\d.]+) frames \[([\d, ]+)\]", said)
    losses: dict[int, list[float]] = {}
    frames: dict[int, list[int]] = {}
    ranks = {rank for rank, *_ in found}
    assert ranks == {"0", "1"}
    for _, step, loss, numbers in found:
        losses.setdefault(int(step), []).append(float(loss))
        frames.setdefault(int(step), []).extend(map(int, numbers.split(",")))
    assert sorted(losses) == [*range(1, STEPS + 1)]
    means = [sum(losses[step]) / 2 for step in sorted(losses)]
    assert sum(means[-5:]) < sum(means[:5])
    assert all(len(losses[step]) == 2 for step in losses)
    steps_an_epoch = len(vlapipe.torch_dataset(dataset)) // (2 * BATCH_SIZE)
    first = [frame for step in range(1, min(STEPS, steps_an_epoch) + 1) for frame in frames[step]]
    assert len(set(first)) == len(first) == 2 * BATCH_SIZE * min(STEPS, steps_an_epoch)


@pytest.mark.slow
def test_accelerate_trains_the_policy_on_two_ranks(tiny_dataset: Path, tmp_path: Path) -> None:
    port = f"--master-port={free_port()}"
    run(tiny_dataset, tmp_path, "accelerate", *TORCHRUN, port, CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
def test_lightning_trains_the_policy_on_two_ranks(tiny_dataset: Path, tmp_path: Path) -> None:
    run(tiny_dataset, tmp_path, "lightning", CUDA_VISIBLE_DEVICES="", MASTER_ADDR="127.0.0.1")


@pytest.mark.slow
@pytest.mark.gpu
def test_deepspeed_trains_the_policy_on_two_ranks(tiny_dataset: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2 and os.environ.get("DS_ACCELERATOR") != "cpu":
        pytest.skip("fewer than 2 GPUs; DS_ACCELERATOR=cpu runs it on the CPU")
    run(tiny_dataset, tmp_path, "deepspeed", *TORCHRUN, f"--master-port={free_port()}")
