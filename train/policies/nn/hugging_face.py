"""Loads models of Hugging Face, and tells what goes wrong in one line."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.named_object import one_line

__all__ = ["quiet_transformers", "reading"]

_INSTALL = "in the checkout of vlapipe: pip install '.[vla]' -c constraints.txt"


def quiet_transformers(what: str) -> Any:
    """Imports and returns transformers, which ``what`` needs, without its messages and progress bars.

    Raises:
        UsageError: transformers is missing.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise UsageError(f"{what} needs {error.name}, which is not installed", _INSTALL) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@contextlib.contextmanager
def reading(where: str, parts: str) -> Iterator[None]:
    """Reads a model in the block. ``where`` names the argument, ``parts`` what the model's folder must hold.

    Raises:
        UsageError: the model cannot be read, or needs a package that is missing.
    """
    try:
        yield
    except UsageError:  # says more
        raise
    except ImportError as error:
        raise UsageError(f"{where}: {one_line(error)}", _INSTALL) from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        cure = f"give a folder with {parts}, or a name that the hub has"
        raise UsageError(f"{where}: cannot be read: {one_line(error)}", cure) from None
