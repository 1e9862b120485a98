"""Chooses the precision and the kernels of a run, and restores torch's global settings afterwards."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from vlapipe.schemas.errors import UsageError

__all__ = ["ATTENTION", "attention_kernel", "autocast", "backend_rules", "choose_precision"]

# Kernels of scaled_dot_product_attention, by the words of --attention.
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def choose_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """Returns ``bf16`` or ``fp32``, and the reason. ``auto`` chooses bf16 on a GPU that computes in bf16 natively.

    On a CPU, a policy of a million parameters needs half as much time again in bf16, or more: copying the weights to
    bf16 takes longer than what is gained. One of 20 million gains, but few train that on a CPU.
    """
    if wanted == "auto" and device.type == "cpu":
        return "fp32", "auto: on a CPU, bf16 is slower for all but large policies"
    native = _native_bf16(device)
    if wanted == "auto":
        return ("bf16" if native else "fp32"), f"auto: this GPU {'computes' if native else 'does not compute'} in bf16"
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


@contextlib.contextmanager
def attention_kernel(kind: str, *, precision: str, device: torch.device) -> Iterator[None]:
    """Let ``scaled_dot_product_attention`` use only the kernel ``kind``; ``auto`` leaves the choice to torch.

    Raises:
        UsageError: this device does not have the kernel for this precision.
    """
    if kind == "auto":
        yield
        return
    with sdpa_kernel(ATTENTION[kind]):
        if reason := _lacks_attention(precision, device):
            where = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
            cure = "--attention auto takes the fastest kernel that there is"
            raise UsageError(f"--attention {kind}: not on {where} in {precision}: {reason}", cure)
        yield


def _lacks_attention(precision: str, device: torch.device) -> str:
    """Try forward and backward on a few numbers. Returns the first sentence of the error, or an empty string."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokens = torch.ones(1, 1, 8, 64, dtype=dtype, device=device, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of each reason and then raises one error
        try:
            scaled_dot_product_attention(tokens, tokens, tokens).sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return ""
