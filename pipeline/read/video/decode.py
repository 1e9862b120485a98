"""Decodes the frames of a video in the order in which they are shown. A damaged file is decoded again, with care.

The first attempt decodes in several threads and gives up at the first sign of damage. The second one decodes in one
thread, so that it knows which frames are damaged and which ones are predicted from them. Those are left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from vlapipe.pipeline.read.video.open_video import OpenVideo, av_error, stop_unless_damaged

__all__ = [
    "DamagedVideoError",
    "Losses",
    "PacketCount",
    "Shown",
    "careful_frames",
    "nanoseconds",
    "whole_frames",
    "within",
]

_SECOND = 1_000_000_000
_LAST = 1 << 63
_MOST_REORDERED = 16  # frames that a decoder may hold back to put them in order (H.264, HEVC)
# Of these codings each packet shows one frame; VP8, for example, has packets that show none.
_ONE_A_PACKET = {"h264", "hevc", "av1", "mjpeg", "ffv1", "mpeg4"}


class DamagedVideoError(ValueError):
    """A frame cannot be decoded, or is missing."""


@dataclass(frozen=True)
class Shown:
    """A decoded frame, its number among the frames of the video or of the part, and its time in nanoseconds."""

    picture: Any
    number: int
    time_ns: int | None


@dataclass
class Losses:
    """The frames that could not be kept. ``num_missing`` frames were promised and are not in the file.

    ``is_cut`` tells of a file that is cut short and does not say how many frames it should have.
    """

    first: int | None = None
    num_damaged: int = 0
    num_missing: int = 0
    is_cut: bool = False
    num_seen: int = 0  # frames that are in the file, damaged ones included

    def __bool__(self) -> bool:
        return bool(self.num_damaged or self.num_missing or self.is_cut)

    def __str__(self) -> str:
        said = []
        if self.num_damaged:
            said.append(f"{self.num_damaged} damaged from frame {self.first} on")
        if self.num_missing:
            said.append(f"{self.num_missing} missing after frame {self.num_seen - 1}")
        elif self.is_cut:
            said.append(f"the file is cut short after frame {self.num_seen - 1}")
        return " and ".join(said)


def nanoseconds(stamp: int, time_base: Fraction) -> int:
    """Returns a container's stamp in whole nanoseconds, rounded to the nearest."""
    numerator = 2 * stamp * time_base.numerator * _SECOND + time_base.denominator
    return numerator // (2 * time_base.denominator)


def whole_frames(video: OpenVideo, part: tuple[int, int] | None) -> Iterator[Shown]:
    """Yields the frames of an undamaged video, or those of the part ``start <= time < stop`` in nanoseconds.

    Raises:
        DamagedVideoError: something is wrong with the video.
    """
    count = PacketCount(video)
    for picture in _decode(video, part, count):
        if picture.is_corrupt:
            raise DamagedVideoError("damaged")
        if part is None:
            yield Shown(picture, count.num_shown - 1, count.time_ns(picture))
            continue
        place = within(part, count.time_ns(picture))
        if place > 0:
            return
        if place == 0:
            yield Shown(picture, count.next_number(), count.time_ns(picture))
    if count.is_short(has_part=part is not None):
        raise DamagedVideoError("cut short")


def careful_frames(video: OpenVideo, part: tuple[int, int] | None, losses: Losses) -> Iterator[Shown]:
    """Yields the frames that are whole. The others are counted in ``losses``.

    A frame is lost if it cannot be decoded, or if it comes, in the order of coding, between such a frame and the next
    key frame: it is predicted from something else than it was at the recorder.
    """
    count = PacketCount(video, is_careful=True)
    waiting: deque[_Decoded] = deque()
    number = 0

    def judge(frame: _Decoded) -> Shown | None:
        nonlocal number
        if part is not None and within(part, frame.time_ns) != 0:
            return None
        ours = number if part is not None else count.number_of(frame)
        number += 1
        if not count.is_lost(frame):
            return Shown(frame.picture, ours, frame.time_ns)
        losses.num_damaged += 1
        losses.first = ours if losses.first is None else losses.first
        return None

    for picture in _decode(video, part, count):
        frame = count.decoded(picture)
        waiting.append(frame)
        if len(waiting) > _MOST_REORDERED and (shown := judge(waiting.popleft())) is not None:
            yield shown
        if part is not None and within(part, frame.time_ns) > 0:
            break
    for frame in waiting:
        if (shown := judge(frame)) is not None:
            yield shown
    count.finish(losses, number, has_part=part is not None)


