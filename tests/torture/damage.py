"""Damages a small dataset in every way, and counts what ``verify`` finds and ``repair`` makes whole again.

``python tests/torture/damage.py --flips 10000 --others 2000 --shards 500 --damaged 50 --seed 0``

Each flipped bit, cut, exchange, older file or deletion must be found with its file, kind, shard and episodes, and
nothing else may be found. A repair must make exactly the damaged files again, bit for bit, and touch no other.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_lab import ingest_lab, make_lab, schema_text

from vlapipe.pipeline.repair.from_source import FromSource
from vlapipe.pipeline.repair.origin import FromCopy, Origin
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM, Manifest
from vlapipe.pipeline.shards.verify.verify import verify

NUM_SHARDS = 6
EPISODES_A_SHARD = 2


def make(root: Path, num_shards: int, shard_format: str = "zarr", *, first: float = 0.0) -> Path:
    """Write recordings, of which one is rejected, and ingest them. ``first`` is added to the stamps."""
    raw, names = root / "raw", [f"ep{i:04d}" for i in range(num_shards * EPISODES_A_SHARD)]
    make_lab(raw, dict.fromkeys(names))
    for name in names:
        table = raw / name / "robot.csv"
        rows = [line.split(",") for line in table.read_text().splitlines()]
        # As many digits in each episode, so that each shard has as many episodes.
        rows[1:] = [[f"{float(time) + 1e6:.3f}", f"{float(q) + 1e3 + first:.4f}"] for time, q in rows[1:]]
        table.write_text("".join(",".join(row) + "\n" for row in rows))
    (raw / "epbad").mkdir()
    (raw / "epbad" / "robot.csv").write_text("t,q\n1,1\n2,no number\n")
    size = sum(file.stat().st_size for file in (raw / "ep0000").iterdir()) // 8 * EPISODES_A_SHARD + 2
    ingest_lab(raw, root / "data", schema_text(), shard_bytes=size, shard_format=shard_format, workers=1)
    return root / "data"


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def digest(folder: Path) -> str:
    """One SHA-256 over all names and bytes."""
    sha = hashlib.sha256()
    for name, data in sorted(tree(folder).items()):
        sha.update(f"{name} {len(data)}\n".encode() + data)
    return sha.hexdigest()


def write(file: Path, data: bytes) -> None:
    """Replace a file, which may be read-only."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


@dataclass
class Turn:
    """One damage: the dataset's folder, the file whose turn it is, and what the dataset and an older one hold."""

    chance: random.Random
    data: Path
    file: str
    whole: dict[str, bytes]
    older: dict[str, bytes]

    def shards(self) -> list[str]:
        return [name for name in self.whole if name.startswith("shards/")]


Damage = Callable[[Turn], dict[str, str]]  # damages a file or two, and returns the kind of fault by file


def flip(turn: Turn) -> dict[str, str]:
    altered = bytearray(turn.whole[turn.file])
    altered[turn.chance.randrange(len(altered))] ^= 1 << turn.chance.randrange(8)
    write(turn.data / turn.file, bytes(altered))
    return {turn.file: "altered"}


def cut(turn: Turn) -> dict[str, str]:
    content = turn.whole[turn.file]
    write(turn.data / turn.file, content[: turn.chance.randrange(len(content))])
    return {turn.file: "truncated"}


def delete(turn: Turn) -> dict[str, str]:
    if turn.file == MADE_FROM:  # a copy without the hidden file is whole
        return cut(turn)
    (turn.data / turn.file).unlink()
    return {turn.file: "missing"}


def exchange(turn: Turn) -> dict[str, str]:
    """Exchange a shard with another, or write one over another."""
    one, other = turn.chance.sample(turn.shards(), 2)
    write(turn.data / one, turn.whole[other])
    if turn.chance.random() < 0.5:
        return {one: "swapped"}
    write(turn.data / other, turn.whole[one])
    return {one: "swapped", other: "swapped"}


def bring_back(turn: Turn) -> dict[str, str]:
    """Put a shard of an earlier ingest in a shard's place, or leave it beside with its own name."""
    one = turn.chance.choice(turn.shards())
    old = turn.chance.choice([name for name in turn.older if name.startswith("shards/")])
    name = turn.chance.choice([one, old])
    write(turn.data / name, turn.older[old])
    # Of a deflated shard of the same size, a flipped bit cannot be ruled out.
    is_like_a_flip = name.endswith(".npz") and name == one and len(turn.older[old]) == len(turn.whole[one])
    return {name: "altered" if is_like_a_flip else "stale"}


