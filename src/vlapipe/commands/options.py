"""What options of several commands share: a local path as a value, and how a text goes to the file of an option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["PATH", "write_text"]


class _LocalPath(click.ParamType[Path]):
    """A path of the local file system; the address of a store is refused."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        what = "" if param is None else param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
        return local_path(value, what)


PATH = _LocalPath()


def write_text(path: Path, text: str) -> None:
    """Write the file that an option names.

    Raises:
        UsageError: the file cannot be written there.
        StoppedError: the disk is full, for example.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise_if_stopped(error, path)
        raise UsageError(f"{path}: cannot be written: {error.strerror}", "check its folder") from None
