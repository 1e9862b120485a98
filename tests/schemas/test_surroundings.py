"""Faults of the environment are told apart from faults of a file; the message names the limit and a cure."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from vlapipe.schemas.errors import DamageError, StoppedError
from vlapipe.schemas.surroundings import is_from_surroundings, raise_if_stopped, stopped_by

LIMITS = {
    "EMFILE": "as many files open as it may",
    "ENFILE": "fs.file-max",
    "ENOMEM": "out of memory",
    "EAGAIN": "no more threads or processes",
    "ENOSPC": "the disk is full",
    "EDQUOT": "quota",
    "ESTALE": "lost the file",
    "ETIMEDOUT": "did not answer in time",
    "EIO": "move it away",
    "EACCES": "no permission",
    "EPERM": "no permission",
}


@pytest.mark.parametrize("name", LIMITS)
def test_limit_is_named_with_a_cure_and_goes_through_pickle(name: str) -> None:
    number = getattr(errno, name)
    stopped = stopped_by(OSError(number, os.strerror(number)), "data/shard-1")
    assert LIMITS[name] in str(stopped)
    assert stopped.problem.startswith("data/shard-1: ")
    assert stopped.cure
    assert stopped.exit_code == 5
    assert str(pickle.loads(pickle.dumps(stopped))) == str(stopped)  # noqa: S301


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_memory_and_threads_are_surroundings_too(error: Exception) -> None:
    with pytest.raises(StoppedError):
        raise_if_stopped(error, "x")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOENT, ""), OSError("no number"),
     ValueError(""), KeyError(""), RuntimeError(""), DamageError("")],
)  # fmt: skip
def test_other_errors_are_left_to_their_readers(error: Exception) -> None:
    raise_if_stopped(error, "x")
    assert not is_from_surroundings(error)
