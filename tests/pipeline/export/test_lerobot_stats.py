"""Statistics as LeRobot computes them, against its formulas written down plainly: histograms that are counted whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlapipe.pipeline.export.lerobot_stats import PixelCounts, aggregate, sampled_rows, stats_of_rows

SHARES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def plain_quantile(values: NDArray[Any], share: float) -> Any:
    edges = np.linspace(values.min() - 1e-10, values.max() + 1e-10, 5001)
    counts, _ = np.histogram(values, bins=edges)
    below = np.cumsum(counts.astype(float))
    i = int(np.searchsorted(below, share * len(values)))
    if i == 0:
        return edges[0]
    return edges[i] + (share * len(values) - below[i - 1]) / (below[i] - below[i - 1]) * (edges[i + 1] - edges[i])


@pytest.mark.parametrize("seed", range(12))
def test_numbers_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(2, 300)), int(rng.integers(1, 5))
    values = [
        rng.normal(size=(count, width)).astype(np.float32),
        rng.integers(0, 3, (count, width)).astype(np.float32),  # many equal ones
        (1e4 + rng.normal(size=(count, width)) * 1e-3).astype(np.float32),  # bins narrower than float32
        np.zeros((count, width), dtype=np.float32),
        rng.normal(size=(count, width)),
        rng.integers(-5, 1000, (count, 1)),
    ][seed % 6]
    stats = stats_of_rows(values)
    np.testing.assert_array_equal(stats["mean"], np.mean(values, axis=0))
    for name, share in SHARES.items():
        wanted = np.array([plain_quantile(values[:, i], share) for i in range(values.shape[1])])
        np.testing.assert_array_equal(stats[name], wanted)
        assert stats[name].dtype == wanted.dtype
    assert stats["count"].tolist() == [count]


def test_one_row_is_its_own_quantiles() -> None:
    stats = stats_of_rows(np.array([[1.0, 2.0]], dtype=np.float32))
    assert {name: value.tolist() for name, value in stats.items()} == {
        **{name: [1.0, 2.0] for name in ("min", "max", "mean", *SHARES)},
        "std": [0.0, 0.0],
        "count": [1],
    }


@pytest.mark.parametrize("most", [2, 40, 256])
def test_pixels_are_counted_as_if_each_were_a_row(most: int) -> None:
    images = np.random.default_rng(most).integers(0, most, (3, 10, 14, 3), dtype=np.uint8)
    counts = PixelCounts()
    for image in images:
        counts.add(image)
    stats, pixels = counts.stats(), images.reshape(-1, 3)
    np.testing.assert_array_equal(stats["mean"].reshape(-1), np.mean(pixels, axis=0) / 255)
    np.testing.assert_allclose(stats["std"].reshape(-1), (pixels / 255).std(axis=0), rtol=1e-12)
    for name, share in SHARES.items():
        wanted = np.array([plain_quantile(pixels[:, i], share) for i in range(3)]) / 255
        np.testing.assert_array_equal(stats[name].reshape(-1), wanted)
    assert stats["max"].shape == (3, 1, 1)
    assert stats["count"].tolist() == [3]


def test_large_images_are_made_smaller_by_leaving_pixels_out() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    whole, smaller = PixelCounts(), PixelCounts()
    whole.add(image)
    smaller.add(image[::4, ::4].copy())
    for name, value in whole.stats().items():
        np.testing.assert_array_equal(value, smaller.stats()[name])


def test_all_rows_of_short_episodes_are_sampled_and_fewer_of_long_ones() -> None:
    assert sampled_rows(60) == list(range(60))
    assert len(sampled_rows(1000)) == 177
    assert (sampled_rows(1000)[0], sampled_rows(1000)[-1]) == (0, 999)


def test_statistics_of_parts_together_are_those_of_all() -> None:
    parts = [np.random.default_rng(i).normal(i, 1 + i, (20 + i, 2)) for i in range(3)]
    merged = None
    for part in parts:
        merged = aggregate(merged, {"x": stats_of_rows(part)})
    whole = np.concatenate(parts)
    assert merged is not None
    for name, wanted in (("mean", whole.mean(axis=0)), ("std", whole.std(axis=0)), ("max", whole.max(axis=0))):
        np.testing.assert_allclose(merged["x"][name], wanted)
    assert merged["x"]["count"].tolist() == [len(whole)]
