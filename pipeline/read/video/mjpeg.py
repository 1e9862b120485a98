"""Takes the JPEG files out of a video of Motion JPEG, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.images.jpeg import read_jpeg_header
from vlapipe.pipeline.read.video.decode import Losses, PacketCount, within
from vlapipe.pipeline.read.video.jpeg_frames import turn_of
from vlapipe.pipeline.read.video.open_video import OpenVideo, av_error

__all__ = ["JpegPackets", "whole_jpegs"]

_HUFFMAN_TABLES = b"\xff\xc4"
_START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True, kw_only=True)
class JpegPackets:
    """The JPEG files of a video, in order, with their numbers and times, and the frames that the file lacks."""

    files: Pieces
    numbers: list[int]
    times_ns: list[int | None]
    losses: Losses


def whole_jpegs(video: OpenVideo, part: tuple[int, int] | None) -> JpegPackets | None:
    """Returns the JPEG files of a video, or ``None`` if its frames are no files of their own.

    Many cameras leave out the Huffman tables, which every decoder of Motion JPEG knows, or store two fields a frame.
    Players turn the frames of some videos. Such videos are decoded like any other.
    """
    if video.codec != "mjpeg":
        return None
    count = PacketCount(video, is_careful=True)
    files, numbers, times = Pieces(), list[int](), list[int | None]()
    number = 0
    for packet in video.container.demux(video.stream):
        if not packet.size:
            continue
        data = bytes(packet)
        if not number and not _is_a_file(packet, data):
            return None
        count.add(packet)
        if packet.is_discard:
            continue
        time_ns = count.time_of_packet(packet)
        if part is None or within(part, time_ns) == 0:
            files.append(data)
            numbers.append(number)
            times.append(time_ns)
            number += 1
    losses = Losses(num_seen=len(files))
    if part is None:
        losses.num_missing = count.num_missing()
    return JpegPackets(files=files, numbers=numbers, times_ns=times, losses=losses)


def _is_a_file(packet: Any, data: bytes) -> bool:
    head = data[: data.find(_START_OF_SCAN)]
    if _HUFFMAN_TABLES not in head:
        return False
    try:
        header = read_jpeg_header(data)
        pictures = [*packet.decode(), *packet.stream.codec_context.decode(None)]
    except (ValueError, EOFError, av_error()):
        return False
    whole = [picture for picture in pictures if (picture.width, picture.height) == (header.width, header.height)]
    return len(whole) == 1 and not turn_of(whole[0])
