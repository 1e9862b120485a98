"""The content of a schema as frozen dataclasses: streams, fields, clocks, actions, checks, and sample defaults.

A schema is data. It is written in TOML and parsed by ``schemas.parse``. Nothing in this module touches a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "DURATION",
    "ISO",
    "MISSING_SUFFIX",
    "NANOSECONDS",
    "WHITESPACE",
    "ActionConstant",
    "ActionKind",
    "ActionSpec",
    "Align",
    "ArrayKind",
    "ArrayStream",
    "Channels",
    "CheckSpec",
    "CsvStream",
    "DerivedSpec",
    "Dialect",
    "EpisodeLayout",
    "FieldSpec",
    "ImageStream",
    "InstructionSpec",
    "OnBad",
    "OnMissing",
    "Rotation",
    "SampleDefaults",
    "Schema",
    "Stream",
    "TimePart",
    "TimeSpec",
    "Thousands",
    "TimeUnit",
]

Thousands = Literal["", ",", ".", " ", "'", "\u00a0", "\u202f"]  # the last two are unbreakable blanks
TimeUnit = Literal["d", "h", "min", "s", "ms", "us", "ns"]
TimePart = Literal[
    "year", "month", "day", "day_of_year", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond"
]
OnMissing = Literal["refuse", "drop", "mask"]
OnBad = Literal["refuse", "drop"]
Align = Literal["last", "nearest", "linear"]
ActionKind = Literal["absolute", "relative", "delta"]
Rotation = Literal["quaternion", "6d", "axis_angle", "sin_cos"]
Channels = Literal["rgb", "bgr"]
ArrayKind = Literal["npz", "hdf5", "zarr", "parquet", "bag", "pickle"]

# Nanoseconds in one unit of a clock. Integer stamps are multiplied, never divided.
NANOSECONDS = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "min": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
MISSING_SUFFIX = "_is_missing"
WHITESPACE = "whitespace"  # a value of Dialect.delimiter
ISO = "iso"  # a value of TimeSpec.format
DURATION = "duration"  # another


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the text of a CSV file is cut into lines, rows and cells.

    ``delimiter`` is one character, or ``"whitespace"`` for any number of blanks. Blanks around a cell never belong to a
    number. With ``skip_blanks``, blanks beside a delimiter belong to no cell, even if the cell is text or quoted.

    ``header_rows`` 0 means that there is no header. ``names`` then gives the columns by position: one tuple of names
    for each number of columns that a file may have. ``skip_lines`` lines are skipped before the header,
    ``skip_after_header`` lines between header and rows (units, for example), and ``skip_footer`` lines at the end.
    Every line that begins with ``comment`` is skipped too. With ``header_commented`` the header is such a comment line:
    the last one before the first row. ``header_line`` is a regular expression that finds the header among all lines;
    its first group is the names. Rows follow after it, unless there is a ``row_kind``.

    With ``row_kind``, a file holds messages of several kinds: the rows are the lines whose cell ``kind_column`` (from
    1) is ``row_kind``. The names are then those of the other cells. With ``short_rows``, a row may end early; cells
    that it lacks have no value. ``row_line`` is a regular expression: the rows are the lines in which it is found, and
    its groups are the cells.
    """

    delimiter: str = ","
    quote: str = '"'  # "" means no quotes
    escape: str = ""  # makes the next character an ordinary one; "" means no escape
    decimal: Literal[".", ","] = "."
    thousands: Thousands = ""  # parts whole groups of three digits
    encoding: str = "utf-8"  # a UTF-8 byte order mark is skipped
    comment: str = ""
    skip_blanks: bool = False
    skip_lines: int = 0
    skip_after_header: int = 0
    skip_footer: int = 0
    header_rows: int = 1  # if there are several, the names of a column are joined by a blank
    header_commented: bool = False
    names: tuple[tuple[str, ...], ...] = ()
    trailing_delimiter: bool = False  # rows, and perhaps the header, end with one surplus delimiter
    index_column: bool = False  # rows begin with a cell for which the header has no name
    header_line: str | None = None
    row_kind: str | None = None
    kind_column: int = 1
    row_line: str | None = None
    short_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class TimeSpec:
    """Where a stream's clock is found, and how its stamps are written.

    One of these sources gives one stamp per row:

    - ``sources``: accepted column or array names, best first. If a file has several such columns, ``nearest`` chooses
      the one nearest before the stream's first field. ``plus`` is a second column, in ``plus_unit``, that is added.
    - ``parts``: the parts of a date and a time of day, each with its column, the largest first; the parts are added.
      Without a date, stamps count from midnight. Only the second may have a fraction.
    - ``index_rate_hz``: a row's number divided by this rate. With ``sources``, or for images, the number is the whole
      number in that column or in the image's name.
    - ``file``: another file of the episode, found like ``files``: an ``.npy``, or a text with one stamp per row in a
      column (``sources``, else the first). The delimiter is a comma, semicolon or tab, else blanks. Lines with ``#``
      are comments; if there is no other header, the last comment before the rows is the header. The images of a camera
      belong to the file's rows in the order of the numbers in their names, or by ``name_column``, which names each
      row's image.
    - ``rate_line``: a row's number divided by a rate that the file states: the first number on this line (from 1), or
      what the first group of a regular expression finds. ``start_line`` states likewise when the file begins, in
      ``unit`` or ``format``; that time is added to the stamps.
    - for images, the file name: its stem, or the text that the first group of the regular expression ``pattern``
      finds.

    With ``format``, a stamp is text in ``strptime`` form, in ISO 8601 if ``format`` is ``"iso"``, or a time since the
    start if it is ``"duration"``; a stamp without a time zone is UTC, and the fraction of a second may be missing.
    Stamps are kept as int64 nanoseconds if they are integer, formatted, ``exact`` (decimal text with up to nine digits)
    or made from a rate. All other stamps are kept as float64 seconds.

    ``start_format`` is the ``strptime`` form of the file's name; the time in the name is added. ``offset_s`` is added
    too. A clock with ``starts_with`` shares no time with other clocks: its first stamp is moved to the first stamp of
    the stream that ``starts_with`` names. A stream with ``rows_of`` has no stamps of its own: its row ``i`` has the
    time of row ``i`` of the stream that ``rows_of`` names. It may have fewer rows than that stream, which is reported.
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
    rows_of: str | None = None
    rate_line: int | str | None = None
    start_line: int | str | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Returns whether the stamps are those of another file or of another stream's rows."""
        return self.file is not None or self.rows_of is not None

    @property
    def counts_rows(self) -> bool:
        """Returns whether a row's time follows from its place among the rows of its file."""
        by_number = self.index_rate_hz is not None or self.rate_line is not None
        return self.is_elsewhere or (by_number and not self.sources)

    @property
    def dtype(self) -> str:
        """Returns ``int64`` (nanoseconds) or ``float64`` (seconds)."""
        whole = self.integer or self.exact or self.format or self.parts or self.start_format or self.index_rate_hz
        return "int64" if whole or self.rate_line or self.start_line else "float64"


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One array of a stream.

    ``columns`` holds the accepted names in the file of each column of the array, best first. In a container,
    ``columns`` has one entry, the array's names; or one for each of several arrays, whose columns are joined in that
    order. ``regex`` instead selects the columns whose whole names match, in the order of the
    numbers in the names; there must be as many as ``shape`` says. ``shape`` is the shape of one row as it is stored.
    ``file_unit``, ``unit`` and ``period`` have one entry per column, or none. ``scale`` is the factor from the file's
    unit to the stored unit. ``range`` and ``max_speed`` (per second) are in the file's unit. ``period``, after which an
    angle repeats, is in the stored unit; 0 means that the column does not repeat.

    A ``text`` field keeps strings as UTF-8 bytes, ``shape`` (n,), uint8, padded with zeros. If ``cells`` is ``"list"``,
    each cell of the field's one column holds a bracketed list of numbers. ``hexadecimal`` numbers are whole and have no
    sign, with or without ``0x``. ``words`` are the only texts that cells may
    hold, each with its number. ``quaternion`` is the order in the file; the stored order is ``xyzw``. ``euler`` is the
    convention of the last three columns, as in scipy: ``XYZ`` about the moving axes, ``xyz`` about the fixed axes.
    """

    name: str
    columns: tuple[tuple[str, ...], ...] = ()
    shape: tuple[int, ...] = ()
    regex: str | None = None
    dtype: str = "float32"
    file_unit: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()  # empty: no conversion
    range: tuple[float, float] | None = None
    period: tuple[float, ...] = ()
    text: bool = False
    cells: Literal["one", "list"] = "one"
    hexadecimal: bool = False
    words: tuple[tuple[str, float], ...] = ()  # empty: cells hold numbers
    optional: bool = False  # a file may lack the field; its values are then zeros, marked as missing
    on_missing: OnMissing = "refuse"
    may_be_blank: bool = False  # a text field in which a cell without a value is an empty text
    quaternion: Literal["xyzw", "wxyz"] | None = None
    normalize: bool = False
    euler: str | None = None
    max_speed: tuple[float, ...] = ()  # one entry per column, 0 for no limit; or empty
    stuck_s: float | None = None
    gripper: tuple[float, float] | None = None  # the stored values of an open and of a closed gripper
    window: tuple[str, int, int] | None = None  # of arrays: (array, first column, past the last), see ArrayStream
    part: tuple[int, int] | None = None  # of an array, or of each of several: (first column, past the last)
    names: tuple[str, ...] = ()  # of the numbers of a row, in order; or none

    @property
    def num_columns(self) -> int:
        """Returns how many numbers one row of the file has."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def recorded_names(self) -> tuple[str, ...]:
        """Returns the name of each column in the recording; none if it names only the field as a whole."""
        if len(self.names) == self.num_columns:
            return self.names
        if self.cells != "one" or len(self.columns) != self.num_columns:
            return ()
        named = tuple(accepted[0] for accepted in self.columns)
        return named if len(set(named)) == len(named) else ()

    @property
    def mask(self) -> FieldSpec | None:
        """Returns the field ``<name>_is_missing``, uint8 of the same shape, or ``None`` if no value can be missing."""
        if not self.optional and self.on_missing != "mask":
            return None
        return FieldSpec(name=self.name + MISSING_SUFFIX, columns=self.columns, shape=self.shape, dtype="uint8")


