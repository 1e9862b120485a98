"""Places of findings in later generations: an append, an edit and gc keep those of the episodes that are there."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.pipeline.change.collect import collect
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.shards.verify.verify import verify

SCHEMA = schema_text(val=0.3)


def break_clock(raw: Path, *names: str) -> None:
    for name in names:
        lines = (raw / name / "robot.csv").read_text().splitlines(keepends=True)
        (raw / name / "robot.csv").write_text("".join(lines[:30] + lines[45:]))


def found_in(data: Path, generation: int | None = None) -> list[tuple[str | None, str]]:
    """The episode's id and the code of each finding, in the order of the table, whose rows the totals count."""
    dataset = vlapipe.open_dataset(data, generation=generation)
    rows = dataset.manifest.read_findings(data)
    assert Counter(row["code"] for row in rows) == dataset.manifest.totals["findings"]
    ids = dataset.column("id").tolist()
    return [(None if (at := row["episode_index"]) is None else ids[at], row["code"]) for row in rows]


def test_findings_follow_their_episodes_through_append_edit_and_gc(tmp_path: Path) -> None:
    jitter = "clock.jitter"
    raw, data = make_lab(tmp_path / "raw", {f"ep{i:02d}": None for i in range(6)}, num_rows=60), tmp_path / "data"
    break_clock(raw, "ep01", "ep04")
    shutil.copytree(raw / "ep00", raw / "take1")
    ingest_lab(raw, data, SCHEMA, shard_bytes=20, workers=1)
    first = [("ep01", jitter), ("ep04", jitter), (None, "episode.not_matched")]
    assert found_in(data) == first

    make_lab(tmp_path / "more", {f"ep{i:02d}": None for i in range(9)}, num_rows=70)
    for name in ("ep01", "ep07", "ep08"):  # of these, ep01 is recorded again and whole
        shutil.copytree(tmp_path / "more" / name, raw / name, dirs_exist_ok=True)
    break_clock(raw, "ep07")
    shutil.rmtree(raw / "ep00")
    shutil.rmtree(raw / "take1")
    ingest_lab(raw, data, SCHEMA, shard_bytes=20, workers=1, prune=True)
    assert found_in(data) == [("ep04", jitter), ("ep07", jitter)]

    edit(data, ["ep04"], Edit(drop=True))
    assert found_in(data) == [("ep07", jitter)]
    edit(data, ["ep07"], Edit(drop=True))
    assert vlapipe.open_dataset(data).manifest.findings is None
    edit(data, ["ep07", "ep04"], Edit(restore=True))
    assert found_in(data) == [("ep04", jitter), ("ep07", jitter)]
    assert found_in(data, generation=1) == first
    assert verify(data).lines()[-1].endswith("all good")

    collect(data, keep=1)
    named = vlapipe.open_dataset(data).manifest.findings
    assert named is not None
    assert [path.name for path in data.glob("findings-*")] == [named["file"]]
    assert verify(data).lines()[-1].endswith("all good")
    (data / named["file"]).unlink()
    assert f"missing: {named['file']}: no such file" in verify(data).lines()
