"""Folders of PNG, depth and other images get streams that ingest keeps without a line changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_lab import depth, encoded, picture
from numpy.typing import NDArray

import vlapipe
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest

Image = Callable[[int], NDArray[Any]]


def write(root: Path, cameras: Mapping[str, tuple[Image, str, str]], counts: Mapping[int, int] | None = None) -> Path:
    """Write three episodes of 20 rows with numbered images; ``cameras`` has for each folder image, format, suffix."""
    for e in range(3):
        folder = root / f"episode_{e}"
        folder.mkdir(parents=True)
        rows = [f"{1_790_000_000 + 100 * e + i / 10},{np.sin(i / 3 + e)},{np.cos(i / 4 + e)}" for i in range(20)]
        (folder / "robot.csv").write_text("\n".join(["timestamp,joint_1,joint_2", *rows, ""]))
        for name, (image, kind, suffix) in cameras.items():
            (folder / name).mkdir()
            for i in range((counts or {}).get(e, 20)):
                (folder / name / f"{i:06d}.{suffix}").write_bytes(encoded(image(i), kind))
    return root


def ingested(root: Path, tmp_path: Path) -> Any:
    inferred = infer_schema(root)
    assert not inferred.faults
    schema = tmp_path / "inferred.toml"
    schema.write_text(inferred.toml)
    report = ingest(IngestConfig(source=root, out=tmp_path / "data", schema=str(schema), workers=1))
    assert not report.rejects
    return next(iter(vlapipe.Loader(vlapipe.open_dataset(tmp_path / "data"), batch_size=4, split=None, shuffle=False)))


def test_colour_beside_depth_are_two_streams(tmp_path: Path) -> None:
    cameras = {"rgb": (picture, "PNG", "png"), "depth": (depth, "PNG", "png")}
    batch = ingested(write(tmp_path / "raw", cameras), tmp_path)
    np.testing.assert_array_equal(batch["observation.images.rgb"][0, 0], picture(0).transpose(2, 0, 1))
    np.testing.assert_array_equal(batch["observation.images.depth"][0, 0, 0], depth(0))
    assert 'unit = "mm"  # correct this' in (tmp_path / "inferred.toml").read_text()


@pytest.mark.parametrize(("kind", "suffix"), [("BMP", "bmp"), ("TIFF", "tif")])
def test_formats_that_are_converted_are_declared_so(tmp_path: Path, kind: str, suffix: str) -> None:
    batch = ingested(write(tmp_path / "raw", {"cam": (picture, kind, suffix)}), tmp_path)
    np.testing.assert_array_equal(batch["observation.images.camera"][0, 0], picture(0).transpose(2, 0, 1))


def test_depth_in_metres_is_kept_in_millimetres(tmp_path: Path) -> None:
    def metres(i: int) -> NDArray[np.float32]:
        return (depth(i) / 1000).astype(np.float32)

    batch = ingested(write(tmp_path / "raw", {"cam": (metres, "TIFF", "tiff")}), tmp_path)
    np.testing.assert_array_equal(batch["observation.images.depth"][0, 0, 0], depth(0))


def test_an_episode_with_one_image_fewer_than_rows_is_kept(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"cam": (picture, "PNG", "png")}, counts={1: 19})
    ingested(raw, tmp_path)
    short = vlapipe.open_dataset(tmp_path / "data").episode(1)
    np.testing.assert_array_equal(short["camera/timestamp"], short["robot/timestamp"][:19])
