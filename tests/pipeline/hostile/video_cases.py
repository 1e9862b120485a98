"""Hostile videos: playlists in disguise, sizes and counts that lie, and streams that are bombs."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
from bombs import deflated_zeros
from image_cases import JPEG, episode, jpeg_of_size, png
from lab import MARKER, Lab, case
from videos import frames_of, make_video


def box(kind: bytes, *content: bytes) -> bytes:
    """Return a box of an MP4."""
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + kind + data


def camera(lab: Lab, content: bytes | Path, name: str = "episode_1", ending: str = "mp4") -> None:
    """Write an episode whose camera is this file."""
    episode(lab, name)
    lab.file(f"{name}/cam.{ending}", content.read_bytes() if isinstance(content, Path) else content)


def video(lab: Lab, ending: str = "mp4", **options: object) -> bytes:
    """Return a video of ten frames."""
    path = make_video(lab.root / f"made.{ending}", frames_of(10), **options)  # type: ignore[arg-type]
    data = path.read_bytes()
    path.unlink()
    return data


def overwritten(data: bytes, after: bytes, at: int, *values: int) -> bytes:
    """Return the file with other 32-bit numbers, ``at`` bytes behind the name of a box."""
    changed = bytearray(data)
    start = data.index(after) + 4 + at
    changed[start : start + 4 * len(values)] = b"".join(value.to_bytes(4, "big") for value in values)
    return bytes(changed)


def _bits(*fields: tuple[int, int] | int) -> bytes:
    """Return bits: ``(value, width)``, or a number in Exp-Golomb code."""
    text = ""
    for field in fields:
        if isinstance(field, tuple):
            text += format(field[0], f"0{field[1]}b")
        else:
            code = format(field + 1, "b")
            text += "0" * (len(code) - 1) + code
    text += "1"
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def sps(width: int, height: int) -> bytes:
    """Return H.264's description of frames of any size, baseline."""
    fields = _bits(
        (66, 8), (0, 8), (62, 8), 0, 0, 2, 16, (0, 1), width // 16 - 1, height // 16 - 1, (1, 1), (1, 1), (0, 1), (0, 1)
    )
    return b"\x67" + fields.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1")


def h264(lab: Lab, width: int, height: int, num_frames: int = 30) -> bytes:
    """Return an MP4 whose stream says another size than its index."""
    pps = b"\x68" + _bits(0, 0, (0, 1), (0, 1), 0, 0, 0, (0, 1), (0, 2), 0, 0, 0, (0, 1), (0, 1), (0, 1))
    frames = frames_of(num_frames)
    path = make_video(
        lab.root / "made.mp4", frames, options={"x264-params": "annexb=0:bframes=0", "profile": "baseline"}
    )
    data = path.read_bytes()
    path.unlink()
    at = data.index(b"avcC")
    old = data[at - 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")]
    about = sps(width, height)
    config = (
        b"\x01"
        + about[1:4]
        + b"\xff\xe1"
        + struct.pack(">H", len(about))
        + about
        + b"\x01"
        + struct.pack(">H", len(pps))
        + pps
    )
    config = config.ljust(len(old) - 8, b"\0")
    assert len(config) == len(old) - 8
    return data[: at + 4] + config + data[at + 4 + len(config) :]


@case("video", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    for ending in ("mp4", "mkv", "avi"):
        camera(lab, video(lab, ending), f"episode_{ending}", ending)


@case("video", "playlists, concat files, subtitles and other texts", "episode_00/cam.mp4")
def _(lab: Lab) -> None:
    make_video(lab.outside / "b.mp4", frames_of(10))
    inside, web = f"file://{lab.outside}/b.mp4", f"http://127.0.0.1:{lab.port}/b.mp4"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-TARGETDURATION:1\n"
    texts = [
        f"{head}#EXTINF:1,\n{web}\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:1,\n{inside}\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:1,\nconcat:{lab.outside}/secret.txt|{inside}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{lab.outside}/b.mp4'\n",
        "ffconcat version 1.0\nfile '../outside/b.mp4'\n",
        f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{web}\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {lab.port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{web}</BaseURL></Representation></AdaptationSet></Period></MPD>',  # noqa: E501
        "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
        "[Script Info]\nScriptType: v4.00+\n",
        f"rtsp://127.0.0.1:{lab.port}/x",
        f"[InternetShortcut]\nURL={web}\n",
        f"ffmetadata1\n;FFMETADATA1\ntitle={inside}\n",
    ]
    for i, content in enumerate(texts):
        for ending in ("mp4", "avi", "mkv") if i < 4 else ("mp4",):
            camera(lab, content.encode(), f"episode_{i:02d}{ending if ending != 'mp4' else ''}", ending)


@case("video", "a movie whose samples lie in another file", "episode_1/cam.mp4", kept=True)
def _(lab: Lab) -> None:
    other = make_video(lab.outside / "b.mp4", frames_of(10))
    data = video(lab)
    url = f"file://{other}".encode() + b"\0"
    for i, reference in enumerate(
        (box(b"url ", bytes(4), url), box(b"alis", bytes(4), b"\0" * 150 + str(other).encode()))
    ):
        at = data.index(b"dref") - 4
        size = int.from_bytes(data[at : at + 4], "big")
        entry = data[at + 16 : at + size]
        camera(
            lab, data[: at + 16] + reference[: len(entry)].ljust(len(entry), b"\0") + data[at + size :], f"episode_{i}"
        )
    redirect = box(
        b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(url)), url)))
    )
    camera(lab, box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + redirect)