def leave(turn: Turn) -> dict[str, str]:
    """Leave a file that the dataset does not list."""
    name = turn.chance.choice(["shards/notes.txt", "shards/.vlapipe-tmp-7-00", ".vlapipe-tmp-7-01", "shards/a/b"])
    (turn.data / name).parent.mkdir(exist_ok=True)
    write(turn.data / name, b"left")
    return {name: "unlisted"}


OTHERS: list[Damage] = [cut, delete, exchange, bring_back, leave]


def find(root: Path, damages: list[Damage], times: int, seed: int) -> Counter[str]:
    """Damage one file after another and verify. Returns what was found, counted by kind.

    Raises:
        AssertionError: a damage was not found, or something else was.
    """
    chance, counts = random.Random(seed), Counter[str]()  # noqa: S311
    for number, shard_format in enumerate(("zarr", "npz")):
        here = root / f"{shard_format}-{damages[0].__name__}"
        data = make(here / "now", NUM_SHARDS, shard_format)
        whole, older = tree(data), tree(make(here / "before", NUM_SHARDS, shard_format, first=0.5))
        manifest = Manifest.read(data)
        shards = {shard["file"]: i for i, shard in enumerate(manifest.shards)}
        assert len(shards) == NUM_SHARDS, shards
        files = [name for name, content in whole.items() if content]
        assert len(files) == NUM_SHARDS + 7, files
        assert not verify(data).faults
        for turn in range(number, times, 2):
            damage, file = damages[turn // 2 % len(damages)], files[turn // 2 % len(files)]
            expected = damage(Turn(chance, data, file, whole, older))
            faults = verify(data).faults
            said = f"{damage.__name__} number {turn} of {file}: {expected}; found: {[*map(str, faults)]}"
            assert {fault.file: fault.kind for fault in faults} == expected, said
            for fault in faults:
                shard = shards.get(fault.file)
                episodes = None if shard is None else range(shard * EPISODES_A_SHARD, (shard + 1) * EPISODES_A_SHARD)
                assert (fault.shard, fault.episodes) == (shard, episodes), said
                counts[fault.kind] += 1
            counts["found"] += 1
            for name in expected:
                write(data / name, whole[name]) if name in whole else (data / name).unlink()
            shutil.rmtree(data / "shards" / "a", ignore_errors=True)
        assert tree(data) == whole
    return counts


def make_whole(root: Path, num_shards: int, damaged: int, seed: int) -> Counter[str]:
    """Damage some shards, repair from the recordings; then damage every file and repair from a copy.

    Raises:
        AssertionError: another file was made again, or the tree is not the one that it was.
    """
    chance, counts = random.Random(seed), Counter[str]()  # noqa: S311
    data = make(root, num_shards)
    shutil.copytree(data, root / "copy")
    whole, before = tree(data), digest(data)
    shards = sorted(name for name in whole if name.startswith("shards/"))
    origins: list[tuple[str, Origin, list[str]]] = [
        ("from the recordings", FromSource(data, root / "raw", workers=1), chance.sample(shards, damaged)),
        ("from a copy", FromCopy(data, root / "copy"), [name for name, content in whole.items() if content]),
    ]
    for what, origin, files in origins:
        inodes = {name: os.stat(data / name).st_ino for name in whole}  # noqa: PTH116
        for file in files:
            chance.choice([flip, cut, delete])(Turn(chance, data, file, whole, {}))
        done = repair(data, origin)
        assert sorted(fault.file for fault in done.repaired) == sorted(files), done.lines()
        assert not done.after.faults, done.lines()
        assert digest(data) == before
        touched = [name for name in whole if os.stat(data / name).st_ino != inodes[name]]  # noqa: PTH116
        assert set(touched) <= set(files), touched
        counts[f"of {len(whole)} files repaired {what}"] += len(done.repaired)
    return counts


def main() -> None:
    """Run all, in folders of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=2_000)
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--damaged", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, count_them in (
            ("flips", partial(find, root, [flip], wanted.flips, wanted.seed)),
            ("others", partial(find, root, OTHERS, wanted.others, wanted.seed)),
            ("repairs", partial(make_whole, root / "repairs", wanted.shards, wanted.damaged, wanted.seed)),
        ):
            told = ", ".join(f"{count} {what}" for what, count in count_them().items())
            sys.stdout.write(f"{name}: {told}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
