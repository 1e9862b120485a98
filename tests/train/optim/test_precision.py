"""The hardware decides the number format, and torch's global switches are restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import SMALL, options
from synthetic import make_batch, make_spec
from torch.nn.functional import scaled_dot_product_attention

from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.loop import train
from vlapipe.train.optim import precision
from vlapipe.train.optim.precision import attention_kernel, autocast, backend_rules, choose_precision
from vlapipe.train.policies.regression import RegressionPolicy

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "native", "expected"), [("cuda", True, "bf16"), ("cuda", False, "fp32"), ("cpu", True, "fp32")]
)
def test_auto_takes_bf16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, device: str, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "_native_bf16", lambda _: native)
    chosen, why = choose_precision("auto", torch.device(device))
    assert chosen == expected
    assert why.startswith("auto:")


def test_bf16_that_is_only_emulated_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_native_bf16", lambda _: False)
    assert choose_precision("bf16", CPU) == (
        "bf16",
        "as asked; this hardware only emulates it, which is slower than fp32",
    )
    assert choose_precision("fp32", CPU) == ("fp32", "as asked")


def test_autocast_is_on_for_bf16_alone() -> None:
    x = torch.randn(4, 4)
    with autocast("bf16", CPU):
        assert (x @ x).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert (x @ x).dtype == torch.float32


def test_deterministic_switches_are_put_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with backend_rules(deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled() is before


def test_cudnn_looks_for_the_fastest_kernels_unless_they_must_be_deterministic() -> None:
    before = torch.backends.cudnn.benchmark
    with backend_rules(deterministic=False):
        assert torch.backends.cudnn.benchmark
        with backend_rules(deterministic=True):
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before


def kernels_of(work: Callable[[], object], device: torch.device) -> str:
    """Names of the attention operations that ``work`` runs."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profiled:
        work()
    return " ".join({event.name for event in profiled.events()})


def attend(device: torch.device) -> torch.Tensor:
    tokens = torch.ones(2, 2, 8, 16, device=device)
    return scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize(
    ("kind", "used"),
    [("auto", "flash_attention_for_cpu"), ("flash", "flash_attention_for_cpu"), ("math", "attention_math")],
)
def test_attention_uses_the_kernel_that_was_asked_for(kind: str, used: str) -> None:
    with attention_kernel(kind, precision="fp32", device=CPU):
        assert f"aten::_scaled_dot_product_{used}" in kernels_of(lambda: attend(CPU), CPU)
    assert "_flash_attention_for_cpu" in kernels_of(lambda: attend(CPU), CPU)


@pytest.mark.parametrize("kind", ["efficient", "cudnn"])
def test_kernel_that_the_device_lacks_is_refused_in_one_line(tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        train(TrainConfig.of(**options(tiny_dataset, tmp_path / "run", attention=kind)))
    assert str(caught.value).startswith(f"--attention {kind}: not on a CPU in fp32: No viable backend")
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (2, False)
    assert not (tmp_path / "run").exists()
    assert "_flash_attention_for_cpu" in kernels_of(lambda: attend(CPU), CPU)


def test_attention_that_cannot_use_the_kernel_is_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    odd = options(tiny_dataset, tmp_path / "run", policy="policies_under_test:FlatAttention", attention="flash")
    with pytest.raises(UsageError, match=r"^--attention flash: the policy's attention cannot use") as caught:
        train(TrainConfig.of(**odd))
    assert "\n" not in str(caught.value)
    train(TrainConfig.of(**(odd | {"attention": "auto", "out": str(tmp_path / "other"), "max_steps": 1})))


@pytest.mark.gpu
def test_built_in_policy_in_bf16_uses_flash_attention_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    device = torch.device("cuda")
    spec = make_spec()
    policy, batch = RegressionPolicy(spec, **SMALL).to(device), to_device(make_batch(spec), device)

    def step() -> None:
        with backend_rules(deterministic=False), autocast("bf16", device):
            policy.loss(batch).total.backward()

    names = kernels_of(step, device)
    assert "aten::_scaled_dot_product_flash_attention" in names
    assert "aten::_scaled_dot_product_flash_attention_backward" in names
    assert "flash_fwd" in names  # of the GPU's own kernel
    assert "efficient_attention" not in names
    assert "_scaled_dot_product_attention_math" not in names


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["flash", "efficient", "math", "cudnn"])
def test_every_kernel_trains_on_a_gpu(tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    values = options(tiny_dataset, tmp_path / "run", attention=kind, precision="bf16")
    try:
        assert train(TrainConfig.of(**values)).step == 6
    except UsageError as error:
        assert str(error).startswith(f"--attention {kind}: ")  # noqa: PT017
