"""Brings batches to the device; from a loader's threads, on a stream beside the one that computes."""

from __future__ import annotations

import threading

import torch

from vlapipe.train.policies.base import Batch

__all__ = ["SideCopy", "to_device"]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on ``device``; asynchronous if it was pinned, no copy if it is there already."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


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

    @staticmethod
    def finish(batch: Batch, arrived: torch.cuda.Event | None) -> None:
        """Have the current stream wait for the batch before it goes on."""
        if arrived is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(arrived)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.record_stream(stream)  # or its memory might be given away while this stream still reads it
