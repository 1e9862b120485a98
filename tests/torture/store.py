"""Lets requests to a store fail, kills commands on it, and lets several machines append to one dataset in it at once.

``python tests/torture/store.py --kills 60 --processes 8 --appends 25 --opens 300 --seed 0``

The store is a real S3 server on loopback. Each command is run with its k-th request failing, for every k and in each
way (503, half a body, no answer): the store then holds what an undisturbed run leaves. The same with all requests from
the k-th on failing: the command ends with one line, what was committed verifies, and the same command finishes. Each
machine is a process with a cache of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from generations import SCHEMA, SMALL_SHARD, say
from store_server import BUCKET, FAILURES, FailingProxy, environment, serve
from tiny_lab import make_lab

from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.repair.from_source import FromSource
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.manifest.generations import generations
from vlapipe.pipeline.shards.stores import copies
from vlapipe.pipeline.shards.stores.copies import folder_of
from vlapipe.pipeline.shards.stores.store import Store
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import StoppedError
from vlapipe.schemas.paths import Address, dataset_path

COMMANDS = ("ingest", "append", "edit", "read", "verify", "repair")
SHORT_WAIT_S = "0.05"
_ALWAYS_WINS = "ALWAYS_WINS"


class Lab:
    """Recordings, and datasets of them in a store, each in the state before a command."""

    def __init__(self, root: Path, server: int) -> None:
        self.root, self.server = root, server
        self.first, self.more, self.schema = root / "first" / "raw", root / "more" / "raw", root / "lab.toml"
        if not root.exists():
            make_lab(self.first, {f"ep{i:02d}": {"n": i} for i in range(3)})
            shutil.copytree(self.first, self.more)
            make_lab(self.more, {"ep07": {"n": 7}, "ep08": {"n": 8}})
            self.schema.write_text(SCHEMA)

    def use(self, port: int, wait_s: str = "60") -> None:
        """Let this process find the store at a port, and forget what it knows of stores."""
        os.environ |= {**environment(port), "VLAPIPE_STORE_WAIT": wait_s}
        copies._known.clear()

    def new_machine(self) -> None:
        """Begin with an empty cache."""
        os.environ["VLAPIPE_CACHE_DIR"] = str(self.root / "caches" / uuid.uuid4().hex)
        copies._known.clear()

    def before(self, what: str) -> str:
        """Make what the command begins with, in a new folder of the store. Returns the address."""
        address = f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
        if what != "ingest":
            self.ingest(self.first, address)
        if what == "repair":
            store = store_at(address)
            first, second, *_ = sorted(name for name in store.walk() if name.startswith("shards/"))
            store.delete([first])
            for name in (second, "manifest.json", ".ingested.json"):
                data = bytearray(store.read(name))
                data[len(data) // 3] ^= 1
                store.put(name, bytes(data))
        return address

    def ingest(self, raw: Path, address: str) -> None:
        """Ingest, each episode into a shard of its own."""
        out = dataset_path(address)
        ingest(IngestConfig(source=raw, out=out, schema=str(self.schema), workers=1, shard_bytes=SMALL_SHARD))

    def begin(self, what: str, address: str, *, times: int = 1) -> subprocess.Popen[bytes]:
        """Run a command in a new process, a machine of its own. Returns when it is about to begin."""
        command = [sys.executable, __file__, "--lab", self.root, "--port", str(self.server), "--do", what]
        with (self.root / "log").open("ab") as log:
            begun = subprocess.Popen(
                [*command, "--address", address, "--times", str(times)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert begun.stdout is not None
        assert begun.stdout.readline() == b"begins\n", (self.root / "log").read_text()[-3000:]
        return begun

    def do(self, what: str, address: str, times: int) -> None:
        """Run a command, or several appends, in this process that ``begin`` started."""
        self.use(self.server)
        say("begins")
        if what != "appends":
            self.run(what, address)
            return
        name = uuid.uuid4().hex[:6]
        raw = self.root / f"machine-{name}" / "raw"
        for i in range(times):
            make_lab(raw, {f"ep_{name}_{i:03d}": {"n": i}})
            self.ingest(raw, address)

    def run(self, what: str, address: str) -> None:
        """Run a command to its end, and compare what it reads."""
        if what in ("ingest", "append"):
            self.ingest(self.first if what == "ingest" else self.more, address)
        elif what == "edit":
            edit(folder_of(dataset_path(address)), ["ep01"], Edit(drop=True), note="shaky")
        elif what == "repair":
            copy = folder_of(dataset_path(address))
            repair(copy, FromSource(copy, self.first, workers=1, schema=str(self.schema)))
        elif what == "read":
            dataset = open_dataset(address)
            assert [float(dataset[i]["robot/q"][0]) for i in range(3)] == [0.0, 1.0, 2.0]
        else:
            assert verify(folder_of(dataset_path(address))).faults == []


def store_at(address: str) -> Store:
    """The objects of a dataset."""
    found = dataset_path(address)
    assert isinstance(found, Address)
    return Store(found)


def tree(address: str) -> dict[str, str]:
    """The digest of each object, and of the history what does not depend on time and place."""
    store, digests = store_at(address), {}
    for name in store.walk():
        data = store.read(name)
        if name.startswith(".log/"):
            entry = json.loads(data)
            data = json.dumps([entry[key] for key in ("generation", "what", "note", "changes")]).encode()
            name = ".log/" + name.rpartition("/")[2].partition("-")[0]
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def fail_requests(lab: Lab, sample: int | None, seed: int) -> None:
    """Let every request of each command fail, once and for good."""
    chance = random.Random(seed)  # noqa: S311
    with FailingProxy(lab.server) as proxy:
        for what in COMMANDS:
            lab.new_machine()
            lab.use(lab.server)
            address = lab.before(what)
            lab.new_machine()
            lab.use(proxy.port)
            proxy.pass_all()
            lab.run(what, address)
            count, expected = proxy.num_requests, tree(address)
            told: Counter[str] = Counter(requests=count)
            numbers = range(1, count + 1)
            for k in numbers if sample is None else sorted(chance.sample(numbers, min(sample, count))):
                for failure in FAILURES:
                    for is_for_good in (False, True):
                        told[try_failure(lab, proxy, what, k, failure, expected, is_for_good=is_for_good)] += 1
            say(f"{what}: {', '.join(f'{n} {name}' for name, n in told.items())}")


def try_failure(
    lab: Lab, proxy: FailingProxy, what: str, k: int, failure: str, expected: dict[str, str], *, is_for_good: bool
) -> str:
    """Let request ``k`` fail, or all from it on. Returns what happened; raises an error if anything is wrong."""
    lab.new_machine()
    lab.use(lab.server)
    address = lab.before(what)
    lab.new_machine()
    lab.use(proxy.port, SHORT_WAIT_S if is_for_good else "60")
    proxy.fail(k, failure, count=10**6 if is_for_good else 1)
    happened = "finished"
    try:
        lab.run(what, address)
    except StoppedError as error:
        if not is_for_good or address not in str(error):
            raise
        happened = "stopped"
    proxy.pass_all()
    lab.use(lab.server)
    if happened == "stopped":
        if what != "repair" and (generations(folder_of(dataset_path(address))) or what != "ingest"):
            assert verify(folder_of(dataset_path(address))).damage == []
        lab.run(what, address)
    found = tree(address)
    assert found == expected, (what, k, failure, is_for_good, sorted(found.items() ^ expected.items()))
    return happened


def kill_commands(lab: Lab, kills: int, seed: int) -> None:
    """Kill ingests and appends into the store at random instants; the same command then finishes."""
    chance = random.Random(seed)  # noqa: S311
    lab.use(lab.server)
    for what in ("ingest", "append", "edit"):
        lab.new_machine()
        address = lab.before(what)
        started = time.monotonic()
        lab.run(what, address)
        length_s, expected = 1.3 * (time.monotonic() - started), tree(address)
        told = Counter[str]()
        for _ in range(kills // 3):
            lab.new_machine()
            address = lab.before(what)
            begun = lab.begin(what, address)
            time.sleep(chance.uniform(0, length_s))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(begun.pid, signal.SIGKILL)
            code = begun.wait()
            assert code in (0, -signal.SIGKILL), (lab.root / "log").read_text()[-3000:]
            told["killed" if code else "finished first"] += 1
            if chance.random() < 0.5:
                lab.new_machine()  # another machine finishes
            copies._known.clear()
            lab.run(what, address)
            found = tree(address)
            told["lost"] += len(expected.keys() - found.keys())
            told["left over"] += len(found.keys() - expected.keys())
            told["differ"] += sum(found[name] != expected[name] for name in found.keys() & expected.keys())
            assert found == expected, (what, told, sorted(found.items() ^ expected.items()))
        say(f"{what} killed: {', '.join(f'{n} {name}' for name, n in told.items())}")


def append_at_once(lab: Lab, processes: int, appends: int, opens: int) -> None:
    """Let several machines append to one dataset at the same time, and open it meanwhile."""
    lab.new_machine()
    lab.use(lab.server)
    address = f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
    lab.ingest(make_lab(lab.root / "alone" / "raw", {"ep_first": {"n": 0}}), address)

    machines = []
    for _ in range(processes):
        lab.new_machine()
        machines.append(lab.begin("appends", address, times=appends))
    lab.new_machine()
    seen: set[str] = set()
    newest, partial, num_opens = 0, 0, 0
    while any(machine.poll() is None for machine in machines) or num_opens < opens:
        opened = open_dataset(address)
        ids = set(opened.column("id").tolist())
        partial += not (seen <= ids and newest <= opened.generation == len(ids) == len(opened))
        seen, newest, num_opens = ids, opened.generation, num_opens + 1
    assert [machine.wait() for machine in machines] == [0] * processes, (lab.root / "log").read_text()[-3000:]
    expected = {"ep_first"} | {path.name for path in lab.root.glob("machine-*/raw/ep_*")}
    assert len(expected) == 1 + processes * appends
    found = open_dataset(address).column("id").tolist()
    faults = verify(folder_of(dataset_path(address))).faults
    say(
        f"{processes} machines x {appends} appends: {len(found) - 1} episodes, {len(expected - set(found))} lost, "
        f"{len(found) - len(set(found))} twice, {num_opens} opens, {partial} partial views, {len(faults)} faults"
    )
    assert sorted(found) == sorted(expected)
    assert (partial, faults) == (0, [])


def always_win(*_: Any) -> bool:
    """Replace the conditional put: the last one to write wins."""
    store, name, data = _
    store.put(name, data)
    return True


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="requests of each command that are tried; by default all")
    parser.add_argument("--kills", type=int, default=60, help="over all commands")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--appends", type=int, default=25, help="of each process")
    parser.add_argument("--opens", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-conditional-put", action="store_true")
    parser.add_argument("--lab", type=Path, help=argparse.SUPPRESS)  # of the processes that this one starts
    for name in ("--do", "--address"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--port", "--times"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.without_conditional_put or os.environ.get(_ALWAYS_WINS):
        os.environ[_ALWAYS_WINS] = "1"
        Store.put_new = always_win  # type: ignore[method-assign]
    if asked.do:
        Lab(asked.lab, asked.port).do(asked.do, asked.address, asked.times)
        return
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "server.log") as port:
        lab = Lab(Path(folder) / "lab", port)
        if asked.sample != 0:
            fail_requests(lab, asked.sample, asked.seed)
        if asked.kills:
            kill_commands(lab, asked.kills, asked.seed)
        if asked.processes:
            append_at_once(lab, asked.processes, asked.appends, asked.opens)


if __name__ == "__main__":
    main()
