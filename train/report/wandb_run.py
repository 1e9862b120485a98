"""Sends metrics to Weights & Biases (W&B), if enabled. W&B never stops a run. The files of W&B stay under OUT."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.train.report.sinks import MetricsSink

__all__ = ["WANDB_FOLDER", "WANDB_ID_FILE", "open_wandb"]

WANDB_FOLDER = "wandb"  # the folder that wandb itself creates
WANDB_ID_FILE = "wandb_run_id"
_ONLINE_S = 30.0  # until the server must have answered at the start


class _WandbRun:
    """A W&B run as a destination. The datasets are recorded first, because an online run waits for the server."""

    def __init__(self, run: Any, datasets: Any, say: Callable[[str], None]) -> None:
        self._run, self._datasets, self._say = run, datasets, say

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._record_datasets()
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._record_datasets()
        self._run.finish()

    def abandon(self) -> None:
        # At exit, wandb would wait for its helper process. teardown cancels this wait, but may itself block.
        import wandb

        wandb.teardown()

    def _record_datasets(self) -> None:
        datasets, self._datasets = self._datasets, None
        if datasets is None:
            return
        try:
            if self._run.offline:
                # use_artifact refuses an offline run. It would make this call, which `wandb sync` sends later.
                self._run._log_artifact(datasets, is_user_created=True, use_after_commit=True)
            else:
                self._run.use_artifact(datasets)
        except Exception as error:  # noqa: BLE001 - a changed API, a server that refuses artifacts
            self._say(f"wandb: the dataset is not recorded as an input of the run: {_one_line(error)}")


def open_wandb(
    mode: str,
    out: Path,
    config: Mapping[str, Any],
    datasets: Sequence[tuple[Path, Path]],
    dataset_digest: str,
    say: Callable[[str], None],
) -> MetricsSink | None:
    """Returns a sink for W&B in ``online`` or ``offline`` mode; None if W&B is not installed or fails to start.

    ``datasets`` are folders and their manifests. W&B gets the whole config, and the datasets as an input artifact:
    references to their manifests, and the digest of all manifests. No data is sent. A run without a key or without a
    connection is kept offline.
    """
    try:
        import wandb
    except ModuleNotFoundError:
        say("wandb is not installed: metrics go to metrics.jsonl only (pip install wandb, or --wandb disabled)")
        return None
    except Exception as error:  # noqa: BLE001 - a broken installation
        say(f"wandb cannot be imported: {_one_line(error)}; metrics go to metrics.jsonl only")
        return None
    known = {**config, "dataset_digest": dataset_digest}
    sent_later = f"later, 'wandb sync {out / WANDB_FOLDER}/offline-run-*' sends it"
    try:
        if mode == "online" and not _has_key(wandb):
            say(f"wandb: no API key, so this run is kept offline ('wandb login' stores one; {sent_later})")
            mode = "offline"
        try:
            run = _start(wandb, mode, out, known)
        except Exception as error:
            if mode != "online":
                raise
            say(f"wandb: no connection, so this run is kept offline ({sent_later}): {_one_line(error)}")
            with contextlib.suppress(SystemExit):
                wandb.teardown()  # else the run's id stays in use
            run = _start(wandb, "offline", out, known)
        artifact = _artifact(wandb, datasets, dataset_digest)
    except Exception as error:  # noqa: BLE001 - no failure of a reporter stops a training
        say(f"wandb does not start: {_one_line(error)}; metrics go to metrics.jsonl only")
        return None
    return MetricsSink("wandb", _WandbRun(run, artifact, say), say)


def _has_key(wandb: Any) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # older than 0.30
        return bool(wandb.api.api_key)


def _start(wandb: Any, mode: str, out: Path, config: Mapping[str, Any]) -> Any:
    return wandb.init(
        project="vlapipe",
        dir=out,
        id=_run_id(out),
        name=out.name,
        resume="allow",
        mode=mode,
        config=dict(config),
        settings=wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            disable_git=True,
            disable_code=True,
            **({"init_timeout": _ONLINE_S} if mode == "online" else {}),
        ),
    )


def _artifact(wandb: Any, datasets: Sequence[tuple[Path, Path]], digest: str) -> Any:
    """Returns the datasets as an artifact, whose name is that of their folders and whose version is their content."""
    metadata = {"digest": digest, "paths": [str(folder.absolute()) for folder, _ in datasets]}
    name = re.sub(r"[^\w.-]", "_", "-".join(folder.name for folder, _ in datasets), flags=re.ASCII)[:100]
    artifact = wandb.Artifact(name or "dataset", type="dataset", metadata=metadata)
    for i, (folder, manifest) in enumerate(datasets):
        artifact.add_reference(manifest.absolute().as_uri(), name=f"{i}-{folder.name}/{manifest.name}")
    return artifact


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _run_id(out: Path) -> str:
    """Returns the run's W&B id. Every resume of the run has the same id, so that W&B shows one curve."""
    file = out / WANDB_ID_FILE
    if not file.exists():
        write_bytes(file, secrets.token_hex(4).encode())
    return file.read_text().strip()
