"""torch.compile around a policy, and a watch that says what it made: graphs, graph breaks, recompiles.

Batches have one shape, so everything is compiled for static shapes: once for training, and once for validation. A
later compilation costs seconds to minutes of a step, so each one is said with its reason.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.policies.loss_module import LossOf

__all__ = ["CompileWatch", "compile_policy"]

BACKEND = "inductor"
_WITHOUT_CUDA_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
_WARM_UP = 3
_SAID = 3  # maximum number of recompiles that get a line of their own


def compile_policy(
    module: LossOf,
    blocks: Sequence[nn.Module],
    mode: str,
    *,
    device: torch.device,
    num_passes: int,
    say: Callable[[str], None],
) -> CompileWatch:
    """Compile the loss as one graph, or only ``blocks`` if there are any. Compilation begins with the first batch.

    Args:
        module: its ``forward`` calls the compiled function.
        blocks: large layers to compile one by one, because FSDP gathers their parameters one by one.
        mode: a mode of torch.compile.
        device: where the policy runs.
        num_passes: backward passes of a step.
        say: prints a line.

    Raises:
        UsageError: this machine lacks the compiler that the device needs.
    """
    _require_compiler(device)
    if device.type == "cuda" and num_passes > 1 and mode in _WITHOUT_CUDA_GRAPHS:
        # The next pass would overwrite the gradients, because they lie in the memory of the graph:
        # https://github.com/pytorch/pytorch/issues/169545
        say(f"compile: {mode} without CUDA graphs, which cannot accumulate the gradients of {num_passes} passes")
        mode = _WITHOUT_CUDA_GRAPHS[mode]
    options: dict[str, Any] = {"backend": BACKEND, "dynamic": False}
    if BACKEND == "inductor":
        options["mode"] = mode
    for block in blocks:
        block.compile(**options)
    watch = CompileWatch(module.compute if blocks else torch.compile(module.compute, **options), mode, say)
    module.compute = watch  # type: ignore[method-assign]
    return watch


def _require_compiler(device: torch.device) -> None:
    without = "or train without --compile"
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UsageError("--compile needs Triton, which is not installed", f"pip install triton, {without}")
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            raise UsageError("--compile needs a C compiler, and found none", f"install gcc, {without}")
    elif BACKEND == "inductor":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            cure = f"install g++, name another one in the environment variable CXX, {without}"
            raise UsageError("--compile needs a C++ compiler on a CPU, and found none", cure) from None


@dataclass
class _Counts:
    seconds: float = 0.0
    versions: int = 0  # compiled versions of functions
    breaks: dict[str, int] = field(default_factory=dict)  # reason and place -> number of functions that it splits
    recompiles: list[str] = field(default_factory=list)  # reasons, after the warm-up

    def __str__(self) -> str:
        breaks = _counted(len(self.breaks), "graph break")
        first = f": {next(iter(self.breaks))}" if self.breaks else ""
        again = f"; compiled again {_counted(len(self.recompiles), 'time')}" if self.recompiles else ""
        reason = f", first because of {self.recompiles[0]}" if self.recompiles else ""
        return f"{_counted(self.versions, 'graph')} in {self.seconds:.0f} s, {breaks}{first}{again}{reason}"


class CompileWatch:
    """Calls a compiled function, and reports each compilation that it causes.

    Training and validation have a warm-up each. It ends with the first batch that needs no compilation, at the latest
    with the third batch.
    """

    def __init__(self, compiled: Callable[[Batch], Any], mode: str, say: Callable[[str], None]) -> None:
        from torch._dynamo.utils import counters, get_compilation_metrics, graph_break_reasons

        self._compiled: Callable[[Batch], Any] | None = compiled
        self._mode, self._say = mode, say
        self._frames, self._all_breaks, self._all_metrics = (
            counters["frames"],
            graph_break_reasons,
            get_compilation_metrics,
        )
        self._seen_frames, self._seen_breaks = self._frames["total"], len(graph_break_reasons)
        self._seen_until_us = max((each.end_time_us or 0 for each in get_compilation_metrics()), default=0)
        self._left = {True: _WARM_UP, False: _WARM_UP}  # batches of the warm-up of training and of validation
        self.counts = _Counts()

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns the compiled function's result.

        Raises:
            VlapipeError: torch.compile cannot compile the policy.
        """
        from torch._dynamo.exc import TorchDynamoException

        assert self._compiled is not None, "the run is closed"
        try:
            result: tuple[Tensor, Tensor, dict[str, Tensor]] = self._compiled(batch)
        except TorchDynamoException as error:
            first = " ".join(str(error).split("\n\n")[0].split())[:300]
            cure = "train without --compile; if the policy fails there too, its error says where"
            raise VlapipeError(f"torch.compile fails on the policy: {type(error).__name__}: {first}", cure) from error
        is_training = torch.is_grad_enabled()
        was_warm = not self._left[is_training]
        if self._frames["total"] != self._seen_frames:
            self._take_over(after_warm_up=was_warm)
            self._left[is_training] -= not was_warm
        else:
            self._left[is_training] = 0
        if is_training and not was_warm and not self._left[is_training]:
            self._say(f"compiled ({self._mode}): {self.counts}")
        return result

    def close(self) -> None:
        """Drop the compiled code, whose guards refer to the policy and, under FSDP, to the process groups."""
        self._compiled = None
        torch._dynamo.reset()

    def _take_over(self, *, after_warm_up: bool) -> None:
        """Count what was compiled since the last call."""
        self._seen_frames = self._frames["total"]
        new = [each for each in self._all_metrics() if (each.start_time_us or 0) > self._seen_until_us]
        for each in new:
            self._seen_until_us = max(self._seen_until_us, each.end_time_us or 0)
            self.counts.seconds += ((each.end_time_us or 0) - (each.start_time_us or 0)) / 1e6
            self.counts.versions += bool(each.graph_op_count)
            if after_warm_up:
                self._report_again(f"{each.co_name}: {_reason(each.recompile_reason)}")
        for found in self._all_breaks[self._seen_breaks :]:
            place = found.user_stack[-1] if found.user_stack else None
            where = f" ({os.path.basename(place.filename)}:{place.lineno})" if place else ""  # noqa: PTH119
            text = " ".join(found.reason.strip().split("\n")[0].split()) + where
            self.counts.breaks[text] = self.counts.breaks.get(text, 0) + 1
        self._seen_breaks = len(self._all_breaks)

    def _report_again(self, reason: str) -> None:
        self.counts.recompiles.append(reason)
        if len(self.counts.recompiles) <= _SAID:
            more = "; further ones are only counted" if len(self.counts.recompiles) == _SAID else ""
            self._say(f"compiled again, {reason}{more}")


def _reason(text: str | None) -> str:
    """Returns the failed guard without the number of the compiled version before it."""
    first = (text or "a new function").strip().split("\n")[0]
    head, colon, rest = first.partition(": ")
    return rest.strip() if colon and "/" in head and head.replace("/", "").isdigit() else first


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"
