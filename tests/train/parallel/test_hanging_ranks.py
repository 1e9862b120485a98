"""A rank that is stopped, or whose policy never returns, ends all ranks soon, and is named with the place."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import SMALL, WITHIN_S, Rank, options, run_ranks

from vlapipe.schemas.errors import StoppedError
from vlapipe.train.parallel.activity import Activity, hanging_ranks

LIMIT_S = 8.0  # on a busy machine a rank that lives was seen to be silent for 4 s


def hang(data: Path, out: Path, how: str, parallel: str = "ddp") -> list[Rank]:
    policy_args = SMALL | {"how": how, "at": 3, "on_rank": 2}
    values = {"policy": "policies_under_test:HangsAtStep", "policy_args": policy_args, "hang_timeout_s": LIMIT_S}
    return run_ranks(options(data, out, max_steps=5, parallel=parallel) | values)


@pytest.mark.parametrize(("how", "parallel"), [("forward", "ddp"), ("backward", "ddp"), ("forward", "fsdp")])
def test_policy_that_loops_for_ever_on_one_rank_ends_all_with_its_name_place_and_stack(
    tiny_dataset: Path, tmp_path: Path, how: str, parallel: str
) -> None:
    ranks = hang(tiny_dataset, tmp_path / "run", how, parallel)
    assert [rank.code for rank in ranks] == [StoppedError.exit_code] * 4, ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    said = [line for rank in ranks for line in rank.err.splitlines() if line.startswith("vlapipe: ")]
    assert len(said) == 1
    assert said[0].startswith("vlapipe: rank 2 hangs: ")
    assert "policies_under_test.py:" in said[0]
    assert "in _loop_for_ever" in said[0]
    assert said[0] in ranks[2].err
    assert "in train_step" in ranks[2].err  # of the stack


def test_rank_that_is_stopped_ends_the_others_and_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = hang(tiny_dataset, tmp_path / "run", "stopped")
    others = [ranks[i] for i in (0, 1, 3)]
    assert [rank.code for rank in others] == [StoppedError.exit_code] * 3, ranks
    assert max(rank.seconds for rank in others) < WITHIN_S
    said = [line for rank in others for line in rank.err.splitlines() if line.startswith("vlapipe: ")]
    assert len(said) == 1
    assert said[0].startswith(f"vlapipe: rank 2 was lost: no sign of life for {LIMIT_S:g} s")


WAITS = """
import time
import vlapipe.train.parallel.rank_watch as rank_watch
from vlapipe.train.parallel.ranks import agree, distributed
rank_watch._NOTICE_S = 1.0

def read_slowly():
    while ranks.links.watch._notice_s < 8:  # until it has said three times that it is waited for, after 1, 2 and 4 s
        time.sleep(0.1)

with distributed(hang_timeout_s=3.0) as ranks, agree(ranks):
    if ranks.rank == 2:
        read_slowly()
"""


def test_rank_that_is_busy_for_longer_than_the_limit_ends_nothing_and_says_that_it_is_waited_for() -> None:
    ranks = run_ranks(None, code=WAITS)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    assert [bool(rank.err) for rank in ranks] == [False, False, True, False]
    assert [line.split(" s: ")[1] for line in ranks[2].err.splitlines()] == ["it is at rank:9 in read_slowly"] * 3


def row(number: int, seconds: float, *, waits: bool = False, longest_s: float = 1.0) -> list[int]:
    return [number, int(1e3 * seconds), int(waits), *[int(1e3 * longest_s)] * 4]


@pytest.mark.parametrize(
    ("rows", "hanging"),
    [
        ([row(-2, 99), row(0, 41), row(-2, 99)], [1]),
        ([row(-2, 99), row(0, 39), row(-2, 99)], []),
        ([row(-2, 99), row(-1, 999), row(-2, 99)], []),  # reads, or saves
        ([row(1, 50, waits=True), row(1, 50), row(1, 50, waits=True)], [1]),
        ([row(1, 50, waits=True)] * 3, [0, 1, 2]),
        ([row(1, 50, waits=True), row(-1, 50), row(1, 50, waits=True)], []),  # the gradient of a rank that reads
        ([row(0, 41, longest_s=0), row(0, 41, longest_s=14)], []),  # 14 s are usual
        ([row(0, 600, longest_s=0)] * 2, []),  # the first one may compile
    ],
)
def test_rank_hangs_by_what_all_ranks_do(rows: list[list[int]], hanging: list[int]) -> None:
    assert hanging_ranks(rows, 40.0) == hanging


def test_time_of_an_inner_phase_is_not_that_of_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vlapipe.train.parallel.activity.time.monotonic", lambda: now[0])
    activity = Activity()
    with activity.during("forward"):
        now[0] += 0.25
        with activity.during("data"):
            now[0] += 50
        assert activity.row()[:2] == [0, 250]
    assert activity.row()[0] == -1
    assert activity.row()[3] == 250
