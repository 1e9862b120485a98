"""A policy's operations are those that its forward pass makes, and are counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import SMALL
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.policies.flops import flops_of
from vlapipe.train.policies.regression import RegressionPolicy


@pytest.fixture(scope="module")
def loader(tiny_dataset: Path) -> Loader:
    return Loader(open_dataset(tiny_dataset), batch_size=3, num_workers=0)


def test_count_is_what_each_sample_adds_to_a_real_batch(loader: Loader) -> None:
    policy = RegressionPolicy(loader.spec, **SMALL)
    generator = torch.get_rng_state()
    counted = flops_of(policy)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(tensor.is_meta for tensor in policy.state_dict().values())
    whole = next(iter(loader)) | {"task": ["insert the needle"] * 3}
    first = {key: value[:1] for key, value in whole.items()}

    def taken(work: Callable[[], object]) -> int:
        counter = FlopCounterMode(display=False)
        # The counter does not know the fused attention of a CPU.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            work()
        return counter.get_total_flops()

    assert counted == (taken(lambda: policy.loss(whole)) - taken(lambda: policy.loss(first))) / 2
    # Three samples share one instruction, which is read once.
    ids, which = policy.instruction.ids(whole["task"], torch.device("cpu"))  # type: ignore[arg-type]
    said = taken(lambda: policy.instruction(ids, which))
    assert taken(lambda: policy.loss(whole)) == 3 * counted + said


def test_a_wider_trunk_takes_more(loader: Loader) -> None:
    one, more = (flops_of(RegressionPolicy(loader.spec, **SMALL | {"dim": dim})) for dim in (32, 256))
    assert one is not None
    assert more is not None
    assert 1.5 * one < more < 64 * one  # most is spent on images, which the width touches last


class Says(nn.Module):
    """A policy that says some number."""

    def __init__(self, flops: Any) -> None:
        super().__init__()
        self.flops = flops

    def flops_per_sample(self) -> Any:
        """The number."""
        return self.flops


def test_own_policy_may_say_its_number_or_none() -> None:
    assert flops_of(Says(3e9)) == 3e9
    assert flops_of(Says(None)) is None
    assert flops_of(nn.Linear(1, 1)) is None
    for wrong in (0, -1.0, float("nan"), "many"):
        with pytest.raises(UsageError, match=r"policy Says: flops_per_sample\(\): expected a positive number, found"):
            flops_of(Says(wrong))
