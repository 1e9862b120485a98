"""What a schema says, as frozen dataclasses: streams, fields, clocks, actions, checks, and what a sample holds.

A schema is data. It is written in TOML (``schemas.parse`` reads it), and nothing here touches a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "ISO",
    "MISSING_SUFFIX",
    "NANOSECONDS",
    "WHITESPACE",
    "ActionConstant",
    "ActionSpec",
    "CheckSpec",
    "CsvStream",
    "DerivedSpec",
    "Dialect",
    "EpisodeLayout",
    "FieldSpec",
    "ImageStream",
    "InstructionSpec",
    "NpzStream",
    "OnMissing",
    "SampleDefaults",
    "Schema",
    "Stream",
    "TimePart",
    "TimeSpec",
    "TimeUnit",
]

TimeUnit = Literal["s", "ms", "us", "ns"]
TimePart = Literal[
    "year", "month", "day", "day_of_year", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond"
]
OnMissing = Literal["refuse", "drop", "mask"]

# How many nanoseconds one unit of a clock lasts: integer stamps are multiplied, never divided.
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
MISSING_SUFFIX = "_is_missing"
WHITESPACE = "whitespace"  # a delimiter
ISO = "iso"  # a form of time


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the text of a CSV file is cut into lines, rows and cells.

    ``delimiter`` is one character (blanks around a cell never belong to a number), or ``"whitespace"`` for any run of
    blanks. With ``skip_blanks`` blanks beside a delimiter belong to no cell, be it text or quoted.

    ``header_rows`` 0 means that there is no header: ``names`` gives the columns by position, one tuple of names for
    each number of columns that a file may have. ``skip_lines`` lines are passed over before the header,
    ``skip_after_header`` between header and rows (units), ``skip_footer`` at the end; so is every line that begins with
    ``comment``. With ``header_commented`` the header itself is such a line: the last one before the first row.
    """

    delimiter: str = ","
    quote: str = '"'  # "" for none
    escape: str = ""  # makes the next character an ordinary one; "" for none
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"  # a byte order mark of UTF-8 is passed over
    comment: str = ""
    skip_blanks: bool = False
    skip_lines: int = 0
    skip_after_header: int = 0
    skip_footer: int = 0
    header_rows: int = 1  # names of several rows are joined by a blank
    header_commented: bool = False
    names: tuple[tuple[str, ...], ...] = ()
    trailing_delimiter: bool = False  # rows, and perhaps the header, end with one delimiter too many
    index_column: bool = False  # rows begin with a cell that the header has no name for


