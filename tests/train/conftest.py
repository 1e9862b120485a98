"""Fixtures of the trainer's tests."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Draw the same weights and noise in each run: not those that the earlier tests of the process have left over."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - other libraries draw from it
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and two test processes on two cores lose tenfold by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
