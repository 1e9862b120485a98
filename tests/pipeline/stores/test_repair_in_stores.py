"""A repair in a store puts back the objects that are damaged, bit for bit, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from store_server import FailingProxy, environment
from tiny_lab import make_lab, schema_text

from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.stores import copies
from vlapipe.pipeline.shards.stores.store import Store
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.paths import Address, dataset_path

SLOW = pytest.mark.slow
ORIGINS = [
    "recordings in a store",
    *(pytest.param(each, marks=SLOW) for each in ("recordings here", "copy here", "copy in a store")),
]
KINDS = ["altered", *(pytest.param(each, marks=SLOW) for each in ("missing", "truncated"))]


class Lab:
    """A dataset of two generations in a store, whose recordings and copies are here and in stores too."""

    def __init__(self, address: str, root: Path) -> None:
        self.address, self.raw = address, make_lab(root / "raw", {f"ep{i:02d}": {"n": i} for i in range(4)})
        schema = root / "lab.toml"
        schema.write_text(schema_text(val=0.3))

        def put() -> None:
            config = IngestConfig(source=self.raw, out=dataset_path(address), schema=str(schema), shard_bytes=20)
            ingest(config)

        put()
        make_lab(self.raw, {f"ep{i:02d}": {"n": i} for i in range(4, 6)})
        put()
        self.store = store_at(address)
        self.origins = {
            "recordings here": ("--source", str(self.raw)),
            "recordings in a store": ("--source", f"{address}-raw"),
            "copy here": ("--from", str(root / "copy")),
            "copy in a store": ("--from", f"{address}-copy"),
        }
        for path in self.raw.rglob("*"):
            if path.is_file():
                store_at(f"{address}-raw").put(path.relative_to(self.raw).as_posix(), path)
        for name, data in self.tree().items():
            store_at(f"{address}-copy").put(name, data)
            file = root / "copy" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        self.shards = sorted(name for name in self.store.walk() if name.startswith("shards/"))

    def tree(self) -> dict[str, bytes]:
        return {name: self.store.read(name) for name in self.store.walk()}

    def damage(self, name: str, kind: str) -> None:
        data = bytearray(self.store.read(name))
        data[len(data) // 3] ^= 1
        if kind == "missing":
            self.store.delete([name])
        else:
            self.store.put(name, bytes(data if kind == "altered" else data[:-9]))

    def repair(self, origin: str, *more: str) -> Result:
        return run("repair", self.address, *self.origins[origin], *more)


@pytest.fixture
def lab(s3: str, tmp_path: Path) -> Lab:
    return Lab(s3, tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def store_at(address: str) -> Store:
    found = dataset_path(address)
    assert isinstance(found, Address)
    return Store(found)


def forget_this_machine(tmp_path: Path) -> None:
    """Go on as a machine that has seen nothing of the dataset."""
    shutil.rmtree(tmp_path / "cache")
    copies._known.clear()


@pytest.mark.parametrize("origin", ORIGINS)
def test_damaged_shards_are_put_back_and_nothing_else(
    origin: str, lab: Lab, s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.tree()
    damaged = dict(zip((lab.shards[0], lab.shards[2], lab.shards[5]), ("missing", "altered", "truncated"), strict=True))
    for name, kind in damaged.items():
        lab.damage(name, kind)
    forget_this_machine(tmp_path)
    with FailingProxy(s3_port) as proxy:
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        done = lab.repair(origin)
        requests = list(proxy.requests)
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.startswith("repaired")] == [
        f"repaired: {name} (was {kind})" for name, kind in damaged.items()
    ]
    assert done.output.splitlines()[-1].startswith(f"{lab.address}: ")
    assert lab.tree() == before
    puts = [each.partition("?")[0] for each in requests if each.startswith("PUT")]
    assert sorted(each.rpartition("/shards/")[2] for each in puts) == sorted(name[7:] for name in damaged)
    own = f"/{lab.address.removeprefix('s3://')}/shards/"
    assert all(requests.count(f"GET {own}{name[7:]}") == 1 for name in lab.shards if name not in damaged)
    assert not list((tmp_path / "cache").glob("*.fetched"))
    assert not list((tmp_path / "cache" / "stores").rglob("shard-*"))
    assert run("verify", lab.address, "--full").exit_code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_objects_are_taken_from_a_copy(kind: str, lab: Lab) -> None:
    before = lab.tree()
    # A dataset without its record or its history is whole, and one without generations is manifest.json alone.
    others = ("shards/", "manifest.json", *((".", "generations/") if kind == "missing" else ()))
    damaged = {name for name, data in before.items() if data and not name.startswith(others)}
    for name in damaged:
        lab.damage(name, kind)
    done = lab.repair("copy in a store")
    assert done.exit_code == 0, done.output
    repaired = {line.removesuffix(f" (was {kind})") for line in done.output.splitlines() if line.startswith("repaired")}
    assert repaired == {f"repaired: {name}" for name in damaged}
    assert lab.tree() == before


def test_tables_of_a_later_generation_are_made_again_from_recordings(lab: Lab, tmp_path: Path) -> None:
    before = lab.tree()
    damaged = {name for name in before if name.startswith(("episodes-", "statistics-", "moments-"))}
    for name in damaged:
        lab.damage(name, "altered")
    forget_this_machine(tmp_path)
    done = lab.repair("recordings here")
    assert done.exit_code == 0, done.output
    assert lab.tree() == before


def test_whole_dataset_fetches_no_recording(lab: Lab, tmp_path: Path) -> None:
    forget_this_machine(tmp_path)
    done = lab.repair("recordings in a store")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "nothing to repair")
    assert not (tmp_path / "cache" / "recordings").exists()


def test_object_that_is_damaged_in_the_copy_too_stays_as_it_is(lab: Lab) -> None:
    name = lab.shards[1]
    lab.damage(name, "altered")
    damaged = lab.store.read(name)
    store_at(f"{lab.address}-copy").put(name, damaged)
    lab.damage(lab.shards[3], "missing")
    done = lab.repair("copy in a store")
    assert done.exit_code == 1
    assert f"not repaired: {name}: {lab.address}-copy/{name} has other bytes too" in done.output
    assert f"repaired: {lab.shards[3]} (was missing)" in done.output
    assert lab.store.read(name) == damaged


@SLOW
def test_store_that_refuses_the_put_ends_the_command_and_the_same_command_finishes(
    lab: Lab, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.tree()
    lab.damage(lab.shards[0], "altered")
    with FailingProxy(s3_port) as proxy:
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(copies, "_known", {})
        assert lab.repair("copy here").exit_code == 0
        put = next(i for i, each in enumerate(proxy.requests, 1) if each.startswith("PUT"))
        lab.damage(lab.shards[0], "altered")
        monkeypatch.setenv("VLAPIPE_STORE_WAIT", "0.2")
        proxy.fail(put, "no answer", count=1000)
        stopped = lab.repair("copy here").exception
        assert isinstance(stopped, StoppedError)
        assert "the same command then goes on" in str(stopped)
        proxy.pass_all()
        monkeypatch.setenv("VLAPIPE_STORE_WAIT", "60")
        assert lab.repair("copy here").exit_code == 0
    assert lab.tree() == before


def test_dataset_is_no_copy_of_itself(lab: Lab) -> None:
    done = run("repair", lab.address, "--from", lab.address)
    assert isinstance(done.exception, UsageError)
    assert f"--from {lab.address}: is the dataset itself" in str(done.exception)
