"""Decoding bytes inside a Blosc buffer. A damaged buffer is refused or read wrong, and never ends the process."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc

from vlapipe.pipeline.shards.format.zarr_rows import decode_bytes


@settings(deadline=None)
@given(
    name=st.sampled_from(["zstd", "lz4"]),
    level=st.integers(1, 9),
    shuffle=st.sampled_from([Blosc.NOSHUFFLE, Blosc.SHUFFLE]),
    dtype=st.sampled_from([np.uint8, np.int32, np.float64]),
    size=st.integers(1, 400_000),
    spread=st.sampled_from([1, 1000, 2**31]),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_bytes_out_of_the_middle_are_those_of_the_whole(
    name: str, level: int, shuffle: int, dtype: type, size: int, spread: int, part: tuple[float, float]
) -> None:
    values = np.random.default_rng(size).integers(0, spread, size).astype(dtype)
    whole = values.view(np.uint8)
    encoded = np.frombuffer(Blosc(name, level, shuffle).encode(values), dtype=np.uint8)
    start, stop = sorted(round(share * len(whole)) for share in part)
    assert np.array_equal(decode_bytes(encoded, start, stop, len(whole)), whole[start:stop])


@settings(deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 255)), min_size=1, max_size=5),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_damaged_head_is_refused_or_read_wrong(flips: list[tuple[int, int]], part: tuple[float, float]) -> None:
    whole = np.round(np.random.default_rng(0).normal(size=100_000), 3).astype(np.float32).view(np.uint8)
    encoded = np.frombuffer(Blosc("zstd", 3).encode(whole.view(np.float32)), dtype=np.uint8).copy()
    for place, bits in flips:
        encoded[place] ^= bits
    start, stop = sorted(round(share * len(whole)) for share in part)
    with contextlib.suppress(ValueError, RuntimeError):
        assert len(decode_bytes(encoded, start, stop, len(whole))) == stop - start


def test_buffer_of_another_size_than_expected_is_refused() -> None:
    encoded = np.frombuffer(Blosc("zstd", 3).encode(np.zeros(1000)), dtype=np.uint8)
    for buffer, num_bytes in ((encoded, 7999), (encoded[:-1], 8000), (encoded[:9], 8000)):
        with pytest.raises(ValueError, match="expected a Blosc buffer"):
            decode_bytes(buffer, 0, 10, num_bytes)
