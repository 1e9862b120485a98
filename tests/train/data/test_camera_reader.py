"""Images in a batch are exact without resizing, close to a slow reference otherwise, and the same for any threads."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import DamageError, ImageError, UsageError
from vlapipe.train.data.arguments import FITS, Fit
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.images.camera_reader import ImageReader
from vlapipe.train.data.images.resize import resized
from vlapipe.train.data.loader import Loader

RECORDED = (120, 160)
TWO_ROUNDINGS = 1.01  # down the columns and along the rows
TURNED = Augmentation().of(np.arange(6), seed=0)
CUT = Augmentation(rotation_deg=0).of(np.arange(6), seed=0)


def make_pixels(seed: int, height: int = RECORDED[0], width: int = RECORDED[1]) -> NDArray[np.uint8]:
    """Soft waves with an edge, as cameras see: neither flat nor noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [128 + 90 * np.sin((3 + seed % 5) * x + (2 + channel) * 4 * y + seed) for channel in range(3)]
    pixels = np.stack(waves, axis=-1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 60)
    return pixels.astype(np.uint8)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95, colorsubsampling="444")
    return jpeg


def read(jpegs: list[bytes], size: tuple[int, int], draws: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    out = np.empty((len(jpegs), *size, 3), dtype=np.uint8)
    ImageReader(size).read(jpegs, out, draws)
    return out


def reference(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """The full-size image resized in float32, far from any fast path."""
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
    result: NDArray[np.float32] = resized[0].permute(1, 2, 0).numpy()
    return result


def test_images_of_the_training_size_are_what_the_decoder_gives_in_their_place_alone() -> None:
    jpegs = [encode(make_pixels(seed)) for seed in range(3)]
    batch = np.full((5, *RECORDED, 3), 7, dtype=np.uint8)
    ImageReader(RECORDED).read(jpegs, batch[1:4])
    for jpeg, image in zip(jpegs, batch[1:4], strict=True):
        np.testing.assert_array_equal(image, simplejpeg.decode_jpeg(jpeg))
    assert (batch[[0, 4]] == 7).all()


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_size_the_decoder_can_give_needs_no_resizing(scale: int) -> None:
    size = RECORDED[0] // scale, RECORDED[1] // scale
    jpeg = encode(make_pixels(1))
    expected = simplejpeg.decode_jpeg(jpeg, min_height=size[0], min_width=size[1])
    assert expected.shape == (*size, 3)
    np.testing.assert_array_equal(read([jpeg], size)[0], expected)


@pytest.mark.parametrize("size", [(112, 112), (61, 80), (60, 79), (59, 79), (45, 45), (20, 120), (13, 17), (1, 1)])
def test_other_sizes_are_close_to_a_full_size_decode_then_a_resize(size: tuple[int, int]) -> None:
    jpeg = encode(make_pixels(2))
    expected = reference(simplejpeg.decode_jpeg(jpeg), size)
    difference = np.abs(read([jpeg], size)[0] - expected)
    assert difference.mean() < 2.5
    assert difference.max() < 60  # at the corners of the edge, by half a pixel


@pytest.mark.parametrize("size", [(61, 80), (60, 81), (119, 159)])
def test_nothing_is_decoded_below_the_training_size(size: tuple[int, int]) -> None:
    jpeg = encode(make_pixels(3))
    assert np.abs(read([jpeg], size)[0] - reference(simplejpeg.decode_jpeg(jpeg), size)).max() < TWO_ROUNDINGS


def test_images_smaller_than_the_training_size_are_enlarged() -> None:
    jpeg = encode(make_pixels(4, 48, 64))
    assert np.abs(read([jpeg], RECORDED)[0] - reference(simplejpeg.decode_jpeg(jpeg), RECORDED)).max() < TWO_ROUNDINGS


def test_images_of_several_sizes_may_stand_side_by_side() -> None:
    jpegs = [encode(make_pixels(seed, *size)) for seed, size in enumerate([(48, 64), (120, 160), (60, 80), (240, 200)])]
    together = read(jpegs, (60, 80))
    for jpeg, image in zip(jpegs, together, strict=True):
        np.testing.assert_array_equal(image, read([jpeg], (60, 80))[0])


def test_gray_images_become_rgb() -> None:
    gray = make_pixels(5)[..., :1]
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(gray), colorspace="GRAY", colorsubsampling="Gray", quality=95)
    image = read([jpeg], RECORDED)[0]
    assert (image == image[..., :1]).all()
    assert np.abs(image[..., :1].astype(int) - gray).mean() < 3


@pytest.mark.parametrize("draws", [None, TURNED[:3]], ids=["plain", "varied"])
@pytest.mark.parametrize(
    "spoil",
    [lambda jpeg: jpeg[: len(jpeg) // 2], lambda jpeg: jpeg[:2], lambda jpeg: jpeg[:0], lambda jpeg: jpeg[2:]],
    ids=["cut short", "a start alone", "empty", "no start"],
)
def test_an_unreadable_image_is_named_by_its_place(
    spoil: Callable[[bytes], bytes], draws: NDArray[np.float64] | None
) -> None:
    jpegs = [encode(make_pixels(seed)) for seed in range(3)]
    jpegs[1] = spoil(jpegs[1])
    with pytest.raises(ImageError, match=r"\w") as caught:
        read(jpegs, RECORDED, draws)
    assert isinstance(caught.value, DamageError)
    assert caught.value.index == 1
    sent = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (str(sent), sent.index) == (str(caught.value), 1)


def test_stored_pixels_of_the_training_size_pass_through() -> None:
    images = np.stack([make_pixels(seed) for seed in range(2)])
    out = np.empty_like(images)
    ImageReader(RECORDED).resize(images, out)
    np.testing.assert_array_equal(out, images)


@pytest.mark.filterwarnings("error")
def test_stored_pixels_on_a_map_that_cannot_be_written_are_resized() -> None:
    images = np.stack([make_pixels(seed) for seed in range(2)])
    images.setflags(write=False)
    out = np.empty((2, 50, 70, 3), dtype=np.uint8)
    ImageReader((50, 70)).resize(images, out)
    for image, found in zip(images, out, strict=True):
        assert np.abs(found - reference(image, (50, 70))).max() < TWO_ROUNDINGS


@pytest.mark.parametrize("draws", [CUT, TURNED], ids=["cut", "turned"])
def test_images_are_varied_alike_as_jpeg_and_as_pixels(draws: NDArray[np.float64]) -> None:
    jpegs = [encode(make_pixels(seed)) for seed in range(6)]
    out = np.empty((6, *RECORDED, 3), dtype=np.uint8)
    ImageReader(RECORDED).resize([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs], out, draws)
    assert (out != read(jpegs, RECORDED)).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(read(jpegs, RECORDED, draws), out)


@pytest.mark.parametrize("draws", [CUT, TURNED], ids=["cut", "turned"])
def test_stored_pixels_are_varied_in_place_as_elsewhere(draws: NDArray[np.float64]) -> None:
    images = np.stack([make_pixels(seed) for seed in range(6)])
    elsewhere, reader = np.empty_like(images), ImageReader(RECORDED)
    reader.resize(images, elsewhere, draws)
    assert (elsewhere != images).any(axis=(1, 2, 3)).all()
    reader.resize(images, images, draws)
    np.testing.assert_array_equal(images, elsewhere)


@pytest.mark.parametrize("size", [RECORDED, (56, 72)], ids=["as recorded", "resized"])
@pytest.mark.parametrize("draws", [None, CUT, TURNED], ids=["plain", "cut", "turned"])
def test_threads_that_share_a_reader_do_not_disturb_each_other(
    size: tuple[int, int], draws: NDArray[np.float64] | None
) -> None:
    jpegs = [encode(make_pixels(seed)) for seed in range(6)]
    alone = read(jpegs, size, draws)
    reader = ImageReader(size)

    def read_all(_: int) -> NDArray[np.uint8]:
        out = np.empty((6, *size, 3), dtype=np.uint8)
        reader.read(jpegs, out, draws)
        return out

    with ThreadPoolExecutor(4) as threads:
        for out in threads.map(read_all, range(16)):
            np.testing.assert_array_equal(out, alone)


@pytest.mark.parametrize("draws", [None, CUT, TURNED], ids=["plain", "cut", "turned"])
def test_reading_starts_no_threads_of_its_own_and_gives_the_same_with_any_number_of_torch_s(
    draws: NDArray[np.float64] | None,
) -> None:
    draws = draws if draws is None else draws[:2]
    jpegs = [encode(make_pixels(seed, 480, 640)) for seed in range(2)]
    expected = read(jpegs, (300, 400), draws)
    started: list[int] = []

    def run() -> None:
        torch.zeros(1).add_(1)  # what torch starts for itself
        before = os.listdir("/proc/self/task")  # noqa: PTH208 - names alone
        np.testing.assert_array_equal(read(jpegs, (300, 400), draws), expected)
        started.append(len({*os.listdir("/proc/self/task")} - {*before}))  # noqa: PTH208

    torch.set_num_threads(4)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(1)
    assert started == [0]


# --- another shape ----------------------------------------------------------------------------------------------------

WIDE = np.zeros((60, 120, 3), dtype=np.uint8)  # red in the left third, green in the middle, blue in the right
WIDE[:, :40, 0] = WIDE[:, 40:80, 1] = WIDE[:, 80:, 2] = 200


def fit(image: NDArray[np.uint8], size: tuple[int, int], how: Fit, *, as_jpeg: bool) -> NDArray[np.uint8]:
    out = np.full((1, *size, 3), 77, dtype=np.uint8)
    if as_jpeg:
        ImageReader(size, how).read([encode(image)], out)
    else:
        ImageReader(size, how).resize([image], out)
    return out[0]


@pytest.mark.parametrize("as_jpeg", [True, False], ids=["jpeg", "pixels"])
def test_stretched_cropped_and_padded_images_show_what_they_say(as_jpeg: bool) -> None:
    stretched, cropped, padded = (fit(WIDE, (30, 30), how, as_jpeg=as_jpeg) for how in FITS)
    assert [stretched[15, x].argmax() for x in (1, 15, 28)] == [0, 1, 2]
    # The middle 60 of 120 columns: 10 of red, 40 of green, 10 of blue.
    assert [cropped[15, x].argmax() for x in (1, 8, 15, 22, 28)] == [0, 1, 1, 1, 2]
    assert abs(int((cropped[15, :, 0] > 100).sum()) - 5) <= 1
    # All of it in the middle half of the rows, black above and below.
    assert (padded[:7] == 0).all()
    assert (padded[23:] == 0).all()
    assert [padded[15, x].argmax() for x in (1, 15, 28)] == [0, 1, 2]
    assert padded[8:22].max(axis=2).min() > 60


@pytest.mark.parametrize("how", ["crop", "pad"])
@pytest.mark.parametrize("size", [(30, 60), (60, 120), (10, 20), (90, 180)])
def test_an_image_of_the_same_proportions_is_the_same_in_each_way(size: tuple[int, int], how: Fit) -> None:
    image = make_pixels(3, 60, 120)
    for as_jpeg in (True, False):
        expected = fit(image, size, "stretch", as_jpeg=as_jpeg)
        np.testing.assert_array_equal(fit(image, size, how, as_jpeg=as_jpeg), expected)


@settings(max_examples=60, deadline=None)
@given(
    recorded=st.tuples(st.integers(1, 90), st.integers(1, 90)), size=st.tuples(st.integers(1, 60), st.integers(2, 60))
)
def test_crop_and_pad_are_a_slow_reference_for_every_size(recorded: tuple[int, int], size: tuple[int, int]) -> None:
    image = make_pixels(4, *recorded)
    (height, width), (rows, columns) = recorded, size
    scale = max(rows / height, columns / width)
    kept = max(1, round(rows / scale)), max(1, round(columns / scale))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    middle = image[top : top + kept[0], left : left + kept[1]]
    assert middle.shape[:2] == kept  # never beyond the image
    assert np.abs(resized(image, size, "crop") - reference(middle, size)).max() <= TWO_ROUNDINGS
    scale = min(rows / height, columns / width)
    shown = max(1, round(height * scale)), max(1, round(width * scale))
    assume(shown[1] > 1)  # torch's float32 filter is wrong for images that become one column wide
    expected = np.zeros((*size, 3), dtype=np.float32)
    top, left = (rows - shown[0]) // 2, (columns - shown[1]) // 2
    expected[top : top + shown[0], left : left + shown[1]] = reference(image, shown)
    assert np.abs(resized(image, size, "pad") - expected).max() <= TWO_ROUNDINGS


@pytest.mark.parametrize("draws", [CUT, TURNED], ids=["cut", "turned"])
def test_a_padded_image_is_varied_within_its_border(draws: NDArray[np.float64]) -> None:
    out = np.full((6, 30, 30, 3), 77, dtype=np.uint8)
    ImageReader((30, 30), "pad").resize([WIDE] * 6, out, draws)
    assert (out[:, :7] == 0).all()
    assert (out[:, 23:] == 0).all()
    assert out[:, 9:21].max(axis=3).min() > 20


def test_a_loader_brings_images_to_a_size_as_it_is_told(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)  # 24 high, 32 wide
    arguments: dict[str, Any] = {"num_workers": 0, "batch_size": 2, "shuffle": False}
    [whole, *_] = Loader(dataset, **arguments)
    for how in FITS:
        loader = Loader(dataset, image_size=(16, 16), image_resize=how, **arguments)
        assert loader.spec.image_resize == how
        found = next(iter(loader))["observation.images.View1"][0, 0].permute(1, 2, 0).numpy()
        frame = whole["observation.images.View1"][0, 0].permute(1, 2, 0).numpy()
        assert np.abs(found.astype(int) - resized(np.ascontiguousarray(frame), (16, 16), how)).mean() < 6
    assert Loader(dataset, image_size="32x24", **arguments).spec.images["View1"] == (1, 3, 24, 32)  # width x height


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"image_size": (8, 8), "image_resize": "cut"}, "Loader image_resize 'cut': unknown (known: crop, pad"),
        ({"image_resize": "crop"}, "Loader image_resize 'crop': to which size? (add image_size"),
        ({"image_size": "8"}, "Loader image_size: expected (height, width), or 'WIDTHxHEIGHT', found '8'"),
    ],
)
def test_a_size_that_is_none_is_refused(tiny_dataset: Path, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Loader(open_dataset(tiny_dataset), **arguments)
    assert expected in str(refusal.value)
