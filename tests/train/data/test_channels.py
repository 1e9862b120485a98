"""Images whose files have red and blue exchanged train in true RGB, alone and beside images that are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, ingested, pictures, write_dataset

import vlapipe
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import NewerFormatError, UsageError
from vlapipe.schemas.parse import parse_schema

BGR = SCHEMA.replace('kind = "images"', 'kind = "images"\nchannels = "bgr"')
SIZE = (48, 64)


def colours(datasets: list[Any]) -> Any:
    """The mean red, green and blue of every sample, ``(N, 3)``."""
    loader = vlapipe.Loader(datasets, batch_size=64, image_size=SIZE, split=None, shuffle=False)
    means = [batch["observation.images.front"].float().mean((1, 3, 4)) for batch in loader]
    return np.concatenate([mean.numpy() for mean in means])


@pytest.mark.parametrize("options", [{}, {"image_storage": "raw"}, {"image_size": (32, 24)}])
def test_exchanged_files_train_as_the_same_pictures(tmp_path: Path, options: dict[str, Any]) -> None:
    right = write_dataset(tmp_path / "right", num_episodes=2)
    swapped = write_dataset(tmp_path / "swapped", num_episodes=2, film=lambda _, images: images[..., ::-1])
    datasets = [open_dataset(ingested(right, **options)), open_dataset(ingested(swapped, BGR, **options))]
    joined = colours(datasets)
    ours, theirs = joined[: len(joined) // 2], joined[len(joined) // 2 :]
    np.testing.assert_allclose(ours, theirs, atol=1.5)
    assert np.abs(theirs - pictures(0, 1)[0].mean((0, 1))).max() < 6
    np.testing.assert_array_equal(colours(datasets[1:]), theirs)


def test_stored_files_stay_byte_for_byte_and_the_manifest_tells_their_order(tmp_path: Path) -> None:
    swapped = write_dataset(tmp_path / "swapped", num_episodes=1, film=lambda _, images: images[..., ::-1])
    data = ingested(swapped, BGR)
    dataset = open_dataset(data)
    first = min((swapped / "task" / "episode_000" / "images" / "front").iterdir())
    assert dataset.episode(0).jpeg("front", 0) == first.read_bytes()
    document = json.loads((data / "manifest.json").read_text())
    assert document["streams"]["front"]["channels"] == "bgr"
    assert document["format_version"] == 3  # an older vlapipe would show red as blue


def test_pixels_are_stored_in_true_rgb_which_every_reader_knows(tmp_path: Path) -> None:
    swapped = write_dataset(tmp_path / "swapped", num_episodes=1, film=lambda _, images: images[..., ::-1])
    document = json.loads((ingested(swapped, BGR, image_storage="raw") / "manifest.json").read_text())
    assert (document["streams"]["front"]["channels"], document["format_version"]) == ("rgb", 2)


def test_newer_format_than_this_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "vlapipe", "format_version": 6}')
    with pytest.raises(NewerFormatError, match="reads up to 5"):
        open_dataset(tmp_path)


def test_other_order_of_colours_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"channels: unknown value 'gbr' \(did you mean 'rgb'"):
        parse_schema(BGR.replace('"bgr"', '"gbr"'), "mine.toml")
