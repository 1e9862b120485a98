"""Stride order: the order of rows in which a chunk of every n-th row is contiguous in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.actions import in_stride_order, position_in_stride_order


@given(num_rows=st.integers(1, 500), step=st.integers(1, 600), data=st.data())
def test_every_row_is_there_once_and_a_chunk_of_every_nth_is_one_run(
    num_rows: int, step: int, data: st.DataObject
) -> None:
    order = in_stride_order(num_rows, step)
    assert sorted(order) == list(range(num_rows))
    first = data.draw(st.integers(0, num_rows - 1))
    chunk = np.arange(first, num_rows, step)
    place = int(position_in_stride_order(np.array([first]), np.array([num_rows]), step)[0])
    assert np.array_equal(order[place : place + len(chunk)], chunk)


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return vlapipe.open_dataset(tiny_dataset)


def test_shard_has_each_episodes_actions_in_that_order(dataset: Dataset) -> None:
    stride = dataset.schema.sample.action_stride
    assert stride > 1
    for episode in range(len(dataset)):
        row = dataset.row(episode)
        begin, num_rows = row["robot/start"], row["robot/rows"]
        sample = dataset.sample_arrays(row["shard"])
        actions, phases = (sample[name][begin : begin + num_rows] for name in ("action", "action/stride_order"))
        assert np.array_equal(phases, np.concatenate([actions[phase::stride] for phase in range(stride)]))
