"""Imports what a user names as ``pkg.module:name``, also from the current folder. Errors are one line with a cure."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from vlapipe.schemas.errors import UsageError

__all__ = ["attribute", "import_named", "one_line", "place_of"]


def import_named(what: str, module_name: str) -> ModuleType:
    """Returns the module, as Python would import it from the current folder. ``what`` begins each message.

    Raises:
        UsageError: there is no such module, or importing it fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # error.name shows whether the named module is missing, or a module that the named module imports.
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            cure = "run from the folder that holds it, or put that folder on PYTHONPATH"
            raise UsageError(f"{what}: no module {module_name!r}", cure) from None
        raise UsageError(
            f"{what}: importing {module_name} fails: {one_line(error)}",
            f"install {error.name}, or correct the import",
        ) from None
    except Exception as error:
        cure = f"python -c 'import {module_name}' shows where"
        raise UsageError(f"{what}: importing {module_name} fails: {one_line(error)}", cure) from error


def attribute(module: ModuleType, dotted: str) -> Any:
    """Returns ``module.a.b`` for ``a.b``; None if there is none."""
    found: Any = module
    for part in dotted.split("."):
        found = getattr(found, part, None)
    return found


def one_line(error: Exception) -> str:
    """Returns the error's class and message as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def place_of(error: Exception) -> str:
    """Returns `` (file.py:12)``, where a user's code failed; empty if the call itself does not fit."""
    within = traceback.extract_tb(error.__traceback__)[1:]
    return f" ({Path(within[-1].filename).name}:{within[-1].lineno})" if within else ""
