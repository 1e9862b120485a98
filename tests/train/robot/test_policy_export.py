"""An exported policy gives the same actions without vlapipe; what cannot be exported is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from robot_lab import make_run

import vlapipe
from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window
from vlapipe.train.robot.policy_export import export_policy

SIZES = {"dim": 16, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "run"
    return make_run(tiny_dataset, out, policy="regression", policy_args=SIZES)


def recorded(dataset: Path, policy: Any) -> dict[str, Any]:
    """One real sample, as the policy's file takes it: with numbers in place of the instruction."""
    window = Window(state_rows=5, state_stride=2, sensor_rows=3, action_rows=6, sensors={"force": "sensor/force"})
    batch = next(iter(Loader(vlapipe.open_dataset(dataset), window=window, batch_size=1, seed=3)))
    return {key: value for key, value in batch.items() if key.startswith("observation") or key == "task"}


def test_torch_file_gives_the_actions_of_act_on_a_recorded_sample(
    run: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "policy.pt2"
    done = CliRunner().invoke(cli, ["export", str(run), str(out), "--to", "torch"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "its outputs are those of the policy within" in done.output
    policy: Any = vlapipe.load_policy(run)
    observation = recorded(tiny_dataset, policy)
    said: dict[str, Any] = {"spec.json": ""}
    module = torch.export.load(out, extra_files=said).module()
    spec = json.loads(said["spec.json"])
    words = {key: torch.tensor(value) for key, value in spec["prepared_tasks"][observation["task"][0]].items()}
    tensors = {key: value for key, value in observation.items() if key != "task"}
    torch.testing.assert_close(module({**tensors, **words}), policy.act(observation), rtol=1e-5, atol=1e-5)
    assert spec["description"]["action_kind"] == "delta"
    assert not [path for path in tmp_path.iterdir() if path != out]


def test_onnx_file_gives_the_actions_of_act(run: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy: Any = vlapipe.load_policy(run)
    done = export_policy(policy, policy.runner.spec, "onnx", tmp_path / "policy.onnx")
    assert done.difference < 1e-4
    observation = recorded(tiny_dataset, policy)
    tensors = {key: value.numpy() for key, value in policy.prepare(observation).items()}
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    taken = {given.name for given in session.get_inputs()}
    assert taken == set(done.inputs)
    [found] = session.run(None, {key: value for key, value in tensors.items() if key in taken})
    torch.testing.assert_close(torch.from_numpy(found), policy.act(observation), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_file_of_flow_takes_the_noise_and_gives_the_actions_of_act_with_that_noise(
    tiny_dataset: Path, tmp_path: Path, kind: str
) -> None:
    runtime = pytest.importorskip("onnxruntime") if kind == "onnx" else None
    run = make_run(tiny_dataset, tmp_path / "run", policy="flow", policy_args=SIZES | {"steps": 2})
    policy: Any = vlapipe.load_policy(run)
    torch.nn.init.normal_(policy.velocity.out.weight)  # after two steps of training, noise would hardly matter
    out = tmp_path / "policy"
    assert "noise" in export_policy(policy, policy.runner.spec, kind, out).inputs
    observation, answers = policy.prepare(recorded(tiny_dataset, policy)), []
    for seed in (1, 2):
        noise = torch.randn((1, *policy.spec.action), generator=torch.Generator().manual_seed(seed))
        given = {**observation, "noise": noise}
        if runtime is None:
            found = torch.export.load(out).module()(given)
        else:
            session = runtime.InferenceSession(out)
            taken = {each.name for each in session.get_inputs()}
            [numbers] = session.run(None, {key: value.numpy() for key, value in given.items() if key in taken})
            found = torch.from_numpy(numbers)
        torch.testing.assert_close(found, policy.act(given), rtol=1e-4, atol=1e-4)
        answers.append(found)
    assert not torch.allclose(*answers)


def test_a_policy_of_ones_own_that_reads_no_text_is_exported_and_one_that_draws_is_refused(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_dataset, tmp_path / "run")
    policy: Any = vlapipe.load_policy(run)
    done = export_policy(policy, policy.runner.spec, "torch", tmp_path / "policy.pt2")
    assert done.notes == ("the policy does not read the instruction",)
    torch.nn.Module.train(policy)
    policy.dropout.p = 0.5  # draws random numbers in training mode
    with pytest.raises(UsageError, match="differ by") as refusal:
        export_policy(policy, policy.runner.spec, "torch", tmp_path / "other.pt2")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "other.pt2").exists()


def test_what_cannot_be_exported_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    policy: Any = vlapipe.load_policy(run)

    class Looks(type(policy)):  # type: ignore[misc]
        def act(self, observation: dict[str, Any]) -> Any:
            return super().act(observation) * (2 if observation["observation.state"].sum() > 0 else 1)

    policy.__class__ = Looks
    with pytest.raises(UsageError, match="Looks cannot be exported") as refusal:
        export_policy(policy, policy.runner.spec, "torch", tmp_path / "policy.pt2")
    assert "\n" not in str(refusal.value)
    with pytest.raises(UsageError, match=r"--to onxn: unknown \(did you mean 'onnx'"):
        export_policy(policy, policy.runner.spec, "onxn", tmp_path / "policy.pt2")
    refused = CliRunner().invoke(cli, ["export", str(run), str(tmp_path / "p"), "--to", "torch", "--fps", "3"])
    assert str(refused.exception) == "--fps is for datasets (leave it out with --to torch)"
