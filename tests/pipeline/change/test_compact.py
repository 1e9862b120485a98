"""Joined shards hold the same episodes, bit for bit. Nothing else changes, and no change of another command is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_lab
import numpy as np
import pytest
from click.testing import CliRunner
from damaging import flip, tree
from factories import make_dataset
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
import vlapipe.pipeline.change.compact as module
from vlapipe.cli import cli
from vlapipe.pipeline.change.collect import collect
from vlapipe.pipeline.change.compact import compact
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.change.joined_shard import Streams, kinds_of
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.repair.from_source import FromSource
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest import parts as limits
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.pipeline.show.inspection import inspect_dataset
from vlapipe.pipeline.show.inspection_text import print_dataset
from vlapipe.schemas.errors import DamageError, StoppedError, UsageError
from vlapipe.schemas.registry import load_schema

NAMES = [f"ep{i:02d}" for i in range(8)]
SCHEMA = schema_text(val=0.3)
SMALL_SHARD = 20  # bytes: each episode is a shard
ONE_EPISODE = 192  # bytes of an episode of 12 rows before compression
LARGE = 1_000_000


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "raw", {name: {"by": "ann", "n": i} for i, name in enumerate(NAMES)})


@pytest.fixture
def data(raw: Path, tmp_path: Path) -> Path:
    grow(raw, tmp_path / "data")
    return tmp_path / "data"


def grow(raw: Path, data: Path, **options: Any) -> Any:
    return ingest_lab(raw, data, SCHEMA, shard_bytes=SMALL_SHARD, workers=1, **options)


def add(raw: Path, *names: str, num_rows: int = 12) -> None:
    more = make_lab(raw.parent / "more", dict.fromkeys([*NAMES, *names]), num_rows=num_rows)
    for name in names:
        shutil.copytree(more / name, raw / name, dirs_exist_ok=True)
    shutil.rmtree(more)


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def files(data: Path) -> list[str]:
    return vlapipe.open_dataset(data).manifest.shard_files


def assert_same(before: Dataset, after: Dataset) -> None:
    """Every array of every episode, all columns but the places in shards, statistics, findings, gaps and totals."""
    streams = [*before.manifest.streams]
    places = ["shard", *(f"{stream}/start" for stream in streams)]
    old_rows, new_rows = (each.episodes.drop_columns(places) for each in (before, after))
    assert new_rows.schema.equals(old_rows.schema, check_metadata=True)
    assert repr(new_rows.to_pylist()) == repr(old_rows.to_pylist())  # as text, since NaN is not equal to itself
    for index in range(len(before)):
        old, new = before.episode(index), after.episode(index)
        for name in {*old, *new}:
            if name not in old or name not in new:  # of a camera that the episode lacks
                assert not (old if name in old else new)[name].any()
                continue
            assert (new[name].dtype, new[name].shape) == (old[name].dtype, old[name].shape), name
            assert new[name].tobytes() == old[name].tobytes(), (index, name)
    assert after.manifest.statistics == before.manifest.statistics  # to the last bit
    assert after.manifest.read_findings(after.path) == before.manifest.read_findings(before.path)
    assert after.manifest.read_rejects(after.path) == before.manifest.read_rejects(before.path)
    others = [
        {k: v for k, v in d.manifest.totals.items() if "shard" not in k and "stored" not in k} for d in (before, after)
    ]
    assert others[0] == others[1]
    assert difference_of(before, after)["equal"]


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
@pytest.mark.parametrize("image_storage", ["recorded", "raw"])
def test_episodes_with_and_without_cameras_stay_bit_for_bit(
    tmp_path: Path, shard_format: str, image_storage: str
) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=5, num_rows=30)
    episodes = sorted(raw.glob("*/episode_*"))
    shutil.rmtree(episodes[0] / "images" / "View2")
    shutil.rmtree(episodes[3] / "images")
    text = load_schema("meca500").toml.replace('kind = "images"\n', 'kind = "images"\noptional = true\n')
    (tmp_path / "lab.toml").write_text(text)
    config = IngestConfig(
        source=raw,
        out=tmp_path / "data",
        schema=str(tmp_path / "lab.toml"),
        shard_format=shard_format,
        image_storage=image_storage,
        shard_bytes=1,
        workers=1,
    )
    ingest(config)
    before = vlapipe.open_dataset(tmp_path / "data")
    assert len(before.manifest.shards) == 5
    assert compact(tmp_path / "data", shard_bytes=100_000_000).num_made == 1
    after = vlapipe.open_dataset(tmp_path / "data")
    assert len(after.manifest.shards) == 1
    assert_same(before, after)
    assert verify(tmp_path / "data").lines()[-1].endswith("all good")
    ingest(replace(config, out=tmp_path / "whole", shard_bytes=100_000_000))
    assert files(tmp_path / "data") == files(tmp_path / "whole")  # names have the digest: one ingest makes these bytes


def test_shards_of_many_appends_become_few_and_the_command_finds_nothing_more(raw: Path, data: Path) -> None:
    for number in range(3):
        add(raw, f"ep{8 + number:02d}")
        grow(raw, data)
    before = vlapipe.open_dataset(data)
    done = compact(data, shard_bytes=4 * ONE_EPISODE, note="tidy")
    assert (done.num_shards, done.num_joined, done.num_made) == (11, 11, 3)
    after = vlapipe.open_dataset(data)
    assert [shard["episodes"] for shard in after.manifest.shards] == [4, 4, 3]
    assert_same(before, after)
    assert_same(vlapipe.open_dataset(data, generation=before.generation), after)  # the old shards are still there
    assert command("compact", data, "--shard-size", 4 * ONE_EPISODE).startswith("nothing to compact: 3 shards")
    assert vlapipe.open_dataset(data).generation == after.generation
    told = command("log", data)
    assert "compact: 11 shards joined, 3 shards made" in told
    assert "note: tidy" in told
    assert "equal: the same episodes" in command("diff", f"{data}@{before.generation}", data)
    collect(data, keep=1)
    assert len([*(data / "shards").iterdir()]) == 3
    assert verify(data).lines()[-1].endswith("all good")


def test_images_of_another_kind_are_not_joined_with_them(tmp_path: Path) -> None:
    raw = image_lab.write(tmp_path / "lab", lambda i: image_lab.encoded(image_lab.picture(i)), episodes=2)
    entries = []
    for storage in ("raw", "jpeg"):
        image_lab.run(raw, tmp_path / storage, image_storage=storage)
        entries += vlapipe.open_dataset(tmp_path / storage).manifest.shards
    streams = Streams(anchor="robot", cameras=["camera"])
    pixels, jpeg = (kinds_of(entry, streams) for entry in entries)
    smaller = json.loads(json.dumps(entries[0]).replace("24, 32, 3", "12, 16, 3"))
    without = {name: kind for name, kind in pixels.items() if name != "camera"}
    alike = [module._are_alike(pixels, each, streams) for each in (pixels, without, jpeg, kinds_of(smaller, streams))]
    assert alike == [True, True, False, False]


def test_half_full_shards_are_not_touched(raw: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    add(raw, "ep03", num_rows=60)
    grow(raw, data)
    large = files(data)[3]
    done = compact(data, shard_bytes=10 * ONE_EPISODE)
    assert (done.num_joined, done.num_made) == (7, 2)
    assert [shard["episodes"] for shard in vlapipe.open_dataset(data).manifest.shards] == [3, 1, 4]
    assert files(data)[1] == large


def test_without_a_size_the_one_of_the_ingest_is_taken(raw: Path, data: Path, tmp_path: Path) -> None:
    assert command("compact", data).startswith("nothing to compact")  # shards of 20 bytes were asked for
    (data / ".ingested.json").unlink()
    assert command("compact", data).startswith(f"generation 2 of {data}: joined 8 shards into 1")
    assert IngestConfig(source=raw, out=tmp_path / "x").shard_bytes == module._SHARD_BYTES


def test_dropped_episodes_are_carried_and_replaced_ones_are_not(raw: Path, data: Path) -> None:
    before = vlapipe.open_dataset(data)
    edit(data, NAMES[2:4], Edit(drop=True))
    compact(data, shard_bytes=LARGE)
    add(raw, "ep05", num_rows=30)
    grow(raw, data)
    add(raw, "ep08")
    grow(raw, data)
    middle = vlapipe.open_dataset(data)
    assert middle.manifest.shards[0]["stored"] == 8
    assert middle.manifest.shards[0]["episodes"] == 5
    compact(data, shard_bytes=LARGE)
    after = vlapipe.open_dataset(data)
    assert_same(middle, after)
    (shard,) = after.manifest.shards
    assert (shard["episodes"], shard["stored"]) == (7, 9)  # without the ep05 of before
    assert shard["arrays"]["robot/q"]["shape"][0] == 8 * 12 + 30
    assert command("compact", data, "--shard-size", LARGE).startswith("nothing")
    edit(data, NAMES[2:4], Edit(restore=True))
    back = vlapipe.open_dataset(data)
    for name in (*NAMES[:5], *NAMES[6:]):
        for array in before.episode(name):
            assert back.episode(name)[array].tobytes() == before.episode(name)[array].tobytes(), name
    assert not verify(data).damage


def test_later_changes_give_the_statistics_of_one_ingest(raw: Path, data: Path, tmp_path: Path) -> None:
    compact(data, shard_bytes=3 * ONE_EPISODE)
    add(raw, "ep08", "ep09")
    assert grow(raw, data).changes["added"] == ["ep08", "ep09"]
    edit(data, ["ep01"], Edit(drop=True))
    shutil.rmtree(raw / "ep01")
    grow(raw, tmp_path / "whole")
    report = difference_of(vlapipe.open_dataset(tmp_path / "whole"), vlapipe.open_dataset(data))
    assert report["equal"], report
    assert not grow(raw, data).changes
    assert not verify(data).faults


def test_dataset_in_parts_stays_in_its_parts(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_EPISODES", 3)
    data = tmp_path / "data"
    grow(raw, data)
    edit(data, [NAMES[1]], Edit(drop=True))
    before = vlapipe.open_dataset(data)
    done = compact(data, shard_bytes=LARGE)
    after = vlapipe.open_dataset(data)
    assert (done.num_joined, done.num_made) == (8, 3)
    sizes = [[part.num_episodes for part in each.manifest.all_parts] for each in (before, after)]
    assert sizes[0] == sizes[1] == [2, 3, 2]
    assert [part.num_shards for part in after.manifest.all_parts] == [1, 1, 1]
    assert_same(before, after)
    assert command("compact", data, "--shard-size", LARGE).startswith("nothing")
    add(raw, "ep08", "ep09")
    grow(raw, data)
    edit(data, [NAMES[1]], Edit(restore=True))
    grow(raw, tmp_path / "whole")
    report = difference_of(vlapipe.open_dataset(tmp_path / "whole"), vlapipe.open_dataset(data))
    assert report["equal"], report
    assert not verify(data).faults


def test_dataset_of_an_older_vlapipe_without_sums_is_joined_and_grows(raw: Path, data: Path, tmp_path: Path) -> None:
    old = vlapipe.open_dataset(data)
    (data / "manifest.json").write_bytes(replace(old.manifest, sums=None, moments=None).to_json())
    compact(data, shard_bytes=LARGE)
    after = vlapipe.open_dataset(data)
    assert_same(old, after)
    assert after.manifest.sums is None
    add(raw, "ep08", "ep09")
    grow(raw, data)
    grow(raw, tmp_path / "whole")
    report = difference_of(vlapipe.open_dataset(tmp_path / "whole"), vlapipe.open_dataset(data))
    assert report["equal"], report


def test_tree_is_the_same_for_any_number_of_workers(data: Path, tmp_path: Path) -> None:
    trees = []
    for workers in (1, 4):
        shutil.copytree(data, tmp_path / str(workers))
        command("compact", tmp_path / str(workers), "--shard-size", 3 * ONE_EPISODE, "--workers", workers)
        found = tree(tmp_path / str(workers))
        trees.append({name: each for name, each in found.items() if not name.startswith(".log/")})
    assert trees[0] == trees[1]


def meanwhile(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Let another command do its work when the new shards are made and not yet committed."""
    place_shards = module.place_shards

    def place(path: Path, made: Path) -> None:
        place_shards(path, made)
        monkeypatch.setattr(module, "place_shards", place_shards)
        work()

    monkeypatch.setattr(module, "place_shards", place)


