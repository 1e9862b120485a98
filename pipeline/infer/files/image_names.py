"""Finds which number in the images' names is their stamp or index, and a pattern that matches exactly that number."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vlapipe.pipeline.infer.text.cells import DATES_S

__all__ = ["before_number", "judged_number", "number_pattern", "numbers_of"]

_NUMBER = re.compile(r"\d+(\.\d+)?")
_SCALES = (1, 1e3, 1e6, 1e9)


def judged_number(names: list[str]) -> int | None:
    """Return which number of each name tells the images apart, counted from the last number (0).

    A number that counts from 1970 wins, then the number with most different values, then the last. Returns ``None`` if
    a name has no number.
    """
    count = min(len(_tokens(name)) for name in names)
    found = [(_counts_from_1970(texts := numbers_of(names, at)), len(set(texts)), -at) for at in range(count)]
    return -max(found)[2] if found else None


def numbers_of(names: list[str], at: int) -> list[str]:
    """Return, as text, number ``at`` of each name (counted from the last number)."""
    return [_tokens(name)[-1 - at][0] for name in names]


def before_number(name: str, at: int) -> str:
    """Return the part of a name before number ``at``."""
    return name[: _tokens(name)[-1 - at].start()]


def number_pattern(names: list[str], at: int) -> str | None:
    """Return a regular expression whose group is number ``at`` of each name. The expression is tried on all names.

    The result is empty if the number is the whole stem, and ``None`` if no expression finds the number.
    """
    if min(len(_tokens(name)) for name in names) <= at:
        return None
    wanted = [_tokens(name)[-1 - at] for name in names]
    if all(match[0] == PurePosixPath(name).stem for match, name in zip(wanted, names, strict=True)):
        return ""
    number = r"\d+(?:\.\d+)?" if any("." in text for text in numbers_of(names, at)) else r"\d+"
    before = {name[: match.start()] for name, match in zip(names, wanted, strict=True)}
    patterns = [f"^{re.escape(before.pop())}({number})"] if len(before) == 1 else []
    patterns += [rf"({number})(?:\D+\d+(?:\.\d+)?){{{at}}}\D*$" if at else rf"({number})\D*$"]
    for pattern in patterns:
        found = [re.search(pattern, name) for name in names]
        if all(match and match[1] == text[0] for match, text in zip(found, wanted, strict=True)):
            return pattern
    return None


def _tokens(name: str) -> list[re.Match[str]]:
    return list(_NUMBER.finditer(PurePosixPath(name).stem))


def _counts_from_1970(texts: list[str]) -> bool:
    values = [float(text) for text in texts]
    return any(all(DATES_S[0] * scale <= value <= DATES_S[1] * scale for value in values) for scale in _SCALES)
