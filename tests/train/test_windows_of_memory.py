"""Windows gathered by address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.train.windows_of_memory import address_of, gather


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
