"""Holds a guessed schema as plain data. ``write`` turns it into TOML, with each reason as a comment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.schemas.schema import ActionSpec, Dialect, EpisodeLayout, InstructionSpec, SampleDefaults, TimeSpec

__all__ = ["FieldGuess", "SchemaGuess", "SourceGuess", "StreamGuess"]


@dataclass(frozen=True, kw_only=True)
class FieldGuess:
    """One field of the schema. ``columns`` are the columns of a table, or the arrays of a container.

    ``unit`` and ``period`` have one entry a column, or are empty. ``shape`` is the shape of one row of a container's
    arrays, and ``None`` for the columns of a table.
    """

    name: str
    columns: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    unit: tuple[str, ...] = ()
    period: tuple[float, ...] = ()
    dtype: str = "float32"
    width: int = 0  # bytes of a text
    length: int = 0  # numbers in a list cell
    words: tuple[tuple[str, float], ...] = ()  # the number that each word stands for
    quaternion: str = ""
    normalize: bool = False
    on_missing: str = ""
    optional: bool = False
    constant: bool = False  # True if no value changes in the first rows
    labels: tuple[str, ...] = ()  # of each column: the number, axis or joint that tells it from the others
    head: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)  # first rows, (rows, columns)
    reasons: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        """True if the field holds numbers, so that a policy can be trained on it."""
        return self.dtype != "text"

    @property
    def num_columns(self) -> int:
        """Number of values in a row."""
        return self.length or (len(self.columns) if self.shape is None else math.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class StreamGuess:
    """One stream. A stream of images has no fields."""

    name: str
    kind: str
    files: tuple[str, ...]
    time: TimeSpec
    time_reasons: tuple[str, ...] = ()
    rate_hz: float | None = None
    reasons: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)
    fields: tuple[FieldGuess, ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    one_row_a_file: bool = False
    array: str | None = None  # of a camera whose images lie in a container
    topic: str | None = None  # of a bag
    unit: str | None = None  # of a depth camera
    file_unit: str | None = None
    convert: str | None = None  # what images of other formats become
    assumed: bool = False  # True if nothing states the rate of the stream's clock, so that the rate is only assumed


@dataclass(frozen=True, kw_only=True)
class SourceGuess:
    """The streams of one kind of file, and what it says of episodes. ``stream`` has no fields if it holds only images.

    ``num_rows`` are those of ``stream``. ``beside`` are the other streams of the same file. ``instruction`` says where
    the file tells what the robot was told to do.
    """

    stream: StreamGuess
    clock: ClockGuess
    num_rows: int
    beside: tuple[StreamGuess, ...] = ()
    not_read: tuple[str, ...] = ()
    episodes: EpisodeLayout = EpisodeLayout()  # noqa: RUF009 - frozen
    episode_reasons: tuple[str, ...] = ()
    instruction: InstructionSpec = InstructionSpec(metadata_key=None, file=None)  # noqa: RUF009 - frozen


@dataclass(frozen=True, kw_only=True)
class SchemaGuess:
    """A whole schema. The first stream is the anchor."""

    name: str
    description: str
    episodes: EpisodeLayout
    episode_reasons: tuple[str, ...]
    instruction: InstructionSpec
    streams: tuple[StreamGuess, ...]
    action: ActionSpec
    action_reasons: tuple[str, ...]
    sample: SampleDefaults
    not_read: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """List every reason, each after the name of the part of the schema that the reason explains."""
        said = [f"episodes: {reason}" for reason in self.episode_reasons]
        for stream in self.streams:
            said += [f"{stream.name}: {reason}" for reason in stream.reasons]
            said += [f"{stream.name} clock: {reason}" for reason in stream.time_reasons]
            named = [(entry.name, entry.reasons) for entry in stream.fields]
            said += [f"{stream.name}/{name}: {reason}" for name, reasons in named for reason in reasons]
            said += [f"{stream.name}: {name!r} is not kept: {reason}" for name, reason in stream.drop]
        said += [f"action: {reason}" for reason in self.action_reasons]
        return said + [f"not read: {what}" for what in self.not_read]
