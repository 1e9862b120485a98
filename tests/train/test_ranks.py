"""Two real processes under torchrun train as one would, speak with one voice, and fail together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import SMALL, lines

from vlapipe.train.checkpoint import latest_checkpoint, read_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


def options(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "data": str(data),
        "out": str(out),
        "batch_size": 4,
        "max_steps": 6,
        "wandb": "disabled",
        "precision": "fp32",
        "num_workers": 1,
        "eval_batches": 0,
        "policy_args": SMALL,
    }
    return values | changes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{SRC}:{HERE}", "OMP_NUM_THREADS": "1"} | more


def torchrun(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command = [*launcher, str(HERE / "train_main.py"), json.dumps(values)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_two_ranks_train_as_one_process_with_the_same_global_batch(tiny_dataset: Path, tmp_path: Path) -> None:
    done = torchrun(options(tiny_dataset, tmp_path / "two", grad_accum=2))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["unwanted"] == []
    assert done.stderr.count("first batch:") == 1
    assert "2 ranks" in done.stderr
    one = train(TrainConfig.from_sources(None, options(tiny_dataset, tmp_path / "one", batch_size=8, grad_accum=2)))
    assert [line["step"] for line in lines(tmp_path / "two")] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-2)
    assert result["val_loss"] == pytest.approx(one.val_loss, rel=1e-3)
    newest = latest_checkpoint(tmp_path / "two")
    assert newest is not None
    rng = read_checkpoint(newest).rng
    assert set(rng) == {"rank0/cpu", "rank1/cpu"}
    assert not torch.equal(rng["rank0/cpu"], rng["rank1/cpu"])


def test_two_ranks_resume_exactly_and_one_rank_can_go_on(tiny_dataset: Path, tmp_path: Path) -> None:
    values = options(tiny_dataset, tmp_path / "run", policy="policies_under_test:SignalAtStep")
    values["policy_args"] = SMALL | {"at": 3}
    first = torchrun(values)
    assert json.loads(first.stdout)["step"] == 3, first.stderr
    values |= {"resume": True, "policy_args": SMALL | {"at": 99}}
    second = torchrun(values)
    assert json.loads(second.stdout)["step"] == 6, second.stderr
    torchrun(options(tiny_dataset, tmp_path / "whole"))
    both = [[line["train/loss"] for line in lines(tmp_path / name)] for name in ("run", "whole")]
    assert both[0] == both[1]
    result = train(TrainConfig.from_sources(None, values | {"max_steps": 7}))
    assert result.step == 7


def test_fault_on_one_rank_ends_both_with_one_message(tiny_dataset: Path, tmp_path: Path) -> None:
    values = options(tiny_dataset, tmp_path / "run", policy="policies_under_test:NaNAtStep")
    done = torchrun(values | {"policy_args": SMALL | {"at": 2, "on_rank": 1}})
    assert done.returncode != 0
    assert done.stderr.count("vlapipe: step 2: the loss is nan") == 1
    assert len(lines(tmp_path / "run")) == 1


def test_refused_folder_is_said_once(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    done = torchrun(options(tiny_dataset, tmp_path / "run"))
    assert done.returncode != 0
    assert done.stderr.count("vlapipe: ") == 1
    assert "not empty" in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.split("torch.distributed")[0]


LISTENERS = """
import os
from pathlib import Path
from vlapipe.train.distributed import distributed, sum_of
with distributed() as ranks:
    assert sum_of([ranks.rank + 1], ranks) == [3.0]
    mine = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            mine.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[3] == "0A" and cells[9] in mine:
                print(cells[1].split(":")[0])
    sum_of([0.0], ranks)
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_ranks_started_by_hand_listen_on_loopback_alone() -> None:
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LISTENERS],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], answers
    listening = {address for out, _ in answers for address in out.split()}
    assert listening == {"0100007F"}
