"""Rebuilds a policy from a checkpoint, without the dataset: the policy's class, shapes, statistics and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.batch_layout import Moments, SampleSpec
from vlapipe.train.data.joining.embodiments import Embodiment
from vlapipe.train.data.transforms import Transforms
from vlapipe.train.optim.lora import merged
from vlapipe.train.optim.trainable import Trainable
from vlapipe.train.policies.built_in import BuiltInPolicy
from vlapipe.train.policies.observation import CheckedAct
from vlapipe.train.policies.registry import build_policy, load_policy_class

__all__ = [
    "chosen_checkpoint",
    "load_policy",
    "load_weights",
    "require_fit",
    "saved_weights",
    "spec_from_json",
    "spec_to_json",
]

_ARRAYS = dict.fromkeys(("mean", "std", "min", "max", "q01", "q99", "floor"), np.float32) | {"count": np.float64}
_FITTING = "resume with the policy, policy_args, [trainable.lora], window and dataset that the run began with"


def load_policy(path: str | Path, *, checkpoint: str = "newest", ema: bool | None = None) -> nn.Module:
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
    config, spec = stored.state["config"], spec_from_json(stored.state["spec"])
    policy = build_policy(load_policy_class(config["policy"]), spec, config["policy_args"])
    load_weights(policy, weights, folder)
    names = stored.options.get("transforms")
    if names:
        read_spec, chain = spec_from_json(stored.state["read_spec"]), Transforms.parse("transforms of the run", names)
        policy.act = CheckedAct(policy, read_spec, chain)  # type: ignore[assignment]
    elif not isinstance(policy, BuiltInPolicy):  # which checks by itself
        policy.act = CheckedAct(policy, spec)  # type: ignore[assignment]
    return policy.eval()


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


def spec_to_json(spec: SampleSpec) -> dict[str, Any]:
    """Returns the spec as JSON values. float32 statistics survive the round trip exactly."""

    def moments(of: Moments) -> dict[str, Any]:
        arrays = {name: getattr(of, name) for name in _ARRAYS}
        known = {name: values.tolist() for name, values in arrays.items() if values is not None}
        return {**known, "is_finite": of.is_finite}

    return {
        "state": list(spec.state),
        "sensors": {name: list(shape) for name, shape in spec.sensors.items()},
        "images": {camera: list(shape) for camera, shape in spec.images.items()},
        "depth": spec.depth,
        "action": list(spec.action),
        "moments": {key: moments(of) for key, of in spec.moments.items()},
        "optional": sorted(spec.optional),
        "newest": spec.newest,
        "ahead_rows": spec.ahead_rows,
        "action_form": None if spec.action_form is None else spec.action_form.to_json(),
        "image_resize": spec.image_resize,
        "normalize": spec.normalize,
        "embodiments": {
            name: {
                "state": robot.state,
                "action": robot.action,
                "moments": {key: moments(of) for key, of in robot.moments.items()},
            }
            for name, robot in spec.embodiments.items()
        },
    }


def spec_from_json(values: Mapping[str, Any]) -> SampleSpec:
    """Returns the spec from the result of ``spec_to_json``, also of an older version, which lacks some of it."""

    def moments(entry: Mapping[str, Any]) -> Moments:
        arrays: dict[str, Any] = {name: np.array(entry[name], kind) for name, kind in _ARRAYS.items() if name in entry}
        return Moments(**arrays, is_finite=entry.get("is_finite", True))

    def embodiment(entry: Mapping[str, Any]) -> Embodiment:
        of_keys = {key: moments(of) for key, of in entry["moments"].items()}
        return Embodiment(state=entry["state"], action=entry["action"], moments=of_keys)

    T, D = values["state"]
    H, A = values["action"]
    return SampleSpec(
        state=(T, D),
        sensors={name: tuple(shape) for name, shape in values["sensors"].items()},
        images={camera: (shape[0], shape[1], shape[2], shape[3]) for camera, shape in values["images"].items()},
        depth=dict(values.get("depth", {})),
        action=(H, A),
        moments={key: moments(entry) for key, entry in values["moments"].items()},
        optional=frozenset(values.get("optional", ())),
        newest=values.get("newest", -1),
        ahead_rows=values.get("ahead_rows", 0),
        action_form=ActionForm.from_json(values["action_form"]) if values.get("action_form") else None,
        image_resize=values.get("image_resize", "stretch"),
        normalize=dict(values.get("normalize", {})),
        embodiments={name: embodiment(entry) for name, entry in values.get("embodiments", {}).items()},
    )
