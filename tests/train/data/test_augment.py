"""Augmentation is a pure function of the seed and the sample's position; each part is compared to a slow reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.images.augment import Augmentation, Draw
from vlapipe.train.data.images.camera_reader import ImageReader

NOTHING = Augmentation(shift=0, rotation_deg=0, brightness=0, contrast=0, saturation=0)
TURNED = Augmentation(rotation_deg=5)
AS_IT_IS = Draw(top=0, left=0, side=1, angle_rad=0, brightness=1, contrast=1, saturation=1)
SIZE = (60, 90)
GOLDEN = (
    (
        0.036036343743970516,
        0.020604153469199655,
        0.95,
        0.048999604364485874,
        0.8264328163899488,
        0.8076572177317185,
        0.5114890359799357,
    ),
    (
        0.048418061445100816,
        0.003803623099827511,
        0.95,
        0.036731508053250414,
        0.8332546194715335,
        1.1319802545872302,
        1.3856197584917735,
    ),
)  # of the test below, seed 5, View1, positions 0 and 123456789


def draws_of(augmentation: Augmentation, positions: Any, *, seed: int = 0, camera: str = "View1") -> Any:
    return augmentation.of(np.asarray(positions, dtype=np.int64), seed=seed, camera=camera)


def vary(image: NDArray[np.uint8], draw: Draw, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    out = np.empty((1, *size, 3), dtype=np.uint8)
    ImageReader(size).resize([image], out, np.array([draw]))
    return out[0]


def noise(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def slope() -> NDArray[np.uint8]:
    """Red rises along x by 2 a pixel, green along y by 4, so that a pixel's colour tells its place."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([2 * x + 20, 4 * y + 10, np.full_like(x, 100)], axis=-1).astype(np.uint8)


def place_of(image: NDArray[np.uint8], row: int, column: int) -> tuple[float, float]:
    """(x, y) in the slope that a pixel comes from."""
    red, green, _ = image[row, column].tolist()
    return (red - 20) / 2, (green - 10) / 4


def test_a_sample_is_varied_alike_whatever_stands_beside_it() -> None:
    together = draws_of(Augmentation(), range(100), seed=7)
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(draws_of(Augmentation(), order, seed=7), together[order])
    np.testing.assert_array_equal(draws_of(Augmentation(), [42], seed=7)[0], together[42])


@pytest.mark.parametrize("other", [{"seed": 1}, {"positions": [6]}], ids=["seed", "position"])
def test_another_seed_or_position_is_varied_in_another_way(other: dict[str, Any]) -> None:
    here, there = (draws_of(TURNED, **{"positions": [5], **more})[0] for more in ({}, other))
    assert (np.delete(here, 2) != np.delete(there, 2)).all()  # but for the box's side


def test_views_of_a_sample_share_the_colour_and_are_cut_each_in_its_own_way() -> None:
    here, there = (Draw(*draws_of(TURNED, [5], camera=camera)[0]) for camera in ("View1", "View2"))
    assert here[4:] == there[4:]
    assert all(a != b for a, b in zip(here[:2] + here[3:4], there[:2] + there[3:4], strict=True))


def test_draws_of_this_version_are_those_of_the_last() -> None:
    """A run that is resumed with a newer version must go on as it began."""
    amounts = {"rotation_deg": 5, "brightness": 0.3, "contrast": 0.4, "saturation": 0.5}
    draws = Augmentation(shift=0, crop=0.95, **amounts).of(np.array([0, 123_456_789]), seed=5, camera="View1")
    np.testing.assert_allclose(draws, GOLDEN, rtol=0, atol=1e-12)


def test_draws_fill_their_ranges_evenly_and_independently() -> None:
    draws = draws_of(
        Augmentation(shift=0.1, crop=0.8, rotation_deg=10, brightness=0.2, contrast=0.4, saturation=0.6), range(20_000)
    )
    least = [-0.1, -0.1, 0.8, -math.radians(10), 0.8, 0.6, 0.4]
    most = [0.3, 0.3, 0.8, math.radians(10), 1.2, 1.4, 1.6]
    assert (draws >= least).all()
    assert (draws <= most).all()
    drawn = np.delete(draws, 2, axis=1)
    parts = (drawn - np.delete(least, 2)) / (np.delete(most, 2) - np.delete(least, 2))
    for column in parts.T:
        counts = np.histogram(column, bins=10, range=(0, 1))[0]
        assert (np.abs(counts - 2000) < 250).all()  # six standard deviations
    assert np.abs(np.corrcoef(parts.T) - np.eye(6)).max() < 0.04


