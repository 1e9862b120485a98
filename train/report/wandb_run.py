"""Sends metrics to Weights & Biases (W&B), if enabled. W&B never stops a run. The files of W&B stay under OUT."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vlapipe.pipeline.shards.format.atomic import write_bytes

__all__ = ["WANDB_FOLDER", "WANDB_ID_FILE", "MetricsSink", "NullSink", "open_wandb"]

WANDB_FOLDER = "wandb"  # the folder that wandb itself creates
WANDB_ID_FILE = "wandb_run_id"
_MOST_WAITING = 10_000  # maximum number of steps in the queue
_CLOSE_S = 60.0
_TEAR_DOWN_S = 2.0


class MetricsSink(Protocol):
    """A second destination of a step's values, besides metrics.jsonl."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Accept a step's values."""

    def close(self) -> None:
        """Send the remaining values."""


class NullSink:
    """A sink that discards all values."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Discard the values."""

    def close(self) -> None:
        """Do nothing."""


class _WandbSink:
    """Sends values to W&B on a separate thread, so training continues even if W&B or its helper process fails.

    The first failure is printed. After it, the sink sends nothing more.
    """

    def __init__(self, run: Any, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._values: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_MOST_WAITING)
        self._is_broken = False
        self._thread = threading.Thread(target=self._send, name="vlapipe-wandb", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self._is_broken:
            return
        try:
            self._values.put_nowait((step, values))
        except queue.Full:
            self._break(f"it takes no more after {_MOST_WAITING} steps")

    def close(self) -> None:
        """Send the remaining values. Waits one minute at most."""
        with contextlib.suppress(queue.Full):
            self._values.put_nowait(None)
        self._thread.join(0 if self._is_broken else _CLOSE_S)
        if self._thread.is_alive():
            self._break(f"it does not finish within {_CLOSE_S:.0f} s")
        if self._is_broken:
            # At exit, wandb would wait for its helper process. teardown cancels this wait, but may itself block.
            ending = threading.Thread(target=_tear_down, daemon=True)
            ending.start()
            ending.join(_TEAR_DOWN_S)

    def _send(self) -> None:
        try:
            while (item := self._values.get()) is not None:
                step, values = item
                self._run.log(dict(values), step=step)
            self._run.finish()
        except Exception as error:  # noqa: BLE001 - a killed helper process, a full disk, a changed API
            self._break(f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": "))

    def _break(self, why: str) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._say(f"wandb: {why}; training goes on, and metrics.jsonl has all metrics")


def _tear_down() -> None:
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def open_wandb(mode: str, out: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> MetricsSink:
    """Returns a sink for W&B in ``online`` or ``offline`` mode.

    Returns a ``NullSink`` if W&B is disabled, is not installed or fails to start.
    """
    if mode == "disabled":
        return NullSink()
    try:
        import wandb
    except ModuleNotFoundError:
        say("wandb is not installed: metrics go to metrics.jsonl only (pip install wandb, or --wandb disabled)")
        return NullSink()
    except Exception as error:  # noqa: BLE001 - a broken installation
        say(f"wandb cannot be imported: {' '.join(str(error).split())}; metrics go to metrics.jsonl only")
        return NullSink()
    if mode == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        say("wandb: no API key, so this run is kept offline (run 'wandb login', or set WANDB_API_KEY)")
        mode = "offline"
    try:
        run = wandb.init(
            project="vlapipe",
            dir=out,
            id=_run_id(out),
            name=out.name,
            resume="allow",
            mode="online" if mode == "online" else "offline",
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )
    except Exception as error:  # noqa: BLE001 - no failure of a reporter stops a training
        say(f"wandb does not start: {' '.join(str(error).split())}; metrics go to metrics.jsonl only")
        return NullSink()
    return _WandbSink(run, say)


def _run_id(out: Path) -> str:
    """Returns the run's W&B id. Every resume of the run has the same id, so that W&B shows one curve."""
    file = out / WANDB_ID_FILE
    if not file.exists():
        write_bytes(file, secrets.token_hex(4).encode())
    return file.read_text().strip()
