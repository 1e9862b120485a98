"""PNG files and depth are kept byte for byte, trained on exactly, and refused by name where they are damaged."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_lab import HEIGHT, WIDTH, codes, depth, encoded, picture, run, write
from numpy.typing import NDArray
from PIL import Image

import vlapipe
from vlapipe.pipeline.read.images.png import read_png_header
from vlapipe.pipeline.shards.format import png_decode

IMAGES = "observation.images.camera"


def trained(data: Path, **options: Any) -> NDArray[Any]:
    """The images of all samples in recorded order, ``(N, C, height, width)``."""
    loader = vlapipe.Loader(vlapipe.open_dataset(data), batch_size=4, shuffle=False, split=None, **options)
    return np.concatenate([batch[IMAGES][:, 0].numpy() for batch in loader])


def kept(raw: Path, data: Path) -> bool:
    """Whether every stored file equals the recorded one."""
    dataset = vlapipe.open_dataset(data)
    same = []
    for episode in (dataset.episode(i) for i in range(len(dataset))):
        files = sorted((raw / episode.id / "cam").iterdir(), key=lambda file: float(file.stem))
        same += [episode.image_file("camera", i) == file.read_bytes() for i, file in enumerate(files)]
    return all(same) and bool(same)


def as_palette(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(64).save(file, "PNG")
    return file.getvalue()


KINDS = {
    "colour": lambda i: encoded(picture(i)),
    "gray": lambda i: encoded(picture(i)[..., 0]),
    "palette": lambda i: as_palette(picture(i)),
    "alpha": lambda i: encoded(np.dstack([picture(i), picture(i)[..., 0]])),
    "transparent colour": lambda i: encoded(picture(i), transparency=(1, 2, 3)),
    "gray with alpha": lambda i: encoded(picture(i)[..., :2]),
}


@pytest.mark.parametrize("decoder", ["the fastest", "pillow"])
@pytest.mark.parametrize("kind", KINDS)
def test_png_is_kept_byte_for_byte_and_trains_as_every_viewer_shows_it(
    tmp_path: Path, kind: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write(tmp_path / "raw", KINDS[kind])
    report = run(raw, tmp_path / "data")
    assert not report.rejects
    assert kept(raw, tmp_path / "data")
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["format_version"] == 4
    if decoder == "pillow":
        monkeypatch.setattr(png_decode, "_imagecodecs", lambda: None)
    images = trained(tmp_path / "data")
    shown = [np.asarray(Image.open(io.BytesIO(KINDS[kind](i))).convert("RGB")) for i in (*range(5), *range(6, 11))]
    np.testing.assert_array_equal(images, np.stack(shown).transpose(0, 3, 1, 2))


def test_colours_that_are_exchanged_in_png_files_train_as_they_are(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(picture(i)[..., ::-1].copy()))
    run(raw, tmp_path / "data", 'channels = "bgr"')
    np.testing.assert_array_equal(trained(tmp_path / "data")[0], picture(0).transpose(2, 0, 1))


def damaged(png: bytes, how: str) -> bytes:
    middle = len(png) // 2
    if how == "a flipped bit":
        return png[:middle] + bytes([png[middle] ^ 4]) + png[middle + 1 :]
    if how == "cut short":
        return png[:middle]
    if how == "no end":
        return png[:-12]
    return without_half_of_the_lines(png)


def without_half_of_the_lines(png: bytes) -> bytes:
    """The file of an encoder that failed: every checksum is right, and half of the lines are missing."""
    at = png.index(b"IDAT")
    length = int.from_bytes(png[at - 4 : at], "big")
    lines = zlib.decompress(png[at + 4 : at + 4 + length])
    data = zlib.compress(lines[: len(lines) // 2])
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    return png[: at - 4] + chunk + png[at + 8 + length :]


@pytest.mark.parametrize("how", ["a flipped bit", "cut short", "no end", "half of the lines"])
@pytest.mark.parametrize("unit", ["", 'unit = "mm"'])
def test_a_damaged_png_is_named_and_can_be_left_out(tmp_path: Path, how: str, unit: str) -> None:
    def image(i: int) -> bytes:
        png = encoded(depth(i) if unit else picture(i))
        return damaged(png, how) if i == 3 else png

    raw = write(tmp_path / "raw", image)
    report = run(raw, tmp_path / "data", unit)
    assert report.num_episodes == 1
    ((code, (file, _)),) = codes(report).items()
    assert (code, file) in {(c, "episode_0/cam/100.300000.png") for c in ("image.truncated", "image.undecodable")}
    dropped = run(raw, tmp_path / "less", f'{unit}\non_bad = "drop"')
    assert dropped.num_episodes == 2
    assert vlapipe.open_dataset(tmp_path / "less").episode(0).row["camera/rows"] == 5


def test_a_png_that_claims_more_than_any_camera_has_is_refused(tmp_path: Path) -> None:
    def image(i: int) -> bytes:
        png = encoded(picture(i))
        header = struct.pack(">II", 60_000, 60_000) + png[24:29]
        return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]

    assert "image.too_large" in codes(run(write(tmp_path / "raw", image), tmp_path / "data"))


def test_depth_trains_as_its_own_numbers(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(depth(i)))
    report = run(raw, tmp_path / "data", 'unit = "mm"')
    assert not report.rejects
    assert kept(raw, tmp_path / "data")
    images = trained(tmp_path / "data")
    assert images.dtype == np.uint16
    np.testing.assert_array_equal(images[:5], np.stack([depth(i) for i in range(5)])[:, None])
    manifest = vlapipe.open_dataset(tmp_path / "data").manifest
    assert manifest.depth_unit("camera") == "mm"
    assert manifest.image_storage("camera") == "png"


def test_depth_without_a_unit_is_told_what_to_write(tmp_path: Path) -> None:
    report = run(write(tmp_path / "raw", lambda i: encoded(depth(i))), tmp_path / "data")
    assert not report.num_episodes
    ((code, (file, message)),) = codes(report).items()
    assert (code, file) == ("image.no_unit", "episode_0/cam/100.000000.png")
    assert "say unit = 'mm'" in message
    assert "JPEG" not in message
    assert len(report.rejects[0]["reasons"]) == 1  # once a camera, not once an image


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_is_no_depth_is_named(tmp_path: Path, kind: str) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(picture(i), kind) if i == 2 else encoded(depth(i)))
    report = run(raw, tmp_path / "data", 'unit = "mm"')
    assert {code: file for code, (file, _) in codes(report).items()} == {
        "image.not_depth": "episode_0/cam/100.200000.png"
    }


@pytest.mark.parametrize(("units", "factor"), [('unit = "mm"\nfile_unit = "0.2 mm"', 0.2), ('unit = "0.5 mm"', 1)])
def test_depth_in_another_unit_is_brought_to_that_of_the_camera(tmp_path: Path, units: str, factor: float) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(depth(i)))
    report = run(raw, tmp_path / "data", units)
    np.testing.assert_array_equal(trained(tmp_path / "data")[0, 0], np.rint(depth(0) * factor))
    assert ("image.depth_rounded" in codes(report)) == (factor != 1)


def test_depth_that_does_not_fit_the_unit_is_named(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(depth(i)))
    report = run(raw, tmp_path / "data", 'unit = "um"\nfile_unit = "mm"')
    file, message = codes(report)["image.depth_range"]
    assert file == "episode_0/cam/100.000000.png"
    assert "0 to 65535 um" in message


def test_stored_smaller_depth_is_the_nearest_pixel_and_colour_is_png_again(tmp_path: Path) -> None:
    for name, image, unit in (("deep", depth, 'unit = "mm"'), ("colour", picture, "")):
        raw = write(tmp_path / name, lambda i, image=image: encoded(image(i)))  # type: ignore[misc]
        run(raw, tmp_path / f"{name}-data", unit, image_size=(WIDTH // 2, HEIGHT // 2))
        images = trained(tmp_path / f"{name}-data")
        assert images.shape[2:] == (HEIGHT // 2, WIDTH // 2)
        first = vlapipe.open_dataset(tmp_path / f"{name}-data").episode(0).image_file("camera", 0)
        assert read_png_header(first)[:2] == (HEIGHT // 2, WIDTH // 2)
        if unit:
            np.testing.assert_array_equal(images[0, 0], depth(0)[1::2, 1::2])
        else:
            assert np.abs(images[0].astype(int) - picture(0)[1::2, 1::2].transpose(2, 0, 1)).mean() < 16


@pytest.mark.parametrize("storage", ["jpeg", "png", "raw"])
def test_storage_that_is_asked_for_and_what_it_costs_is_said(tmp_path: Path, storage: str) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(picture(i)))
    report = run(raw, tmp_path / "data", image_storage=storage)
    entry = report.cameras["camera"]
    dataset = vlapipe.open_dataset(tmp_path / "data")
    episodes = [dataset.episode(i) for i in range(2)]
    num_bytes = sum(e["camera/pixels" if storage == "raw" else "camera/bytes"].nbytes for e in episodes)
    assert (entry["as"], entry["images"], entry["bytes"]) == (storage, 12, num_bytes)
    assert dataset.manifest.image_storage("camera") == storage
    images = trained(tmp_path / "data").astype(float)
    error = images[:5] - np.stack([picture(i) for i in range(5)]).transpose(0, 3, 1, 2)
    if storage != "jpeg":
        assert entry["psnr_db"] is None
        assert not error.any()
        return
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    assert entry["psnr_db"] == pytest.approx(psnr, abs=0.5)
    assert dataset.manifest.streams["camera"]["psnr_db"] == pytest.approx(entry["psnr_db"], abs=0.06)
    worse = run(raw, None, image_storage=storage, image_quality=50, dry_run=True).cameras["camera"]
    assert worse["psnr_db"] < entry["psnr_db"]
    assert worse["bytes"] < entry["bytes"]
    assert worse["decode_s"] > 0


@pytest.mark.parametrize("storage", ["jpeg", "raw"])
def test_depth_loses_nothing_whatever_is_asked_for(tmp_path: Path, storage: str) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(depth(i)))
    report = run(raw, tmp_path / "data", 'unit = "mm"', image_storage=storage)
    assert report.cameras["camera"]["as"] == {"jpeg": "png"}.get(storage, storage)
    np.testing.assert_array_equal(trained(tmp_path / "data")[0, 0], depth(0))


def test_deep_colour_is_refused_with_a_cure(tmp_path: Path) -> None:
    """A PNG of 16 bits a colour, which decoders cut to 8 bits in different ways."""
    lines = b"".join(b"\0" + bytes(6 * WIDTH) for _ in range(HEIGHT))
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ):
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    report = run(write(tmp_path / "raw", lambda _: png), tmp_path / "data")
    assert "16 bits a sample in colour" in codes(report)["image.coding"][1]


OTHERS = {"webp": {"lossless": True}, "bmp": {}, "tiff": {}}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_format_is_named_with_its_cure_and_kept_without_loss(tmp_path: Path, kind: str) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(picture(i), kind.upper(), **OTHERS[kind]), suffix=kind)
    report = run(raw, tmp_path / "refused")
    file, message = codes(report)["image.format"]
    assert file == f"episode_0/cam/100.000000.{kind}"
    assert "convert = 'png'" in message
    assert not run(raw, tmp_path / "data", 'convert = "png"').rejects
    np.testing.assert_array_equal(trained(tmp_path / "data")[0], picture(0).transpose(2, 0, 1))


def test_depth_in_metres_in_tiff_files_is_kept_in_millimetres(tmp_path: Path) -> None:
    def metres(i: int) -> NDArray[np.float32]:
        values = depth(i) / np.float32(1000)
        values[1, 1] = np.nan
        return values.astype(np.float32)

    raw = write(tmp_path / "raw", lambda i: encoded(metres(i), "TIFF"), suffix="tiff")
    report = run(raw, tmp_path / "data", 'convert = "png"\nunit = "mm"\nfile_unit = "m"')
    expected = depth(0)
    expected[1, 1] = 0
    np.testing.assert_array_equal(trained(tmp_path / "data")[0, 0], expected)
    found = codes(report)
    assert "image.depth_holes" in found
    assert "image.depth_rounded" not in found  # float32 metres of whole millimetres


def test_broken_file_of_another_format_is_named(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", lambda i: encoded(picture(i), "BMP")[: 300 if i == 4 else None], suffix="bmp")
    report = run(raw, tmp_path / "data", 'convert = "png"')
    assert {code: file for code, (file, _) in codes(report).items() if code != "image.converted"} == {
        "image.undecodable": "episode_0/cam/100.400000.bmp"
    }
