"""Cameras whose images are arrays: pixels as they are, other layouts exactly or with a finding, files in rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from container_writing import jpeg, pictures
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import Part
from vlapipe.pipeline.read.images.image_array import read_image_array
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

FRAMES = pictures(np.random.default_rng(0), 9)
DEPTH = np.random.default_rng(1).integers(0, 5000, (9, 12, 16)).astype(np.uint16)


def read(
    root: Path, values: Any, *, part: Part | None = None, more: dict[str, Any] | None = None, **settings: Any
) -> tuple[ImageRows | None, list[Finding]]:
    with h5py.File(root / "a.h5", "w") as file:
        for name, array in {"img": values, **(more or {})}.items():
            if isinstance(array, list):
                made = file.create_dataset(name, (len(array),), dtype=h5py.vlen_dtype(np.uint8))
                for row, item in enumerate(array):
                    made[row] = np.frombuffer(item, dtype=np.uint8)
            else:
                file[name] = array
    settings = {"time": TimeSpec(index_rate_hz=10.0), **settings}
    stream = ImageStream(name="cam", files=("a.h5",), array=("img",), **settings)
    findings = Findings()
    return read_image_array(root, ["a.h5"], stream, findings, part=part), list(findings)


EXACT: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
    "colours last": (FRAMES, FRAMES),
    "colours first": (FRAMES.transpose(0, 3, 1, 2), FRAMES),
    "levels as float32": (FRAMES.astype("f4"), FRAMES),
    "levels as float64": (FRAMES.astype("f8"), FRAMES),
    "fractions as float32": (FRAMES.astype("f4") / 255, FRAMES),
    "fractions as float64, colours first": (FRAMES.transpose(0, 3, 1, 2) / 255, FRAMES),
    "gray": (FRAMES[..., 0], FRAMES[..., :1].repeat(3, axis=3)),
    "gray with an axis": (FRAMES[..., :1], FRAMES[..., :1].repeat(3, axis=3)),
}


@pytest.mark.parametrize("case", EXACT)
def test_pixels_are_kept_exactly(tmp_path: Path, case: str) -> None:
    values, wanted = EXACT[case]
    rows, findings = read(tmp_path, values)
    assert rows is not None, findings
    assert rows.offset is None
    assert np.array_equal(rows.data, wanted)
    assert [f.code for f in findings] == (["image.gray"] if case.startswith("gray") else [])
    rows, _ = read(tmp_path, values, part=Part(2, 5, 9))
    assert rows is not None
    assert np.array_equal(rows.data, wanted[2:5])
    assert rows.timestamp.tolist() == [0, 100_000_000, 200_000_000]


def test_exchanged_colours_are_put_right(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, FRAMES[..., ::-1], channels="bgr")
    assert rows is not None
    assert np.array_equal(rows.data, FRAMES)


def test_fractions_that_8_bits_cannot_hold_are_told(tmp_path: Path) -> None:
    values = FRAMES.astype("f4")
    values[4] += 0.25
    values[7, 0, 0, 0] = np.nan
    rows, findings = read(tmp_path, values)
    assert rows is None
    assert [(f.code, f.count) for f in findings] == [("image.rounded", 2)]
    assert "first in row 4" in findings[0].found


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (np.zeros((9, 4), "f4"), "shape (rows, height, width, 3)"),
        (np.zeros((9, 12, 16, 6), "u1"), "shape (rows, height, width, 3)"),
        (DEPTH, "for depth say unit"),
        (np.zeros((9, 12, 16, 3), "i8"), "uint8"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, values: NDArray[Any], hint: str) -> None:
    rows, findings = read(tmp_path, values)
    assert rows is None
    assert [(f.code, f.column) for f in findings] == [("image.layout", "img")]
    assert hint in findings[0].expected


@pytest.mark.parametrize("values", [DEPTH, DEPTH[..., None], DEPTH[:, None], (DEPTH / 1000).astype("f4")])
def test_depth_is_kept_in_its_unit(tmp_path: Path, values: NDArray[Any]) -> None:
    file_unit = "m" if values.dtype.kind == "f" else None
    rows, findings = read(tmp_path, values, unit="mm", file_unit=file_unit)
    assert rows is not None, findings
    assert rows.data.dtype == np.uint16
    assert np.array_equal(rows.data[..., 0], DEPTH)


def test_files_in_padded_rows_and_of_their_own_length_are_kept_byte_for_byte(tmp_path: Path) -> None:
    files = [jpeg(frame) for frame in FRAMES]
    width = max(map(len, files)) + 5
    padded = np.stack([np.frombuffer(file.ljust(width, b"\0"), np.uint8) for file in files])
    for values in (padded, files, np.array(files, dtype=f"S{width}")):
        rows, findings = read(tmp_path, values)
        assert rows is not None, findings
        assert rows.offset is not None
        assert [bytes(rows.data[a:b]) for a, b in zip(rows.offset, rows.offset[1:], strict=False)] == files


def test_a_file_that_is_cut_short_is_named_with_its_row(tmp_path: Path) -> None:
    files = [jpeg(frame) for frame in FRAMES]
    files[6] = files[6][:-40]
    rows, findings = read(tmp_path, files, part=Part(3, 9, 9))
    assert rows is None
    assert [(f.code, f.file) for f in findings] == [("image.truncated", "a.h5: img[6]")]


def test_lengths_that_the_recorder_wrote_down_are_compared(tmp_path: Path) -> None:
    files = [jpeg(frame) for frame in FRAMES]
    width = max(map(len, files)) + 50
    padded = np.stack([np.frombuffer(file.ljust(width, b"\0"), np.uint8) for file in files])
    lengths = np.array([[1] * 9, [len(file) for file in files]], dtype="f4")
    rows, findings = read(tmp_path, padded, more={"compress_len": lengths})
    assert rows is not None, findings
    lengths[1, 4] += 30
    rows, findings = read(tmp_path, padded, more={"compress_len": lengths})
    assert rows is None
    assert findings[0].code == "image.truncated"
    assert "in row 4, as" in findings[0].expected


def test_another_number_of_stamps_than_images_is_refused(tmp_path: Path) -> None:
    time = TimeSpec(sources=("t",))
    rows, findings = read(tmp_path, FRAMES, more={"t": np.arange(8.0)}, time=time)
    assert rows is None
    assert [(f.code, f.column, f.found) for f in findings] == [("npz.length", "t", "8")]
    rows, _ = read(tmp_path, FRAMES, more={"t": np.arange(9.0)}, time=time)
    assert rows is not None
    assert rows.timestamp.tolist() == list(range(9))
