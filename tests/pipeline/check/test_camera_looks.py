"""Frozen and blank cameras, episodes whose red and blue are exchanged, and each episode's colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, findings_of, ingested, pictures, write_dataset

from vlapipe.pipeline.shards.dataset import open_dataset


def found(root: Path, schema: str = SCHEMA) -> list[tuple[str, str, str]]:
    return [(f["episode"], f["code"], f["file"]) for f in findings_of(root, schema)]


def only(number: int, change: Any) -> Any:
    return lambda i, images: change(images) if i == number else images


def frozen_from(row: int) -> Any:
    def change(images: Any) -> Any:
        images[row:] = images[row]
        return images

    return change


@pytest.mark.parametrize("row", [0, 15])
def test_camera_that_hangs_while_the_robot_moves_is_named(tmp_path: Path, row: int) -> None:
    root = write_dataset(tmp_path / "raw", film=only(2, frozen_from(row)))
    assert found(root) == [("task/episode_002", "image.frozen", "task/episode_002/images/front")]
    [finding] = findings_of(root)
    assert f"image {row} (counted from 0) {30 - row} times" in finding["found"]


def test_camera_that_shows_a_robot_at_rest_is_not_frozen(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        if number == 2:
            values[30:] = values[30] + np.random.default_rng(0).normal(0, 1e-4, (30, 7))

    assert found(write_dataset(tmp_path / "raw", edit=edit, film=only(2, frozen_from(15)))) == []


def blacken(first: int) -> Any:
    def change(images: Any) -> Any:
        noise = np.random.default_rng(1).integers(0, 5, images[first:].shape)
        images[first:] = noise
        return images

    return change


@pytest.mark.parametrize("first", [0, 20])
def test_black_camera_is_named(tmp_path: Path, first: int) -> None:
    [finding] = findings_of(write_dataset(tmp_path / "raw", film=only(1, blacken(first))))
    assert (finding["episode"], finding["code"]) == ("task/episode_001", "image.blank")
    assert f"nearly black in image {first}" in finding["found"]


def test_camera_of_one_colour_is_named(tmp_path: Path) -> None:
    def blue(images: Any) -> Any:
        images[:] = (0, 0, 255)
        images[:, 0, 0] = np.arange(30)[:, None] * 8  # else the camera would be frozen too
        return images

    findings = findings_of(write_dataset(tmp_path / "raw", film=only(1, blue)))
    assert [f["code"] for f in findings if f["code"] == "image.blank"] == ["image.blank"]


@pytest.mark.parametrize("swapped", [(3,), (0,), (0, 4)])
def test_episodes_with_red_and_blue_exchanged_are_named(tmp_path: Path, swapped: tuple[int, ...]) -> None:
    root = write_dataset(tmp_path / "raw", film=lambda i, images: images[..., ::-1] if i in swapped else images)
    assert found(root) == [
        (f"task/episode_{i:03d}", "image.channels", f"task/episode_{i:03d}/images/front") for i in swapped
    ]


def test_scenes_of_other_colours_are_not_taken_for_exchanged(tmp_path: Path) -> None:
    def film(number: int, images: Any) -> Any:
        images[:, 8:40, 8:56] = ((220, 60, 30), (30, 60, 220), (40, 200, 40))[number % 3]
        images[:, 0, 0] = np.arange(30)[:, None] * 8
        return images

    codes = [code for _, code, _ in found(write_dataset(tmp_path / "raw", num_episodes=6, film=film))]
    assert "image.channels" not in codes


@pytest.mark.parametrize("options", [{}, {"image_storage": "raw"}, {"image_size": (32, 24)}])
def test_table_has_the_mean_colours_in_true_rgb(tmp_path: Path, options: dict[str, Any]) -> None:
    root = write_dataset(tmp_path / "raw", num_episodes=2, film=lambda _, images: images[..., ::-1])
    schema = SCHEMA.replace('kind = "images"', 'kind = "images"\nchannels = "bgr"')
    dataset = open_dataset(ingested(root, schema, **options))
    table = np.stack([dataset.column(f"front/{name}") for name in ("red", "green", "blue")], axis=1)
    assert np.abs(table - pictures(0, 1)[0].mean(axis=(0, 1))).max() < 6
    assert table[0, 2] > table[0, 0] + 50
