"""Computes the position of each array in a shard's cache entry, from the manifest, the schema and the mapped arrays.

A cache entry consists of C-ordered blocks of rows. A block contains one field in its own dtype, or all fields of a
batch entry side by side as float32, so that a window of rows is contiguous. A float32 field of such a block is stored
only once: the field's array is a slice of the block's columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_STRIDE_ORDER, ACTION_VALUE, action_size
from vlapipe.pipeline.shards.derive.derived_fields import derived_specs
from vlapipe.pipeline.shards.derive.episode_sample import foreign_streams
from vlapipe.pipeline.shards.derive.gaps import STATE
from vlapipe.pipeline.shards.format.zip_file import ALIGNMENT
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = [
    "ROW_TEXT",
    "STATE",
    "STATE_IS_MISSING",
    "TIME",
    "Block",
    "BlockColumns",
    "Layout",
    "is_aligned",
    "lay_out",
    "sample_fields",
]

ROW_TEXT = "instruction/row"  # block of the rows' instructions, if they are not C-ordered elsewhere
STATE_IS_MISSING = "observation.state_is_missing"  # uint8 (rows, 1): a field has no value within its tolerance
TIME = "timestamp"  # float64 (rows, 1): seconds since the first anchor row; "timestamp/<stream>" of another stream
_CHOSEN_ROW = "chosen/row"  # of a chosen action, beside the mapped action/row of the schema's own
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Block:
    """``fields`` side by side, ``(num_rows, num_columns)``. ``offset`` is in bytes from the beginning of the data."""

    fields: tuple[str, ...]
    dtype: np.dtype[Any]
    num_rows: int
    num_columns: int
    offset: int

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the block."""
        return self.num_rows * self.num_columns * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class BlockColumns:
    """The columns ``first <= i < stop`` of a block. Each row of these columns is reshaped to ``shape``."""

    block: str
    first: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of a cache entry.

    ``blocks``: the entry's blocks by name. ``places``: the place of each array that is not mapped in the shard, by
    name. ``copies``: fields that a block repeats, often in another dtype, with their places. ``sample``: for each batch
    entry, the name of its block or of its mapped array in the shard.
    """

    blocks: dict[str, Block] = field(default_factory=dict)
    places: dict[str, BlockColumns] = field(default_factory=dict)
    copies: list[tuple[str, BlockColumns]] = field(default_factory=list)
    sample: dict[str, str] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Number of bytes of all blocks, without the file's header."""
        return max((block.offset + block.num_bytes for block in self.blocks.values()), default=0)


