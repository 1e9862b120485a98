"""Sizes are read as people write them, or are refused."""

from __future__ import annotations

import pytest

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("0", 0), ("7B", 7), ("256MB", 256_000_000), ("1.5 GiB", 1_610_612_736), ("2k", 2000), (" 3tb ", 3 * 10**12)],
)
def test_size_is_read(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1 parsec", "1e9", "99999999TB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write for example 256MB"):
        parse_size(text)
