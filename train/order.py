"""The order of samples as a pure function of seed, epoch and position; no list is stored, however many frames.

A Feistel network is a bijection on 2^k numbers whatever its round function; numbers beyond the last frame are fed back
until they fall among the frames ("cycle walking", Black and Rogaway 2002), which leaves a bijection on the frames.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["frames_at", "permute"]

_ROUNDS = 8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # splitmix64
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def permute(positions: NDArray[np.int64], num_frames: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The frame at each position ``0 <= p < num_frames`` of an epoch; a bijection for every seed and epoch."""
    if num_frames == 1:
        return np.zeros_like(positions)
    keys = _round_keys(seed, epoch)
    bits = (num_frames - 1).bit_length()
    frames = _feistel(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(frames >= num_frames)
    while len(outside):
        frames[outside] = _feistel(frames[outside], bits, keys)
        outside = outside[frames[outside] >= num_frames]
    return frames.astype(np.int64)


def frames_at(first: int, count: int, num_frames: int, *, seed: int, shuffle: bool) -> NDArray[np.int64]:
    """Frames at ``count`` positions from ``first`` on, counted over all epochs; each epoch has an order of its own."""
    positions = np.arange(first, first + count, dtype=np.int64)
    epochs, within = np.divmod(positions, num_frames)
    if not shuffle:
        return within
    frames = np.empty_like(within)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        frames[here] = permute(within[here], num_frames, seed=seed, epoch=epoch)
    return frames


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"vlapipe order {seed} {epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _feistel(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass over ``bits``-bit numbers. The halves may differ by a bit; they change places in every round."""
    low_bits, high_bits = bits - bits // 2, bits // 2
    low = values & np.uint64((1 << low_bits) - 1)
    high = values >> np.uint64(low_bits)
    for key in keys:
        mixed = _mix(low + key) & np.uint64((1 << high_bits) - 1)
        low, high = high ^ mixed, low
        low_bits, high_bits = high_bits, low_bits
    return high << np.uint64(low_bits) | low


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values * _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
