"""``--image-size`` and ``--image-storage`` in whole runs: what is stored, what is refused, what is reported."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import zarr
from factories import make_dataset, make_episode, make_jpeg

import vlapipe
from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.infer.trial import try_schema
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.plan.image_sample import look_at_images
from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.shard_file import map_arrays
from vlapipe.pipeline.show.inspection import inspect_dataset
from vlapipe.pipeline.show.inspection_text import print_dataset
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.registry import load_schema

CAMERAS = ("View1", "View2")
WAYS: dict[str, dict[str, Any]] = {
    "small": {"image_size": (16, 16)},
    "raw": {"image_storage": "raw"},
    "small and raw": {"image_size": (16, 16), "image_storage": "raw"},
}


def run(source: Path, out: Path | None = None, **options: Any) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, dry_run=out is None, **options))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def raw_images(raw: Path, episode: str, camera: str) -> list[bytes]:
    files = sorted((raw / episode / "images" / camera).iterdir(), key=lambda p: float(p.stem))
    return [file.read_bytes() for file in files]


def make_images(episode: Path, camera: str, *, height: int, width: int) -> None:
    """Give all images of a camera another size."""
    for seed, file in enumerate(sorted((episode / "images" / camera).iterdir())):
        file.write_bytes(make_jpeg(seed, height=height, width=width))


def reasons(report: IngestReport) -> list[tuple[str, str]]:
    return [(reason["code"], reason["file"]) for reject in report.rejects for reason in reject["reasons"]]


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
def test_raw_images_are_the_decoded_files_mapped_in_place(tiny_raw: Path, tmp_path: Path, shard_format: str) -> None:
    report = run(tiny_raw, tmp_path / "data", image_storage="raw", shard_format=shard_format, shard_bytes=300_000)
    assert (report.num_episodes, report.num_shards > 1, report.rejects) == (4, True, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for i in range(len(dataset)):
        episode = dataset.episode(i)
        for camera in CAMERAS:
            files = raw_images(tiny_raw, episode.id, camera)
            decoded = np.stack([simplejpeg.decode_jpeg(file, colorspace="RGB") for file in files])
            pixels = episode[f"{camera}/pixels"]
            assert np.array_equal(pixels, decoded)
            assert pixels.flags.c_contiguous
            assert f"{camera}/bytes" not in episode
            assert (episode.row[f"{camera}/height"], episode.row[f"{camera}/width"]) == (24, 32)
    for shard in (tmp_path / "data" / "shards").iterdir():
        assert {f"{camera}/pixels" for camera in CAMERAS} <= set(map_arrays(shard, shard_format)[1])


def test_plain_numpy_and_zarr_open_raw_images(tiny_raw: Path, tmp_path: Path) -> None:
    read = {}
    for shard_format in ("npz", "zarr"):
        run(tiny_raw, tmp_path / shard_format, image_storage="raw", shard_format=shard_format)
        (shard,) = (tmp_path / shard_format / "shards").iterdir()
        if shard_format == "npz":
            read[shard_format] = np.load(shard)["View1/pixels"]
        else:
            with zarr.storage.ZipStore(shard, mode="r") as store:
                read[shard_format] = np.asarray(zarr.open_group(store, mode="r")["View1/pixels"][:])
    assert read["npz"].shape == (4 * 9, 24, 32, 3)
    assert np.array_equal(read["npz"], read["zarr"])


def test_small_images_have_the_size_and_the_table_says_so(tiny_raw: Path, tmp_path: Path) -> None:
    run(tiny_raw, tmp_path / "data", image_size=(20, 10))
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for i in range(len(dataset)):
        episode = dataset.episode(i)
        for camera in CAMERAS:
            sizes = {
                simplejpeg.decode_jpeg(episode.jpeg(camera, row)).shape for row in range(episode.row[f"{camera}/rows"])
            }
            assert sizes == {(10, 20, 3)}
            assert (episode.row[f"{camera}/height"], episode.row[f"{camera}/width"]) == (10, 20)


def test_images_that_have_the_size_pass_through_untouched(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    large = raw / "insert_red" / "episode_20260101_000000"
    make_images(large, "View1", height=48, width=64)
    run(raw, tmp_path / "data", image_size=(32, 24))
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for episode in (dataset.episode(i) for i in range(2)):
        for camera in CAMERAS:
            stored = [episode.jpeg(camera, row) for row in range(episode.row[f"{camera}/rows"])]
            is_resized = episode.id.endswith("000000") and camera == "View1"
            assert (stored == raw_images(raw, episode.id, camera)) is not is_resized
            assert {simplejpeg.decode_jpeg_header(image)[:2] for image in stored} == {(24, 32)}


def recode(file: Path, subsampling: str) -> None:
    """Encode an image again with colour at another resolution."""
    pixels = simplejpeg.decode_jpeg(file.read_bytes())
    file.write_bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling=subsampling))


def test_each_camera_keeps_its_own_colour_resolution(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    colours = {"View1": "420", "View2": "444"}
    for camera, subsampling in colours.items():
        for file in raw.glob(f"*/*/images/{camera}/*.jpg"):
            recode(file, subsampling)
    run(raw, tmp_path / "data", image_size=(20, 10))
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    for camera, subsampling in colours.items():
        assert simplejpeg.decode_jpeg_header(episode.jpeg(camera, 0)) == (10, 20, "YCbCr", subsampling)


def test_raw_and_jpeg_of_one_size_hold_nearly_the_same_images(tiny_raw: Path, tmp_path: Path) -> None:
    for storage in ("jpeg", "raw"):
        run(tiny_raw, tmp_path / storage, image_size=(16, 16), image_storage=storage)
    jpeg, raw = (vlapipe.open_dataset(tmp_path / storage).episode(0) for storage in ("jpeg", "raw"))
    decoded = np.stack([simplejpeg.decode_jpeg(jpeg.jpeg("View1", row), colorspace="RGB") for row in range(9)])
    error = decoded.astype(float) - raw["View1/pixels"]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35


def manifest_of(dataset: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((dataset / "manifest.json").read_text())
    return document


def test_manifest_says_how_images_are_stored_and_only_raw_needs_version_2(
    tiny_raw: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    for name, options in WAYS.items():
        run(tiny_raw, tmp_path / name, **options)
    documents = {"as recorded": manifest_of(tiny_dataset), **{name: manifest_of(tmp_path / name) for name in WAYS}}
    storage = {name: {d["streams"][camera]["storage"] for camera in CAMERAS} for name, d in documents.items()}
    assert storage == {"as recorded": {"jpeg"}, "small": {"jpeg"}, "raw": {"raw"}, "small and raw": {"raw"}}
    versions = {name: d["format_version"] for name, d in documents.items()}
    assert versions == {"as recorded": 1, "small": 1, "raw": 2, "small and raw": 2}
    keys = ("image_size", "image_quality", "image_colour", "image_scales", "image_storage")
    assert {name: [d["made_with"][key] for key in keys] for name, d in documents.items()} == {
        "as recorded": [None, None, None, None, "recorded"],
        "small": [[16, 16], 95, "as recorded", [8, 4, 2, 1], "recorded"],
        "raw": [None, None, None, None, "raw"],
        "small and raw": [[16, 16], None, None, [8, 4, 2, 1], "raw"],
    }


@pytest.mark.parametrize("way", WAYS)
def test_one_and_two_workers_write_identical_files(tiny_raw: Path, tmp_path: Path, way: str) -> None:
    for workers in (1, 2):
        run(tiny_raw, tmp_path / str(workers), workers=workers, shard_bytes=400_000, **WAYS[way])
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


@pytest.mark.parametrize("way", WAYS)
def test_unfinished_run_with_other_images_is_not_mixed_in(tmp_path: Path, way: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=4)
    broken = raw / "insert_red" / "episode_20260101_000002" / "robot_states.csv"
    good = broken.read_text()
    broken.write_text("")
    with pytest.raises(VlapipeError, match="--strict"):
        run(raw, tmp_path / "data", shard_bytes=1, strict=True, workers=1)
    assert list((tmp_path / "data" / ".ingest").glob("shard-*.json"))
    broken.write_text(good)
    report = run(raw, tmp_path / "data", shard_bytes=1, workers=1, **WAYS[way])
    assert report.num_resumed_shards == 0
    run(raw, tmp_path / "whole", shard_bytes=1, workers=1, **WAYS[way])
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


@pytest.mark.parametrize("way", ["small", "small and raw"])
def test_run_of_a_version_that_made_images_smaller_in_another_way_is_not_finished(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=4)
    broken = raw / "insert_red" / "episode_20260101_000002" / "robot_states.csv"
    good = broken.read_text()
    broken.write_text("")
    described = ImageOptions.described
    with monkeypatch.context() as earlier:
        new = ("image_colour", "image_scales")
        earlier.setattr(
            ImageOptions, "described", lambda self: {k: v for k, v in described(self).items() if k not in new}
        )
        with pytest.raises(VlapipeError, match="--strict"):
            run(raw, tmp_path / "data", shard_bytes=1, strict=True, workers=1, **WAYS[way])
    assert list((tmp_path / "data" / ".ingest").glob("shard-*.json"))
    broken.write_text(good)
    assert run(raw, tmp_path / "data", shard_bytes=1, workers=1, **WAYS[way]).num_resumed_shards == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real-sized images: 640x480."""
    raw = tmp_path_factory.mktemp("demo") / "raw"
    make_demo(raw, num_episodes=3, workers=1)
    return raw


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"image_size": (112, 112)}, 9_000_000),
        ({"image_size": (112, 112), "image_storage": "raw"}, 18_000_000),
        ({"image_storage": "raw"}, 140_000_000),
    ],
)
def test_dry_run_and_shard_size_go_by_what_will_be_stored(
    demo: Path, tmp_path: Path, options: dict[str, Any], limit: int
) -> None:
    dry = run(demo, shard_bytes=limit, **options)
    real = run(demo, tmp_path / "data", shard_bytes=limit, **options)
    assert dry.expected is not None
    assert dry.expected.stored_bytes == pytest.approx(real.stored_bytes, rel=0.03)
    assert dry.num_shards == real.num_shards == 3
    sizes = [shard["bytes"] for shard in manifest_of(tmp_path / "data")["shards"]]
    assert max(sizes) <= 1.1 * limit
    totals = manifest_of(tmp_path / "data")["totals"]
    assert totals["stored_bytes"]["View1"] < sum(sizes)
    if "image_storage" in options:
        width, height = options.get("image_size", (640, 480))
        rows = vlapipe.open_dataset(tmp_path / "data").column("View1/rows").sum()
        assert totals["stored_bytes"]["View1"] == pytest.approx(rows * height * width * 3, rel=0.01)


