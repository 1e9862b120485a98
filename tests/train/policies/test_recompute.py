"""Gradient checkpointing keeps less for backward, and gives the same loss and gradients, with dropout too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from synthetic import make_batch, make_spec
from torch import Tensor, nn

from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.regression import RegressionPolicy

SIZES = {"dim": 64, "depth": 4, "num_heads": 4, "image_width": 16, "num_word_buckets": 64}


class WithDropout(RegressionPolicy):
    """Drops a tenth of the output of each block."""

    def __init__(self, *args: Any, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        for block in self.trunk.blocks:
            block.mlp_out = nn.Sequential(block.mlp_out, nn.Dropout(0.1))


def policies() -> tuple[WithDropout, WithDropout]:
    torch.manual_seed(0)
    spec = make_spec(images={"View1": (1, 3, 64, 96)})
    plain, recomputing = (WithDropout(spec, **SIZES) for _ in range(2))
    recomputing.load_state_dict(plain.state_dict())
    recompute_in_backward(recomputing, recomputing.blocks())
    return plain, recomputing


def bytes_kept(work: Callable[[], Tensor], policy: RegressionPolicy) -> int:
    """Bytes that ``work`` keeps for backward, beside the policy's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in policy.state_dict().values()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that its address stays taken
        return tensor

    # Blocks that are recomputed keep their inputs without saving them as tensors of backward.
    for block in policy.blocks():
        block.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), None)[1])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(size for size, _ in kept.values())


def test_gradients_are_the_same_with_dropout() -> None:
    plain, recomputing = policies()
    batch = make_batch(make_spec(images={"View1": (1, 3, 64, 96)}))
    totals = []
    for policy in (plain, recomputing):
        torch.manual_seed(1)
        total = policy.loss(batch).total
        total.backward()
        totals.append(total)
    assert torch.equal(*totals)
    for (name, p), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert p.grad is not None, name
        assert other.grad is not None, name
        assert torch.equal(p.grad, other.grad), name


def test_less_than_half_is_kept_for_backward() -> None:
    plain, recomputing = policies()
    batch = make_batch(make_spec(images={"View1": (1, 3, 64, 96)}), 8)
    whole, less = (bytes_kept(lambda p=policy: p.loss(batch).total, policy) for policy in (plain, recomputing))  # type: ignore[misc]
    assert less < 0.5 * whole


@pytest.mark.gpu
def test_less_memory_is_needed_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    spec = make_spec(images={"View1": (1, 3, 224, 224)})
    batch = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in make_batch(spec, 32).items()}
    peaks = []
    for recomputes in (False, True):
        policy = RegressionPolicy(spec, **SIZES).cuda()
        if recomputes:
            recompute_in_backward(policy, policy.blocks())
        for _ in range(2):  # the first makes the libraries' buffers too
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            policy.loss(batch).total.backward()
            peaks.append(torch.cuda.max_memory_allocated() - before)
            policy.zero_grad(set_to_none=True)
    assert peaks[3] < 0.8 * peaks[1]
