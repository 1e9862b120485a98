"""Imports packages that only some users need. Each belongs to an extra of ours."""

from __future__ import annotations

import importlib
from typing import Any

from vlapipe.schemas.errors import UsageError

__all__ = ["need"]


def need(package: str, extra: str, what: str) -> Any:
    """Imports and returns a package, which ``what`` needs.

    Raises:
        UsageError: the package is not installed; the cure names our extra.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.partition(".")[0]
        cure = f"pip install {name}; it belongs to the extra {extra!r}"
        raise UsageError(f"{what} needs {name}, which is not installed", cure) from None
