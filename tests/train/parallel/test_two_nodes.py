"""Two machines as two network namespaces, torchrun on each, one shared run folder: they train, stop, resume and end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import MAIN, environment, options, run_ranks

pytestmark = pytest.mark.slow

ADDRESSES = ("10.207.77.1", "10.207.77.2")
PORT = "29410"  # a namespace has ports of its own
LIMIT_S = 4.0
WITHIN_S = 60.0
LINK = "vlapipe0"


class Nodes:
    """Two network namespaces with a cable between them."""

    def __init__(self) -> None:
        self.names = tuple(f"vlapipe-{os.getpid()}-{letter}" for letter in "ab")

    def plug(self) -> None:
        """Make them.

        Raises:
            CalledProcessError: the system does not allow it.
        """
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        a, b = self.names
        ip("link", "add", LINK, "netns", a, "type", "veth", "peer", "name", LINK, "netns", b)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")

    def unplug(self) -> None:
        """Cut the cable: no end of a connection is told."""
        ip("-n", self.names[1], "link", "set", LINK, "down")

    def remove(self) -> None:
        """Kill what still runs there, and remove the namespaces."""
        for node, name in enumerate(self.names):
            self.kill(node)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def kill(self, node: int) -> None:
        """Kill every process of a node at once, torchrun too."""
        pids = subprocess.run(["ip", "netns", "pids", self.names[node]], capture_output=True, text=True, check=False)
        for pid in pids.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def torchrun(self, values: dict[str, Any], folder: Path, *, rendezvous: str) -> list[subprocess.Popen[bytes]]:
        """Start two ranks on each node. Their outputs go to ``0.log`` and ``1.log`` in ``folder``."""
        folder.mkdir()
        started = []
        for node, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True)):
            if rendezvous == "c10d":
                met = ["--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}", "--rdzv-id=run"]
                # This machine's name does not lead to the address of a namespace, so torchrun has to be told.
                met += [f"--rdzv-conf=is_host={int(node == 0)}", f"--local-addr={address}"]
            else:
                met = [f"--node-rank={node}", f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}"]
            launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", *met]
            command = ["ip", "netns", "exec", name, *launcher, str(MAIN), json.dumps(values)]
            with (folder / f"{node}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT))
        return started


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if shutil.which("ip") is None:
        pytest.skip("no ip command here, so no network namespaces")
    two = Nodes()
    try:
        try:
            two.plug()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield two
    finally:
        two.remove()


def wait_for(condition: Callable[[], bool], within_s: float = WITHIN_S) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s
        time.sleep(0.05)
    return time.monotonic() - began


def num_steps(run: Path) -> int:
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def endless(data: Path, run: Path, **changes: Any) -> dict[str, Any]:
    return options(data, run, max_steps=100_000, save_every=5, hang_timeout_s=LIMIT_S, **changes)


def said(folder: Path, node: int) -> list[str]:
    return [line for line in (folder / f"{node}.log").read_text().splitlines() if line.startswith("vlapipe: ")]


def test_two_nodes_train_stop_and_resume_in_the_order_of_one_node(
    nodes: Nodes, tiny_dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    same = {"policy": "policies_under_test:SaysWhatItReads", "warmup_steps": 0, "decay_steps": 100}
    both = nodes.torchrun(endless(tiny_dataset, run, **same), tmp_path / "first", rendezvous="c10d")
    wait_for(lambda: num_steps(run) >= 3)
    for node in both:
        node.send_signal(signal.SIGTERM)  # to torchrun, as a scheduler does
    for node in both:
        node.wait(WITHIN_S)
    log = (tmp_path / "first" / "0.log").read_text()
    assert '"stopped_by": "SIGTERM"' in log, log
    assert said(tmp_path / "first", 0) == said(tmp_path / "first", 1) == []
    last = num_steps(run) + 3
    again = options(tiny_dataset, run, resume=True, max_steps=last, **same)
    both = nodes.torchrun(again, tmp_path / "second", rendezvous="static")
    assert [node.wait(WITHIN_S) for node in both] == [0, 0], (tmp_path / "second" / "0.log").read_text()
    assert num_steps(run) == last

    one = run_ranks(options(tiny_dataset, tmp_path / "one", max_steps=last, **same))
    expected = [reads(rank.err) for rank in one]
    assert [len(frames) for frames in expected] == [last] * 4
    found: list[list[str]] = [[], [], [], []]
    for folder in ("first", "second"):
        for node in (0, 1):
            text = (tmp_path / folder / f"{node}.log").read_text()
            for rank in (2 * node, 2 * node + 1):
                found[rank] += reads(text, rank)
    assert found == expected
    assert losses(run) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").open()]


def reads(text: str, rank: int | None = None) -> list[str]:
    lines = [line.split(" reads ") for line in text.splitlines() if " reads [" in line]
    return [frames for who, frames in lines if rank is None or who.endswith(f"rank {rank}")]


def test_node_whose_network_is_cut_ends_both_and_each_says_which_ranks_were_lost(
    nodes: Nodes, tiny_dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    both = nodes.torchrun(endless(tiny_dataset, run), tmp_path / "logs", rendezvous="static")
    wait_for(lambda: num_steps(run) >= 3)
    nodes.unplug()
    for node, lost in enumerate(("2, 3", "0, 1")):
        wait_for(lambda node=node: bool(said(tmp_path / "logs", node)))
        [line] = said(tmp_path / "logs", node)
        assert line.startswith(f"vlapipe: ranks {lost} were lost: no sign of life for 4 s")
        assert both[node].wait(WITHIN_S) != 0
        assert "exitcode  : 5" in (tmp_path / "logs" / f"{node}.log").read_text()


def test_node_that_is_killed_ends_the_other(nodes: Nodes, tiny_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = nodes.torchrun(endless(tiny_dataset, run), tmp_path / "logs", rendezvous="c10d")
    wait_for(lambda: num_steps(run) >= 3)
    nodes.kill(1)
    assert both[0].wait(WITHIN_S) != 0
    [line] = said(tmp_path / "logs", 0)
    assert line.startswith("vlapipe: ranks 2, 3 were lost: their processes ended without a word")
    assert "exitcode  : 5" in (tmp_path / "logs" / "0.log").read_text()
