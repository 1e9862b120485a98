"""Any module with ``loss`` and ``act`` trains, on one rank and on four; the error for any other module says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from launching import options, run_ranks
from policies_under_test import Experts
from test_loop import SMALL, config, lines

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.files import read_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train

POLICY = "policies_under_test:Odd"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vector", r"loss\(batch\): expected a scalar, found a tensor of shape \(8,\) \(return its mean\(\)\)"),
        (
            "dict",
            r"expected a scalar tensor, found a dict \(return the total loss alone, or a LossOutput\)",
        ),
        ("number", r"expected a scalar tensor, found a float"),
        ("whole", r"expected a floating-point scalar, found torch.int64"),
        ("detached", r"it has no gradient \(compute it from the policy's parameters"),
        ("no parameter", r"Odd: has no parameter to train"),
        ("frozen", r"Odd: has no parameter to train"),
        ("lazy", r"Odd: has lazy layers"),
    ],
)
def test_policy_that_cannot_be_trained_is_refused_in_one_line(
    tiny_dataset: Path, tmp_path: Path, kind: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(config(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": kind}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["one of one", "unused", "unused later"])
def test_odd_policy_trains_on_one_rank(tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    assert train(config(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": kind})).step == 6


WEIGHTS = """
import hashlib, sys
import train_main
from policies_under_test import Experts
train_main.main()
weights = b"".join(value.numpy().tobytes() for value in Experts.built[-1].state_dict().values())
sys.stderr.write(f"weights {hashlib.sha256(weights).hexdigest()}\\n")
"""


@pytest.mark.parametrize(("grad_accum", "extra_at"), [(1, 1), (2, 2)])
def test_layers_that_only_some_ranks_or_steps_reach_move_on_four_ranks_as_on_one(
    tiny_dataset: Path, tmp_path: Path, grad_accum: int, extra_at: int
) -> None:
    changes: dict[str, Any] = {"policy": "policies_under_test:Experts", "policy_args": {"extra_at": extra_at}}
    changes |= {"grad_accum": grad_accum, "grad_clip": 0}
    values = options(tiny_dataset, tmp_path / "four", batch_size=1, weight_decay=0.5, **changes)
    ranks = run_ranks(values, code=WEIGHTS)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    assert len({line for rank in ranks for line in rank.err.splitlines() if line.startswith("weights ")}) == 1
    one = options(tiny_dataset, tmp_path / "one", batch_size=4, weight_decay=0.5, **changes)
    result = train(TrainConfig.from_sources(None, one))
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "four"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-3)
    assert result.checkpoint is not None
    policy_of = [
        read_checkpoint(tmp_path / name / result.checkpoint.relative_to(result.out)).part("policy").tensors
        for name in ("one", "four")
    ]
    for name, value in policy_of[0].items():
        assert torch.allclose(value, policy_of[1][name], atol=1e-4), name
    torch.manual_seed(0)
    begun = Experts(Loader(open_dataset(tiny_dataset)).spec, extra_at=extra_at).state_dict()
    moved = {name for name, value in begun.items() if not torch.equal(value, policy_of[1][name])}
    assert moved == {f"experts.{i}.{name}" for i in range(5 - extra_at) for name in ("weight", "bias")}


@pytest.mark.parametrize("kind", ["unused", "unused later"])
def test_layer_that_is_not_reached_does_not_stop_four_ranks(tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": kind}))
    assert [rank.code for rank in ranks] == [0] * 4, ranks


def test_wrong_loss_on_four_ranks_is_said_once(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": "vector"}))
    assert [rank.code for rank in ranks] == [2] * 4, ranks
    said = "".join(rank.err for rank in ranks)  # by the rank that fails first, which need not be rank 0
    assert said.count("(return its mean())\n") == 1, ranks
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("shape", "extra.weight float32 (3, 2)", "extra.weight float32 (6, 2)"),
        ("dtype", "extra.weight float32 (3, 2)", "extra.weight bfloat16 (3, 2)"),
        ("buffer", "buffer seen int64 (1,)", "buffer seen int32 (1,)"),
        ("frozen", "extra.weight float32 (3, 2)", "extra.weight float32 (3, 2), frozen"),
    ],
)
def test_ranks_that_built_different_policies_say_which_rank_has_what(
    tiny_dataset: Path, tmp_path: Path, kind: str, first: str, last: str
) -> None:
    policy = {"policy": "policies_under_test:Unlike", "policy_args": SMALL | {"kind": kind}}
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", **policy))
    assert [rank.code for rank in ranks] == [2] * 4, ranks
    said = ranks[0].err.splitlines()[-1]
    assert said.startswith("vlapipe: the ranks built different policies: rank 0 has ")
    assert f"{first}, rank 3 has " in said
    assert f"{last} (build the policy" in said
    assert "Traceback" not in ranks[0].err
    assert [rank.err for rank in ranks[1:]] == [""] * 3


SIZES = """
import torch
from torch import nn
from vlapipe.train.parallel.ranks import distributed
from vlapipe.train.parallel.ddp import require_same_policy
policy = nn.Module()
policy.weight = nn.Parameter(torch.zeros(1).expand(112_136_254))  # has that many numbers, and the memory of one
with distributed() as ranks:
    require_same_policy(policy, ranks)
"""


def test_large_policies_are_the_same_on_eight_ranks() -> None:
    # Sums of squares of such a count do not fit into a float64.
    ranks = run_ranks(None, num_ranks=8, code=SIZES)
    assert [rank.code for rank in ranks] == [0] * 8, ranks
