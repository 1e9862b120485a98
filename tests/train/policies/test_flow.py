"""The policy ``flow`` takes one of two good ways, repeats itself by its seed, and keeps the contract of policies."""

from __future__ import annotations

import pytest
import torch
from synthetic import make_batch, make_spec

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Moments, SampleSpec
from vlapipe.train.policies.built_in import BuiltInPolicy
from vlapipe.train.policies.flow import FlowPolicy
from vlapipe.train.policies.nn.flow_matching import integrate
from vlapipe.train.policies.regression import RegressionPolicy

SMALL = {"dim": 32, "depth": 2, "num_heads": 2, "image_width": 8, "num_word_buckets": 64, "state_noise": 0.0}


def small_flow(spec: SampleSpec, **changes: object) -> FlowPolicy:
    torch.manual_seed(0)
    return FlowPolicy(spec, **(SMALL | changes))  # type: ignore[arg-type]


def trained(policy: BuiltInPolicy, spec: SampleSpec, actions: torch.Tensor, *, steps: int) -> BuiltInPolicy:
    """``actions`` (B, H, A) are what was recorded in one and the same situation."""
    batch = make_batch(spec, len(actions))
    for key, value in batch.items():
        if isinstance(value, torch.Tensor) and key.startswith("observation"):
            batch[key] = value[:1].expand_as(value).clone()
    batch["task"] = ["go round the obstacle"] * len(actions)
    batch["action"], batch["action_is_pad"] = actions, torch.zeros(actions.shape[:2], dtype=torch.bool)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        policy.loss(batch).mean.backward()  # type: ignore[union-attr]
        optimizer.step()
    return policy.eval()


def test_flow_takes_one_of_two_ways_where_regression_takes_the_middle() -> None:
    spec = make_spec(state=(1, 2), sensors={}, images={}, action=(4, 2))
    one = torch.ones(1, dtype=torch.float32).numpy()
    spec.moments["action"] = Moments(mean=0 * one.repeat(2), std=one.repeat(2))
    left = torch.tensor([0.0, 1.0]).expand(32, 4, 2)  # a step ahead keeps to the left of the obstacle ...
    ways = torch.cat([left, left * torch.tensor([1.0, -1.0])])  # ... or to its right
    torch.manual_seed(0)
    middle = trained(RegressionPolicy(spec, loss="mse", **SMALL), spec, ways, steps=60)  # type: ignore[arg-type]
    one_way = trained(small_flow(spec), spec, ways, steps=400)
    observation = {key: value for key, value in make_batch(spec, 64).items() if not key.startswith("action")}
    for key in ("observation.state", "observation.state_is_pad"):
        observation[key] = observation[key][:1].expand(64, *observation[key].shape[1:])
    observation["task"] = ["go round the obstacle"] * 64
    assert middle.act(observation)[..., 1].abs().max() < 0.3
    sides = one_way.act(observation)[..., 1]
    clear = (sides.abs() > 0.7).all(dim=1)  # the whole chunk keeps to one side
    assert clear.float().mean() > 0.9
    assert 0.2 < (sides[clear].mean(dim=1) > 0).float().mean() < 0.8


@pytest.mark.parametrize("spec", [make_spec(), make_spec(sensors={}, images={}, state=(1, 4))], ids=["all", "state"])
def test_loss_is_finite_and_act_returns_a_chunk_that_the_seed_repeats(spec: SampleSpec) -> None:
    policy, batch = small_flow(spec), make_batch(spec)
    batch["action"][batch["action_is_pad"]] = float("nan")
    policy.loss(batch).mean.backward()
    assert [name for name, p in policy.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)
    chunks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        chunks.append(policy.eval().act(batch))
    assert chunks[0].shape == (4, *spec.action)
    assert torch.equal(chunks[0], chunks[1])
    assert not torch.equal(chunks[0], chunks[2])


def test_heun_needs_fewer_steps_than_euler() -> None:
    noise = torch.ones(1, 1)
    exact = 2.718281828  # x' = x from 1
    errors = {method: abs(integrate(lambda x, _: x, noise, 5, method).item() - exact) for method in ("euler", "heun")}
    assert errors["heun"] < errors["euler"] / 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": "gamma"}, "policy_args time: 'gamma' is unknown"),
        ({"method": "rk4"}, "policy_args method: 'rk4' is unknown"),
        ({"steps": 0}, "policy_args steps: expected a whole number from 1, found 0"),
        ({"size": "tiny"}, "policy_args size: 'tiny' is unknown"),
        ({"dim": 24, "num_heads": 5}, "dim 24 is not a multiple of num_heads 5"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_flow(make_spec(), **changes)
