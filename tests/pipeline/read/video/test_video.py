"""A video's frames are those that PyAV shows, at the container's own times; what is lost is counted and said."""

from __future__ import annotations

import io
import itertools
import re
import struct
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from videos import add_packets, frames_of, make_video, picture, psnr_db, shown_by_av

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions
from vlapipe.pipeline.read.video.decode import PacketCount
from vlapipe.pipeline.read.video.video import read_video
from vlapipe.pipeline.stream_rows import ClockLocation, ImageRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, OnBad, TimeSpec

RAW = ImageOptions(storage="raw")
OF_CONTAINER = TimeSpec(integer=True)
GOPS = {
    "g": "12",
    "bf": "2",
    "sc_threshold": "0",
}  # a key frame each 12 frames, and frames that are coded before those they follow


def read(
    path: Path,
    images: ImageOptions = AS_RECORDED,
    *,
    on_bad: OnBad = "refuse",
    time: TimeSpec = OF_CONTAINER,
    unit: str | None = None,
    **more: Any,
) -> tuple[ImageRows | None, list[Finding]]:
    findings = Findings()
    stream = ImageStream(name="cam", files=("*",), kind="video", time=time, on_bad=on_bad, unit=unit)
    rows = read_video(path.parent, [path.name], stream, findings, images=images, **more)
    return rows, list(findings)


def whole(path: Path, images: ImageOptions = AS_RECORDED, **more: Any) -> ImageRows:
    rows, findings = read(path, images, **more)
    assert rows is not None, [str(finding) for finding in findings]
    return rows


def decoded(rows: ImageRows) -> NDArray[np.uint8]:
    return np.stack([simplejpeg.decode_jpeg(rows.encoded(row).tobytes()) for row in range(rows.num_rows)])


def frame_numbers(rows: ImageRows, rate: int = 30) -> list[int]:
    return [round(stamp * rate / 1e9) for stamp in rows.timestamp.tolist()]


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


KINDS = [
    ("libx264", "mp4", "yuv420p", GOPS),
    ("libx264", "mkv", "yuv444p", GOPS),
    ("libx264", "mov", "yuv422p", GOPS),
    ("libx265", "mp4", "yuv420p10le", {"x265-params": "log-level=none:keyint=12"}),
    ("libsvtav1", "mp4", "yuv420p", {"svtav1-params": "preset=12"}),
    ("libvpx-vp9", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    ("ffv1", "mkv", "yuv420p", {}),
    ("ffv1", "avi", "bgr0", {}),
    ("libx264", "mp4", "gray", {}),
]


@pytest.mark.parametrize(("codec", "ending", "pix_fmt", "options"), KINDS)
def test_frames_and_times_are_those_of_pyav(
    tmp_path: Path, codec: str, ending: str, pix_fmt: str, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / f"v.{ending}", frames_of(30), codec=codec, pix_fmt=pix_fmt, options=options)
    expected, times = shown_by_av(path)
    rows = whole(path, RAW)
    assert np.array_equal(rows.data, expected)
    assert rows.timestamp.dtype == np.int64
    assert rows.timestamp.tolist() == [round(time * 1_000_000_000) for time in times]


def test_frames_of_avi_have_the_times_of_their_places_because_avi_stores_none(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", frames_of(30), options=GOPS)
    rows = whole(path, RAW)
    assert np.array_equal(rows.data, shown_by_av(path)[0])
    assert rows.timestamp.tolist() == [round(Fraction(i, 30) * 1_000_000_000) for i in range(30)]


@pytest.mark.parametrize("quality", [95, 60])
def test_jpeg_has_the_quality_that_is_said_and_the_loss_is_told(tmp_path: Path, quality: int) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(70, 160, 120), options=GOPS)
    rows, findings = read(path, ImageOptions(quality=quality))
    assert rows is not None
    made, expected = decoded(rows), shown_by_av(path)[0]
    looked_at = [*range(0, 64, 8), 64]
    together, worst = (
        psnr_db(made[looked_at], expected[looked_at]),
        min(psnr_db(made[i], expected[i]) for i in looked_at),
    )
    (note,) = findings
    assert (note.code, note.severity, note.file) == ("video.lossy", "note", "v.mp4")
    said = f"{together:.1f} dB in 9 of 70 frames, {worst:.1f} dB at worst; h264 as JPEG of quality {quality}"
    assert note.found == said
    assert rows.psnr_db == pytest.approx(together)


def test_smaller_frames_are_made_from_the_decoded_ones(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(8, 160, 120))
    rows = whole(path, ImageOptions(size=(80, 60)))
    assert (rows.width, rows.height, decoded(rows).shape) == (80, 60, (8, 60, 80, 3))
    halved = shown_by_av(path)[0].reshape(8, 60, 2, 80, 2, 3).mean(axis=(2, 4))
    assert min(psnr_db(made, small) for made, small in zip(decoded(rows), halved, strict=True)) > 28


def test_png_keeps_every_pixel(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(5))
    rows, findings = read(path, ImageOptions(storage="png"))
    assert rows is not None
    assert not findings
    made = [np.asarray(Image.open(io.BytesIO(rows.encoded(row).tobytes()))) for row in range(5)]
    assert np.array_equal(made, shown_by_av(path)[0])


@pytest.mark.parametrize("size", [(63, 47), (65, 49)])
def test_odd_sides(tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(6, *size), pix_fmt="yuv444p")
    rows = whole(path, RAW)
    assert rows.data.shape == (6, size[1], size[0], 3)
    assert np.array_equal(rows.data, shown_by_av(path)[0])


@pytest.mark.parametrize(("space", "limits"), [(1, 1), (1, 2), (6, 1), (6, 2)])
def test_colour_is_that_of_the_picture_whatever_matrix_and_range_it_was_coded_in(
    tmp_path: Path, space: int, limits: int
) -> None:
    drawn = frames_of(4)
    path = make_video(tmp_path / "v.mp4", drawn, pix_fmt="yuv444p", colour=(space, limits), options={"crf": "1"})
    rows = whole(path, RAW)
    assert np.array_equal(rows.data, shown_by_av(path)[0])
    assert (
        np.abs(rows.data.astype(int) - np.stack(drawn)).mean() < 3
    )  # another matrix is off by 10, another range by 12


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotation_tag_is_applied_as_players_do_and_said(tmp_path: Path, degrees: int) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(5), degrees=degrees)
    rows, findings = read(path, RAW)
    assert rows is not None
    coded = shown_by_av(path)[0]
    with av.open(str(path)) as container:
        turns = next(container.decode(video=0)).rotation // 90  # counterclockwise
    assert turns % 4
    assert np.array_equal(rows.data, np.rot90(coded, turns, axes=(1, 2)))
    assert (rows.height, rows.width) == rows.data.shape[1:3]
    assert codes(findings) == ["video.rotated"]


