"""Saves a run's full state as a checkpoint, and restores it so that the run continues exactly with its next step."""

from __future__ import annotations

from pathlib import Path

from vlapipe.schemas.errors import DamageError, UsageError
from vlapipe.train.checkpoint.files import Checkpoint, read_checkpoint, write_checkpoint
from vlapipe.train.checkpoint.resumed import resume_changes, same_weights
from vlapipe.train.checkpoint.run_folder import save_config
from vlapipe.train.checkpoint.saved_policy import load_weights, spec_to_json
from vlapipe.train.config import flat_saved
from vlapipe.train.optim.optimizer import load_optimizer_tensors, optimizer_tensors
from vlapipe.train.parallel.ranks import agree
from vlapipe.train.run import Run
from vlapipe.train.stopping import explain_surroundings

__all__ = ["keep_options", "restore", "save"]


def save(run: Run) -> None:
    """Write a checkpoint, unless this step already has one. A collective; only rank 0 writes."""
    if run.checkpoint_step == run.step:
        return
    with agree(run.ranks):
        if run.ranks.is_first:
            checkpoint = Checkpoint(
                step=run.step,
                policy=run.policy.state_dict(),
                optimizer=optimizer_tensors(run.optimizer, run.policy),
                rng={},
                state={
                    "loader": run.loader.state_dict(),
                    "config": run.config.to_dict(),
                    "spec": spec_to_json(run.loader.spec),
                    "dataset": {"manifest_sha256": run.dataset_digest},
                    "world_size": run.ranks.world_size,
                    "val_loss": run.val_loss,
                },
            )
            with explain_surroundings(run.config.out):
                write_checkpoint(run.config.out, checkpoint, keep=run.config.checkpoint.keep_checkpoints)
    run.checkpoint_step = run.step


def restore(run: Run, path: Path) -> None:
    """Restore the run's state from a checkpoint.

    Raises:
        UsageError: the checkpoint belongs to another policy, dataset or seed.
        DamageError: the checkpoint is incomplete or altered.
    """
    checkpoint = read_checkpoint(path)
    began_with = checkpoint.state.get("dataset", {}).get("manifest_sha256", run.dataset_digest)
    if began_with != run.dataset_digest:
        cure = "say with --data where that dataset is now, or begin a new run with another --out"
        raise UsageError(f"--data {run.config.data.text}: is not the dataset that this run began with", cure)
    load_weights(run.policy, checkpoint.policy, path)
    try:
        load_optimizer_tensors(run.optimizer, run.policy, checkpoint.optimizer)
    except (KeyError, ValueError) as error:
        raise DamageError(f"{path}: the optimizer's state does not fit the policy: {error}") from None
    saved = flat_saved(checkpoint.state["config"])
    loader_state = dict(checkpoint.state["loader"])
    if same_weights(saved, run.config):
        # The loader compares weights by their text. The text may differ only because a dataset has another path now.
        loader_state["weights"] = run.loader.state_dict()["weights"]
    run.loader.load_state_dict(loader_state)
    run.step = run.checkpoint_step = checkpoint.step
    run.val_loss = checkpoint.state.get("val_loss")
    if run.step < run.config.max_steps:
        ranks_before = checkpoint.state.get("world_size", run.ranks.world_size)
        for line in resume_changes(saved, ranks_before, run.config, run.ranks.world_size, run.step):
            run.console.say(f"resumed otherwise: {line}")


def keep_options(run: Run) -> None:
    """Save the options in the run's folder after this process's first step. A resume without a step changes nothing."""
    if run.ranks.is_first and run.step == run.first_step + 1:
        with explain_surroundings(run.config.out):
            save_config(run.config)
