"""Reading a JPEG's header: size, colours, coding, orientation. A truncated file is never taken for a complete one."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import simplejpeg
from factories import make_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_variants import with_exif, with_frame, with_size

from vlapipe.pipeline.read.images.jpeg import JpegHeader, read_jpeg_header

WHOLE = make_jpeg(0)


def test_color_image_is_plain() -> None:
    assert read_jpeg_header(WHOLE)[:7] == JpegHeader(24, 32, 3)[:7]
    assert read_jpeg_header(WHOLE).odd_coding is None


def test_gray_image_has_one_component() -> None:
    gray = simplejpeg.encode_jpeg(np.zeros((16, 24, 1), dtype=np.uint8), colorspace="GRAY", colorsubsampling="Gray")
    assert read_jpeg_header(gray)[:7] == JpegHeader(16, 24, 1)[:7]


def test_cmyk_image_is_odd() -> None:
    cmyk = simplejpeg.encode_jpeg(np.zeros((16, 24, 4), dtype=np.uint8), colorspace="CMYK", colorsubsampling="444")
    header = read_jpeg_header(cmyk)
    assert header.num_components == 4
    assert header.odd_coding == "4 colour components (CMYK or YCCK)"


@pytest.mark.parametrize(
    ("process", "precision", "found"),
    [
        (0xC1, 8, None),
        (0xC2, 8, None),
        (0xC1, 12, "12 bits a sample"),
        (0xC0, 16, "16 bits a sample"),
        (0xC3, 8, "lossless coding"),
        (0xC5, 8, "hierarchical coding"),
        (0xC9, 8, "arithmetic coding"),
        (0xCA, 8, "arithmetic coding"),
        (0xCB, 16, "lossless coding"),
    ],
)
def test_coding_is_told_by_the_frame(process: int, precision: int, found: str | None) -> None:
    header = read_jpeg_header(with_frame(WHOLE, process=process, precision=precision))
    assert header.odd_coding == found
    assert header.is_progressive == (process == 0xC2)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_orientation_is_read_in_both_byte_orders(order: str, orientation: int) -> None:
    assert read_jpeg_header(with_exif(WHOLE, orientation, order)).orientation == orientation


@pytest.mark.parametrize("segment", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"http://ns.adobe.com/xap"])
def test_damaged_or_other_segment_turns_nothing(segment: bytes) -> None:
    jpeg = WHOLE[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + WHOLE[2:]
    assert read_jpeg_header(jpeg).orientation == 1


def test_image_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no size"):
        read_jpeg_header(with_size(WHOLE, 0, 32))


def test_padding_and_a_second_image_after_the_end_are_passed_over() -> None:
    for tail in (bytes(16), b"\xff" * 3, WHOLE[: len(WHOLE) // 2] + b"..", WHOLE):
        assert read_jpeg_header(WHOLE + tail).height == 24


def test_image_cut_by_the_next_one_is_no_whole_image() -> None:
    with pytest.raises(ValueError, match="cut short"):
        read_jpeg_header(WHOLE[:-40] + WHOLE + bytes(4))


@pytest.mark.parametrize("cut", range(3, 100, 7))
def test_cut_file_is_never_taken_for_a_whole_one(cut: int) -> None:
    with pytest.raises(ValueError, match=r"cut short|not a JPEG|no marker|no size"):
        read_jpeg_header(WHOLE[: len(WHOLE) * cut // 100])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (480, 640), (17, 33)])
def test_size_equals_the_decoders(height: int, width: int) -> None:
    jpeg = simplejpeg.encode_jpeg(np.zeros((height, width, 3), dtype=np.uint8))
    header = read_jpeg_header(jpeg)
    assert simplejpeg.decode_jpeg_header(jpeg)[:2] == (header.height, header.width)


@given(st.binary(max_size=200), st.integers(0, len(WHOLE) - 1))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_header_or_an_error_of_value(noise: bytes, at: int) -> None:
    for data in (b"\xff\xd8" + noise, WHOLE[:at] + noise + WHOLE[at + len(noise) :]):
        try:
            header = read_jpeg_header(data)
        except ValueError:
            continue
        assert header.height > 0
        assert header.width > 0
