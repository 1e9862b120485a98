"""What options of several commands share: a local path as a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vlapipe.schemas.paths import local_path

__all__ = ["PATH"]


class _LocalPath(click.ParamType[Path]):
    """A path of the local file system; the address of a store is refused."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        what = "" if param is None else param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
        return local_path(value, what)


PATH = _LocalPath()
