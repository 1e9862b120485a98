"""Model FLOPs utilisation (MFU): which part of the GPUs' peak the policy's own arithmetic uses.

A training step counts three forward passes: the forward pass, and twice as much for the backward pass. Recomputed
activations and the optimizer do not count (Chowdhery et al. 2022, PaLM, appendix B).
"""

from __future__ import annotations

__all__ = ["peak_flops", "peak_share"]

# Floating-point operations a second in bf16 with fp32 accumulation, without sparsity, from NVIDIA's data sheets. The
# first name that the GPU's name contains counts.
_PEAKS = (
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("RTX 4090 Laptop", None),
    ("RTX 4090 D", None),
    ("RTX 4090", 165e12),
    ("RTX 3090 Ti", None),
    ("RTX 3090", 71e12),
)


def peak_flops(name: str) -> float | None:
    """Returns the peak of the GPU of this name, as ``torch.cuda.get_device_name`` has it; None if it is unknown."""
    return next((peak for part, peak in _PEAKS if part in name), None)


def peak_share(forward_flops: float, peak: float, num_gpus: int) -> float:
    """Returns the part of the peak of all GPUs that one sample a second uses. MFU is this, times samples a second."""
    return 3 * forward_flops / (peak * num_gpus)
