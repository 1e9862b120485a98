"""Opens Parquet files: a column is an array, read by the row groups that hold the wanted rows.

A list column with equal lengths becomes ``(rows, n)``, nested lists ``(rows, n, m)``. A struct's members are arrays of
their own, called ``column.member``; a struct of ``bytes`` and ``path`` is a column of encoded images.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlapipe.pipeline.discover.proportion import MOST_FREE, limit_bytes
from vlapipe.pipeline.read.containers.arrays import ArrayEntry, stop_for
from vlapipe.pipeline.read.containers.kept_columns import KeptColumns
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.pipeline.read.text import first_line
from vlapipe.schemas.findings import Findings

__all__ = ["open_parquet"]

_BATCH = 256  # rows of a column of texts or images that are decoded at a time
_MAX_EXACT = 1 << 53  # float64 holds every whole number up to this one
_RowOf = Callable[[int], int]
_IMAGE = {"bytes", "path"}
_OF_TIME = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration)
_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}

_kept = KeptColumns(64 << 20)


@dataclass(frozen=True, kw_only=True)
class _Footer:
    """What a file says about itself. ``starts`` holds the first row of each row group, then the number of rows."""

    stamp: tuple[str, int, int]  # the file's path, size, and time of its last change
    metadata: pq.FileMetaData
    schema: pa.Schema
    starts: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]  # of columns of lists, by the first row


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One column, or one member of a struct: the way to it from the file's top, and its type."""

    root: Path
    file: pq.ParquetFile
    footer: _Footer
    num_bytes: int  # of the file
    path: tuple[str, ...]
    type: pa.DataType


