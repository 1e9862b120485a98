"""A robot's observations become the windows of training, and chunks one action a step; wrong ones are refused."""

from __future__ import annotations

import copy
import gc
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robot_lab import TASK, make_run, observed, without_camera

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.images.resize import resized
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.data.window_size import Window
from vlapipe.train.policies.registry import build_policy
from vlapipe.train.robot.runner import Runner, RunnerMaker

STATE, IMAGE, FORCE = "observation.state", "observation.images.View1", "observation.sensors.force"


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tiny_dataset, tmp_path_factory.mktemp("robot") / "run")


@pytest.fixture
def policy(run: Path) -> Any:
    return vlapipe.load_policy(run)


def ignored(_: str) -> None:
    """Takes what a runner says."""


class Watched:
    """Stands for a policy's ``act``: keeps what it was given, and answers with numbers that tell when."""

    def __init__(self, policy: Any, columns: int = 7) -> None:
        self.batches: list[dict[str, Any]] = []
        self.columns = columns
        policy.act = self

    def __call__(self, batch: dict[str, Any]) -> torch.Tensor:
        """Action h of call c is 100 c + h."""
        copied = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        self.batches.append(copied)
        chunk = 100.0 * (len(self.batches) - 1) + torch.arange(6.0)
        return chunk[None, :, None].expand(1, 6, self.columns)


def test_spec_says_names_units_rates_and_instructions_without_the_dataset(policy: Any) -> None:
    spec = policy.spec
    assert spec.state_names[:2] + spec.state_names[-1:] == ("joint_1", "joint_2", "pose_r")
    assert (spec.state_units[0], spec.state_units[6], spec.action_names[-1]) == ("deg", "mm", "gripper")
    assert (spec.rates_hz[STATE], spec.rates_hz["action"]) == (50.0, 10.0)  # 100 Hz, every 2nd and every 10th row
    assert spec.rates_hz[FORCE] == 650.0
    assert set(spec.tasks) == {TASK, TASK.replace("red", "blue")}
    text = repr(spec)
    for part in ("5 x 12 at 50 Hz: joint_1 [deg]", "View1 24 x 32 x 3 uint8 RGB", "6 x 7 at 10 Hz", "delta over 0.1 s"):
        assert part in text
    again = SampleSpec.from_json(spec.to_json())
    assert again.description == spec.description
    assert repr(again) == text


def test_windows_are_those_of_training(policy: Any, tiny_dataset: Path) -> None:
    # An episode played row by row: state at 100 Hz, forces at 650 Hz, the newest image; a step every tenth row.
    watched, runner = Watched(policy), policy.runner(execute=1)
    dataset = vlapipe.open_dataset(tiny_dataset)
    window = Window(state_rows=5, state_stride=2, sensor_rows=3, action_rows=6, sensors={"force": "sensor/force"})
    frames = Loader(dataset, window=window, batch_size=1000, shuffle=False, split=None)
    batch = next(iter(frames))
    number = int(batch["episode_index"][0])
    episode = dataset.episode(number)
    clock, forces = episode["robot/timestamp"], episode["sensor/timestamp"]
    state = np.concatenate([episode["robot/joint_position"], episode["robot/tcp_pose"]], axis=1)
    first = int(batch["frame_index"][0])
    wanted = [0, 10, 20]
    sensed = int(np.searchsorted(forces, clock[first], side="right")) - 3
    for i in range(wanted[-1] + 1):
        row = first + i
        time = float(clock[row] - clock[first])
        if i not in wanted:
            runner.observe({"state": state[row], "time": time + 1})
            continue
        until = int(np.searchsorted(forces, clock[row], side="right"))
        images = {
            camera: batch[f"observation.images.{camera}"][i, -1].permute(1, 2, 0).numpy()
            for camera in ("View1", "View2")
        }
        rows = episode["sensor/force"][sensed:until]
        runner.step({"state": state[row], "sensors": {"force": rows}, "images": images, "task": TASK, "time": time + 1})
        sensed = until
    assert len(watched.batches) == len(wanted)
    for given, i in zip(watched.batches, wanted, strict=True):
        is_pad = batch[f"{STATE}_is_pad"][i] if i else torch.tensor([True] * 4 + [False])  # rows before the first frame
        assert torch.equal(given[f"{STATE}_is_pad"][0], is_pad)
        assert torch.equal(given[STATE][0][~is_pad], batch[STATE][i][~is_pad])
        assert torch.equal(given[IMAGE][0], batch[IMAGE][i])
        assert torch.equal(given[FORCE][0], batch[FORCE][i])
        assert given["task"] == [TASK]