def within(part: tuple[int, int], time_ns: int | None) -> int:
    """Returns -1 before the part, 0 within, 1 behind."""
    return -1 if time_ns is None or time_ns < part[0] else 0 if time_ns < part[1] else 1


@dataclass(frozen=True)
class _Decoded:
    """A frame with its time and its place in the order in which frames come out of the decoder.

    ``is_after_damage``: nothing but the order tells what it was predicted from, and there was damage before.
    """

    picture: Any
    time_ns: int | None
    place: int
    is_after_damage: bool


@dataclass
class PacketCount:
    """What has been read of a video so far. With ``is_careful``, packets are remembered one by one."""

    video: OpenVideo
    is_careful: bool = False
    num_packets: int = 0  # with data
    num_hidden: int = 0  # packets that an edit list leaves out
    num_shown: int = 0
    num_failed: int = 0  # packets that could not be decoded
    num_numbered: int = 0
    has_ended: bool = False
    was_interrupted: bool = False
    is_after_damage: bool = False  # since the last key frame
    stamps: list[int] = field(default_factory=list)  # presentation stamps in ascending order
    order: dict[int, int] = field(default_factory=dict)  # stamp -> place in the order of coding
    keys: list[tuple[int, int]] = field(default_factory=list)  # place and stamp of each key frame
    broken: list[int] = field(default_factory=list)  # places where damage begins
    decode_stamps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.time_base = Fraction(self.video.stream.time_base)
        # AVI stores no time of presentation, only the number of each packet.
        self.counts = self.video.kind == "avi"

    def add(self, packet: Any) -> None:
        """Counts a packet that holds data."""
        self.num_packets += 1
        self.num_hidden += packet.is_discard
        if self.counts and packet.dts is not None:
            self.decode_stamps.append(packet.dts)
        if self.is_careful and packet.pts is not None:
            place = self.num_packets - 1
            self.order[packet.pts] = place
            if not packet.is_discard:
                insort(self.stamps, packet.pts)
            if packet.is_keyframe:
                self.keys.append((place, packet.pts))

    def time_ns(self, picture: Any) -> int | None:
        """Returns the time at which a frame is shown; the frame was the last one to be decoded."""
        stamp = picture.pts
        if self.counts:
            place = self.num_shown + self.num_failed - 1
            stamp = self.decode_stamps[place] if place < len(self.decode_stamps) else None
        return None if stamp is None else nanoseconds(stamp, self.time_base)

    def time_of_packet(self, packet: Any) -> int | None:
        """Returns the time of a packet that is a whole frame; it was the last one to be added."""
        stamp = packet.dts if self.counts or packet.pts is None else packet.pts
        return None if stamp is None else nanoseconds(stamp, self.time_base)

    def next_number(self) -> int:
        """Returns the number of the next frame of a part."""
        self.num_numbered += 1
        return self.num_numbered - 1

    def decoded(self, picture: Any) -> _Decoded:
        """Describes the frame that was decoded last, and notes whether it is damaged."""
        if picture.key_frame:
            self.is_after_damage = False
        if picture.is_corrupt:
            self.open_region(self.order.get(picture.pts, self.num_packets - 1))
        # Frames that were held back to be put in order may belong behind missing ones.
        is_unsure = self.has_ended and self.video.stream.codec_context.has_b_frames and self.num_missing()
        is_after_damage = self.counts and bool(self.is_after_damage or is_unsure)
        return _Decoded(picture, self.time_ns(picture), self.num_shown + self.num_failed - 1, is_after_damage)

    def number_of(self, frame: _Decoded) -> int:
        """Returns how many frames of the video are shown before this one, damaged ones included."""
        stamp = frame.picture.pts
        return frame.place if stamp is None or self.counts else bisect_left(self.stamps, stamp)

    def open_region(self, place: int) -> None:
        """Notes that the frame at this place in the order of coding is damaged."""
        insort(self.broken, place)
        self.is_after_damage = True

    def is_lost(self, frame: _Decoded) -> bool:
        """Returns whether a frame is damaged, or predicted from one that is."""
        stamp = frame.picture.pts
        place = self.order.get(stamp)
        if place is None or self.counts:
            return frame.is_after_damage
        at = bisect_right(self.broken, place)
        if not at:
            return False
        following = bisect_right(self.keys, (self.broken[at - 1], _LAST))
        if following == len(self.keys):
            return True
        key, shown_at = self.keys[following]
        return place < key or (place > key and stamp < shown_at)

    def num_without_frame(self) -> int:
        """Returns how many packets should have shown a frame and did not."""
        if self.video.codec not in _ONE_A_PACKET or not self.num_shown:
            return 0
        lost = self.num_packets - self.num_hidden - self.num_shown
        return 0 if 2 * self.num_shown >= self.num_packets - 1 and lost == self.num_shown else max(0, lost)

    def num_missing(self) -> int:
        """Returns how many frames the file promises and does not hold."""
        video = self.video
        if video.num_declared and (video.kind == "mov" or video.is_cut_short):
            return max(0, video.num_declared - self.num_packets)
        if not video.is_cut_short or video.frame_s is None or video.duration_s is None:
            return 0
        return max(0, round(video.duration_s / video.frame_s) - self.num_packets)

    def is_short(self, *, has_part: bool) -> bool:
        """Returns whether frames are missing at the end of what was read."""
        if has_part:
            return self.video.is_cut_short and self.has_ended
        cut = self.was_interrupted or (self.video.is_cut_short and not self.video.num_declared)
        return cut or bool(self.num_missing() or self.num_without_frame())

    def finish(self, losses: Losses, num_in_part: int, *, has_part: bool) -> None:
        """Adds the frames that nothing was decoded of."""
        if has_part:
            losses.is_cut |= self.video.is_cut_short and self.has_ended
            losses.num_seen = num_in_part
            return
        without = self.num_without_frame()
        losses.num_damaged += without
        if without and losses.first is None:
            losses.first = self._first_without()
        losses.num_missing = self.num_missing()
        losses.is_cut = self.was_interrupted or (self.video.is_cut_short and not self.video.num_declared)
        losses.num_seen = self.num_packets - self.num_hidden

    def _first_without(self) -> int:
        place = min(self.broken, default=0)
        stamp = next((stamp for stamp, at in self.order.items() if at == place), None)
        return place if stamp is None else bisect_left(self.stamps, stamp)


