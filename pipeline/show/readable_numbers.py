"""Writes numbers as people read them, for the terminal and for pages: counts, sizes, times."""

from __future__ import annotations

__all__ = ["counted", "duration", "format_bytes", "number"]


def counted(count: int, word: str) -> str:
    """Returns a number with its word: ``1 episode``, ``1,200 episodes``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def format_bytes(num_bytes: float) -> str:
    """Returns a size in powers of 1000, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def duration(seconds: float) -> str:
    """Returns ``3.2 s``, ``5.0 min`` or ``2.50 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number with so many digits that count, ``0.5871`` or ``1,234``; ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}g}"
