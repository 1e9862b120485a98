"""The folder that a run writes to: new or empty, unless the run is resumed; nothing of the user's is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

from vlapipe.pipeline.shards.atomic import write_bytes
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint import latest_checkpoint
from vlapipe.train.config import CONFIG_FILE, TrainConfig

__all__ = ["open_run_folder", "save_config"]


def open_run_folder(config: TrainConfig) -> Path | None:
    """Make ``config.out`` ready; returns the checkpoint to go on from, if any.

    Raises:
        UsageError: the folder is in use and the run is not resumed, or the other way round.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file", "give a folder")
    checkpoint = latest_checkpoint(out)
    if config.resume:
        if checkpoint is None:
            raise UsageError(f"--out {out}: no checkpoint to resume from", "leave --resume away to begin a new run")
    elif out.is_dir() and any(out.iterdir()):
        cure = "add --resume to go on from it" if checkpoint else "give a new folder"
        raise UsageError(f"--out {out}: not empty", f"{cure}, or give another folder" if checkpoint else cure)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {out}: cannot be written: {error.strerror}", "check its path and permissions"
        ) from None
    return checkpoint


def save_config(config: TrainConfig) -> None:
    """Keep the resolved options in the run's folder, for a resume and for the reader."""
    write_bytes(config.out / CONFIG_FILE, (json.dumps(config.to_dict(), indent=1) + "\n").encode())
