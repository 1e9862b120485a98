"""What each depth of ``verify`` finds, what is no fault, and what datasets of an older vlapipe have."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from damaging import flip, lab_dataset, rewrite, shards_of, tree

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.shards.format.sealed_json import Seal, is_cut
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import DamageError, NewerFormatError, NotADatasetError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab_dataset(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def data(lab: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lab, tmp_path / "data"))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def older(data: Path) -> Path:
    """Make it as an older vlapipe wrote it: no digest of the manifest, and no sizes of the tables."""
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["sha256"]
    for table in ("episodes", "gaps", "rejects"):
        del manifest[table]["bytes"]
    rewrite(data / "manifest.json", json.dumps(manifest, indent=1).encode() + b"\n")
    made_from = json.loads((data / ".ingested.json").read_text())
    del made_from["sha256"]
    rewrite(data / ".ingested.json", json.dumps(made_from, indent=0).encode() + b"\n")
    return data


def test_whole_dataset_is_one_line_that_says_what_was_checked(data: Path) -> None:
    before = tree(data)
    done = command("verify", data)
    assert done.exit_code == 0
    size = sum(map(len, before.values())) - len(before["manifest.json"]) - len(before[".ingested.json"])
    read = f"{size / 1e6:,.1f} MB"
    assert done.output == f"{data}: 4 shards and 7 other files: every byte read, {read}: all good\n"
    assert command("verify", data, "--quick").output.endswith("sizes compared, no shard read: all good\n")
    assert tree(data) == before


def test_fault_is_a_line_with_kind_file_and_episodes_and_exit_code_1(data: Path) -> None:
    shard = flip(shards_of(data)[2])
    done = command("verify", data)
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == (
        f"altered: shards/{shard.name}: episodes 4 to 5: its bytes differ from those that were written"
    )
    assert done.output.splitlines()[-1].endswith(": 1 fault")
    done = command("verify", data, "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert not found["is_whole"]
    (fault,) = found["faults"]
    assert (fault["kind"], fault["file"], fault["shard"]) == ("altered", f"shards/{shard.name}", 2)
    assert fault["episodes"] == [4, 5]


def test_quick_look_reads_tables_and_sizes_but_no_shard(data: Path) -> None:
    flip(shards_of(data)[0])
    assert command("verify", data, "--quick").exit_code == 0
    for name in ("gaps-*.parquet", "rejects.jsonl", ".ingested.json", "manifest.json"):
        (file,) = data.glob(name)
        whole = file.read_bytes()
        rewrite(file, whole[:-9] + b"another" + whole[-2:])
        done = command("verify", data, "--quick")
        assert done.exit_code == 1, name
        assert file.name in done.output.splitlines()[0], name
        rewrite(file, whole)


def test_sample_reads_its_share_rounded_up_and_the_seed_decides_which(data: Path) -> None:
    for shard in shards_of(data):
        flip(shard)
    drawn = set()
    for seed in range(12):
        (fault,) = verify(data, share=0.05, seed=seed).faults
        drawn.add(fault.shard)
    assert drawn == {0, 1, 2, 3}
    assert len(verify(data, share=0.51).faults) == 3
    (fault,) = json.loads(command("verify", data, "--sample", "5%", "--seed", 3, "--json").output)["faults"]
    assert fault == verify(data, share=0.05, seed=3).faults[0].to_json()


@pytest.mark.parametrize("share", ["0%", "101%", "five"])
def test_sample_that_is_no_share_is_refused(data: Path, share: str) -> None:
    done = command("verify", data, "--sample", share)
    assert done.exit_code == 2
    assert "write for example 5%" in done.output


def test_depths_exclude_each_other(data: Path) -> None:
    done = command("verify", data, "--quick", "--full")
    assert "exclude each other" in str(done.exception)


def test_manifest_with_a_bit_flipped_anywhere_is_not_opened(data: Path) -> None:
    manifest = data / "manifest.json"
    whole = manifest.read_bytes()
    altered = bytearray(whole)
    for at in [*range(0, len(whole) - 120, 5), *range(len(whole) - 120, len(whole))]:
        altered[at] ^= 1 << at % 8
        rewrite(manifest, bytes(altered))
        with pytest.raises((DamageError, NotADatasetError)):
            vlapipe.open_dataset(data)
        altered[at] = whole[at]
    rewrite(manifest, whole)
    vlapipe.open_dataset(data)


def test_newer_manifest_is_told_as_such(data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    rewrite(data / "manifest.json", json.dumps(manifest | {"format_version": 99}).encode())
    with pytest.raises(NewerFormatError):
        verify(data)


def test_digest_is_that_of_all_lines_but_the_last_two(data: Path) -> None:
    for name in ("manifest.json", ".ingested.json"):
        content = (data / name).read_bytes()
        lines = content.splitlines(keepends=True)
        digest = hashlib.sha256(b"".join(lines[:-2])).hexdigest()
        assert json.loads(content)["sha256"] == digest
        assert Seal.of(content) == Seal(stated=digest, computed=digest)
        assert not is_cut(content)
        assert all(is_cut(content[:end]) for end in range(len(content)))


def test_dataset_of_an_older_vlapipe_opens_and_verifies_with_a_note(data: Path) -> None:
    older(data)
    assert len(vlapipe.open_dataset(data)) == 8
    done = command("verify", data)
    assert done.exit_code == 0
    assert done.output.splitlines()[:2] == [
        "note: manifest.json has no digest of its own: an older vlapipe wrote it",
        "note: .ingested.json has no digest of its own: an older vlapipe wrote it",
    ]
    flip(next(data.glob("episodes-*.parquet")))
    assert [fault.kind for fault in verify(data).faults] == ["altered"]


def test_files_of_the_users_beside_the_manifest_and_the_cache_are_no_fault(data: Path) -> None:
    (data / "README.md").write_text("ours")
    (data / "plots").mkdir()
    (data / "plots" / "a.parquet").write_text("ours")
    vlapipe.open_dataset(data).episode(0)["robot/q"]
    assert (data / ".cache").is_dir()
    assert not verify(data).faults


def test_copy_without_the_hidden_file_is_whole(data: Path) -> None:
    (data / ".ingested.json").unlink()
    assert not verify(data).faults


def test_lost_manifest_of_a_finished_dataset_is_a_fault_and_an_unfinished_one_is_none(data: Path) -> None:
    (data / "manifest.json").unlink()
    assert [(fault.kind, fault.file) for fault in verify(data).faults] == [("missing", "manifest.json")]
    (data / ".ingest").mkdir()
    with pytest.raises(NotADatasetError, match="unfinished"):
        verify(data)


def test_folder_without_a_dataset_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(NotADatasetError, match="not a vlapipe dataset"):
        verify(tmp_path)


def test_work_folder_of_a_running_command_is_noted_and_of_a_killed_one_is_left_behind(data: Path) -> None:
    (data / ".ingest").mkdir()
    with (data / ".ingest" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = verify(data)
        assert (found.faults, found.notes) == ([], ["another command is writing there"])
    assert [(fault.kind, fault.file) for fault in verify(data).faults] == [("unlisted", ".ingest")]


def test_manifest_that_names_a_file_elsewhere_is_refused(data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["shards"][0]["file"] = "../../etc/passwd"
    rewrite(data / "manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DamageError, match="outside the dataset"):
        verify(data)


def test_entry_that_an_older_manifest_lacks_is_one_line(data: Path) -> None:
    manifest = json.loads((older(data) / "manifest.json").read_text())
    manifest["shards"][1]["bxtes"] = manifest["shards"][1].pop("bytes")
    rewrite(data / "manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DamageError, match="an entry is missing or altered: 'bytes'"):
        verify(data)


def test_inspect_tells_what_the_quick_look_finds(data: Path) -> None:
    shard = shards_of(data)[3]
    shard.unlink()
    done = command("inspect", data)
    assert done.exit_code == 1
    assert f"damaged: missing: shards/{shard.name}: episodes 6 to 7: no such file" in done.output
