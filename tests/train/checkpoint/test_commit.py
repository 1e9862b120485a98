"""Four ranks write one checkpoint: files, index, any reader; a slow, failing or dead rank leaves no half checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launching import WITHIN_S, Rank, run_ranks
from making_checkpoints import make, write
from safetensors import safe_open

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.train.checkpoint.files import FOLDER, StoredTensors, all_checkpoints, checkpoint_path, read_checkpoint

# Ranks 1 to 3 write the policy, rank 3 alone the optimizer, rank 0 the values.
WRITES = """
import json, os, resource, signal, sys, threading, time
from pathlib import Path
import torch
from train_main import group_has_ended
from vlapipe.schemas.errors import VlapipeError
from vlapipe.train.background_work import BackgroundWork
from vlapipe.train.checkpoint.commit import PartState, Snapshot, plan_files, write_checkpoint
from vlapipe.train.parallel.ranks import agree, distributed, sum_of
from vlapipe.train.stopping import explain_surroundings

out, how = json.loads(sys.argv[1])

def snapshot(ranks, step):
    tensors = {f"{ranks.rank}/{i}": torch.full((2, 3), 10.0 * ranks.rank + i) for i in range(ranks.rank)}
    optimizer = {"moment": torch.arange(100_000.0)} if ranks.rank == 3 else {}
    parts = {"policy": tensors, "optimizer": optimizer}
    parts = {name: PartState(tensors=named) for name, named in parts.items()}
    parts["counters"] = PartState(values={"written by": ranks.rank})
    return Snapshot(step=step, parts=parts, state={"config": {}, "spec": {}})

def write(ranks, step, cancelled=None):
    saved = snapshot(ranks, step)
    plan = plan_files(saved.parts, ranks)
    def work(cancelled):
        if how == "slow" and ranks.rank == 3:
            time.sleep(2.0)
        if how == "killed" and ranks.rank == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "full" and ranks.rank == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with explain_surroundings(Path(out)):
            write_checkpoint(Path(out), saved, plan, cancelled=cancelled)
    return work

try:
    with distributed() as ranks, BackgroundWork() as saving:
        if how in ("slow", "killed in a thread"):
            how = how.split()[0]
            saving.start(write(ranks, 7), name="save")
            rounds, began = 0, time.monotonic()
            while time.monotonic() - began < 1.0:  # none waits for rank 3
                total, going_on = sum_of([1.0, time.monotonic() - began < 0.9], ranks)
                rounds += 1
                if not going_on:
                    break
                time.sleep(0.01)
            assert not list(Path(out).glob("checkpoints/step-*"))
            print("rounds", rounds)
            with agree(ranks):
                saving.finish()
        else:
            work = write(ranks, 7)
            with agree(ranks):
                work(threading.Event())
except VlapipeError as error:
    sys.stderr.write(f"vlapipe: {error}\\n")
    sys.exit(error.exit_code)
finally:
    assert group_has_ended()
"""


def four(out: Path, how: str = "", only_of: dict[int, dict[str, str]] | None = None) -> list[Rank]:
    return run_ranks([str(out), how], code=WRITES, only_of=only_of)


@pytest.fixture(scope="module")
def by_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("four")
    ranks = four(out)
    assert [(rank.code, rank.err) for rank in ranks] == [(0, "")] * 4
    return checkpoint_path(out, 7)


def test_each_writing_rank_has_a_file_and_the_index_names_them(by_four: Path) -> None:
    shares = [f"policy-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    whole = ["optimizer.safetensors", "policy.safetensors.index.json", "state.json"]
    assert sorted(path.name for path in by_four.iterdir()) == sorted(shares + whole)
    # As Hugging Face's libraries read it.
    index = json.loads((by_four / "policy.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 6 * 4 * 6}
    assert len(index["weight_map"]) == 6
    for tensor, file in index["weight_map"].items():
        with safe_open(by_four / file, "pt") as opened:
            assert opened.get_tensor(tensor).shape == (2, 3)


def test_files_of_several_ranks_are_read_as_one_part_whole_or_by_slice(by_four: Path) -> None:
    stored = read_checkpoint(by_four)
    tensors = stored.part("policy").tensors
    assert isinstance(tensors, StoredTensors)
    assert sorted(tensors) == ["1/0", "2/0", "2/1", "3/0", "3/1", "3/2"]
    for name in tensors:
        value = 10.0 * int(name[0]) + int(name[2])
        assert torch.equal(tensors[name], torch.full((2, 3), value))
        assert torch.equal(tensors.read(name, (slice(1, 2), slice(0, 2))), torch.full((1, 2), value))
    assert torch.equal(stored.part("optimizer").tensors["moment"], torch.arange(100_000.0))
    assert stored.part("counters").values == {"written by": 0}


@pytest.mark.slow
def test_ranks_go_on_while_one_is_slow_and_the_checkpoint_appears_when_it_has_written(tmp_path: Path) -> None:
    ranks = four(tmp_path, "slow")
    assert [(rank.code, rank.err) for rank in ranks] == [(0, "")] * 4
    assert min(int(rank.out.split()[1]) for rank in ranks) > 5
    read_checkpoint(checkpoint_path(tmp_path, 7))


@pytest.mark.parametrize("how", ["killed", "killed in a thread"])
def test_rank_that_dies_while_writing_ends_all_and_the_half_folder_never_counts(tmp_path: Path, how: str) -> None:
    write(tmp_path, make(5))
    ranks = four(tmp_path, how)
    assert [rank.code for rank in ranks] == [5, 5, 5, -9], ranks
    assert max(rank.seconds for rank in ranks) < WITHIN_S
    assert sum("rank 3 was lost" in rank.err for rank in ranks) == 1
    assert [path.name for path in all_checkpoints(tmp_path)] == ["step-00000005"]
    left = [path.name for path in (tmp_path / FOLDER).iterdir() if path.name != "step-00000005"]
    assert all(name.startswith(TEMP_PREFIX) for name in left)


def test_rank_whose_disk_is_full_is_named_once_and_all_end_as_stopped(tmp_path: Path) -> None:
    ranks = four(tmp_path, "full")
    assert [rank.code for rank in ranks] == [5] * 4, ranks
    assert ranks[0].err == (
        f"vlapipe: rank 3 cannot write its part of the checkpoint: {tmp_path}: no file may become so large here "
        "(raise the limit (ulimit -f); the same command then goes on with --resume)\n"
    )
    assert not any(rank.err for rank in ranks[1:])
    assert list((tmp_path / FOLDER).iterdir()) == []
