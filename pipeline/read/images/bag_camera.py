"""Reads one camera from a topic of a bag: compressed images untouched, raw images as pixels.

Encodings: sensor_msgs/image_encodings.h. Compressed depth: compressed_depth_image_transport, whose PNG stands after a
header of 12 bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.array_clock import count_rows
from vlapipe.pipeline.read.bags.definitions import types_of
from vlapipe.pipeline.read.bags.json_messages import JsonMessages
from vlapipe.pipeline.read.bags.messages import Messages
from vlapipe.pipeline.read.bags.walk import Leaf
from vlapipe.pipeline.read.clock_file import ClockFile, clock_of_array
from vlapipe.pipeline.read.containers.arrays import source_of
from vlapipe.pipeline.read.containers.bag import RECEIVED, open_topic
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.keep import EncodedImages, PixelFrames, Places, keep_encoded, keep_pixels
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.pipeline.shards.format.png_decode import PNG_SIGNATURE
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["read_bag_camera"]

_Times = NDArray[Any] | None
_DEPTH_HEADER = 12
_DEPTH_UNITS = {"16UC1": "mm", "32FC1": "m"}  # REP 118
# Channels, the dtype of a channel, and the channels that make true RGB.
_FORWARDS, _BACKWARDS, _ALL = slice(0, 3), slice(2, None, -1), slice(None)
_ENCODINGS: dict[str, tuple[int, str, slice]] = {
    "rgb8": (3, "u1", _FORWARDS),
    "bgr8": (3, "u1", _BACKWARDS),
    "rgba8": (4, "u1", _FORWARDS),
    "bgra8": (4, "u1", _BACKWARDS),
    "8UC3": (3, "u1", _FORWARDS),
    "mono8": (1, "u1", _ALL),
    "8UC1": (1, "u1", _ALL),
    "16UC1": (1, "u2", _ALL),
    "mono16": (1, "u2", _ALL),
    "32FC1": (1, "f4", _ALL),
}


def read_bag_camera(
    root: Path,
    files: list[str],
    stream: ImageStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
    camera: str | None = None,
) -> ImageRows | None:
    """Reads a camera's images. Returns ``None`` if errors were found. The arguments are those of ``read_images``.

    ``camera`` is what ``{camera}`` stands for in the stream's ``topic``.
    """
    assert stream.topic is not None
    name = stream.topic.replace("{camera}", camera or "")
    opened = open_topic(root, files, name, findings)
    if opened is None:
        return None
    label, topic = opened
    try:
        source = source_of(root, files, label)
        messages: Messages | JsonMessages
        messages = JsonMessages(topic) if topic.kind.encoding == "json" else Messages(topic, types_of(topic.kind))
        timestamp = _stamps(messages, stream, label, clock, findings)
        place = clock.place if clock is not None else None
        places = Places(len(topic.received), lambda row: f"{label}: {topic.name}: {topic.place(row)}")
        if isinstance(messages, Messages) and "Image" in topic.kind.type and messages.types.find("step") is not None:
            frames = _Frames(messages)
            stream = _with_unit(stream, frames.encoding)
            pixels = PixelFrames(frames=frames, timestamp=timestamp, places=places, source=source, clock_location=place)
            return keep_pixels(pixels, stream, findings, images, only_size, in_parts)
        data, offset = _encoded(messages)
        stream = _with_unit(stream, "16UC1")  # the only depth that compressed images hold as it is
    except RefusedError as error:
        findings.add(error.code, label, column=name, expected=error.expected, found=error.found)
        return None
    encoded = EncodedImages(
        data=data, offset=offset, timestamp=timestamp, places=places, source=source, clock_location=place
    )
    return keep_encoded(encoded, stream, findings, images, only_size, in_parts)


def _with_unit(stream: ImageStream, encoding: str) -> ImageStream:
    """Returns the stream with the unit in which ROS writes depth, unless the schema says another one."""
    unit = _DEPTH_UNITS.get(encoding)
    return replace(stream, file_unit=unit) if unit and stream.unit and not stream.file_unit else stream


def _stamps(
    messages: Messages | JsonMessages, stream: ImageStream, label: str, clock: ClockFile | None, findings: Findings
) -> _Times:
    """Returns the images' times, or ``None`` after an error."""
    time, topic = stream.time, messages.topic
    if time.file is not None:
        fits = clock is not None and clock.fits(len(topic.received), label, findings)
        return clock.timestamp if clock is not None and fits else None
    if not time.sources:
        return count_rows(len(topic.received), label, time, findings)
    name = time.sources[0]
    stamps = topic.times if name == RECEIVED else messages.array(name)
    return clock_of_array(stamps, label, f"{topic.name}.{name}", time, findings)


