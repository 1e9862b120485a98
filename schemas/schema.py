"""What a schema says, as frozen dataclasses: streams, their fields and clocks, actions, and what a sample is made of.

A schema is data. It is written in TOML (``schemas.parse`` reads it), and nothing here touches a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "ActionSpec",
    "CsvStream",
    "EpisodeLayout",
    "FieldSpec",
    "ImageStream",
    "InstructionSpec",
    "NpzStream",
    "SampleDefaults",
    "Schema",
    "Stream",
    "TimeSpec",
    "TimeUnit",
]

TimeUnit = Literal["s", "ms", "us", "ns"]

# How many seconds one unit of a clock lasts, as nanoseconds: integer stamps are multiplied, never divided.
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, kw_only=True)
class TimeSpec:
    """Where a stream's clock is found and how it is written.

    ``sources`` are the accepted column or array names, best first; empty for images, whose clock is the file name.
    With ``format`` a stamp is text in ``strptime`` form, read as UTC. Integer and formatted stamps are kept as int64
    nanoseconds, all others as float64 seconds.
    """

    sources: tuple[str, ...] = ()
    unit: TimeUnit = "s"
    integer: bool = False
    format: str | None = None

    @property
    def dtype(self) -> str:
        """``int64`` (nanoseconds) or ``float64`` (seconds)."""
        return "int64" if self.integer or self.format else "float64"


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One array of a stream.

    ``columns`` holds, for each column of the array, the accepted names in the file, best first (for NPZ: one entry,
    the array's names). ``shape`` is the shape of one row. ``unit`` and ``period`` have one entry a column, or none;
    a period is the value after which an angle repeats (360 for degrees), 0 where it does not.
    """

    name: str
    columns: tuple[tuple[str, ...], ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    period: tuple[float, ...] = ()
    euler: bool = False  # the last three columns are Euler angles; the middle one is checked for the singularity


@dataclass(frozen=True, kw_only=True)
class CsvStream:
    """Rows of a CSV file; ``drop`` names columns that are known and not kept."""

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    rate_hz: float | None = None
    delimiter: str = ","
    drop: tuple[str, ...] = ()
    kind: Literal["csv"] = "csv"


@dataclass(frozen=True, kw_only=True)
class NpzStream:
    """Arrays of an NPZ file, one row a stamp."""

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    rate_hz: float | None = None
    kind: Literal["npz"] = "npz"


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """JPEG files named by their time. ``{view}`` in ``files`` makes one stream a folder, named after it."""

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    rate_hz: float | None = None
    views: tuple[str, ...] = ()
    kind: Literal["images"] = "images"

    @property
    def many_views(self) -> bool:
        """Whether each folder that matches ``{view}`` is a stream of its own."""
        return any("{view}" in pattern for pattern in self.files)


Stream = CsvStream | NpzStream | ImageStream


@dataclass(frozen=True, kw_only=True)
class EpisodeLayout:
    """How episode folders are found below a dataset.

    With ``folders``, each folder whose name matches one of the patterns is an episode, whatever it holds; without,
    each folder that holds a file of the anchor stream. ``task`` is a template over ``{parent}``, ``{folder}`` and
    ``{dataset}``.
    """

    folders: tuple[str, ...] = ()
    task: str = "{parent}"
    metadata: str | None = "metadata.json"


@dataclass(frozen=True, kw_only=True)
class InstructionSpec:
    """Where an episode's instruction comes from: the first of metadata key, text file and template that gives one."""

    metadata_key: str | None = "instruction"
    file: str | None = "instruction.txt"
    template: str = "{task_words}"


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """How actions follow from the anchor stream's fields.

    ``delta``: the change of ``of`` over ``period_s``, angles wrapped by their period; ``absolute``: ``of`` at the end
    of ``period_s``; ``column``: ``of`` at the row itself. The end row is the one nearest to t + ``period_s``, and must
    lie within ``tolerance_s`` of it. ``append`` are constants put at the end of each action.
    """

    kind: Literal["delta", "absolute", "column"]
    of: tuple[str, ...]
    period_s: float = 0.0
    tolerance_s: float = 0.0
    append: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SampleDefaults:
    """What one training sample holds unless the user says otherwise; names are ``<stream>/<field>``."""

    state: tuple[str, ...]
    sensors: tuple[tuple[str, str], ...] = ()  # (name in the batch, array)
    state_rows: int = 1
    sensor_rows: int = 1
    image_rows: int = 1
    action_rows: int = 1
    action_stride: int = 1


@dataclass(frozen=True, kw_only=True)
class Schema:
    """One kind of recording: how to find it, read it, check it, and make samples from it."""

    name: str
    description: str
    anchor: str
    episodes: EpisodeLayout
    streams: tuple[Stream, ...]
    action: ActionSpec
    sample: SampleDefaults
    instruction: InstructionSpec = field(default_factory=InstructionSpec)
    val_fraction: float = 0.1
    toml: str = ""  # the text it was read from, kept in the manifest

    def stream(self, name: str) -> Stream:
        """The stream of that name; ``KeyError`` if there is none."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(name)

    def field(self, path: str) -> FieldSpec:
        """The field called ``<stream>/<field>``; ``KeyError`` if there is none."""
        stream_name, _, field_name = path.partition("/")
        stream = self.stream(stream_name)
        for spec in () if isinstance(stream, ImageStream) else stream.fields:
            if spec.name == field_name:
                return spec
        raise KeyError(path)

    @property
    def anchor_stream(self) -> CsvStream | NpzStream:
        """The stream on whose clock frames lie."""
        stream = self.stream(self.anchor)
        assert not isinstance(stream, ImageStream)
        return stream
