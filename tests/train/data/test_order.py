"""Each order has every frame as often as it should, spread evenly, and is the same however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlapipe.train.data.ordering.order import Blocked, Order, Sequential, Shuffled, Weighted
from vlapipe.train.data.ordering.permutation import hash_of, permute
from vlapipe.train.data.ordering.quotas import Quotas


@given(num_frames=st.integers(1, 3000), seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
def test_every_frame_comes_exactly_once_an_epoch(num_frames: int, seed: int, epoch: int) -> None:
    order = Shuffled(num_frames, seed).frames(np.arange(num_frames) + epoch * num_frames)
    assert np.array_equal(np.sort(order), np.arange(num_frames))


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), seed=st.integers(0, 2**31))
def test_permutations_of_different_sizes_at_once_are_each_a_bijection(sizes: list[int], seed: int) -> None:
    positions = np.concatenate([np.arange(size) for size in sizes])
    of = np.repeat(np.arange(len(sizes)), sizes)
    found = permute(positions, np.array(sizes)[of], hash_of(seed, of))
    for i, size in enumerate(sizes):
        assert sorted(found[of == i]) == list(range(size))
        alone = permute(np.arange(size), np.array([size]), hash_of(seed, i))
        assert np.array_equal(found[of == i], alone)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    positions = np.arange(1000)
    orders = [Shuffled(1000, s).frames(positions + 1000 * e) for s, e in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(orders):
        for other in orders[i + 1 :]:
            assert (one == other).mean() < 0.02


@pytest.mark.parametrize("place", ["first", "middle"])
@pytest.mark.parametrize("num_frames", [2, 3, 10, 64, 200])
def test_every_frame_is_as_likely_at_a_position(num_frames: int, place: str) -> None:
    """Chi-square over 100 keys a frame; a fair order stays below the bound, and the keys are fixed."""
    tries = 100 * num_frames
    positions = np.full(tries, 0 if place == "first" else num_frames // 2)
    counts = np.bincount(permute(positions, np.array([num_frames]), hash_of(np.arange(tries), 0)), minlength=num_frames)
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert chi_square < num_frames + 5 * np.sqrt(2 * num_frames)


@pytest.mark.parametrize("num_frames", [5, 16, 40])
def test_every_pair_of_frames_is_as_likely_at_neighbouring_positions(num_frames: int) -> None:
    pairs = num_frames * (num_frames - 1)
    keys = hash_of(7, np.arange(50 * pairs))
    one, other = (permute(np.full(len(keys), p), np.array([num_frames]), keys) for p in (0, 1))
    counts = np.bincount(one * num_frames + other, minlength=num_frames**2)
    assert not counts[:: num_frames + 1].any()
    chi_square = ((counts[counts > 0] - 50) ** 2 / 50).sum()
    assert np.count_nonzero(counts) == pairs
    assert chi_square < pairs + 5 * np.sqrt(2 * pairs)


def test_neighbours_in_a_batch_are_no_neighbours_in_the_recording() -> None:
    order = Shuffled(10_000, 0).frames(np.arange(10_000))
    assert (np.abs(np.diff(order)) < 10).mean() < 0.01


def test_billion_frames_need_no_list() -> None:
    some = Shuffled(1_000_000_000, 0).frames(np.arange(3_500_000_000, 3_500_000_064))
    assert len(set(some.tolist())) == 64
    assert some.min() >= 0
    assert some.max() < 1_000_000_000


def _orders(seed: int) -> list[Order]:
    lengths = np.array([7, 1, 12, 5, 9])
    group = np.array([0, 0, 1, 2, 2])
    return [
        Sequential(34),
        Shuffled(34, seed),
        Blocked(lengths, 2, seed),
        _weighted(lengths, group, [4, 20, 10], seed),
        _weighted(lengths, group, [0.3, 23.5, 10.2], seed),
    ]


def _weighted(lengths: NDArray[np.int64], group: NDArray[np.int64], due: list[float], seed: int) -> Weighted:
    num_positions = round(sum(due))
    quotas = Quotas(np.array(due), num_positions)
    return Weighted(np.cumsum(lengths) - lengths, lengths, group, quotas, Shuffled(num_positions, seed), seed)


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8), which=st.integers(0, 4), seed=st.integers(0, 99))
def test_sequence_is_the_same_however_it_is_cut(cuts: list[int], which: int, seed: int) -> None:
    order = _orders(seed)[which]
    whole = order.frames(np.arange(sum(cuts)))
    parts = np.split(np.arange(sum(cuts)), np.cumsum(cuts)[:-1])
    assert np.array_equal(np.concatenate([order.frames(part) for part in parts]), whole)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9), mixed=st.integers(1, 10), seed=st.integers(0, 999))
def test_blocked_order_gives_every_frame_once_and_its_shards_together(
    lengths: list[int], mixed: int, seed: int
) -> None:
    order = Blocked(np.array(lengths), mixed, seed)
    shard_of = np.repeat(np.arange(len(lengths)), lengths)
    for epoch in range(3):
        frames = order.frames(np.arange(order.num_positions) + epoch * order.num_positions)
        assert sorted(frames) == list(range(sum(lengths)))
        block = np.argsort(order.shards(epoch))[shard_of[frames]] // mixed
        assert (np.diff(block) >= 0).all()


def test_blocked_order_mixes_within_its_block_and_anew_each_epoch() -> None:
    order = Blocked(np.full(10, 1000), 4, 0)
    first, second = (order.frames(np.arange(10_000) + epoch * 10_000) for epoch in (0, 1))
    assert (np.abs(np.diff(first[:4000])) < 10).mean() < 0.02
    assert len(set((first[:4000] // 1000).tolist())) == 4
    assert (first == second).mean() < 0.02
    assert order.shards(0).tolist() != order.shards(1).tolist()


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    quotas=st.lists(st.integers(1, 50), min_size=6, max_size=6),
    seed=st.integers(0, 999),
)
def test_weighted_order_keeps_its_quotas_and_leaves_no_frame_behind(
    lengths: list[int], quotas: list[int], seed: int
) -> None:
    sizes, groups = np.array(lengths), np.arange(len(lengths))
    begins = np.cumsum(sizes) - sizes
    order = _weighted(sizes, groups, [float(quota) for quota in quotas[: len(sizes)]], seed)
    counts = np.zeros(sizes.sum(), dtype=int)
    for epoch in range(4):
        frames = order.frames(np.arange(order.num_positions) + epoch * order.num_positions)
        assert np.bincount(np.repeat(groups, sizes)[frames], minlength=len(sizes)).tolist() == quotas[: len(sizes)]
        counts += np.bincount(frames, minlength=len(counts))
        for begin, size in zip(begins, sizes, strict=True):
            of_group = counts[begin : begin + size]
            assert of_group.max() - of_group.min() <= 1


@given(
    due=st.lists(st.floats(1e-3, 50), min_size=1, max_size=40),
    first=st.one_of(st.integers(0, 40), st.integers(2**20 - 40, 2**21 + 40)),
    seed=st.integers(0, 99),
)
def test_quotas_are_within_one_of_what_is_due_and_add_up(due: list[float], first: int, seed: int) -> None:
    num_positions = max(1, round(sum(due)))
    share = np.array(due) / sum(due) * num_positions
    laid = np.random.default_rng(seed).permutation(len(due))
    quotas = Quotas(np.array(due), num_positions, laid)
    before = quotas.of(first).drawn_before
    for epoch in range(first, first + 20):
        of_epoch = quotas.of(epoch)
        counts = of_epoch.ends - of_epoch.starts
        assert of_epoch.drawn_before.tolist() == before.tolist()
        assert (of_epoch.starts[0], of_epoch.ends[-1]) == (0, num_positions)
        assert (np.abs(counts - share) < 1).all()
        assert np.abs((counts - share)[laid].cumsum()).max() < 1  # of any run of groups that are laid side by side
        assert (
            np.abs(of_epoch.drawn_before - epoch * share).max() < 25 + epoch * 1e-5
        )  # rounding of the dues, times epochs
        before = before + counts


def test_groups_that_are_due_a_part_of_a_position_are_not_rounded_up() -> None:
    """Of 2,000 groups that are due a tenth of a position each, 200 come in an epoch, and each in every tenth."""
    quotas = Quotas(np.append(np.full(2000, 0.1), 9800.0), 10_000)
    counts = np.array([quotas.of(epoch).ends - quotas.of(epoch).starts for epoch in range(100)])
    assert (counts[:, :2000].sum(axis=1) == 200).all()
    assert (counts[:, -1] == 9800).all()
    assert np.abs(counts[:, :2000].sum(axis=0) - 10).max() <= 2


def test_groups_of_a_weighted_order_lie_mixed() -> None:
    lengths = np.array([5000, 5000])
    order = _weighted(lengths, np.array([0, 1]), [2500.0, 7500.0], 3)
    of_first = order.frames(np.arange(10_000)) < 5000
    in_hundreds = of_first.reshape(100, 100).mean(1)
    assert 0.02 < in_hundreds.std() < 0.07  # 0.043 if it were drawn from a hat
