"""JPEG files: order by stamp, bytes untouched, every broken one named."""

from __future__ import annotations

from pathlib import Path

import pytest
import simplejpeg
from factories import make_jpeg

from vlapipe.pipeline.readers.arrays import ImageRows
from vlapipe.pipeline.readers.images import read_images
from vlapipe.pipeline.readers.jpeg import read_jpeg_header
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

CAMERA = ImageStream(name="camera", files=("*.jpg",), time=TimeSpec())


def read(root: Path, images: dict[str, bytes]) -> tuple[ImageRows | None, list[Finding]]:
    (root / "cam").mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (root / "cam" / name).write_bytes(data)
    findings = Findings()
    rows = read_images(root, sorted(f"cam/{name}" for name in images), CAMERA, findings)
    return rows, list(findings)


def test_images_are_ordered_by_time_not_by_name(tmp_path: Path) -> None:
    images = {"9.5.jpg": make_jpeg(1), "10.25.jpg": make_jpeg(2), "100.jpg": make_jpeg(3)}
    rows, findings = read(tmp_path, images)
    assert rows is not None, findings
    assert rows.timestamp.tolist() == [9.5, 10.25, 100.0]
    stored = [rows.data[rows.offset[i] : rows.offset[i + 1]].tobytes() for i in range(3)]
    assert stored == [images["9.5.jpg"], images["10.25.jpg"], images["100.jpg"]]
    assert (rows.height, rows.width) == (24, 32)


whole = make_jpeg(0)
BROKEN = {
    "cut short": (whole[: len(whole) * 6 // 10], "image.truncated"),
    "cut within the header": (whole[:30], "image.truncated"),
    "without its end marker": (whole[:-2], "image.truncated"),
    "empty": (b"", "image.empty"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(50), "image.not_jpeg"),
    "text": (b"not an image", "image.not_jpeg"),
    "another size": (make_jpeg(5, height=48), "image.size_changes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_image_is_named(tmp_path: Path, case: str) -> None:
    data, code = BROKEN[case]
    rows, findings = read(tmp_path, {"1.0.jpg": whole, "2.0.jpg": data, "3.0.jpg": whole})
    assert rows is None
    assert [(f.code, f.file) for f in findings] == [(code, "cam/2.0.jpg")]


def test_every_broken_image_is_named_not_only_the_first(tmp_path: Path) -> None:
    _, findings = read(tmp_path, {"1.0.jpg": b"", "2.0.jpg": whole, "3.0.jpg": b"", "x.jpg": whole})
    assert {(f.code, f.file) for f in findings} == {
        ("image.empty", "cam/1.0.jpg"),
        ("image.empty", "cam/3.0.jpg"),
        ("image.bad_name", "cam/x.jpg"),
    }


def test_padding_after_the_end_marker_is_allowed() -> None:
    assert read_jpeg_header(whole + bytes(16)).height == 24


@pytest.mark.parametrize("cut", range(3, 100, 7))
def test_header_reader_never_takes_a_cut_file_for_a_whole_one(cut: int) -> None:
    with pytest.raises(ValueError, match=r"cut short|not a JPEG|no marker|no size"):
        read_jpeg_header(whole[: len(whole) * cut // 100])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (480, 640), (17, 33)])
def test_header_size_equals_the_decoders(height: int, width: int) -> None:
    import numpy as np

    jpeg = simplejpeg.encode_jpeg(np.zeros((height, width, 3), dtype=np.uint8))
    header = read_jpeg_header(jpeg)
    assert simplejpeg.decode_jpeg_header(jpeg)[:2] == (header.height, header.width)


@pytest.mark.real
def test_real_rover_frames_have_the_size_that_the_decoder_says(real: Path) -> None:
    frames = sorted((real / "robond" / "test_dataset" / "IMG").glob("*.jpg"))
    assert len(frames) == 283
    for frame in frames:
        data = frame.read_bytes()
        header = read_jpeg_header(data)
        assert (header.height, header.width) == simplejpeg.decode_jpeg_header(data)[:2]