@case("video", "an AVI whose subtitles are a playlist", kept=True)
def _(lab: Lab) -> None:
    """FFmpeg once read any file by such a stream (GAB2)."""
    data = bytearray(video(lab, "avi"))
    web = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{lab.outside}/secret.txt\n#EXTINF:1,\nhttp://127.0.0.1:{lab.port}/x\n".encode()
    gab2 = b"GAB2\0\2\0" + struct.pack("<I", 2) + b"x\0" + b"\4\0" + struct.pack("<I", len(web)) + web
    gab2 += b"\0" * (len(gab2) % 2)
    head = (
        b"strl",
        b"strh" + struct.pack("<I", 56) + b"txts" + bytes(16) + struct.pack("<IIIIIII", 1, 1, 0, 1, 0, 0, 0) + bytes(8),
    )
    stream = head[0] + head[1] + b"strf" + struct.pack("<I", 40) + bytes(40)
    listed = b"LIST" + struct.pack("<I", len(stream)) + stream
    at = data.index(b"movi") - 8
    packets = b"01tx" + struct.pack("<I", len(gab2)) + gab2
    data[at + 12 : at + 12] = packets
    data[at + 4 : at + 8] = struct.pack("<I", int.from_bytes(data[at + 4 : at + 8], "little") + len(packets))
    first = data.index(b"LIST")
    size = int.from_bytes(data[first + 4 : first + 8], "little")
    data[first + 8 + size : first + 8 + size] = listed
    data[first + 4 : first + 8] = struct.pack("<I", size + len(listed))
    data[4:8] = struct.pack("<I", len(data) - 8)
    camera(lab, bytes(data), ending="avi")


@case("video", "a billion frames declared", "episode_0/cam.mp4", "frames declared")
def _(lab: Lab) -> None:
    data = video(lab)
    changed = [
        (b"stsz", 4, (1, 10**9)),
        (b"stsz", 8, (10**9,)),
        (b"stts", 8, (10**9,)),
        (b"stts", 8, (2**32 - 1,)),
        (b"stsc", 4, (10**9,)),
    ]
    changed += [
        (b"stco", 4, (10**9,)),
        (b"stss", 4, (10**9,)),
        (b"stsc", 12, (10**9,)),
        (b"elst", 4, (10**9,)),
        (b"dref", 4, (10**9,)),
    ]
    changed += [(b"stsd", 4, (10**9,))]
    for i, (kind, at, values) in enumerate(changed):
        camera(lab, overwritten(data, kind, at, *values), f"episode_{i}")
    fragmented = video(lab, muxer={"movflags": "frag_keyframe+empty_moov"})
    camera(lab, overwritten(fragmented, b"trun", 4, 10**9), "episode_x")


@case("video", "time scales of 0, 1 and 2**32 - 1, and stamps below 0", kept=True)
def _(lab: Lab) -> None:
    data = video(lab)
    for i, scale in enumerate((0, 1, 2**32 - 1)):
        camera(lab, overwritten(data, b"mdhd", 12, scale), f"episode_{i}")
    camera(lab, overwritten(data, b"elst", 8, 0xFFFFFFFF, 0x80000000), "episode_3")
    camera(lab, overwritten(data, b"elst", 8, 1, 0x7FFFFFFF), "episode_4")
    camera(lab, overwritten(data, b"mvhd", 16, 0xFFFFFFFF), "episode_5")
    camera(lab, overwritten(data, b"stts", 12, 0xFFFFFFFF), "episode_6")
    camera(lab, overwritten(data, b"stts", 12, 0), "episode_7")
    camera(
        lab, video(lab, "mkv", stamps=[2**40 * i for i in range(10)], time_base=Fraction(1, 1000)), "episode_8", "mkv"
    )
    camera(lab, overwritten(data, b"tkhd", 40, *[0xFFFFFFFF] * 9), "episode_9")


