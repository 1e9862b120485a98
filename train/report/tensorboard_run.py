"""Writes metrics for TensorBoard, if enabled: the names and steps of metrics.jsonl, in OUT/tensorboard."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.train.report.sinks import MetricsSink

__all__ = ["TENSORBOARD_FOLDER", "open_tensorboard", "require_tensorboard"]

TENSORBOARD_FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        cure = "in the checkout of vlapipe: pip install '.[tensorboard]' -c constraints.txt"
        raise UsageError("--tensorboard needs tensorboard, which is not installed", cure)


class _EventFile:
    """An event file of TensorBoard as a destination."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        """Do nothing: the writer's own thread does not keep the process alive."""


def open_tensorboard(out: Path, *, resumed_step: int, say: Callable[[str], None]) -> MetricsSink | None:
    """Returns a sink for TensorBoard, or None if it fails to start.

    A resumed run goes on in the same curves: TensorBoard drops the values of all steps after ``resumed_step``.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter

        # Each run of a process is a file of its own in the folder; the file begins with the step to purge from.
        writer = SummaryWriter(out / TENSORBOARD_FOLDER, purge_step=resumed_step + 1, flush_secs=10)
    except Exception as error:  # noqa: BLE001 - no failure of a reporter stops a training
        say(f"tensorboard does not start: {' '.join(str(error).split())}; metrics go to metrics.jsonl only")
        return None
    return MetricsSink("tensorboard", _EventFile(writer), say)
