"""Headers of NPY files are read by many threads at once, which Python's own parser does not always bear."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vlapipe.pipeline.shards.format.npy_header import read_npy_header, steadily


def stored(array: np.ndarray, version: tuple[int, int] | None = None) -> io.BytesIO:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    file.seek(0)
    return file


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_header_is_that_of_the_array(version: tuple[int, int]) -> None:
    file = stored(np.asfortranarray(np.zeros((3, 2), np.float32)), version)
    assert read_npy_header(file) == ((3, 2), True, np.dtype(np.float32))
    assert len(file.read()) == 24


def test_parser_that_failed_for_another_thread_is_asked_again() -> None:
    answers = [SystemError("AST constructor recursion depth mismatch (before=84, after=81)")] * 3

    def read() -> str:
        if answers:
            raise answers.pop()
        return "whole"

    assert steadily(read) == "whole"


def test_another_error_of_the_interpreter_is_not_hidden() -> None:
    def read() -> None:
        raise SystemError("error return without exception set")

    with pytest.raises(SystemError, match="error return"):
        steadily(read)


def test_threads_read_headers_at_the_same_time() -> None:
    raw = stored(np.zeros((5, 4))).getvalue()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: read_npy_header(io.BytesIO(raw))[0], range(400)))
    assert found == {(5, 4)}
