"""Locks the folder that a run writes to, so that no second run uses it. Overwrites only files of a vlapipe run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vlapipe.pipeline.shards.format.atomic import (
    TEMP_PREFIX,
    sweep_temporaries,
    temporary_file,
    try_lock,
    write_bytes,
)
from vlapipe.schemas.errors import UsageError, is_text
from vlapipe.train.checkpoint.files import FOLDER, latest_checkpoint
from vlapipe.train.checkpoint.run_lock import LOCK_FILE, held_by_this_run
from vlapipe.train.config import CONFIG_FILE, TrainConfig, read_saved_config
from vlapipe.train.report.outputs import REPORT_NAMES
from vlapipe.train.report.wandb_run import WANDB_ID_FILE

__all__ = ["run_folder", "save_config"]

_OURS = {CONFIG_FILE, FOLDER, *REPORT_NAMES}


@contextlib.contextmanager
def run_folder(config: TrainConfig, say: Callable[[str], None]) -> Iterator[Path | None]:
    """Lock ``config.out`` for the duration of the block. Yields the checkpoint to resume from, or None.

    The folder is created if it does not exist. If the run then writes nothing into the new folder, it is removed.

    Raises:
        UsageError: the folder is in use, cannot be written, or belongs to something else.
    """
    checkpoint = _checkpoint_to_resume(config)
    out = config.out
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with _held(out, say):
            if checkpoint is None:
                _clear_failed_start(out, say)
            yield checkpoint
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def save_config(config: TrainConfig) -> None:
    """Write the resolved options to ``config.json`` in the run's folder."""
    write_bytes(config.out / CONFIG_FILE, (json.dumps(config.to_dict(), indent=1) + "\n").encode())


def _checkpoint_to_resume(config: TrainConfig) -> Path | None:
    """Returns the run's newest checkpoint, or None if a new run may begin in the folder."""
    out = config.out
    if not is_text(str(out.absolute())):  # safetensors cannot open files there
        raise UsageError(f"--out {out}: its path is not UTF-8 text", "give a folder whose path is")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file", "give a folder")
    try:
        checkpoint = latest_checkpoint(out)
        if checkpoint is not None and not config.resume:
            raise UsageError(f"--out {out}: not empty", "add --resume to go on from it, or give another folder")
        if checkpoint is None and out.is_dir() and not _holds_only_ours(out):
            what = "no checkpoint to resume from" if config.resume else "not empty"
            raise UsageError(f"--out {out}: {what}", "give a new folder")
    except OSError as error:
        raise _not_writable(out, error) from None
    if config.resume and not out.exists():
        raise UsageError(f"--out {out}: no checkpoint to resume from", "leave --resume away to begin a new run")
    return checkpoint


def _holds_only_ours(out: Path) -> bool:
    """Whether the folder is empty, or has only the files of a run that ended before its first checkpoint."""
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMP_PREFIX)} - {LOCK_FILE}
    if not names:
        return True
    checkpoints = out / FOLDER
    # A run writes its config first. Without a config, a file with one of these names does not belong to a run.
    return (
        names <= _OURS
        and CONFIG_FILE in names
        and (not checkpoints.exists() or all(path.name.startswith(TEMP_PREFIX) for path in checkpoints.iterdir()))
        and {"data", "out", "policy"} <= set(read_saved_config(out))
    )


@contextlib.contextmanager
def _held(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Create the folder if necessary, and lock it exclusively for the duration of the block."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with temporary_file(out):  # an unwritable folder must fail now, not after the dataset has been loaded
            pass
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise _not_writable(out, error) from None
    try:
        alone_here = try_lock(handle)
        if alone_here is False:
            raise UsageError(f"--out {out}: another run is writing there", "wait for it, or give another folder")
        with held_by_this_run(out, say, alone_here=alone_here is True):
            yield
    finally:
        os.close(handle)


def _clear_failed_start(out: Path, say: Callable[[str], None]) -> None:
    sweep_temporaries(out)
    if (out / CONFIG_FILE).exists():
        say(f"--out {out}: an earlier run ended before its first checkpoint; it begins again")
        # The new run gets a new id, because W&B accepts each step of a run only once.
        (out / WANDB_ID_FILE).unlink(missing_ok=True)


def _not_writable(out: Path, error: OSError) -> UsageError:
    return UsageError(f"--out {out}: cannot be written: {error.strerror}", "check its path and permissions")
