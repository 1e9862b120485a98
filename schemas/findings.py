"""The findings of checks: code, severity, location, what was expected, what was found, and the cure.

``CODES`` lists every code that vlapipe can report. A finding with another code cannot be made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from vlapipe.schemas.errors import printable

__all__ = ["CODES", "SEVERITIES", "Code", "Finding", "Findings", "Severity"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # most severe first


@dataclass(frozen=True, kw_only=True)
class Code:
    """One kind of finding. An ``error`` sets the episode aside; a ``warning`` or ``note`` keeps it.

    A schema may change the severity under ``[checks.severity]``, except for a ``fatal`` code: after such a finding
    there is no data to keep.
    """

    severity: Severity
    meaning: str
    cure: str
    fatal: bool = False


def _fatal(meaning: str, cure: str) -> Code:
    return Code(severity="error", meaning=meaning, cure=cure, fatal=True)


def _error(meaning: str, cure: str) -> Code:
    return Code(severity="error", meaning=meaning, cure=cure)


def _warning(meaning: str, cure: str) -> Code:
    return Code(severity="warning", meaning=meaning, cure=cure)


def _note(meaning: str, cure: str) -> Code:
    return Code(severity="note", meaning=meaning, cure=cure)


CODES: dict[str, Code] = {
    "file.missing": _fatal(
        "a stream's file is not there",
        "record it again, correct files in the schema, or say optional = true if episodes may lack the stream",
    ),
    "file.several": _fatal("more than one file fits one stream", "keep one, or make files in the schema narrower"),
    "file.unreadable": _fatal("the file cannot be read", "check its permissions and the disk"),
    "file.archive": _fatal("an archive does not hold one table", "pack each CSV into an archive of its own"),
    "file.too_large": _fatal("a file is too large to be read whole", "split it, or unpack it first"),
    "file.bad_name": _error("a name is no UTF-8 text, or a path is too long; what it names is left out", "rename it"),
    "file.data_not_read": _warning(
        "videos or containers of arrays that no stream asks for",
        "declare a stream of that kind (`vlapipe schema infer` writes one), or leave the files out of the episodes",
    ),
    "file.outside": _warning(
        "a link leads out of the dataset's folder; it was followed", "remove it, if you have not made it yourself"
    ),
    "file.not_read": _note("files that no stream asks for", "declare a stream, or correct files in the schema"),
    "metadata.unreadable": _error(
        "the metadata file is not a JSON object, or its instruction is no text", "correct or remove it"
    ),
    "metadata.missing_key": _error("a template names a metadata key that the episode lacks", "add it to the metadata"),
    "metadata.not_kept": _note("metadata that is too long or too much for the table", "keep large things in files"),
    "instruction.no_key": _warning(
        "the metadata lacks the key that the schema names for the instruction; another source is taken",
        "correct metadata_key under [instruction], or add the key to the metadata",
    ),
    "instruction.several": _note(
        "the instruction is a list: the texts are kept as paraphrases", "if they are steps, see instruction.column"
    ),
    "instruction.unreadable": _error("the instruction file is not UTF-8 text", "save it as UTF-8"),
    "csv.empty": _fatal("the file holds nothing", "record it again"),
    "csv.header_only": _fatal("there is a header and no row", "record it again"),
    "csv.nul_bytes": _fatal("the file holds NUL bytes, as after a power cut", "record it again, or cut the file there"),
    "csv.encoding": _fatal("the file is not text in the schema's encoding", "correct encoding in the schema"),
    "csv.delimiter": _fatal("cells are parted by another character", "correct delimiter in the schema"),
    "csv.quotes": _fatal(
        "a quote stands where no cell begins or ends", "correct the row, or quote and escape in the schema"
    ),
    "csv.missing_column": _fatal(
        "a column that the schema asks for is missing", "add its name as an alias, or say optional = true"
    ),
    "csv.column_count": _fatal(
        "another number of columns than the schema says", "correct names or count in the schema"
    ),
    "csv.duplicate_column": _fatal("two columns have the same name", "rename one of them"),
    "csv.ragged_row": _fatal("a row has too few or too many cells", "correct or delete the row"),
    "csv.missing_value": _fatal("a cell is empty", "correct or delete the row, or set on_missing in the schema"),
    "csv.one_row": _fatal("a file has not one row", "correct the file, or leave one_row_a_file out of the schema"),
    "csv.no_such_kind": _fatal("no line is of the schema's kind", "correct row_kind or row_line in the schema"),
    "csv.bad_json": _fatal("a line is no JSON object", "correct it, or say on_bad = 'drop' to leave such lines out"),
    "csv.not_a_number": _fatal("a cell is not a number", "correct the cell, or the column's dtype in the schema"),
    "csv.unknown_word": _fatal("a cell is none of the schema's words", "correct the cell, or add it to words"),
    "csv.not_a_list": _fatal("a cell is not a list of as many numbers as the schema says", "correct the cell, or list"),
    "csv.text_too_long": _fatal("a text is longer than the schema's width", "raise width in the schema"),
    "csv.not_finite": _error("a cell is NaN or infinite", "correct or delete the row"),
    "csv.out_of_range": _error("a value is outside the schema's range", "correct it, or widen range in the schema"),
    "csv.rounded": _warning(
        "float32 makes one number of cells that differ", "declare dtype = 'float64' to tell them apart"
    ),
    "csv.whole_rounded": _error(
        "a whole number of 16 digits or more that the field's dtype rounds", "declare dtype = 'int64', or 'text'"
    ),
    "csv.bad_time": _fatal("a stamp cannot be read", "correct it, or time in the schema"),
    "csv.unreadable": _fatal("the table cannot be read", "open it in an editor at that place"),
    "csv.columns_not_kept": _note("columns that the schema does not name", "declare them as fields, or list in drop"),
    "csv.columns_absent": _note("optional columns are absent; marked as missing", "nothing needs to be done"),
    "csv.blank_lines": _note("blank lines between rows were passed over", "delete them"),
    "csv.rows_dropped": _note("rows with missing cells were dropped, as the schema says", "nothing needs to be done"),
    "csv.values_masked": _note("missing cells are marked as missing, as the schema says", "nothing needs to be done"),
    "npz.unreadable": _fatal("the archive is cut short or damaged", "record it again"),
    "npz.missing_array": _fatal("an array that the schema asks for is missing", "correct array in the schema"),
    "npz.object_array": _fatal("the array holds Python objects, which only pickle can read", "save it as numbers"),
    "npz.pickle": _fatal(
        "a pickle is damaged, or holds more than plain values and arrays; nothing of it was run",
        "save it again as plain arrays: np.savez(NEW, **{name: array})",
    ),
    "npz.shape": _fatal("an array has another shape than the schema says", "correct shape in the schema"),
    "npz.length": _fatal("an array and its timestamps differ in length", "record it again"),
    "npz.bad_time": _fatal("an array's stamps cannot be read", "correct time in the schema, or record it again"),
    "npz.dtype": _fatal("an array is not numeric", "save it as numbers"),
    "npz.not_finite": _error("an array holds NaN or infinite values", "correct or cut the recording"),
    "npz.out_of_range": _error("a value is outside the schema's range", "correct it, or widen range in the schema"),
    "npz.rounded": _warning("values were rounded to the schema's dtype", "declare dtype = 'float64' to keep them all"),
    "npz.no_value": _fatal("a row has no value where every row must have one", "record it again"),
    "npz.ends": _fatal("the ends of episodes are none", "correct ends or ranges in the schema, or record it again"),
    "npz.rows_left": _warning(
        "rows after the end of the last episode belong to none", "check whether the last recording was broken off"
    ),
    "npz.unknown_word": _fatal("a text is none of the schema's words", "correct it, or add it to words"),
    "npz.text_too_long": _fatal("a text is longer than the schema's width", "raise width in the schema"),
    "npz.absent": _note("optional arrays are absent; marked as missing", "nothing needs to be done"),
    "npz.rows_dropped": _note("rows with missing values were dropped, as the schema says", "nothing needs to be done"),
    "npz.values_masked": _note("missing values are marked as missing, as the schema says", "nothing needs to be done"),
    "npz.too_large": _fatal("an array claims far more than its file holds", "record it again"),
    "npz.outside": _fatal("an array lies outside its file", "copy it into the file: h5repack, or h5copy -f ext"),
    "npz.codec": _fatal("an array is packed by a codec that is not installed", "install it, or save it otherwise"),
    "npz.not_written": _error(
        "rows of an array are not in the file, and would be read as fill values",
        "copy the file again; if the recorder leaves out what is all zeros, say 'npz.not_written' = 'warning'",
    ),
    "npz.windows": _note("windows were laid end to end", "nothing needs to be done"),
    # What the metadata of a LeRobot dataset says, against its files.
    "lerobot.totals": _warning("a total in the metadata is not that of the episodes", "correct meta/info.json"),
    "lerobot.rows": _fatal("a data file has other rows than the metadata says", "download it again, or correct meta/"),
    "lerobot.index": _error("a column of indices does not count as the metadata says", "correct it, or meta/"),
    "lerobot.clock": _error(
        "timestamp and frame_index do not agree at the stated fps",
        "correct fps in meta/info.json, or save `vlapipe schema show lerobot --dataset DIR` and change time there",
    ),
    "lerobot.task": _error("a row's task is none of the episode's tasks", "correct task_index, or meta/"),
    "lerobot.dtype": _warning("a column has another dtype than the metadata says", "correct meta/info.json"),
    "bag.damaged": _fatal(
        "a bag holds other bytes than its format allows",
        "repair it with 'rosbag reindex', 'ros2 bag reindex' or 'mcap recover', or record it again",
    ),
    "bag.cut_short": _error(
        "the recorder did not close the bag: its last messages are missing",
        "repair it with 'rosbag reindex', 'ros2 bag reindex' or 'mcap recover', or take what is there:"
        " set the code to warning under [checks.severity]",
    ),
    "bag.incomplete": _error(
        "a bag has fewer files or messages than its metadata.yaml says", "copy it again, or 'ros2 bag reindex' it"
    ),
    "bag.apart": _error(
        "files that are read as one bag lie far apart in time",
        "put each recording into a folder of its own, or say per_file = true under [episodes]",
    ),
    "bag.missing_topic": _fatal(
        "a topic that the schema asks for is missing", "correct topic in the schema, or say optional = true"
    ),
    "bag.no_messages": _fatal("a topic has no messages", "record it again, or say optional = true in the schema"),
    "bag.type": _fatal("messages of a type or an encoding that is not read", "record another topic, or convert it"),
    "bag.path": _fatal("a path in the schema fits no member of the messages", "correct array in the schema"),
    "bag.message": _fatal(
        "a message cannot be read as its type, or differs from the others", "cut the recording there, or record again"
    ),
    # What a schema allows an episode to lack, or to leave out.
    "stream.absent": _note("an optional stream is absent; samples mark it as padding", "nothing needs to be done"),
    "stream.in_no_episode": _warning(
        "no episode has an optional stream", "correct files in the schema, or leave the stream out"
    ),
    "image.dropped": _note(
        "a damaged image was left out, as the schema says", "check the camera's connection if there are many"
    ),
    "csv.bad_rows_dropped": _note(
        "rows that cannot be read were left out, as the schema says", "check the recorder if there are many"
    ),
    "episode.idle": _note(
        "nothing moves for a while", "say idle = 'trim' under [episodes] to leave such frames out, or a longer idle_s"
    ),
    "episode.idle_trimmed": _note(
        "frames at which nothing moves were left out, as the schema says", "nothing needs to be done"
    ),
    "clock.no_start": _fatal(
        "the stream that starts_with names is absent", "name a stream that every episode has in starts_with"
    ),
    "image.none": _fatal(
        "there is no image of any camera",
        "record them again, correct files in the schema, or say optional = true if episodes may lack the camera",
    ),
    "image.missing_camera": _fatal(
        "a camera that other episodes have is missing", "record it again, or say optional = true in the schema"
    ),
    "image.extra_camera": _warning(
        "a camera that most episodes lack; not kept", "say optional = true, or list it in cameras in the schema"
    ),
    "image.bad_name": _fatal("an image's name is not a time", "rename it, or correct time in the schema"),
    "image.empty": _fatal("an image file holds nothing", "delete it, or say on_bad = 'drop' in the schema"),
    "image.not_jpeg": _fatal("an image is neither a JPEG nor a PNG", "convert it, or delete it"),
    "image.format": _fatal(
        "an image is of a format that is kept only by conversion",
        "say convert = 'png' under the camera's stream in the schema: nothing is lost by it",
    ),
    "image.converted": _note(
        "images became PNG files, as the schema says; nothing was lost", "nothing needs to be done"
    ),
    "image.no_unit": _fatal(
        "images have one channel of 16 bits, as depth has, and the camera has no unit",
        "say unit = 'mm' (or whatever one count measures, such as '0.2 mm') under the camera's stream in the schema",
    ),
    "image.not_depth": _fatal(
        "an image of a depth camera is not one channel of numbers", "leave unit out if the camera sees colours"
    ),
    "image.depth_range": _fatal(
        "depth does not fit into uint16", "choose a coarser unit under the camera's stream, or correct file_unit"
    ),
    "image.depth_rounded": _note("depth was rounded to whole numbers of its unit", "choose a finer unit to lose less"),
    "image.depth_holes": _note("depth without a reading (NaN or infinity) is kept as 0", "nothing needs to be done"),
    "image.stray_bytes": _note(
        "images have stray bytes, or a rare coding, which decoders pass over; decoding takes longer",
        "save them again with another encoder",
    ),
    "image.alpha": _note(
        "images are transparent in places; training sees their colours alone", "nothing needs to be done"
    ),
    "image.truncated": _fatal("an image is cut short", "delete it, or say on_bad = 'drop' in the schema"),
    "image.size_changes": _fatal("images of one camera differ in size", "record it again, or split the episode"),
    "image.size_differs": _fatal(
        "a camera has another size than in most episodes; pixels need one size",
        "give --image-size WxH, or --image-storage png or jpeg",
    ),
    "image.storage_differs": _fatal(
        "a camera's images are files in some episodes and pixels in others", "give --image-storage png, jpeg or raw"
    ),
    "image.undecodable": _fatal(
        "an image cannot be decoded", "delete it, or say on_bad = 'drop' in the schema to leave such images out"
    ),
    "image.too_large": _fatal("an image claims more pixels than any camera has", "delete it, or record it again"),
    "image.coding": _fatal("an image of a kind that decoders lack", "save it as 8-bit RGB or grayscale"),
    "image.layout": _fatal(
        "an array does not hold images as the schema says", "correct array or unit in the schema, or save it as uint8"
    ),
    "image.rounded": _error(
        "an array holds images as fractions that 8 bits cannot hold",
        "save it as uint8, or say 'image.rounded' = 'warning' to have them rounded",
    ),
    "image.gray": _note("images are grayscale; they train as three equal channels", "nothing needs to be done"),
    "image.progressive": _note("images are progressive, which decodes slower", "save them as baseline JPEG"),
    "image.rotated": _warning("EXIF says to turn the image; it is kept as it is", "turn it when it is recorded"),
    "image.count": _error(
        "a camera has another number of images than rows", "check for lost frames, or leave one_per_row out"
    ),
    "video.lossy": _note(
        "frames of a video became JPEG files, which lose a little; PSNR of a sample against the decoded frames",
        "give --image-quality, or --image-storage png or raw to lose nothing",
    ),
    "video.unreadable": _fatal(
        "no video that can be decoded", "record it again; a player may repair it (ffmpeg -i OLD -c copy NEW)"
    ),
    "video.damaged": _fatal(
        "frames of a video are damaged or missing",
        "record it again, or say on_bad = 'drop' in the schema to keep the other frames",
    ),
    "video.frames_left_out": _warning(
        "damaged frames of a video were left out, as the schema says", "check the recorder and the disk"
    ),
    "video.no_times": _fatal(
        "the frames of a video have no usable times",
        "say time = { rate_hz = ... }, { file = ... } or { rows_of = ... }",
    ),
    "video.rotated": _note("a video asks players to turn its frames; they are turned", "nothing needs to be done"),
    "video.crooked": _warning(
        "a video asks players to turn its frames by no quarter; not done", "turn it when it is recorded"
    ),
    "video.several_streams": _warning(
        "a file holds several videos; only the first is read", "record each camera in a file of its own"
    ),
    "image.frozen": _warning(
        "a camera repeats one image while the robot moves", "check the camera, or record it again"
    ),
    "image.blank": _warning("images are nearly black or of one colour", "check the camera, its light and its lens cap"),
    "image.channels": _warning(
        "red and blue are exchanged against the other episodes of the camera",
        "ingest such episodes on their own, with channels = 'bgr' under the camera's stream in the schema",
    ),
    "align.too_far": _warning(
        "a stream has no value near enough in time for the state or the action",
        "check for lost rows, or say tolerance_s in the stream",
    ),
    "clock.backwards": _fatal(
        "time runs backwards", "sort or cut the recording there; a counter that begins again is no clock"
    ),
    "clock.unit": _fatal("stamps are in another unit than the schema says", "correct unit of time in the schema"),
    "clock.count": _fatal("a clock's file does not fit its stream row by row", "record it again, or correct time.file"),
    "clock.more_rows": _fatal(
        "a stream has more rows than the stream that has its times", "record it again, or give it a clock of its own"
    ),
    "clock.fewer_rows": _warning(
        "a stream has fewer rows than the stream that has its times; the first rows belong together",
        "check the recording for lost rows",
    ),
    "clock.duplicate": _warning("rows share one stamp", "check the recorder's clock"),
    "clock.no_overlap": _fatal(
        "two streams do not overlap in time", "check the recorders' clocks and time in the schema"
    ),
    "clock.rate": _warning("the rate is far from the one declared", "correct rate_hz, or check the recorder"),
    "clock.rates_differ": _warning(
        "episodes differ in rate, so that windows and chunks of as many rows span other times",
        "ingest each rate on its own",
    ),
    "clock.gap": _warning("a gap in a stream; windows across it are not drawn", "check the recorder for lost rows"),
    "clock.jitter": _warning("a clock ticks unevenly", "check the recorder's load"),
    "clock.drift": _warning("two clocks drift apart", "check the recorders' clocks, or correct rate_hz"),
    "clock.starts_late": _warning("a stream begins long after the anchor", "cut the recording, or start it earlier"),
    "clock.ends_early": _warning("a stream ends long before the anchor", "cut the recording, or stop it later"),
    "clock.starts_early": _note(
        "a stream begins long before the anchor; what lies before does not train", "start both recorders together"
    ),
    "clock.ends_late": _warning(
        "a stream goes on long after the anchor has ended", "check whether the anchor's file was cut short"
    ),
    "value.constant": _note("a column never changes", "check the sensor, or leave the column out"),
    "value.stuck": _warning("a sensor repeats one value for long", "check the sensor"),
    "value.jump": _warning("a value jumps faster than max_speed", "check the sensor, or raise max_speed in the schema"),
    "value.spike": _warning(
        "a value enormously farther out than all others of its column",
        "correct or delete the row, or give range in the schema, which sets such episodes aside",
    ),
    "value.flicker": _note(
        "a column only flickers around one position; scaled up, its noise would weigh as much as motion",
        "leave the column out of state and action",
    ),
    "value.float32": _warning(
        "training reads float32, which makes one number of values that differ",
        "subtract a constant, or store a change instead of a total",
    ),
    "pose.singular": _warning(
        "Euler angles near their singularity jump", "leave the pose out of the state, or train on joints"
    ),
    "pose.not_unit": _error(
        "a quaternion is not of length 1", "check order and columns, or say normalize = true in the schema"
    ),
    "action.wraps": _warning(
        "an angle comes round, so that two poses beside each other are far apart as absolute actions",
        "declare its period and train with rotation = 'sin_cos', or act on a derived rotation_6d, or on kind = 'delta'",
    ),
    "episode.no_frames": _fatal("no row has both its streams and an action", "record longer, or check the clocks"),
    "episode.too_short": _error("the episode is shorter than the schema asks for", "delete it, or lower the limit"),
    "episode.interleaved": _fatal("rows of one episode lie apart in the file", "sort the file by split_column"),
    "episode.not_matched": _warning(
        "folders that hold an episode's files are not called as the schema says; left out",
        "rename them, or correct folders in the schema",
    ),
    "episode.duplicate": _warning("the same recording as another episode", "delete one of them"),
    "episode.failed": _fatal("reading the episode failed", "report it with the message"),
    "episode.crashes": _fatal(
        "reading the episode ends the process that reads it, also in a process of its own",
        "report it with the recording; to read it again, change it or ingest into a new folder",
    ),
    "episode.hangs": _fatal(
        "reading the episode does not end, also in a process of its own",
        "raise --episode-timeout and ingest into a new folder, or leave the episode out",
    ),
    "episode.memory": _fatal(
        "reading the episode takes more memory than a worker has",
        "give workers more memory (--workers, --memory-limit) and ingest into a new folder, or cut the recording",
    ),
    "episode.failed_try": _warning(
        "the metadata says that the demonstration failed; it is kept", "say where = { success = true } in [episodes]"
    ),
    "split.same_content": _warning(
        "the same recording trains and validates, so validation looks too good", "delete one of them"
    ),
    "split.task_only_in_val": _warning(
        "every episode of a task validates, so the policy never trains on the task",
        "record more of it, or say val = 0 under [split]",
    ),
    "split.no_train": _warning(
        "every episode validates, so none is left to train on", "record more, or say val = 0 under [split]"
    ),
    "task.one_episode": _note("a task has a single episode", "record more of it"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault at one location; ``count`` is the number of such faults in that file and column, this one the first.

    ``file`` is relative to the dataset's folder. ``line`` counts from 1 and includes the header.
    """

    code: str
    file: str
    line: int | None = None
    column: str | None = None
    expected: str = ""
    found: str = ""
    count: int = 1
    severity: Severity = "error"

    @property
    def said(self) -> str:
        """The place, what was expected and what was found; without the cure, which is the code's."""
        place = self.file + (f":{self.line}" if self.line is not None else "")
        place += f": {self.column}" if self.column else ""
        what = self.found
        if self.expected:
            what = f"expected {self.expected}, found {self.found}"
        elif not what and self.code in CODES:
            what = CODES[self.code].meaning
        more = f" and {self.count - 1} more like it" if self.count > 1 else ""
        return printable(f"{place}: {what}{more}")

    def __str__(self) -> str:
        return f"{self.said} ({CODES[self.code].cure}) [{self.code}]"

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Finding:
        """Returns the finding that a line of ``rejects.jsonl`` or a row of the table of findings describes."""
        return cls(**{key: value for key, value in entry.items() if key in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        """Returns the finding as ``rejects.jsonl`` and reports have it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "expected": self.expected,
            "found": self.found,
            "count": self.count,
            "message": str(self),
        }


class Findings:
    """Collects the findings of one episode. Findings with the same code, file and column become one with a count."""

    def __init__(self, severity: Iterable[tuple[str, str]] = ()) -> None:
        """``severity`` overrides the severities of ``CODES`` by code; ``off`` drops the finding."""
        self._severity = dict(severity)
        self._first: dict[tuple[str, str, str | None], Finding] = {}
        self._count: dict[tuple[str, str, str | None], int] = {}

    def add(
        self,
        code: str,
        file: str,
        *,
        line: int | None = None,
        column: str | None = None,
        expected: str = "",
        found: str = "",
        count: int = 1,
    ) -> None:
        """Adds a finding. The first one of its kind keeps its line and its text; a later one only raises the count."""
        assert code in CODES, code
        severity = self.severity_of(code)
        if severity == "off":
            return
        key = (code, file, column)
        finding = Finding(
            code=code,
            file=file,
            line=line,
            column=column,
            expected=expected,
            found=found,
            severity=cast(Severity, severity),
        )
        self._first.setdefault(key, finding)
        self._count[key] = self._count.get(key, 0) + count

    def severity_of(self, code: str) -> str:
        """Returns the severity of findings with this code, or ``off``."""
        return self._severity.get(code, CODES[code].severity)

    def fresh(self) -> Findings:
        """Returns an empty collection with the same severities."""
        return Findings(self._severity.items())

    def __iter__(self) -> Iterator[Finding]:
        for key, finding in self._first.items():
            yield Finding(**{**vars(finding), "count": self._count[key]})

    def __len__(self) -> int:
        return len(self._first)

    @property
    def errors(self) -> list[Finding]:
        """Returns the findings that set the episode aside."""
        return [finding for finding in self if finding.severity == "error"]

    def extend(self, findings: Iterable[Finding]) -> None:
        """Adds findings that were made elsewhere."""
        for finding in findings:
            fields = {k: v for k, v in vars(finding).items() if k not in ("code", "file", "severity")}
            self.add(finding.code, finding.file, **fields)