@dataclass(frozen=True, kw_only=True)
class TimeSpec:
    """Where a stream's clock is found and how it is written.

    One of these gives a stamp a row:

    - ``sources``, accepted column or array names, best first; with ``nearest`` the one that stands nearest before the
      stream's first field, where a file has several. ``plus`` is a second column that is added, in ``plus_unit``.
    - ``parts``: of a date and a time of day, each with its column, the largest first; they are added. Without a date
      they count from midnight. Only the second may have a fraction.
    - ``index_rate_hz``: the row's number, or the whole numbers in ``sources`` or in an image's name, over this rate.
    - ``file``: another file of the episode, found as ``files`` are: ``.npy``, or text whose column (``sources``, else
      its first) has a stamp a row; its cells are parted by a comma, semicolon or tab, else by blanks, and lines with
      ``#`` are comments, the last one before the rows the header where no other is. The images of a camera belong to
      its rows in the order of the numbers in their names, or by ``name_column``, which holds each row's image.
    - for images the file name: its stem, or what the first group of the regular expression ``pattern`` finds in it.

    With ``format`` a stamp is text in ``strptime`` form, or ISO 8601 if it is ``"iso"``, read as UTC where it names no
    zone. Integer, formatted and ``exact`` (decimal text with up to nine digits) stamps and those made from a rate are
    kept as int64 nanoseconds, all others as float64 seconds.

    ``start_format`` is the ``strptime`` form of the file's name, whose time is added. ``offset_s`` is added. A clock
    with ``starts_with`` is its own: it is moved so that its first stamp is the first one of that stream.
    """

    sources: tuple[str, ...] = ()
    nearest: bool = False
    unit: TimeUnit = "s"
    integer: bool = False
    exact: bool = False
    format: str | None = None
    plus: str | None = None
    plus_unit: TimeUnit = "ns"
    parts: tuple[tuple[TimePart, str], ...] = ()
    index_rate_hz: float | None = None
    file: str | None = None
    name_column: str | None = None
    pattern: str | None = None
    start_format: str | None = None
    offset_s: float = 0.0
    starts_with: str | None = None

    @property
    def dtype(self) -> str:
        """``int64`` (nanoseconds) or ``float64`` (seconds)."""
        whole = self.integer or self.exact or self.format or self.parts or self.start_format or self.index_rate_hz
        return "int64" if whole else "float64"


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One array of a stream.

    ``columns`` holds, for each column of the array, the accepted names in the file, best first (for NPZ: one entry,
    the array's names); ``regex`` instead asks for as many columns as ``shape`` says
    whose whole names match, in the order of the numbers in them. ``shape`` is the shape of one row as it is stored.
    ``file_unit``, ``unit`` and ``period`` have one entry a column, or none: a value is multiplied by ``scale`` to go
    from the file's unit to the stored one; ``range`` and ``max_speed`` (a second) are in the file's unit, ``period``
    (after which an angle repeats; 0: it does not) in the stored one.

    A ``text`` field keeps strings: UTF-8 bytes, ``shape`` (n,) uint8, filled up with zeros. With ``cells`` ``"list"``
    its one column holds a bracketed list of numbers a cell. ``words`` are the only texts of its cells, each with the
    number it stands for. ``quaternion`` is the order in the file; ``xyzw`` is stored. ``euler`` names the convention of
    the last three columns as scipy does: ``XYZ`` about the moving axes, ``xyz`` about the fixed ones.
    """

    name: str
    columns: tuple[tuple[str, ...], ...] = ()
    shape: tuple[int, ...] = ()
    regex: str | None = None
    dtype: str = "float32"
    file_unit: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()  # empty: as it stands
    range: tuple[float, float] | None = None
    period: tuple[float, ...] = ()
    text: bool = False
    cells: Literal["one", "list"] = "one"
    words: tuple[tuple[str, float], ...] = ()  # empty: cells hold numbers
    optional: bool = False  # a file may lack it: zeros, and marked as missing
    on_missing: OnMissing = "refuse"
    quaternion: Literal["xyzw", "wxyz"] | None = None
    normalize: bool = False
    euler: str | None = None
    max_speed: tuple[float, ...] = ()  # one a column, 0 for no limit; or none
    stuck_s: float | None = None
    window: tuple[str, int, int] | None = None  # NPZ: (array, first column, past the last) of windows, see NpzStream

    @property
    def num_columns(self) -> int:
        """Numbers in one row of the file."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def mask(self) -> FieldSpec | None:
        """The field ``<name>_is_missing``, uint8 of the same shape, of a field that may be missing; else ``None``."""
        if not self.optional and self.on_missing != "mask":
            return None
        return FieldSpec(name=self.name + MISSING_SUFFIX, columns=self.columns, shape=self.shape, dtype="uint8")


@dataclass(frozen=True, kw_only=True)
class DerivedSpec:
    """A field that follows from another one of its stream, made when a shard is opened and never stored.

    ``rotation_6d``: the first two columns of the rotation matrix, ``(rows, 6)`` (Zhou et al. 2019), of a quaternion or
    of Euler angles.
    """

    name: str
    of: str  # a field of the same stream
    kind: Literal["rotation_6d"] = "rotation_6d"


@dataclass(frozen=True, kw_only=True)
class CsvStream:
    """Rows of a CSV file; ``drop`` names columns that are known and not kept.

    A cell that is one of the texts in ``missing`` has no value; what follows is said by each field's ``on_missing``.
    """

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    derived: tuple[DerivedSpec, ...] = ()
    rate_hz: float | None = None
    max_gap_s: float | None = None
    dialect: Dialect = field(default_factory=Dialect)
    missing: tuple[str, ...] = ("",)
    drop: tuple[str, ...] = ()
    kind: Literal["csv"] = "csv"


@dataclass(frozen=True, kw_only=True)
class NpzStream:
    """Arrays of an NPZ file, or NPY files each called after its array; one row a stamp.

    A field with ``window`` may also stand in windows, an array ``(N, W, columns)`` whose N stamps are those of each
    window's last row: they are laid end to end, without what a window repeats of the one before, ``rate_hz`` apart.
    """

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    derived: tuple[DerivedSpec, ...] = ()
    rate_hz: float | None = None
    max_gap_s: float | None = None
    kind: Literal["npz"] = "npz"


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """JPEG files. ``{camera}`` in ``files`` makes one stream a folder, named after it."""

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    rate_hz: float | None = None
    max_gap_s: float | None = None
    cameras: tuple[str, ...] = ()
    one_per_row: bool = False  # as many images as the anchor has rows
    kind: Literal["images"] = "images"

    @property
    def many_cameras(self) -> bool:
        """Whether each folder that matches ``{camera}`` is a stream of its own."""
        return any("{camera}" in pattern for pattern in self.files)


Stream = CsvStream | NpzStream | ImageStream


@dataclass(frozen=True, kw_only=True)
class EpisodeLayout:
    """How episodes are found below a dataset.

    With ``folders``, each folder whose name matches one of the patterns is an episode, whatever it holds; without,
    each folder that holds a file of the anchor stream. With ``per_file`` each file of the anchor stream is an episode,
    and ``{stem}`` in other patterns stands for its name without the extension. ``split_column`` cuts a file where that
    column changes, ``split_gap_s`` where the clock jumps. ``task`` is a template over ``{parent}``, ``{folder}``,
    ``{dataset}`` and, with ``per_file``, ``{stem}``.
    """

    folders: tuple[str, ...] = ()
    per_file: bool = False
    split_column: str | None = None
    split_gap_s: float | None = None
    task: str = "{parent}"
    metadata: str | None = "metadata.json"


@dataclass(frozen=True, kw_only=True)
class InstructionSpec:
    """Where an episode's instruction comes from: the first of metadata key, text file and template that gives one."""

    metadata_key: str | None = "instruction"
    file: str | None = "instruction.txt"
    template: str = "{task_words}"


@dataclass(frozen=True, kw_only=True)
class ActionConstant:
    """A number at the end of each action.

    Without ``field`` always ``value``. With it the value of that field (one number a row, on the anchor) at the row
    that the action looks ahead to; with ``threshold``, ``value`` where it is above and ``below`` where it is not.
    """

    name: str
    value: float = 0.0
    field: str | None = None
    threshold: float | None = None
    below: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """How actions follow from the anchor stream's fields.

    ``delta``: the change of ``of`` over ``period_s``, angles wrapped by their period; ``absolute``: ``of`` at the end
    of ``period_s``; ``next``: ``of`` one row later; ``column``: ``of`` at the row itself. The end row is the one
    nearest to t + ``period_s``, and must lie within ``tolerance_s`` of it. ``append`` follows at the end.
    """

    kind: Literal["delta", "absolute", "next", "column"]
    of: tuple[str, ...]
    period_s: float = 0.0
    tolerance_s: float = 0.0
    append: tuple[ActionConstant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """Quality gates: what is too short, too late, too uneven, and how grave each finding is.

    ``severity`` overrides ``CODES`` by code: ``error``, ``warning``, ``note`` or ``off``.
    """

    min_seconds: float = 0.0
    min_frames: int = 1
    edge_s: float = 1.0  # a stream may begin this much after the anchor and end this much before it
    max_jitter: float = 0.5  # standard deviation of a clock's steps over their median
    max_drift: float = 0.01  # by which two clocks with a declared rate may differ
    severity: tuple[tuple[str, str], ...] = ()


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
    checks: CheckSpec = field(default_factory=CheckSpec)
    val_fraction: float = 0.1
    toml: str = ""  # the text it was read from, kept in the manifest

    def stream(self, name: str) -> Stream:
        """The stream of that name; ``KeyError`` if there is none."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(name)

    def field(self, path: str) -> FieldSpec:
        """The field called ``<stream>/<field>``, masks and derived ones too; ``KeyError`` if there is none."""
        stream_name, _, field_name = path.partition("/")
        stream = self.stream(stream_name)
        if not isinstance(stream, ImageStream):
            for spec in stream.fields:
                if spec.name == field_name:
                    return spec
                if spec.mask is not None and spec.mask.name == field_name:
                    return spec.mask
            for derived in stream.derived:
                if derived.name == field_name:
                    return FieldSpec(name=derived.name, shape=(6,))
        raise KeyError(path)

    @property
    def anchor_stream(self) -> CsvStream | NpzStream:
        """The stream on whose clock frames lie."""
        stream = self.stream(self.anchor)
        assert not isinstance(stream, ImageStream)
        return stream
