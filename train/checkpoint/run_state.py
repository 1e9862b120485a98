"""Saves a run's full state as a checkpoint, and restores it so that the run continues exactly with its next step."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.checkpoint.commit import Plan, Snapshot, plan_files, sweep, write_checkpoint
from vlapipe.train.checkpoint.kept import KeepRules, remove_old
from vlapipe.train.checkpoint.parts import PARTS
from vlapipe.train.checkpoint.resumed import resume_changes
from vlapipe.train.checkpoint.run_folder import save_config
from vlapipe.train.checkpoint.whole import newest_whole
from vlapipe.train.config import CheckpointConfig
from vlapipe.train.parallel.ranks import agree
from vlapipe.train.run import Run
from vlapipe.train.stopping import explain_surroundings

__all__ = ["keep_options", "restore", "save"]


def save(run: Run) -> None:
    """Save a checkpoint, unless this step already has one. A collective.

    With ``async_save``, a thread writes the files while the run goes on.
    """
    if run.checkpoint_step == run.step:
        return
    with run.log.aside("checkpoints"), run.ranks.during("saving a checkpoint"):
        with agree(run.ranks):
            run.saving.finish()  # one save at a time: each needs memory for its copies
            if run.ranks.is_first:
                sweep(run.config.out)
                _say_if_metric_is_unknown(run)
        _save(run)
    run.checkpoint_step = run.step


def _save(run: Run) -> None:
    states = {name: part.snapshot(run) for name, part in PARTS.items()}
    parts = {name: state for name, state in states.items() if state is not None}
    snapshot = Snapshot(step=run.step, parts=parts, state=_state(run))
    plan = plan_files(parts, run.ranks)
    write = partial(_write, run.config.out, snapshot, plan, _rules(run.config.checkpoint))
    if run.config.checkpoint.async_save:
        run.saving.start(write, name="vlapipe-save")
    else:
        with agree(run.ranks):  # its end waits for rank 0 with a time-out of days, so a slow disk ends no run
            write()


def _rules(options: CheckpointConfig) -> KeepRules:
    assert options.best_metric is not None  # TrainConfig fills in the default
    return KeepRules(
        last=options.keep_checkpoints,
        best=options.keep_best,
        metric=options.best_metric,
        lowest_is_best=options.best_is == "lowest",
        every=options.keep_every,
    )


def _say_if_metric_is_unknown(run: Run) -> None:
    """Say at this process's first save if the line of its step has no ``best_metric`` although it should have one."""
    options, found = run.config.checkpoint, run.log.newest
    assert options.best_metric is not None
    room = options.best_metric.partition("/")[0]
    is_due = {"val": run.evaluates_now and run.val_loader is not None, "env": run.acts_now}.get(room, True)
    if (
        options.keep_best
        and run.checkpoint_step in (None, run.first_step)
        and options.best_metric not in found
        and is_due
    ):
        run.console.say(f"best_metric {options.best_metric!r}: unknown ({did_you_mean(options.best_metric, found)})")


def _state(run: Run) -> dict[str, Any]:
    return {
        "config": run.config.to_dict(),
        "spec": run.loader.described(run.loader.spec).to_json(),
        "read_spec": None if run.loader.transforms is None else run.loader.described(run.loader.read_spec).to_json(),
        "dataset": {"manifest_sha256": run.dataset_digest},
        "world_size": run.ranks.world_size,
        "metrics": dict(run.log.newest),
    }


def _write(
    out: Path, snapshot: Snapshot, plan: Plan, rules: KeepRules, cancelled: threading.Event | None = None
) -> None:
    with explain_surroundings(out):
        if write_checkpoint(out, snapshot, plan, cancelled=cancelled) is not None:
            remove_old(out, rules)


def restore(run: Run, path: Path) -> None:
    """Restore the run's state from the newest whole checkpoint up to ``path``. A collective.

    Raises:
        UsageError: the checkpoint belongs to another policy, dataset or seed.
        DamageError: no checkpoint is whole.
    """
    stored = newest_whole(path, run.ranks, run.console.say)
    began_with = stored.state.get("dataset", {}).get("manifest_sha256", run.dataset_digest)
    if began_with != run.dataset_digest:
        cure = "say with --data where that dataset is now, or begin a new run with another --out"
        raise UsageError(f"--data {run.config.data.text}: is not the dataset that this run began with", cure)
    run.step = run.checkpoint_step = stored.step
    for name, part in PARTS.items():
        if name in stored:
            part.restore(run, stored.part(name))
    if run.step < run.config.num_steps:
        ranks_before = stored.state.get("world_size", run.ranks.world_size)
        for line in resume_changes(stored.options, ranks_before, run.config, run.ranks.world_size, run.step):
            run.console.say(f"resumed otherwise: {line}")


def keep_options(run: Run) -> None:
    """After a step: save the options if the step is this process's first, and raise the error of a background save.

    A resume without a step changes no options.
    """
    run.saving.check()
    if run.ranks.is_first and run.step == run.first_step + 1:
        with explain_surroundings(run.config.out):
            save_config(run.config)
