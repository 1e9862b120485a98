"""NPZ: arrays as they are, nothing unpickled, every fault named with its array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import sensor_arrays

from vlapipe.pipeline.readers.npz_arrays import read_npz_stream
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import NpzStream

Arrays = dict[str, Any]


def sensor() -> NpzStream:
    stream = load_schema("meca500").stream("sensor")
    assert isinstance(stream, NpzStream)
    return stream


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_are(tmp_path: Path, save: Callable[..., None]) -> None:
    arrays = sensor_arrays(100.0, 0.1, 0)
    save(tmp_path / "s.npz", **arrays)
    findings = Findings()
    rows = read_npz_stream(tmp_path, ["s.npz"], sensor(), findings)
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
    read_npz_stream(tmp_path, ["s.npz"], sensor(), findings)
    assert [(f.code, f.column) for f in findings.errors] == [(code, column)]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_cut_archive_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **sensor_arrays(100.0, 0.1, 0))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    findings = Findings()
    assert read_npz_stream(tmp_path, ["s.npz"], sensor(), findings) is None
    assert [f.code for f in findings] == ["npz.unreadable"]


def test_flipped_bit_in_the_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **sensor_arrays(100.0, 0.1, 0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    findings = Findings()
    assert read_npz_stream(tmp_path, ["s.npz"], sensor(), findings) is None
    assert [f.code for f in findings.errors] == ["npz.unreadable"]


def test_float64_that_does_not_fit_float32_is_rounded_with_a_warning(tmp_path: Path) -> None:
    arrays: Arrays = sensor_arrays(100.0, 0.1, 0)
    arrays["forces"] = arrays["forces"].astype(np.float64) + 1e-12
    np.savez(tmp_path / "s.npz", **arrays)
    findings = Findings()
    rows = read_npz_stream(tmp_path, ["s.npz"], sensor(), findings)
    assert rows is not None
    assert [(f.code, f.column) for f in findings] == [("npz.rounded", "forces")]
