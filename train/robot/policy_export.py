"""Writes a policy as one file that runs without vlapipe: ``torch.export`` or ONNX. Outputs are compared before that.

The file takes one observation as tensors, and gives the action chunk in the units of the dataset. What the policy draws
to begin with is an input too, ``noise``: the file draws nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.dataset_group import IMAGES
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.data.named_object import one_line
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.policies.base import noise_shapes, prepared
from vlapipe.train.policies.observation import CheckedAct, observation_shapes

__all__ = ["KINDS", "PolicyExport", "export_policy"]

KINDS = {"torch": ".pt2", "onnx": ".onnx"}
_TRIALS = 3  # observations that the outputs are compared on
_TOLERANCE = 1e-4  # of a standard deviation of each action's column


@dataclass(frozen=True, kw_only=True)
class PolicyExport:
    """What was written. ``difference`` is the largest one of the outputs, in standard deviations of their columns."""

    path: Path
    kind: str
    num_bytes: int
    inputs: tuple[str, ...]
    difference: float
    notes: tuple[str, ...] = ()


def export_policy(policy: nn.Module, spec: SampleSpec, kind: str, out: Path) -> PolicyExport:
    """Write a policy that ``load_policy`` gave to the file ``out``. ``kind`` is ``torch`` or ``onnx``.

    Raises:
        UsageError: the kind is unknown, a package is missing, or this policy cannot be exported.
    """
    if kind not in KINDS:
        raise UsageError(f"--to {kind}: unknown", did_you_mean(kind, KINDS))
    if isinstance(policy.act, CheckedAct) and policy.act.has_transforms:
        raise UsageError(f"--to {kind}: the run has transforms, which are Python", "call vlapipe serve instead")
    tasks = spec.tasks or ("",)
    drawn = noise_shapes(policy)
    examples = [_observation(spec, tasks[i % len(tasks)], i, drawn) for i in range(_TRIALS)]
    module, notes = _Acting(policy), []
    inputs = [_tensors(prepared(policy, example)) for example in examples]
    if prepared(policy, examples[0]).get("task") is not None:
        module.task = tasks[0]
        notes.append(_fixed_task(policy, examples[0], tasks))
    with torch.no_grad():
        expected = [policy.act(example) for example in examples]  # type: ignore[operator]
        try:
            program = torch.export.export(module, (inputs[0],))
        except Exception as error:  # torch raises many kinds, by what the policy does
            cure = "its act must not look into its tensors; call vlapipe serve instead"
            raise UsageError(
                f"--to {kind}: {type(policy).__name__} cannot be exported: {_first_line(error)}", cure
            ) from error
        said = json.dumps({**spec.to_json(), "prepared_tasks": _prepared_tasks(policy, examples[0], spec.tasks or ())})
        data, run = (_torch if kind == "torch" else _onnx)(program, inputs[0], said)
        found = [run(each) for each in inputs]
    difference = _difference(spec, expected, found)
    if not difference <= _TOLERANCE:
        problem = f"--to {kind}: the outputs of {type(policy).__name__} differ by {difference:.2g} standard deviations"
        raise UsageError(problem, "does its act draw random numbers? see noise_shapes() in docs/policies.md")
    write_bytes(out, data)
    return PolicyExport(
        path=out, kind=kind, num_bytes=len(data), inputs=tuple(inputs[0]), difference=difference, notes=tuple(notes)
    )


class _Acting(nn.Module):
    """The policy, whose forward is ``act`` without the check of the observation."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.task: str | None = None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        whole: Batch = dict(batch) if self.task is None else {**batch, "task": [self.task]}
        actions: Tensor = type(self.policy).act(self.policy, whole)  # type: ignore[attr-defined]
        return actions


