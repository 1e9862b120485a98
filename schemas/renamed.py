"""Names that have changed. An old name works for one release, with a warning that tells the new name."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["RenamedWarning", "bring_up_to_date", "warn_renamed"]

_CODES = {"image.missing_view": "image.missing_camera", "image.extra_view": "image.extra_camera"}
_OLD_HOLDER, _HOLDER = "{view}", "{camera}"


class RenamedWarning(FutureWarning):
    """A schema uses an old name, which the user should replace by the new one."""


def warn_renamed(what: str, old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warns that ``old`` is now called ``new``; ``what`` says where the old name was found."""
    message = f"{what}: {old} is now called {new}; the old name works until the next release"
    warnings.warn(message, RenamedWarning, stacklevel=stacklevel)


def bring_up_to_date(schema: dict[str, Any]) -> list[tuple[str, str]]:
    """Replaces old names in a schema's TOML values, in place. Returns each old name found, with its new name."""
    found: list[tuple[str, str]] = []
    streams = schema.get("streams")
    for stream in streams.values() if isinstance(streams, dict) else ():
        if isinstance(stream, dict) and stream.get("kind") == "images":
            if "views" in stream and "cameras" not in stream:
                stream["cameras"] = stream.pop("views")
                found.append(("views", "cameras"))
            for table, key in ((stream, "files"), (stream.get("time"), "file")):
                if isinstance(table, dict) and _OLD_HOLDER in str(table.get(key)):
                    table[key] = _replaced(table[key])
                    found.append((_OLD_HOLDER, _HOLDER))
    checks = schema.get("checks")
    severity = checks.get("severity") if isinstance(checks, dict) else None
    for old, new in _CODES.items():
        if isinstance(severity, dict) and old in severity and new not in severity:
            severity[new] = severity.pop(old)
            found.append((old, new))
    return list(dict.fromkeys(found))


def _replaced(value: Any) -> Any:
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    return value.replace(_OLD_HOLDER, _HOLDER) if isinstance(value, str) else value
