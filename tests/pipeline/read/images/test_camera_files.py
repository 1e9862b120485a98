"""JPEG files are ordered by stamp, their bytes do not change, and every broken file is reported by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from factories import make_jpeg
from jpeg_variants import with_exif, with_frame, with_size
from PIL import Image

from vlapipe.pipeline.read.images.camera_files import read_images
from vlapipe.pipeline.read.images.jpeg import read_jpeg_header
from vlapipe.pipeline.stream_rows import ImageRows
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
    "a PNG of zeros": (b"\x89PNG\r\n\x1a\n" + bytes(50), "image.truncated"),
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


def gray(seed: int) -> bytes:
    pixels = np.full((24, 32, 1), seed, dtype=np.uint8)
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, colorspace="GRAY", colorsubsampling="Gray")
    return jpeg


def progressive() -> bytes:
    file = io.BytesIO()
    Image.fromarray(simplejpeg.decode_jpeg(whole)).save(file, "JPEG", progressive=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("odd", "code", "severity"),
    [
        (gray(9), "image.gray", "note"),
        (progressive(), "image.progressive", "note"),
        (with_exif(whole, 6), "image.rotated", "warning"),
    ],
)
def test_unusual_images_are_kept_and_told_once_a_camera(tmp_path: Path, odd: bytes, code: str, severity: str) -> None:
    rows, [finding] = read(tmp_path, {"1.0.jpg": whole, "2.0.jpg": odd, "3.0.jpg": odd})
    assert rows is not None
    assert rows.num_rows == 3
    assert (finding.code, finding.severity, finding.file) == (code, severity, "cam")
    assert finding.found == "2 of 3 images, the first 2.0.jpg"


@pytest.mark.parametrize(
    ("odd", "code", "found"),
    [
        (with_size(whole, 10_001, 10_000), "image.too_large", "10000x10001"),
        (with_frame(whole, precision=12), "image.coding", "12 bits a sample"),
        (with_frame(whole, process=0xC9), "image.coding", "arithmetic coding"),
    ],
)
def test_image_that_no_decoder_should_get_is_refused(tmp_path: Path, odd: bytes, code: str, found: str) -> None:
    rows, [finding] = read(tmp_path, {"1.0.jpg": whole, "2.0.jpg": odd})
    assert rows is None
    assert (finding.code, finding.file, finding.found) == (code, "cam/2.0.jpg", found)


def test_first_image_of_another_size_is_named_and_the_others_counted(tmp_path: Path) -> None:
    other = make_jpeg(5, height=48)
    rows, [finding] = read(tmp_path, {"1.0.jpg": whole, "2.0.jpg": other, "3.0.jpg": whole, "4.0.jpg": other})
    assert rows is None
    assert (finding.code, finding.file, finding.count) == ("image.size_changes", "cam/2.0.jpg", 2)


@pytest.mark.real
def test_real_rover_frames_have_the_size_that_the_decoder_says(real: Path) -> None:
    frames = sorted((real / "robond" / "test_dataset" / "IMG").glob("*.jpg"))
    assert len(frames) == 283
    for frame in frames:
        data = frame.read_bytes()
        header = read_jpeg_header(data)
        assert (header.height, header.width) == simplejpeg.decode_jpeg_header(data)[:2]
