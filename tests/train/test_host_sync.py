"""A step of training never waits for the device: the host may launch the next one while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import config
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vlapipe.train.build import build
from vlapipe.train.loop import train_step
from vlapipe.train.optim.optimizer import step_unless

# Each of them needs a value of the device on the host, or a shape that depends on values.
_METHODS = {Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__bool__, Tensor.__float__, Tensor.__int__}
_aten = torch.ops.aten
_OPERATORS = {
    *(_aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten._unique2, _aten.unique_dim),
    *(_aten.equal, _aten.is_nonzero, _aten.unique_consecutive),
}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_}


class NoSyncInPython(TorchFunctionMode):
    """Refuses calls of methods that read a tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, or refuse."""
        assert func not in _METHODS, f"{func.__name__} waits for the device"
        return func(*args, **(kwargs or {}))


class NoSyncInOperators(TorchDispatchMode):
    """Refuses operators that read a tensor, whoever calls them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, or refuse."""
        by_mask = func.overloadpacket in _INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        waits = by_mask or func.overloadpacket in _OPERATORS
        assert not waits, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def steps(tiny_dataset: Path, tmp_path: Path) -> Callable[..., None]:
    """Makes a step after one that warms up."""

    def run_step(**changes: Any) -> None:
        with build(config(tiny_dataset, tmp_path / "run", **changes)) as run:
            for _ in range(2):
                run.log.add(train_step(run), {}, now=True)
                run.step += 1
            with NoSyncInPython(), NoSyncInOperators():
                outcome = train_step(run)
            run.log.add(outcome, {}, now=True)

    return run_step


@pytest.mark.parametrize(
    "changes",
    [{}, {"grad_accum": 3}, {"precision": "bf16"}, {"ema": 0.9}, {"grad_clip": 0.0}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_step_reads_nothing_from_the_device(steps: Callable[..., None], changes: dict[str, Any]) -> None:
    steps(**changes)


@pytest.mark.parametrize("how", ["item", "tolist", "bool", "mask", "float in a policy"])
def test_such_a_read_would_be_found(steps: Callable[..., None], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(optimizer: torch.optim.Optimizer, is_bad: Tensor) -> None:
        {
            "item": lambda: is_bad.item(),
            "tolist": lambda: is_bad.reshape(1).tolist(),
            "bool": lambda: bool(is_bad),
            "mask": lambda: is_bad.reshape(1)[is_bad.reshape(1) > 0],
            "float in a policy": lambda: float(is_bad),
        }[how]()
        step_unless(optimizer, is_bad)

    monkeypatch.setattr("vlapipe.train.loop.step_unless", reads)
    with pytest.raises(AssertionError, match="waits for the device"):
        steps()


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"grad_accum": 3}, {"ema": 0.9}], ids=str)
def test_step_on_a_gpu_does_not_synchronise(tiny_dataset: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with build(config(tiny_dataset, tmp_path / "run", precision="auto", **changes)) as run:
        for _ in range(3):
            run.log.add(train_step(run), {}, now=True)
            run.step += 1
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            outcome = train_step(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        run.log.add(outcome, {}, now=True)
