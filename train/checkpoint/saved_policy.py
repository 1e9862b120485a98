"""Rebuilds a policy from a checkpoint, without the dataset: the policy's class, shapes, statistics and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.checkpoint.files import (
    STATE_FILE,
    StoredCheckpoint,
    StoredTensors,
    all_checkpoints,
    checkpoint_path,
    latest_checkpoint,
    open_checkpoint,
    read_checkpoint,
    step_of,
)
from vlapipe.train.checkpoint.kept import best_first, metrics_of
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.data.transforms import Transforms
from vlapipe.train.optim.lora import merged
from vlapipe.train.optim.trainable import Trainable
from vlapipe.train.policies.built_in import BuiltInPolicy
from vlapipe.train.policies.observation import CheckedAct
from vlapipe.train.policies.registry import build_policy, load_policy_class
from vlapipe.train.robot.runner import RunnerMaker

__all__ = [
    "LoadedPolicy",
    "chosen_checkpoint",
    "load_policy",
    "load_weights",
    "require_fit",
    "saved_weights",
]

_FITTING = "resume with the policy, policy_args, [trainable.lora], window and dataset that the run began with"


class LoadedPolicy(nn.Module):
    """How ``load_policy`` types what it returns: a policy of the run's own class, with these besides.

    ``spec`` says what the policy takes and gives: names, units, shapes, rates, cameras, instructions.
    ``runner(execute=..., ensemble=...)`` makes a ``Runner``, which takes one observation and gives one action.
    """

    spec: SampleSpec
    act: Callable[[Batch], Tensor]
    runner: RunnerMaker


def load_policy(path: str | Path, *, checkpoint: str = "newest", ema: bool | None = None) -> LoadedPolicy:
    """Load the policy of a run or of one checkpoint, on the CPU and in evaluation mode.

    The optimizer's state is not read. The policy's ``act`` first checks the observation (see ``check_observation``) and
    applies the run's transforms, which are imported by their names.

    Args:
        path: the run's folder, or the folder of one of its checkpoints.
        checkpoint: ``newest``, or ``best`` by the run's ``best_metric``.
        ema: whether to take the averaged weights (EMA). None takes them if the checkpoint has them.

    Raises:
        UsageError: there is no such checkpoint, or ``path`` is the address of a store.
        DamageError: the checkpoint's weights or state are incomplete or altered.
    """
    folder = chosen_checkpoint(local_path(path), checkpoint)
    weights, stored = saved_weights(folder, ema=ema)
    config, spec = stored.state["config"], SampleSpec.from_json(stored.state["spec"])
    read_spec = SampleSpec.from_json(stored.state.get("read_spec") or stored.state["spec"])
    policy = build_policy(load_policy_class(config["policy"]), spec, config["policy_args"])
    load_weights(policy, weights, folder)
    names = stored.options.get("transforms")
    if names:
        chain = Transforms.parse("transforms of the run", names)
        policy.act = CheckedAct(policy, read_spec, chain)  # type: ignore[assignment]
    elif not isinstance(policy, BuiltInPolicy):  # which checks by itself
        policy.act = CheckedAct(policy, spec)  # type: ignore[assignment]
    for name, value in (("spec", read_spec), ("runner", RunnerMaker(policy, read_spec))):
        if not hasattr(policy, name):  # what a policy of one's own calls like this stays its own
            setattr(policy, name, value)
    return cast(LoadedPolicy, policy.eval())


def saved_weights(folder: Path, *, ema: bool | None = None) -> tuple[dict[str, Tensor], StoredCheckpoint]:
    """Read the weights that a policy has after training: averaged as ``load_policy`` says, adapters of LoRA merged.

    Raises:
        UsageError: ``ema`` is True, and the checkpoint has no EMA.
        DamageError: the checkpoint's weights or state are incomplete or altered.
    """
    stored = read_checkpoint(folder, "policy", "ema")  # not the optimizer's part, which is twice as large
    if ema and "ema" not in stored:
        raise UsageError(f"{folder}: has no EMA", "leave ema=True away, or train with --ema")
    averaged = stored.part("ema").tensors if "ema" in stored and ema is not False else {}
    weights = {**stored.part("policy").tensors, **averaged}
    lora = Trainable.from_table(stored.options.get("trainable", {})).lora
    return (weights if lora is None else merged(weights, lora.scale)), stored


def chosen_checkpoint(path: Path, checkpoint: str = "newest") -> Path:
    """Returns the checkpoint that ``checkpoint`` names in the run ``path``, or ``path`` if it is a checkpoint."""
    if checkpoint not in ("newest", "best"):
        raise UsageError(f"checkpoint {checkpoint!r}: unknown", did_you_mean(checkpoint, ("newest", "best")))
    if (path / STATE_FILE).is_file():
        return path
    newest = latest_checkpoint(path)
    if newest is None:
        raise UsageError(f"{path}: no checkpoint", "give the --out folder of a run that has saved one")
    if checkpoint == "newest":
        return newest
    options = open_checkpoint(newest).options
    metric, is_lowest = options.get("best_metric", "val/loss"), options.get("best_is", "lowest") == "lowest"
    measured = {step_of(other): metrics_of(other) for other in all_checkpoints(path)}
    best = best_first(measured, metric, lowest=is_lowest)
    if not best:
        cure = 'take checkpoint="newest", or save after a validation (save_every a multiple of eval_every)'
        raise UsageError(f"{path}: no checkpoint was saved with {metric}", cure)
    return checkpoint_path(path, best[0])


def require_fit(here: Mapping[str, Sequence[int]], stored: StoredTensors, where: Path) -> None:
    """Check that a checkpoint has the tensors of a policy. ``here`` are the policy's shapes by name.

    Raises:
        UsageError: the tensors belong to another policy.
    """
    there = {name: stored.shape(name) for name in stored}
    found = [f"{name} is missing there" for name in here if name not in there]
    found += [f"{name} is only there" for name in there if name not in here]
    both = [name for name in here if name in there]
    found += [f"{n} is {tuple(there[n])} there, {tuple(here[n])} here" for n in both if tuple(here[n]) != there[n]]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(f"{where}: the weights do not fit the policy: {', '.join(found[:3])}{more}", _FITTING)


def load_weights(policy: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Copy a checkpoint's weights and buffers into a policy.

    Raises:
        UsageError: the weights belong to another policy.
    """
    try:
        policy.load_state_dict(dict(weights))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise UsageError(f"{where}: the weights do not fit the policy: {first}", _FITTING) from None
