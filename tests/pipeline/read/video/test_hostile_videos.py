"""Files that are no video, or that would make a decoder take all memory, are refused; nothing else is opened."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from videos import frames_of, make_video

from vlapipe.pipeline.read.video.video import read_video
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

CAMERA = ImageStream(name="cam", files=("*",), kind="video", time=TimeSpec(integer=True))


def refused(path: Path) -> str:
    findings = Findings()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_video(path.parent, [path.name], CAMERA, findings) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    (finding,) = findings.errors
    assert finding.file == path.name
    return finding.found


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4) + kind + data


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "v.mp4", frames_of(10))


def overwrite(path: Path, after: bytes, at: int, *values: int) -> Path:
    """Replaces 32-bit numbers, ``at`` bytes behind the name of a box."""
    data = bytearray(path.read_bytes())
    start = data.index(after) + 4 + at
    data[start : start + 4 * len(values)] = b"".join(value.to_bytes(4) for value in values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "at", "values"),
    [(b"stsz", 4, (1, 10**9)), (b"stsz", 8, (10**9,)), (b"stts", 8, (10**9,)), (b"stts", 8, (2**32 - 1,))],
)
def test_a_billion_frames_declared(video: Path, kind: bytes, at: int, values: tuple[int, ...]) -> None:
    assert "frames declared in a file of" in refused(overwrite(video, kind, at, *values))


def test_a_fragment_that_declares_a_billion_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames_of(10), muxer={"movflags": "frag_keyframe+empty_moov"})
    assert "frames declared in a file of" in refused(overwrite(path, b"trun", 4, 10**9))


def test_a_recording_without_its_index(video: Path) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"moov") - 4])
    assert refused(video) == "no index (moov): the recorder was stopped before it had written one"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a video at all, only text\n" * 9,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"\x1a\x45\xdf\xa3" + bytes(64),
        b"RIFF\x40\x00\x00\x00AVI " + bytes(64),
        b"\x00\x00\x00\x18ftypisom" + bytes(64),
        b"\x00\x00\x00\x18ftypisom" + bytes(12) + box(b"moov", box(b"cmov", bytes(32))),
        b"\x00\x00\x00\x01ftyp" + (2**63 - 1).to_bytes(8) + bytes(64),
    ],
)
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    assert refused(tmp_path / "v.mp4")


def test_a_file_with_sound_alone(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(path) == "no video stream; the file holds audio"


def test_frames_of_more_pixels_than_any_camera_has(video: Path) -> None:
    overwrite(video, b"avc1", 24, 60000 << 16 | 60000)  # the decoder finds the coded size for itself
    findings = Findings()
    rows = read_video(video.parent, [video.name], CAMERA, findings)
    assert rows is None or (rows.width, rows.height) == (64, 48)


def test_a_tail_of_zeros_and_random_bytes_in_the_middle(video: Path) -> None:
    """Bytes of every box are overwritten in turn: each file is read or refused, none ends the process."""
    data = video.read_bytes()
    script = (
        "import sys; from pathlib import Path; from test_hostile_videos import *\n"
        "for name in sys.argv[1:]:\n"
        "    path = Path(name); findings = Findings()\n"
        "    rows = read_video(path.parent, [path.name], CAMERA, findings)\n"
        "    assert rows is not None or findings.errors, name\n"
    )
    paths = []
    for number, at in enumerate(range(0, len(data), len(data) // 60)):
        broken = bytearray(data)
        broken[at : at + 4] = b"\xff\xff\xff\xfe" if number % 2 else bytes(4)
        paths.append(video.with_name(f"{at}.mp4"))
        paths[-1].write_bytes(broken)
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        env={"PYTHONPATH": ":".join([here, *sys.path])},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