@dataclass(frozen=True, kw_only=True)
class DerivedSpec:
    """A field that follows from another field of its stream. It is made when a shard is opened and never stored.

    ``rotation_6d``: the first two columns of the rotation matrix, ``(rows, 6)`` (Zhou et al. 2019), of a quaternion or
    of Euler angles.
    """

    name: str
    of: str  # a field of the same stream
    kind: Literal["rotation_6d"] = "rotation_6d"


@dataclass(frozen=True, kw_only=True)
class CsvStream:
    """The rows of a CSV file; ``drop`` names columns that are known and not kept.

    With ``one_row_a_file`` each file holds one row (or one JSON object), and the rows are joined in the order of the
    numbers in the files' names.

    A cell that is one of the texts in ``missing`` has no value. Each field's ``on_missing`` says what happens then. If
    ``on_bad`` is ``"drop"``, a row is left out if a cell of it cannot be read, or if it has too few or too many cells.
    """

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    derived: tuple[DerivedSpec, ...] = ()
    rate_hz: float | None = None
    max_gap_s: float | None = None
    optional: bool = False  # an episode may lack the stream
    align: Align | None = None  # how state and action take its values at the anchor's times; see [sample]
    tolerance_s: float | None = None  # a value further away in time counts as missing
    dialect: Dialect = field(default_factory=Dialect)
    on_bad: OnBad = "refuse"  # what happens with a row that cannot be read
    missing: tuple[str, ...] = ("",)
    drop: tuple[str, ...] = ()
    one_row_a_file: bool = False
    kind: Literal["csv"] = "csv"


