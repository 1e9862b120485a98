"""Baseline of bench_export.py, run by a Python that has LeRobot: its own writer, fed with frames from memory.

Arguments: a folder of one .npz an episode (state, action, task, images/<camera>), the output, fps, and a codec or
``images``. Prints the seconds of the writing alone, without reading and decoding.
"""

import sys
import time
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CODECS = {"h264": "h264", "av1": "libsvtav1"}


def main(source: str, out: str, fps: str, kind: str) -> None:
    """Write the episodes."""
    episodes = [dict(np.load(path)) for path in sorted(Path(source).glob("*.npz"))]
    cameras = [name for name in episodes[0] if name.startswith("images/")]
    features = {
        "observation.state": {"dtype": "float32", "shape": episodes[0]["state"].shape[1:], "names": None},
        "action": {"dtype": "float32", "shape": episodes[0]["action"].shape[1:], "names": None},
    }
    for camera in cameras:
        features[f"observation.images.{camera.partition('/')[2]}"] = {
            "dtype": "image" if kind == "images" else "video",
            "shape": episodes[0][camera].shape[1:],
            "names": ["height", "width", "channels"],
        }
    started = time.perf_counter()
    dataset = LeRobotDataset.create(
        "lab/bench",
        fps=int(fps),
        features=features,
        root=out,
        use_videos=kind != "images",
        image_writer_threads=4,
        vcodec=CODECS.get(kind, "h264"),
    )
    for episode in episodes:
        for i in range(len(episode["state"])):
            frame = {"observation.state": episode["state"][i], "action": episode["action"][i]}
            frame |= {f"observation.images.{c.partition('/')[2]}": episode[c][i] for c in cameras}
            dataset.add_frame({**frame, "task": str(episode["task"])})
        dataset.save_episode()
    dataset.finalize()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
