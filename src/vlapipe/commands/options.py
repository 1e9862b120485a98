"""What options of several commands share: a path of this machine, or a dataset's, a size, a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import click

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import Address, dataset_path, local_path
from vlapipe.schemas.sizes import parse_size

__all__ = ["BYTES", "DATASET", "FOLDER", "PATH", "SECONDS"]


class _LocalPath(click.ParamType[Path]):
    """A path of the local file system; the address of a store is refused."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        return local_path(value, _name(param))


class _Folder(_LocalPath):
    """A path of the local file system, or the address of a folder in a store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        return dataset_path(value, _name(param))


class _Dataset(_Folder):
    """A dataset to look at or to change: its folder, or the local copy of what lies in a store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if not isinstance(path, Address):
            return path
        from vlapipe.pipeline.shards.stores.copies import folder_of

        name, at, generation = path.name.rpartition("@")
        if not (at and generation.isdecimal()):
            return folder_of(path)
        folder = folder_of(path.with_name(name))
        return folder.with_name(f"{folder.name}@{generation}")


def _name(param: click.Parameter | None) -> str:
    if param is None:
        return ""
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name


class _Bytes(click.ParamType[int]):
    """A size such as 256MB (powers of 1000) or 256MiB (powers of 1024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except UsageError as error:
            self.fail(f"{error.problem}; {error.cure}", param, ctx)


class _Seconds(click.ParamType[float]):
    """A time such as 90s, 30min, 12h, 1d or 2w; 0 needs no unit."""

    name = "time"
    _UNITS: ClassVar = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800, "": 0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h|d|w|)", str(value).strip())
        if match is None or (not match[2] and float(match[1])):
            self.fail(f"{value!r} is no time; write for example 90s, 30min, 12h, 1d or 2w", param, ctx)
        return float(match[1]) * self._UNITS[match[2]]


BYTES = _Bytes()
SECONDS = _Seconds()
PATH = _LocalPath()
FOLDER = _Folder()
DATASET = _Dataset()