def test_an_image_of_another_size_is_resized_as_in_training(policy: Any) -> None:
    watched = Watched(policy)
    image = np.random.default_rng(1).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    images = {"View1": image, "View2": np.ascontiguousarray(image[::-1])[::-1]}  # one is not contiguous
    policy.runner().step(observed(images=images))
    for camera in images:
        found = watched.batches[0][f"observation.images.{camera}"][0, 0].permute(1, 2, 0).numpy()
        assert (found == resized(image, (24, 32))).all()


def test_a_chunk_is_used_up_to_execute_and_the_last_action_may_be_used(policy: Any) -> None:
    for execute, asked in ((4, 3), (6, 2), (1, 9), (None, 2)):  # all 6 by default
        watched, runner = Watched(policy), policy.runner(execute=execute, say=ignored)
        found = [float(runner.step(observed())[0]) for _ in range(9)]
        assert len(watched.batches) == asked
        each = runner.execute
        assert found == [100.0 * (i // each) + i % each for i in range(9)]


def test_an_ensemble_is_the_weighted_mean_of_act(policy: Any) -> None:
    Watched(policy)
    runner = policy.runner(ensemble=0.5, say=ignored)
    assert runner.execute == 1
    for step in range(9):
        begun = range(max(0, step - 5), step + 1)  # chunks that have an action for the step, the oldest first
        weights = np.exp(-0.5 * np.arange(len(begun)))
        expected = sum(w * (100 * c + step - c) for w, c in zip(weights, begun, strict=True)) / weights.sum()
        assert runner.step(observed()).tolist() == pytest.approx([expected] * 7, rel=1e-6)


def test_reset_forgets_history_chunks_and_time(policy: Any) -> None:
    watched, runner = Watched(policy), policy.runner(execute=3, say=ignored)
    for i in range(4):
        runner.step(observed(state=np.full(12, float(i) / 4), time=10.0 + i))
    runner.reset()
    runner.step(observed(time=0.0))
    assert watched.batches[-1][f"{STATE}_is_pad"].tolist() == [[True] * 4 + [False]]
    assert (watched.batches[-1][STATE][0] == torch.from_numpy(observed()["state"]).float()).all()


def test_relative_actions_come_back_as_recorded(tiny_dataset: Path, tmp_path: Path) -> None:
    sample = {"state_rows": 2, "sensor_rows": 1, "action_rows": 4, "action_form": "relative", "rotation": "6d"}
    sizes = {"dim": 16, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}
    action = {"kind": "absolute", "of": ["robot/tcp_pose"], "period_s": 0.1, "tolerance_s": 0.02, "append": {}}
    run = make_run(tiny_dataset, tmp_path / "run", sample=sample, action=action, policy="regression", policy_args=sizes)
    policy = vlapipe.load_policy(run)
    assert policy.spec.action == (4, 9)
    assert policy.spec.recorded_action_size == 6
    observation = observed(sensors={"force": 0.5, "aline": np.zeros(1025)}, time=1.0)
    action_given = policy.runner().step(observation)
    batch: dict[str, Any] = {"task": [TASK]}
    for key, value in (
        (STATE, torch.from_numpy(observation["state"]).float().expand(1, 2, 12)),
        (FORCE, torch.full((1, 1), 0.5)),
        ("observation.sensors.aline", torch.zeros(1, 1, 1025)),
        *(
            (f"observation.images.{c}", torch.from_numpy(i).permute(2, 0, 1)[None, None])
            for c, i in observation["images"].items()
        ),
    ):
        batch |= {key: value, f"{key}_is_pad": torch.zeros(value.shape[:2], dtype=torch.bool)}
    batch[f"{STATE}_is_pad"][:, 0] = True
    expected = policy.act(batch)
    assert action_given.shape == (6,)
    assert torch.equal(torch.from_numpy(action_given), expected[0, 0])


def test_a_missing_camera_is_padding_only_if_it_may_lack(policy: Any) -> None:
    make = without_camera(policy, "View2")
    watched = Watched(policy)
    runner = make(execute=1, say=ignored)
    runner.step(observed())
    runner.step(observed(images={"View1": observed()["images"]["View1"], "View2": None}))
    marks = [bool(batch["observation.images.View2_is_pad"].all()) for batch in watched.batches]
    assert marks == [False, True]
    with pytest.raises(UsageError, match=r"runner: images\.View1: missing"):
        runner.step(observed(images={}))


def chw(image: Any) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def image(**changes: Any) -> Callable[[], Any]:
    return lambda: observed(images={**observed()["images"], **changes})


def state(value: Any) -> Callable[[], Any]:
    return lambda: observed(state=value)


WRONG = np.linspace(-1, 1, 12)
PIXELS = np.zeros((24, 32, 3), np.uint8)
REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("no dict", lambda: [1, 2], "runner: expected a dict, found a list"),
    ("an unknown key", lambda: observed(imags={}), "runner: imags: unknown key (did you mean 'images'?)"),
    ("no state", lambda: observed(state=None), "runner: state: missing (12 numbers: joint_1"),
    ("too few numbers", state(WRONG[:7]), "runner: state: expected 12 numbers, found 7 (joint_1, joint_2"),
    ("a batch of windows", state(np.zeros((1, 5, 12))), "runner: state: expected 12 numbers, found shape (1, 5, 12)"),
    ("NaN", state(np.where(np.arange(12) == 3, np.nan, WRONG)), "runner: state: joint_4 is nan (wait for a reading"),
    ("infinity", state([np.inf, *WRONG[1:]]), "runner: state: joint_1 is inf"),
    ("beyond float32", state([1e300, *WRONG[1:]]), "runner: state: joint_1 is inf"),
    ("texts", state(["a"] * 12), "runner: state: expected numbers, found <U1"),
    ("objects", state([None] * 12), "runner: state: expected numbers, found objects"),
    ("ragged lists", state([[1, 2], [3]]), "runner: state: expected an array, found a list"),
    ("booleans", state(WRONG > 0), "runner: state: expected numbers, found bool"),
    (
        "an unknown name",
        state({"robot/joint_positon": WRONG[:6]}),
        "state.robot/joint_positon: unknown name (did you mean 'robot/joint_po",
    ),
    (
        "too few names",
        state({"joint_position": WRONG[:6]}),
        "runner: state: pose_x, pose_y, pose_z, pose_a, pose_b, pose_r missing",
    ),
    (
        "a field of another length",
        state({"joint_position": WRONG[:5], "tcp_pose": WRONG[:6]}),
        "state.joint_position: expected 6 numbers, found 5",
    ),
    (
        "no camera",
        lambda: observed(images={"View1": observed()["images"]["View1"]}),
        "runner: images.View2: missing (every episode of training had it; given: View1)",
    ),
    ("an unknown camera", image(view1=PIXELS), "images.view1: unknown image (did you mean 'View1'?)"),
    (
        "floats from 0 to 1",
        image(View1=PIXELS / 255),
        "images.View1: expected uint8 pixels from 0 to 255, found float64 (np.round(image * 255)",
    ),
    (
        "int64 pixels",
        image(View1=PIXELS.astype(int)),
        "images.View1: expected uint8 pixels from 0 to 255, found int64 (pixels as they come",
    ),
    (
        "channels first",
        image(View1=PIXELS.transpose(2, 0, 1)),
        "x width x 3, found (3, 24, 32) (channels come last: image.transpose(1, 2, 0))",
    ),
    (
        "no colour",
        image(View1=PIXELS[..., 0]),
        "images.View1: expected (24, 32, 3) of any height and width, found (24, 32)",
    ),
    (
        "four channels",
        image(View1=np.concatenate([PIXELS, PIXELS[..., :1]], 2)),
        "found (24, 32, 4) (red, green, blue, in this order)",
    ),
    ("an empty image", image(View1=PIXELS[:0]), "images.View1: expected pixels, found an empty image"),
    ("a file's bytes", image(View1=b"\xff\xd8"), "images.View1: expected pixels, found bytes (decode the image first)"),
    (
        "images in a list",
        lambda: observed(images=[1]),
        "runner: images: expected a dict by name, found a list (known: View1, View2)",
    ),
    ("no sensor", lambda: observed(sensors=None), "runner: sensors.force: missing"),
    (
        "a sensor's width",
        lambda: observed(sensors={"force": np.zeros((3, 2))}),
        "sensors.force: expected a number, found shape (3, 2)",
    ),
    ("no rows", lambda: observed(sensors={"force": []}), "sensors.force: expected 1 to 100,000 rows, found 0"),
    ("NaN of a sensor", lambda: observed(sensors={"force": [0.0, np.nan]}), "sensors.force: value 0 is nan"),
    (
        "no instruction",
        lambda: observed(task=None),
        "runner: task: missing (the instruction as a text; insert the needle",
    ),
    ("a list of instructions", lambda: observed(task=[TASK]), "runner: task: expected one text, found a list"),
    ("a time that is no number", lambda: observed(time="now"), "runner: time: expected seconds, found a str"),
    ("a time that is NaN", lambda: observed(time=float("nan")), "runner: time: expected seconds, found nan"),
]


@pytest.mark.parametrize(("make", "expected"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_wrong_observation_is_refused_in_one_line_by_name(
    policy: Any, make: Callable[[], Any], expected: str
) -> None:
    runner = policy.runner()
    with pytest.raises(UsageError) as refusal:
        runner.step(make())
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.cure
    runner.step(observed(time=0.0))  # nothing of it was kept


def test_time_that_does_not_go_on_is_refused(policy: Any) -> None:
    runner = policy.runner()
    runner.step(observed(time=5.0))
    with pytest.raises(UsageError, match=r"runner: time: 5\.000000 s is not after 5\.000000 s \(reset\(\) begins"):
        runner.step(observed(time=5.0))


def test_a_state_may_be_given_by_field_or_by_column(policy: Any) -> None:
    watched, whole = Watched(policy), observed()["state"].astype(np.float32)
    columns = dict(zip(policy.spec.state_names, whole.tolist(), strict=True))
    for given in ({"tcp_pose": whole[6:], "robot/joint_position": whole[:6]}, dict(reversed([*columns.items()]))):
        policy.runner().step(observed(state=given))
        assert (watched.batches[-1][STATE][0, -1].numpy() == whole).all()


def test_what_may_be_a_mistake_is_said_once_or_refused_if_strict(policy: Any) -> None:
    far = observed(state=np.where(np.arange(12) == 1, 1e4, observed()["state"]))
    said: list[str] = []
    runner = policy.runner(say=said.append)
    for _ in range(3):
        runner.step(observed(task="insert the needle into the read target"))
        runner.step(far)
        runner.step(observed(images=dict.fromkeys(("View1", "View2"), PIXELS)))
    assert sum("was not seen in training" in line for line in said) == 1
    assert sum("joint_2 is 1e+04, far from what training saw" in line and "deg" in line for line in said) == 1
    strict = policy.runner(strict=True)
    with pytest.raises(UsageError, match=r"was not seen in training \(did you mean 'insert the needle into the red"):
        strict.step(observed(task="insert the needle into the read target"))
    with pytest.raises(UsageError, match=r"joint_2 is 1e\+04, far from what training saw"):
        strict.step(far)
    strict.step(observed())
    with pytest.warns(UserWarning, match="was not seen in training"):
        policy.runner().step(observed(task="something else"))


def test_dark_images_are_told_until_a_bright_one_came(policy: Any) -> None:
    said: list[str] = []
    scaled = {name: (image / 255).astype(np.uint8) for name, image in observed()["images"].items()}
    runner = policy.runner(say=said.append)
    runner.step(observed(images=scaled))
    assert sum("no pixel is above 1 of 255" in line for line in said) == 2


def test_rows_further_apart_than_in_training_are_told_once(policy: Any) -> None:
    said: list[str] = []
    runner = policy.runner(say=said.append)
    for _ in range(4):
        runner.step(observed())  # a step each 100 ms, by the rate of the actions
    assert [line for line in said if "some repeat" in line] == said
    assert said[0].startswith("runner: state: rows 100 ms apart, and training had 20 ms: some repeat")
    said.clear()
    runner = policy.runner(say=said.append)
    for _ in range(4):
        runner.step(observed(state=np.tile(observed()["state"], (5, 1)), sensors={"force": np.zeros(65)}))
    assert not said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"execute": 7}, "runner: execute"),
        ({"execute": 0}, "runner: execute"),
        ({"ensemble": "yes"}, "runner: ensemble"),
        ({"embodiment": "ur5"}, "runner: embodiment: 'ur5' is unknown"),
    ],
)
def test_wrong_options_are_refused(policy: Any, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        policy.runner(**options)


def test_actions_that_are_not_finite_never_reach_the_robot(policy: Any) -> None:
    with torch.no_grad():
        policy.layer.bias[0] = float("nan")
    with pytest.raises(UsageError, match="the policy's action is not finite"):
        policy.runner().step(observed())


def test_a_copy_of_a_policy_runs_by_its_own_weights(policy: Any) -> None:
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.layer.weight.zero_()
        other.layer.bias.zero_()
    assert not other.runner().step(observed()).any()
    assert policy.runner().step(observed()).any()


def test_checkpoint_of_an_older_version_runs_with_numbered_names() -> None:
    run = Path(__file__).parents[1] / "checkpoint" / "run_of_version_1"
    policy = vlapipe.load_policy(run)
    spec = policy.spec
    assert spec.state_names[0] == "observation.state[0]"
    assert spec.tasks is None
    assert not spec.rates_hz
    given = {
        "state": np.zeros(spec.state[1]),
        "sensors": {name: np.zeros(shape[1:]) for name, shape in spec.sensors.items()},
        "images": {camera: np.full((*shape[2:], 3), 9, np.uint8) for camera, shape in spec.images.items()},
        "task": "anything",
    }
    assert policy.runner().step(given).shape == (spec.action[1],)


def growth_bytes(policy: Any, num_steps: int) -> int:
    runner, observation = policy.runner(execute=2, ensemble=True, say=ignored), observed()
    for _ in range(300):  # caches and the room of the histories
        runner.step(observation)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(100):
            runner.step(observation)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(num_steps):
            runner.step(observation)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow(policy: Any) -> None:
    assert growth_bytes(policy, 300) < 20_000


@pytest.mark.slow
def test_memory_does_not_grow_over_ten_thousand_steps(policy: Any) -> None:
    assert growth_bytes(policy, 10_000) < 20_000


def test_no_warning_of_numpy_or_torch_in_a_plain_step(policy: Any) -> None:
    images = {name: image.copy() for name, image in observed()["images"].items()}
    for image in images.values():
        image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.runner(execute=6).step(observed(images=images))


def test_a_runner_gives_the_same_actions_with_another_layout_of_the_weights(run: Path) -> None:
    spec = vlapipe.load_policy(run).spec
    policy = build_policy("regression", spec, {"image_width": 16, "dim": 32}).eval()
    before = Runner(policy, spec, execute=1, say=ignored).step(observed())
    runner = RunnerMaker(policy, spec)(execute=1, say=ignored)
    weights = [module.weight for module in policy.modules() if isinstance(module, torch.nn.Conv2d)]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    np.testing.assert_allclose(runner.step(observed()), before, rtol=1e-5, atol=1e-5)
