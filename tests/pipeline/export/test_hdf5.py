"""robomimic's HDF5 layout, read by plain h5py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from naive_frames import naive_episode

import vlapipe
from vlapipe.pipeline.export.export import export
from vlapipe.schemas.errors import UsageError

h5py = pytest.importorskip("h5py")


def test_every_array_is_that_of_the_dataset(tiny_dataset: Path, tmp_path: Path) -> None:
    report = export(tiny_dataset, tmp_path / "out.hdf5", to="hdf5", fps=30)
    dataset = vlapipe.open_dataset(tiny_dataset)
    with h5py.File(tmp_path / "out.hdf5") as file:
        data = file["data"]
        assert list(data) == [f"demo_{i}" for i in range(4)]
        assert data.attrs["total"] == report.tally.frames
        assert json.loads(data.attrs["env_args"])["env_name"] == "meca500"
        for i in range(4):
            naive, demo, row = naive_episode(dataset, i, 30), data[f"demo_{i}"], dataset.row(i)
            assert demo.attrs["num_samples"] == len(naive.rows)
            assert demo.attrs["instruction"] == naive.instruction
            assert json.loads(demo.attrs["metadata"])["robot_hz"] == 100
            assert demo.attrs["id"] == row["id"]
            np.testing.assert_array_equal(demo["actions"][:], naive.action)
            both = [demo["obs/joint_position"][:], demo["obs/tcp_pose"][:]]
            np.testing.assert_array_equal(np.concatenate(both, axis=1), naive.state)
            for camera in ("View1", "View2"):
                images = demo[f"obs/{camera}_image"]
                np.testing.assert_array_equal(images[:], naive.pixels(camera))
                assert images.dtype == np.uint8
                assert (images.chunks[0], images.compression, images.shuffle) == (1, "gzip", True)
            force = dataset.episode(i)["sensor/force"][dataset.episode(i)["align/sensor"][naive.rows]]
            np.testing.assert_array_equal(demo["obs/force"][:], force)
            assert demo["obs/aline"].shape == (len(naive.rows), 1025)
            assert demo["dones"][:].tolist() == [0] * (len(naive.rows) - 1) + [1]
            assert demo["rewards"].shape == (len(naive.rows),)


def test_masks_are_the_splits(tiny_dataset: Path, tmp_path: Path) -> None:
    export(tiny_dataset, tmp_path / "out.h5", to="hdf5")
    splits = vlapipe.open_dataset(tiny_dataset).column("split").tolist()
    with h5py.File(tmp_path / "out.h5") as file:
        for split, name in (("train", "train"), ("val", "valid")):
            wanted = [f"demo_{i}" for i, own in enumerate(splits) if own == split]
            found = [text.decode() for text in file[f"mask/{name}"][:]] if f"mask/{name}" in file else []
            assert found == wanted


def test_out_is_a_file_and_nothing_of_somebody_elses(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.hdf5").write_bytes(b"my own")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    (tmp_path / "folder.hdf5").mkdir()
    for name, words in {
        "mine.hdf5": "holds something else",
        "other.hdf5": "holds something else",
        "folder.hdf5": "is a folder",
        "out": r"expected a file for --to hdf5.*out\.hdf5",
    }.items():
        with pytest.raises(UsageError, match=words):
            export(tiny_dataset, tmp_path / name, to="hdf5")
    assert (tmp_path / "mine.hdf5").read_bytes() == b"my own"
    with pytest.raises(UsageError, match="--video h264: hdf5 holds pixels"):
        export(tiny_dataset, tmp_path / "v.hdf5", to="hdf5", video="h264")
