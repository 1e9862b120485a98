"""The memory of batches: used again, but never while anybody holds a part of it; and windows gathered by address."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.train.batch_buffers import BatchBuffers, Entry
from vlapipe.train.windows_of_memory import address_of, gather

ENTRIES = {"state": Entry((3,), np.float32), "index": Entry((), np.int64)}


def place(tensors: dict[str, torch.Tensor]) -> int:
    return tensors["state"].data_ptr()


def test_memory_is_used_again_once_no_tensor_of_it_is_held() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    first = buffers.lend(4)[1]
    at = place(first)
    assert place(buffers.lend(4)[1]) != at
    part = first["state"][1, 2:]
    del first
    assert place(buffers.lend(4)[1]) != at  # a view of it is held
    other = part.numpy()
    del part
    assert place(buffers.lend(4)[1]) != at  # an array that shares the view's memory
    del other
    assert place(buffers.lend(4)[1]) == at


def test_batch_keeps_its_numbers_while_others_come_and_go() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    held = []
    for value in range(8):
        arrays, tensors = buffers.lend(4)
        arrays["state"][:] = value
        held.append(tensors["state"])
        del arrays, tensors
    assert [float(tensor.max()) for tensor in held] == list(range(8))
    assert len({tensor.data_ptr() for tensor in held}) == 8


@given(
    width=st.sampled_from([1, 4, 28, 4096, 40_000, 100_000]),
    starts=st.lists(st.integers(0, 300_000), min_size=1, max_size=20),
)
def test_gather_copies_the_bytes_at_each_address(width: int, starts: list[int]) -> None:
    source = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8)
    out = np.empty((len(starts), width), dtype=np.uint8)
    gather(address_of(source) + np.array(starts), out)
    assert all(np.array_equal(row, source[i : i + width]) for row, i in zip(out, starts, strict=True))


def test_address_is_given_only_for_arrays_that_lie_in_one_run() -> None:
    with pytest.raises(AssertionError):
        address_of(np.zeros((4, 6))[:, ::2])
