"""Kills appends, edits, merges, compactions and gc, and lets several append at once; then looks at what is left.

``python tests/torture/generations.py --kills 200 --kills-a-step 20 --processes 8 --appends 25 --opens 1000 --seed 0``

A killed command may leave the old generation or the new one, and nothing in between: the dataset opens and verifies
at once. The same command then finishes, and the tree is that of a run that nobody disturbed: no episode lost or there
twice, no file left over. Of appends at the same time none is lost, and who opens the dataset meanwhile sees whole
generations, each with the episodes of those before it. ``--without-exclusive-create`` lets a commit replace another
one's; the script must then fail.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe.pipeline.change.append
import vlapipe.pipeline.change.collect
import vlapipe.pipeline.change.commit
import vlapipe.pipeline.change.compact
import vlapipe.pipeline.change.contents
import vlapipe.pipeline.change.merge
import vlapipe.pipeline.change.work_folder
import vlapipe.pipeline.shards.manifest.generations
from vlapipe.pipeline.change.collect import collect
from vlapipe.pipeline.change.compact import compact
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.change.merge import merge
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.manifest.generations import generations
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.verify.verify import verify

CHANGE = vlapipe.pipeline.change
SCHEMA = schema_text(val=0.3)
SMALL_SHARD = 20  # in bytes: each episode is a shard
TWO_EPISODES = 400  # in bytes: compact joins two of them
# Each step by its module and function; a run is killed before it, or after it.
STEPS: dict[str, list[tuple[Any, str]]] = {
    "append": [
        (CHANGE.append, "place_shards"),
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "keep_first"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.commit, "sweep_entries"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "edit": [
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "compact": [
        (CHANGE.compact, "write_joined_shard"),
        (CHANGE.compact, "place_shards"),
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "merge": [
        (CHANGE.merge, "_is_linked"),
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "keep_first"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.commit, "sweep_entries"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "gc": [
        (CHANGE.collect, "commit_manifest"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.collect, "sweep_entries"),
        (CHANGE.collect, "remove_unlisted"),
        (CHANGE.work_folder, "_tidy"),
    ],
}


class Lab:
    """Recordings, a dataset of them in several generations, and the commands that are killed."""

    def __init__(self, root: Path) -> None:
        self.root, self.raw, self.start = root, root / "raw", root / "start"
        make_lab(self.raw, {f"ep{i:02d}": {"n": i} for i in range(5)})
        ingest_lab(self.raw, self.start, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
        self.first = root / "first"
        shutil.copytree(self.start, self.first)  # of one generation
        edit(self.start, ["ep01"], Edit(drop=True))
        edit(self.start, ["ep01"], Edit(restore=True))
        make_lab(root / "more", {f"ep{i:02d}": {"n": i} for i in range(5, 8)})
        self.other = root / "other"
        ingest_lab(root / "more", self.other, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
        shutil.copytree(root / "more", self.raw, dirs_exist_ok=True)
        with (self.raw / "ep02" / "robot.csv").open("a") as file:
            file.write("5000,0.5\n")
        shutil.rmtree(self.raw / "ep03")

    def run(self, what: str, data: Path) -> None:
        """Run a command to its end."""
        if what == "append":
            (data.parent / f"{data.name}.toml").write_text(SCHEMA)
            ingest_lab(self.raw, data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1, prune=True)
        elif what == "edit":
            edit(data, ["ep00", "ep04"], Edit(drop=True), note="shaky")
        elif what == "compact":
            compact(data, shard_bytes=TWO_EPISODES, workers=1)
        elif what == "merge":
            merge(data, [self.other])
        else:
            collect(data, keep=1)

    def copy(self, what: str, data: Path, chance: random.Random) -> None:
        """Make ``data`` the dataset before the command, of one generation or of several."""
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.first if what != "gc" and chance.random() < 0.5 else self.start, data)


def tree(data: Path) -> dict[str, bytes]:
    """Every file; of the history what does not depend on time and place."""
    found = {p.relative_to(data).as_posix(): p.read_bytes() for p in sorted(data.rglob("*")) if p.is_file()}
    for name in [name for name in found if name.startswith(".log/")]:
        entry = json.loads(found[name])
        told = {key: entry[key] for key in ("generation", "what", "note", "changes")}
        found[name] = json.dumps([told, entry["read"].get("gone")]).encode()
    return found


def child(work: Callable[[], None], log: Path) -> int:
    """Fork a process group that does the work, with its output in a file."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the parent prints it
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    return pid