@dataclass(frozen=True, kw_only=True)
class ArrayStream:
    """Arrays of a container: NPZ, HDF5, Zarr, Parquet, a bag, a pickle, or NPY files named after their arrays.

    There is one row per stamp. In a bag, ``topic`` names the messages of which the fields are arrays. With
    ``one_row_a_file``, each file holds one row of each array, and the files are joined in the order of the numbers in
    their names.

    A field with ``window`` may also be stored as windows: an array ``(N, W, columns)`` with N stamps, each the stamp of
    a window's last row. The windows are laid end to end, ``rate_hz`` apart, and rows that a window repeats from the
    window before are left out.
    """

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    fields: tuple[FieldSpec, ...]
    derived: tuple[DerivedSpec, ...] = ()
    rate_hz: float | None = None
    max_gap_s: float | None = None
    optional: bool = False  # an episode may lack the stream
    align: Align | None = None  # how state and action take its values at the anchor's times; see [sample]
    tolerance_s: float | None = None  # a value further away in time counts as missing
    topic: str | None = None
    one_row_a_file: bool = False
    kind: ArrayKind = "npz"


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """Images of cameras. With ``{camera}`` in ``files``, each matching folder or file is one stream, named after it.

    The images are files; or frames of the video that ``files`` names; or, with ``array`` or ``topic``, an array or the
    messages of a container that ``files`` names. ``{camera}`` may also stand in ``array`` and ``topic``.

    ``named_by`` gives cameras names by what an episode's metadata calls them: (name, key) for each, where the key's
    value is what ``{camera}`` stands for in the file's name. Where the metadata names a camera, others are left out.

    With ``unit``, a length such as ``"mm"`` or ``"0.2 mm"``, the camera measures depth: an image has one channel,
    uint16 in ``unit``. ``file_unit`` is the unit in the files if they have another one.

    JPEG and PNG files are kept as they are. Files of other formats are kept only if ``convert`` is ``"png"``.

    An image that cannot be decoded is left out if ``on_bad`` is ``"drop"``. All images are then decoded to find them.
    Otherwise ``decode`` says whether all are, or only those that look damaged.
    """

    name: str
    files: tuple[str, ...]
    time: TimeSpec
    rate_hz: float | None = None
    max_gap_s: float | None = None
    optional: bool = False  # an episode may lack the camera
    on_bad: OnBad = "refuse"  # what happens with an image that cannot be decoded
    decode: Literal["suspects", "all"] = "suspects"  # which images are decoded to find damage
    cameras: tuple[str, ...] = ()
    named_by: tuple[tuple[str, str], ...] = ()
    one_per_row: bool = False  # the camera must have as many images as the anchor has rows
    channels: Channels = "rgb"  # "bgr": red and blue are exchanged in the files
    array: tuple[str, ...] = ()  # accepted names in the container, best first
    topic: str | None = None
    unit: str | None = None  # of a depth camera
    file_unit: str | None = None
    convert: Literal["png"] | None = None  # WebP, BMP and TIFF files become PNG, without loss
    kind: Literal["images", "video"] = "images"

    @property
    def many_cameras(self) -> bool:
        """Returns whether each folder that matches ``{camera}`` is a stream of its own."""
        return any("{camera}" in text for text in (*self.files, *self.array, self.topic or ""))

    @property
    def in_container(self) -> bool:
        """Returns whether the images lie in an array or in messages of a container."""
        return bool(self.array) or self.topic is not None


