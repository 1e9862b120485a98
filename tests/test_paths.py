"""An address is a dataset's or refused in one line, for every path option, and no folder called ``s3:`` is made."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import vlapipe
from vlapipe.cli import cli
from vlapipe.commands.options import DATASET, FOLDER
from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.ingest import IngestConfig
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import Address, dataset_path, local_path
from vlapipe.schemas.registry import load_schema
from vlapipe.train.config import TrainConfig

STORES = ["s3://bucket/x", "gs://bucket/x", "https://host/x", "hf://datasets/x", "FILE:///tmp/x", "memory://x"]
# Text of these options and arguments is no path.
WINDOWS = ("state", "sensor", "image", "action")
NO_PATHS = {
    "episodes", "seed", "defects", "dry_run", "shard_format", "codec", "workers", "scheduler", "scheduler_timeout",
    "shard_size", "image_size", "image_storage", "image_quality", "strict", "as_json", "policy", "batch_size",
    "grad_accum", "num_workers", "prefetch_factor", "shuffle_shards", "augment", "image_resize_height",
    "image_resize_width", "precision", "compile_mode", "gradient_checkpointing", "parallel", "deterministic", "resume",
    "wandb", "tensorboard", "profile", "seconds", "schedule", "ema", "attention",
    "hang_timeout_s", "max_steps", "decay_steps", "learning_rate", "eval_every", "save_every", "async_save", "where",
    "keep_best", "keep_every", "cache_size", "version", "help", "state", "sensors", "cameras", "ahead_rows", "rotation",
    "action_form", "image_resize", "to", "fps", "video", "accept", "checkpoint", "port", "execute", "ensemble",
    "embodiment", "eval_env", "eval_env_every", "environment", "env_arg", "films", "split", "frames",
    "pages", "epochs", "quick", "sample", "full", "remove_unlisted", "rerun", "prune", "note", "keep", "drop",
    "restore", "values", "episode_timeout", "older_than",
    *(f"{w}_{k}" for w in WINDOWS for k in ("rows", "stride", "s")),
}  # fmt: skip
NO_PATHS_OF = {("inspect", "episode")}


def leaves(command: click.Command, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for key, child in command.commands.items():
            yield from leaves(child, (*name, key))
    else:
        yield name, command


def paths() -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter]]:
    for name, command in leaves(cli):
        for parameter in command.params:
            if parameter.name not in NO_PATHS and (name[-1], parameter.name) not in NO_PATHS_OF:
                yield name, command, parameter


@pytest.mark.parametrize("case", [f"{' '.join(name)} {parameter.name}" for name, _, parameter in paths()])
def test_every_path_of_every_command_refuses_an_address_that_it_cannot_use(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, command, parameter = next(p for p in paths() if f"{' '.join(p[0])} {p[2].name}" == case)
    address, why = "s3://bucket/x", "a store cannot be used for this ("
    if parameter.type in (DATASET, FOLDER):
        address, why = "https://host/x", "not the address of a store's folder ("
    here = {
        other.name: address if other is parameter else str(tmp_path)
        for other in command.params
        if isinstance(other, click.Argument)
    }
    arguments = [*name, *here.values()]
    if isinstance(parameter, click.Option):
        arguments += [parameter.opts[0], address]
    for option, value in (("--dataset", "."), ("--out", "out")):
        if name == ("ingest",) and option not in arguments and (option != "--dataset" or "--dir" not in arguments):
            arguments += [option, value]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, UsageError), done.exception
    assert str(done.exception).count(f"{address}: {why}") == 1
    assert not list(tmp_path.iterdir())


CALLS: dict[str, Callable[[Any], Any]] = {
    "cache_dir": lambda path: vlapipe.open_dataset(".", cache_dir=path),
    "load_policy": lambda path: vlapipe.load_policy(path),  # needs torch
    "make_demo": make_demo,
    "load_schema": load_schema,
    "train out": lambda path: TrainConfig.of(data=(Path("data"),), out=path),
    "train cache_dir": lambda path: TrainConfig.of(data=(Path("data"),), out=Path("run"), cache_dir=path),
    "train config": lambda path: TrainConfig.from_sources(path, {}),
    "train resume": lambda path: TrainConfig.from_sources(None, {"out": path, "resume": True}),
}


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_refuses_a_store(call: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if call == "load_policy":
        pytest.importorskip("torch")
    with pytest.raises(UsageError, match="s3://bucket/x: a store cannot be used for this"):
        CALLS[call](kind("s3://bucket/x"))
    assert not list(tmp_path.iterdir())


OF_DATASETS: dict[str, Callable[[Any], Any]] = {
    "open_dataset": vlapipe.open_dataset,
    "ingest source": lambda path: IngestConfig(source=path, dry_run=True),
    "ingest out": lambda path: IngestConfig(source=Path(), out=path),
    "train data": lambda path: TrainConfig.of(data=(path,), out=Path("run")),
}


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("call", OF_DATASETS)
def test_every_call_with_a_dataset_refuses_an_address_of_no_store(call: str, kind: type) -> None:
    with pytest.raises(UsageError, match="https://host/x: not the address of a store's folder"):
        OF_DATASETS[call](kind("https://host/x"))


def test_an_address_keeps_its_parts_and_a_password_is_not_shown() -> None:
    found = dataset_path("s3://bucket/a/b/")
    assert isinstance(found, Address)
    assert (found.scheme, found.bucket, found.prefix, str(found)) == ("s3", "bucket", "a/b", "s3://bucket/a/b")
    assert dataset_path(Path("s3://bucket/a/b")) == pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    assert dataset_path("file:///data/x") == Path("/data/x")
    for wrong in ("s3://key:secret@bucket/x", "s3://", "s3://bucket/../x", "s3://bucket/x?versionId=1"):
        with pytest.raises(UsageError) as caught:
            dataset_path(wrong)
        assert "secret" not in str(caught.value)


def test_cache_folder_of_the_environment_is_no_store(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLAPIPE_CACHE_DIR", "s3://bucket/cache")
    with pytest.raises(UsageError, match=r"\$VLAPIPE_CACHE_DIR s3://bucket/cache"):
        vlapipe.open_dataset(tiny_dataset)


@pytest.mark.parametrize("store", STORES)
def test_any_scheme_is_a_store(store: str) -> None:
    with pytest.raises(UsageError, match="a store cannot be used for this"):
        local_path(store)


@pytest.mark.parametrize("path", ["data", "/data/x", "C:/data", "a:b", "2026-01-01 10:00/x", "./s3:x", "~/x:y/z"])
def test_paths_with_colons_stay_paths(path: str) -> None:
    assert local_path(path) == Path(path)
