"""The manifest and its table are exactly as written, or are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import vlapipe
from vlapipe.schemas.errors import DamageError


def test_altered_episodes_table_is_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy)
    table = next(copy.glob("episodes-*.parquet"))
    table.chmod(0o644)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    with pytest.raises(DamageError, match="differ from those that were written"):
        vlapipe.open_dataset(copy).episode(0)
