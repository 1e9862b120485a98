"""A dataset in a store is the one that a disk would hold: the same bytes and commands, and one winner a commit."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from store_server import FAILURES, FailingProxy, environment
from tiny_lab import make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.stores import copies
from vlapipe.pipeline.shards.stores.copies import Copy, copy_at, folder_of
from vlapipe.pipeline.shards.stores.store import Store
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import DamageError, NotADatasetError, StoppedError, UsageError
from vlapipe.schemas.paths import Address, dataset_path

SCHEMA = schema_text(val=0.3)
SMALL_SHARD = 20  # in bytes: each episode is a shard


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "raw", {f"ep{i:02d}": {"n": i} for i in range(4)})


def put(raw: Path, out: str | Path, **options: Any) -> IngestReport:
    schema = raw.parent / "lab.toml"
    schema.write_text(SCHEMA)
    named = {"schema": str(schema), "workers": 1, "shard_bytes": SMALL_SHARD} | options
    return ingest(IngestConfig(source=raw, out=Path(out) if isinstance(out, Path) else dataset_path(out), **named))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def store_at(address: str) -> Store:
    found = dataset_path(address)
    assert isinstance(found, Address)
    return Store(found)


def copy_of(address: str) -> Copy:
    found = copy_at(folder_of(dataset_path(address)))
    assert found is not None
    return found


def go_through(proxy: FailingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the requests of this process to the proxy from now on."""
    for name, value in environment(proxy.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(copies, "_known", {})


def tree_of(address: str) -> dict[str, str]:
    """The digest of each object; the history depends on time and place."""
    store = store_at(address)
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.walk() if not name.startswith(".log/")}


def tree_on_disk(folder: Path) -> dict[str, str]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    own = (".log/", ".cache/")
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items() if not n.startswith(own)}


