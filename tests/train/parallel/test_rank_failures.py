"""Four ranks without a supervisor: if one fails in any way, all end within seconds, and one says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launching import WITHIN_S, Rank, options, run_ranks
from test_loop import SMALL

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import StoppedError
from vlapipe.train.checkpoint.files import latest_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train

ERRORS = """
import errno, json, os, signal, sys, time
import torch, torch.distributed as dist
from safetensors import SafetensorError
from train_main import group_has_ended
from vlapipe.schemas.errors import DamageError, UsageError
from vlapipe.train.parallel.ranks import agree, distributed, sum_of

def fail(kind):
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {
        "usage": UsageError("wrong", "put it right"),
        "os": OSError(errno.ENOENT, "No such file", "x"),
        "safetensors": SafetensorError("torn"),
        "memory": MemoryError(),
        "runtime": RuntimeError("shapes differ"),
        "interrupted": KeyboardInterrupt(),
        "exit": SystemExit(3),
    }[kind]
"""

WITHIN_AGREE = (
    ERRORS
    + """
where, kind = json.loads(sys.argv[1])
try:
    with distributed() as ranks:
        if where == "late":
            time.sleep(0.3 * ranks.rank)
        with agree(ranks):
            if ranks.rank in (2, 3):
                fail(kind)
            if where == "busy":
                time.sleep(1000)
        print("came through")
except UsageError as error:
    sys.stderr.write(f"vlapipe: {error}\\n")
    sys.exit(error.exit_code)
finally:
    assert group_has_ended()
"""
)


def codes(ranks: list[Rank]) -> list[int]:
    return [rank.code for rank in ranks]


def assert_prompt(ranks: list[Rank], speaker: int, *words: str) -> None:
    """One rank spoke, none hung, none went on."""
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert [rank.out for rank in ranks] == [""] * len(ranks)
    assert [bool(rank.err) for rank in ranks] == [i == speaker for i in range(len(ranks))], ranks
    for word in words:
        assert word in ranks[speaker].err


@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("usage", 2, "vlapipe: wrong (put it right)"),
        pytest.param("os", 1, "FileNotFoundError", marks=pytest.mark.slow),
        pytest.param("safetensors", 1, "torn", marks=pytest.mark.slow),
        ("memory", 5, "MemoryError"),
        ("runtime", 1, "shapes differ"),
    ],
)
def test_any_error_on_two_of_four_ranks_is_said_once_and_ends_all_alike(kind: str, code: int, word: str) -> None:
    ranks = run_ranks(["late", kind], code=WITHIN_AGREE)
    assert [ranks[i].code for i in (0, 1, 3)] == [code] * 3, ranks
    assert ranks[2].code == (2 if kind == "usage" else 1)
    assert_prompt(ranks, 2, word)


def test_interrupt_and_exit_on_one_rank_end_all() -> None:
    ranks = run_ranks(["", "interrupted"], code=WITHIN_AGREE)
    assert codes(ranks)[:2] == [130, 130], ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert codes(run_ranks(["", "exit"], code=WITHIN_AGREE)) == [3] * 4


def test_ranks_that_are_busy_within_the_block_do_not_hold_up_the_end() -> None:
    ranks = run_ranks(["busy", "usage"], code=WITHIN_AGREE)
    assert codes(ranks) == [2] * 4, ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert [rank.err.startswith("vlapipe: wrong") for rank in ranks].count(True) >= 1
    assert not any(rank.err for rank in ranks[:2])


OUTSIDE = (
    ERRORS
    + """
kind, who = json.loads(sys.argv[1])
with distributed() as ranks:
    sum_of([1.0], ranks)
    if ranks.rank == who:
        time.sleep(0.2)
        fail(kind)
    if ranks.rank == 3:
        time.sleep(1000)
    if ranks.rank == 1:
        dist.all_reduce(torch.ones(10))
    sum_of([1.0], ranks)
    print("came through")
