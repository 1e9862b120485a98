"""A ZIP archive that holds a table and other files beside it: which one is the table, and which the metadata."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from inferring import infer_and_ingest

from vlapipe import open_dataset
from vlapipe.pipeline.read import TableError, read_table

TABLE = "timestamp,CartPos_X\n" + "".join(f"{676541379000 + 1000 * i},{190 + i / 1000}\n" for i in range(50))


def pack(path: Path, **members: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return path


@pytest.mark.parametrize(
    "beside",
    [
        {"log__json": "{}"},
        {"a__json": "{}", "b__json": "[]", "photo__jpg": "x", "notes__md": "see"},
        {"README__txt": "recorded on Monday"},
        {"anything": "else"},
    ],
    ids=["json", "several", "readme", "unknown"],
)
def test_the_one_table_beside_other_files_is_read(tmp_path: Path, beside: dict[str, str]) -> None:
    table = read_table(pack(tmp_path / "log.zip", **beside, log_df__csv="t,x\n1,2\n3,4\n"))
    assert table.rows() == [["1", "2"], ["3", "4"]]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"a__csv": "t\n1\n", "b__csv": "t\n1\n", "c__json": "{}"}, "2 files a.csv, b.csv"),
        ({"a__json": "{}"}, "0 files"),
    ],
)
def test_archives_without_one_certain_table_are_refused(tmp_path: Path, members: dict[str, str], found: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(pack(tmp_path / "log.zip", **members))
    assert caught.value.findings[0].code == "file.archive"
    assert found in caught.value.findings[0].found


def test_a_recorders_archive_goes_in_with_its_json_as_metadata(tmp_path: Path) -> None:
    for i in range(2):
        said = json.dumps({"robot": "Meca500", "instruction": f"go {i}"})
        pack(tmp_path / "lab" / f"run_{i}" / "log.zip", log__json=said, log_output_df__csv=TABLE)
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert 'metadata = "log.zip"' in inferred.toml
    assert report.num_episodes == 2
    dataset = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(
        dataset.episode(0)["robot/cart_pos_x"], np.float32([190 + i / 1000 for i in range(50)])
    )
    assert [row["instruction"] for row in dataset.episodes.to_pylist()] == ["go 0", "go 1"]
    assert {row["metadata/robot"] for row in dataset.episodes.to_pylist()} == {"Meca500"}