def open_parquet(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> dict[str, ArrayEntry] | None:
    """Returns the columns of a Parquet file by name; ``None`` with a finding if it is none. ``base`` means nothing."""
    del base
    status = path.stat()
    try:
        footer = _read_footer(str(path), status.st_size, status.st_mtime_ns)
        file = pq.ParquetFile(stack.enter_context(path.open("rb")), metadata=footer.metadata)
    except Exception as error:  # noqa: BLE001 - a damaged footer fails in a dozen ways
        stop_for(error, label)
        findings.add("npz.unreadable", label, expected="a Parquet file", found=first_line(error))
        return None
    root = path.parents[label.count("/")]
    arrays: dict[str, ArrayEntry] = {}
    for field in footer.schema:
        for names, kind in _leaves((field.name,), field.type):
            column = _Column(root=root, file=file, footer=footer, num_bytes=status.st_size, path=names, type=kind)
            arrays[".".join(names)] = ArrayEntry(
                file=label, load=partial(_load, column), shape=_shape(column), dtype=_dtype(kind)
            )
    return arrays


def _leaves(path: tuple[str, ...], kind: pa.DataType) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    """Yields the members of a struct instead of the struct; a struct that is an image stays whole."""
    if not pa.types.is_struct(kind) or _is_image(kind):
        yield path, kind
        return
    for member in kind:
        yield from _leaves((*path, member.name), member.type)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {member.name for member in kind} == _IMAGE


@lru_cache(maxsize=32)
def _read_footer(path: str, num_bytes: int, mtime_ns: int) -> _Footer:
    """Reads a footer once: that takes long if the file has a row group for each of thousands of episodes.

    The size of the file and the time of its last change stand for its content.
    """
    stamp = (path, num_bytes, mtime_ns)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if any(size < 0 for size in sizes):
            raise ValueError("a row group of less than no rows")
        starts = tuple(accumulate(sizes, initial=0))
        shapes = {}
        for field in file.schema_arrow:
            if starts[-1] and _list_of(field.type) and not _width(field.type):
                shapes[field.name] = _first_shape(file, field.name)
        return _Footer(stamp=stamp, metadata=metadata, schema=file.schema_arrow, starts=starts, shapes=shapes)


def _first_shape(file: pq.ParquetFile, name: str) -> tuple[int, ...]:
    batch = next(file.iter_batches(batch_size=1, columns=[name], use_threads=False))
    value: Any = batch.column(batch.schema.get_field_index(name)).to_pylist()[0]
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _list_of(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list)


def _width(kind: pa.DataType) -> tuple[int, ...]:
    """Returns the shape of one row of a type that tells it; empty for a number, and for a list of any length."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    if pa.types.is_fixed_size_list(kind):
        return (kind.list_size, *_width(kind.value_type))
    return ()


def _shape(column: _Column) -> tuple[int, ...]:
    row = column.footer.shapes.get(column.path[0], ()) if len(column.path) == 1 else ()
    return (column.footer.starts[-1], *(row or _width(column.type)))


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    """Returns the dtype of the array if no value is missing; ``None`` for anything but numbers."""
    while _list_of(kind):
        kind = kind.value_type
    if isinstance(kind, pa.FixedShapeTensorType):
        kind = kind.value_type
    if any(of_time(kind) for of_time in _OF_TIME):
        return np.dtype(np.int64)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    is_decimal = pa.types.is_decimal(kind)
    return np.dtype(np.float64) if is_decimal else None


def _load(column: _Column, rows: slice | None) -> NDArray[Any]:
    """Returns the rows of a column.

    Raises:
        RefusedError: the column cannot become one array.
    """
    starts = column.footer.starts
    start, stop, _ = (rows or slice(None)).indices(starts[-1])
    first, last = bisect_right(starts, start) - 1, bisect_left(starts, stop)
    groups = list(range(max(first, 0), min(last, len(starts) - 1)))
    if not groups or stop <= start:
        return np.zeros((0, *_shape(column)[1:]), dtype=_dtype(column.type) or np.float64)
    _refuse_bomb(column, groups)
    pieces = []
    row, num_bytes = starts[groups[0]], 0
    for batch in _batches(column, groups, stop - start):
        values = batch
        for name in column.path[1:]:
            values = pc.struct_field(values, name)
        lead, tail = max(start - row, 0), min(stop - row, len(values))
        if lead < tail:
            values = values.slice(lead, tail - lead)
            pieces.append(_to_numpy(values, column, partial(operator.add, row + lead)))
            num_bytes += values.get_total_buffer_size() if pieces[-1].dtype == object else 0
            _refuse_size(num_bytes, column)
        row += len(batch)
        if row >= stop:
            break
    widths = {piece.shape[1:] for piece in pieces}
    if len(widths) > 1:
        before = 0
        for piece in pieces:
            if piece.shape[1:] != pieces[0].shape[1:]:
                raise _uneven(start + before, piece.shape[1:], start, pieces[0].shape[1:])
            before += len(piece)
    return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


def _batches(column: _Column, groups: list[int], num_rows: int) -> Iterator[pa.Array]:
    """Yields the column's values, whole row groups at a time, or fewer rows if values may be large.

    A row group of more than ``num_rows`` rows, as many as are wanted, is kept for the next part of it.
    """
    name = column.path[0]
    if _dtype(column.type) is not None:
        starts = column.footer.starts
        for group in groups:
            read = partial(_read_group, column.file, group, name)
            is_part = starts[group + 1] - starts[group] > num_rows
            whole = _kept.get((*column.footer.stamp, group, name), read) if is_part else read()
            yield from whole.chunks
        return
    for batch in column.file.iter_batches(_BATCH, row_groups=groups, columns=[name], use_threads=False):
        yield batch.column(name)


def _read_group(file: pq.ParquetFile, group: int, name: str) -> pa.ChunkedArray:
    return file.read_row_group(group, columns=[name], use_threads=False).column(name)


def _refuse_bomb(column: _Column, groups: list[int]) -> None:
    """Refuses a column that a few bytes of a file would make gigabytes of: by repeated values, or by compression."""
    metadata = column.footer.metadata
    itemsize = (_dtype(column.type) or np.dtype(np.uint8)).itemsize
    decoded = unpacked = 0
    for group in groups:
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            if chunk.path_in_schema.split(".")[0] == column.path[0].split(".")[0]:
                decoded += max(chunk.num_values, row_group.num_rows) * itemsize
                unpacked += chunk.total_uncompressed_size
    _refuse_size(max(decoded, unpacked), column)


def _refuse_size(num_bytes: int, column: _Column) -> None:
    limit = limit_bytes(column.num_bytes)
    if num_bytes > limit:
        expected = f"at most {limit:,} bytes, for the file has {column.num_bytes:,}"
        raise RefusedError("npz.too_large", expected, f"{num_bytes:,} bytes")


def _to_numpy(values: pa.Array, column: _Column, row_of: _RowOf) -> NDArray[Any]:
    """Converts a column's values. ``row_of`` returns the file's row of a value, for findings."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        shape = _width(kind)
        flat = _to_numpy(values.storage, column, row_of)
        return flat.reshape(len(values), *shape) if shape else flat
    if pa.types.is_dictionary(kind):
        return _to_numpy(_decoded(values, column), column, row_of)
    if _list_of(kind):
        return _of_lists(values, column, row_of)
    if _is_image(kind):
        return _images(values, column, row_of)
    if any(of_time(kind) for of_time in _OF_TIME):
        return _numbers(_nanoseconds(values), row_of)
    if pa.types.is_decimal(kind):
        return _numbers(pc.cast(values, pa.float64(), safe=False), row_of)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(values, row_of)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        _refuse_missing(values, "a text", row_of)
        return np.array(values.to_pylist(), dtype=object)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        _refuse_missing(values, "a value", row_of)
        return _objects([np.frombuffer(value, dtype=np.uint8) for value in _bytes(values) if value is not None])
    raise RefusedError("npz.dtype", "numbers, lists of numbers, texts or images", str(kind))


def _refuse_missing(values: pa.Array, what: str, row_of: _RowOf) -> None:
    if values.null_count:
        at = row_of(int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))))
        raise RefusedError("npz.no_value", f"{what} in each row", f"none in row {at}")


