"""EMA: the averages are those of the formula, stay out of the way of training, and are put into the policy exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from launching import run_ranks
from torch import Tensor, nn

from vlapipe.train.optim.ema import EMA

HERE = str(Path(__file__).parent)


def policy_with_norm() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def move(policy: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator).to(p.dtype))


def weights(policy: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()}


@pytest.mark.parametrize("flag", [None, 1.0])
def test_average_is_the_one_of_the_formula(flag: float | None) -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.6)
    expected = {name: p.detach().double() for name, p in policy.named_parameters()}
    for step in range(20):
        move(policy, step)
        ema.update(step, None if flag is None else torch.tensor(flag))
        d = min(0.6, (1 + step) / (10 + step))
        expected = {name: d * expected[name] + (1 - d) * p.detach() for name, p in policy.named_parameters()}
    assert ema.named_tensors().keys() == expected.keys()
    for name, average in ema.named_tensors().items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_decay_warms_up_and_stays_at_its_highest() -> None:
    ema = EMA(nn.Linear(1, 1), decay=0.999)
    assert [ema.decay_at(step) for step in (0, 8, 90, 8990)] == pytest.approx([0.1, 0.5, 0.91, 8991 / 9000])
    assert ema.decay_at(10**6) == 0.999
    assert EMA(nn.Linear(1, 1), decay=0.999, warmup=False).decay_at(0) == 0.999


def test_step_that_did_not_move_leaves_the_average_bit_for_bit() -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.9)
    before = {name: average.clone() for name, average in ema.named_tensors().items()}
    move(policy, 1)
    for step in (0, 1, 1000):
        ema.update(step, torch.tensor(0.0))
    assert all(torch.equal(average, before[name]) for name, average in ema.named_tensors().items())


def test_policys_weights_are_left_alone_and_its_averages_apart() -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.9)
    move(policy, 1)
    before = weights(policy)
    ema.update(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(policy).items())
    assert not any(torch.equal(ema.named_tensors()[name], p) for name, p in policy.named_parameters() if p.dim() == 2)


def test_frozen_parameters_are_not_copied() -> None:
    policy = policy_with_norm()
    policy[0].requires_grad_(False)
    assert set(EMA(policy, decay=0.9).named_tensors()) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_swapped_policy_has_the_averages_and_its_own_buffers_and_gets_its_weights_back() -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.9)
    move(policy, 1)
    ema.update(0)
    policy(torch.randn(8, 3))  # moves the statistics of the batch norm
    own, averages = weights(policy), {name: average.clone() for name, average in ema.named_tensors().items()}
    addresses = [p.data_ptr() for p in policy.parameters()]
    with ema.swapped():
        assert all(torch.equal(tensor, averages.get(name, own[name])) for name, tensor in weights(policy).items())
        assert [p.data_ptr() for p in policy.parameters()] == addresses
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights(policy).items())
    assert all(torch.equal(average, averages[name]) for name, average in ema.named_tensors().items())


def test_weights_come_back_after_an_error() -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.9)
    move(policy, 1)
    own = weights(policy)
    with pytest.raises(RuntimeError, match="validation fails"), ema.swapped():
        raise RuntimeError("validation fails")
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights(policy).items())


def test_swapped_policy_can_be_validated_in_inference_mode_and_trained_on() -> None:
    policy = policy_with_norm()
    ema = EMA(policy, decay=0.9)
    with torch.inference_mode(), ema.swapped():
        policy(torch.randn(8, 3))
    policy(torch.randn(8, 3)).sum().backward()
    ema.update(0)
    assert not any(average.requires_grad for average in ema.named_tensors().values())


def test_average_of_bf16_weights_does_not_stand_still() -> None:
    policy = nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        policy.weight.fill_(1.0)
        ema = EMA(policy, decay=0.999, warmup=False)
        policy.weight.fill_(2.0)
    for step in range(1000):
        ema.update(step, torch.tensor(1.0))
    [average] = ema.named_tensors().values()
    assert float(average) == pytest.approx(2 - 0.999**1000, rel=1e-3)
    own = policy.weight.detach().clone()
    with ema.swapped():
        assert policy.weight.dtype == torch.bfloat16
        assert policy.weight.item() == pytest.approx(float(average), rel=1 / 128)
    assert torch.equal(policy.weight, own)
    assert float(average) == pytest.approx(2 - 0.999**1000, rel=1e-3)


def test_tied_parameter_is_averaged_once_and_has_all_its_names() -> None:
    policy = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    policy[1].weight = policy[0].weight
    ema = EMA(policy, decay=0.5, warmup=False)
    start = policy[0].weight.detach().clone()
    with torch.no_grad():
        policy[0].weight.add_(1.0)
    ema.update(0)
    tensors = ema.named_tensors()
    assert tensors.keys() == policy.state_dict().keys()
    assert tensors["0.weight"] is tensors["1.weight"]
    torch.testing.assert_close(tensors["0.weight"], start + 0.5)


SHARDED = """
import torch
from torch.distributed.fsdp import fully_shard
from test_ema import policy_without_buffers, steps_of
from vlapipe.train.parallel.ranks import distributed

with distributed():
    whole, sharded = policy_without_buffers(), policy_without_buffers()
    for module in (sharded[0], sharded):
        fully_shard(module, reshard_after_forward=True)
    averages = [steps_of(policy) for policy in (whole, sharded)]
    named = [ema.named_tensors() for ema in averages]
    for name, average in named[0].items():
        torch.testing.assert_close(named[1][name].full_tensor(), average)
    own = {name: p.full_tensor().clone() for name, p in sharded.named_parameters()}
    with averages[0].swapped(), averages[1].swapped(), torch.inference_mode():
        torch.testing.assert_close(sharded(torch.ones(2, 3)), whole(torch.ones(2, 3)))
    assert all(torch.equal(p.full_tensor(), own[name]) for name, p in sharded.named_parameters())
    torch.testing.assert_close(sharded(torch.ones(2, 3)), whole(torch.ones(2, 3)))
"""


def policy_without_buffers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def steps_of(policy: nn.Module) -> EMA:
    """The averages after four steps, of which the third did not move."""
    ema = EMA(policy, decay=0.7, warmup=False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for step in range(4):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        policy(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(step, torch.tensor(float(step != 2)))
    return ema


def test_shards_of_four_ranks_are_averaged_and_swapped_as_the_whole() -> None:
    ranks = run_ranks(None, code=f"import sys; sys.path.append({HERE!r})\n{SHARDED}")
    assert [rank.code for rank in ranks] == [0] * 4, ranks
