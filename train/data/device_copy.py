"""Brings batches to the device; from a loader's threads, on a stream beside the one that computes."""

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
    """The batch with every tensor on ``device``; asynchronous if it was pinned, no copy if it is there already."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


@contextlib.contextmanager
def timing_waits(add: _AddWait) -> Iterator[None]:
    """Give ``add`` the events before and after each wait of the computing stream for a batch that is taken within.

    What lies between them is the part of a copy that computation did not hide.
    """
    token = _add_wait.set(add)
    try:
        yield
    finally:
        _add_wait.reset(token)


class SideCopy:
    """Copies that run while the GPU computes: begun by the thread that made the batch, awaited by the GPU alone.

    On a CPU, and without a device, nothing is copied.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._of_thread = threading.local()

    def begin(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """The batch on the device, and what tells that it has arrived. It must be pinned."""
        if self._device is None:
            return batch, None
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._of_thread.stream
        with torch.cuda.stream(stream):
            copied = to_device(batch, self._device)
            return copied, stream.record_event()

    def finish(self, batch: Batch, arrived: torch.cuda.Event | None) -> None:
        """Have the device's current stream wait for the batch before it goes on."""
        if arrived is None:
            return
        # Of the batch's device, which need not be the thread's current one.
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
                value.record_stream(stream)  # or its memory might be given away while this stream still reads it
