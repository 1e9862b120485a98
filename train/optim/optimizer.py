"""The optimizer, its learning rate, and the gradient of a step.

The learning rate is a pure function of the step, so a resume needs no scheduler. The gradient does not depend on how a
step's samples are divided into batches and ranks. The loss of a batch is a mean over its actions that are not padded.
To give every action the same weight, the trainer multiplies a batch's loss by the fraction of actions that are not
padded, and divides the summed gradient by the mean of these fractions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import Batch

__all__ = [
    "kept_share",
    "load_optimizer_tensors",
    "make_optimizer",
    "optimizer_tensors",
    "rescale_and_clip",
]


def make_optimizer(module: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Returns a fused AdamW. Only parameters with 2 or more dimensions decay; biases, gains and vectors do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_floating_point() and p.device.type in ("cuda", "cpu") for p in parameters)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=(0.9, 0.95), fused=fused
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Returns the optimizer's state by ``<parameter>|<entry>``, for a checkpoint. Tensors are not copied."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}|{entry}": value
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore the optimizer's state from the result of ``optimizer_tensors``.

    Raises:
        KeyError: the state has a parameter that the module does not have.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        by_name.setdefault(name, {})[entry] = value
    parameters = dict(module.named_parameters())
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    place = {parameter: i for i, parameter in enumerate(order)}
    state = {place[parameters[name]]: entries for name, entries in by_name.items()}
    # load_state_dict moves each entry to the device of its parameter.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def kept_share(batch: Batch) -> Tensor:
    """Returns the fraction of actions that are not padded: a scalar on the batch's device, without a device sync."""
    share: Tensor = (~batch["action_is_pad"]).float().mean()
    return share


def rescale_and_clip(module: nn.Module, mean_share: float, max_norm: float) -> Tensor:
    """Divide the gradients by ``mean_share``, then clip their norm to ``max_norm`` (0: do not clip).

    Returns the norm before clipping.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if gradients and mean_share > 0:
        torch._foreach_mul_(gradients, 1.0 / mean_share)
    return torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm or float("inf"))