def test_neutral_fields_change_nothing() -> None:
    draws = draws_of(NOTHING, range(3))
    images = np.stack([noise(seed) for seed in range(3)])
    out = np.empty_like(images)
    ImageReader(SIZE).resize(images, out, draws)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("shift", -0.1, "from 0 to 0.5"),
        ("crop", 0, "from 0.1 to 1"),
        ("crop", 1.5, "from 0.1 to 1"),
        ("rotation_deg", -5, "from 0 to 45"),
        ("rotation_deg", 360, "from 0 to 45"),
        ("brightness", 1, "from 0 to 0.9"),
        ("contrast", math.nan, "from 0 to 0.9"),
        ("saturation", "0.5", "from 0 to 1"),
        ("saturation", True, "from 0 to 1"),
    ],
)
def test_a_field_out_of_its_range_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=f"Augmentation {name}: expected a number {expected}, found {value!r}"):
        Augmentation(**{name: value})


def test_a_table_sets_some_fields_and_leaves_the_others() -> None:
    assert Augmentation.from_table({"crop": 0.9}, "[augmentation]") == Augmentation(crop=0.9)


def test_an_unknown_name_in_a_table_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^\[augmentation\]: unknown option 'color' \(known: brightness, contrast"):
        Augmentation.from_table({"color": 0.1}, "[augmentation]")
    with pytest.raises(UsageError, match="did you mean 'rotation_deg'"):
        Augmentation.from_table({"rotation": 5}, "[augmentation]")


@pytest.mark.parametrize("angle_rad", [0.0, 1e-9], ids=["cut", "turned by nothing"])
def test_a_box_is_brought_back_to_the_whole_size(angle_rad: float) -> None:
    draw = AS_IT_IS._replace(top=0.1, left=0.2, side=0.7, angle_rad=angle_rad)  # rows 6 to 48, columns 18 to 81
    image = vary(slope(), draw)
    for row, column in ((5, 5), (30, 45), (54, 84), (10, 80)):
        x, y = place_of(image, row, column)
        assert x == pytest.approx(18 + (column + 0.5) * 0.7 - 0.5, abs=0.3)
        assert y == pytest.approx(6 + (row + 0.5) * 0.7 - 0.5, abs=0.2)


@pytest.mark.parametrize("angle_deg", [-20, -5, 5, 20])
def test_a_box_is_turned_about_its_centre(angle_deg: float) -> None:
    angle = math.radians(angle_deg)
    draw = AS_IT_IS._replace(top=0.2, left=0.3, side=0.5, angle_rad=angle)
    image = vary(slope(), draw)
    centre_x, centre_y = 90 * 0.55, 60 * 0.45
    for row, column in ((5, 5), (30, 45), (54, 84), (10, 80)):
        across, down = (column + 0.5 - 45) * 0.5, (row + 0.5 - 30) * 0.5
        x, y = place_of(image, row, column)
        assert x == pytest.approx(centre_x + across * math.cos(angle) - down * math.sin(angle) - 0.5, abs=0.3)
        assert y == pytest.approx(centre_y + across * math.sin(angle) + down * math.cos(angle) - 0.5, abs=0.2)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-9], ids=["cut", "turned by nothing"])
def test_a_shift_moves_all_and_enlarges_nothing(angle_rad: float) -> None:
    image = vary(slope(), AS_IT_IS._replace(top=-0.1, left=0.1, angle_rad=angle_rad))  # 6 rows down, 9 columns left
    for row, column in ((0, 0), (3, 40), (30, 45), (59, 80), (59, 89)):
        x, y = place_of(image, row, column)
        assert x == pytest.approx(min(column + 9, 89), abs=0.3)
        assert y == pytest.approx(max(row - 6, 0), abs=0.2)


