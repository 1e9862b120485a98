"""Two real processes under torchrun train as one would, speak with one voice, and fail together."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import SMALL, lines

from vlapipe.train.checkpoint import FOLDER, latest_checkpoint, read_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

HERE = Path(__file__).parent
MAIN = HERE / "train_main.py"
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
    """Two ranks as a user starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command = [*launcher, str(MAIN), json.dumps(values)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def two_ranks(*command: str) -> list[subprocess.CompletedProcess[str]]:
    """Two ranks started by hand, which is quicker and lets each one's words be told apart."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, out, err)
        for process, (out, err) in zip(processes, said, strict=True)
    ]


@pytest.fixture(scope="module")
def whole_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Six steps by two ranks under torchrun: the folder, the result, and what was said."""
    out = tmp_path_factory.mktemp("ranks") / "run"
    done = torchrun(options(tiny_dataset, out, save_every=3))
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), done.stderr


def test_two_ranks_train_as_one_process_with_the_same_global_batch(
    tiny_dataset: Path, tmp_path: Path, whole_run: tuple[Path, dict[str, Any], str]
) -> None:
    two, result, _ = whole_run
    one = train(TrainConfig.from_sources(None, options(tiny_dataset, tmp_path / "one", batch_size=8)))
    assert [line["step"] for line in lines(two)] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(lines(tmp_path / "one"), lines(two), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-2)
    assert result["val_loss"] == pytest.approx(one.val_loss, rel=1e-3)


def test_two_ranks_speak_with_one_voice_and_draw_different_numbers(
    whole_run: tuple[Path, dict[str, Any], str],
) -> None:
    out, result, said = whole_run
    assert result["unwanted"] == []
    assert said.count("first batch:") == 1
    assert "2 ranks" in said
    newest = latest_checkpoint(out)
    assert newest is not None
    rng = read_checkpoint(newest).rng
    assert set(rng) == {"rank0/cpu", "rank1/cpu"}
    assert not torch.equal(rng["rank0/cpu"], rng["rank1/cpu"])


def test_two_ranks_resume_exactly_stop_together_and_one_rank_goes_on(
    tiny_dataset: Path, tmp_path: Path, whole_run: tuple[Path, dict[str, Any], str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole_run[0], out)
    shutil.rmtree(out / FOLDER / "step-00000006")
    policy: dict[str, Any] = {
        "policy": "policies_under_test:SignalAtStep",
        "policy_args": SMALL | {"at": 2, "on_rank": 1},
    }
    values = options(tiny_dataset, out, resume=True, **policy)
    zero, one = two_ranks(str(MAIN), json.dumps(values))
    assert (zero.returncode, one.returncode) == (0, 0), (zero, one)
    result = json.loads(zero.stdout)
    assert (result["step"], result["stopped_by"]) == (5, "another rank")
    assert [line["train/loss"] for line in lines(out)] == [line["train/loss"] for line in lines(whole_run[0])[:5]]
    assert train(TrainConfig.from_sources(None, values | {"policy": "regression", "policy_args": SMALL})).step == 6


def test_fault_on_one_rank_ends_both_with_one_message(tiny_dataset: Path, tmp_path: Path) -> None:
    policy_args = SMALL | {"at": 2, "on_rank": 1}
    values = options(
        tiny_dataset, tmp_path / "run", policy="policies_under_test:NaNAtStep", policy_args=policy_args, eval_every=9
    )
    zero, one = two_ranks(str(MAIN), json.dumps(values))
    assert zero.returncode != 0
    assert one.returncode != 0
    assert "vlapipe: " not in zero.stderr
    assert one.stderr.startswith("vlapipe: step 2: the loss is nan")
    assert len(lines(tmp_path / "run")) == 1


def test_refused_folder_is_said_once(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    zero, one = two_ranks(str(MAIN), json.dumps(options(tiny_dataset, tmp_path / "run")))
    assert zero.stderr == f"vlapipe: --out {tmp_path / 'run'}: not empty (give a new folder)\n"
    assert (zero.returncode, one.returncode) == (2, 1)
    assert one.stderr == ""


LISTENERS = """
import os
from pathlib import Path
from train_main import threads_of_group
from vlapipe.train.distributed import distributed, sum_of
with distributed() as ranks:
    assert threads_of_group()
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
assert not threads_of_group()
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_ranks_started_by_hand_listen_on_loopback_alone() -> None:
    ranks = two_ranks("-c", LISTENERS)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert {address for rank in ranks for address in rank.stdout.split()} == {"0100007F"}
