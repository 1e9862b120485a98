"""Which of the numbers in images' names is their stamp or their number, and the pattern that finds just that one."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = ["before_number", "judged_number", "number_pattern", "numbers_of"]

_NUMBER = re.compile(r"\d+(\.\d+)?")
_EPOCH = (9.4e8, 4.2e9)  # seconds: the years 2000 to 2100
_SCALES = (1, 1e3, 1e6, 1e9)


def judged_number(names: list[str]) -> int | None:
    """Which number of each name tells the images apart, counted from the last one (0); ``None`` where none does.

    One that counts from 1970 goes before all others, then the one with most values, then the last.
    """
    count = min(len(_tokens(name)) for name in names)
    found = [(_counts_from_1970(texts := numbers_of(names, at)), len(set(texts)), -at) for at in range(count)]
    return -max(found)[2] if found else None


def numbers_of(names: list[str], at: int) -> list[str]:
    """That number of each name, as text."""
    return [_tokens(name)[-1 - at][0] for name in names]


def before_number(name: str, at: int) -> str:
    """What comes before that number of a name."""
    return name[: _tokens(name)[-1 - at].start()]


def number_pattern(names: list[str], at: int) -> str | None:
    """A regular expression whose group is that number of each name, tried on all of them.

    Empty where the number is the whole stem; ``None`` where no expression finds it.
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
    return any(all(_EPOCH[0] * scale <= value <= _EPOCH[1] * scale for value in values) for scale in _SCALES)