def test_append_and_edits_meanwhile_are_not_lost(raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(data, [NAMES[6]], Edit(drop=True))
    add(raw, "ep08")
    shutil.rmtree(raw / "ep01")

    def work() -> None:
        grow(raw, data, prune=True)  # the only episode of a shard is gone, so its group is left alone
        edit(data, [NAMES[7]], Edit(drop=True))
        edit(data, [NAMES[6]], Edit(restore=True))

    meanwhile(monkeypatch, work)
    done = compact(data, shard_bytes=4 * ONE_EPISODE)
    assert (done.num_joined, done.num_made, done.generation) == (4, 1, 6)
    after = vlapipe.open_dataset(data)
    assert_same(vlapipe.open_dataset(data, generation=5), after)
    assert after.column("id").tolist() == ["ep00", *NAMES[2:7], "ep08"]
    edit(data, [NAMES[7]], Edit(restore=True))
    assert_same_values(vlapipe.open_dataset(data, generation=1), vlapipe.open_dataset(data), NAMES[2:])
    assert not verify(data).faults  # also no shard that was made in vain


def assert_same_values(before: Dataset, after: Dataset, names: list[str]) -> None:
    for name in names:
        np.testing.assert_array_equal(after.episode(name)["robot/q"], before.episode(name)["robot/q"])


def test_the_slower_of_two_compactions_does_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, lambda: compact(data, shard_bytes=LARGE))
    done = compact(data, shard_bytes=4 * ONE_EPISODE)
    assert (done.generation, done.num_made, done.num_shards) == (None, 0, 1)
    assert vlapipe.open_dataset(data).generation == 2
    assert not verify(data).faults


