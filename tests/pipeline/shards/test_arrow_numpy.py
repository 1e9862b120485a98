"""Arrow columns become equal NumPy arrays, from one chunk or many, without pandas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vlapipe.pipeline.shards.arrow_numpy import as_numpy

COLUMNS: dict[str, list[Any]] = {
    "integers": [3, -1, 2**62, 0, 5],
    "floats": [0.5, -0.0, 1e300, 2.0, 3.0],
    "texts": ["a", "b", "a", "", "ü"],
    "booleans": [True, False, True, True, False],
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("encoded", [False, True])
def test_values_are_the_same(name: str, pieces: int, encoded: bool) -> None:
    values = COLUMNS[name]
    column = pa.chunked_array([pa.array(values[i::pieces]) for i in range(pieces)])
    if encoded and name == "texts":
        column = pa.chunked_array([chunk.dictionary_encode() for chunk in column.chunks])
    assert as_numpy(column).tolist() == column.to_pylist()
    assert as_numpy(column.chunk(0).slice(1)).tolist() == column.chunk(0).to_pylist()[1:]


def test_missing_values_are_told() -> None:
    assert as_numpy(pa.chunked_array([["a", None], ["a"]])).tolist() == ["a", None, "a"]
    numbers = as_numpy(pa.array([1, None, 3]))
    assert np.isnan(numbers[1])
    assert numbers[[0, 2]].tolist() == [1, 3]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.bool_()])
def test_column_of_no_rows_is_one(kind: pa.DataType) -> None:
    assert as_numpy(pa.chunked_array([], kind)).shape == (0,)


def test_reading_a_dataset_needs_no_pandas(tiny_dataset: Path) -> None:
    code = """
import sys
import pyarrow
import vlapipe
from vlapipe.pipeline.shards.arrow_numpy import as_numpy
dataset = vlapipe.open_dataset(sys.argv[1])
for name in ("shard", "split", "seconds"):
    dataset.column(name)
dataset.episode(0)["action/value"]
dataset.sample_arrays(0)
as_numpy(pyarrow.chunked_array([], pyarrow.int32()))
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tiny_dataset)], check=True)
