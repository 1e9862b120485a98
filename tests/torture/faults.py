"""Lets each call that opens, writes, syncs, renames or links a file fail in turn, in commands that change a dataset.

``python tests/torture/faults.py --seed 0``

Each time the command must end with exit code 5 and one line that names the path and the reason; what was committed
must verify; and the same command must finish, with the tree that an undisturbed run makes. A command may also pass over
a failure and finish, with the same tree. ``--sample N`` tries N calls of each command and error, drawn by the seed.
``--jobs N`` tries so many commands side by side, each in a process of its own.
"""

from __future__ import annotations

import argparse
import errno
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow.dataset  # noqa: F401 - no child then imports it
from failing_calls import Ended, can_fail_calls, run_failing
from generations import SCHEMA, SMALL_SHARD, say, tree
from tiny_lab import ingest_lab, make_lab

import vlapipe.cli
import vlapipe.pipeline.build.cluster  # imported here, so that no child imports it
import vlapipe.pipeline.repair.from_source
import vlapipe.pipeline.show.ingest_text
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import VlapipeError

ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.EACCES]
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EIO: "the disk or its connection failed",
    errno.EDQUOT: "the disk quota is used up",
    errno.EMFILE: "as many files open as it may",
    errno.EACCES: "no permission",
}
COMMANDS = ("ingest", "append", "edit", "merge", "compact", "gc", "repair")
_GO_ON = "the same command then goes on"
_NOT_ONE_LINE = re.compile(r"Traceback|Exception|Error|\[Errno")


class Lab:
    """Recordings, and for each command the dataset that it begins with and the one that it leaves."""

    def __init__(self, root: Path) -> None:
        self.root, self.few, self.all, self.schema = root, root / "few", root / "all", root / "lab.toml"
        root.mkdir()
        self.schema.write_text(SCHEMA)
        make_lab(self.few, {f"ep{i:02d}": {"n": i} for i in range(3)})
        make_lab(root / "more", {f"ep{i:02d}": {"n": i} for i in range(3, 5)})
        self.other = root / "other"
        ingest_lab(root / "more", self.other, SCHEMA, shard_bytes=SMALL_SHARD, workers=1)
        shutil.copytree(self.few, self.all)
        shutil.copytree(root / "more", self.all, dirs_exist_ok=True)
        self.before: dict[str, Path | None] = {"ingest": None}
        self.after: dict[str, dict[str, bytes]] = {}
        for what in COMMANDS:
            if what == "repair":
                self._damage(root / "damaged")
            data = root / "data"
            self.copy(what, data)
            done = self.run(what, data)
            assert done.code == 0, done.said
            self.after[what] = tree(data)
            if what in ("ingest", "edit"):
                shutil.copytree(data, root / what)
                own = ("append", "edit", "merge", "compact") if what == "ingest" else ("gc",)
                self.before |= dict.fromkeys(own, root / what)

    def run(self, what: str, data: Path, *, turn: int = 0, error: int = 0) -> Ended:
        """Run the command in a child, in which a call fails."""
        sys.argv = ["vlapipe", *self._arguments(what, data)]
        watched = [data, self.few, self.all, self.other]
        return run_failing(vlapipe.cli.main, watched, self.root / "log", turn=turn, error=error)

    def copy(self, what: str, data: Path) -> None:
        """Make ``data`` what the command begins with."""
        shutil.rmtree(data, ignore_errors=True)
        before = self.before[what]
        if before is not None:
            shutil.copytree(before, data)

    def _arguments(self, what: str, data: Path) -> list[str]:
        if what in ("ingest", "append"):
            source = self.few if what == "ingest" else self.all
            options = ["--schema", str(self.schema), "--shard-size", str(SMALL_SHARD), "--workers", "1"]
            return ["ingest", "--dataset", str(source), "--out", str(data), *options]
        if what == "edit":
            return ["edit", str(data), "ep01", "--drop", "--note", "shaky"]
        if what == "compact":
            return ["compact", str(data), "--shard-size", "1kB", "--workers", "1"]
        if what == "merge":
            return ["merge", str(data), str(self.other)]
        if what == "gc":
            return ["gc", str(data), "--keep", "1", "--older-than", "0"]
        return ["repair", str(data), "--source", str(self.few), "--workers", "1"]

    def _damage(self, data: Path) -> None:
        """Take a shard and a table from the dataset, which recordings give again."""
        before = self.before["append"]
        assert before is not None
        shutil.copytree(before, data)
        sorted((data / "shards").iterdir())[0].unlink()
        next(data.glob("episodes-*.parquet")).unlink()
        self.before["repair"] = data