def _observation(spec: SampleSpec, task: str, seed: int, drawn: Mapping[str, tuple[int, ...]]) -> Batch:
    """Returns a random observation with the statistics of training, with the noise that ``act`` would draw."""
    generator = torch.Generator().manual_seed(seed)
    batch: Batch = {"task": [task]}
    for key, (rows, *rest) in observation_shapes(spec).items():
        shape = (1, rows - spec.ahead_rows, *rest)
        if key.startswith(IMAGES):
            noise = torch.randint(0, 256, shape, generator=generator)
            batch[key] = noise.to(torch.uint16 if spec.is_depth(key) else torch.uint8)
        else:
            batch[key] = torch.randn(shape, generator=generator)
            if key in spec.moments:
                mean, std = (torch.as_tensor(getattr(spec.moments[key], name)) for name in ("mean", "std"))
                batch[key] = batch[key] * std + mean
        batch[f"{key}_is_pad"] = torch.zeros(shape[:2], dtype=torch.bool)
    if seed == _TRIALS - 1 and spec.state[0] - spec.ahead_rows > 1:
        batch[f"{STATE}_is_pad"][:, 0] = True
    if spec.embodiments:
        batch[EMBODIMENT] = torch.tensor([seed % len(spec.embodiments)])
    return batch | {key: torch.randn((1, *shape), generator=generator) for key, shape in drawn.items()}


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


def _prepared_tasks(policy: nn.Module, example: Batch, tasks: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns what ``prepare`` makes of each instruction, for a user of the file: key to numbers, by instruction."""
    found = {}
    for task in tasks:
        batch = prepared(policy, {**example, "task": [task]})
        found[task] = {key: value.tolist() for key, value in _tensors(batch).items() if key not in example}
    return found


def _fixed_task(policy: nn.Module, example: Batch, tasks: tuple[str, ...]) -> str:
    """Check that a policy that prepares no text does not depend on it."""
    actions = []
    for task in (*tasks, "?"):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # what it draws is no difference of the texts
            torch.manual_seed(0)
            actions.append(policy.act({**example, "task": [task]}))  # type: ignore[operator]
    if any(not torch.equal(actions[0], other) for other in actions[1:]):
        cure = "give it a method prepare(batch), which turns texts into tensors"
        raise UsageError(f"{type(policy).__name__} reads texts, and a file takes tensors", cure)
    return "the policy does not read the instruction"


def _torch(program: Any, _: Mapping[str, Tensor], said: str) -> tuple[bytes, Callable[[dict[str, Tensor]], Tensor]]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"spec.json": said})
    data = buffer.getvalue()
    return data, torch.export.load(io.BytesIO(data)).module()


def _onnx(
    program: Any, example: Mapping[str, Tensor], said: str
) -> tuple[bytes, Callable[[dict[str, Tensor]], Tensor]]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ModuleNotFoundError as error:
        cure = "in the checkout of vlapipe: pip install '.[export]' -c constraints.txt"
        raise UsageError(f"--to onnx needs {error.name}, which is not installed", cure) from None
    names = [*example]
    try:
        made = torch.onnx.export(
            program, (dict(example),), dynamo=True, input_names=names, output_names=["action"], verbose=False
        )
    except Exception as error:  # torch raises many kinds, by what the policy does
        problem = f"--to onnx: the policy cannot be exported: {_first_line(error)}"
        raise UsageError(problem, "call vlapipe serve instead, or --to torch") from error
    assert made is not None
    model = made.model_proto
    onnx.helper.set_model_props(model, {"spec.json": said})
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}

    def run(batch: dict[str, Tensor]) -> Tensor:
        [actions] = session.run(None, {key: value.numpy() for key, value in batch.items() if key in taken})
        return torch.from_numpy(actions)

    return data, run


def _difference(spec: SampleSpec, expected: list[Tensor], found: list[Tensor]) -> float:
    """Returns the largest difference, in standard deviations of each column as they are expected here."""
    a, b = torch.cat(expected).double(), torch.cat([each.detach() for each in found]).double()
    if a.shape != b.shape or not bool(b.isfinite().all()):
        return float("inf")
    moments = spec.moments.get("action")
    std = np.ones(1) if moments is None or spec.action_form is not None else moments.std.astype(np.float64)
    scale = torch.from_numpy(np.where(std > 0, std, 1.0)).clamp_min(1e-3)
    size = a.abs().amax(dim=(0, 1)).clamp_min(1e-3)
    return float(((a - b).abs() / torch.maximum(scale, size * 1e-2)).max())


def _first_line(error: Exception) -> str:
    return one_line(error)[:300]
