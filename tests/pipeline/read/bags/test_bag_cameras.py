"""Cameras of bags: compressed images byte for byte, raw images as the pixels that were sent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_writing import START_NS, Sent, compressed, image, store_of, write_json, write_mcap, write_ros1, write_ros2
from factories import make_jpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.read.images.bag_camera import read_bag_camera
from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

RGB = np.random.default_rng(0).integers(0, 255, (5, 24, 32, 3), dtype=np.uint8)
MONO = RGB[..., :1]
DEPTH = np.random.default_rng(1).integers(0, 60_000, (5, 24, 32), dtype=np.uint16)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def camera(root: Path, file: str, *, topic: str = "/cam", clock: str = "header.stamp", **changes: Any) -> tuple[
    ImageRows | None, list[Finding]
]:  # fmt: skip
    time = TimeSpec(sources=(clock,), unit="ns", integer=True)
    stream = ImageStream(name="front", files=(file,), time=time, topic=topic, **changes)
    findings = Findings()
    return read_bag_camera(root, [file], stream, findings), list(findings)


def sent_images(store: Any, images: list[Any]) -> list[Sent]:
    return [Sent("/cam", START_NS + row * 10**7 + 77, each) for row, each in enumerate(images)]


def four(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([pixels, np.full((*pixels.shape[:-1], 1), 7, np.uint8)], axis=-1)


RAW: dict[str, tuple[NDArray[Any], NDArray[Any], str | None]] = {
    "rgb8": (RGB, RGB, None),
    "bgr8": (RGB[..., ::-1], RGB, None),
    "rgba8": (four(RGB), RGB, None),
    "bgra8": (four(RGB[..., ::-1]), RGB, None),
    "mono8": (MONO, MONO.repeat(3, axis=-1), None),
    "mono16": (DEPTH, DEPTH[..., None], "mm"),
    "16UC1": (DEPTH, DEPTH[..., None], "mm"),
    "32FC1": ((DEPTH / 1000).astype(np.float32), DEPTH[..., None], "mm"),
}


@pytest.mark.parametrize("encoding", RAW)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("ros", [1, 2])
def test_raw_images_are_the_pixels_that_were_sent(tmp_path: Path, encoding: str, big: bool, ros: int) -> None:
    written, expected, unit = RAW[encoding]
    if big:
        written = written.astype(written.dtype.newbyteorder(">"))
    store = store_of(ros)
    stamps = [START_NS + row * 10**7 for row in range(5)]
    images = [image(store, stamps[row], written[row], encoding, padding=5, big=int(big)) for row in range(5)]
    if ros == 1:
        write_ros1(tmp_path / "run.bag", sent_images(store, images), store)
    else:
        write_mcap(tmp_path / "run.bag", sent_images(store, images), store)
    rows, findings = camera(tmp_path, "run.bag", unit=unit)
    assert rows is not None, findings
    assert rows.timestamp.tolist() == stamps
    assert rows.data.dtype == expected.dtype
    assert np.array_equal(rows.data, expected)


def test_compressed_images_are_untouched_whatever_they_are(tmp_path: Path) -> None:
    store = store_of(2)
    for name, forms in {
        "jpeg": [("rgb8; jpeg compressed bgr8", make_jpeg(row)) for row in range(5)],
        "png": [("png", png(RGB[row])) for row in range(5)],
    }.items():
        images = [compressed(store, START_NS + row, data, form) for row, (form, data) in enumerate(forms)]
        write_ros2(tmp_path / name, sent_images(store, images), store)
        rows, findings = camera(tmp_path, f"{name}/{name}.db3", clock="received")
        assert rows is not None, findings
        assert [rows.encoded(row).tobytes() for row in range(5)] == [data for _, data in forms]
        assert rows.timestamp.tolist() == [each.received for each in sent_images(store, images)]


def test_png_of_compressed_depth_stands_after_its_header(tmp_path: Path) -> None:
    store = store_of(2)
    head, form = bytes(range(12)), "16UC1; compressedDepth png"
    images = [compressed(store, START_NS + row, head + png(DEPTH[row]), form) for row in range(5)]
    write_mcap(tmp_path / "run.mcap", sent_images(store, images), store)
    rows, findings = camera(tmp_path, "run.mcap", unit="mm")
    assert rows is not None, findings
    assert [rows.encoded(row).tobytes() for row in range(5)] == [png(DEPTH[row]) for row in range(5)]


def test_images_in_json_are_decoded_from_base64(tmp_path: Path) -> None:
    import base64

    images = [make_jpeg(row) for row in range(4)]
    sent = [
        ("/cam", START_NS + row, {"timestamp": {"sec": 5, "nsec": row}, "data": base64.b64encode(data).decode()})
        for row, data in enumerate(images)
    ]
    write_json(tmp_path / "run.mcap", sent)
    rows, findings = camera(tmp_path, "run.mcap", clock="timestamp")
    assert rows is not None, findings
    assert [rows.encoded(row).tobytes() for row in range(4)] == images
    assert rows.timestamp.tolist() == [5 * 10**9 + row for row in range(4)]


def test_damaged_image_is_named_with_its_topic_and_message(tmp_path: Path) -> None:
    store = store_of(2)
    data = [make_jpeg(row) for row in range(5)]
    data[3] = data[3][:-40]
    write_mcap(
        tmp_path / "run.mcap",
        sent_images(store, [compressed(store, START_NS + r, d) for r, d in enumerate(data)]),
        store,
    )
    rows, (finding,) = camera(tmp_path, "run.mcap")
    assert rows is None
    assert finding.code == "image.truncated"
    assert finding.file == "run.mcap: /cam: message 3 (received at 1700000000.030000 s)"


BAD: dict[str, tuple[str, str, str]] = {
    "yuv422": ("yuv422", "bag.message", "'yuv422' in message 0"),
    "short rows": ("rgba8", "bag.message", "bytes in message 0"),
    "depth without unit": ("mono16", "image.no_unit", "uint16 (24, 32, 1)"),
}


@pytest.mark.parametrize("case", BAD)
def test_raw_image_that_cannot_be_kept_is_refused(tmp_path: Path, case: str) -> None:
    encoding, code, found = BAD[case]
    store = store_of(2)
    pixels = DEPTH if encoding == "mono16" else RGB
    write_mcap(tmp_path / "run.mcap", sent_images(store, [image(store, 1, pixels[0], encoding)]), store)
    rows, findings = camera(tmp_path, "run.mcap")
    assert rows is None
    assert [finding.code for finding in findings] == [code]
    assert found in findings[0].found


@pytest.mark.parametrize("form", ["h264", "32FC1; compressedDepth png", "16UC1; compressedDepth rvl"])
def test_compressed_images_of_other_codings_are_refused(tmp_path: Path, form: str) -> None:
    store = store_of(2)
    data = bytes(12) + (png(DEPTH[0]) if "png" in form else b"rvl")
    write_mcap(tmp_path / "run.mcap", sent_images(store, [compressed(store, 1, data, form)]), store)
    rows, findings = camera(tmp_path, "run.mcap", unit="mm")
    assert rows is None
    assert [finding.code for finding in findings] == ["bag.message"]


def test_topic_of_other_messages_is_no_camera(tmp_path: Path) -> None:
    store = store_of(2)
    text = store.types["std_msgs/msg/String"]("hello")
    write_mcap(tmp_path / "run.mcap", [Sent("/cam", START_NS, text)], store)
    rows, findings = camera(tmp_path, "run.mcap", clock="received")
    assert rows is None
    assert [(finding.code, finding.found) for finding in findings] == [("bag.type", "/cam of std_msgs/msg/String")]


def test_images_become_smaller_if_asked_for(tmp_path: Path) -> None:
    store = store_of(2)
    write_mcap(
        tmp_path / "run.mcap", sent_images(store, [compressed(store, 1 + r, make_jpeg(r)) for r in range(3)]), store
    )
    time = TimeSpec(sources=("received",), unit="ns", integer=True)
    stream = ImageStream(name="front", files=("run.mcap",), time=time, topic="/cam")
    options = ImageOptions(size=(16, 12))
    rows = read_bag_camera(tmp_path, ["run.mcap"], stream, Findings(), images=options)
    assert rows is not None
    assert (rows.width, rows.height) == (16, 12)