@pytest.mark.parametrize("top", [-0.5, -0.1, 0.0, 0.1, 0.5])
@pytest.mark.parametrize("left", [-0.5, -0.1, 0.0, 0.1, 0.5])
def test_pixels_of_a_shifted_box_are_the_nearest_of_the_image(top: float, left: float) -> None:
    image = noise()
    rows, columns = (np.arange(60) + round(top * 60)).clip(0, 59), (np.arange(90) + round(left * 90)).clip(0, 89)
    np.testing.assert_array_equal(vary(image, AS_IT_IS._replace(top=top, left=left)), image[rows][:, columns])


@pytest.mark.parametrize(("top", "row"), [(-0.5, 0), (1.4, 59)])
@pytest.mark.parametrize(("left", "column"), [(-0.5, 0), (1.4, 89)])
def test_a_box_outside_the_image_has_the_colour_of_the_nearest_pixel(
    top: float, row: int, left: float, column: int
) -> None:
    image = noise()
    assert (vary(image, AS_IT_IS._replace(top=top, left=left, side=0.1)) == image[row, column]).all()


def test_depth_is_shifted_like_the_colours() -> None:
    depth = np.arange(60 * 90, dtype=np.uint16).reshape(1, 60, 90, 1)
    out = np.empty_like(depth)
    ImageReader(SIZE, is_depth=True).resize(depth, out, np.array([AS_IT_IS._replace(top=-0.1, left=0.1)]))
    np.testing.assert_array_equal(out[0, 6:, :-9], depth[0, :-6, 9:])
    np.testing.assert_array_equal(out[0, 0, :-9], depth[0, 0, 9:])
    np.testing.assert_array_equal(out[0, 6:, -1], depth[0, :-6, -1])


def test_beyond_the_image_its_edge_is_repeated() -> None:
    white = np.full((*SIZE, 3), 200, dtype=np.uint8)
    assert (vary(white, AS_IT_IS._replace(angle_rad=0.7)) == 200).all()


def test_colours_are_those_of_brightness_then_contrast_then_saturation() -> None:
    image = noise()
    brightness, contrast, saturation = 1.2, 0.7, 1.4
    expected = image.astype(np.float64) * brightness
    expected = (expected - 127.5) * contrast + 127.5
    gray = expected @ (0.299, 0.587, 0.114)
    expected = (expected - gray[..., None]) * saturation + gray[..., None]
    draw = AS_IT_IS._replace(brightness=brightness, contrast=contrast, saturation=saturation)
    assert np.abs(vary(image, draw) - np.clip(expected, 0, 255)).max() <= 0.51


def test_bright_pixels_stay_bright() -> None:
    image = np.full((*SIZE, 3), (250, 128, 3), dtype=np.uint8)
    assert vary(image, AS_IT_IS._replace(brightness=1.5))[0, 0].tolist() == [255, 192, 5]


def test_without_saturation_an_image_is_gray() -> None:
    image = vary(noise(), AS_IT_IS._replace(saturation=0.0))
    assert (image == image[..., :1]).all()


def test_a_turned_box_keeps_its_colours() -> None:
    image = np.full((*SIZE, 3), (200, 100, 40), dtype=np.uint8)
    colour = AS_IT_IS._replace(brightness=0.9, contrast=1.3, saturation=0.6)
    turned = vary(image, colour._replace(top=0.02, left=0.01, side=0.95, angle_rad=0.08))
    np.testing.assert_array_equal(turned, vary(image, colour))


@pytest.mark.parametrize("angle_rad", [0.0, 1e-9], ids=["cut", "turned by nothing"])
def test_a_larger_image_is_cut_and_brought_to_the_training_size(angle_rad: float) -> None:
    large = slope().repeat(3, axis=0).repeat(3, axis=1)
    draw = AS_IT_IS._replace(top=0.1, left=0.2, side=0.7, angle_rad=angle_rad)
    difference = np.abs(vary(large, draw).astype(int) - vary(slope(), draw))
    assert difference.max() <= 4  # a pixel of the slope in y
