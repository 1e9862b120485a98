"""NPZ: arrays are read unchanged, nothing is unpickled, and every fault is reported with its array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import sensor_arrays

from vlapipe.pipeline.read.npz.arrays import read_array_stream
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import ArrayStream, FieldSpec, TimeSpec

Arrays = dict[str, Any]


def sensor() -> ArrayStream:
    stream = load_schema("meca500").stream("sensor")
    assert isinstance(stream, ArrayStream)
    return stream


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_are(tmp_path: Path, save: Callable[..., None]) -> None:
    arrays = sensor_arrays(100.0, 0.1, 0)
    save(tmp_path / "s.npz", **arrays)
    findings = Findings()
    rows = read_array_stream(tmp_path, ["s.npz"], sensor(), findings)
    assert rows is not None, list(findings)
    assert np.array_equal(rows.timestamp, arrays["timestamps"])
    assert np.array_equal(rows.fields["aline"], arrays["alines"])
    assert rows.fields["force"].dtype == np.float32


def with_nan(arrays: Arrays) -> None:
    arrays["forces"][7] = np.nan


EDITS: dict[str, tuple[Callable[[Arrays], Any], str, str]] = {
    "missing array": (lambda a: a.pop("forces"), "npz.missing_array", "forces"),
    "objects": (lambda a: a.update(forces=np.array([{}] * len(a["forces"]))), "npz.object_array", "forces"),
    "text": (lambda a: a.update(forces=a["forces"].astype(str)), "npz.dtype", "forces"),
    "other width": (lambda a: a.update(alines=a["alines"][:, :1024]), "npz.shape", "alines"),
    "fewer stamps": (lambda a: a.update(timestamps=a["timestamps"][:-3]), "npz.length", "timestamps"),
    "fewer rows of one array": (lambda a: a.update(forces=a["forces"][:-3]), "npz.length", "forces"),
    "stamps in float32": (lambda a: a.update(timestamps=a["timestamps"].astype("f4")), "npz.dtype", "timestamps"),
    "NaN": (with_nan, "npz.not_finite", "forces"),
}


@pytest.mark.parametrize("case", EDITS)
def test_fault_is_named_with_its_array(tmp_path: Path, case: str) -> None:
    edit, code, column = EDITS[case]
    arrays = sensor_arrays(100.0, 0.1, 0)
    edit(arrays)
    np.savez(tmp_path / "s.npz", **arrays)
    findings = Findings()
    read_array_stream(tmp_path, ["s.npz"], sensor(), findings)
    assert [(f.code, f.column) for f in findings.errors] == [(code, column)]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_cut_archive_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **sensor_arrays(100.0, 0.1, 0))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    findings = Findings()
    assert read_array_stream(tmp_path, ["s.npz"], sensor(), findings) is None
    assert [f.code for f in findings] == ["npz.unreadable"]


def test_flipped_bit_in_the_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **sensor_arrays(100.0, 0.1, 0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    findings = Findings()
    assert read_array_stream(tmp_path, ["s.npz"], sensor(), findings) is None
    assert [f.code for f in findings.errors] == ["npz.unreadable"]


def test_float64_that_does_not_fit_float32_is_rounded_with_a_warning(tmp_path: Path) -> None:
    arrays: Arrays = sensor_arrays(100.0, 0.1, 0)
    arrays["forces"] = arrays["forces"].astype(np.float64) + 1e-12
    np.savez(tmp_path / "s.npz", **arrays)
    findings = Findings()
    rows = read_array_stream(tmp_path, ["s.npz"], sensor(), findings)
    assert rows is not None
    assert [(f.code, f.column) for f in findings] == [("npz.rounded", "forces")]


def stream_of(*fields: FieldSpec, **values: Any) -> ArrayStream:
    time = values.pop("time", TimeSpec(sources=("timestamps",)))
    return ArrayStream(name="sensor", files=("*.npz", "*.npy"), time=time, fields=fields, rate_hz=650, **values)


def read(root: Path, stream: ArrayStream, arrays: Arrays) -> tuple[StreamRows | None, list[Finding]]:
    np.savez(root / "s.npz", **arrays)
    findings = Findings()
    rows = read_array_stream(root, ["s.npz"], stream, findings)
    return rows, list(findings)


def test_windows_are_read_as_the_flat_arrays_they_were_cut_from(tmp_path: Path) -> None:
    flat = sensor_arrays(100.0, 0.5, 0)
    joined = np.column_stack([flat["forces"], flat["alines"]])
    ends = np.arange(65, len(joined) + 1, 65)
    windows = np.stack([joined[end - 65 : end] for end in ends])
    rows, findings = read(tmp_path, sensor(), {"data": windows, "timestamps": flat["timestamps"][ends - 1]})
    assert rows is not None, findings
    assert [(f.code, f.severity, f.column) for f in findings] == [("npz.windows", "note", "data")]
    assert "5 windows of 65 rows: 325 rows, 0 repeated" in findings[0].found
    assert np.array_equal(rows.fields["force"], flat["forces"][: ends[-1]])
    assert np.array_equal(rows.fields["aline"], flat["alines"][: ends[-1]])
    assert np.allclose(rows.timestamp, flat["timestamps"][: ends[-1]], rtol=0, atol=1e-7)


WINDOW_FAULTS: dict[str, tuple[Arrays, str, str]] = {
    "too few columns": ({"data": np.zeros((4, 65, 1025)), "timestamps": np.arange(4.0)}, "npz.shape", "data"),
    "no windows": ({"data": np.zeros((4, 1026, 0)), "timestamps": np.arange(4.0)}, "npz.shape", "data"),
    "fewer stamps": ({"data": np.zeros((4, 65, 1026)), "timestamps": np.arange(3.0)}, "npz.length", "timestamps"),
    "neither form": ({"timestamps": np.arange(3.0)}, "npz.missing_array", "forces"),
}


@pytest.mark.parametrize("case", WINDOW_FAULTS)
def test_faulty_windows_are_refused(tmp_path: Path, case: str) -> None:
    arrays, code, column = WINDOW_FAULTS[case]
    rows, findings = read(tmp_path, sensor(), arrays)
    assert rows is None
    assert (findings[0].code, findings[0].column) == (code, column)


def test_units_and_quaternions_are_converted(tmp_path: Path) -> None:
    force = FieldSpec(name="force", columns=(("f",),), file_unit=("mN",), unit=("N",), scale=(0.001,), range=(0, 900))
    turn = FieldSpec(name="turn", columns=(("q",),), shape=(4,), quaternion="wxyz", normalize=True)
    arrays = {"timestamps": np.arange(3.0), "f": np.array([0, 500, 900]), "q": np.array([[2.0, 0, 0, 0]] * 3)}
    rows, findings = read(tmp_path, stream_of(force, turn), arrays)
    assert rows is not None, findings
    assert rows.fields["force"].tolist() == [0.0, 0.5, np.float32(0.9)]
    assert rows.fields["turn"].tolist() == [[0, 0, 0, 1]] * 3
    arrays["f"] = np.array([0, 500, 901])
    _, findings = read(tmp_path, stream_of(force, turn), arrays)
    assert [(f.code, f.column) for f in findings] == [("npz.out_of_range", "f")]


@pytest.mark.parametrize(
    ("dtype", "values"), [("float32", [1e300, 0.0]), ("int32", [1.5, 2.0]), ("uint8", [256, 1]), ("uint8", [-1, 1])]
)
def test_value_that_the_dtype_cannot_hold_is_refused(tmp_path: Path, dtype: str, values: list[float]) -> None:
    field = FieldSpec(name="f", columns=(("f",),), dtype=dtype)
    rows, findings = read(tmp_path, stream_of(field), {"timestamps": np.arange(2.0), "f": np.array(values)})
    assert rows is None
    assert [f.code for f in findings] == ["npz.dtype"]


@pytest.mark.parametrize(
    ("stored", "value", "dtype"), [("int8", -1, "uint8"), ("uint32", 2**32 - 1, "int32"), ("uint64", 2**63, "int64")]
)
def test_whole_number_that_would_wrap_and_wrap_back_is_refused(
    tmp_path: Path, stored: str, value: int, dtype: str
) -> None:
    field = FieldSpec(name="f", columns=(("f",),), dtype=dtype)
    arrays = {"timestamps": np.arange(2.0), "f": np.array([1, value], dtype=stored)}
    rows, findings = read(tmp_path, stream_of(field), arrays)
    assert rows is None
    assert [(f.code, f.found) for f in findings] == [("npz.dtype", "more in row 1")]


def test_row_that_is_too_large_is_named_not_one_that_is_rounded(tmp_path: Path) -> None:
    field = FieldSpec(name="f", columns=(("f",),))
    arrays = {"timestamps": np.arange(3.0), "f": np.array([0.1, 1.0, 1e300])}
    _, findings = read(tmp_path, stream_of(field), arrays)
    assert [(f.code, f.found) for f in findings] == [("npz.dtype", "more in row 2")]


def test_value_out_of_range_is_found_beside_one_that_is_not_finite(tmp_path: Path) -> None:
    field = FieldSpec(name="f", columns=(("f",),), range=(0, 10))
    arrays = {"timestamps": np.arange(3.0), "f": np.array([np.nan, 1, 99], dtype=np.float32)}
    _, findings = read(tmp_path, stream_of(field), arrays)
    assert [f.code for f in findings] == ["npz.not_finite", "npz.out_of_range"]


def test_finding_that_the_schema_lowers_lets_the_values_through(tmp_path: Path) -> None:
    arrays: Arrays = {"timestamps": np.arange(3.0), "f": np.array([1, np.nan, 5], dtype=np.float32)}
    np.savez(tmp_path / "s.npz", **arrays)
    findings = Findings([("npz.not_finite", "warning")])
    stream = stream_of(FieldSpec(name="f", columns=(("f",),)))
    rows = read_array_stream(tmp_path, ["s.npz"], stream, findings)
    assert rows is not None
    assert np.array_equal(rows.fields["f"], arrays["f"], equal_nan=True)
    assert [f.severity for f in findings] == ["warning"]


def test_stamp_that_is_not_finite_stays_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", timestamps=np.array([0, np.nan]), f=np.zeros(2))
    findings = Findings([("npz.not_finite", "off")])
    stream = stream_of(FieldSpec(name="f", columns=(("f",),)))
    assert read_array_stream(tmp_path, ["s.npz"], stream, findings) is None
    assert [f.code for f in findings.errors] == ["npz.bad_time"]


def test_npy_files_are_arrays_called_after_their_names(tmp_path: Path) -> None:
    stamps = np.arange(5, dtype=np.int64) * 1_538_462 + 1_740_416_404_000_000_001
    np.save(tmp_path / "t.npy", stamps)
    np.save(tmp_path / "f.npy", np.arange(5.0))
    time = TimeSpec(sources=("t",), unit="ns", integer=True)
    findings = Findings()
    rows = read_array_stream(
        tmp_path, ["f.npy", "t.npy"], stream_of(FieldSpec(name="f", columns=(("f",),)), time=time), findings
    )
    assert rows is not None, list(findings)
    assert rows.timestamp.tolist() == stamps.tolist()
    assert rows.fields["f"].tolist() == [0, 1, 2, 3, 4]
    assert (rows.source.path, rows.source.num_files) == (".", 2)


@pytest.mark.parametrize("content", ["objects", "pickle", "cut short", "nothing", "text"])
def test_npy_file_that_is_no_array_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    import pickle

    np.save(tmp_path / "t.npy", np.arange(5.0))
    np.save(tmp_path / "f.npy", np.array([{}, 1], dtype=object) if content == "objects" else np.arange(5.0))
    whole = (tmp_path / "f.npy").read_bytes()
    replaced = {"pickle": pickle.dumps([1]), "cut short": whole[:-1], "nothing": b"", "text": b"1,2,3\n"}
    (tmp_path / "f.npy").write_bytes(replaced.get(content, whole))
    stream = stream_of(FieldSpec(name="f", columns=(("f",),)), time=TimeSpec(sources=("t",)))
    findings = Findings()
    assert read_array_stream(tmp_path, ["f.npy", "t.npy"], stream, findings) is None
    code = "npz.object_array" if content == "objects" else "npz.unreadable"
    assert [(f.code, f.file, f.column) for f in findings] == [(code, "f.npy", "f")]


def test_rows_are_counted_where_the_clock_is_a_rate(tmp_path: Path) -> None:
    stream = stream_of(FieldSpec(name="f", columns=(("f",),)), time=TimeSpec(index_rate_hz=300, offset_s=1))
    rows, findings = read(tmp_path, stream, {"f": np.zeros(4)})
    assert rows is not None, findings
    assert rows.timestamp.tolist() == [1_000_000_000, 1_003_333_333, 1_006_666_667, 1_010_000_000]


def test_whole_numbers_of_an_array_are_divided_by_the_rate(tmp_path: Path) -> None:
    time = TimeSpec(sources=("n",), index_rate_hz=10)
    stream = stream_of(FieldSpec(name="f", columns=(("f",),)), time=time)
    rows, findings = read(tmp_path, stream, {"f": np.zeros(3), "n": np.array([5.0, 7, 8])})
    assert rows is not None, findings
    assert rows.timestamp.tolist() == [500_000_000, 700_000_000, 800_000_000]
    _, findings = read(tmp_path, stream, {"f": np.zeros(3), "n": np.array([5.5, 7, 8])})
    assert [(f.code, f.column) for f in findings] == [("npz.bad_time", "n")]


@pytest.mark.parametrize("range_", [None, (0.0, 1e300), (0.0, 5.0)])
def test_float64_that_float32_cannot_hold_is_refused_as_batches_are_float32(
    tmp_path: Path, range_: tuple[float, float] | None
) -> None:
    field = FieldSpec(name="f", columns=(("f",),), dtype="float64", range=range_)
    arrays = {"timestamps": np.arange(3.0), "f": np.array([1.0, 1e39, 2.0])}
    _, findings = read(tmp_path, stream_of(field), arrays)
    assert [(f.code, f.column, f.count) for f in findings] == [("npz.out_of_range", "f", 1)]
    assert "row 1" in findings[0].found
