"""A keyed permutation of any number of frames. Each position is computed alone, so no list of frames is needed.

A Feistel network is a bijection on 2^k numbers for any round function. A result beyond the last frame is put in again
until it is the number of a frame ("cycle walking", Black and Rogaway 2002); this keeps a bijection on the frames. The
keys are hashes of seed, epoch and so on, so there is no random generator whose state would have to be saved.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["hash_of", "permute"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the finalizer of splitmix64 (Steele, Lea and Flood 2014)
_SPLITMIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_SPLITMIX_2 = np.uint64(0x94D049BB133111EB)


def hash_of(*numbers: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash each tuple of numbers to 64 bits. Arrays broadcast, and the order of the numbers in a tuple matters."""
    arrays = [np.atleast_1d(np.asarray(number)).astype(np.int64).view(np.uint64) for number in numbers]
    return reduce(lambda state, values: _finalize(state + values), arrays, np.zeros(1, dtype=np.uint64))


def _finalize(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _SPLITMIX_1
    values = (values ^ (values >> np.uint64(27))) * _SPLITMIX_2
    return values ^ (values >> np.uint64(31))


_ROUND_KEYS = hash_of(np.arange(8))
_MIX_1, _MIX_2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)  # the multipliers of Wellons' 32-bit hash "lowbias32"
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)


def permute(positions: NDArray[np.int64], num_frames: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The frame at each position; for each number of frames and key, a bijection from positions to frames.

    Args:
        positions: ``(N,)``, ``0 <= position < num_frames``.
        num_frames: ``(N,)`` or ``(1,)``, from 1 to 2^52.
        key: ``(N,)`` or ``(1,)``, from ``hash_of``.
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
    """One pass of the network over numbers of as few bits as the frames need; the halves are mixed in turn."""
    # frexp is exact for numbers below 2^53. At least 4 bits: with 3, the halves are so small that some orders come
    # twice as often as others.
    bits = np.maximum(np.frexp(num_frames - 1)[1], 4).astype(np.uint64)
    low_bits = bits - bits // np.uint64(2)
    masks = [((_ONE << part) - _ONE).astype(np.uint32) for part in (low_bits, bits - low_bits)]
    # Halves have at most 26 bits: 32-bit multiplications go through the CPU's vector units, 64-bit ones do not.
    halves = [values.astype(np.uint32) & masks[0], (values >> low_bits).astype(np.uint32)]
    mixed = np.empty_like(halves[0])
    shifted = np.empty_like(mixed)
    for i, round_key in enumerate(_ROUND_KEYS):
        _mix(halves[i % 2], ((key ^ round_key) * _SPREAD >> np.uint64(32)).astype(np.uint32), mixed, shifted)
        mixed &= masks[1 - i % 2]
        halves[1 - i % 2] ^= mixed
    whole: NDArray[np.uint64] = (halves[1].astype(np.uint64) << low_bits) | halves[0]
    return whole


def _mix(values: NDArray[np.uint32], key: NDArray[np.uint32], out: NDArray[np.uint32], scratch: NDArray[Any]) -> None:
    """Hash numbers into ``out``; the lowest bits of the hashes are as random as the others."""
    np.add(values, key, out=out)
    for shift, factor in ((16, _MIX_1), (15, _MIX_2)):
        np.right_shift(out, np.uint32(shift), out=scratch)
        out ^= scratch
        out *= factor
    np.right_shift(out, np.uint32(16), out=scratch)
    out ^= scratch
