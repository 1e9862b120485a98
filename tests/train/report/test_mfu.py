"""Model FLOPs utilisation: known peaks by the GPU's name, three forward passes a step."""

from __future__ import annotations

import pytest

from vlapipe.train.report.mfu import peak_flops, peak_share


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3090", 71),
    ],
)
def test_known_gpus_have_their_peak(name: str, tera: float) -> None:
    assert peak_flops(name) == tera * 1e12


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "Tesla T4", ""])
def test_other_gpus_have_none(name: str) -> None:
    assert peak_flops(name) is None


def test_backward_counts_twice_and_gpus_share_the_work() -> None:
    assert 1000 * peak_share(1e9, 1e13, 1) == pytest.approx(0.3)
    assert 1000 * peak_share(1e9, 1e13, 4) == pytest.approx(0.075)
