"""The order: a bijection for every size, seed and epoch, spread evenly, and cut anywhere the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.train.order import frames_at, permute


@given(num_frames=st.integers(1, 3000), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_every_frame_comes_exactly_once_an_epoch(num_frames: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(num_frames), num_frames, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(order), np.arange(num_frames))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    positions = np.arange(1000)
    orders = [permute(positions, 1000, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(orders):
        for other in orders[i + 1 :]:
            assert (one == other).mean() < 0.02


@pytest.mark.parametrize("num_frames", [10, 64, 200])
def test_every_frame_is_as_likely_at_the_first_position(num_frames: int) -> None:
    """Chi-square over 100 keys a frame; a fair order stays below the bound, and the keys are fixed."""
    tries = 100 * num_frames
    firsts = [int(permute(np.zeros(1, dtype=np.int64), num_frames, seed=s, epoch=0)[0]) for s in range(tries)]
    counts = np.bincount(firsts, minlength=num_frames)
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert chi_square < num_frames + 5 * np.sqrt(2 * num_frames)


def test_neighbours_in_a_batch_are_no_neighbours_in_the_recording() -> None:
    order = permute(np.arange(10_000), 10_000, seed=0, epoch=0)
    assert (np.abs(np.diff(order)) < 10).mean() < 0.01


def test_billion_frames_need_no_list() -> None:
    some = permute(np.arange(500_000_000, 500_000_064), 1_000_000_000, seed=0, epoch=3)
    assert len(set(some.tolist())) == 64
    assert some.min() >= 0
    assert some.max() < 1_000_000_000


@given(num_frames=st.integers(1, 50), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8), shuffle=st.booleans())
def test_sequence_is_the_same_however_it_is_cut(num_frames: int, cuts: list[int], shuffle: bool) -> None:
    whole = frames_at(0, sum(cuts), num_frames, seed=5, shuffle=shuffle)
    starts = np.cumsum([0, *cuts[:-1]])
    parts = [
        frames_at(int(start), cut, num_frames, seed=5, shuffle=shuffle) for start, cut in zip(starts, cuts, strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    for epoch in range(sum(cuts) // num_frames):
        assert sorted(whole[epoch * num_frames : (epoch + 1) * num_frames]) == list(range(num_frames))
