"""Tortures the saving of checkpoints: kills inside a save, flipped bits. Prints counts; a wrong outcome is an error.

``python tests/torture/saves.py --kills 200 --flips 1000 --seed 0``
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.errors import DamageError
from vlapipe.train.checkpoint.commit import PartState, Plan, Snapshot, sweep, write_checkpoint
from vlapipe.train.checkpoint.files import FOLDER, all_checkpoints, read_checkpoint, step_of
from vlapipe.train.checkpoint.kept import KeepRules, remove_old

RULES = KeepRules(last=2, best=1, every=50)
_UP_TO_S = 0.08  # a save takes about a fifth of that


def snapshot(step: int, rank: int = 0) -> Snapshot:
    """A snapshot in which each number is the step."""
    sizes = {"policy": 50_000, "optimizer": 100_000, "rng": 100}
    parts = {name: PartState(tensors={f"{rank}": torch.full((size,), float(step))}) for name, size in sizes.items()}
    parts["counters"] = PartState(values={"step": step})
    return Snapshot(step=step, parts=parts, state={"config": {}, "spec": {}, "metrics": {"val/loss": 1 / step}})


def kill_saves(out: Path, kills: int, seed: int) -> Counter[str]:
    """Kill a process that saves again and again, at random instants. Returns what the kills left, counted.

    Raises:
        AssertionError: a checkpoint under its final name is not whole, or one that was saved is gone.
    """
    chance, counts, newest = random.Random(seed), Counter[str](), 0  # noqa: S311
    for _ in range(kills):
        reported = _saves_until_killed(out, newest, chance.uniform(0.0, _UP_TO_S))
        counts["saves that ended"] += reported - newest
        left = [path.name for path in (out / FOLDER).glob(f"{TEMP_PREFIX}*")]
        counts["kills inside a write"] += any("-old-" not in name for name in left)
        counts["kills inside a removal"] += any("-old-" in name for name in left)
        steps = []
        for path in all_checkpoints(out):
            stored = read_checkpoint(path)  # a damaged one raises
            for part in ("policy", "optimizer", "rng"):
                assert stored.part(part).tensors["0"].unique().tolist() == [float(step_of(path))]
            steps.append(stored.step)
            counts["checkpoints read"] += 1
        assert steps or not reported, "no checkpoint is left"
        # The kill may have come after the rename and before the report.
        assert not steps or reported <= max(steps) <= reported + 1, (reported, steps)
        newest = max([reported, *steps])
        sweep(out)
    counts["kills"] = kills
    counts["damaged checkpoints"] = 0  # else this line is not reached
    return counts


def _saves_until_killed(out: Path, step: int, seconds: float) -> int:
    """Fork a process that saves the steps after ``step``, kill it, and return the last step that it reported."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writer, b"begins\n")
            while True:
                step += 1
                write_checkpoint(out, snapshot(step))
                os.write(writer, f"{step}\n".encode())
                remove_old(out, RULES)
        os._exit(1)
    os.close(writer)
    select.select([reader], [], [])
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the process that saves failed"
    with os.fdopen(reader) as file:
        lines = file.read().split("\n")[:-1]
    return int(lines[-1]) if len(lines) > 1 else step


def flip_bits(out: Path, flips: int, seed: int) -> Counter[str]:
    """Flip single bits of a checkpoint that four ranks wrote, each file in turn. Returns counts by kind of file.

    Raises:
        AssertionError: a flipped bit was not found.
    """
    path, chance, counts = _write_by_four(out), random.Random(seed), Counter[str]()  # noqa: S311
    files = sorted(path.iterdir())
    for number in range(flips):
        file = files[number % len(files)]
        position, bit = chance.randrange(file.stat().st_size), 1 << chance.randrange(8)
        _flip(file, position, bit)
        try:
            read_checkpoint(path)
            found = ""
        except DamageError as error:
            found = error.problem
        assert str(file) in found, f"bit {bit} of byte {position} of {file.name} is flipped; found: {found!r}"
        _flip(file, position, bit)
        counts[f"found in {''.join(file.suffixes)}"] += 1
    read_checkpoint(path)
    counts["flips"] = flips
    return counts


def _flip(file: Path, position: int, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(position)
        [byte] = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ bit]))


def _write_by_four(out: Path) -> Path:
    """Write a checkpoint by four ranks, which are threads here."""
    store, writers = dist.HashStore(), {part: range(4) for part in ("policy", "optimizer", "rng")}
    plans = [Plan(rank=rank, writers=writers, token="four", store=store) for rank in range(4)]  # noqa: S106
    others = [threading.Thread(target=write_checkpoint, args=(out, snapshot(1, p.rank), p)) for p in plans[1:]]
    for thread in others:
        thread.start()
    path = write_checkpoint(out, snapshot(1), plans[0])
    for thread in others:
        thread.join()
    assert path is not None
    return path


def main() -> None:
    """Run both, in folders of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for torture, times in ((kill_saves, wanted.kills), (flip_bits, wanted.flips)):
            out = Path(folder) / torture.__name__
            out.mkdir()
            counts = torture(out, times, wanted.seed)
            sys.stdout.write(f"{torture.__name__}: {', '.join(f'{count} {what}' for what, count in counts.items())}\n")


if __name__ == "__main__":
    main()
