"""A recording with videos becomes a dataset: frames beside rows in time, resume, dry run, and a little training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from launching import SMALL
from videos import frames_of, make_video, psnr_db, shown_by_av

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

ROWS = 45
SCHEMA = """
schema_version = 1
name = "lab"
anchor = "robot"
[episodes]
folders = ["episode_*"]
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = { column = "t" }
[streams.robot.fields.joint_position]
columns = ["joint_{1..3}"]
[streams.camera]
kind = "video"
files = ["{camera}.mp4"]
time = { TIME }
EXTRA
[action]
kind = "delta"
period_s = 0.1
of = ["robot/joint_position"]
[sample]
state = ["robot/joint_position"]
state_rows = 2
action_rows = 4
"""


def schema_file(folder: Path, time: str = 'starts_with = "robot"', extra: str = "") -> str:
    path = folder / "lab.toml"
    path.write_text(SCHEMA.replace("TIME", time).replace("EXTRA", extra))
    return str(path)


def record(root: Path, *, num_episodes: int = 2, num_frames: int = ROWS) -> Path:
    for number in range(num_episodes):
        folder = root / "Pick" / f"episode_{number}"
        folder.mkdir(parents=True)
        values = np.cumsum(np.random.default_rng(number).normal(0, 0.01, (ROWS, 3)), axis=0)
        lines = [f"{1.7e9 + i / 30:.6f}," + ",".join(f"{v:.5f}" for v in values[i]) for i in range(ROWS)]
        (folder / "robot.csv").write_text("t,joint_1,joint_2,joint_3\n" + "\n".join(lines) + "\n")
        for camera, shift in (("front", 0), ("wrist", 50)):
            images = frames_of(num_frames + shift)[shift:]
            make_video(folder / f"{camera}.mp4", images, options={"g": "10", "crf": str(18 + number)})
    return root


def run(raw: Path, out: Path | None, schema: str, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=raw, out=out, schema=schema, workers=2, **options))  # type: ignore[arg-type]


def test_frames_lie_beside_the_rows_of_their_time(tmp_path: Path) -> None:
    raw = record(tmp_path / "raw")
    report = run(raw, tmp_path / "out", schema_file(tmp_path, 'starts_with = "robot", offset_s = -0.002'))
    assert not report.has_errors, report.rejects
    assert {finding["code"] for finding in report.findings} >= {"video.lossy"}
    dataset = vlapipe.open_dataset(tmp_path / "out")
    assert len(dataset) == 2
    episode = dataset.episode(0)
    expected, _ = shown_by_av(raw / "Pick/episode_0/wrist.mp4")
    stored = [simplejpeg.decode_jpeg(episode.jpeg("wrist", row)) for row in range(ROWS)]
    assert min(psnr_db(*pair) for pair in zip(stored, expected, strict=True)) > 25
    assert np.array_equal(episode["align/wrist"], np.arange(ROWS))
    assert episode["wrist/timestamp"].dtype == np.int64
    assert episode["wrist/timestamp"][0] == 1_699_999_999_998_000_000


def test_pixels_are_stored_exactly_if_asked(tmp_path: Path) -> None:
    raw = record(tmp_path / "raw", num_episodes=1)
    run(raw, tmp_path / "out", schema_file(tmp_path), image_storage="raw")
    episode = vlapipe.open_dataset(tmp_path / "out").episode(0)
    assert np.array_equal(episode["front/pixels"], shown_by_av(raw / "Pick/episode_0/front.mp4")[0])


@pytest.mark.parametrize(
    ("num_frames", "code"), [(ROWS, None), (ROWS - 1, "clock.fewer_rows"), (ROWS + 1, "clock.more_rows")]
)
def test_frame_i_belongs_to_row_i_and_one_frame_fewer_is_a_warning(
    tmp_path: Path, num_frames: int, code: str | None
) -> None:
    raw = record(tmp_path / "raw", num_episodes=1, num_frames=num_frames)
    report = run(raw, tmp_path / "out", schema_file(tmp_path, 'rows_of = "robot"'))
    reasons = [reason for reject in report.rejects for reason in reject["reasons"]]
    codes = {finding["code"] for finding in [*report.findings, *reasons]} & {"clock.fewer_rows", "clock.more_rows"}
    assert codes == ({code} if code else set())
    if num_frames > ROWS:
        assert report.num_episodes == 0
        return
    episode = vlapipe.open_dataset(tmp_path / "out").episode(0)
    assert np.array_equal(episode["front/timestamp"], episode["robot/timestamp"][:num_frames])
    assert episode["align/front"].tolist() == [*range(num_frames), *[num_frames - 1] * (ROWS - num_frames)]


def test_a_broken_video_sets_its_episode_aside_by_name(tmp_path: Path) -> None:
    raw = record(tmp_path / "raw")
    path = raw / "Pick/episode_1/front.mp4"
    path.write_bytes(path.read_bytes()[:900])
    report = run(raw, tmp_path / "out", schema_file(tmp_path))
    assert (report.num_episodes, len(report.rejects)) == (1, 1)
    (reason,) = [each for each in report.rejects[0]["reasons"] if each["severity"] == "error"]
    assert (reason["code"], reason["file"]) == ("video.unreadable", "Pick/episode_1/front.mp4")


def test_a_dry_run_writes_nothing_and_foretells_the_size(tmp_path: Path) -> None:
    raw, schema = record(tmp_path / "raw"), schema_file(tmp_path)
    report = run(raw, None, schema, dry_run=True)
    assert report.expected is not None
    run(raw, tmp_path / "out", schema)
    stored = sum(path.stat().st_size for path in (tmp_path / "out/shards").iterdir())
    assert 0.7 < report.expected.stored_bytes / stored < 1.4


def test_shards_are_filled_by_the_size_of_frames_not_of_videos(tmp_path: Path) -> None:
    raw, schema = record(tmp_path / "raw", num_episodes=4), schema_file(tmp_path)
    report = run(raw, tmp_path / "out", schema, shard_bytes=400_000)
    assert report.num_shards > 1
    sizes = [path.stat().st_size for path in (tmp_path / "out/shards").iterdir()]
    assert max(sizes) < 500_000, sizes


def test_a_finished_dataset_is_made_once_and_again_alike(tmp_path: Path) -> None:
    raw, schema = record(tmp_path / "raw"), schema_file(tmp_path)
    run(raw, tmp_path / "out", schema)
    assert run(raw, tmp_path / "out", schema).was_finished
    run(raw, tmp_path / "again", schema)
    names = [sorted(path.name for path in (tmp_path / out / "shards").iterdir()) for out in ("out", "again")]
    assert names[0] == names[1]  # a shard's name holds the digest of its bytes


@pytest.mark.slow
def test_a_policy_trains_on_frames_of_videos(tmp_path: Path) -> None:
    run(record(tmp_path / "raw"), tmp_path / "out", schema_file(tmp_path))
    options = {"data": tmp_path / "out", "out": tmp_path / "run", "batch_size": 4, "max_steps": 10, "precision": "fp32"}
    small = {"wandb": "disabled", "eval_batches": 0, "num_workers": 1, "policy_args": SMALL}
    result = train(TrainConfig.from_sources(None, {**options, **small}))
    assert result.step == 10
    batch = next(iter(vlapipe.Loader(vlapipe.open_dataset(tmp_path / "out"), batch_size=4, seed=0)))
    for camera in ("front", "wrist"):
        assert batch[f"observation.images.{camera}"].shape[-3:] == (3, 48, 64)
        assert batch[f"observation.images.{camera}"].float().std() > 20
