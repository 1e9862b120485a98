"""Holds a guessed schema as plain data. ``write`` turns it into TOML, with each reason as a comment."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlapipe.pipeline.infer.columns.fields import FieldGuess
from vlapipe.schemas.schema import ActionSpec, Dialect, EpisodeLayout, InstructionSpec, SampleDefaults, TimeSpec

__all__ = ["ArrayGuess", "SchemaGuess", "StreamGuess"]


@dataclass(frozen=True, kw_only=True)
class ArrayGuess:
    """A field of a container: one array, or several side by side. ``shape`` is the shape of one row.

    ``words`` are the numbers that the words of an array of texts stand for; other texts are kept in ``width`` bytes.
    """

    name: str
    array: str | tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    words: tuple[tuple[str, float], ...] = ()
    width: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """Returns the names of the arrays in the container."""
        return (self.array,) if isinstance(self.array, str) else self.array

    @property
    def numeric(self) -> bool:
        """Returns whether the field holds numbers."""
        return self.width is None


@dataclass(frozen=True, kw_only=True)
class StreamGuess:
    """One stream. Only ``fields`` (CSV) or ``arrays`` (containers) is filled, according to ``kind``."""

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
    arrays: tuple[ArrayGuess, ...] = ()
    array: str | None = None  # of a camera whose images lie in a container
    unit: str | None = None  # of a depth camera
    file_unit: str | None = None
    convert: str | None = None  # what images of other formats become
    assumed: bool = False  # True if nothing states the rate of the stream's clock, so that the rate is only assumed


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
            named += [(entry.name, entry.reasons) for entry in stream.arrays]
            said += [f"{stream.name}/{name}: {reason}" for name, reasons in named for reason in reasons]
            said += [f"{stream.name}: {name!r} is not kept: {reason}" for name, reason in stream.drop]
        said += [f"action: {reason}" for reason in self.action_reasons]
        return said + [f"not read: {what}" for what in self.not_read]
