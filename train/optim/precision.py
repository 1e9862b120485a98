"""Chooses the precision and the kernel rules of a run, and restores torch's global settings afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

__all__ = ["autocast", "backend_rules", "choose_precision"]


def choose_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """Returns ``bf16`` or ``fp32``, and the reason. ``auto`` chooses bf16 if the hardware computes in bf16 natively."""
    native = _native_bf16(device)
    if wanted == "auto":
        what = "GPU" if device.type == "cuda" else "CPU"
        reason = f"auto: this {what} {'computes' if native else 'does not compute'} in bf16"
        return ("bf16" if native else "fp32"), reason
    if wanted == "bf16" and not native:
        return wanted, "as asked; this hardware only emulates it, which is slower than fp32"
    return wanted, "as asked"


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for these probes. A CPU without these instructions emulates bf16 by conversion.
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe is not None)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the autocast context. bf16 has the exponent range of fp32, so gradients need no loss scaler."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def backend_rules(*, deterministic: bool) -> Iterator[None]:
    """Let cuDNN benchmark its kernels and use the fastest; if ``deterministic``, use only deterministic kernels."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this setting
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.backends.cuda.enable_mem_efficient_sdp(before[2])