def sample_fields(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Returns the fields of each float32 batch entry. The fields of an entry are side by side in it."""
    sensors = {f"observation.sensors.{name}": (path,) for name, path in schema.sample.sensors}
    return {STATE: schema.sample.state, **sensors, "action": (ACTION_VALUE,)}


def is_aligned(schema: Schema) -> bool:
    """Returns whether any field of the state belongs to another stream than the anchor."""
    return bool(foreign_streams(schema, schema.sample.state))


def lay_out(
    arrays: Mapping[str, Mapping[str, Any]],
    schema: Schema,
    mapped: Mapping[str, NDArray[Any]],
    clocks: tuple[str, ...],
    *,
    chosen: bool,
    padded: Mapping[str, int],
) -> Layout:
    """Compute the layout of a shard's cache entry.

    Args:
        arrays: the manifest's description of the shard's arrays.
        schema: the schema, which names the derived fields and the fields of a sample.
        mapped: the arrays that are uncompressed in the shard, mapped.
        clocks: the streams beside the anchor whose times a sample needs.
        chosen: whether the sample was chosen when training. The entry then has only what the sample reads, because
            the shard's other arrays lie in the entry of the schema's own sample, if anybody reads them.
        padded: the number of columns of the state or the action by batch entry, if it is more than the fields have; the
            last columns are then zero.
    """
    kinds = _kinds(arrays, schema, padded)
    layout = Layout()
    # The state comes last. A sensor needs a contiguous block of its own; the state then copies a field that is in both.
    for entry, fields in sorted(sample_fields(schema).items(), key=lambda item: item[0] == STATE):
        num_columns = sum(kinds[field].num_columns for field in fields)
        least = padded.get(entry, 0) if entry == STATE else 0  # the action's own kind has its columns
        is_alone = len(fields) == 1 and kinds[fields[0]].dtype == _FLOAT32 and num_columns >= least
        alone = fields[0] if is_alone else None
        if entry == STATE and is_aligned(schema):
            layout.sample[entry] = entry
            _append_block(layout, entry, fields, _FLOAT32, kinds[ACTION_ROW].shape[0], max(num_columns, least))
        elif alone is not None and (alone not in mapped or mapped[alone].flags.c_contiguous):
            layout.sample[entry] = alone
            if alone not in mapped and alone not in layout.blocks:
                _add_block(layout, alone, (alone,), _FLOAT32, kinds, mapped)
        else:
            layout.sample[entry] = entry
            _add_block(layout, entry, fields, _FLOAT32, kinds, mapped, least)
    text = schema.instruction.column
    if text is not None and text in mapped and not mapped[text].flags.c_contiguous:
        _add_block(layout, ROW_TEXT, (text,), kinds[text].dtype, kinds, mapped)
    for name, kind in kinds.items():
        is_left_out = chosen and name != text and _is_of_fields(name, schema)
        if name not in mapped and name not in layout.places and not is_left_out:
            _add_block(layout, name, (name,), kind.dtype, kinds, mapped)
    num_rows = kinds[ACTION_ROW].shape[0]
    if chosen and ACTION_ROW in mapped:
        layout.sample[ACTION_ROW] = _CHOSEN_ROW
        _append_block(layout, _CHOSEN_ROW, (), kinds[ACTION_ROW].dtype, num_rows, 1)
    if is_aligned(schema):
        layout.sample[STATE_IS_MISSING] = STATE_IS_MISSING
        _append_block(layout, STATE_IS_MISSING, (), np.dtype(np.uint8), num_rows, 1)
    for name, stream in {TIME: schema.anchor, **{f"{TIME}/{stream}": stream for stream in clocks}}.items():
        layout.sample[name] = name
        rows = kinds[f"{stream}/timestamp"].shape[0]
        _append_block(layout, name, (), np.dtype(np.float64), rows, 1)
    if schema.sample.action_stride > 1:
        layout.sample[ACTION_STRIDE_ORDER] = ACTION_STRIDE_ORDER
        num_columns = kinds[ACTION_VALUE].num_columns
        _append_block(layout, ACTION_STRIDE_ORDER, (ACTION_VALUE,), _FLOAT32, num_rows, num_columns)
    return layout


def _is_of_fields(name: str, schema: Schema) -> bool:
    """Whether an array is a clock or a field of a stream with rows, and not of a camera or of the alignment."""
    stream = name.partition("/")[0]
    return any(stream == each.name and not isinstance(each, ImageStream) for each in schema.streams)


@dataclass(frozen=True)
class _Kind:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_columns(self) -> int:
        return int(np.prod(self.shape[1:], dtype=int))


def _kinds(arrays: Mapping[str, Mapping[str, Any]], schema: Schema, padded: Mapping[str, int]) -> dict[str, _Kind]:
    """Returns shape and dtype of every array: first the stored arrays, then the derived ones."""
    kinds = {name: _Kind(tuple(array["shape"]), np.dtype(array["dtype"])) for name, array in arrays.items()}
    for path, (of, _) in derived_specs(schema).items():
        kinds[path] = _Kind((kinds[of].shape[0], *schema.field(path).shape), _FLOAT32)
    size = max(action_size(schema), padded.get("action", 0))
    kinds[ACTION_VALUE] = _Kind((kinds[ACTION_ROW].shape[0], size), _FLOAT32)
    return kinds


def _add_block(
    layout: Layout,
    name: str,
    fields: tuple[str, ...],
    dtype: np.dtype[Any],
    kinds: Mapping[str, _Kind],
    mapped: Mapping[str, NDArray[Any]],
    least: int = 0,
) -> None:
    """Append a block of these fields, which has at least ``least`` columns."""
    column = 0
    for path in fields:
        kind = kinds[path]
        place = BlockColumns(block=name, first=column, stop=column + kind.num_columns, shape=kind.shape[1:])
        if path in mapped or path in layout.places or kind.dtype != dtype:
            layout.copies.append((path, place))
        else:
            layout.places[path] = place
        column = place.stop
    _append_block(layout, name, fields, dtype, kinds[fields[0]].shape[0], max(column, least))


def _append_block(
    layout: Layout, name: str, fields: tuple[str, ...], dtype: np.dtype[Any], num_rows: int, num_columns: int
) -> None:
    offset = -(-layout.num_bytes // ALIGNMENT) * ALIGNMENT
    layout.blocks[name] = Block(fields=fields, dtype=dtype, num_rows=num_rows, num_columns=num_columns, offset=offset)
