"""Copies batches to the device; a loader's threads copy on CUDA streams beside the stream that computes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch

from vlapipe.train.data.batch_layout import Batch

__all__ = ["SideCopy", "timing_waits", "to_device"]

_AddWait = Callable[[torch.cuda.Event, torch.cuda.Event], None]
_add_wait: ContextVar[_AddWait | None] = ContextVar("add_wait", default=None)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy every tensor to ``device``: asynchronously if it is pinned, and not at all if it is there already."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


@contextlib.contextmanager
def timing_waits(add: _AddWait) -> Iterator[None]:
    """Call ``add`` with the CUDA events before and after each wait for a batch, while the ``with`` block runs.

    The computing stream waits between the two events. Their distance in time is the part of the copy that computation
    did not hide.
    """
    token = _add_wait.set(add)
    try:
        yield
    finally:
        _add_wait.reset(token)


class SideCopy:
    """Copies batches while the GPU computes. The thread that made a batch begins the copy; only the GPU waits for it.

    If the device is a CPU or ``None``, nothing is copied.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._of_thread = threading.local()

    def begin(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """Begin to copy a pinned batch; returns the batch on the device, and an event that marks the copy's end."""
        if self._device is None:
            return batch, None
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._of_thread.stream
        with torch.cuda.stream(stream):
            copied = to_device(batch, self._device)
            return copied, stream.record_event()

    def finish(self, batch: Batch, arrived: torch.cuda.Event | None) -> None:
        """Make the device's current stream wait until the batch has arrived."""
        if arrived is None:
            return
        # The current stream of the batch's device; the thread's current device may be another one.
        stream = torch.cuda.current_stream(self._device)
        add = _add_wait.get()
        if add is None:
            stream.wait_event(arrived)
        else:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record(stream)
            stream.wait_event(arrived)
            after.record(stream)
            add(before, after)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.record_stream(stream)  # else its memory could be reused while this stream still reads it
