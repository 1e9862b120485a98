"""Tables as the bytes of Parquet files, which their digests name, and the files as pyarrow can open them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.schemas.errors import is_text

__all__ = ["parquet_bytes", "parquet_source"]


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Returns a table as a Parquet file. ``options`` are those of pyarrow's ``write_table``."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def parquet_source(path: Path) -> Path | BinaryIO:
    """Returns what pyarrow can read: the path, or an open file if the path is not valid text."""
    return path if is_text(str(path)) else path.open("rb")