def test_damaged_shard_is_refused_and_nothing_changes(data: Path, raw: Path) -> None:
    (data / files(data)[2]).chmod(0o644)
    flip(data / files(data)[2])
    with pytest.raises(DamageError, match=r"shard-00002.*differ.*vlapipe repair"):
        compact(data, shard_bytes=LARGE)
    assert vlapipe.open_dataset(data).generation == 1
    repair(data, FromSource(data, raw, workers=1))
    assert compact(data, shard_bytes=LARGE).num_made == 1
    collect(data, keep=1)
    (shard,) = files(data)
    expected = (data / shard).read_bytes()
    (data / shard).unlink()
    done = repair(data, FromSource(data, raw, workers=1))  # a joined shard is made again like any other
    assert not done.refused
    assert (data / shard).read_bytes() == expected


def test_dry_run_says_what_would_be_done_and_writes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(data)
    assert command("compact", data, "--shard-size", LARGE, "--dry-run").startswith("would join 8 shards into 1 (")
    found = json.loads(command("compact", data, "--shard-size", LARGE, "--dry-run", "--json"))
    assert (found["num_shards"], found["num_joined"], found["num_made"], found["generation"]) == (8, 8, 1, None)
    assert tree(data) == before
    monkeypatch.setattr(module, "_SURE", 1e15)  # as if the disk were full
    with pytest.raises(StoppedError, match="free some space"):
        compact(data, shard_bytes=LARGE)
    refused = CliRunner().invoke(cli, ["compact", str(data), "--shard-size", str(LARGE), "--dry-run"])
    assert isinstance(refused.exception, StoppedError)
    assert vlapipe.open_dataset(data).generation == 1


def test_sizes_that_mean_nothing_are_refused(data: Path) -> None:
    for options in ({"shard_bytes": 0}, {"workers": 0}):
        with pytest.raises(UsageError, match="expected 1 or more"):
            compact(data, **options)


def test_inspect_advises_it_for_many_small_shards(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = inspect_dataset(vlapipe.open_dataset(data))
    for num_shards in (99, 100):
        print_dataset({**report, "shards": num_shards})
        told = f"many small shards: vlapipe compact {data} joins them" in capsys.readouterr().out
        assert told == (num_shards == 100)


def test_training_sees_the_same_batches_in_the_same_order(data: Path) -> None:
    pytest.importorskip("torch")
    compact(data, shard_bytes=3 * ONE_EPISODE)
    batches = []
    for generation in (1, 2):
        opened = vlapipe.open_dataset(data, generation=generation)
        loader = vlapipe.Loader(opened, window=vlapipe.Window(), batch_size=4, num_workers=0)
        batches.append([batch["observation.state"].numpy().copy() for batch in loader])
    for old, new in zip(*batches, strict=True):
        np.testing.assert_array_equal(old, new)
