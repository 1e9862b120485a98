"""Depth keeps its own numbers on the way to a policy: resized and varied by nearest pixels, normalized by its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_lab import HEIGHT, WIDTH, depth, encoded, run, write

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.images.augment import Augmentation, Draw
from vlapipe.train.data.images.augment_pixels import augment_depth
from vlapipe.train.data.images.resize import resized
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.loop import train
from vlapipe.train.policies.nn.images import ImageEncoder
from vlapipe.train.policies.regression import RegressionPolicy

KEY = "observation.images.camera"
TINY = {"dim": 32, "depth": 1, "num_heads": 2, "image_width": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("depth")
    run(write(root / "raw", lambda i: encoded(depth(i)), num=20), root / "data", 'unit = "mm"')
    return root / "data"


@pytest.mark.parametrize("size", [(HEIGHT // 2, WIDTH // 2), (HEIGHT * 2, WIDTH * 2), (7, 45)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_resized_depth_has_only_numbers_that_were_measured(data: Path, size: tuple[int, int], fit: str) -> None:
    loader = vlapipe.Loader(
        vlapipe.open_dataset(data), batch_size=4, shuffle=False, split=None, image_size=size, image_resize=fit
    )
    batch = next(iter(loader))
    assert batch[KEY].dtype == torch.uint16
    assert batch[KEY].shape == (4, 1, 1, *size)
    ours = batch[KEY][0, 0, 0].numpy()
    assert set(np.unique(ours)) <= {0, *np.unique(depth(0)).tolist()}
    np.testing.assert_array_equal(ours, resized(depth(0)[..., None], size, fit)[..., 0])  # type: ignore[arg-type]


def test_single_frames_and_batches_of_other_trainers_are_the_same(data: Path) -> None:
    frames = vlapipe.torch_dataset(vlapipe.open_dataset(data), split=None)
    batch = next(iter(torch.utils.data.DataLoader(frames, batch_size=3, collate_fn=frames.collate)))
    assert frames[2][KEY].dtype == torch.uint16
    np.testing.assert_array_equal(frames[2][KEY][0, 0].numpy(), depth(2))
    assert torch.equal(batch[KEY][2].to(torch.int32), frames[2][KEY].to(torch.int32))


def test_augmentation_moves_depth_and_invents_none(data: Path) -> None:
    loader = vlapipe.Loader(
        vlapipe.open_dataset(data), batch_size=8, split=None, shuffle=False, augmentation=Augmentation(rotation_deg=20)
    )
    batch = next(iter(loader))
    for i, image in enumerate(batch[KEY][:, 0, 0].numpy()):
        assert set(np.unique(image)) <= set(np.unique(depth(i)))
        assert (image != depth(i)).any()


def test_turned_depth_lies_where_the_turned_picture_lies() -> None:
    image = np.zeros((60, 80, 1), dtype=np.uint16)
    image[10:14, 60:66] = 1000
    out = np.empty_like(image)
    augment_depth(image, out, Draw(0.0, 0.0, 1.0, np.pi / 2, 1.0, 1.0, 1.0))
    rows, columns = np.nonzero(out[..., 0])
    # A quarter turn about the centre (30, 40): 23 right and 18 up of it becomes 18 right and 23 down, or the reverse.
    assert abs(abs(rows.mean() - 29.5) - 23) < 1
    assert abs(abs(columns.mean() - 39.5) - 18) < 1
    augment_depth(image, out, Draw(0.1, 0.5, 0.5, 0.0, 1.0, 1.0, 1.0))
    np.testing.assert_array_equal(out, image[6:36, 40:80].repeat(2, 0).repeat(2, 1))


def test_normalized_depth_is_finest_near_the_lens_and_knows_holes() -> None:
    encoder = ImageEncoder(32, (4, 4), 1, width=8, num_channels=1, depth_m=0.0002)
    counts = torch.tensor([0, 5000, 15_000, 65_535], dtype=torch.uint16).reshape(1, 1, 2, 2)
    values, is_there = encoder._normalized(counts, torch.float32)[0]
    metres = [0.0, 1.0, 3.0, 13.107]
    assert values.flatten().tolist() == pytest.approx([2 * d / (d + 1) - 1 for d in metres], abs=1e-5)
    assert is_there.flatten().tolist() == [0, 1, 1, 1]


def test_a_policy_is_trained_on_depth_and_acts_after_it_is_loaded(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "wandb": "disabled", "num_workers": 1, "augment": True}
    train(TrainConfig.of(data=[data], out=tmp_path / "run", max_steps=3, policy_args=TINY, **options))
    policy = vlapipe.load_policy(tmp_path / "run")
    batch = next(iter(vlapipe.Loader(vlapipe.open_dataset(data), batch_size=2, split=None)))
    observation = {key: value for key, value in batch.items() if not key.startswith("action")}
    assert policy.act(observation).isfinite().all()
    observation[KEY] = observation[KEY].to(torch.float32) / 1000
    with pytest.raises(UsageError, match=r"uint16 depth, each count 0\.001 m, found float32 \(\(metres / 0\.001\)"):
        policy.act(observation)


def test_a_policy_sees_depth(data: Path) -> None:
    loader = vlapipe.Loader(vlapipe.open_dataset(data), batch_size=4, split=None, shuffle=False)
    policy = RegressionPolicy(loader.spec, **TINY)
    batch = next(iter(loader))
    policy.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    first = policy.images[0].stages[0][0].weight.grad  # type: ignore[index,union-attr]
    assert first.shape[1] == 2
    assert first.abs().sum() > 0


def test_the_unit_travels_with_the_spec(data: Path) -> None:
    spec = vlapipe.Loader(vlapipe.open_dataset(data), batch_size=4, split=None).spec
    assert spec.depth == {"camera": 0.001}
    assert SampleSpec.from_json(spec.to_json()).depth == spec.depth


def test_datasets_with_other_units_are_not_joined(data: Path, tmp_path: Path) -> None:
    other = run(write(tmp_path / "raw", lambda i: encoded(depth(i))), tmp_path / "data", 'unit = "0.5 mm"')
    assert other.num_episodes == 2
    with pytest.raises(UsageError, match=r"depth in mm.*depth in 0\.5 mm|depth in 0\.5 mm.*depth in mm"):
        vlapipe.Loader([vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "data")], batch_size=4)


def test_files_and_pixels_of_several_datasets_make_one_batch(data: Path, tmp_path: Path) -> None:
    run(write(tmp_path / "raw", lambda i: encoded(depth(i))), tmp_path / "raws", 'unit = "mm"', image_storage="raw")
    both = [vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "raws")]
    loader = vlapipe.Loader(both, batch_size=64, split=None, shuffle=False)
    [batch] = list(loader)
    images = batch[KEY][:, 0, 0].numpy()
    np.testing.assert_array_equal(images[:19], np.stack([depth(i) for i in range(19)]))
    np.testing.assert_array_equal(images[-10:-5], np.stack([depth(i) for i in range(5)]))
