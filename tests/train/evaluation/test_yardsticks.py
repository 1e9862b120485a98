"""The simple predictors answer what a loop over the recordings would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import vlapipe
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.evaluation.yardsticks import Yardsticks

STRIDE = 10  # rows between the actions of a chunk, in the schema


def test_answers_are_those_of_a_loop_over_the_recordings(tiny_dataset: Path, tmp_path: Path) -> None:
    config = TrainConfig.of(data=tiny_dataset, out=tmp_path)
    dataset = vlapipe.open_dataset(tiny_dataset)
    numbers = vlapipe.Window(cameras=(), sensors={})  # which have a few frames more, before the first image
    train, val = (
        next(iter(Loader(dataset, window=numbers, split=split, batch_size=10_000, shuffle=False, num_workers=0)))
        for split in ("train", "val")
    )
    answers = Yardsticks(config, "val").answers(val)
    kept = ~train["action_is_pad"]
    mean = (train["action"] * kept[..., None]).sum(0) / kept.sum(0)[:, None].clamp_min(1)
    assert torch.allclose(answers["mean"], mean.expand_as(val["action"]), atol=1e-5)

    first = {
        (episode, row): val["action"][i, 0]
        for i, (episode, row) in enumerate(zip(val["episode_index"].tolist(), val["frame_index"].tolist(), strict=True))
    }
    num_held = 0
    for i, key in enumerate(first):
        before = first.get((key[0], key[1] - STRIDE))
        wanted = mean if before is None else before.expand_as(mean)
        assert torch.allclose(answers["hold"][i], wanted, atol=1e-5), key
        num_held += before is not None
    assert 0 < num_held < len(first)

    scale = train["observation.state"][:, -1].double().std(0).numpy()
    states = train["observation.state"][:, -1].double().numpy() / scale
    for i in (0, 7, len(first) - 1):
        distance = np.linalg.norm(val["observation.state"][i, -1].double().numpy() / scale - states, axis=1)
        same = np.array([task == val["task"][i] for task in train["task"]])
        nearest = np.where(same, distance, np.inf).argmin() if same.any() else distance.argmin()
        wanted = torch.where(kept[nearest][:, None], train["action"][nearest], mean)
        assert torch.allclose(answers["nearest"][i], wanted, atol=1e-4)
