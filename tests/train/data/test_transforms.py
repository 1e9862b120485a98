"""A user's transforms run on each batch in the loader's threads, decide the spec, and come back with the policy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import config, lines
from transforms_under_test import doubled, first_columns, in_metres, with_goal, without_second_camera

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window
from vlapipe.train.loop import train

STATE = "observation.state"
NAME = "transforms_under_test:"


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return open_dataset(tiny_dataset)


def batches(dataset: Dataset, *transforms: Any, num_workers: int = 2, **options: Any) -> list[Any]:
    return list(Loader(dataset, batch_size=16, num_workers=num_workers, transforms=transforms, **options))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_transforms_run_in_order_on_every_batch_in_the_loaders_threads(dataset: Dataset, num_workers: int) -> None:
    threads, sizes = set(), set()

    def watching(batch: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        sizes.add(len(batch["action"]))
        return batch

    plain = list(Loader(dataset, batch_size=2, num_workers=0))
    loader = Loader(dataset, batch_size=2, num_workers=num_workers, transforms=[watching, in_metres, first_columns])
    threads.clear()
    sizes.clear()
    found = list(loader)
    assert threads == {num_workers == 0}
    assert sizes == {len(batch["action"]) for batch in plain}  # also if several are read at once
    for before, after in zip(plain, found, strict=True):
        torch.testing.assert_close(after[STATE], before[STATE][..., :3] / 1000)
        torch.testing.assert_close(after["action"], before["action"], rtol=0, atol=0)


def test_the_same_for_torch_dataset_in_this_process_and_in_workers(dataset: Dataset) -> None:
    [plain, *_] = batches(dataset, shuffle=False, split=None)
    for transforms in ([first_columns], [f"{NAME}first_columns"]):
        frames = vlapipe.torch_dataset(dataset, split=None, transforms=transforms)
        assert frames.spec.state[1] == 3
        torch.testing.assert_close(frames[5][STATE], plain[STATE][5, :, :3])
        data_loader = torch.utils.data.DataLoader(
            frames, batch_size=16, num_workers=1, collate_fn=frames.collate, multiprocessing_context="spawn"
        )
        torch.testing.assert_close(next(iter(data_loader))[STATE], plain[STATE][..., :3])
    stream = vlapipe.torch_dataset(dataset, iterable=True, batch_size=16, transforms=[first_columns])
    assert next(iter(stream))[STATE].shape[-1] == 3


def test_shapes_and_statistics_of_the_spec_are_those_after_the_transforms(dataset: Dataset) -> None:
    plain = Loader(dataset, num_workers=0).spec
    loader = Loader(dataset, num_workers=0, transforms=[in_metres, first_columns, without_second_camera, doubled])
    spec = loader.spec
    assert spec.state == (plain.state[0], 3)
    assert list(spec.images) == ["View1"]
    assert spec.action == plain.action
    assert set(spec.moments) == set(plain.moments)
    seen = list(loader)  # the statistics are over every frame of so small a split
    for key in (STATE, "action"):
        rows = torch.cat([batch[key][~batch[f"{key}_is_pad"]] for batch in seen]).double()
        np.testing.assert_allclose(spec.moments[key].mean, rows.mean(0), rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(spec.moments[key].std, rows.std(0, correction=0), rtol=1e-4, atol=1e-8)
    for key in set(plain.moments) - {STATE, "action"}:
        assert spec.moments[key].mean is not None
        np.testing.assert_array_equal(spec.moments[key].mean, plain.moments[key].mean)
    assert loader.read_spec.state == plain.state


def test_further_entries_travel_with_the_batch_and_sensors_enter_the_spec(dataset: Dataset) -> None:
    loader = Loader(dataset, num_workers=0, batch_size=4, transforms=[with_goal])
    assert loader.spec.sensors["power"] == (loader.spec.state[0],)
    assert loader.spec.moments["observation.sensors.power"].mean.shape == ()
    assert next(iter(loader))["goal"].shape == (4, loader.spec.state[1])


def missing(key: str) -> Any:
    return lambda batch: {name: value for name, value in batch.items() if name != key}


def changed(key: str, change: Any) -> Any:
    return lambda batch: {**batch, key: change(batch[key])}


IMAGE = "observation.images.View1"
REFUSED: list[tuple[Any, str]] = [
    (f"{NAME}nothing", "Loader transforms: module transforms_under_test has no 'nothing'"),
    (f"{NAME}first_column", "Loader transforms: module transforms_under_test has no 'first_column' (did you mean"),
    ("no_such_module:f", "Loader transforms: no_such_module:f: no module 'no_such_module' (run from the folder that"),
    ("first_columns", "Loader transforms: expected pkg.module:function, found 'first_columns'"),
    (3, "Loader transforms: expected a function of a batch, found a int: 3"),
    (f"{NAME}fails", "transform transforms_under_test:fails: KeyError: 'nothing' (transforms_under_test.py:"),
    (f"{NAME}without_return", "expected a dict of the batch's entries, found a NoneType (return the batch)"),
    (missing(STATE), f"transforms: {STATE}: is missing afterwards"),
    (missing(f"{STATE}_is_pad"), f"transforms: {STATE}_is_pad: expected bool (2, 100), found nothing"),
    (changed(STATE, torch.Tensor.double), f"transforms: {STATE}: expected float32, found float64 (value.float()"),
    (changed(IMAGE, lambda i: i.float() / 255), f"transforms: {IMAGE}: expected uint8, found float32"),
    (changed(STATE, lambda s: s[:, -1]), f"transforms: {STATE}: expected 3 dimensions, found (2, 12)"),
    (changed(STATE, lambda s: s[:1]), f"transforms: {STATE}: expected a tensor or a list of 2 samples, found (1"),
    (changed("action", lambda a: a.numpy()), "transforms: action: expected a tensor or a list of 2 samples, found a"),
]  # fmt: skip


@pytest.mark.parametrize(("transform", "expected"), REFUSED, ids=[r[1][:50] for r in REFUSED])
def test_what_cannot_be_is_refused_in_one_line_before_the_first_batch(
    dataset: Dataset, transform: Any, expected: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        Loader(dataset, num_workers=0, transforms=[transform])
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.cure


def test_a_list_is_expected(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="Loader transforms: expected a list of functions, found 'a:b'"):
        Loader(dataset, num_workers=0, transforms="a:b")


def test_a_form_of_the_action_needs_what_was_recorded(dataset: Dataset) -> None:
    window = Window(action={"kind": "absolute"}, state=["robot/tcp_pose"], action_form="relative")
    with pytest.raises(UsageError, match="change action, and the action's form needs it as it is"):
        Loader(dataset, num_workers=0, window=window, transforms=[doubled])
    Loader(dataset, num_workers=0, window=window, transforms=[without_second_camera])


def test_a_run_trains_with_its_transforms_and_acts_with_them(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{NAME}{name}" for name in ("in_metres", "first_columns", "without_second_camera", "doubled")]
    train(config(tiny_dataset, tmp_path / "run", max_steps=2, transforms=names))
    assert "has no undo" in capsys.readouterr().err  # of in_metres, which is no function of actions
    assert all(np.isfinite(line["train/loss"]) for line in lines(tmp_path / "run"))
    policy: Any = vlapipe.load_policy(tmp_path / "run")
    batch = next(iter(Loader(open_dataset(tiny_dataset), batch_size=3, shuffle=False)))
    kept = batch[STATE].clone()
    observation = {key: value for key, value in batch.items() if key.startswith("observation.") or key == "task"}
    actions = policy.act(observation)
    assert torch.equal(batch[STATE], kept)  # the robot's own tensors are not written to
    inner = dict(batch)
    for transform in (in_metres, first_columns, without_second_camera):
        inner = transform(inner)
    torch.testing.assert_close(actions * 2, type(policy).act(policy, inner))
    assert (actions[..., -1] == 1.0).all()  # the gripper never moved, and was trained as 2
    with pytest.raises(UsageError, match=r"act: observation\.images\.View2: missing"):
        policy.act({key: value for key, value in observation.items() if "View2" not in key})


def test_resuming_goes_on_with_the_same_transforms(tiny_dataset: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"transforms": [f"{NAME}tripled"], "max_steps": 4}
    train(config(tiny_dataset, tmp_path / "whole", **options))
    train(config(tiny_dataset, tmp_path / "parts", **options | {"max_steps": 2, "decay_steps": 4}))
    train(config(tiny_dataset, tmp_path / "parts", **options, decay_steps=4, resume=True))
    losses = [[line["train/loss"] for line in lines(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1]