"""
)


@pytest.mark.parametrize("kind", ["runtime", "usage"])
def test_error_outside_of_an_agreement_ends_ranks_that_wait_and_one_that_sleeps(kind: str) -> None:
    ranks = run_ranks([kind, 2], code=OUTSIDE)
    code = 2 if kind == "usage" else 1
    assert [ranks[i].code for i in (0, 1, 3)] == [code] * 3, ranks
    assert_prompt(ranks, 2)
    assert ("vlapipe: this ended rank 2, and with it all 4 ranks" in ranks[2].err) == (kind != "usage")


@pytest.mark.parametrize(("who", "others"), [(2, [0, 1, 3]), (0, [1, 2, 3])])
def test_rank_that_is_killed_ends_the_others_as_stopped_by_their_surroundings(who: int, others: list[int]) -> None:
    ranks = run_ranks(["killed", who], code=OUTSIDE)
    assert codes(ranks)[who] == -9
    assert {ranks[i].code for i in others if i == 3} <= {StoppedError.exit_code}
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    said = [ranks[i].err for i in others if ranks[i].err]
    assert said
    assert all(f"rank {who} was lost: its process ended without a word" in text for text in said)


ANSWERS_LATE = """
import os, signal, sys, time
from vlapipe.schemas.errors import StoppedError
from vlapipe.train.parallel import rank_watch
from vlapipe.train.parallel.ranks import distributed, sum_of
answer = rank_watch.RankWatch._answer_roll_call

def answer_late(watch):
    time.sleep(2.5)
    answer(watch)

try:
    with distributed() as ranks:
        if ranks.rank == 1:
            rank_watch.RankWatch._answer_roll_call = answer_late
        sum_of([1.0], ranks)
        if ranks.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        sum_of([1.0], ranks)
except StoppedError as error:
    sys.stderr.write(f"vlapipe: {error}\\n")
    sys.exit(error.exit_code)
"""


def test_rank_that_answers_late_because_its_machine_is_busy_is_not_called_lost() -> None:
    ranks = run_ranks(None, code=ANSWERS_LATE)
    assert codes(ranks) == [5, 5, -9, 5], ranks
    lines = [line for rank in ranks for line in rank.err.splitlines()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("vlapipe: rank 2 was lost: its process ended without a word")


ANSWERS_AND_STALLS = ANSWERS_LATE.replace(
    "    time.sleep(2.5)\n    answer(watch)\n",
    """    put = watch._store.set
    class Store:
        check = watch._store.check
        def set(self, *entry):
            put(*entry)
            time.sleep(1.5)
    watch._store = Store()
    answer(watch)
""",
)


def test_rank_that_stalls_when_it_has_answered_does_not_call_the_first_rank_lost_that_ended_meanwhile() -> None:
    assert ANSWERS_AND_STALLS != ANSWERS_LATE
    ranks = run_ranks(None, code=ANSWERS_AND_STALLS)
    assert codes(ranks) == [5, 5, -9, 5], ranks
    lines = [line for rank in ranks for line in rank.err.splitlines()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("vlapipe: rank 2 was lost: its process ended without a word")


FINISHES = """
from train_main import group_has_ended
from vlapipe.train.parallel.ranks import agree, distributed, gather_bytes, sum_of
import time
with distributed() as ranks:
    with agree(ranks):
        time.sleep(0.05 * ranks.rank)
    assert gather_bytes(b"x" * ranks.rank, ranks) == [b"", b"x", b"xx", b"xxx"]
    time.sleep(0.3 * (ranks.rank == 2))
