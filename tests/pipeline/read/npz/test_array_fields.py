"""Fields of arrays: several arrays joined, parts of one, texts and words, values that are missing, odd dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlapipe.pipeline.read.npz.arrays import read_array_stream
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import ArrayStream

RNG = np.random.default_rng(0)
ROWS = 12


def read(root: Path, fields: str, **arrays: NDArray[Any]) -> tuple[StreamRows | None, list[Finding]]:
    np.savez(root / "a.npz", **arrays)  # type: ignore[arg-type]
    head = 'name = "lab"\naction = { kind = "next", of = "robot/a" }\nsample = { state = "robot/a" }\n[streams.robot]\n'
    head += 'kind = "npz"\nfiles = "*.npz"\ntime = { rate_hz = 10 }\n'
    if "fields.a]" not in fields and "fields.a " not in fields:
        fields += '\n[streams.robot.fields.a]\narray = "a"\n'
        arrays.setdefault("a", np.arange(float(ROWS)))
        np.savez(root / "a.npz", **arrays)  # type: ignore[arg-type]
    stream = parse_schema(head + fields, "lab").anchor_stream
    assert isinstance(stream, ArrayStream)
    findings = Findings()
    return read_array_stream(root, ["a.npz"], stream, findings), list(findings)


def test_several_arrays_are_joined_in_order(tmp_path: Path) -> None:
    arm, grip = RNG.normal(size=(ROWS, 7)).astype("f4"), RNG.normal(size=ROWS).astype("f4")
    text = '[streams.robot.fields.a]\narrays = ["arm", ["grip", "gripper"]]\nshape = [8]\n'
    rows, findings = read(tmp_path, text, arm=arm, gripper=grip)
    assert rows is not None, findings
    assert np.array_equal(rows.fields["a"], np.column_stack([arm, grip]))
    assert rows.column_names["a"] == ("arm", "gripper")
    rows, findings = read(tmp_path, text, arm=arm[:, :6], gripper=grip)
    assert rows is None
    assert (findings[0].code, findings[0].found) == ("npz.shape", "(12, 6) and (12, 1)")


def test_parts_of_an_array_are_fields(tmp_path: Path) -> None:
    state = RNG.normal(size=(ROWS, 10))
    text = '[streams.robot.fields.a]\narray = "s"\npart = [0, 7]\ndtype = "float64"\n'
    text += '[streams.robot.fields.b]\narray = "s"\npart = [9, 10]\ndtype = "float64"\n'
    rows, findings = read(tmp_path, text, s=state)
    assert rows is not None, findings
    assert np.array_equal(rows.fields["a"], state[:, :7])
    assert np.array_equal(rows.fields["b"], state[:, 9])
    rows, findings = read(tmp_path, text, s=state[:, :8])
    assert rows is None
    assert (findings[0].code, findings[0].expected) == ("npz.shape", "shape (rows, 10 or more)")


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("", np.ones((ROWS, 1))),
        ("shape = [1]", np.ones(ROWS)),
        ("", np.ones(ROWS)),
        ("shape = [1]", np.ones((ROWS, 1))),
    ],
)
def test_an_axis_of_one_may_be_there_or_not(tmp_path: Path, shape: str, values: NDArray[Any]) -> None:
    rows, findings = read(tmp_path, f'[streams.robot.fields.a]\narray = "x"\n{shape}\n', x=values)
    assert rows is not None, findings
    assert rows.fields["a"].shape == ((ROWS, 1) if shape else (ROWS,))


def test_other_axes_are_refused_with_the_shape_to_say(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, '[streams.robot.fields.a]\narray = "x"\nshape = [14]\n', x=np.ones((ROWS, 2, 7)))
    assert rows is None
    assert findings[0].found == "(12, 2, 7); say shape = [2, 7]"


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">i2", "?", "u1", "f8", "i8"])
def test_dtypes_keep_their_values(tmp_path: Path, dtype: str) -> None:
    values = np.arange(ROWS).astype(dtype)
    rows, findings = read(tmp_path, '[streams.robot.fields.a]\narray = "x"\n', x=values)
    assert rows is not None, findings
    assert not findings
    assert rows.fields["a"].dtype == np.float32
    assert np.array_equal(rows.fields["a"], values.astype("f8"))


@pytest.mark.parametrize("dtype", ["U", "S", "bytes in rows"])
def test_texts_and_words(tmp_path: Path, dtype: str) -> None:
    words = ["open", "closed", "open"] * 4
    values = np.array(words, dtype=dtype) if dtype in "US" else np.array(words, "S10").view("u1").reshape(ROWS, 10)
    text = '[streams.robot.fields.grip]\narray = "g"\nwords = { open = 1, closed = 0 }\n'
    text += '[streams.robot.fields.said]\narray = "g"\ndtype = "text"\nwidth = 8\n'
    rows, findings = read(tmp_path, text, g=values)
    assert rows is not None, findings
    assert rows.fields["grip"].tolist() == [1, 0, 1] * 4
    assert [bytes(row).rstrip(b"\0").decode() for row in rows.fields["said"]] == words
    rows, findings = read(tmp_path, text.replace("closed", "shut").replace("width = 8", "width = 5"), g=values)
    assert rows is None
    told = {finding.code: (finding.count, finding.found) for finding in findings}
    assert told["npz.unknown_word"] == (4, "'closed' in row 1; known: open, shut")
    assert told["npz.text_too_long"] == (4, "6 bytes in row 1")


def with_holes() -> NDArray[np.float64]:
    values = RNG.normal(size=(ROWS, 2))
    values[0, 0] = values[5, 1] = values[6, 1] = np.nan
    return values


def test_missing_values_are_refused_unless_the_schema_says_otherwise(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, '[streams.robot.fields.a]\narray = "x"\nshape = [2]\n', x=with_holes())
    assert rows is None
    assert (findings[0].code, findings[0].count) == ("npz.not_finite", 3)


def test_rows_with_missing_values_are_dropped(tmp_path: Path) -> None:
    values, text = with_holes(), '[streams.robot.fields.a]\narray = "x"\nshape = [2]\ndtype = "float64"\n'
    rows, findings = read(tmp_path, text + 'on_missing = "drop"\n', x=values)
    assert rows is not None, findings
    kept = [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert np.array_equal(rows.fields["a"], values[kept])
    assert rows.timestamp.tolist() == [row * 100_000_000 for row in kept]
    assert [(f.code, f.count) for f in findings] == [("npz.rows_dropped", 3)]


def test_missing_values_are_filled_and_marked(tmp_path: Path) -> None:
    values, text = with_holes(), '[streams.robot.fields.a]\narray = "x"\nshape = [2]\ndtype = "float64"\n'
    rows, findings = read(tmp_path, text + 'on_missing = "mask"\n', x=values)
    assert rows is not None, findings
    assert np.array_equal(rows.fields["a_is_missing"], np.isnan(values))
    filled = values.copy()
    filled[0, 0] = values[1, 0]
    filled[5:7, 1] = values[4, 1]
    assert np.array_equal(rows.fields["a"], filled)
    assert [(f.code, f.count) for f in findings] == [("npz.values_masked", 3)]


def test_infinity_is_no_missing_value(tmp_path: Path) -> None:
    values = with_holes()
    values[3, 0] = np.inf
    rows, findings = read(
        tmp_path, '[streams.robot.fields.a]\narray = "x"\nshape = [2]\non_missing = "mask"\n', x=values
    )
    assert rows is None
    assert "npz.not_finite" in {f.code for f in findings}


def test_an_optional_array_that_is_absent_is_zero_and_marked(tmp_path: Path) -> None:
    text = '[streams.robot.fields.effort]\narray = "effort"\nshape = [3]\noptional = true\n'
    rows, findings = read(tmp_path, text)
    assert rows is not None, findings
    assert not rows.fields["effort"].any()
    assert rows.fields["effort_is_missing"].all()
    assert rows.fields["effort"].shape == rows.fields["effort_is_missing"].shape == (ROWS, 3)
    assert [(f.code, f.column) for f in findings] == [("npz.absent", "effort")]
    rows, findings = read(tmp_path, text, effort=np.ones((ROWS, 3)))
    assert rows is not None
    assert not rows.fields["effort_is_missing"].any()


def test_a_bomb_in_an_npz_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    stream = parse_schema(
        'name = "lab"\n[streams.robot]\nkind = "npz"\nfiles = "*"\ntime = { rate_hz = 10 }\nfields.a = { array = "a" }',
        "lab",
    ).anchor_stream
    assert isinstance(stream, ArrayStream)
    findings = Findings()
    assert read_array_stream(tmp_path, ["b.npz"], stream, findings) is None
    assert [(f.code, f.column) for f in findings] == [("npz.too_large", "a")]
