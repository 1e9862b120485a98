"""Run by a Python that has LeRobot: its loader and its statistics, against arrays that a test has worked out.

Arguments: the exported folder, and an .npz with ``state``, ``action``, ``pixels/<camera>``, ``tasks`` and
``lengths``. Prints ``same`` at the end.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import PIL.Image
from lerobot.datasets import compute_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, expected_file: str) -> None:
    expected = np.load(expected_file, allow_pickle=False)
    cameras = [name.removeprefix("pixels/") for name in expected.files if name.startswith("pixels/")]
    dataset = LeRobotDataset("lab/test", root=root, video_backend="pyav")
    lengths = expected["lengths"].tolist()
    assert len(dataset) == sum(lengths), (len(dataset), sum(lengths))
    worst = dict.fromkeys(cameras, 99.0)
    for i in range(len(dataset)):
        item = dataset[i]
        np.testing.assert_array_equal(item["observation.state"].numpy(), expected["state"][i])
        np.testing.assert_array_equal(item["action"].numpy(), expected["action"][i])
        assert item["task"] == expected["tasks"][i]
        for camera in cameras:
            found = (item[f"observation.images.{camera}"].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
            wanted = expected[f"pixels/{camera}"][i]
            if dataset.features[f"observation.images.{camera}"]["dtype"] == "image":
                np.testing.assert_array_equal(found, wanted)
            mse = np.mean((found.astype(float) - wanted) ** 2)
            worst[camera] = min(worst[camera], 10 * np.log10(255**2 / max(mse, 1e-9)))
    timestamps = np.concatenate([np.arange(n) / dataset.fps for n in lengths]).astype(np.float32)
    np.testing.assert_array_equal(np.array(dataset.hf_dataset["timestamp"]), timestamps)
    check_stats(dataset, expected, cameras, lengths)
    deltas = {"action": [0.0, 1 / dataset.fps], "observation.state": [-1 / dataset.fps, 0.0]}
    assert LeRobotDataset("lab/test", root=root, delta_timestamps=deltas, episodes=[1])[3]["action"].shape[0] == 2
    assert min(worst.values(), default=99.0) > 20, worst
    sys.stdout.write("same\n")


def check_stats(
    dataset: LeRobotDataset, expected: np.lib.npyio.NpzFile, cameras: list[str], lengths: list[int]
) -> None:
    """Compares the statistics of each episode and of all, to the last bit."""
    table = dataset.hf_dataset.with_format(None)
    stored = {key: dict(value) for key, value in dataset.meta.stats.items()}
    files = sorted((dataset.root / "meta/episodes").rglob("*.parquet"))
    columns = pd.concat([pd.read_parquet(path) for path in files])
    total, first = None, 0
    for episode, length in enumerate(lengths):
        rows = slice(first, first + length)
        data = {
            "observation.state": expected["state"][rows],
            "action": expected["action"][rows],
            "timestamp": np.arange(length) / dataset.fps,
            "frame_index": np.arange(length),
            "episode_index": np.full(length, episode),
            "index": np.arange(first, first + length),
            "task_index": np.array(table[rows]["task_index"]),
        }
        with tempfile.TemporaryDirectory() as folder:
            for camera in cameras:
                paths = []
                for i, image in enumerate(expected[f"pixels/{camera}"][rows]):
                    paths.append(str(Path(folder) / f"{camera}-{i}.png"))
                    PIL.Image.fromarray(image).save(paths[-1])
                data[f"observation.images.{camera}"] = paths
            stats = compute_stats.compute_episode_stats(data, dataset.features)
            for camera in cameras:
                key = f"observation.images.{camera}"
                stats[key]["std"] = true_std(data[key])
        for key, own in stats.items():
            for name, value in own.items():
                found = np.array(flat(columns[f"stats/{key}/{name}"].iloc[episode]))
                np.testing.assert_array_equal(found, value.reshape(-1), err_msg=f"episode {episode}: {key}/{name}")
        total = stats if total is None else compute_stats.aggregate_stats([total, stats])
        first += length
    for key, own in total.items():
        for name, value in own.items():
            np.testing.assert_array_equal(stored[key][name], value, err_msg=f"{key}/{name}")


def true_std(paths: list[str]) -> np.ndarray:
    """Of the same sampled pixels, but in float64: LeRobot up to 0.4.4 squares them as uint8, which overflows."""
    pixels = compute_stats.sample_images(paths).astype(np.float64)
    stats = compute_stats.get_feature_stats(pixels, axis=(0, 2, 3), keepdims=True)
    return np.squeeze(stats["std"] / 255.0, axis=0)


def flat(nested: object) -> list[float]:
    return [x for each in nested for x in flat(each)] if hasattr(nested, "__iter__") else [nested]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