def die_at(module: Any, name: str, *, after: bool, turn: int) -> None:
    """Let this process group be killed before or after the ``turn``-th call of a function."""
    whole, calls = getattr(module, name), Counter[str]()

    def watched(*arguments: Any, **named: Any) -> Any:
        calls[name] += 1
        if calls[name] == turn and not after:
            os.killpg(0, signal.SIGKILL)
        result = whole(*arguments, **named)
        if calls[name] == turn:
            os.killpg(0, signal.SIGKILL)
        return result

    setattr(module, name, watched)


def kill_once(lab: Lab, what: str, data: Path, kill: Callable[[], None] | None, after_s: float) -> bool:
    """Run a command in a child that kills itself, or is killed after some seconds. Returns whether it was killed."""

    def work() -> None:
        if kill is not None:
            kill()
        lab.run(what, data)

    pid = child(work, lab.root / "log")
    if kill is None:
        time.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), (lab.root / "log").read_text()[-3000:]
    return code != 0


def check(lab: Lab, what: str, data: Path, kill: Callable[[], None] | None, after_s: float, told: Counter[str]) -> None:
    """Kill a command, look at the dataset, finish the command, and compare with an undisturbed run."""
    before = open_dataset(data).generation
    undisturbed = lab.root / "undisturbed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    shutil.copytree(data, undisturbed)
    lab.run(what, undisturbed)
    expected, newest = tree(undisturbed), open_dataset(undisturbed).generation
    told["killed" if kill_once(lab, what, data, kill, after_s) else "finished first"] += 1
    found = open_dataset(data)
    assert found.generation in (before, newest), found.generation
    ids = found.column("id").tolist()
    told["twice"] += len(ids) - len(set(ids))
    told["torn"] += len(verify(data).damage)
    lab.run(what, data)
    now = tree(data)
    told["left over"] += len(now.keys() - expected.keys())
    told["lost"] += len(expected.keys() - now.keys())
    told["differ"] += sum(now[name] != expected[name] for name in now.keys() & expected.keys())
    told["faults"] += len(verify(data).faults)
    wrong = [name for name in ("twice", "torn", "left over", "lost", "differ", "faults") if told[name]]
    assert not wrong, (what, told, sorted(now.keys() ^ expected.keys()), verify(data).lines())


