"""Interrupts a run again and again at random steps, and resumes it. The losses must equal an undisturbed run's.

``python tests/torture/interruptions.py --data DATASET --interruptions 50 --seed 0``

About half of the interruptions are SIGTERM, the others SIGKILL, of all ranks. The policy has dropout. The run has EMA,
augmentation, weights and accumulation; with two ranks, a thread writes the checkpoints. Losses, validation losses and
gradient norms are compared bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vlapipe.train.loop
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.train.checkpoint.files import latest_checkpoint, step_of
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.base import LossOutput
from vlapipe.train.policies.regression import RegressionPolicy

SIZES = {"dim": 32, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}
MAX_STEPS, SAVE_EVERY = 160, 7
_DEADLINE_S = 300.0


class WithDropout(RegressionPolicy):
    """The built-in policy with dropout on each image and on the state."""

    def __init__(self, spec: SampleSpec, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.dropout = nn.Dropout(0.2)

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """The loss, and the frames of the batch as a number."""
        noisy = {
            key: self.dropout(value) if isinstance(value, Tensor) and value.is_floating_point() else value
            for key, value in batch.items()
            if key != "action"
        }
        loss = super().loss({**noisy, "action": batch["action"]})
        return LossOutput(loss.total, loss.weight, {"frames": batch["index"].double().mean()})


def options(data: Path, out: Path, ranks: int) -> dict[str, Any]:
    tasks = open_dataset(data).episodes.column("task").to_pylist()
    return {
        "data": str(data),
        "out": str(out),
        "policy": "interruptions:WithDropout",
        "policy_args": SIZES,
        "batch_size": 4 // ranks,
        "grad_accum": 2,
        "max_steps": MAX_STEPS,
        "save_every": SAVE_EVERY,
        "eval_every": 40,
        "eval_batches": 2,
        "ema": 0.9,
        "augment": True,
        "weights": {"task": {tasks[0]: 2.0}},
        "precision": "fp32",
        "deterministic": True,
        "wandb": "disabled",
        "num_workers": 1,
        "async_save": ranks > 1,
    }


def start(values: dict[str, Any], ranks: int, log: Path) -> list[int]:
    """Fork one process a rank, which trains. The imports are done, so a start takes a fraction of a second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            os.environ["MASTER_PORT"] = str(port)
            code = 1
            try:
                vlapipe.train.loop.train(TrainConfig.from_sources(None, values))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


def num_lines(out: Path, since: float = 0.0) -> int:
    """Lines of a metrics file that was written after ``since``; a resumed run first removes those it makes again."""
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() and file.stat().st_mtime > since else 0


def end(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def wait_for_line(out: Path, number: int, pids: list[int], started: float) -> bool:
    """Whether the run reaches that line, and makes at least one step, before it ends."""
    deadline = time.monotonic() + _DEADLINE_S
    newest = latest_checkpoint(out)
    number = max(number, 1 + (step_of(newest) if newest else 0))
    while num_lines(out, started) < number:
        if any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in pids):
            return False
        assert time.monotonic() < deadline, f"line {number} does not come"
        time.sleep(0.002)
    return True


def losses(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "train/loss", "train/frames", "train/grad_norm", "train/learning_rate", "val/loss")
    return [{name: float(line[name]).hex() for name in names if name in line} for line in lines]


def interrupt(data: Path, folder: Path, ranks: int, interruptions: int, seed: int) -> Counter[str]:
    """Interrupt a run, compare it with an undisturbed one, and count.

    Raises:
        AssertionError: a run failed, lost more than an interval, or differs from the undisturbed run.
    """
    chance, counts, log = random.Random(seed), Counter[str](), folder / "log"  # noqa: S311
    whole, torn = folder / "whole", folder / "torn"
    codes = end(start(options(data, whole, ranks), ranks, log))
    assert codes == [0] * ranks, log.read_text()
    steps = sorted(chance.sample(range(1, MAX_STEPS - 1), interruptions))
    for step in [*steps, None]:
        started = time.time()
        pids = start(options(data, torn, ranks) | {"resume": (torn / "checkpoints").exists()}, ranks, log)
        if step is None or not wait_for_line(torn, step, pids, started):
            codes = end(pids)
            assert codes == [0] * ranks, (codes, log.read_text()[-2000:])
            continue
        number = chance.choice([signal.SIGTERM, signal.SIGKILL])
        for pid in pids:
            os.kill(pid, number)
        codes = end(pids)
        if number == signal.SIGTERM:
            assert codes == [0] * ranks, (codes, log.read_text()[-2000:])
        counts[number.name] += 1
        newest = latest_checkpoint(torn)
        lost = num_lines(torn) - (step_of(newest) if newest else 0)
        assert lost <= (1 if ranks == 1 else 2) * SAVE_EVERY  # one interval, and one whose save was in progress
        counts["steps lost"] += lost
    expected, found = losses(whole), losses(torn)
    assert len(found) == MAX_STEPS
    counts["lines that differ"] = sum(a != b for a, b in zip(expected, found, strict=True))
    assert not counts["lines that differ"], next(p for p in zip(expected, found, strict=True) if p[0] != p[1])
    return counts


def main() -> None:
    """Interrupt runs of one and of two ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--interruptions", type=int, default=50, help="over all numbers of ranks")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            counts = interrupt(asked.data, Path(folder), ranks, asked.interruptions // 2, asked.seed + ranks)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        sys.stdout.write(f"{ranks} ranks, {MAX_STEPS} steps: {told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
