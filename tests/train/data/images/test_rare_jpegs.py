"""Every image that ingest keeps is one that training decodes: as viewers show it, or ingest names it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_lab import codes, picture, run, write
from numpy.typing import NDArray
from PIL import Image

import vlapipe
from vlapipe.pipeline.read.images import checks
from vlapipe.schemas.errors import DamageError

KEY = "observation.images.camera"
NUM = 12  # images of an episode


def jpeg(number: int, **options: Any) -> bytes:
    file = io.BytesIO()
    larger = picture(number).repeat(4, 0).repeat(4, 1)
    Image.fromarray(larger).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def before(marker: bytes, inserted: bytes) -> Callable[[bytes], bytes]:
    return lambda file: file[: (at := file.index(marker))] + inserted + file[at:]


def without(kind: int) -> Callable[[bytes], bytes]:
    def cut(file: bytes) -> bytes:
        parts, at = [file[:2]], 2
        while file[at + 1] != 0xDA:
            end = at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
            parts.append(b"" if file[at + 1] == kind else file[at:end])
            at = end
        return b"".join([*parts, file[at:]])

    return cut


def with_restarts(change: Callable[[bytes, int], bytes]) -> Callable[[bytes], bytes]:
    def changed(file: bytes) -> bytes:
        again = io.BytesIO()
        Image.open(io.BytesIO(file)).save(again, "JPEG", quality=90, restart_marker_blocks=8)
        file = again.getvalue()
        return change(file, file.index(b"\xff\xd1", file.index(b"\xff\xda")))

    return changed


def at_middle(change: Callable[[bytes, int], bytes]) -> Callable[[bytes], bytes]:
    return lambda file: change(file, (file.index(b"\xff\xda") + len(file)) // 2)


def with_samplings(file: bytes, *samplings: int) -> bytes:
    at, changed = file.index(b"\xff\xc0"), bytearray(file)
    for i, sampling in enumerate(samplings):
        changed[at + 11 + 3 * i] = sampling
    return bytes(changed)


DQT, SOS, EOI = b"\xff\xdb", b"\xff\xda", b"\xff\xd9"
# Kinds that viewers show whole.
WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "stray bytes before the end": lambda file: file[:-2] + b"\x12\x34\x56" * 4 + EOI,
    "many stray bytes before the end": lambda file: file[:-2] + bytes(range(1, 40)) + EOI,
    "stray zeros before the end": lambda file: file[:-2] + bytes(8) + EOI,
    "stray bytes between segments": before(DQT, b"\x00\x11\x22"),
    "stray bytes before the data": before(SOS, b"\x00\x01"),
    "stray bytes in both places": lambda file: before(DQT, b"\x01\x02")(file)[:-2] + b"\x12\x34" + EOI,
    "fill bytes between segments": before(DQT, b"\xff\xff\xff"),
    "bytes after the end": lambda file: file + b"junk after the end",
    "no tables of codes": without(0xC4),
    "no JFIF segment": without(0xE0),
    "restarts": with_restarts(lambda file, _: file),
    "a second end": lambda file: file + EOI,
    "a comment that looks like an end": before(DQT, b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"),
    "no restarts, said so": before(SOS, b"\xff\xdd\x00\x04\x00\x00"),
}
# Kinds that viewers show with a part grey or shifted, or not at all: named at ingest, or shown alike in training.
DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "restarts out of order": with_restarts(lambda file, at: file[:at] + b"\xff\xd5" + file[at + 2 :]),
    "a restart is lost": with_restarts(lambda file, at: file[:at] + file[at + 2 :]),
    "restarts are said and missing": before(SOS, b"\xff\xdd\x00\x04\x00\x05"),
    "no tables of levels": without(0xDB),
    "two starts": lambda file: file[:2] + file,
    "a bit is flipped": at_middle(lambda file, at: file[:at] + bytes([file[at] ^ 0x10]) + file[at + 1 :]),
    "the half is lost": at_middle(lambda file, at: file[:at] + EOI),
    "a packet is lost": at_middle(lambda file, at: file[:at] + file[at + 40 :]),
    "no end": lambda file: file[:-2],
    "wrong subsampling 4:4:1": lambda file: with_samplings(file, 0x14, 0x11, 0x11),
    "wrong subsampling 4:1:0": lambda file: with_samplings(file, 0x42, 0x11, 0x11),
    "subsampling that no decoder knows": lambda file: with_samplings(file, 0x22, 0x22, 0x22),
    "no size": lambda file: file[: (at := file.index(b"\xff\xc0")) + 5] + b"\0\0" + file[at + 7 :],
    "a marker in the data": at_middle(lambda file, at: file[:at] + b"\xff\xc4\x00\x10" + file[at:]),
}


def shown(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def trained(data: Path) -> NDArray[np.uint8]:
    loader = vlapipe.Loader(vlapipe.open_dataset(data), batch_size=5, shuffle=False, split=None)
    return np.concatenate([batch[KEY][:, 0].permute(0, 2, 3, 1).numpy() for batch in loader])


@pytest.mark.parametrize("every", [True, False], ids=["every image", "one image"])
@pytest.mark.parametrize("kind", WHOLE)
def test_what_viewers_show_whole_is_kept_and_trained_on(tmp_path: Path, kind: str, every: bool) -> None:
    files = [WHOLE[kind](jpeg(i)) if every or i == 4 else jpeg(i) for i in range(NUM)]
    raw = write(tmp_path / "raw", lambda i: files[i], suffix="jpg", episodes=1, num=NUM)
    report = run(raw, tmp_path / "data")
    assert not report.rejects
    assert vlapipe.open_dataset(tmp_path / "data").episode(0).jpeg("camera", 4) == files[4]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        images = trained(tmp_path / "data")
    for image, file in zip(images, files, strict=False):
        np.testing.assert_array_equal(image, shown(file))
    texts = [str(warning.message) for warning in told if "camera" in str(warning.message)]
    assert len(texts) == (1 if "stray" in kind else 0)
    if texts:
        number = 0 if every else 4
        where = (
            rf"episode_0: camera camera: image {number} of episode_0/cam \(counted from 0 .* its time is 100\.{number}"
        )
        assert re.match(where, texts[0])


@pytest.mark.parametrize("way", ["as recorded", "raw", "smaller"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_damaged_is_named_at_ingest_or_ends_no_training(tmp_path: Path, kind: str, way: str) -> None:
    options: dict[str, Any] = {"as recorded": {}, "raw": {"image_storage": "raw"}, "smaller": {"image_size": (50, 40)}}
    files = [DAMAGED[kind](jpeg(i)) if i == 4 else jpeg(i) for i in range(NUM)]
    raw = write(tmp_path / "raw", lambda i: files[i], suffix="jpg", episodes=1, num=NUM)
    report = run(raw, tmp_path / "data", **options[way])
    if report.rejects:
        assert {file for file, _ in codes(report).values()} == {"episode_0/cam/100.400000.jpg"}
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        images = trained(tmp_path / "data")
    assert len(images) == NUM - 1
    if way == "as recorded":
        np.testing.assert_array_equal(images[4], shown(files[4]))
        has_told = any("image 4 of episode_0/cam" in str(warning.message) for warning in told)
        assert has_told or kind == "a bit is flipped"  # which a decoder may take for another picture


def test_damage_that_ingest_did_not_look_for_is_shown_in_training_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [DAMAGED["a packet is lost"](jpeg(i)) if i in (4, 5) else jpeg(i) for i in range(NUM)]
    raw = write(tmp_path / "raw", lambda i: files[i], suffix="jpg", episodes=1, num=NUM)
    monkeypatch.setattr(checks, "decode_fault", lambda _: None)
    assert not run(raw, tmp_path / "data").rejects
    with pytest.warns(UserWarning, match=r"image 4 of episode_0/cam .*: Corrupt JPEG data.* decode = \"all\"") as told:
        images = trained(tmp_path / "data")
    np.testing.assert_array_equal(images[5], shown(files[5]))
    assert sum("episode_0" in str(warning.message) for warning in told) == 1  # once a camera


def test_an_image_that_nothing_decodes_is_named_by_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [DAMAGED["no tables of levels"](jpeg(i)) if i == 4 else jpeg(i) for i in range(NUM)]
    raw = write(tmp_path / "raw", lambda i: files[i], suffix="jpg", episodes=1, num=NUM)
    monkeypatch.setattr(checks, "decode_fault", lambda _: None)
    run(raw, tmp_path / "data")
    where = r"episode_0: camera camera: image 4 of episode_0/cam \(counted from 0 in order of time; its time is 100\.4"
    with pytest.raises(DamageError, match=where) as refused:
        trained(tmp_path / "data")
    assert "shard" not in str(refused.value)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": "4:1:1"}, {"subsampling": "4:4:4", "optimize": True}]
)
def test_usual_kinds_of_jpeg_train_as_viewers_show_them(tmp_path: Path, options: dict[str, Any]) -> None:
    files = [jpeg(i, **options) for i in range(NUM)]
    raw = write(tmp_path / "raw", lambda i: files[i], suffix="jpg", episodes=1, num=NUM)
    assert not run(raw, tmp_path / "data").rejects
    np.testing.assert_array_equal(trained(tmp_path / "data")[3], shown(files[3]))


def test_headers_that_were_seen_to_decode_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders with tables of their own for each image would cost a decoding of all images."""
    files = [jpeg(i, optimize=True, exif=b"Exif\0\0" + bytes([i] * 20)) for i in range(40)]
    files.sort(key=len)
    data = np.frombuffer(b"".join(files), dtype=np.uint8)
    offset = np.cumsum([0, *map(len, files)])
    decoded: list[int] = []
    monkeypatch.setattr(checks, "decode_fault", lambda file: decoded.append(len(file)))
    checked = checks.check_images(data, offset, "suspects")
    assert not checked.faults
    assert len(decoded) <= 12  # the smallest quarter, and one for its header