def _decode(video: OpenVideo, part: tuple[int, int] | None, count: PacketCount) -> Iterator[Any]:
    """Yields the decoded frames. What cannot be decoded is an error, or with care a broken region."""
    packets = video.container.demux(video.stream) if part is None else _demux_from(video, part[0])
    refused = av_error()
    while True:
        try:
            packet = next(packets, None)
        except refused as error:
            stop_unless_damaged(error, video.path)
            count.was_interrupted = True
            if not count.is_careful:
                raise DamagedVideoError(str(error)) from None
            packet = None
        if packet is None:
            return
        if packet.size:
            count.add(packet)
        elif packet.dts is not None:
            continue  # an empty packet would end the decoding
        else:
            count.has_ended = True
        pictures = _pictures_of(packet, video)
        if pictures is None:
            if not count.is_careful:
                raise DamagedVideoError("a packet that cannot be decoded")
            count.num_failed += 1
            count.open_region(count.num_packets - 1)
            continue
        for picture in pictures:
            count.num_shown += 1
            yield picture


def _pictures_of(packet: Any, video: OpenVideo) -> list[Any] | None:
    """Returns the frames that the decoder hands out for a packet, or ``None`` if the packet is damaged."""
    if packet.size and packet.is_corrupt:  # cut short
        return None
    try:
        pictures: list[Any] = packet.decode()
    except av_error() as error:
        stop_unless_damaged(error, video.path)
        return None
    return pictures


def _demux_from(video: OpenVideo, start_ns: int) -> Iterator[Any]:
    """Yields the packets from the last key frame that is shown at or before a time.

    A container finds key frames by the order of coding, in which a frame may stand before its time. So the first packet
    decides, and the search begins again further to the front if that packet is shown too late.
    """
    time_base = Fraction(video.stream.time_base)
    wanted = int(Fraction(start_ns, _SECOND) / time_base)
    step = max(1, int((video.frame_s or Fraction(1, 30)) / time_base))
    first = video.stream.start_time if video.stream.start_time is not None else 0
    back = 0
    while True:
        target = wanted - back
        video.container.seek(max(target, first), stream=video.stream, backward=True, any_frame=False)
        packets = video.container.demux(video.stream)
        packet = next(packets, None)
        if packet is None:
            return
        is_early = packet.pts is not None and nanoseconds(packet.pts, time_base) <= start_ns
        if is_early or target <= first:
            yield packet
            yield from packets
            return
        back = 2 * back + _MOST_REORDERED * step