def kill_all(folder: Path, kills: int, kills_a_step: int, seed: int) -> None:
    """Kill commands at random instants, and at each named step."""
    chance = random.Random(seed)  # noqa: S311
    lab = Lab(folder / "lab")
    data = folder / "lab" / "data"
    for what, steps in STEPS.items():
        told = Counter[str]()
        lab.copy(what, data, chance)
        started = time.monotonic()
        lab.run(what, data)
        length_s = 1.3 * (time.monotonic() - started)
        for _ in range(kills // len(STEPS)):
            lab.copy(what, data, chance)
            check(lab, what, data, None, chance.uniform(0, length_s), told)
        say(f"{what}: {_numbers(told)}")
        for module, name in steps:
            at = Counter[str]()
            for k in range(kills_a_step):
                lab.copy(what, data, chance)
                turns = {"write_named": 4, "_is_linked": 4, "write_joined_shard": 2}
                turn = chance.randint(1, turns.get(name, 1))

                def kill(module: Any = module, name: str = name, after: bool = bool(k % 2), turn: int = turn) -> None:
                    die_at(module, name, after=after, turn=turn)

                check(lab, what, data, kill, 0.0, at)
            say(f"{what} at {name}: {_numbers(at)}")


def merge_at_once(folder: Path, processes: int) -> None:
    """Let processes merge at the same time, each another dataset into the same one."""
    folder.mkdir()
    data = folder / "data"
    ingest_lab(make_lab(folder / "first", {"ep_first": {"n": 0}}), data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
    others = [folder / f"other{number}" for number in range(processes)]
    for number, other in enumerate(others):
        raw = make_lab(folder / f"raw{number}", {f"ep_{number:02d}_{i}": {"n": i} for i in range(2)})
        ingest_lab(raw, other, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
    pids = [child(lambda other=other: merge(data, [other]), folder / "log") for other in others]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * processes, (folder / "log").read_text()[-3000:]
    expected = {"ep_first"} | {name for other in others for name in open_dataset(other).column("id").tolist()}
    ids = open_dataset(data).column("id").tolist()
    found = verify(data)
    lost, twice = len(expected - set(ids)), len(ids) - len(set(ids))
    say(
        f"{processes} merges at once: {len(ids) - 1} episodes, {lost} lost, {twice} twice, "
        f"{len(generations(data))} generations, {len(found.faults)} faults"
    )
    assert (lost, twice, found.faults) == (0, 0, []), found.lines()
    assert len(generations(data)) == 1 + processes
    assert not (data / ".ingest").exists()


def append_at_once(folder: Path, processes: int, appends: int, opens: int, compactions: int = 0) -> None:
    """Let processes append at the same time, each from recordings of its own, and open the dataset meanwhile.

    One more process joins their small shards, so many times.
    """
    folder.mkdir()
    first = make_lab(folder / "first", {"ep_first": {"n": 0}})
    data = folder / "data"
    ingest_lab(first, data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
    schema = folder / "data.toml"

    def work(number: int) -> None:
        from vlapipe.pipeline.ingest import IngestConfig, ingest

        raw = folder / f"raw{number}"
        for i in range(appends):
            # Of other lengths, or two processes would make one and the same shard, which compact leaves alone.
            make_lab(raw, {f"ep_{number:02d}_{i:03d}": {"n": i}}, num_rows=12 + number)
            config = IngestConfig(source=raw, out=data, schema=str(schema), workers=1, shard_bytes=SMALL_SHARD)
            ingest(config)

    def join() -> None:
        for _ in range(compactions):
            time.sleep(0.2)
            compact(data, shard_bytes=2 * TWO_EPISODES, workers=1)

    pids = [child(lambda number=number: work(number), folder / "log") for number in range(processes)]
    pids += [child(join, folder / "log")] if compactions else []
    seen: set[str] = set()
    newest, partial, done, num_opens = 0, 0, set[int](), 0
    while len(done) < len(pids) or num_opens < opens:
        opened = open_dataset(data)
        ids = set(opened.column("id").tolist())
        files = [data / shard["file"] for shard in opened.manifest.shards]
        is_whole = seen <= ids and opened.generation >= newest and all(file.exists() for file in files)
        is_counted = compactions > 0 or len(ids) == opened.generation
        partial += not is_whole or len(ids) != len(opened) or not is_counted
        seen, newest, num_opens = ids, opened.generation, num_opens + 1
        for pid in pids:
            if pid not in done and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                done.add(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * len(pids), (folder / "log").read_text()[-3000:]
    expected = {"ep_first"} | {f"ep_{number:02d}_{i:03d}" for number in range(processes) for i in range(appends)}
    ids = open_dataset(data).column("id").tolist()
    found = verify(data)
    lost, twice = len(expected - set(ids)), len(ids) - len(set(ids))
    told = entries(data)
    joined = sum(entry.what == "compact" for entry in told)
    say(
        f"{processes} processes x {appends} appends, {joined} compactions: {len(ids) - 1} episodes, {lost} lost, "
        f"{twice} twice, {len(generations(data))} generations, {len(told)} in the log, {num_opens} opens, "
        f"{partial} partial views, {len(found.faults)} faults"
    )
    assert (lost, twice, partial, found.faults) == (0, 0, 0, []), found.lines()
    assert len(generations(data)) == len(told) == 1 + processes * appends + joined
    assert all(len(entry.changes["added"]) == 1 for entry in told[1:] if entry.what != "compact")
    assert not (data / ".ingest").exists()


def replace_others() -> None:
    """Take the exclusive create out: a commit then replaces one of the same number."""

    def link_new(source: Path, target: Path) -> bool:
        shutil.copyfile(source, f"{target}.{os.getpid()}")
        Path(f"{target}.{os.getpid()}").replace(target)
        return True

    vlapipe.pipeline.shards.manifest.generations.link_new = link_new


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _numbers(told: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in told.items())


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at random instants, over all commands")
    parser.add_argument("--kills-a-step", type=int, default=20)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--appends", type=int, default=25, help="of each process")
    parser.add_argument("--compactions", type=int, default=25, help="beside the appends of a second round")
    parser.add_argument("--opens", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-exclusive-create", action="store_true")
    asked = parser.parse_args()
    if asked.without_exclusive_create:
        replace_others()
    with tempfile.TemporaryDirectory() as folder:
        if asked.kills or asked.kills_a_step:
            kill_all(Path(folder), asked.kills, asked.kills_a_step, asked.seed)
        if asked.processes:
            told = asked.processes, asked.appends, asked.opens
            append_at_once(Path(folder) / "at-once", *told)
            if asked.compactions:
                append_at_once(Path(folder) / "compacted", *told, asked.compactions)
            merge_at_once(Path(folder) / "merges", asked.processes)


if __name__ == "__main__":
    main()
