"""FSDP2: the ranks share one copy of the policy, its gradients and the optimizer's state.

Each block of the policy (``policy.blocks()``) is gathered for its own forward and backward, and the remaining
parameters for the whole pass. Every pass reduces its gradients, so that no rank holds whole gradients: accumulation
costs more exchanges than with DDP, and no memory. HSDP splits the policy within groups of ranks, for example the GPUs
of a machine, and copies it to each group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from vlapipe.schemas.errors import UsageError
from vlapipe.train.parallel.ddp import mean_over_ranks
from vlapipe.train.parallel.ranks import Ranks
from vlapipe.train.parallel.same_policy import require_same_policy
from vlapipe.train.parallel.strategy import ReadTensor, scale_and_clip

__all__ = ["Sharded"]


class Sharded:
    """The ranks share one copy of the policy, which begins with rank 0's weights.

    Each rank's loss must reach the same parameters in a step.
    """

    splits_blocks = True

    def __init__(self, ranks: Ranks, *, precision: str, shard_size: int | None = None) -> None:
        """Connect the ranks; a collective.

        Args:
            ranks: this process and the number of ranks.
            precision: ``bf16`` gathers the parameters on a GPU in bf16 and reduces the gradients in fp32.
            shard_size: number of ranks that share a copy (HSDP); ``None`` for all ranks.

        Raises:
            UsageError: ``shard_size`` does not divide the number of ranks.
        """
        self._ranks = ranks
        # On a CPU, autocast alone chooses bf16: norms there take no input and weight of different types.
        self._dtype = torch.bfloat16 if precision == "bf16" and ranks.device.type == "cuda" else None
        if shard_size is None:
            self._mesh = init_device_mesh(ranks.device.type, (ranks.world_size,), mesh_dim_names=("shard",))
            return
        if ranks.world_size % shard_size:
            cure = f"give a number that divides {ranks.world_size}"
            raise UsageError(f"shard_size {shard_size}: does not divide the number of ranks, {ranks.world_size}", cure)
        sizes = (ranks.world_size // shard_size, shard_size)
        self._mesh = init_device_mesh(ranks.device.type, sizes, mesh_dim_names=("copy", "shard"))

    def wrap(self, module: nn.Module, policy: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        """Split each of ``blocks``, then the rest of ``module``.

        Raises:
            UsageError: the ranks built different policies.
        """
        require_same_policy(policy, self._ranks)
        # Inputs keep their precision: the policy normalizes them in fp32. Autocast rounds them where it may.
        rules = MixedPrecisionPolicy(
            param_dtype=self._dtype, reduce_dtype=torch.float32 if self._dtype else None, cast_forward_inputs=False
        )
        for unit in (*blocks, module):
            self._take_over(unit)
            try:
                fully_shard(unit, mesh=self._mesh, mp_policy=rules)
            except (ValueError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
                part = type(policy if unit is module else unit).__name__
                raise UsageError(
                    f"--parallel fsdp cannot split {part}: {' '.join(str(error).split())[:200]}",
                    "see blocks() in docs/policies.md, or train with --parallel ddp",
                ) from None
        module.register_forward_hook(_reshard_without_backward)
        return module

    def _take_over(self, unit: nn.Module) -> None:
        """Move a unit to the device, with rank 0's values. The device need not hold the whole policy at any time."""
        for parameter in unit.parameters():
            if not isinstance(parameter, DTensor):  # not yet split, as a part of another unit
                parameter.data = parameter.data.to(self._ranks.device)
                dist.broadcast(parameter.data, 0)
        for part in unit.modules():
            for name, buffer in part.named_buffers(recurse=False):
                moved = buffer.to(self._ranks.device)
                dist.broadcast(moved, 0)
                part._buffers[name] = moved

    def gradient_sync(self, enabled: bool) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Returns a context that does nothing: each pass reduces its gradients, so that no rank keeps whole ones."""
        return contextlib.nullcontext()

    def clip(self, parameters: Iterable[Tensor], max_norm: float, factor: Tensor) -> Tensor:
        """Multiply the gradients by ``factor``, then clip the norm over all ranks. Returns the norm before."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return scale_and_clip([_own_part(gradient) for gradient in gradients], whole, max_norm, factor)

    def mean(self, scalars: Tensor) -> Tensor:
        """Returns the mean of ``scalars`` over the ranks."""
        return mean_over_ranks(scalars)

    def for_optimizer(self, flag: Tensor) -> Tensor:
        """Returns ``flag`` as a tensor that is replicated on the mesh, as the optimizer's kernel requires."""
        return DTensor.from_local(flag, self._mesh, [Replicate()] * self._mesh.ndim, run_check=False)

    def full_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather each tensor; the rank that has to save it keeps a copy. The names are dealt out by size.

        What is not split, such as a buffer, may differ between the ranks; rank 0 saves it.
        """
        load = [0] * self._ranks.world_size
        mine: dict[str, Tensor] = {}
        for name, tensor in named.items():
            owner = load.index(min(load)) if isinstance(tensor, DTensor) else 0
            load[owner] += tensor.numel() * tensor.element_size()
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if owner == self._ranks.rank:
                mine[name] = whole.detach().to("cpu", copy=True)
        return mine

    def load_state(self, named: Mapping[str, Tensor], read: ReadTensor) -> None:
        """Copy this rank's part of each stored tensor."""
        with torch.no_grad():
            for name, tensor in named.items():
                part = _own_part(tensor)
                if part.numel():
                    part.copy_(read(name, _own_slices(tensor)))

    def close(self) -> None:
        """Drop the mesh's groups. torch caches the layouts of tensors, and with them the mesh, until Python ends."""
        getattr(self._mesh, "_pg_registry", {}).clear()


def _reshard_without_backward(module: nn.Module, *_: object) -> None:
    """Split the root's parameters again after a validation; FSDP does that in backward.

    Otherwise the policy keeps gathered copies. They are other tensors than those of the optimizer and the EMA, and the
    next pass would use them with the values of the validation.
    """
    if not torch.is_grad_enabled():
        assert isinstance(module, FSDPModule)
        module.reshard()


def _own_part(tensor: Tensor) -> Tensor:
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part


def _own_slices(tensor: Tensor) -> tuple[slice, ...]:
    """Returns where this rank's part of ``tensor`` lies in the whole tensor."""
    if not isinstance(tensor, DTensor):
        return (slice(None),) * tensor.dim()
    sizes, first = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(begin, begin + size) for begin, size in zip(first, sizes, strict=True))
