"""The table [trainable]: patterns choose what is trained, and what cannot be meant is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.optim.trainable import Trainable


class Arm(nn.Module):
    """Two blocks, an encoder and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.trunk = nn.Module()
        self.trunk.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)


def trained(table: dict[str, Any], policy: nn.Module | None = None) -> list[str]:
    policy = policy or Arm()
    Trainable.from_table(table).apply(policy)
    return [name for name, p in policy.named_parameters() if p.requires_grad]


HEAD = ["head.weight", "head.bias"]


def test_empty_table_leaves_the_policy_as_it_is() -> None:
    policy = Arm()
    policy.images.requires_grad_(False)
    assert trained({}, policy) == [name for name, _ in policy.named_parameters() if not name.startswith("images")]


def test_train_is_all_that_is_trained() -> None:
    assert trained({"train": ["head.*", "trunk.blocks.2.*"]}) == ["trunk.blocks.2.weight", "trunk.blocks.2.bias", *HEAD]
    assert trained({"train": "head.*"}) == HEAD


def test_freeze_leaves_the_rest() -> None:
    assert trained({"freeze": ["images.*", "trunk.*"]}) == HEAD


def test_freeze_goes_over_train() -> None:
    assert trained({"train": ["head.*"], "freeze": ["*.bias"]}) == ["head.weight"]


def test_train_goes_over_what_the_policy_has_frozen() -> None:
    policy = Arm()
    policy.requires_grad_(False)
    assert trained({"train": ["head.*"]}, policy) == HEAD


def test_any_name_of_a_tied_parameter_stands_for_it() -> None:
    policy = Arm()
    policy.trunk.blocks[2].weight = policy.trunk.blocks[0].weight
    assert trained({"train": ["trunk.blocks.2.weight"]}, policy) == ["trunk.blocks.0.weight"]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"train": ["heads.*"]}, r"\[trainable\] train 'heads.\*': matches nothing .the nearest are 'head.\*'"),
        ({"freeze": ["head"]}, r"freeze 'head': matches nothing .the nearest are 'head.\*'"),
        ({"train": ["trunk.block.2.*"]}, r"the nearest are 'trunk.blocks.2.\*', "),
        ({"train": ["zzz"]}, r"matches nothing .there are head.\*, images.\*, trunk.\*"),
        ({"trian": ["head.*"]}, r"\[trainable\]: unknown option 'trian' .did you mean 'train'"),
        ({"train": 3}, "train: expected a list of patterns, found 3"),
        ({"freeze": ["*"]}, "nothing is left to train"),
        ({"lora": 8}, "lora: expected a table, found 8"),
        ({"lora": {"ranks": 8}}, r"\[trainable.lora\]: unknown option 'ranks' .did you mean 'rank'"),
        ({"lora": {"rank": 8}}, r"\[trainable.lora\]: no targets"),
        ({"lora": {"targets": ["trunk.*"], "rank": 0}}, "rank: expected a whole number from 1, found 0"),
        ({"lora": {"targets": ["trunk.*"], "alpha": "big"}}, "alpha: expected a number from 0, found 'big'"),
        ({"lora": {"targets": ["images.1"]}}, "targets 'images.1': matches nothing .the nearest are 'images.0'"),
        ({"train": ["head.*"], "lora": {"targets": ["*"]}}, "head.bias is trained as a whole and by LoRA"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(table: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        trained(table)
    assert "\n" not in str(caught.value)


def test_whole_numbers_cannot_be_trained() -> None:
    policy = Arm()
    policy.table = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UsageError, match=r"table: torch\.int8 numbers cannot be trained"):
        trained({"train": ["*"]}, policy)