@case("video", "a stream that says 16384 x 16384", "episode_1/cam.mp4", kept=True, limit_s=40)
def _(lab: Lab) -> None:
    camera(lab, h264(lab, 16384, 16384))


@case("video", "a stream that says 9984 x 9984", "episode_1/cam.mp4", kept=True, limit_s=40)
def _(lab: Lab) -> None:
    camera(lab, h264(lab, 9984, 9984))


@case(
    "video",
    "a stream that says 8192 x 8192 and leaves damaged frames out",
    "episode_1/cam.mp4",
    kept=True,
    limit_s=40,
    schema="video drop",
)
def _(lab: Lab) -> None:
    camera(lab, h264(lab, 8192, 8192))


@case("video", "pictures of 65500 x 65500 and bombs as frames", kept=True, limit_s=40)
def _(lab: Lab) -> None:
    data = video(lab, "avi", codec="mjpeg", pix_fmt="yuvj420p")
    at = data.index(b"\xff\xc0", data.index(b"movi"))
    camera(lab, data[: at + 5] + struct.pack(">HH", 65500, 65500) + data[at + 9 :], "episode_0", "avi")
    whole = video(lab, "avi", codec="png", pix_fmt="rgb24", options={"pred": "none"})
    start = whole.index(b"\x89PNG")
    bomb = png(9990, 9990, deflated_zeros(29_971 * 9990, 15))
    camera(lab, whole[:start] + bomb[: len(whole) - start], "episode_1", "avi")
    head = whole.index(b"IHDR", start)
    camera(lab, whole[: head + 4] + struct.pack(">II", 60_000, 60_000) + whole[head + 12 :], "episode_2", "avi")


@case("video", "raw frames of 30000 x 30000 in an AVI of a few bytes", "episode_1/cam.avi", kept=True)
def _(lab: Lab) -> None:
    data = bytearray(video(lab, "avi", codec="rawvideo", pix_fmt="bgr24"))
    at = data.index(b"strf") + 8
    data[at + 4 : at + 12] = struct.pack("<ii", 30_000, 30_000)
    camera(lab, bytes(data), ending="avi")


@case("video", "sizes of boxes and elements that lie", "episode_00/cam.mp4", kept=True)
def _(lab: Lab) -> None:
    contents = [
        b"", b"\0\0\0\x18ftypisom" + bytes(64), b"\0\0\0\1ftyp" + (2**63 - 1).to_bytes(8, "big") + bytes(64),
        b"\0\0\0\x18ftypisom" + bytes(12) + box(b"moov", box(b"cmov", bytes(32))),
        box(b"ftyp", b"isom", bytes(4)) + box(b"moov", *[box(b"trak")] * 100_000),
        box(b"ftyp", b"isom", bytes(4)) + b"\0\0\0\x08free" * 300_000,
        b"\x1a\x45\xdf\xa3" + bytes(64), b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + bytes(64), b"RIFF\x40\0\0\0AVI " + bytes(64),  # noqa: E501
        b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrlavih" + b"\xff" * 60, MARKER[:3] * 99, JPEG, jpeg_of_size(65500, 65500),  # noqa: E501
    ]  # fmt: skip
    deep = b""
    for _ in range(5000):
        deep = box(b"moov", deep)
    for i, content in enumerate([*contents, box(b"ftyp", b"isom", bytes(4)) + deep]):
        camera(lab, content, f"episode_{i:02d}")


def _broken(ending: str) -> None:
    @case("video", f"bytes overwritten at 40 places of an {ending}", kept=True, limit_s=40)
    def _(lab: Lab) -> None:
        data = video(lab, ending)
        rng = np.random.default_rng(1)
        for i, at in enumerate(np.linspace(0, len(data) - 4, 40).astype(int).tolist()):
            broken = bytearray(data)
            broken[at : at + 4] = b"\xff\xff\xff\xfe" if i % 2 else rng.bytes(4)
            camera(lab, bytes(broken), f"episode_{i:02d}", ending)


for _ending in ("mp4", "mkv", "avi"):
    _broken(_ending)


@case("video", "videos cut short at 12 places", "cam.mp4")
def _(lab: Lab) -> None:
    data = video(lab)
    for i, at in enumerate(np.linspace(1, len(data) - 1, 12).astype(int).tolist()):
        camera(lab, data[:at], f"episode_{i:02d}")


@case("video", "8 GB of holes after a good beginning", "episode_1/cam.mp4")
def _(lab: Lab) -> None:
    camera(lab, video(lab))
    with (lab.raw / "episode_1/cam.mp4").open("r+b") as file:
        file.truncate(8 << 30)


@case("video", "a pipe called MP4", "episode_1")
def _(lab: Lab) -> None:
    import os

    episode(lab)
    os.mkfifo(lab.raw / "episode_1/cam.mp4")
