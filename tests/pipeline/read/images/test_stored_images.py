"""Images resized at ingest equal what training would make of the files, and keep their colour resolution."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from factories import make_jpeg
from jpeg_variants import flat_jpeg, with_exif
from numpy.typing import NDArray

from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.read.images.jpeg import read_jpeg_header
from vlapipe.pipeline.read.images.stored_images import decode_into, made_again


def as_array(jpeg: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(jpeg, dtype=np.uint8)


def shrink_jpeg(jpeg: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    header = read_jpeg_header(jpeg.tobytes())
    return made_again(jpeg, (header.width, header.height), ImageOptions(size=size))


def pixels_at(jpeg: bytes, width: int, height: int) -> NDArray[np.uint8]:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    decode_into(as_array(jpeg), pixels)
    return pixels


def triangle(num_in: int, num_out: int) -> NDArray[np.float64]:
    """Weights ``(num_out, num_in)`` of a triangle filter, as wide as the step where that is more than a pixel."""
    step = num_in / num_out
    centre = (np.arange(num_out)[:, None] + 0.5) * step
    weight = np.maximum(0, 1 - np.abs(np.arange(num_in) + 0.5 - centre) / max(step, 1))
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [(100, 90, 2), (75, 60, 4), (40, 11, 8), (224, 224, 1), (37, 240, 1), (319, 5, 1), (500, 480, 1)],
)
def test_pixels_are_those_of_an_antialiased_resize_from_the_nearest_scale(width: int, height: int, scale: int) -> None:
    jpeg = make_jpeg(3, height=240, width=320)
    scaled = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", min_height=240 // scale, min_width=320 // scale)
    assert scaled.shape == (240 // scale, 320 // scale, 3)
    rows, columns = triangle(scaled.shape[0], height), triangle(scaled.shape[1], width)
    expected = np.stack([rows @ scaled[..., channel] @ columns.T for channel in range(3)], axis=-1)
    assert np.abs(pixels_at(jpeg, width, height) - expected).max() <= 1.5  # each of two passes rounds


@pytest.mark.parametrize(
    ("width", "height"),
    [(224, 224), (96, 72), (800, 600), (300, 300), (400, 300), (240, 180), (560, 420)],  # the last four: n/8 is nearer
)
def test_pixels_are_those_that_training_makes(width: int, height: int) -> None:
    pytest.importorskip("torch")
    from vlapipe.train.data.images.camera_reader import ImageReader

    jpeg = make_jpeg(4, height=480, width=640)
    trained_on = np.empty((1, height, width, 3), dtype=np.uint8)
    ImageReader((height, width)).read([jpeg], trained_on)
    difference = np.abs(pixels_at(jpeg, width, height).astype(int) - trained_on[0])
    assert difference.max() <= 2  # both round between their two passes
    assert difference.mean() < 0.2


def test_image_of_the_size_itself_is_decoded_exactly() -> None:
    jpeg = make_jpeg(5)
    assert np.array_equal(pixels_at(jpeg, 32, 24), simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))


def test_shrunk_jpeg_is_baseline_of_that_size_and_close_to_the_resized_pixels() -> None:
    jpeg = make_jpeg(6, height=240, width=320)
    small = shrink_jpeg(as_array(jpeg), (112, 96))
    header = read_jpeg_header(small)
    assert (header.width, header.height, header.num_components, header.is_progressive) == (112, 96, 3, False)
    error = simplejpeg.decode_jpeg(small, colorspace="RGB").astype(float) - pixels_at(jpeg, 112, 96)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 34


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_shrunk_jpeg_has_the_colour_resolution_of_the_file(subsampling: str) -> None:
    pixels = simplejpeg.decode_jpeg(make_jpeg(8, height=240, width=320))
    jpeg = simplejpeg.encode_jpeg(pixels, colorsubsampling=subsampling)
    for size in ((112, 96), (400, 300)):
        small = shrink_jpeg(as_array(jpeg), size)
        assert simplejpeg.decode_jpeg_header(small) == (size[1], size[0], "YCbCr", subsampling)


@pytest.mark.parametrize("samplings", [(0x42, 0x11, 0x11), (0x31, 0x11, 0x11), (0x14, 0x11, 0x11)])
def test_colour_that_no_encoder_here_can_subsample_alike_is_kept_whole(samplings: tuple[int, ...]) -> None:
    jpeg = flat_jpeg(48, 64, samplings)
    small = shrink_jpeg(as_array(jpeg), (16, 12))
    assert simplejpeg.decode_jpeg_header(small) == (12, 16, "YCbCr", "444")
    assert (simplejpeg.decode_jpeg(small) == 128).all()


def test_shrunk_jpeg_keeps_all_colour_of_a_file_that_has_it() -> None:
    """Stripes two pixels apart that a JPEG with colour at half the resolution would mix."""
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:] = (200, 60, 60)
    image[:, 8::16] = image[:, 9::16] = image[:, 10::16] = image[:, 11::16] = (60, 130, 60)
    jpeg = simplejpeg.encode_jpeg(image, quality=100, colorsubsampling="444")
    size = (32, 24)
    error = simplejpeg.decode_jpeg(shrink_jpeg(as_array(jpeg), size), colorspace="RGB").astype(int)
    error -= pixels_at(jpeg, *size)
    assert np.abs(error).max() <= 24


def gray_ramp() -> bytes:
    ramp = np.ascontiguousarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1)))[..., None]
    jpeg: bytes = simplejpeg.encode_jpeg(ramp, colorspace="GRAY", colorsubsampling="Gray")
    return jpeg


def test_grayscale_becomes_three_equal_channels() -> None:
    jpeg = gray_ramp()
    for pixels in (
        pixels_at(jpeg, 20, 20),
        simplejpeg.decode_jpeg(shrink_jpeg(as_array(jpeg), (20, 20)), colorspace="RGB"),
    ):
        assert (pixels == pixels[..., :1]).all()
        assert np.diff(pixels[10, :, 0].astype(int)).min() > 0


def test_grayscale_is_stored_as_one_plane_of_the_same_values() -> None:
    pixels = pixels_at(gray_ramp(), 40, 30)
    small = shrink_jpeg(as_array(gray_ramp()), (40, 30))
    assert read_jpeg_header(small).num_components == 1
    in_colour = simplejpeg.encode_jpeg(pixels, quality=95, colorsubsampling="420")
    assert len(small) < len(in_colour)
    assert np.array_equal(simplejpeg.decode_jpeg(small), simplejpeg.decode_jpeg(in_colour))


def test_exif_turns_nothing_as_it_turns_nothing_in_training() -> None:
    jpeg = make_jpeg(7)
    assert np.array_equal(pixels_at(with_exif(jpeg, 6), 32, 24), pixels_at(jpeg, 32, 24))
    assert shrink_jpeg(as_array(with_exif(jpeg, 6)), (16, 12)) == shrink_jpeg(as_array(jpeg), (16, 12))