Stream = CsvStream | ArrayStream | ImageStream


@dataclass(frozen=True, kw_only=True)
class EpisodeLayout:
    """How episodes are found in a dataset.

    With ``folders``, each folder whose name matches one of the patterns is an episode, whatever the folder holds.
    Without ``folders``, each folder that holds a file of the anchor stream is an episode. With ``per_file``, each file
    of the anchor stream is an episode, and ``{stem}`` in other patterns stands for the file's name without the
    extension. ``split_column`` cuts a file where the value of that column changes; ``split_gap_s`` cuts where the clock
    jumps. ``idle`` says what happens to frames at which nothing moves for ``idle_s`` or longer: ``"trim"`` leaves them
    out. ``task`` is a template with ``{parent}``, ``{folder}``, ``{dataset}``, with ``per_file`` ``{stem}``, and
    ``{metadata.<key>}``.

    ``exclude`` are patterns of paths that are left out: of an episode or of a folder above it, or of its name alone if
    the pattern has no ``/``. ``where`` is an expression over metadata; an episode of which it is not true is left out.
    ``metadata_table`` is a file in the dataset's folder with the metadata of many episodes.

    A container may hold several episodes. ``group`` is a pattern: each group of the anchor's container that it fits is
    an episode, and names of arrays count from that group. ``ends`` names an array in the container with the row past
    the end of each episode. ``ranges`` is an NPY file beside the files of ``one_row_a_file``: ``(episodes, 2)``, the
    first and the last number of each episode. ``layout`` says that the dataset describes its own episodes.
    """

    folders: tuple[str, ...] = ()
    per_file: bool = False
    split_column: str | None = None
    split_gap_s: float | None = None
    idle: Literal["keep", "trim"] = "keep"
    idle_s: float = 1.0
    task: str = "{parent}"
    metadata: str | None = "metadata.json"
    metadata_table: str | None = None
    exclude: tuple[str, ...] = ()
    where: str | None = None
    group: str | None = None
    ends: str | None = None
    ranges: str | None = None
    layout: Literal["lerobot"] | None = None


@dataclass(frozen=True, kw_only=True)
class InstructionSpec:
    """The sources of an episode's instruction. The first that has one wins: metadata key, text file, template.

    With ``paraphrases``, each line of a text file is a way to say the same. Lines of a text file that fit a pattern of
    ``ignore`` are no part of the instruction. ``column`` is a text field of the anchor
    with an instruction a row; the episode's instruction holds where the row has none.
    """

    metadata_key: str | None = "instruction"
    file: str | None = "instruction.txt"
    template: str = "{task_words}"
    paraphrases: bool = False
    ignore: tuple[str, ...] = ()
    column: str | None = None  # <anchor>/<field>


