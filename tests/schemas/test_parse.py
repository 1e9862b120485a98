"""The schema language: the meaning of each key, and the message for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.parse_fields import expand_names
from vlapipe.schemas.registry import built_in_schemas, load_schema
from vlapipe.schemas.schema import CsvStream, ImageStream, Schema

MINIMAL = """
name = "bench"
anchor = "robot"
[streams.robot]
kind = "csv"
files = ["log.csv"]
[streams.robot.time]
column = "t"
[streams.robot.fields.joints]
columns = ["j{1..3}"]
[action]
kind = "column"
of = ["robot/joints"]
[sample]
state = ["robot/joints"]
"""


def parse(text: str) -> Schema:
    return parse_schema(text, "test")


def test_minimal_schema_takes_defaults() -> None:
    schema = parse(MINIMAL)
    stream = schema.stream("robot")
    assert isinstance(stream, CsvStream)
    assert stream.fields[0].columns == (("j1",), ("j2",), ("j3",))
    assert stream.fields[0].shape == (3,)
    assert stream.time.dtype == "float64"
    assert schema.sample.state_rows == 1


def test_every_built_in_schema_parses_and_carries_its_name() -> None:
    names = list(built_in_schemas())
    assert {"meca500", "mecademic_log", "robond", "two_joint"} <= set(names)
    for name in names:
        assert load_schema(name).name == name


def test_meca500_accepts_both_recorders_column_names() -> None:
    columns = load_schema("meca500").field("robot/joint_position").columns
    assert columns[0] == ("joint_1", "joint_angle_1")
    assert columns[5] == ("joint_6", "joint_angle_6")


def test_small_time_units_are_whole_numbers_unless_told_otherwise() -> None:
    assert parse(MINIMAL.replace('column = "t"', 'column = "t"\nunit = "us"')).anchor_stream.time.dtype == "int64"
    text = MINIMAL.replace('column = "t"', 'column = "t"\nunit = "us"\ninteger = false')
    assert parse(text).anchor_stream.time.dtype == "float64"


def test_view_placeholder_makes_one_stream_a_folder() -> None:
    camera = load_schema("meca500").stream("camera")
    assert isinstance(camera, ImageStream)
    assert camera.many_cameras


THREE = 'columns = ["j{1..3}"]'
CLOCK = '[streams.robot.time]\ncolumn = "t"'
MISTAKES = {
    "misspelt key": ('kind = "csv"', 'kind = "csv"\nfile = ["x.csv"]', "did you mean 'files'"),
    "a range with too many zeros": (THREE, 'columns = ["j{1..30000000}"]', "expected at most 10,000, found more"),
    "misspelt kind": ('kind = "csv"', 'kind = "cvs"', "did you mean 'csv'"),
    "missing key": ('files = ["log.csv"]', "", "missing key 'files'"),
    "missing key misspelt": ('files = ["log.csv"]', 'flies = ["log.csv"]', "is 'flies' a misspelling"),
    "unknown top-level key": ('name = "bench"', 'name = "bench"\nauthor = "x"', "unknown key 'author'"),
    "anchor that is no stream": ('anchor = "robot"', 'anchor = "robo"', "did you mean 'robot'"),
    "action of an unknown field": ('of = ["robot/joints"]', 'of = ["robot/joint"]', "did you mean 'robot/joints'"),
    "state of an unknown field": (
        'state = ["robot/joints"]',
        'state = ["robot/x"]',
        "sample.state: no field 'robot/x'",
    ),
    "wrong type": ('columns = ["j{1..3}"]', "columns = 3", "expected text or a list of texts"),
    "too few units": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nunit = ["deg", "deg"]', "one entry or 3"),
    "alias of another length": (
        'columns = ["j{1..3}"]',
        'columns = ["j{1..3}"]\naliases = [["a"]]',
        "expected 3 names",
    ),
    "range the wrong way round": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nrange = 3', "[lowest, highest]"),
    "period where the action is a column": ('kind = "column"', 'kind = "column"\nperiod_s = 0.1', "period_s"),
    "delta without a period": ('kind = "column"', 'kind = "delta"', "period_s = 0.1"),
    "reserved stream name": ("[streams.robot]", '[streams.align]\nkind = "csv"\n[streams.robot]', "uses itself"),
    "field called timestamp": ("fields.joints", "fields.timestamp", "a name that vlapipe uses itself"),
    "range upside down": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nrange = [5, 1]', "[lowest, highest]"),
    "no column": ('columns = ["j{1..3}"]', 'columns = ["j{2..1}"]', "name at least one"),
    "no file": ('files = ["log.csv"]', "files = []", "no pattern"),
    "action of nothing": ('of = ["robot/joints"]', "of = []", "name at least one field"),
    "no state": ('state = ["robot/joints"]', "state = []", "name at least one field"),
    "infinite number": ('kind = "csv"', 'kind = "csv"\nrate_hz = inf', "a finite number"),
    "aliases of numbers": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\naliases = [[1, 2]]', "column names"),
    "form of time that reads nothing": ('column = "t"', 'column = "t"\nformat = "%Q"', "cannot be read back"),
    "unknown encoding": ('kind = "csv"', 'kind = "csv"\nencoding = "utf-9"', "'utf-9' is not known"),
    "long delimiter": ('kind = "csv"', 'kind = "csv"\ndelimiter = "::"', "one character or 'whitespace'"),
    "decimal that is the delimiter": ('kind = "csv"', 'kind = "csv"\ndecimal = ","\nquote = ""', "the same character"),
    "thousands that are the decimal": ('kind = "csv"', 'kind = "csv"\nthousands = "."', "the same character"),
    "thousands that part cells": (
        'kind = "csv"',
        'kind = "csv"\ndelimiter = "whitespace"\nthousands = " "',
        "the same character",
    ),
    "no names without a header": ('kind = "csv"', 'kind = "csv"\nheader = false', "names is missing"),
    "names and a header": ('kind = "csv"', 'kind = "csv"\nnames = ["t", "j1"]', "names in the header already"),
    "no clock": ('column = "t"', "", "no clock: column is missing"),
    "clock that starts with nothing": ('column = "t"', 'column = "t"\nstarts_with = "robo"', "no other stream 'robo'"),
    "regex without a count": ('columns = ["j{1..3}"]', "regex = 'j(\\d+)'", "count is missing"),
    "regex that is none": ('columns = ["j{1..3}"]', "regex = 'j('\ncount = 3", "not a regular expression"),
    "units of different kinds": ('columns = ["j{1..3}"]', f'{THREE}\nunit = "deg"\nto = "m"', "cannot convert"),
    "to without unit": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nto = "rad"', "from which unit?"),
    "quaternion of three": ('columns = ["j{1..3}"]', f'{THREE}\nquaternion = "xyzw"', "3 columns instead of 4"),
    "quaternion with a unit": (
        'columns = ["j{1..3}"]',
        'columns = ["j{1..4}"]\nquaternion = "wxyz"\nunit = "1"',
        "a quaternion has no unit",
    ),
    "no such convention": ('columns = ["j{1..3}"]', f'{THREE}\neuler = "XXY"', "expected a convention"),
    "derived of no rotation": (
        'columns = ["j{1..3}"]',
        f'{THREE}\n[streams.robot.derived]\nr6 = {{ kind = "rotation_6d", of = "joints" }}',
        "not known to hold a rotation",
    ),
    "angles of no unit": (
        'columns = ["j{1..3}"]',
        f'{THREE}\neuler = "XYZ"\n[streams.robot.derived]\nr6 = {{ kind = "rotation_6d", of = "joints" }}',
        "in what unit are the angles",
    ),
    "severity of no code": (
        "[sample]",
        '[checks.severity]\n"clock.rte" = "error"\n[sample]',
        "did you mean 'clock.rate'",
    ),
    "severity of what cannot be kept": (
        "[sample]",
        '[checks.severity]\n"csv.not_a_number" = "note"\n[sample]',
        "stays an error",
    ),
    "truth for a period": (THREE, f"{THREE}\nperiod = true", "a number or a list of numbers"),
    "truth in a range": (THREE, f"{THREE}\nrange = [false, 5]", "[lowest, highest]"),
    "number beyond 64 bits": ('kind = "csv"', f'kind = "csv"\nrate_hz = 1{"0" * 400}', "expected a number"),
    "regex for no column": (THREE, "regex = 'j(\\d+)'\ncount = 0", "expected 1 or more"),
    "unit to an odd power": (THREE, f'{THREE}\nunit = "m/s^-2"\nto = "mm/s^-2"', "is not known"),
    "range of a text": (THREE, 'columns = ["j1"]\ndtype = "text"\nrange = [0, 1]', "a field of text has none"),
    "rate and a second column": ('column = "t"', 'column = "t"\nrate_hz = 30\nplus = "u"', "cannot be combined"),
    "list with a decimal comma": (
        f'kind = "csv"\nfiles = ["log.csv"]\n{CLOCK}\n[streams.robot.fields.joints]\n{THREE}',
        f'kind = "csv"\nfiles = ["log.csv"]\ndelimiter = ";"\ndecimal = ","\n{CLOCK}\n'
        '[streams.robot.fields.joints]\ncolumns = ["j"]\nlist = 3',
        "a comma parts the numbers of a list",
    ),
    "placeholder that is no camera": ('files = ["log.csv"]', 'files = ["{camera}/log.csv"]', "only files of images"),
    "cameras without a place for them": (
        "[action]",
        '[streams.c]\nkind = "images"\nfiles = ["i/*.jpg"]\ncameras = ["i"]\n[action]',
        "files has no {camera}",
    ),
    "two places for a camera's times": (
        "[action]",
        '[streams.c]\nkind = "images"\nfiles = ["i/*.jpg"]\ntime = { pattern = "(.*)", file = "t.txt" }\n[action]',
        "pattern and file cannot both",
    ),
    "nearest without columns": ('column = "t"', 'file = "t.txt"\nnearest = true', "nearest: only a column"),
    "stem without files as episodes": ("[sample]", '[episodes]\ntask = "{stem}"\n[sample]', "per_file = true"),
    "both ways to split": ("[sample]", '[episodes]\nsplit_column = "e"\nsplit_gap_s = 1\n[sample]', "choose one"),
    "threshold without a field": ("[sample]", "[action.append.g]\nthreshold = 1\n[sample]", "missing key 'field'"),
    "not TOML": ('name = "bench"', "name = bench", "not valid TOML"),
    "newer schema version": ('name = "bench"', 'schema_version = 2\nname = "bench"', "expected 1, found 2"),
}


ARRAYS = """
[streams.sensor]
kind = "npz"
files = ["s.npz"]
[streams.sensor.time]
array = "t"
[streams.sensor.fields.force]
array = "forces"
"""


def test_arrays_without_a_field_are_refused() -> None:
    text = ARRAYS.replace("[streams.sensor.fields.force]", "[streams.sensor.fields]").replace('array = "forces"', "")
    with pytest.raises(UsageError, match="fields: no array"):
        parse(MINIMAL + text)


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ('"t"', '"secs"\nplus = "nsecs"', "plus: the stamps of an array are numbers"),
        ('"t"', '"t"\nformat = "iso"', "format: the stamps of an array are numbers"),
        ('"t"', '"t"\nexact = true', "exact: the stamps of an array are numbers"),
        ('"t"', '"t"\nnearest = true', "nearest: only a column"),
        ('"forces"', '"forces"\narrays = ["a", "b"]', "array and arrays cannot both be given"),
        ('array = "forces"', "arrays = []", "arrays: expected a list of names"),
        ('array = "forces"', 'arrays = ["a", "b"]', "shape: how many numbers have the arrays together?"),
        ('"forces"', '"forces"\npart = [3]', "part: expected [first, past the last]"),
        ('"forces"', '"forces"\npart = [3, 3]', "part: [3, 3] has no column"),
        ('"forces"', '"forces"\npart = [0, 1]\nwords = { on = 1 }', "words: only a field of one array of texts"),
        ('"forces"', '"forces"\ndtype = "text"\nshape = [3]', "shape: a field of text has none"),
        ('"forces"', '"forces"\nshape = [true]', "a list of whole numbers"),
    ],
)
def test_what_only_text_has_is_refused_of_arrays(old: str, new: str, answer: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(MINIMAL + ARRAYS.replace(old, new, 1))
    assert answer in str(caught.value)


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_answered_with_its_place_and_cure(case: str) -> None:
    old, new, answer = MISTAKES[case]
    assert old in MINIMAL
    with pytest.raises(UsageError) as caught:
        parse(MINIMAL.replace(old, new, 1))
    assert answer in str(caught.value)
    assert "schema test" in str(caught.value)


def test_schema_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_schema(str(path)).name == "bench"


@pytest.mark.parametrize(("name", "cure"), [("meca50", "did you mean 'meca500'"), ("gone.toml", "no such file")])
def test_unknown_schema_is_answered_with_the_nearest(name: str, cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        load_schema(name)


def test_few_lines_are_a_schema() -> None:
    text = """
    [streams.robot]
    kind = "csv"
    files = ["log.csv"]
    time = { column = "t", unit = "ms" }
    fields = { joints = { columns = ["j{1..3}"] }, note = { columns = ["note"], dtype = "text" } }
    """
    schema = parse_schema(text, "benches/left.toml")
    assert (schema.name, schema.anchor) == ("left", "robot")
    assert schema.sample.state == ("robot/joints",)  # text is not trained on
    assert (schema.action.kind, schema.action.of) == ("next", ("robot/joints",))


def test_mask_and_derived_fields_can_be_named_like_others() -> None:
    more = 'unit = "deg"\non_missing = "mask"\neuler = "XYZ"\n'
    more += '[streams.robot.derived]\nr6 = { kind = "rotation_6d", of = "joints" }\n'
    text = MINIMAL.replace(THREE, f"{THREE}\n{more}").replace(
        'state = ["robot/joints"]', 'state = ["robot/joints", "robot/joints_is_missing", "robot/r6"]'
    )
    schema = parse(text)
    assert schema.field("robot/joints_is_missing").dtype == "uint8"
    assert schema.field("robot/joints_is_missing").shape == (3,)
    assert schema.field("robot/r6").shape == (6,)


def test_dialect_is_read() -> None:
    text = MINIMAL.replace(
        'kind = "csv"', 'kind = "csv"\ndelimiter = ", "\nheader = "commented"\nencoding = "latin1"\nmissing = ["-999"]'
    )
    stream = parse(text).anchor_stream
    assert isinstance(stream, CsvStream)
    assert stream.dialect.delimiter == ","
    assert (stream.dialect.comment, stream.dialect.header_commented) == ("#", True)
    assert stream.missing == ("-999",)


def test_words_stand_for_numbers() -> None:
    text = MINIMAL.replace(
        'columns = ["j{1..3}"]', 'columns = ["grip"]\nwords = { ON = 1, "half open" = 0.5, OFF = 0 }'
    )
    assert parse(text).field("robot/joints").words == (("ON", 1.0), ("half open", 0.5), ("OFF", 0.0))


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ("words = {}", "words: there is none"),
        ('words = { ON = "1" }', "words: expected a number"),
        ("words = { ON = true }", "words: expected a number"),
        ("words = { ON = nan }", "words: expected a number"),
        ('words = { " ON" = 1 }', "has blanks around it"),
        ('dtype = "uint8"\nwords = { ON = -1 }', "uint8 cannot hold -1"),
        ('dtype = "text"\nwords = { ON = 1 }', "words: a field of text has none"),
        ("list = 2\nwords = { ON = 1 }", "words: a field whose cells hold lists has none"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(keys: str, answer: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(MINIMAL.replace('columns = ["j{1..3}"]', f'columns = ["grip"]\n{keys}'))
    assert answer in str(error.value)


def test_parts_of_a_time_are_put_in_order() -> None:
    text = MINIMAL.replace('column = "t"', 'parts = { second = "s", hour = "h", minute = "m" }')
    stream = parse(text).stream("robot")
    assert stream.time.parts == (("hour", "h"), ("minute", "m"), ("second", "s"))
    assert stream.time.dtype == "int64"


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ('parts = { second = "s" }', "an hour and a minute are needed"),
        ('parts = { hour = "h", minute = "m", day = "d" }', "day without month"),
        ('parts = { hour = "h", minute = "m", year = "y" }', "a year without a day"),
        ('parts = { hour = "h", minute = "m", year = "y", month = "o", day_of_year = "d" }', "cannot be combined"),
        ('parts = { hour = "h", minutes = "m" }', "did you mean 'minute'"),
        ('column = "t"\nparts = { hour = "h", minute = "m" }', "parts and column cannot be combined"),
        ('rate_hz = 5\nparts = { hour = "h", minute = "m" }', "parts and rate_hz cannot be combined"),
    ],
)
def test_parts_that_make_no_time_are_refused(keys: str, answer: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(MINIMAL.replace('column = "t"', keys))
    assert answer in str(error.value)


def test_choices_and_ranges_in_names_multiply() -> None:
    written = ["left_{waist,shoulder, elbow}", "{l,r}_{1..2}", "j{08..10}", "{x}", "p{,_cmd}"]
    assert expand_names(written) == (
        *("left_waist", "left_shoulder", "left_elbow"),
        *("l_1", "l_2", "r_1", "r_2"),
        *("j08", "j09", "j10"),
        "{x}",
        *("p", "p_cmd"),
    )


def test_choices_stand_in_aliases_and_drop_too() -> None:
    text = MINIMAL.replace('["j{1..3}"]', '["{left,right}_{waist,wrist}"]\naliases = [["{l,r}{1,2}"]]')
    text = text.replace('kind = "csv"', 'kind = "csv"\ndrop = ["tmp_{a,b}"]')
    stream = parse_schema(text, "t").anchor_stream
    assert isinstance(stream, CsvStream)
    assert stream.fields[0].columns == (
        *(("left_waist", "l1"), ("left_wrist", "l2")),
        *(("right_waist", "r1"), ("right_wrist", "r2")),
    )
    assert stream.drop == ("tmp_a", "tmp_b")


@pytest.mark.parametrize("name", ["{1..99999999}", "{1..9999}_{1..9999}_{1..9999}"])
def test_names_of_a_typing_mistake_do_not_fill_the_memory(name: str) -> None:
    assert len(expand_names([name])) <= 10_001
