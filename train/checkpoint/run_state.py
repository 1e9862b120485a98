"""Saves a run's full state as a checkpoint, and restores it so that the run continues exactly with its next step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.commit import Plan, Snapshot, plan_files, sweep, write_checkpoint
from vlapipe.train.checkpoint.files import read_checkpoint
from vlapipe.train.checkpoint.kept import KeepRules, remove_old
from vlapipe.train.checkpoint.parts import PARTS
from vlapipe.train.checkpoint.resumed import resume_changes
from vlapipe.train.checkpoint.run_folder import save_config
from vlapipe.train.checkpoint.saved_policy import spec_to_json
from vlapipe.train.parallel.ranks import agree
from vlapipe.train.run import Run
from vlapipe.train.stopping import explain_surroundings

__all__ = ["keep_options", "restore", "save"]


def save(run: Run) -> None:
    """Write a checkpoint, unless this step already has one. A collective."""
    if run.checkpoint_step == run.step:
        return
    with agree(run.ranks):
        if run.ranks.is_first:
            sweep(run.config.out)
    states = {name: part.snapshot(run) for name, part in PARTS.items()}
    snapshot = Snapshot(
        step=run.step, parts={name: state for name, state in states.items() if state is not None}, state=_state(run)
    )
    plan = plan_files(snapshot.parts, run.ranks)
    with agree(run.ranks):  # its end waits for rank 0 on a group with a time-out of days, so a slow disk ends no run
        _write(run.config.out, snapshot, plan, KeepRules(last=run.config.checkpoint.keep_checkpoints))
    run.checkpoint_step = run.step


def _state(run: Run) -> dict[str, Any]:
    return {
        "config": run.config.to_dict(),
        "spec": spec_to_json(run.loader.spec),
        "dataset": {"manifest_sha256": run.dataset_digest},
        "world_size": run.ranks.world_size,
        "metrics": {},
    }


def _write(
    out: Path, snapshot: Snapshot, plan: Plan, rules: KeepRules, cancelled: threading.Event | None = None
) -> None:
    with explain_surroundings(out):
        if write_checkpoint(out, snapshot, plan, cancelled=cancelled) is not None:
            remove_old(out, rules)


def restore(run: Run, path: Path) -> None:
    """Restore the run's state from a checkpoint.

    Raises:
        UsageError: the checkpoint belongs to another policy, dataset or seed.
        DamageError: the checkpoint is incomplete or altered.
    """
    stored = read_checkpoint(path)
    began_with = stored.state.get("dataset", {}).get("manifest_sha256", run.dataset_digest)
    if began_with != run.dataset_digest:
        cure = "say with --data where that dataset is now, or begin a new run with another --out"
        raise UsageError(f"--data {run.config.data.text}: is not the dataset that this run began with", cure)
    run.step = run.checkpoint_step = stored.step
    for name, part in PARTS.items():
        if name in stored:
            part.restore(run, stored.part(name))
    if run.step < run.config.max_steps:
        ranks_before = stored.state.get("world_size", run.ranks.world_size)
        for line in resume_changes(stored.options, ranks_before, run.config, run.ranks.world_size, run.step):
            run.console.say(f"resumed otherwise: {line}")


def keep_options(run: Run) -> None:
    """Save the options in the run's folder after this process's first step. A resume without a step changes nothing."""
    if run.ranks.is_first and run.step == run.first_step + 1:
        with explain_surroundings(run.config.out):
            save_config(run.config)