@dataclass(frozen=True, kw_only=True)
class ActionConstant:
    """A number at the end of each action.

    Without ``field``, the number is ``value``. With ``field``, the number is that field's value (one number per row, on
    the anchor) at the row that the action looks ahead to. With ``threshold`` too, the number is ``value`` if the field
    is above the threshold, else ``below``.
    """

    name: str
    value: float = 0.0
    field: str | None = None
    threshold: float | None = None
    below: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """How actions follow from fields, which the stream's ``align`` brings to the anchor's rows.

    ``delta``: the change of ``of`` over ``period_s``, with angles wrapped by their period. ``absolute``: ``of`` at the
    end of ``period_s``. ``next``: ``of`` one row later. ``column``: ``of`` at the row itself. The end row is the row
    nearest to t + ``period_s`` and must lie within ``tolerance_s`` of that time. The numbers of ``append`` follow at
    the end.
    """

    kind: Literal["delta", "absolute", "next", "column"]
    of: tuple[str, ...]
    period_s: float = 0.0
    tolerance_s: float = 0.0
    append: tuple[ActionConstant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """Quality gates: limits on what is too short, too late or too uneven, and the severity of each finding.

    ``severity`` overrides ``CODES`` by code: ``error``, ``warning``, ``note`` or ``off``.
    """

    min_seconds: float = 0.0
    min_frames: int = 1
    edge_s: float = 1.0  # a stream may begin this much after the anchor, and end this much before the anchor
    max_jitter: float = 0.5  # limit on the standard deviation of a clock's steps, divided by their median
    max_drift: float = 0.01  # limit on the relative difference of two clocks that have a declared rate
    severity: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SampleDefaults:
    """The content of one training sample; names are ``<stream>/<field>``. Training may choose other values.

    State, sensor and image windows end at the frame, and the action chunk begins there. A window has ``rows`` rows,
    each ``stride`` rows apart. With ``s``, the rows are ``s / rows`` seconds apart instead, and are found by time: of
    the anchor the nearest row, of any other stream the last row at or before that time. ``ahead_rows`` observations
    follow after the frame, as far apart as the actions, so that T actions lie between T + 1 observations.

    ``delta_timestamps`` gives the times of single batch entries in seconds from the frame. ``action_form``,
    ``rotation`` and ``relative_to`` say how the recorded action is expressed; see ``train.data.actions.action_form``.
    """

    state: tuple[str, ...]
    sensors: tuple[tuple[str, str], ...] = ()  # (name in the batch, field)
    cameras: tuple[str, ...] | None = None  # None: all of the recording
    state_rows: int = 1
    sensor_rows: int = 1
    image_rows: int = 1
    action_rows: int = 1
    state_stride: int = 1
    sensor_stride: int = 1
    image_stride: int = 1
    action_stride: int = 1
    state_s: float | None = None
    sensor_s: float | None = None
    image_s: float | None = None
    action_s: float | None = None
    ahead_rows: int = 0
    delta_timestamps: tuple[tuple[str, tuple[float, ...]], ...] = ()  # (batch entry, seconds)
    action_form: ActionKind = "absolute"
    rotation: Rotation | None = None
    relative_to: tuple[str, ...] = ()

    @property
    def is_by_time(self) -> bool:
        """Returns whether any window is given in seconds, so that rows are found by time."""
        return bool(self.delta_timestamps) or (self.state_s, self.sensor_s, self.image_s, self.action_s) != (None,) * 4


@dataclass(frozen=True, kw_only=True)
class Schema:
    """One kind of recording: how vlapipe finds, reads and checks it, and makes samples from it."""

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
    embodiment: str = ""  # the robot, if datasets of several robots are trained on together
    toml: str = ""  # the text that the schema was parsed from; the manifest keeps it

    @property
    def robot(self) -> str:
        """Returns the embodiment; the schema's name if the schema does not say one."""
        return self.embodiment or self.name

    def stream(self, name: str) -> Stream:
        """Returns the stream with this name; raises ``KeyError`` if there is none."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(name)

    def field(self, path: str) -> FieldSpec:
        """Returns field ``<stream>/<field>``, also a mask or a derived one; raises ``KeyError`` if there is none."""
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
    def anchor_stream(self) -> CsvStream | ArrayStream:
        """Returns the stream on whose clock frames lie."""
        stream = self.stream(self.anchor)
        assert not isinstance(stream, ImageStream)
        return stream

    def is_on_anchor(self, path: str) -> bool:
        """Returns whether field ``<stream>/<field>`` belongs to the stream on whose clock frames lie."""
        return path.partition("/")[0] == self.anchor
