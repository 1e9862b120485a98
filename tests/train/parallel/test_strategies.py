"""A step's gradient is that of the whole batch, however ranks share the work; FSDP holds a part of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launching import options, run_ranks
from test_loop import lines

CODE = "import strategy_main; strategy_main.main()"


def compared(kind: str, num_ranks: int, **sizes: int) -> list[dict[str, Any]]:
    ranks = run_ranks([kind, sizes], num_ranks=num_ranks, code=CODE)
    assert [rank.code for rank in ranks] == [0] * num_ranks, [rank.err for rank in ranks]
    return [json.loads(rank.out) for rank in ranks]


@pytest.mark.parametrize(
    ("kind", "num_ranks"),
    [
        ("ddp", 4),
        ("fsdp", 4),
        ("hsdp", 4),
        *(pytest.param(*few, marks=pytest.mark.slow) for few in (("ddp", 1), ("ddp", 2), ("fsdp", 2))),
    ],
)
def test_gradient_of_four_passes_on_each_rank_is_that_of_the_whole_batch(kind: str, num_ranks: int) -> None:
    for found in compared(kind, num_ranks):
        assert abs(found["loss"]) < 1e-6
        assert abs(found["norm"]) < 1e-6
        assert {name: d for name, d in found["differences"].items() if d > 1e-6} == {}
        assert len(found["differences"]) > 50


def test_ranks_reduce_their_gradients_once_a_step() -> None:
    for found in compared("ddp", 4, dim=16):
        first, second, third, last = found["reduces"]
        assert (first, second, third) == (0, 0, 0)
        assert last == 2  # the gradients, and which parameters a rank has reached


@pytest.mark.parametrize(
    ("kind", "num_ranks", "share"),
    [pytest.param("fsdp", 2, 1 / 2, marks=pytest.mark.slow), ("fsdp", 4, 1 / 4), ("hsdp", 4, 1 / 2)],
)
def test_each_rank_holds_its_part_of_parameters_gradients_and_moments(kind: str, num_ranks: int, share: float) -> None:
    held = [found["held"] for found in compared(kind, num_ranks, dim=64)]
    assert sum(held) / num_ranks == pytest.approx(share, rel=1e-6)
    assert max(held) < share * 1.1


@pytest.mark.parametrize("num_ranks", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_fsdp_has_the_losses_of_ddp_for_fifty_steps(tiny_dataset: Path, tmp_path: Path, num_ranks: int) -> None:
    for kind in ("ddp", "fsdp"):
        values = options(tiny_dataset, tmp_path / kind, parallel=kind, max_steps=50, batch_size=8 // num_ranks)
        ranks = run_ranks(values | {"eval_every": 25, "eval_batches": 2, "save_every": 100}, num_ranks=num_ranks)
        assert [rank.code for rank in ranks] == [0] * num_ranks, [rank.err for rank in ranks]
    pairs = [*zip(lines(tmp_path / "ddp"), lines(tmp_path / "fsdp"), strict=True)]
    assert len(pairs) == 50
    for a, b in pairs:
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-5)
    assert pairs[-1][1]["val/loss"] == pytest.approx(pairs[-1][0]["val/loss"], rel=1e-5)


def test_fsdp_trains_in_bf16(tiny_dataset: Path, tmp_path: Path) -> None:
    for kind in ("ddp", "fsdp"):
        values = options(tiny_dataset, tmp_path / kind, parallel=kind, precision="bf16", max_steps=3, ema=0.9)
        ranks = run_ranks(values | {"eval_every": 2}, num_ranks=2)
        assert [rank.code for rank in ranks] == [0] * 2, [rank.err for rank in ranks]
    for a, b in zip(lines(tmp_path / "ddp"), lines(tmp_path / "fsdp"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
@pytest.mark.parametrize(("millions", "dim", "depth"), [(1, 96, 8), (20, 512, 6), (150, 1024, 12)])
def test_policies_of_any_size_start_on_any_number_of_ranks_and_agree(
    kind: str, num_ranks: int, millions: int, dim: int, depth: int
) -> None:
    code = "import strategy_main; strategy_main.start()"
    ranks = run_ranks([kind, {"dim": dim, "depth": depth, "num_heads": 8}], num_ranks=num_ranks, code=code)
    assert [rank.code for rank in ranks] == [0] * num_ranks, [rank.err for rank in ranks]
    found = {rank.out for rank in ranks}
    assert len(found) == 1
    assert json.loads(found.pop())[0] > 0.9e6 * millions