assert group_has_ended()
"""


def test_ranks_that_finish_one_after_another_end_well() -> None:
    for _ in range(3):
        ranks = run_ranks(None, code=FINISHES)
        assert [(rank.code, rank.err) for rank in ranks] == [(0, "")] * 4


def fails(data: Path, out: Path, how: str, at: int, on_rank: int, **changes: Any) -> list[Rank]:
    policy_args = SMALL | {"how": how, "at": at, "on_rank": on_rank}
    return run_ranks(options(data, out, policy="policies_under_test:FailsAtStep", policy_args=policy_args, **changes))


def test_policy_that_fails_on_one_rank_in_mid_run_ends_all_and_the_checkpoint_stays(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    ranks = fails(tiny_dataset, tmp_path / "run", "forward", 5, 2, save_every=2, grad_accum=2)
    assert codes(ranks) == [1] * 4, ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert "RuntimeError: forward fails" in ranks[2].err
    assert not any("Error" in ranks[i].err for i in (0, 1, 3)), ranks
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None


@pytest.mark.parametrize(
    ("how", "code"), [pytest.param("backward", 1, marks=pytest.mark.slow), ("killed", StoppedError.exit_code)]
)
def test_rank_that_is_missing_in_the_exchange_of_gradients_ends_all(
    tiny_dataset: Path, tmp_path: Path, how: str, code: int
) -> None:
    ranks = fails(tiny_dataset, tmp_path / "run", how, 3, 1, eval_every=9)
    assert [ranks[i].code for i in (0, 2, 3)] == [code] * 3, ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    if how == "killed":
        said = [rank.err for rank in ranks if "vlapipe: rank 1 was lost" in rank.err]
        assert len(said) == 1
        assert "--resume goes on" in said[0]
    assert not any("Traceback" in ranks[i].err for i in (0, 2, 3)), ranks


def test_rank_that_leaves_by_sys_exit_does_not_report_success(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = fails(tiny_dataset, tmp_path / "run", "exit", 3, 2, eval_every=9)
    assert codes(ranks) == [1] * 4, ranks
    assert ranks[2].err.splitlines()[-1].startswith("vlapipe: rank 2 was ended by sys.exit(None)")


def test_lack_of_memory_on_one_rank_ends_all_with_advice(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = fails(tiny_dataset, tmp_path / "run", "memory", 2, 1, eval_every=9)
    assert codes(ranks) == [StoppedError.exit_code] * 4, ranks
    assert ranks[1].err == (
        f"vlapipe: this machine's memory does not hold batch_size 2: you tried to allocate {1 << 50} bytes (try "
        "--batch-size 1 --grad-accum 2, or --gradient-checkpointing, or smaller images (--image-resize-height, "
        "--image-resize-width))\n"
    )


LIMITED = """
import json, resource, sys, train_main
values = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (values.pop("limit"), resource.RLIM_INFINITY))
sys.argv[1] = json.dumps(values)
train_main.main()
"""


@pytest.mark.parametrize(
    ("limit", "where"), [pytest.param(3_000_000, "", marks=pytest.mark.slow), (2_500, "/metrics.jsonl")]
)
def test_disk_that_takes_no_more_ends_all_ranks_as_stopped_and_the_run_resumes(
    tiny_dataset: Path, tmp_path: Path, limit: int, where: str
) -> None:
    out = tmp_path / "run"
    for batch in Loader(open_dataset(tiny_dataset), batch_size=64):  # its shards are unpacked before the limit holds
        del batch
    values = options(tiny_dataset, out, policy_args={}, batch_size=1, max_steps=20, eval_every=99)
    ranks = run_ranks(values | {"limit": limit, "save_every": 1 if limit > 10_000 else 99}, code=LIMITED)
    assert codes(ranks) == [StoppedError.exit_code] * 4, ranks
    cure = "raise the limit (ulimit -f); the same command then goes on with --resume"
    assert ranks[0].err.splitlines()[-1] == f"vlapipe: {out}{where}: no file may become so large here ({cure})"
    assert [rank.err for rank in ranks[1:]] == [""] * 3
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert train(TrainConfig.from_sources(None, {"out": out, "resume": True, "max_steps": 1})).step == 1


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
@pytest.mark.parametrize(
    ("how", "error", "said_as"),
    [
        ("forward", "OSError", "vlapipe: this ended rank 2, and with it all 4 ranks"),
        ("backward", "RuntimeError", "vlapipe: this ended rank 2, and with it all 4 ranks"),
        ("validation", "MemoryError", "vlapipe: this machine's memory does not hold batch_size 2"),
    ],
)
def test_any_error_of_a_policy_on_one_of_four_ranks_ends_all_and_is_said_once(
    tiny_dataset: Path, tmp_path: Path, parallel: str, how: str, error: str, said_as: str
) -> None:
    policy_args = SMALL | {"how": how, "at": 9 if how == "validation" else 2, "on_rank": 2, "error": error}
    changes = {"policy": "policies_under_test:FailsAtStep", "policy_args": policy_args, "parallel": parallel}
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", eval_every=3, **changes))
    assert 0 not in codes(ranks), ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    said = [rank.err for rank in ranks]
    assert f"{how} fails" in said[2]
    assert said_as in said[2]
    assert not any("Error" in text for text in said[:2] + said[3:])
