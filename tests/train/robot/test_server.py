"""The server gives the runner's actions to each connection, refuses in one line what it cannot take, and ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from launching import environment
from robot_lab import make_run, observed

import vlapipe
from vlapipe.train.robot.client import PolicyClient, pack, unpack


class Served:
    """A ``vlapipe serve`` of its own process."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [sys.executable, "-u", "-m", "vlapipe", "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        assert self.process.stderr is not None
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if "listening on" in line:
                break
        self.port = int(self.said[-1].rpartition(":")[2].split()[0])

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        os.kill(self.process.pid, how)
        _, rest = self.process.communicate(timeout=600)
        return self.process.returncode, rest


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tiny_dataset, tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[Served]:
    server = Served(run, "--execute", "3", "--ensemble", "0.1")
    yield server
    code, rest = server.end()
    assert code == 0, rest
    assert "Traceback" not in rest
    assert "ended after" in rest


def ask(
    served: Served, method: str, path: str, body: Any = b"", kind: str = "application/msgpack", host: str = ""
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request(method, path, body, {"Content-Type": kind} | ({"Host": host} if host else {}))
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8", "replace")
    connection.close()
    return found


def test_actions_are_those_of_a_runner_here_and_each_connection_has_its_own_history(run: Path, served: Served) -> None:
    policy = vlapipe.load_policy(run)
    one, other = (PolicyClient(served.port, timeout_s=60) for _ in range(2))
    runners = [policy.runner(execute=3, ensemble=0.1, say=lambda _: None) for _ in range(2)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for i in range(7):
            for client, runner, factor in ((one, runners[0], 1.0), (other, runners[1], -0.5)):
                observation = observed(state=observed()["state"] * factor * i)
                assert (client.step(observation) == runner.step(observation)).all()
                if i == 4:
                    client.reset()
                    runner.reset()
    assert sum("runner: state: rows 100 ms apart" in str(warning.message) for warning in told) == 2
    assert one.spec["action_names"] == list(policy.spec.action_names)
    assert "5 x 12 at 50 Hz" in one.spec["text"]
    one.close()
    other.close()


def test_a_wrong_observation_is_one_line_at_the_client_and_the_next_one_goes_on(served: Served) -> None:
    client = PolicyClient(served.port, timeout_s=60)
    with pytest.raises(ValueError, match=r"^runner: images\.View1: expected uint8 pixels from 0 to 255, found float64"):
        client.step(observed(images={**observed()["images"], "View1": np.ones((24, 32, 3))}))
    assert client.step(observed()).shape == (7,)
    client.close()
    with pytest.raises((OSError, http.client.HTTPException)):  # no new connection, which would lack the history
        client.step(observed())


def array(**changes: Any) -> bytes:
    return bytes(msgpack.packb({"state": {"dtype": "<f4", "shape": [1], "data": b"abcd"} | changes}))


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"", 400, "the body is no observation"),
        (b"\xc1", 400, "the body is no observation"),
        (b"\x91" * 100_000, 400, "the body is no observation"),
        (array(dtype="|O8"), 400, "expected an array of numbers, found dtype '|O8'"),
        (array(dtype="<f4,<f4"), 400, "expected an array of numbers"),
        (array(dtype=4), 400, "the body is no observation"),
        (array(shape=[2**40]), 400, "the body is no observation"),
        (array(shape=[-(2**63)]), 400, "runner: state: expected 12 numbers, found 1"),
        (array(data=7), 400, "the body is no observation"),
        (array(), 400, "runner: state: expected 12 numbers, found 1"),
        (pack([1]), 400, "runner: expected a dict, found a list"),
    ],
    ids=[
        "nothing",
        "no msgpack",
        "deep",
        "objects",
        "records",
        "no text",
        "huge",
        "negative",
        "no bytes",
        "short",
        "list",
    ],
)
def test_bodies_that_are_no_observation_are_refused(served: Served, body: bytes, status: int, line: str) -> None:
    found = ask(served, "POST", "/step", body)
    assert found[0] == status
    assert line in found[1]
    assert "\n" not in found[1]


def test_what_a_web_page_could_send_is_refused(served: Served) -> None:
    assert ask(served, "POST", "/step", pack({}), kind="text/plain")[0] == 415
    assert ask(served, "POST", "/step", pack({}), host="evil.example")[0] == 403
    assert ask(served, "GET", "/spec", host="evil.example:8765")[0] == 403
    assert ask(served, "GET", "/weights")[0] == 404


def test_arrays_survive_the_way_bit_for_bit() -> None:
    for value in (
        np.arange(6, dtype="<u2").reshape(2, 3),
        np.zeros((0, 4), np.float32),
        np.array(0.1),
        np.eye(3)[::-1],
    ):
        found = unpack(pack({"x": value}))["x"]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert (found == value).all()
    with pytest.raises(TypeError, match="expected numbers, found object"):
        pack({"x": object()})


def test_the_client_is_one_short_file_that_needs_no_torch() -> None:
    source = Path(vlapipe.__file__).parent / "train" / "robot" / "client.py"
    assert len(source.read_text().splitlines()) <= 50
    loaded = "sorted(name for name in sys.modules if 'torch' in name or 'vla' in name)"
    code = f"import runpy, sys; runpy.run_path({str(source)!r}); print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("options", [["--execute", "99"], ["--embodiment", "ur5"], ["--checkpoint", "newst"]])
def test_wrong_options_end_in_one_line_before_it_listens(run: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "vlapipe", "serve", str(run), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=300)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("vlapipe: ")


def test_a_port_in_use_is_said_and_sigterm_ends_it_cleanly(run: Path) -> None:
    server = Served(run)
    command = [sys.executable, "-m", "vlapipe", "serve", str(run), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=300)
    assert done.returncode == 2
    assert f"port {server.port}: Address already in use" in done.stderr
    client = PolicyClient(server.port, timeout_s=60)  # idle when it ends
    code, rest = server.end(signal.SIGTERM)
    assert (code, "Traceback" in rest) == (0, False)
    client.close()


def test_the_code_of_the_page_runs_here_and_through_the_client(tiny_dataset: Path, tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "robot.md"
    here, there = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    run = make_run(tiny_dataset, tmp_path / "run", sample={})
    server = Served(run)
    code = f"{here}\n{there.replace('8765', str(server.port))}\nprint(action.shape, policy.spec)"
    client = Path(vlapipe.__file__).parent / "train" / "robot"
    paths = environment(PYTHONPATH=os.pathsep.join([environment()["PYTHONPATH"], str(client)]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=paths
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(7,)") == 1
    shown = [line.partition(":")[0] for line in done.stdout.splitlines()]
    for line in re.findall(r"^```text\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)[0].splitlines():
        assert line.partition(":")[0] in shown, line
    assert server.end()[0] == 0
