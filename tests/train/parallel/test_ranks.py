"""Four real processes train like one process, print each message once, and fail together, with any launcher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from launching import SMALL, options, run_ranks, torchrun
from test_loop import lines

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.train.checkpoint.files import FOLDER
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train


@pytest.fixture(scope="module")
def whole_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Six steps by four ranks under torchrun: the folder, the result, and what was said."""
    out = tmp_path_factory.mktemp("ranks") / "run"
    done = torchrun(options(tiny_dataset, out, save_every=3))
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), done.stderr


def test_four_ranks_train_as_one_process_with_the_same_global_batch(
    tiny_dataset: Path, tmp_path: Path, whole_run: tuple[Path, dict[str, Any], str]
) -> None:
    four, result, _ = whole_run
    one = train(TrainConfig.from_sources(None, options(tiny_dataset, tmp_path / "one", batch_size=8)))
    assert [line["step"] for line in lines(four)] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(lines(tmp_path / "one"), lines(four), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-2)
    assert result["val_loss"] == pytest.approx(one.val_loss, rel=1e-3)


def test_four_ranks_speak_with_one_voice(
    whole_run: tuple[Path, dict[str, Any], str],
) -> None:
    _, result, said = whole_run
    assert result["unwanted"] == []
    assert said.count("first batch:") == 1
    assert "4 ranks" in said
    assert "Warning" not in said


def test_four_ranks_resume_exactly_stop_together_and_one_rank_goes_on(
    tiny_dataset: Path, tmp_path: Path, whole_run: tuple[Path, dict[str, Any], str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole_run[0], out)
    shutil.rmtree(out / FOLDER / "step-00000006")
    policy: dict[str, Any] = {
        "policy": "policies_under_test:SignalAtStep",
        "policy_args": SMALL | {"at": 1, "on_rank": 1},
    }
    values = options(tiny_dataset, out, resume=True, **policy)
    ranks = run_ranks(values)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    result = json.loads(ranks[0].out)
    assert (result["step"], result["stopped_by"]) == (5, "another rank")
    assert [line["train/loss"] for line in lines(out)] == [line["train/loss"] for line in lines(whole_run[0])[:5]]
    assert train(TrainConfig.from_sources(None, values | {"policy": "regression", "policy_args": SMALL})).step == 6


def test_four_ranks_validate_the_same_number_of_batches_from_the_same_places(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    def of_rank(rank: int, batch_size: int) -> Loader:
        return Loader(
            open_dataset(tiny_dataset), split="val", shuffle=False, batch_size=batch_size, rank=rank, world_size=4
        )

    # Of a size by which the ranks have four batches or three: strides of 2 or 1, if each went by its own number.
    size = next(size for size in range(1, 30) if (len(of_rank(0, size)), len(of_rank(3, size))) == (4, 3))
    first = int(next(iter(of_rank(0, size)))["index"][0])
    policy = {"policy": "policies_under_test:SaysWhatItValidates"}
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", batch_size=size, eval_batches=2, max_steps=1, **policy))
    said = [[line[10:] for line in rank.err.splitlines() if line.startswith("validates ")] for rank in ranks]
    for rank, batches in enumerate(said):
        starts = [first + size * (4 * step + rank) for step in (0, 2)]
        assert batches == [str([*range(start, start + size)]) for start in starts]


def test_fault_on_one_rank_ends_all_with_one_message(tiny_dataset: Path, tmp_path: Path) -> None:
    policy_args = SMALL | {"at": 2, "on_rank": 1}
    values = options(
        tiny_dataset, tmp_path / "run", policy="policies_under_test:NaNAtStep", policy_args=policy_args, eval_every=9
    )
    zero, one, *others = run_ranks(values)
    assert [rank.code for rank in (zero, one, *others)] == [1] * 4
    assert "vlapipe: " not in zero.err
    assert one.err.startswith("vlapipe: step 2: the loss is nan")
    assert [rank.err for rank in others] == [""] * 2
    assert len(lines(tmp_path / "run")) == 1


def test_refused_folder_is_said_once(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run"))
    said = f"vlapipe: --out {tmp_path / 'run'}: not empty (give a new folder)\n"
    assert [(rank.code, rank.err) for rank in ranks] == [(2, said), (2, ""), (2, ""), (2, "")]


LISTENERS = """
import os
from pathlib import Path
from train_main import group_has_ended, threads_of_group
from vlapipe.train.parallel.ranks import distributed, sum_of
with distributed() as ranks:
    assert threads_of_group()
    assert sum_of([ranks.rank + 1], ranks) == [10.0]
    mine = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            mine.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[3] == "0A" and cells[9] in mine:
                print(cells[1].split(":")[0])
    sum_of([0.0], ranks)
assert group_has_ended()
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_ranks_started_by_hand_listen_on_loopback_alone() -> None:
    ranks = run_ranks(None, code=LISTENERS)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    assert {address for rank in ranks for address in rank.out.split()} == {"0100007F"}


def test_run_goes_from_two_to_four_ranks_and_back_with_the_same_frames(tiny_dataset: Path, tmp_path: Path) -> None:
    policy = {"policy": "policies_under_test:SaysWhatItTrains", "save_every": 3, "resume": False}
    steps: list[set[int]] = []
    for num_ranks, max_steps in ((2, 3), (4, 6), (2, 9)):
        changes = policy | {"batch_size": 8 // num_ranks, "max_steps": max_steps, "resume": max_steps > 3}
        ranks = run_ranks(options(tiny_dataset, tmp_path / "run", **changes), num_ranks=num_ranks)
        assert [rank.code for rank in ranks] == [0] * num_ranks, ranks
        said = [[json.loads(line[7:]) for line in r.err.splitlines() if line.startswith("trains ")] for r in ranks]
        steps += [{frame for rank in said for frame in rank[step]} for step in range(3)]
    loader = Loader(open_dataset(tiny_dataset), batch_size=8, endless=True)
    assert steps == [set(next(batches)["index"].tolist()) for batches in [iter(loader)] for _ in range(9)]
