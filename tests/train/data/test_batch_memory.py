"""The memory of batches is recycled, but never while a tensor or view of it can be reached."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vlapipe.train.data.batch_memory import BatchBuffers, Entry

ENTRIES = {"state": Entry((3,), np.float32), "index": Entry((), np.int64)}


def place(tensors: dict[str, torch.Tensor]) -> int:
    return tensors["state"].data_ptr()


HOLDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the tensor": lambda tensor: tensor,
    "a slice": lambda tensor: tensor[1, 2:],
    "another shape": lambda tensor: tensor.permute(1, 0).unsqueeze(0),
    "another type": lambda tensor: tensor.view(torch.uint8),
    "detached": lambda tensor: tensor.detach(),
    "its storage": lambda tensor: tensor.untyped_storage(),
    "an array": lambda tensor: tensor.numpy(),
    "a slice of an array": lambda tensor: tensor.numpy()[2:].T,
    "an array of a slice": lambda tensor: tensor[2:].numpy(),
    "bytes": lambda tensor: memoryview(tensor.numpy()),
    "DLPack": lambda tensor: np.from_dlpack(tensor),
    "split": lambda tensor: tensor.split(2)[1],
    "part of a graph": lambda tensor: torch.ones(3, requires_grad=True) * tensor,
    "a cycle": lambda tensor: cycle_with(tensor),
    "a frame": lambda tensor: frame_with(tensor),
}
COPIES: dict[str, Callable[[torch.Tensor], Any]] = {
    "deep copy": copy.deepcopy,
    "pickle": lambda tensor: pickle.loads(pickle.dumps(tensor)),  # noqa: S301 - our own
    "clone": lambda tensor: tensor.clone(),
    "shared with other processes": lambda tensor: tensor.clone().share_memory_(),
    "cast": lambda tensor: tensor.double(),
}


def cycle_with(tensor: torch.Tensor) -> list[Any]:
    found: list[Any] = [tensor]
    found.append(found)
    return found


def frame_with(tensor: torch.Tensor) -> Any:
    generator = (part for part in tensor)
    next(generator)
    return generator


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_memory_is_used_again_when_nothing_reaches_it_any_more_and_not_before(
    hold: Callable[[torch.Tensor], Any],
) -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    _, tensors = buffers.lend(4)
    at = place(tensors)
    held = hold(tensors["state"])
    del tensors, _
    others = [buffers.lend(4)[1] for _ in range(5)]
    assert at not in map(place, others)
    del held
    gc.collect()
    assert place(buffers.lend(4)[1]) == at


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_are_memory_of_their_own(copied: Callable[[torch.Tensor], Any]) -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    _, tensors = buffers.lend(4)
    tensors["state"].fill_(7)
    at, held = place(tensors), copied(tensors["state"])
    del tensors, _
    again = buffers.lend(4)[1]
    assert place(again) == at
    again["state"].fill_(8)
    assert held.eq(7).all()


def test_tensor_that_moves_to_shared_memory_leaves_its_own_to_others() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    _, tensors = buffers.lend(4)
    at, state, index = place(tensors), tensors["state"].fill_(7), tensors["index"]
    del tensors, _
    state.share_memory_()  # as a queue to another process does
    assert place(buffers.lend(4)[1]) != at
    del index
    again = buffers.lend(4)[1]
    assert place(again) == at
    again["state"].fill_(8)
    assert state.eq(7).all()


def test_one_entry_of_a_batch_holds_the_memory_of_all() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    _, tensors = buffers.lend(4)
    at, index = place(tensors), tensors["index"]
    del tensors, _
    assert place(buffers.lend(4)[1]) != at
    del index
    assert place(buffers.lend(4)[1]) == at


def test_python_that_counts_references_differently_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    count = sys.getrefcount
    for fewer in (2, 3, 1, -1):  # Python 3.14 counts none for what a frame lends to a call
        monkeypatch.setattr(sys, "getrefcount", lambda thing, fewer=fewer: count(thing) - fewer)
        buffers = BatchBuffers(ENTRIES, 4, 2)
        held = [buffers.lend(4)[1] for _ in range(2)]
        at = {place(tensors) for tensors in held}
        assert len(at) == 2, "a batch that is held was handed out again"
        del held
        assert place(buffers.lend(4)[1]) in at


def test_no_more_memory_is_kept_than_was_asked_for() -> None:
    buffers = BatchBuffers({"state": Entry((1_000_000,), np.float32)}, 2, 3)
    held = [buffers.lend(2) for _ in range(8)]
    at = [place(tensors) for _, tensors in held]
    del held
    tracemalloc.start()
    try:
        again = [buffers.lend(2) for _ in range(5)]
        num_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({place(tensors) for _, tensors in again} & set(at)) >= 3
    assert 2 * 8_000_000 < num_bytes < 3 * 8_000_000  # three were kept


def test_short_batch_has_memory_of_its_own() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    at = place(buffers.lend(4)[1])
    arrays, tensors = buffers.lend(3)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {"state": (3, 3), "index": (3,)}
    assert arrays["state"].shape == (3, 3)
    assert place(tensors) != at
    assert place(buffers.lend(4)[1]) == at


def test_entries_do_not_overlap_and_arrays_and_tensors_are_the_same_memory() -> None:
    entries = {
        "is_pad": Entry((5,), np.bool_),
        "state": Entry((5, 3), np.float32),
        "image": Entry((2, 3, 3), np.uint8),
        "index": Entry((), np.int64),
    }
    arrays, tensors = BatchBuffers(entries, 7, 1).lend(7)
    for number, array in enumerate(arrays.values()):
        array[...] = number % 2 if array.dtype == np.bool_ else number
    for number, (key, tensor) in enumerate(tensors.items()):
        assert tensor.shape == (7, *entries[key].shape)
        assert (tensor == number).all(), key
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % 16 == 0


def test_batches_keep_their_numbers_while_threads_take_and_drop_them() -> None:
    buffers = BatchBuffers(ENTRIES, 64, 4)
    wrong: list[int] = []

    def run(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[tuple[int, Any]] = []
        for step in range(400):
            arrays, tensors = buffers.lend(64)
            number = seed * 1000 + step
            arrays["state"][:], arrays["index"][:] = number, number
            part = [tensors["index"], tensors["index"][3:], tensors["index"].numpy()][step % 3]
            del arrays, tensors
            held.append((number, part))
            if len(held) > rng.integers(0, 6):
                number, part = held.pop(rng.integers(len(held)))
                if not (part == number).all():
                    wrong.append(number)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_memory_outlives_the_buffers() -> None:
    buffers = BatchBuffers(ENTRIES, 4, 2)
    arrays, tensors = buffers.lend(4)
    arrays["state"][:] = 5
    del buffers, arrays
    gc.collect()
    assert tensors["state"].eq(5).all()