def test_store_gets_the_files_that_a_disk_gets_through_every_change(s3: str, raw: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for out in (s3, disk):
        put(raw, out)
    assert tree_of(s3) == tree_on_disk(disk)
    make_lab(raw, {"ep07": {"n": 7}, "ep08": {"n": 8}})
    (raw / "ep01" / "robot.csv").write_text((raw / "ep00" / "robot.csv").read_text() + "5000,0.5\n")
    for out in (s3, disk):
        report = put(raw, out, note="two more")
        assert report.changes is not None
        assert (report.changes["added"], report.changes["replaced"]) == (["ep07", "ep08"], ["ep01"])
        assert report.dataset == dataset_path(out)
    assert put(raw, s3).was_finished
    for out in (s3, disk):
        assert run("edit", out, "ep00", "ep07", "--drop").exit_code == 0
    assert tree_of(s3) == tree_on_disk(disk)
    log = run("log", s3).output
    assert "two more" in log
    assert "drop" in log
    assert "1 removed" not in run("diff", f"{s3}@2", s3).output
    assert run("verify", s3).exit_code == 0


def test_values_are_those_of_a_dataset_on_disk(s3: str, tiny_raw: Path, tmp_path: Path) -> None:
    options = {"schema": "meca500", "shard_bytes": 2_000_000}
    put(tiny_raw, tmp_path / "disk", **options)
    put(tiny_raw, s3, **options)
    ours, theirs = vlapipe.open_dataset(s3), vlapipe.open_dataset(tmp_path / "disk")
    assert s3 in repr(ours)
    for i in range(len(theirs)):
        assert ours[i].row == theirs[i].row
        for name, expected in theirs[i].items():
            np.testing.assert_array_equal(ours[i][name], expected, strict=True)


def test_shards_are_fetched_at_their_first_use_and_once(s3: str, s3_port: int, raw: Path, tmp_path: Path) -> None:
    put(raw, s3)
    with FailingProxy(s3_port) as proxy, pytest.MonkeyPatch.context() as patched:
        go_through(proxy, patched)
        dataset = vlapipe.open_dataset(s3)
        opening = proxy.num_requests
        assert not list((tmp_path / "cache").glob("*.fetched"))
        dataset[0]["robot/q"]
        assert proxy.num_requests > opening
        assert len(list((tmp_path / "cache").glob("*.fetched"))) == 1
        before = proxy.num_requests
        vlapipe.open_dataset(s3)[0]["robot/q"]
        assert proxy.num_requests - before <= opening


def test_cache_keeps_its_limit(s3: str, raw: Path, tmp_path: Path) -> None:
    put(raw, s3)
    whole = vlapipe.open_dataset(s3)
    limit = 3 * max(shard["bytes"] for shard in whole.manifest.shards)
    dataset = vlapipe.open_dataset(s3, cache_bytes=limit)
    for i in range(len(dataset)):
        dataset[i]["robot/q"]
        dataset._mapped._let_go()
        kept = list((tmp_path / "cache").glob("*.fetched")) + list((tmp_path / "cache").glob("*.mapped"))
        assert sum(path.stat().st_size for path in kept) <= limit + 3 * 4096


def test_of_commands_on_several_machines_each_commit_has_one_winner(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(make_lab(tmp_path / "first" / "raw", {"ep_first": {"n": 0}}), s3)
    raws = [make_lab(tmp_path / f"m{m}" / "raw", {f"ep_{m}_{i}": {"n": i} for i in range(3)}) for m in range(4)]
    folders = [tmp_path / f"cache{m}" for m in range(4)]  # each machine has a copy of its own
    errors: list[BaseException] = []

    def append(machine: int) -> None:
        try:
            path = folder_of(dataset_path(s3), folders[machine])
            schema = raws[machine].parent / "lab.toml"
            schema.write_text(SCHEMA)
            (path / "manifest.json").write_bytes(store_at(s3).read("manifest.json"))
            ingest(IngestConfig(source=raws[machine], out=path, schema=str(schema), workers=1, shard_bytes=SMALL_SHARD))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=append, args=(machine,)) for machine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    opened = vlapipe.open_dataset(s3)
    assert sorted(opened.column("id")) == sorted(["ep_first", *(f"ep_{m}_{i}" for m in range(4) for i in range(3))])
    assert opened.generation == 5
    assert verify(opened.path).faults == []


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_damage_in_the_store_is_found_with_its_shard_and_episodes(
    damage: str, s3: str, raw: Path, tmp_path: Path
) -> None:
    put(raw, s3)
    store, manifest = store_at(s3), vlapipe.open_dataset(s3).manifest
    name = manifest.shards[2]["file"]
    data = bytearray(store.read(name))
    if damage == "missing":
        store.delete([name])
    elif damage == "altered":
        data[len(data) // 2] ^= 1
        store.put(name, bytes(data))
    else:
        store.put(name, bytes(data[:-7]))
    done = run("verify", s3)
    assert done.exit_code == 1
    assert f"{damage}: {name}: episode 2: " in done.output
    if damage != "altered":
        assert run("verify", s3, "--quick").exit_code == 1
    with pytest.raises(DamageError, match=rf"{s3}/{name}: "):
        vlapipe.open_dataset(s3)[2]["robot/q"]
    assert not list((tmp_path / "cache").glob("*.fetched"))


def test_altered_tables_and_manifest_in_the_store_are_found(s3: str, raw: Path) -> None:
    put(raw, s3)
    edit(folder_of(dataset_path(s3)), ["ep00"], Edit(drop=True))
    store = store_at(s3)
    for name in sorted(store.walk()):
        data = store.read(name)
        if name.startswith("shards/") or not data:
            continue
        store.put(name, data[:-1] + bytes([data[-1] ^ 1]))
        done = run("verify", s3, "--quick")
        assert done.exit_code == 1, name
        assert name in done.output
        store.put(name, data)
    assert run("verify", s3).exit_code == 0


def test_recordings_in_a_store_are_fetched_and_what_changed_is_fetched_again(
    s3: str, raw: Path, tmp_path: Path
) -> None:
    def upload() -> None:
        for path in raw.rglob("*"):
            if path.is_file() and path.stat().st_mtime != 1:
                source.put(path.relative_to(raw).as_posix(), path)
                os.utime(path, (1, 1))

    source, out = store_at(f"{s3}/raw"), tmp_path / "out"
    upload()
    schema = tmp_path / "lab.toml"
    schema.write_text(SCHEMA)
    command = ("ingest", "--dataset", f"{s3}/raw", "--out", out, "--schema", schema, "--workers", "1")
    done = run(*command)
    assert done.exit_code == 0, done.output
    on_disk = tmp_path / "on_disk"
    put(raw, on_disk, shard_bytes=256_000_000)
    assert tree_on_disk(out).keys() == tree_on_disk(on_disk).keys()
    make_lab(raw, {"ep09": {"n": 9}})
    upload()
    source.delete(["ep03/robot.csv", "ep03/metadata.json"])
    before = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("robot.csv")}
    done = run(*command, "--prune")
    assert "1 added, 1 removed" in done.output
    after = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("robot.csv")}
    assert sum(before.get(path) == number for path, number in after.items()) == 3


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("k", [9, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 4, 6, 13, 17))])
def test_lost_request_is_made_again_and_changes_nothing(
    failure: str, k: int, s3: str, s3_port: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    put(raw, disk)
    with FailingProxy(s3_port) as proxy:
        go_through(proxy, monkeypatch)
        proxy.fail(k, failure, count=2)
        put(raw, s3)
        make_lab(raw, {"ep07": {"n": 7}})
        proxy.fail(k, failure, count=2)
        put(raw, s3)
        put(raw, disk)
        proxy.fail(k, failure, count=2)
        dataset = vlapipe.open_dataset(s3)
        assert [float(dataset[i]["robot/q"][0]) for i in range(5)] == [0.0, 1.0, 2.0, 3.0, 0.0]
        assert tree_of(s3) == tree_on_disk(disk)


def test_store_that_does_not_answer_ends_the_command_and_the_same_command_finishes(
    s3: str, s3_port: int, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLAPIPE_STORE_WAIT", "0.2")
    with FailingProxy(s3_port) as proxy:
        go_through(proxy, monkeypatch)
        proxy.fail(3, "no answer", count=1000)
        with pytest.raises(StoppedError, match=rf"{s3}.*: .*the same command then goes on"):
            put(raw, s3)
        proxy.pass_all()
        monkeypatch.setenv("VLAPIPE_STORE_WAIT", "60")
        assert put(raw, s3).num_episodes == 4
        assert verify(folder_of(dataset_path(s3))).faults == []


def test_nothing_at_an_address_is_said_in_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotADatasetError, match=rf"{s3}: not a vlapipe dataset"):
        vlapipe.open_dataset(s3)
    with pytest.raises(StoppedError, match=r"s3://no-such-bucket/x/.*does not exist \(NoSuchBucket\)"):
        vlapipe.open_dataset("s3://no-such-bucket/x")
    with pytest.raises(UsageError, match="there is nothing in the store"):
        ingest(IngestConfig(source=dataset_path(s3), dry_run=True))
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"needs obstore, which is not installed \(in the checkout of vlapipe: pip"):
        Store(Address("s3:/robots/x")).read("y")


