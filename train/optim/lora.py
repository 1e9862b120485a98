"""LoRA: low-rank adapters that peft puts on linear layers, and the weights that they and their layers make together.

The names of an adapted layer ``x`` are ``x.base_layer.weight``, ``x.lora_A.default.weight`` and
``x.lora_B.default.weight``. peft is needed only to train. A merged policy has the plain names and needs no peft.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from vlapipe.schemas.errors import UsageError

__all__ = ["inject_lora", "linear_layers", "merged"]

_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def linear_layers(policy: nn.Module) -> list[str]:
    """Returns the names of the layers that LoRA can adapt.

    The output layer of ``nn.MultiheadAttention`` is not among them: attention reads its weight and never calls it.
    """
    layers = [(name, m) for name, m in policy.named_modules() if isinstance(m, nn.Linear) and name]
    return [name for name, m in layers if not isinstance(m, NonDynamicallyQuantizableLinear)]


def inject_lora(policy: nn.Module, layers: Collection[str], *, rank: int, alpha: float) -> None:
    """Add an adapter to each of ``layers`` and freeze all other parameters. The outputs stay the same at first.

    Raises:
        UsageError: peft is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        cure = "in the checkout of vlapipe: pip install '.[lora]' -c constraints.txt"
        raise UsageError(f"[trainable.lora] needs {error.name}, which is not installed", cure) from None
    # peft matches a list of names as endings; it matches one text as a regular expression for the whole name.
    names = "|".join(re.escape(name) for name in sorted(layers))
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    peft.inject_adapter_in_model(config, policy)
    if any(isinstance(module, nn.TransformerEncoderLayer) for module in policy.modules()):
        # In evaluation, this layer's fast path reads the weights of its linear layers and leaves the adapters out.
        torch.backends.mha.set_fastpath_enabled(False)


def merged(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Returns ``tensors`` of an adapted policy under their plain names, with each adapter added to its layer.

    ``scale`` is alpha / rank. Tensors without an adapter stay as they are.
    """
    plain = {}
    for name, tensor in tensors.items():
        if name.endswith((_A, _B)):
            continue
        layer, base, entry = name.rpartition(_BASE)
        if base and entry == "weight" and layer + _A in tensors:
            delta = tensors[layer + _B].float() @ tensors[layer + _A].float()
            tensor = (tensor.float() + scale * delta).to(tensor.dtype)
        plain[f"{layer}.{entry}" if base and layer + _A in tensors else name] = tensor
    return plain