def _encoded(messages: Messages | JsonMessages) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns the compressed images end to end, and their offsets."""
    topic, files = messages.topic, Pieces()
    if isinstance(messages, JsonMessages):
        for row, text in enumerate(messages.array("data").tolist()):
            files.append(_of_json(messages, row, text))
        return files.joined()
    data, form = messages.types.find("data"), messages.types.find("format")
    if data is None or form is None or data.type not in ("uint8", "byte", "char") or form.type != "string":
        expected = "sensor_msgs/CompressedImage or sensor_msgs/Image"
        raise RefusedError("bag.type", expected, f"{topic.name} of {topic.kind.type}")
    for row, payload in enumerate(topic.payloads):
        leaves = messages.shape_of(row).leaves
        words = leaves["format"]
        start, stop = leaves["data"].offset, leaves["data"].offset + leaves["data"].size
        start += _header_of(payload, start, payload[words.starts[0] : words.ends[0]], messages, row)
        files.append(payload[start:stop])
    return files.joined()


def _header_of(payload: bytes, start: int, form: bytes, messages: Messages, row: int) -> int:
    """Returns the number of bytes before the image: the header of compressed depth, or none."""
    if b"compressedDepth" not in form:
        if any(word in form.lower() for word in (b"h264", b"h265", b"hevc", b"av1", b"vp9")):
            raise messages.fault(
                row, "images that stand alone (JPEG or PNG)", f"a piece of video ({form.decode()!r:.60})"
            )
        return 0
    if not payload[start + _DEPTH_HEADER :].startswith(PNG_SIGNATURE):
        raise messages.fault(
            row, "compressed depth as PNG", f"another coding ({form.decode('utf-8', 'replace')!r:.60})"
        )
    if b"32FC1" in form:
        raise messages.fault(row, "compressed depth of 16UC1", "of 32FC1, which is coded as rounded inverse depth")
    return _DEPTH_HEADER


def _of_json(messages: JsonMessages, row: int, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        place = messages.topic.place(row)
        raise RefusedError("bag.message", "an image as base64 in data", f"another text in {place}") from None


class _Frames:
    """The pixels of raw images, one message after the other: ``(height, width, 3)`` RGB, or one channel.

    All have the encoding of the first one.
    """

    def __init__(self, messages: Messages) -> None:
        self.messages = messages

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for row in range(len(self.messages.topic.payloads)):
            yield self._frame(row)

    def __len__(self) -> int:
        return len(self.messages.topic.payloads)

    @cached_property
    def encoding(self) -> str:
        """Returns how the pixels of the first image are written."""
        return _text(self.messages.topic.payloads[0], self.messages.shape_of(0).leaves["encoding"])

    def _frame(self, row: int) -> NDArray[Any]:
        messages, payload = self.messages, self.messages.topic.payloads[row]
        shape = messages.shape_of(row)
        leaves, order = shape.leaves, "little" if shape.order == "<" else "big"

        def number(name: str) -> int:
            leaf = leaves[name]
            return int.from_bytes(payload[leaf.offset : leaf.offset + leaf.size], order)  # type: ignore[arg-type]

        height, width, step = number("height"), number("width"), number("step")
        encoding = _text(payload, leaves["encoding"])
        if encoding != self.encoding:
            raise messages.fault(row, f"an image as {self.encoding}, as before", f"{encoding!r:.40}")
        if encoding not in _ENCODINGS:
            raise messages.fault(row, f"an image as {', '.join(_ENCODINGS)}", f"{encoding!r:.40}")
        channels, kind, places = _ENCODINGS[encoding]
        dtype = np.dtype((">" if number("is_bigendian") else "<") + kind)
        data, least = leaves["data"], width * channels * dtype.itemsize
        if not (height and width) or step < least or step * (height - 1) + least > data.size:
            expected = f"{height} rows of {step} bytes for {width} pixels as {encoding}"
            raise messages.fault(row, expected, f"{data.size} bytes")
        raw = np.frombuffer(payload, np.uint8, count=data.size, offset=data.offset)
        rows = np.lib.stride_tricks.as_strided(raw, (height, least), (step, 1), writeable=False)
        pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
        return pixels[..., places].astype(kind, copy=False)


def _text(payload: bytes, leaf: Leaf) -> str:
    return payload[leaf.starts[0] : leaf.ends[0]].decode("utf-8", "replace")
