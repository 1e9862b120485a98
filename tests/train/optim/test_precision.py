"""The hardware decides the number format, and torch's global switches are restored."""

from __future__ import annotations

import pytest
import torch

from vlapipe.train.optim import precision
from vlapipe.train.optim.precision import autocast, backend_rules, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "_native_bf16", lambda _: native)
    chosen, why = choose_precision("auto", CPU)
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
