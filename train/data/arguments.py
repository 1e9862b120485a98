"""Checks the arguments of the loader and the window. A wrong argument gives an error of one line."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean

__all__ = [
    "FITS",
    "Fit",
    "parse_choice",
    "parse_fit",
    "parse_image_size",
    "parse_number",
    "parse_whole_number",
    "refuse_unknown_split",
]

Fit = Literal["stretch", "crop", "pad"]  # how an image comes to another size
FITS: tuple[Fit, ...] = get_args(Fit)
_SIDES = ("height", "width")
_SIZE = re.compile("([0-9]{1,5})x([0-9]{1,5})")


def parse_whole_number(what: str, value: Any, *, least: int, most: int | None = None, multiple_of: int = 1) -> int:
    """Return ``value`` as an ``int``. NumPy's integers are whole numbers too; ``True`` and ``2.0`` are not.

    Raises:
        UsageError: ``value`` is not a whole number, or it is less than ``least`` or more than ``most``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most) or number % multiple_of:
        up_to = "" if most is None else f" to {most}"
        multiple = "" if multiple_of == 1 else f" that is a multiple of {multiple_of}"
        raise UsageError(f"{what}: expected a whole number from {least}{up_to}{multiple}, found {value!r}")
    return number


def parse_number(what: str, value: Any, *, least: float, most: float = math.inf) -> float:
    """Return ``value`` as a ``float``; whole numbers are numbers too, ``True`` is not.

    Raises:
        UsageError: ``value`` is not a finite number, or it is less than ``least`` or more than ``most``.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > sys.float_info.max or not least <= value <= most:
        up_to = "" if most == math.inf else f" to {most:g}"
        raise UsageError(f"{what}: expected a number from {least:g}{up_to}, found {value!r}")
    return float(value)


def parse_image_size(what: str, value: Any) -> tuple[int, int] | None:
    """Return ``value`` as (height, width); ``None`` stays ``None``. A text is ``WIDTHxHEIGHT``, as ingest takes it.

    Raises:
        UsageError: ``value`` is not two whole numbers from 1 on.
    """
    if value is None:
        return None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(match[2]), int(match[1])
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UsageError(f"{what}: expected (height, width), or 'WIDTHxHEIGHT', found {value!r}")
    height, width = (parse_whole_number(f"{what} {name}", v, least=1) for name, v in zip(_SIDES, value, strict=True))
    return height, width


def parse_choice(what: str, value: Any, known: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``known``.

    Raises:
        UsageError: it is not.
    """
    if value not in known:
        raise UsageError(f"{what}: {value!r} is unknown", did_you_mean(str(value), known))
    return str(value)


def parse_fit(what: str, value: Any, image_size: Any) -> Fit:
    """Return ``value`` as the way in which images are brought to ``image_size``.

    Raises:
        UsageError: ``value`` is unknown, or there is no size that images are brought to.
    """
    for fit in FITS:
        if fit == value:
            if image_size is None and fit != "stretch":
                problem = f"{what} {fit!r}: to which size?"
                raise UsageError(problem, "add image_size, or --image-resize-height and --image-resize-width")
            return fit
    raise UsageError(f"{what} {value!r}: unknown", did_you_mean(str(value), FITS))


def refuse_unknown_split(what: str, split: Any, dataset: Dataset) -> None:
    """Refuse a split that the dataset cannot have. ``None``, ``"train"`` and ``"val"`` pass even without an episode.

    Raises:
        UsageError: ``split`` is not ``None``, ``"train"``, ``"val"`` or a split of the dataset's episodes.
    """
    known = {"train", "val", *dataset.column("split").tolist()}
    if split is not None and split not in known:
        raise UsageError(f"{what}: unknown split {split!r}", did_you_mean(str(split), known))