def test_a_mirrored_video_is_shown_mirrored(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(3), degrees=180)
    data = path.read_bytes()
    one, none = struct.pack(">i", 1 << 16), struct.pack(">i", 0)
    turned = struct.pack(">9i", -(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30)
    at = data.index(turned[:20])
    mirrored = struct.pack(">i", -(1 << 16)) + none * 3 + one  # a = -1, d = 1
    path.write_bytes(data[:at] + mirrored + data[at + 20 :])
    assert np.array_equal(whole(path, RAW).data, shown_by_av(path)[0][:, :, ::-1])


def test_a_variable_rate_and_a_first_stamp_that_is_not_zero(tmp_path: Path) -> None:
    stamps = [7, 10, 11, 19, 40, 41, 90, 100]
    path = make_video(
        tmp_path / "v.mkv", frames_of(8), stamps=stamps, time_base=Fraction(1, 1000), rate=1000, options=GOPS
    )
    rows = whole(path, RAW)
    assert rows.timestamp.tolist() == [stamp * 1_000_000 for stamp in stamps]
    assert np.array_equal(rows.data, shown_by_av(path)[0])


def test_thirds_of_a_second_are_rounded_to_the_nearest_nanosecond(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(6), rate=3, time_base=Fraction(1, 3))
    assert whole(path).timestamp.tolist() == [0, 333333333, 666666667, 1000000000, 1333333333, 1666666667]


def test_an_edit_list_hides_frames_as_players_do(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(30), options=GOPS)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst")
    assert int.from_bytes(data[at + 8 : at + 12]) == 1  # one edit, whose media time follows its duration
    time = int.from_bytes(data[at + 16 : at + 20]) + 15360 // 30 * 5  # five frames later
    data[at + 16 : at + 20] = time.to_bytes(4)
    path.write_bytes(data)
    expected, times = shown_by_av(path)
    assert len(expected) == 25
    rows, findings = read(path, RAW)
    assert rows is not None, findings
    assert np.array_equal(rows.data, expected)
    assert rows.timestamp.tolist() == [round(time * 1_000_000_000) for time in times]


def test_times_by_a_rate_count_the_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(10))
    rows = whole(path, time=TimeSpec(index_rate_hz=15, offset_s=2.0))
    assert rows.timestamp.tolist() == [round(Fraction(i, 15) * 10**9) + 2 * 10**9 for i in range(10)]


