"""Records of shards give the same rows and the same statistics in whatever order they arrive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlapipe.pipeline.build import records as module
from vlapipe.pipeline.build.records import BytesOfFiles, Records
from vlapipe.pipeline.build.statistics import FieldStatistics


def record(index: int) -> dict[str, Any]:
    """What the builder of a shard returns, of three episodes; every fifth shard has none."""
    values = np.random.default_rng(index).normal(index, 1 + index, (50 + index, 3)).astype(np.float32)
    values[0, 0] = np.nan
    rows = [{"id": f"{index}/{i}", "x": [float(index)] * 50} for i in range(3)]
    empty = index % 5 == 4
    statistics = {} if empty else {"robot/q": FieldStatistics.of(values).to_dict()}
    return {
        "index": index,
        "shard": None if empty else {"file": f"shard-{index}"},
        "episodes": [] if empty else rows,
        "statistics": statistics,
    }


@pytest.mark.parametrize("in_memory", [1 << 26, 1], ids=["in memory", "in a file"])
def test_order_of_arrival_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
    arrived = [record(index) for index in range(12)]
    arrived = [arrived[i] for i in np.random.default_rng(3).permutation(12)]
    records = Records(tmp_path)
    for each in arrived:
        records.add(each)
    ids = [row["id"] for index in range(12) for row in record(index)["episodes"]]
    assert [row["id"] for row in records.rows] == ids
    assert [records.rows[i]["id"] for i in (0, 7, -1)] == [ids[0], ids[7], ids[-1]]
    assert len(records.rows) == len(ids)
    assert [each["shard"]["file"] for each in records.written[2:5]] == ["shard-2", "shard-3", "shard-5"]
    parts = [FieldStatistics.from_dict(record(i)["statistics"]["robot/q"]) for i in range(12) if i % 5 != 4]
    expected = json.dumps(FieldStatistics.merged(parts).to_dict())
    assert json.dumps(records.statistics()["robot/q"].to_dict()) == expected  # to the last bit
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_file_of_several_episodes_counts_once() -> None:
    found = BytesOfFiles()
    found.add([{"path": "a", "num_bytes": 3}, {"path": "b", "num_bytes": 4}])
    found.add([{"path": "a", "num_bytes": 3}, {"path": "c", "num_bytes": 5}])
    assert found.total() == 12
    assert BytesOfFiles().total() == 0
