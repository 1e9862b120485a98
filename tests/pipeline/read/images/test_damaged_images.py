"""Images whose data is damaged inside are found before training; they cost their episode, or only themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from factories import make_jpeg

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema

NUM = 24
SCHEMA = """
    name = "t"
    [episodes]
    {episodes}
    [split]
    val = 0
    [streams.robot]
    kind = "csv"
    files = ["robot.csv"]
    time = {{ column = "t" }}
    fields = {{ x = {{ columns = ["x"] }} }}
    [streams.camera]
    kind = "images"
    files = ["cam/*.jpg"]
    {camera}
    [action]
    kind = "next"
    of = ["robot/x"]
    """


def picture(seed: int) -> bytes:
    return make_jpeg(seed, height=96, width=128)


def lost_packet(jpeg: bytes) -> bytes:
    return jpeg[: len(jpeg) // 2] + jpeg[len(jpeg) // 2 + len(jpeg) // 6 : -2] + jpeg[-2:]


def hole_of_zeros(jpeg: bytes) -> bytes:
    at = len(jpeg) * 2 // 3
    return jpeg[:at] + bytes(64) + jpeg[at + 64 :]


def foreign_block(jpeg: bytes) -> bytes:
    at = len(jpeg) * 2 // 3
    return jpeg[:at] + b"\xff\x01\xff\xc4" * 8 + jpeg[at + 32 :]


def write(root: Path, damaged: dict[int, bytes], episodes: int = 2) -> Path:
    for e in range(episodes):
        folder = root / "raw" / f"episode_{e}"
        (folder / "cam").mkdir(parents=True)
        rows = [f"{e * 100 + i / 10},{i}" for i in range(NUM)]
        (folder / "robot.csv").write_text("\n".join(["t,x", *rows, ""]))
        for i in range(NUM):
            data = damaged.get(i) if e == 1 else None
            (folder / "cam" / f"{e * 100 + i / 10:.6f}.jpg").write_bytes(picture(i) if data is None else data)
    return root / "raw"


def run(root: Path, camera: str = "", episodes: str = 'folders = ["episode_*"]', **options: Any) -> IngestReport:
    (root / "s.toml").write_text(SCHEMA.format(camera=camera, episodes=episodes))
    options.setdefault("out", root / "data")
    return ingest(IngestConfig(source=root / "raw", schema=str(root / "s.toml"), **options))


@pytest.mark.parametrize("damage", [lost_packet, hole_of_zeros, foreign_block])
def test_damage_inside_an_image_is_named_by_default(tmp_path: Path, damage: Any) -> None:
    broken = damage(picture(7))
    with pytest.raises(ValueError, match=r"."):
        simplejpeg.decode_jpeg(broken)
    write(tmp_path, {7: broken})
    [reject] = run(tmp_path).rejects
    assert [(r["code"], r["file"]) for r in reject["reasons"]] == [
        ("image.undecodable", "episode_1/cam/100.700000.jpg")
    ]
    assert "on_bad = 'drop'" in reject["reasons"][0]["message"]


def test_damage_that_shows_neither_in_size_nor_in_bytes_is_found_if_all_are_decoded(tmp_path: Path) -> None:
    """One wrong bit lets the decoder lose its place; only decoding tells."""
    good = picture(7)
    flipped = next(
        changed
        for at in range(len(good) // 2, len(good) - 2)
        for changed in [good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]]
        if good[at] not in (0xFF, 0xEF) and good[at - 1] != 0xFF and _complaint(changed)
    )
    write(tmp_path, {7: flipped, 8: picture(8) * 1})
    [reject] = run(tmp_path, 'decode = "all"').rejects
    assert [r["file"] for r in reject["reasons"]] == ["episode_1/cam/100.700000.jpg"]


def _complaint(jpeg: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(jpeg)
    except ValueError:
        return True
    return False


BAD = {
    0: b"",
    3: picture(3)[:-300],
    7: lost_packet(picture(7)),
    12: b"not an image",
    NUM - 1: hole_of_zeros(picture(5)),
}


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
@pytest.mark.parametrize("options", [{}, {"image_size": (64, 48)}, {"image_storage": "raw"}])
def test_only_the_damaged_images_are_left_out_if_the_schema_says_so(
    tmp_path: Path, options: dict[str, Any], shard_format: str
) -> None:
    write(tmp_path, BAD)
    report = run(tmp_path, 'on_bad = "drop"', shard_format=shard_format, **options)
    assert report.rejects == []
    dropped = [finding for finding in report.findings if finding["code"] == "image.dropped"]
    assert [f["file"] for f in dropped] == [f"episode_1/cam/{100 + i / 10:.6f}.jpg" for i in sorted(BAD)]
    assert {f["severity"] for f in dropped} == {"note"}
    assert report.summary()["image.dropped"]["places"] == 5
    episode = vlapipe.open_dataset(tmp_path / "data").episode("episode_1")
    kept = [i for i in range(NUM) if i not in BAD]
    assert episode["camera/timestamp"].tolist() == [100 + i / 10 for i in kept]
    assert episode["align/camera"].tolist() == [sum(k <= i for k in kept) - 1 for i in range(NUM)]
    assert episode.row["sources"][1]["num_files"] == NUM
    if not options:
        assert [episode.jpeg("camera", row) for row in range(len(kept))] == [picture(i) for i in kept]
    elif "image_storage" in options:
        expected = [simplejpeg.decode_jpeg(picture(i)) for i in kept]
        assert np.array_equal(episode["camera/pixels"], np.stack(expected))


def test_camera_without_a_good_image_is_still_refused(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(range(NUM), b""))
    [reject] = run(tmp_path, 'on_bad = "drop"').rejects
    assert "image.none" in {reason["code"] for reason in reject["reasons"]}


def test_dropped_images_keep_the_others_at_the_stamps_of_a_clock_of_their_own(tmp_path: Path) -> None:
    raw = write(tmp_path, {7: b""})
    for folder in raw.iterdir():
        start = 100.0 * int(folder.name[-1])
        (folder / "times.txt").write_text("".join(f"{start + i / 10}\n" for i in range(NUM)))
    camera = 'on_bad = "drop"\none_per_row = true\ntime = { file = "times.txt" }'
    assert run(tmp_path, camera).rejects == []
    episode = vlapipe.open_dataset(tmp_path / "data").episode("episode_1")
    assert episode["camera/timestamp"].tolist() == [100.0 + i / 10 for i in range(NUM) if i != 7]


def test_findings_about_the_clock_keep_their_lines_behind_a_dropped_image(tmp_path: Path) -> None:
    raw = write(tmp_path, {7: b""})
    for folder in raw.iterdir():
        start = 100.0 * int(folder.name[-1])
        times = [start + i / 10 - (i >= 12) * 0.04 for i in range(NUM)]
        (folder / "times.txt").write_text("".join(f"{t}\n" for t in times))
    report = run(tmp_path, 'on_bad = "drop"\nmax_gap_s = 0.15\ntime = { file = "times.txt" }')
    lines = {f["episode"]: f["line"] for f in report.findings if f["code"] == "clock.gap"}
    assert lines == {"episode_1": 9}  # the image before is gone


@pytest.mark.parametrize("options", [{}, {"image_storage": "raw"}])
def test_damaged_image_costs_only_the_episode_of_the_file_that_holds_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    raw = write(tmp_path, {7: lost_packet(picture(7)), 8: b""}, episodes=2)
    (raw / "episode_0" / "robot.csv").unlink()
    rows = [f"{100 + i / 10},{i},{i // 6}" for i in range(NUM)]
    (raw / "episode_1" / "robot.csv").write_text("\n".join(["t,x,episode", *rows, ""]))
    report = run(tmp_path, episodes='split_column = "episode"', **options)
    [reject] = report.rejects
    assert reject["episode"] == "episode_1/1"
    assert {(r["code"], r["file"]) for r in reject["reasons"]} == {
        ("image.undecodable", "episode_1/cam/100.700000.jpg"),
        ("image.empty", "episode_1/cam/100.800000.jpg"),
    }
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert [dataset.episode(i).id for i in range(3)] == ["episode_1/0", "episode_1/2", "episode_1/3"]
    if not options:
        assert [dataset.episode(1).jpeg("camera", k) for k in range(6)] == [picture(i) for i in range(12, 18)]


def test_one_image_fewer_than_rows_says_the_cure(tmp_path: Path) -> None:
    raw = write(tmp_path, {})
    for i, image in enumerate(sorted((raw / "episode_1" / "cam").iterdir())):
        image.rename(image.with_name(f"{i:06d}.jpg")) if i < NUM - 1 else image.unlink()
    for i, image in enumerate(sorted((raw / "episode_0" / "cam").iterdir())):
        image.rename(image.with_name(f"{i:06d}.jpg"))
    camera = 'time = { rate_hz = 10, starts_with = "robot" }'
    [reject] = run(tmp_path, camera + "\none_per_row = true").rejects
    [reason] = reject["reasons"]
    assert reason["code"] == "image.count"
    assert "found 23; numbered images belong to rows 0 to 22 if one_per_row is left out" in reason["message"]
    assert run(tmp_path, camera, out=tmp_path / "cured").rejects == []
    episode = vlapipe.open_dataset(tmp_path / "cured").episode("episode_1")
    assert episode["align/camera"].tolist() == [*range(NUM - 1), NUM - 2]


def test_dropping_needs_all_images_decoded() -> None:
    with pytest.raises(UsageError, match="decode: images can be dropped only if all are decoded"):
        parse_schema(SCHEMA.format(camera='on_bad = "drop"\ndecode = "suspects"', episodes=""), "t")