@pytest.mark.parametrize("num_stamps", [9, 10, 11])
def test_times_of_another_file_are_one_a_frame(tmp_path: Path, num_stamps: int) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(10))
    clock = ClockFile(timestamp=np.arange(num_stamps) * 1e9, names=None, place=ClockLocation(file="t.txt"))
    rows, findings = read(path, time=TimeSpec(file="t.txt"), clock=clock)
    assert (rows is not None) == (num_stamps == 10)
    assert ("clock.count" in codes(findings)) == (num_stamps != 10)


def test_a_part_begins_and_ends_at_its_very_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(100), options=GOPS)
    expected, _ = shown_by_av(path)
    for first, past in ((0, 7), (1, 2), (11, 13), (12, 24), (25, 61), (40, 100), (99, 100)):
        rows = whole(path, RAW, times=(first / 30, past / 30))
        assert np.array_equal(rows.data, expected[first:past]), (first, past)
        assert frame_numbers(rows) == [*range(past - first)]
        by_rate = whole(path, times=(first / 30, past / 30), time=TimeSpec(rows_of="robot"))
        assert by_rate.timestamp.tolist() == [*range(past - first)]


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "ffv1"])
def test_a_part_of_other_codings(tmp_path: Path, codec: str) -> None:
    options = {"libx265": {"x265-params": "log-level=none:keyint=10:open-gop=1:bframes=4"}, "libsvtav1": {"g": "10"}}
    path = make_video(tmp_path / "v.mkv", frames_of(60), codec=codec, options=options.get(codec, {}))
    expected, _ = shown_by_av(path)
    for first, past in ((0, 5), (9, 12), (21, 40), (33, 60)):
        rows = whole(path, RAW, times=(first / 30, past / 30))
        assert np.array_equal(rows.data, expected[first:past]), (first, past)


def test_a_part_decodes_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(240), options=GOPS)
    packets = []
    monkeypatch.setattr(PacketCount, "add", lambda _, packet: packets.append(packet.pts))
    whole(path, times=(200 / 30, 205 / 30))
    assert len(packets) < 40


def test_a_part_that_the_video_does_not_have(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(10))
    rows, findings = read(path, times=(5.0, 6.0))
    assert rows is None
    assert "no frame from 5.000 to 6.000 s" in findings[0].found


@pytest.mark.parametrize("ending", ["avi", "mkv", "mov"])
def test_whole_jpegs_within_a_video_are_kept_byte_for_byte(tmp_path: Path, ending: str) -> None:
    path = make_video(tmp_path / f"v.{ending}", frames_of(12), codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    rows, findings = read(path)
    assert rows is not None
    assert [rows.encoded(row).tobytes() for row in range(12)] == packets
    assert not findings
    assert whole(path, times=(0.1, 0.2)).num_rows == 3


def test_motion_jpeg_without_huffman_tables_is_decoded(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", frames_of(6), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    while (at := data.find(b"\xff\xc4")) >= 0:  # turned into a comment, which is passed over
        data[at + 1] = 0xFE
    path.write_bytes(data)
    rows, findings = read(path)
    assert rows is not None
    assert codes(findings) == ["video.lossy"]
    assert min(psnr_db(*pair) for pair in zip(decoded(rows), shown_by_av(path)[0], strict=True)) > 30


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "libx264"), ("mkv", "ffv1")]
)
def test_a_truncated_video_is_refused_or_its_whole_frames_are_kept(tmp_path: Path, ending: str, codec: str) -> None:
    made = make_video(tmp_path / f"m.{ending}", frames_of(60), codec=codec, options=GOPS if codec == "libx264" else {})
    path = add_packets(made, tmp_path / f"v.{ending}", muxer={"movflags": "faststart"} if ending == "mp4" else None)
    expected = shown_by_av(path)[0]
    cut(path, 0.6)
    rows, findings = read(path, RAW)
    assert (rows, codes(findings)) == (None, ["video.damaged"])
    rows, findings = read(path, RAW, on_bad="drop")
    assert rows is not None
    kept = frame_numbers(rows)
    assert kept[:-4] == [*range(len(kept) - 4)]  # the last ones may lack a frame that was coded after those behind it
    assert np.array_equal(rows.data, expected[kept])
    assert codes(findings) == ["video.frames_left_out"]
    lost = sum(int(count) for count in re.findall(r"(\d+) (?:damaged|missing)", findings[0].found))
    assert rows.num_dropped == lost == 60 - len(kept), findings[0].found