def test_folder_of_a_store_that_holds_something_else_is_refused(s3: str, raw: Path) -> None:
    store_at(s3).put("thesis.pdf", b"%PDF")
    with pytest.raises(UsageError, match=r"holds something else: thesis\.pdf"):
        put(raw, s3)


def test_file_outside_the_dataset_is_not_fetched(s3: str, raw: Path, tmp_path: Path) -> None:
    put(raw, s3)
    store = store_at(s3)
    document = json.loads(store.read("manifest.json"))
    document["episodes"]["file"] = "../../outside.parquet"
    document.pop("sha256", None)
    store.put("manifest.json", json.dumps(document).encode())
    with pytest.raises(DamageError, match="names a file outside the dataset"):
        vlapipe.open_dataset(s3)
    assert not list(tmp_path.rglob("outside.parquet"))


def test_keys_are_written_nowhere(s3: str, raw: Path, tmp_path: Path) -> None:
    put(raw, s3)
    output = run("log", s3).output + run("inspect", s3).output
    files = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    store = store_at(s3)
    files += [store.read(name) for name in store.walk()]
    assert b"secret-of-the-tests" not in b"".join([*files, output.encode()])


def test_append_and_edit_ask_seldom_and_still_see_what_another_machine_did(
    s3: str, s3_port: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lists(folder: str) -> int:
        return sum(f"prefix={s3.rpartition('/')[2]}%2F{folder}%2F" in each for each in proxy.requests)

    put(raw, s3)
    with FailingProxy(s3_port) as proxy:
        go_through(proxy, monkeypatch)
        for number in (7, 8):
            make_lab(raw, {f"ep{number:02d}": {"n": number}})
            proxy.pass_all()
            put(raw, s3)
        assert proxy.num_requests <= 25, proxy.requests
        assert lists("generations") <= 3
        address = dataset_path(s3)
        edit(folder_of(address, tmp_path / "another machine"), ["ep01"], Edit(drop=True))
        proxy.pass_all()
        edit(folder_of(address), ["ep02"], Edit(drop=True))
        assert proxy.num_requests <= 25, proxy.requests
    assert list(vlapipe.open_dataset(s3).column("id")) == ["ep00", "ep03", "ep07", "ep08"]
    assert not list((folder_of(address) / ".log").glob("000006-*"))


def test_another_dataset_at_the_same_address_is_read_anew(s3: str, raw: Path, tmp_path: Path) -> None:
    put(raw, s3)
    assert len(vlapipe.open_dataset(s3)) == 4
    store_at(s3).delete(store_at(s3).walk())
    with pytest.raises(NotADatasetError):
        vlapipe.open_dataset(s3)
    put(make_lab(tmp_path / "other" / "raw", {"ep_other": {"n": 1}}), s3)
    assert list(vlapipe.open_dataset(s3).column("id")) == ["ep_other"]


def test_server_is_a_real_one(s3_port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{s3_port}/") as answer:
        assert b"ListAllMyBucketsResult" in answer.read()


def test_forked_process_is_refused_instead_of_hanging(s3: str, raw: Path) -> None:
    put(raw, s3)
    pid = os.fork()
    if pid == 0:
        try:
            vlapipe.open_dataset(s3)
        except UsageError as error:
            os._exit(7 if "a forked process cannot read from a store" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_small_shards_in_a_store_are_compacted_as_on_a_disk(s3: str, raw: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for out in (s3, disk):
        put(raw, out)
        done = run("compact", out, "--shard-size", "1MB")
        assert done.exit_code == 0, done.output
    assert tree_of(s3) == tree_on_disk(disk)
    assert len(vlapipe.open_dataset(s3).manifest.shards) == 1
    assert [float(vlapipe.open_dataset(s3)[i]["robot/q"][0]) for i in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert not list((tmp_path / "cache" / "stores").rglob("shard-*"))


@pytest.mark.parametrize("into", ["store", "disk"])
def test_datasets_here_and_in_a_store_merge(into: str, s3: str, raw: Path, tmp_path: Path) -> None:
    other = make_lab(tmp_path / "other" / "raw", {f"ep{i:02d}": {"n": i} for i in range(4, 7)})
    disk = tmp_path / "disk"
    put(raw, disk if into == "disk" else s3)
    put(other, s3 if into == "disk" else disk)
    arguments = ("merge", disk, s3) if into == "disk" else ("merge", s3, disk)
    assert run(*arguments, "--dry-run").exit_code == 0
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    merged = vlapipe.open_dataset(arguments[1])
    assert list(merged.column("id")) == [f"ep{i:02d}" for i in range(7)]
    assert [float(merged[i]["robot/q"][0]) for i in range(7)] == [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0]
    assert run("verify", arguments[1]).exit_code == 0
    assert not list((tmp_path / "cache" / "stores").rglob("shard-*"))
