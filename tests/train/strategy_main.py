"""One rank that makes a step's gradient by a strategy and compares it with that of the whole batch. Prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
from synthetic import make_batch, make_spec
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.parallel.ddp import Replicated
from vlapipe.train.parallel.fsdp import Sharded
from vlapipe.train.parallel.ranks import Ranks, distributed
from vlapipe.train.parallel.strategy import Single, Strategy
from vlapipe.train.policies.base import LossOutput, blocks_of
from vlapipe.train.policies.loss_module import LossOf, LossSums
from vlapipe.train.policies.regression import RegressionPolicy

# Noise on the state would be another on each rank.
SIZES = {"dim": 32, "depth": 2, "num_heads": 2, "image_width": 8, "num_word_buckets": 64, "state_noise": 0.0}
BATCH_SIZE, PASSES = 3, 4


class WithAuxiliaryLoss(RegressionPolicy):
    """Adds a second term to its loss, a sum over samples in the measure of the first."""

    def __init__(self, spec: SampleSpec, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.guess = nn.Linear(spec.state[1], 1)

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """The error of the actions, and how far a linear layer is from guessing the number of padded ones."""
        actions = super().loss(batch)
        newest = self.series_normalizers[0](batch["observation.state"])[:, -1]
        missed = (self.guess(newest)[:, 0] - batch["action_is_pad"].sum(1)).square()
        return LossOutput(actions.total + 0.3 * missed.sum(), actions.weight, {"missed": missed.mean()})


def make_strategy(kind: str, ranks: Ranks) -> Strategy:
    if ranks.world_size == 1:
        return Single()
    if kind == "ddp":
        return Replicated(ranks)
    return Sharded(ranks, precision="fp32", shard_size=2 if kind == "hsdp" else None)


def part_of(batch: dict[str, Any], number: int) -> dict[str, Any]:
    own = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
    return {key: value[own] for key, value in batch.items()}


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in tensors.items()}


def gradients(policy: nn.Module) -> dict[str, Tensor]:
    return whole({name: p.grad for name, p in policy.named_parameters() if p.grad is not None})


def num_reduces(profile: Any) -> int:
    return sum(event.name == "gloo:all_reduce" for event in profile.events())


def main() -> None:
    """Compare, and print what differs and what this rank holds."""
    kind, sizes = json.loads(sys.argv[1])
    with distributed() as ranks:
        found = compare(kind, SIZES | sizes, ranks)
    sys.stdout.write(json.dumps(found) + "\n")


def compare(kind: str, sizes: dict[str, float], ranks: Ranks) -> dict[str, Any]:
    spec = make_spec()
    # In float64, so that what differs is not rounding.
    batch = {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in make_batch(spec, BATCH_SIZE * PASSES * ranks.world_size).items()
    }
    batch["action_is_pad"][::2, -2:] = True  # parts differ in how much of them counts
    batch["action_is_pad"][:2] = True
    torch.manual_seed(0)
    policy, alone = (WithAuxiliaryLoss(spec, **sizes).double() for _ in range(2))
    alone.load_state_dict(policy.state_dict())
    loss = alone.loss(batch)
    (loss.total / loss.weight).backward()
    expected = gradients(alone)
    torch.manual_seed(ranks.rank)
    strategy, sums = make_strategy(kind, ranks), LossSums()
    module = strategy.wrap(LossOf(policy), policy, blocks_of(policy))
    reduces = []
    for number in range(PASSES):
        with torch.profiler.profile() as profile, strategy.gradient_sync(enabled=number == PASSES - 1):
            output = module(part_of(batch, number * ranks.world_size + ranks.rank))
            output[0].backward()
        sums.add(output)
        reduces.append(num_reduces(profile))
    mean = strategy.mean(sums.take())
    norm = strategy.clip(policy.parameters(), 0.0, 1 / mean[1])
    ours = gradients(policy)
    assert set(ours) == set(expected)
    optimizer = make_optimizer(policy, learning_rate=1e-3, weight_decay=0.0)
    optimizer.step()
    total = float(torch.stack([g.norm() for g in expected.values()]).norm())
    held = [*policy.parameters(), *(p.grad for p in policy.parameters())]
    held += [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    local = [t.to_local() if hasattr(t, "to_local") else t for t in held if t is not None]
    return {
        "loss": float(mean[0] / mean[1]) / float(loss.total / loss.weight) - 1,
        "metrics": sums.named("train", sums.means(mean).tolist()),
        "norm": float(norm) / total - 1,
        "differences": {n: float((ours[n] - g).norm() / g.norm().clamp_min(1e-9 * total)) for n, g in expected.items()},
        "reduces": reduces,
        "held": sum(t.numel() for t in local) / sum(t.numel() for t in held if t is not None),
    }


def start() -> None:
    """Make one step of a policy of any size. Print its parameters, loss and norm, which all ranks must share."""
    kind, sizes = json.loads(sys.argv[1])
    with distributed() as ranks:
        spec = make_spec(sensors={}, images={})
        torch.manual_seed(0)
        policy = RegressionPolicy(spec, **sizes)
        strategy, sums = make_strategy(kind, ranks), LossSums()
        module = strategy.wrap(LossOf(policy), policy, blocks_of(policy))
        output = module(make_batch(spec, 2, seed=ranks.rank))
        output[0].backward()
        sums.add(output)
        mean = strategy.mean(sums.take())
        norm = strategy.clip(policy.parameters(), 1.0, 1 / mean[1])
        found = [sum(p.numel() for p in policy.parameters()), float(mean[0] / mean[1]).hex(), float(norm).hex()]
        del policy, module, strategy, output
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