def _decoded(values: pa.DictionaryArray, column: _Column) -> pa.Array:
    """Returns the values of a dictionary column."""
    words = values.dictionary
    if len(words):
        _refuse_size(words.get_total_buffer_size() // len(words) * len(values), column)
    return values.dictionary_decode()


def _nanoseconds(values: pa.Array) -> pa.Array:
    """Returns times as whole nanoseconds: since 1970, since midnight, or of a duration."""
    kind = values.type
    if pa.types.is_date32(kind):
        factor, whole = 86_400 * _NS["s"], pc.cast(values, pa.int32())
    elif pa.types.is_date64(kind):
        factor, whole = _NS["ms"], pc.cast(values, pa.int64())
    else:
        factor, whole = _NS[kind.unit], pc.cast(values, pa.int32() if pa.types.is_time32(kind) else pa.int64())
    return pc.multiply_checked(pc.cast(whole, pa.int64()), factor)


def _numbers(values: pa.Array, row_of: _RowOf) -> NDArray[Any]:
    """Returns numbers; where one is missing, it is NaN, and whole numbers become float64."""
    if not values.null_count:
        # Bits of a bool column are unpacked by a cast.
        plain = pc.cast(values, pa.uint8()) if pa.types.is_boolean(values.type) else values
        array = np.asarray(plain.to_numpy(zero_copy_only=False))
        return array.view(np.bool_) if pa.types.is_boolean(values.type) else array
    if pa.types.is_integer(values.type):
        far = pc.max(pc.fill_null(pc.abs(pc.cast(values, pa.float64(), safe=False)), 0)).as_py()
        if far > _MAX_EXACT:
            where = f"row {row_of(int(np.argmax(values.is_null())))}"
            raise RefusedError("npz.dtype", "a value in each row of whole numbers this large", f"none in {where}")
    floating = values if pa.types.is_floating(values.type) else pc.cast(values, pa.float64(), safe=False)
    return np.asarray(floating.to_numpy(zero_copy_only=False))


def _of_lists(values: pa.Array, column: _Column, row_of: _RowOf) -> NDArray[Any]:
    """Returns lists of equal length as one array more deep; a list that is missing becomes NaN."""
    is_missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False))
    there = values.drop_null() if is_missing.any() else values
    kept = np.flatnonzero(~is_missing)
    if pa.types.is_fixed_size_list(values.type):
        width, flat = values.type.list_size, there.flatten()
    else:
        lengths = np.asarray(pc.list_value_length(there))
        width = int(lengths[0]) if len(lengths) else 0
        other = np.flatnonzero(lengths != width)
        if len(other):
            row, first = (row_of(int(kept[i])) for i in (other[0], 0))
            raise _uneven(row, (int(lengths[other[0]]),), first, (width,))
        flat = there.flatten()
    inner = np.zeros(0, dtype=_dtype(values.type) or np.float64)
    if len(flat):
        inner = _to_numpy(flat, column, lambda i: row_of(int(kept[i // width])))
    if inner.dtype == object:
        raise RefusedError("npz.dtype", "lists of numbers", f"{values.type}")
    array = inner.reshape(len(there), width, *inner.shape[1:])
    if not is_missing.any():
        return array
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    whole = np.full((len(values), *array.shape[1:]), np.nan, dtype=dtype)
    whole[~is_missing] = array
    return whole


def _uneven(row: int, shape: tuple[int, ...], other: int, before: tuple[int, ...]) -> RefusedError:
    def said(shape: tuple[int, ...]) -> str:
        return "x".join(str(n) for n in shape) or "one"

    expected = f"{said(before)} values as in row {other}"
    return RefusedError("npz.shape", expected, f"{said(shape)} in row {row}")


def _bytes(values: pa.Array) -> list[memoryview | None]:
    """Returns the bytes of each value without a copy."""
    return [None if not scalar.is_valid else memoryview(scalar.as_buffer()) for scalar in values]


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values if values else []
    return array


def _images(values: pa.Array, column: _Column, row_of: _RowOf) -> NDArray[Any]:
    """Returns each image's bytes, uint8: those in the column, or those of the file that it names instead."""
    found: list[Any] = []
    paths = pc.struct_field(values, "path")
    for i, data in enumerate(_bytes(pc.struct_field(values, "bytes"))):
        if data is None and (path := paths[i].as_py()) is not None:
            found.append(_file_inside(column.root, path, row_of(i)))
        elif data is None:
            raise RefusedError("npz.no_value", "an image in each row", f"none in row {row_of(i)}")
        else:
            found.append(np.frombuffer(data, dtype=np.uint8))
    return _objects(found)


def _file_inside(root: Path, path: str, row: int) -> NDArray[np.uint8]:
    """Reads a file that a row names; it must lie in the dataset's folder."""
    place = root / path
    inside = not PurePosixPath(path).is_absolute() and place.resolve().is_relative_to(root.resolve())
    if not inside or not place.is_file():
        expected = "a file in the dataset's folder" if not inside else "a file that is there"
        raise RefusedError("npz.no_value", expected, f"{path!r:.80} in row {row}")
    if (num_bytes := place.stat().st_size) > MOST_FREE:
        found = f"{num_bytes:,} bytes of {path!r:.80} in row {row}"
        raise RefusedError("npz.too_large", f"an image of at most {MOST_FREE:,} bytes", found)
    return np.fromfile(place, dtype=np.uint8)
