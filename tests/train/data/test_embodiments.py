"""Several robots in one training: padded to one size, masked, each with its own statistics, and known to the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets_to_join import make
from launching import SMALL, options

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.saved_policy import load_policy
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.joining.dataset_comparison import compare_datasets
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.data.window_size import Window
from vlapipe.train.loop import train
from vlapipe.train.policies.regression import RegressionPolicy

UR5 = {'name = "bench"': 'name = "bench"\nembodiment = "ur5"'}
# Another robot: one joint more than the state of the first, in other units and by another action.
FRANKA = {
    'name = "bench"': 'name = "bench"\nembodiment = "franka"',
    'joint = { columns = ["a", "b"], unit = "rad" }': (
        'q = { columns = ["a", "b"], unit = "deg" }, tool = { columns = ["b", "a"] }'
    ),
    'state = ["robot/joint", "robot/grip"]': 'state = ["robot/q", "robot/grip", "robot/tool"]',
    'kind = "delta"\nof = ["robot/joint"]': 'kind = "absolute"\nof = ["robot/q", "robot/tool"]',
    "threshold = 0.02": "threshold = 1.5",
}
STORED: dict[str, dict[str, Any]] = {"packed": {}, "mapped in place": {"codec": "none"}, "npz": {"shard_format": "npz"}}


@pytest.fixture(scope="module")
def robots(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    root = tmp_path_factory.mktemp("robots")
    faster = {"ab"[i]: (1 + i, 0.0) for i in range(2)}
    return [make(root / "ur5", edits=UR5), make(root / "franka", edits=FRANKA, scaled=faster)]


def read(*datasets: Dataset, **arguments: Any) -> dict[str, torch.Tensor]:
    loader = Loader(datasets, split=None, shuffle=False, num_workers=0, **arguments)
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0] if key != "task"}


@pytest.mark.parametrize("stored", STORED)
def test_each_robot_keeps_its_numbers_and_the_rest_is_zero_and_marked(tmp_path: Path, stored: str) -> None:
    ur5 = make(tmp_path / "ur5", edits=UR5, **STORED[stored])
    franka = make(tmp_path / "franka", edits=FRANKA, **STORED[stored])
    alone = [read(ur5), read(franka)]
    both = read(ur5, franka, embodiments="pad")
    sizes = ((3, 3), (5, 5))
    first = 0
    for number, (own, (num_state, num_action)) in enumerate(zip(alone, sizes, strict=True)):
        rows = slice(first, first + len(own["action"]))
        first = rows.stop
        assert (both["embodiment"][rows] == number).all()
        for key, size in (("observation.state", num_state), ("action", num_action)):
            assert both[key].shape[2] == 5
            assert torch.equal(both[key][rows, :, :size], own[key])
            assert not both[key][rows, :, size:].any()
            assert torch.equal(both[f"{key}_is_pad"][rows], own[f"{key}_is_pad"])
            mask = both[f"{key}_dim_is_pad"][rows]
            assert not mask[:, :size].any()
            assert mask[:, size:].all()
    assert first == len(both["action"])


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_robot_whose_state_is_one_field_is_padded_to_each_size_that_it_is_joined_with(
    robots: list[Dataset], tmp_path: Path, codec: str
) -> None:
    alone = {'state = ["robot/joint", "robot/grip"]': 'state = ["robot/joint"]'}
    dataset = make(tmp_path, edits={**alone, 'name = "bench"': 'name = "small"'}, codec=codec)
    own = read(dataset)["observation.state"]
    for other, size in ((robots[0], 3), (robots[1], 5)):
        state = read(dataset, other, embodiments="pad")["observation.state"][: len(own)]
        assert state.shape[2] == size
        assert torch.equal(state[..., :2], own)
        assert not state[..., 2:].any()


def test_rows_are_padded_the_same_before_and_after_unpacking(robots: list[Dataset]) -> None:
    ur5 = Loader(robots, split=None, embodiments="pad").datasets[0]
    packed, unpacked = ur5.sample_rows(0), ur5.sample_arrays(0)
    assert packed is not None
    stop = int(ur5.row(0)["robot/rows"])
    for name in ("observation.state", "action", "action/stride_order"):
        assert unpacked[name].shape[1] == 5
        assert (packed.read(name, 0, stop) == unpacked[name][:stop]).all(), name


def test_a_robots_datasets_are_converted_to_its_first_and_statistics_are_its_own(
    robots: list[Dataset], tmp_path: Path
) -> None:
    degrees = make(tmp_path, edits=UR5 | {'unit = "rad"': 'unit = "deg"'}, scaled=dict.fromkeys("ab", (180 / np.pi, 0)))
    loader = Loader([*robots, degrees], embodiments="pad", num_workers=0)
    assert list(loader.spec.embodiments) == ["ur5", "franka"]
    for robot, dataset, size in (("ur5", robots[0], 3), ("franka", robots[1], 5)):
        own, alone = loader.spec.embodiments[robot], Loader(dataset).spec.moments
        assert (own.state, own.action) == (size, size)
        for key in ("observation.state", "action"):
            assert np.allclose(own.moments[key].mean[:size], alone[key].mean, rtol=1e-5)
            assert np.allclose(own.moments[key].std[:size], alone[key].std, rtol=1e-5)
            assert not own.moments[key].std[size:].any()
    pooled = loader.spec.moments["observation.state"]
    assert pooled.mean[4] == pytest.approx(
        float(loader.spec.embodiments["franka"].moments["observation.state"].mean[4])
    )
    spec = SampleSpec.from_json(loader.spec.to_json())
    assert list(spec.embodiments) == ["ur5", "franka"]
    assert (
        spec.embodiments["franka"].moments["action"].std == loader.spec.embodiments["franka"].moments["action"].std
    ).all()


def test_chosen_actions_are_measured_for_each_robot(robots: list[Dataset]) -> None:
    window = Window(action={"kind": "next", "append": {}})
    spec = Loader(robots, embodiments="pad", window=window).spec
    alone = [Loader(dataset, window=window).spec.moments["action"] for dataset in robots]
    assert spec.action[1] == 4
    for robot, expected in zip(spec.embodiments.values(), alone, strict=True):
        assert np.allclose(robot.moments["action"].mean[: len(expected.mean)], expected.mean, rtol=1e-5)
        assert not robot.moments["action"].std[len(expected.mean) :].any()


def test_robots_are_refused_unless_they_are_to_be_padded(robots: list[Dataset]) -> None:
    with pytest.raises(UsageError, match=r"embodiment: expected ur5 as in .*, found franka") as refusal:
        Loader(robots)
    assert 'say embodiments = "pad" to train on several robots' in refusal.value.cure
    with pytest.raises(UsageError, match=r"embodiments 'padd': unknown \(did you mean 'pad'\?\)"):
        Loader(robots, embodiments="padd")
    found = compare_datasets(robots, embodiments="pad")
    rows = {row.what: (row.found, row.done) for row in found.differences}
    assert rows == {
        "embodiment": (("ur5", "franka"), "padded"),
        "observation.state: columns": (("3", "5"), "padded"),
        "action: columns": (("3", "5"), "padded"),
    }


def test_datasets_of_one_robot_must_still_agree_and_so_must_times(robots: list[Dataset], tmp_path: Path) -> None:
    other = make(tmp_path / "a", edits=FRANKA | {'unit = "deg"': 'unit = "mm"'})
    with pytest.raises(UsageError, match=r"observation.state: q of franka: expected 2 in deg as in .*franka.* 2 in mm"):
        Loader([*robots, other], embodiments="pad")
    slow = make(tmp_path / "b", edits=FRANKA, rate_hz=25)
    with pytest.raises(UsageError, match="rate: expected 50 Hz"):
        Loader([robots[0], slow], embodiments="pad")


def test_actions_in_another_form_are_refused_beside_several_robots(robots: list[Dataset]) -> None:
    window = Window(action_form="relative", action={"kind": "absolute", "period_s": 0.1, "append": {}})
    with pytest.raises(UsageError, match="action_form and rotation: expected none beside embodiments"):
        Loader(robots, embodiments="pad", window=window)


def test_transforms_of_padded_numbers_are_refused(robots: list[Dataset]) -> None:
    def doubled(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "observation.state": 2 * batch["observation.state"]}

    with pytest.raises(UsageError, match=r"doubled: change observation.state, which is normalized for each robot"):
        Loader(robots, embodiments="pad", transforms=[doubled])
    assert Loader(robots, embodiments="pad", transforms=[dict]).spec.embodiments


def test_policy_learns_each_robot_from_its_own_statistics(robots: list[Dataset]) -> None:
    """Padded columns count nothing: what the policy says of them changes no loss, and ``act`` gives 0."""
    loader = Loader(robots, embodiments="pad", num_workers=0, batch_size=16)
    torch.manual_seed(0)
    policy = RegressionPolicy(loader.spec, **SMALL)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # as if trained: no branch is still zero
    batch = next(iter(loader))
    assert set(batch["embodiment"].tolist()) == {0, 1}
    loss = policy.loss(batch)
    loss.total.backward()
    assert policy.embodiment.weight.grad[1].any()  # the robot is one of the tokens; the first one's actions never vary
    is_padded = batch["action_dim_is_pad"].unsqueeze(1).expand_as(batch["action"])
    changed = {**batch, "action": torch.where(is_padded, 1e6, batch["action"])}
    assert policy.loss(changed).total == loss.total
    assert policy.loss(changed).weight == loss.weight
    normalized = policy.action_normalizer(batch["action"], batch["embodiment"])
    for number, robot in enumerate(loader.spec.embodiments.values()):
        moments, rows = robot.moments["action"], batch["embodiment"] == number
        own = (batch["action"][rows] - torch.from_numpy(moments.mean)) / torch.from_numpy(moments.std)
        varies = policy.action_normalizer.varying(batch["embodiment"])[rows][0, 0]
        assert torch.allclose(normalized[rows][..., varies], own[..., varies], atol=1e-4)
    actions = policy.act(batch)
    assert not actions[is_padded].any()
    other = policy.act({**batch, "embodiment": 1 - batch["embodiment"]})
    assert not torch.allclose(actions, other)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (None, "embodiment: missing .*0 ur5, 1 franka"),
        (torch.zeros(16), r"embodiment: expected int64 \(16,\), found float32"),
        (torch.full((16,), 2), "embodiment: expected numbers from 0 to 1"),
    ],
)
def test_act_refuses_an_observation_of_no_known_robot(
    robots: list[Dataset], number: torch.Tensor | None, message: str
) -> None:
    loader = Loader(robots, embodiments="pad", num_workers=0, batch_size=16)
    policy = RegressionPolicy(loader.spec, **SMALL)
    batch = next(iter(loader))
    del batch["embodiment"]
    with pytest.raises(UsageError, match=message):
        policy.act(batch if number is None else {**batch, "embodiment": number})


def test_run_on_two_robots_is_resumed_and_its_policy_loaded(robots: list[Dataset], tmp_path: Path) -> None:
    wanted = options(robots[0].path, tmp_path / "run", max_steps=4, embodiments="pad", save_every=2)
    wanted["data"] = [str(dataset.path) for dataset in robots]
    train(TrainConfig.of(**wanted))
    train(TrainConfig.from_sources(None, {"out": tmp_path / "run", "resume": True, "max_steps": 6}))
    policy = load_policy(tmp_path / "run")
    batch = next(iter(Loader(robots, embodiments="pad", num_workers=0, batch_size=4)))
    assert policy.act(batch).shape == batch["action"].shape


def test_embodiment_is_the_schemas_name_unless_it_says_another(tmp_path: Path) -> None:
    schema = vlapipe.open_dataset(make(tmp_path).path).schema
    assert (schema.embodiment, schema.robot) == ("", "bench")
