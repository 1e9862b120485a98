"""A keyed permutation of any number of frames, computed position by position: no list, however many there are.

A Feistel network is a bijection on 2^k numbers whatever its round function; numbers beyond the last frame are fed back
until they fall among the frames ("cycle walking", Black and Rogaway 2002), which leaves a bijection on the frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.hashing import hash_of

__all__ = ["permute"]

_ROUND_KEYS = hash_of(np.arange(8))
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)


def permute(positions: NDArray[np.int64], num_frames: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The frame at each position ``0 <= p < num_frames``; for every number of frames and key a bijection.

    Args:
        positions: ``(N,)``.
        num_frames: ``(N,)`` or ``(1,)``, from 1 to 2^52.
        key: ``(N,)`` or ``(1,)``.
    """
    frames = _feistel(positions.astype(np.uint64), num_frames, key)
    outside = np.flatnonzero(frames >= num_frames)
    while len(outside):
        sizes = num_frames if len(num_frames) == 1 else num_frames[outside]
        keys = key if len(key) == 1 else key[outside]
        again = _feistel(frames[outside], sizes, keys)
        frames[outside] = again
        outside = outside[again >= sizes]
    return frames.astype(np.int64)


def _feistel(values: NDArray[np.uint64], num_frames: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass over numbers of as few bits as the frames need: each half is mixed into the other in turn."""
    bits = np.frexp(num_frames - 1)[1].astype(np.uint64)  # exact for numbers below 2^53
    low_bits = bits - bits // np.uint64(2)
    masks = ((_ONE << low_bits) - _ONE, (_ONE << (bits - low_bits)) - _ONE)
    halves = [values & masks[0], values >> low_bits]
    mixed = np.empty_like(values)
    for i, round_key in enumerate(_ROUND_KEYS):
        _mix(halves[i % 2], key ^ round_key, mixed)
        mixed &= masks[1 - i % 2]
        halves[1 - i % 2] ^= mixed
    whole: NDArray[np.uint64] = (halves[1] << low_bits) | halves[0]
    return whole


def _mix(values: NDArray[np.uint64], key: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Hash numbers into ``out``; its lowest bits are as good as any."""
    np.add(values, key, out=out)
    out *= _MIX_1
    out ^= out >> np.uint64(29)
    out *= _MIX_2
    out >>= np.uint64(32)
