"""The same demonstration under other stamps, cut anew or encoded anew is found; other demonstrations are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, START_S, findings_of, joints, pictures, write_dataset, write_episode

from vlapipe.pipeline.ingest import IngestConfig, ingest


def codes(found: list[dict[str, Any]]) -> list[str]:
    return sorted(f["code"] for f in found)


def duplicates(root: Path, schema: str = SCHEMA) -> list[str]:
    return [f["message"] for f in findings_of(root, schema) if f["code"] == "episode.duplicate"]


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_copy_under_other_stamps_is_found_also_if_it_is_cut_anew(tmp_path: Path, cut: int) -> None:
    root = write_dataset(tmp_path / "raw")
    values, images = joints(2)[cut:], pictures(2, 30)[cut // 2 :]
    write_episode(root / "task" / "episode_900", values, images, start_s=START_S + 5000)
    [message] = duplicates(root)
    assert message.startswith("task/episode_900/robot.csv: most rows the same, under other stamps")
    assert "task/episode_002/robot.csv" in message


def test_copy_whose_images_were_encoded_anew_is_found_by_its_rows(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw")
    write_episode(root / "task" / "episode_900", joints(2), pictures(2, 30), start_s=START_S + 5000, quality=60)
    assert len(duplicates(root)) == 1


def test_copy_whose_rows_were_resampled_is_found_by_its_images(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw")
    other_rows = (joints(2) + 1e-5).round(6)
    write_episode(root / "task" / "episode_900", other_rows, pictures(2, 30), start_s=START_S + 5000)
    [message] = duplicates(root)
    assert "images of front" in message


def test_each_pair_in_both_splits_is_told(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", num_episodes=8)
    for i in range(8):
        write_episode(root / "task" / f"episode_1{i:02d}", joints(i), pictures(i, 30), start_s=START_S + 9000 + 50 * i)
    schema = tmp_path / "half.toml"
    schema.write_text(SCHEMA + "[split]\nval = 0.4\n")
    out = tmp_path / "data"
    report = ingest(IngestConfig(source=root, out=out, schema=str(schema), workers=1))
    from vlapipe.pipeline.shards.dataset import open_dataset

    split = dict(zip(*(open_dataset(out).column(name) for name in ("id", "split")), strict=True))
    apart = [i for i in range(8) if split[f"task/episode_{i:03d}"] != split[f"task/episode_1{i:02d}"]]
    assert apart
    assert codes(report.findings) == ["episode.duplicate"] * 8 + ["split.same_content"] * len(apart)


def test_episodes_that_share_a_pose_at_rest_and_a_black_image_are_not_the_same(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:40] = 0
        values[40:] = joints(number, 20)

    def film(number: int, images: Any) -> Any:
        images[:25] = pictures(0, 1)
        return images

    found = findings_of(write_dataset(tmp_path / "raw", edit=edit, film=film))
    assert "episode.duplicate" not in codes(found)


def test_coarse_values_that_come_again_in_other_orders_are_not_the_same(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:] = np.random.default_rng(number).integers(0, 3, (len(values), 1))

    assert "episode.duplicate" not in codes(findings_of(write_dataset(tmp_path / "raw", edit=edit)))
