"""Reads what W&B keeps of an offline run: records in LevelDB's log format, after a header of 7 bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FULL, _LAST = 1, 4


def _messages(data: bytes) -> Iterator[bytes]:
    at, message = 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:  # too little of the block is left for a header
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_FULL, _LAST):
            yield message
            message = b""


def _read(file: Path) -> list[Any]:
    """Records of a file that is complete: W&B's helper writes on for a moment after the run has finished."""
    deadline = time.monotonic() + 20
    while True:
        found = []
        for message in _messages(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            found.append(record)
        if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def records(out: Path, kind: str) -> list[Any]:
    """Records of one kind of all processes of the run in ``out``, the oldest first."""
    files = sorted(out.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name)
    return [getattr(record, kind) for file in files for record in _read(file) if record.HasField(kind)]


def run_ids(out: Path) -> list[str]:
    """The id of each process's run."""
    return [record.run_id for record in records(out, "run")]


def config(out: Path) -> dict[str, Any]:
    """The config of the newest process's run."""
    return {item.key: json.loads(item.value_json) for item in records(out, "run")[-1].config.update}


def history(out: Path) -> list[dict[str, Any]]:
    """Each logged step of all processes, with its number as ``_step``."""
    return [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.item}
        for record in records(out, "history")
    ]