def fail_once(lab: Lab, what: str, turn: int, error: int) -> tuple[str, list[str]]:
    """Let one call fail, and finish the command. Returns how it ended, and what is wrong."""
    data = lab.root / "data"
    lab.copy(what, data)
    ended = lab.run(what, data, turn=turn, error=error)
    wrong = []
    if ended.code == 0:
        told = "passed over"
    else:
        told = "stopped"
        wrong += _faults_of_end(ended, lab.root, error)
        wrong += _faults_of_committed(what, data)
        again = lab.run(what, data)
        if again.code != 0:
            wrong.append(f"the same command ended with {again.code}: {again.said.strip()[-300:]}")
    now, expected = tree(data), lab.after[what]
    if now != expected:
        names = sorted(name for name in now.keys() | expected.keys() if now.get(name) != expected.get(name))
        wrong.append(f"the tree differs: {', '.join(names)}")
    if ended.failed is None and turn:
        told = "too few calls"
    call = "" if ended.failed is None else " ".join(ended.failed)
    return told, [f"{what}, call {turn} ({call}): {errno.errorcode[error]}: {each}" for each in wrong]


def _faults_of_end(ended: Ended, root: Path, error: int) -> list[str]:
    *before, last = ended.said.strip().splitlines() or [""]
    wrong = []
    if ended.code != 5:
        wrong.append(f"exit code {ended.code}")
    if _NOT_ONE_LINE.search(ended.said) or not last.startswith("vlapipe: ") or any(map(str.strip, before)):
        wrong.append("more than one line")
    if not (str(root) in last and REASONS[error] in last and _GO_ON in last):
        wrong.append("path, reason or cure are missing")
    return [f"{' and '.join(wrong)}: {last[-400:]}"] if wrong else []


def _faults_of_committed(what: str, data: Path) -> list[str]:
    """Return the damage of what is there: nothing is committed yet in a first ingest, a repair has not ended."""
    if what == "repair" or (what == "ingest" and not (data / "manifest.json").exists()):
        return []
    try:
        return [f"damage: {fault}" for fault in verify(data).damage]
    except VlapipeError as found:
        return [f"damage: {found}"]


def fail_each(lab: Lab, what: str, sample: int | None, chance: random.Random) -> list[str]:
    """Let each call of a command fail by each error, or a sample of them."""
    lab.copy(what, lab.root / "data")
    num_calls = lab.run(what, lab.root / "data").num_calls
    wrong: list[str] = []
    told = Counter[str]()
    for error in ERRORS:
        turns = range(1, num_calls + 1)
        for turn in turns if sample is None else sorted(chance.sample(turns, min(sample, num_calls))):
            how, faults = fail_once(lab, what, turn, error)
            told[how] += 1
            told["wrong"] += bool(faults)
            wrong += faults
    counts = ", ".join(f"{told[name]} {name}" for name in ("stopped", "passed over", "too few calls", "wrong"))
    say(f"{what}: {num_calls} calls, {len(ERRORS)} errors: {counts}")
    return wrong


def fail_all(commands: list[str], sample: int | None, seed: int) -> bool:
    """Let calls of these commands fail. Returns whether all was right."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder).resolve() / "lab")
        for what in commands:
            wrong += fail_each(lab, what, sample, random.Random(f"{seed} {what}"))  # noqa: S311
    for each in wrong:
        sys.stderr.write(f"{each}\n")
    return not wrong


def fail_side_by_side(commands: list[str], options: list[str], jobs: int) -> bool:
    """Let calls of each command fail in a process of its own. Returns whether all was right."""

    def run(what: str) -> bool:
        command = [sys.executable, __file__, "--commands", what, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        say(done.stdout.rstrip())
        sys.stderr.write(done.stderr)
        return done.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(run, commands)))


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="calls of each command and error. Default: all")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    why_not = can_fail_calls()
    if why_not:
        say(f"not tried: {why_not}")
        return
    commands = asked.commands.split(",")
    if asked.jobs > 1:
        options = [f"--seed={asked.seed}", *([f"--sample={asked.sample}"] if asked.sample else [])]
        is_right = fail_side_by_side(commands, options, asked.jobs)
    else:
        is_right = fail_all(commands, asked.sample, asked.seed)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