def damage(path: Path, packet_number: int) -> int:
    """Overwrites half of a packet; returns the number of its frame."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        pos, size, pts = (getattr(packets[packet_number], name) for name in ("pos", "size", "pts"))
        number = sorted(packet.pts for packet in packets).index(pts)
    data = bytearray(path.read_bytes())
    for at in range(pos + size // 2, pos + size):
        data[at] ^= 0xA5
    path.write_bytes(data)
    return number


@pytest.mark.parametrize("packet", [0, 12, 25])
def test_a_damaged_frame_is_left_out_with_those_predicted_from_it(tmp_path: Path, packet: int) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(60), options={**GOPS, "crf": "5", "threads": "1"})
    expected = shown_by_av(path)[0]
    number = damage(path, packet)
    rows, findings = read(path, RAW)
    assert (rows, codes(findings)) == (None, ["video.damaged"])
    refused = findings[0].found
    rows, findings = read(path, RAW, on_bad="drop")
    assert rows is not None
    kept = frame_numbers(rows)
    lost = sorted({*range(60)} - {*kept})
    assert refused == findings[0].found == f"{len(lost)} damaged from frame {lost[0]} on"
    assert number not in kept
    assert set(range(number // 12 * 12 + 12, 60)) <= set(kept)  # from the next key frame on
    assert np.array_equal(rows.data, expected[kept])  # no frame is kept that differs
    by_rate = whole(path, on_bad="drop", time=TimeSpec(index_rate_hz=30))
    assert frame_numbers(by_rate) == kept  # a lost frame has a number all the same


def test_frames_before_the_first_key_frame_are_lost(tmp_path: Path) -> None:
    made = make_video(tmp_path / "m.mkv", frames_of(40), options=GOPS)
    path = add_packets(made, tmp_path / "v.mkv", drop=3)
    expected = shown_by_av(made)[0]
    rows, findings = read(path, RAW)
    assert (rows, codes(findings)) == (None, ["video.damaged"])
    rows, findings = read(path, RAW, on_bad="drop")
    assert rows is not None
    assert np.array_equal(rows.data, expected[-rows.num_rows :])
    assert rows.num_rows >= 28


def test_depth_in_a_lossless_video_is_kept_as_it_is(tmp_path: Path) -> None:
    depth = [np.add.outer(np.arange(48) * 900, np.arange(64) * 11 + number).astype(np.uint16) for number in range(5)]
    path = make_video(tmp_path / "v.mkv", depth, codec="ffv1", pix_fmt="gray16le", array_format="gray16le")
    rows = whole(path, RAW, unit="mm")
    assert rows.data.dtype == np.uint16
    assert np.array_equal(rows.data[..., 0], np.stack(depth))
    assert whole(path, unit="mm").storage == "png"
    for images in (RAW, ImageOptions()):  # without a unit, eight of its bits would be lost
        rows, findings = read(path, images)
        assert (rows, codes(findings)) == (None, ["image.no_unit"])
    colour = make_video(tmp_path / "c.mp4", frames_of(5))
    rows, findings = read(colour, unit="mm")
    assert (rows, codes(findings)) == (None, ["image.coding"])


def test_a_second_video_stream_is_said_to_be_unread(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=30, width=64, height=48, pix_fmt="bgr0") for _ in range(2)]
        for number, (at, stream) in itertools.product(range(3), enumerate(streams)):
            frame = av.VideoFrame.from_ndarray(picture(10 * at + number), format="rgb24").reformat(format="bgr0")
            frame.pts = number
            container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    rows, findings = read(path, RAW)
    assert rows is not None
    assert np.array_equal(rows.data, np.stack(frames_of(3)))
    assert codes(findings) == ["video.several_streams"]


def test_a_video_beside_sound_is_read(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", frames_of(8), audio=True)
    assert np.array_equal(whole(path, RAW).data, shown_by_av(path)[0])


def test_the_source_is_the_file_with_its_digest(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(4))
    source = whole(path).source
    assert (source.path, source.num_files, source.num_bytes) == ("v.mp4", 1, path.stat().st_size)
    assert source.sha256 == sha256(path.read_bytes()).hexdigest()
