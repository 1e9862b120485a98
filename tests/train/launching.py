"""Starts ranks for tests: with torchrun as users do, or with a launcher that does not end them if one fails."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from free_ports import free_port

HERE = Path(__file__).parent
MAIN = HERE / "train_main.py"
SRC = HERE.parents[1] / "src"
# Four ranks start, fail and end sooner, on a busy machine too; a collective's own time-out is ten minutes and more.
WITHIN_S = 120.0
SMALL = {"dim": 32, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64, "state_noise": 0.0}


@dataclass(frozen=True)
class Rank:
    """How a rank's process ended."""

    code: int
    out: str
    err: str
    seconds: float


def environment(**more: str) -> dict[str, str]:
    # W&B puts the address of this process's helper into the environment, and the other process needs one of its own.
    ours = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return ours | {"PYTHONPATH": f"{SRC}:{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"} | more


def torchrun(values: dict[str, Any], num_ranks: int = 4) -> subprocess.CompletedProcess[str]:
    """Ranks as a user starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_ranks}"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command = [*launcher, str(MAIN), json.dumps(values)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)


@functools.cache
def _launcher() -> subprocess.Popen[str]:
    # It ends with this process: its stdin does.
    return subprocess.Popen(
        [sys.executable, str(HERE / "rank_launcher.py")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_ranks(
    argument: Any,
    *,
    num_ranks: int = 4,
    code: str = "import train_main; train_main.main()",
    only_of: dict[int, dict[str, str]] | None = None,
) -> list[Rank]:
    """Run ``code`` in that many ranks, its argument being ``argument`` as JSON.

    ``only_of`` adds to the environment of a rank.
    """
    launcher = _launcher()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    request = {
        "ranks": num_ranks,
        "code": code,
        "argument": argument,
        "environment": {"MASTER_PORT": str(free_port())},
        "environments": only_of or {},
    }
    launcher.stdin.write(json.dumps(request) + "\n")
    launcher.stdin.flush()
    return [Rank(**rank) for rank in json.loads(launcher.stdout.readline())]


def options(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "data": str(data),
        "out": str(out),
        "batch_size": 2,
        "max_steps": 6,
        "wandb": "disabled",
        "precision": "fp32",
        "num_workers": 1,
        "eval_batches": 0,
        "policy_args": SMALL,
    }
    return values | changes
