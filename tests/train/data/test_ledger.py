"""Runs that are really killed again and again and resume with other ranks: no frame is missed and none comes twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

import vlapipe
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

MAIN = Path(__file__).with_name("ledger_main.py")
EPOCHS = 3


def start(data: Path, ledger: Path, options: dict[str, Any], world_size: int, rng: random.Random) -> Popen[str]:
    numbers = [world_size, rng.choice([1, 2]), rng.choice([0, 1, 2]), EPOCHS]
    command = [sys.executable, str(MAIN), str(data), str(ledger), *map(str, numbers), json.dumps(options)]
    return Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle_shards": 1},
        {"weights": {"task": {"insert_blue": 2.5}}},
        {"shuffle_shards": 1, "weights": {"task": {"insert_blue": 2.5}}},
    ],
)
def test_three_epochs_with_twenty_kills_are_one_sequence(
    tiny_dataset: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    ledger, rng = tmp_path / "ledger.json", random.Random(5)  # noqa: S311 - when to kill
    for kill in range(20):
        process = start(tiny_dataset, ledger, options, (1, 2, 4, 8)[kill % 4], rng)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 4)):
            assert process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.003))
        process.kill()
        process.communicate()
        assert process.returncode < 0, "all was read before the last kill"
    assert start(tiny_dataset, ledger, options, 2, rng).communicate()[0]
    found = json.loads(ledger.read_text())["frames"]
    whole = Loader(
        vlapipe.open_dataset(tiny_dataset), batch_size=len(found), endless=True, num_workers=0, seed=11,
        window=Window(state_rows=1, sensor_rows=1, action_rows=1), **options,
    )  # fmt: skip
    assert found == next(iter(whole))["index"].tolist()
    if not options.get("weights"):
        assert sorted(found[: EPOCHS * whole.num_frames]) == sorted(list(range(whole.num_frames)) * EPOCHS)