def test_room_for_small_images_is_foreseen_by_each_camera_s_colour_resolution(demo: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(demo, raw)
    for file in raw.rglob("*.jpg"):
        recode(file, "444" if file.parent.name == "View1" else "420")
    run(raw, tmp_path / "data", image_size=(224, 224))
    stored = manifest_of(tmp_path / "data")["totals"]["stored_bytes"]
    discovery = discover(raw, load_schema("meca500"))
    sample = look_at_images(discovery, CAMERAS, ImageOptions(size=(224, 224)))
    for camera in CAMERAS:
        foreseen = sum(sample.stored_bytes(camera, episode.files[camera]) for episode in discovery.episodes)
        assert foreseen == pytest.approx(stored[camera], rel=0.03)


def test_shards_are_filled_by_the_images_that_will_be_stored(demo: Path) -> None:
    files = [file for file in demo.rglob("*") if file.is_file()]
    in_images = sum(file.stat().st_size for file in files if file.suffix == ".jpg")
    limit = sum(file.stat().st_size for file in files) - in_images // 2
    assert run(demo, shard_bytes=limit).num_shards == 2
    assert run(demo, shard_bytes=limit, image_size=(64, 64)).num_shards == 1


def test_raw_takes_the_size_that_most_episodes_have_and_sets_others_aside(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=4)
    odd = "insert_blue/episode_20260101_000001"  # the first in order
    make_images(raw / odd, "View2", height=48, width=64)
    report = run(raw, tmp_path / "data", image_storage="raw")
    assert reasons(report) == [("image.size_differs", f"{odd}/images/View2")]
    assert "--image-size" in report.rejects[0]["reasons"][0]["message"]
    assert run(raw, image_storage="raw").rejects == report.rejects
    assert vlapipe.open_dataset(tmp_path / "data").episode(0)["View2/pixels"].shape[1:] == (24, 32, 3)
    assert run(raw, tmp_path / "one_size", image_storage="raw", image_size=(32, 24)).num_episodes == 4
    assert run(raw, tmp_path / "jpeg").num_episodes == 4


def test_images_that_claim_more_than_any_camera_has_do_not_decide_the_size(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    first = "insert_blue/episode_20260101_000001"
    for file in (raw / first / "images" / "View1").iterdir():
        jpeg = file.read_bytes()
        at = jpeg.index(b"\xff\xc0") + 5
        file.write_bytes(jpeg[:at] + struct.pack(">HH", 20_000, 20_000) + jpeg[at + 4 :])
    report = run(raw, tmp_path / "data", image_storage="raw")
    assert report.num_episodes == 1
    assert {code for code, _ in reasons(report)} == {"image.too_large"}


def test_size_that_most_episodes_have_is_part_of_what_a_resume_must_share(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=3)
    for number in (1, 2):
        (episode,) = raw.glob(f"*/episode_20260101_00000{number}")
        make_images(episode, "View1", height=48, width=64)
    (raw / "insert_red" / "episode_20260101_000002" / "robot_states.csv").write_text("")
    with pytest.raises(VlapipeError, match="--strict"):
        run(raw, tmp_path / "data", shard_bytes=1, strict=True, workers=1, image_storage="raw")
    shutil.rmtree(raw / "insert_red" / "episode_20260101_000002")
    make_episode(raw / "insert_red" / "episode_20260101_000002", num_rows=60, seed=2)
    report = run(raw, tmp_path / "data", shard_bytes=1, workers=1, image_storage="raw")
    assert reasons(report) == [("image.size_differs", "insert_blue/episode_20260101_000001/images/View1")]
    run(raw, tmp_path / "whole", shard_bytes=1, workers=1, image_storage="raw")
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


@pytest.mark.parametrize("way", WAYS)
def test_image_that_cannot_be_decoded_is_named(tmp_path: Path, way: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    episode = "insert_red/episode_20260101_000000"
    file = sorted((raw / episode / "images" / "View1").iterdir())[4]
    whole = make_jpeg(1, height=24, width=32)
    scan = whole.index(b"\xff\xda")
    file.write_bytes(whole[: scan + 30] + b"\xff\xd9")  # a header and an end, and little between
    report = run(raw, tmp_path / "data", **WAYS[way])
    assert reasons(report) == [("image.undecodable", f"{episode}/images/View1/{file.name}")]
    assert run(raw, **WAYS[way]).rejects == report.rejects


@pytest.mark.parametrize("way", ["raw", "small and raw"])
def test_parts_of_one_file_have_the_images_of_their_time(tmp_path: Path, way: str) -> None:
    schema = tmp_path / "s.toml"
    schema.write_text("""
        name = "t"
        anchor = "robot"
        [episodes]
        per_file = true
        split_column = "episode"
        [streams.robot]
        kind = "csv"
        files = ["*.csv"]
        time = { column = "t" }
        [streams.robot.fields.x]
        columns = ["x"]
        [streams.camera]
        kind = "images"
        files = ["{stem}_images/*.jpg"]
        [action]
        kind = "next"
        of = ["robot/x"]
        [sample]
        state = ["robot/x"]
        """)
    raw = tmp_path / "raw"
    (raw / "log_images").mkdir(parents=True)
    rows = [f"{'ba'[t // 10]},{t},{t * t % 7}" for t in range(20)]  # b comes first, and is the second by name
    (raw / "log.csv").write_text("\n".join(["episode,t,x", *rows, ""]))
    jpegs = [make_jpeg(t) for t in range(20)]
    for t, jpeg in enumerate(jpegs):
        (raw / "log_images" / f"{t}.0.jpg").write_bytes(jpeg)
    tried = try_schema(raw, load_schema(str(schema)), num_episodes=1)  # reads the file for the first of its parts
    assert len(tried.rows) == 1
    run(raw, tmp_path / "data", schema=str(schema), **WAYS[way])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    pixels = [dataset.episode(i)["camera/pixels"] for i in range(2)]
    assert [len(part) for part in pixels] == [10, 10]
    if way == "raw":
        decoded = np.stack([simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in jpegs])
        assert np.array_equal(np.concatenate(pixels[::-1]), decoded)
    else:
        assert {part.shape[1:] for part in pixels} == {(16, 16, 3)}


def test_jpeg_of_an_image_that_is_stored_as_pixels_is_refused(tiny_raw: Path, tmp_path: Path) -> None:
    run(tiny_raw, tmp_path / "data", image_storage="raw")
    with pytest.raises(UsageError, match=r"View1/pixels"):
        vlapipe.open_dataset(tmp_path / "data").episode(0).jpeg("View1", 0)


@pytest.mark.parametrize(
    ("way", "holds"),
    [
        ("small", "4 episodes of 16x16 JPEG, by --image-size"),
        ("raw", "4 episodes of 32x24 raw RGB"),
        ("small and raw", "4 episodes of 16x16 raw RGB, by --image-size"),
    ],
)
def test_inspect_says_how_images_are_stored(
    tiny_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str, holds: str
) -> None:
    run(tiny_raw, tmp_path / "data", **WAYS[way])
    report = inspect_dataset(vlapipe.open_dataset(tmp_path / "data"))
    print_dataset(report)
    assert holds in capsys.readouterr().out
    assert report["streams"]["View1"]["storage"] == WAYS[way].get("image_storage", "jpeg")
    shards = sum(file.stat().st_size for file in (tmp_path / "data" / "shards").iterdir())
    assert report["sizes"]["stored_bytes"] == shards
    assert sum(stream["stored_bytes"] for stream in report["sizes"]["streams"].values()) <= shards


def test_dataset_made_before_there_was_a_choice_is_jpeg(tiny_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "data")
    document = manifest_of(tmp_path / "data")
    for camera in CAMERAS:
        del document["streams"][camera]["storage"]
    document["made_with"] = {"num_planned_shards": 2, "val_fraction": 0.1}
    del document["sha256"]
    manifest = tmp_path / "data" / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(document))
    dataset: Dataset = vlapipe.open_dataset(tmp_path / "data")
    assert inspect_dataset(dataset)["streams"]["View1"]["storage"] == "jpeg"
    print_dataset(inspect_dataset(dataset))
    assert dataset.episode(0).jpeg("View1", 0)[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_storage": "webp"}, "choose from recorded, jpeg, png, raw"),
        ({"image_quality": 0}, "--image-quality 0: expected 1 to 100"),
        ({"image_size": (0, 224)}, "--image-size 0x224"),
        ({"image_size": (70_000, 10)}, "sides from 1 to 65500"),
        ({"image_size": (20_000, 20_000)}, "100 megapixels"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "nothing", tmp_path / "data", **options)
