"""Kills every command that changes a dataset, and lets several append at once; then looks at what is left.

``python tests/torture/generations.py --kills 200 --kills-a-step 20 --processes 8 --appends 25 --opens 1000 --seed 0``

A killed command may leave the old generation or the new one, and nothing in between: the dataset opens and verifies
at once. A killed ingest leaves no dataset or a whole one, a killed repair no damage that was not there before. The same
command then finishes, and the tree is that of a run that nobody disturbed: no episode lost or there twice, no file left
over. Each kill that counts hit the command at work. At a named step it comes before or after one of the step's calls,
drawn from all calls that an undisturbed run makes. Of appends at the same time none is lost, and who opens the dataset
meanwhile sees whole generations, each with the episodes of those before it. ``--without-exclusive-create`` lets a
commit replace another one's; the script must then fail.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe.pipeline.build.build
import vlapipe.pipeline.build.output_folder
import vlapipe.pipeline.change.append
import vlapipe.pipeline.change.collect
import vlapipe.pipeline.change.commit
import vlapipe.pipeline.change.compact
import vlapipe.pipeline.change.contents
import vlapipe.pipeline.change.first
import vlapipe.pipeline.change.merge
import vlapipe.pipeline.change.work_folder
import vlapipe.pipeline.ingest
import vlapipe.pipeline.repair.repair
import vlapipe.pipeline.shards.manifest.generations
import vlapipe.pipeline.shards.manifest.manifest
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.change.collect import collect
from vlapipe.pipeline.change.compact import compact
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.change.merge import merge
from vlapipe.pipeline.repair.from_source import FromSource
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.manifest.generations import generations
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import NotADatasetError

BUILD, CHANGE, REPAIR = vlapipe.pipeline.build, vlapipe.pipeline.change, vlapipe.pipeline.repair.repair
SCHEMA = schema_text(val=0.3)
SMALL_SHARD = 20  # in bytes: each episode is a shard
TWO_EPISODES = 400  # in bytes: compact joins two of them
# Each step by its module and function; a run is killed before it, or after it.
Step = tuple[Any, str]
RENAMED: Step = (Path, "rename")  # before it, a whole file has its temporary name
STEPS: dict[str, list[Step]] = {
    "ingest": [
        RENAMED,
        (vlapipe.pipeline.ingest, "open_output"),
        (BUILD.build, "write_shard"),
        (BUILD.build, "write_bytes"),
        (MadeFrom, "write"),
        (CHANGE.first, "write_named"),
        (vlapipe.pipeline.shards.manifest.manifest, "write_bytes"),
        (BUILD.output_folder, "_close"),
    ],
    "append": [
        RENAMED,
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
        RENAMED,
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "compact": [
        RENAMED,
        (CHANGE.compact, "write_joined_shard"),
        (CHANGE.compact, "place_shards"),
        (CHANGE.contents, "write_named"),
        (CHANGE.commit, "write_entry"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "merge": [
        RENAMED,
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
        RENAMED,
        (CHANGE.collect, "commit_manifest"),
        (CHANGE.commit, "claim"),
        (CHANGE.commit, "publish"),
        (CHANGE.collect, "sweep_entries"),
        (CHANGE.collect, "remove_unlisted"),
        (CHANGE.work_folder, "_tidy"),
    ],
    "repair": [
        RENAMED,
        (REPAIR, "_make"),
        (REPAIR, "_is_the_same"),
        (REPAIR, "_replace"),
        (REPAIR, "remove_folder"),
    ],
}


WRONG = ("twice", "torn", "left over", "lost", "differ", "faults")


class Lab:
    """Recordings, a dataset of them in several generations, and the commands that are killed."""

    def __init__(self, root: Path) -> None:
        self.root, self.recorded, self.raw = root, root / "recorded", root / "raw"
        self.first, self.start, self.other = root / "first", root / "start", root / "other"
        make_lab(self.recorded, {f"ep{i:02d}": {"n": i} for i in range(5)})
        ingest_lab(self.recorded, self.first, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)  # of one generation
        shutil.copytree(self.first, self.start)
        edit(self.start, ["ep01"], Edit(drop=True))
        edit(self.start, ["ep01"], Edit(restore=True))
        make_lab(root / "more", {f"ep{i:02d}": {"n": i} for i in range(5, 8)})
        ingest_lab(root / "more", self.other, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
        for recorded in (self.recorded, root / "more"):
            shutil.copytree(recorded, self.raw, dirs_exist_ok=True)
        with (self.raw / "ep02" / "robot.csv").open("a") as file:
            file.write("5000,0.5\n")
        shutil.rmtree(self.raw / "ep03")

    def run(self, what: str, data: Path) -> None:
        """Run a command to its end."""
        if what == "ingest":
            ingest_lab(self.recorded, data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
        elif what == "append":
            (data.parent / f"{data.name}.toml").write_text(SCHEMA)
            ingest_lab(self.raw, data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1, prune=True)
        elif what == "edit":
            edit(data, ["ep00", "ep04"], Edit(drop=True), note="shaky")
        elif what == "compact":
            compact(data, shard_bytes=TWO_EPISODES, workers=1)
        elif what == "merge":
            merge(data, [self.other])
        elif what == "gc":
            collect(data, keep=1)
        else:
            repair(data, FromSource(data, self.recorded, workers=1))

    def copy(self, what: str, data: Path, chance: random.Random) -> None:
        """Make ``data`` the dataset before the command, of one generation or of several."""
        shutil.rmtree(data, ignore_errors=True)
        if what == "ingest":
            return
        is_first = what != "gc" and chance.random() < 0.5
        shutil.copytree(self.first if is_first else self.start, data)
        if what == "repair":
            lost, altered = chance.sample(sorted((data / "shards").iterdir()), 2)
            lost.unlink()
            altered.chmod(0o644)
            altered.write_bytes(altered.read_bytes()[:-1])
            if is_first:  # of a dataset that has grown, recordings give shards alone
                next(data.glob("episodes-*.parquet")).unlink()


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


@contextlib.contextmanager
def watched(step: Step, at_call: Callable[[int, bool], None]) -> Iterator[None]:
    """Report each call of a function, with its number from 1: before it (False) and after it (True)."""
    module, name = step
    whole, calls = getattr(module, name), Counter[str]()

    def told(*arguments: Any, **named: Any) -> Any:
        calls[name] += 1
        number = calls[name]
        at_call(number, False)
        result = whole(*arguments, **named)
        at_call(number, True)
        return result

    setattr(module, name, told)
    try:
        yield
    finally:
        setattr(module, name, whole)


def kill_at_step(lab: Lab, what: str, data: Path, step: Step, turn: int, *, after: bool) -> bool:
    """Run a command in a child that is killed before or after a call of this step. Returns whether it was killed."""

    def die(number: int, is_after: bool) -> None:
        if (number, is_after) == (turn, after):
            os.killpg(0, signal.SIGKILL)

    def work() -> None:
        with watched(step, die):
            lab.run(what, data)

    return was_killed(lab, child(work, lab.root / "log"))


def kill_after(lab: Lab, what: str, data: Path, seconds: float) -> bool:
    """Run a command in a child that is killed after some seconds. Returns whether it was killed."""
    pid = child(lambda: lab.run(what, data), lab.root / "log")
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return was_killed(lab, pid)


def was_killed(lab: Lab, pid: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), (lab.root / "log").read_text()[-3000:]
    return code != 0


def opened(data: Path) -> tuple[int, set[str]]:
    """Return the generation, 0 if there is none, and the damaged files."""
    try:
        generation = open_dataset(data).generation
    except NotADatasetError:
        return 0, set()
    return generation, {fault.file for fault in verify(data).damage}


def check(lab: Lab, what: str, data: Path, chance: random.Random, told: Counter[str], kill: Step | float) -> None:
    """Kill a command, look at the dataset, finish the command, and compare with an undisturbed run.

    ``kill`` is the step at which it is killed, or the seconds after which.
    """
    lab.copy(what, data, chance)
    before, damaged = opened(data)
    undisturbed = lab.root / "undisturbed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    if data.exists():
        shutil.copytree(data, undisturbed)
    if isinstance(kill, float):
        lab.run(what, undisturbed)
        killed = kill_after(lab, what, data, kill)
    else:
        numbers = [0]
        with watched(kill, lambda number, _: numbers.append(number)):
            lab.run(what, undisturbed)
        assert max(numbers), f"{what} has no step {kill[1]}"
        killed = kill_at_step(lab, what, data, kill, chance.randint(1, max(numbers)), after=chance.random() < 0.5)
        assert killed, f"{what} was not killed at {kill[1]}"
    expected = tree(undisturbed)
    told["killed" if killed else "finished first"] += 1
    generation, now_damaged = opened(data)
    assert generation in (before, open_dataset(undisturbed).generation), generation
    told["torn"] += len(now_damaged - damaged)
    if generation and not now_damaged:
        ids = open_dataset(data).column("id").tolist()
        told["twice"] += len(ids) - len(set(ids))
    lab.run(what, data)
    now = tree(data)
    told["left over"] += len(now.keys() - expected.keys())
    told["lost"] += len(expected.keys() - now.keys())
    told["differ"] += sum(now[name] != expected[name] for name in now.keys() & expected.keys())
    told["faults"] += len(verify(data).faults)
    wrong = [name for name in WRONG if told[name]]
    assert not wrong, (what, told, sorted(now.keys() ^ expected.keys()), verify(data).lines())


def kill_all(folder: Path, commands: list[str], kills: int, kills_a_step: int, seed: int) -> None:
    """Kill commands at random instants, and at each named step."""
    lab = Lab(folder / "lab")
    data = folder / "lab" / "data"
    whole = Counter[str]()
    for what in commands:
        chance = random.Random(f"{seed} {what}")  # noqa: S311
        told = Counter[str](dict.fromkeys(("killed", "finished first", *WRONG), 0))
        lab.copy(what, data, chance)
        started = time.monotonic()
        lab.run(what, data)
        length_s = 1.3 * (time.monotonic() - started)
        while told["killed"] < -(-kills // len(STEPS)):
            check(lab, what, data, chance, told, chance.uniform(0, length_s))
        say(f"{what}: {_numbers(told)}")
        whole += told
        for step in STEPS[what]:
            at = Counter[str](dict.fromkeys(("killed", *WRONG), 0))
            for _ in range(kills_a_step):
                check(lab, what, data, chance, at, step)
            say(f"{what} at {step[0].__name__.rpartition('.')[2]}.{step[1]}: {_numbers(at)}")
            whole += at
    wrong, num_steps = sum(whole[name] for name in WRONG), sum(len(STEPS[what]) for what in commands)
    say(f"{len(commands)} commands, {num_steps} steps: {whole['killed']} killed, {wrong} wrong")


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
    parser.add_argument("--kills", type=int, default=200, help="that hit, at random instants, over all commands")
    parser.add_argument("--commands", default=",".join(STEPS), help="that are killed")
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
            kill_all(Path(folder), asked.commands.split(","), asked.kills, asked.kills_a_step, asked.seed)
        if asked.processes:
            told = asked.processes, asked.appends, asked.opens
            append_at_once(Path(folder) / "at-once", *told)
            if asked.compactions:
                append_at_once(Path(folder) / "compacted", *told, asked.compactions)
            merge_at_once(Path(folder) / "merges", asked.processes)


if __name__ == "__main__":
    main()
