"""Makes small checkpoints from arguments, for tests without a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlapipe.train.checkpoint.commit import PartState, Snapshot, write_checkpoint
from vlapipe.train.checkpoint.files import STATE_FILE, sealed


def make(step: int, *, metrics: dict[str, float] | None = None, **changes: dict[str, Any]) -> Snapshot:
    """A snapshot after ``step`` steps; ``changes`` are the tensors of other or further parts."""
    tensors: dict[str, dict[str, Any]] = {
        "policy": {"weight": torch.arange(6.0).view(2, 3), "varies": torch.tensor([True, False])},
        "optimizer": {"weight|step": torch.tensor(3.0)},
        "rng": {"rank0/cpu": torch.get_rng_state()},
    }
    parts = {name: PartState(tensors=named) for name, named in (tensors | changes).items()}
    parts["loader"] = PartState(values={"position": 7})
    return Snapshot(step=step, parts=parts, state={"config": {}, "spec": {}, "metrics": metrics or {}})


def write(out: Path, snapshot: Snapshot) -> Path:
    """Write the snapshot by one rank, and return the checkpoint's folder."""
    path = write_checkpoint(out, snapshot)
    assert path is not None
    return path


def edit_state(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the state of a stored checkpoint, as if it had been written so."""
    file = path / STATE_FILE
    state = json.loads(file.read_text())
    del state["sha256"]
    edit(state)
    file.write_bytes(sealed(state))
