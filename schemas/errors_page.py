"""Writes docs/errors.md from ``CODES``, so that page and code agree: ``python -m vlapipe.schemas.errors_page``."""

from __future__ import annotations

import sys
from itertools import groupby

from vlapipe.schemas.findings import CODES, Code

__all__ = ["errors_page"]

_INTRO = """# Errors and their cures

Every finding that `vlapipe ingest` can report, by its code. This page is made from `schemas/findings.py`:
`make docs` writes it anew.

An **error** sets the episode aside, with all its faults, and the run goes on; **warnings** and **notes** are reported
and the episode is kept. A schema changes the severity of a code, or silences it with `"off"`:

```toml
[checks.severity]
"clock.gap" = "error"
"value.constant" = "off"
```

That cannot be done with an error marked *always*: there would be nothing to keep.
"""

_ABOUT = {
    "file": "Files",
    "metadata": "Metadata",
    "instruction": "Instructions",
    "csv": "CSV files",
    "npz": "NPZ and NPY files",
    "lerobot": "LeRobot datasets",
    "bag": "ROS bags and MCAP files",
    "stream": "Optional streams",
    "image": "Images",
    "video": "Videos",
    "clock": "Clocks",
    "value": "Values",
    "pose": "Rotations",
    "action": "Actions",
    "episode": "Episodes",
    "split": "Train and validation",
    "task": "Tasks",
}


def errors_page() -> str:
    """Returns the page as Markdown: one table per prefix of the codes, in the order of ``CODES``."""
    parts = [_INTRO]
    prefixes = list(dict.fromkeys(code.partition(".")[0] for code in CODES))
    by_prefix = sorted(CODES.items(), key=lambda item: prefixes.index(item[0].partition(".")[0]))
    for prefix, codes in groupby(by_prefix, key=lambda item: item[0].partition(".")[0]):
        parts.append(f"## {_ABOUT.get(prefix, prefix.capitalize())}\n")
        rows = [f"| `{name}` | {_severity(code)} | {code.meaning} | {code.cure} |" for name, code in codes]
        parts.append("\n".join(["| code | severity | what it means | cure |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _severity(code: Code) -> str:
    return f"{code.severity}, always" if code.fatal else code.severity


if __name__ == "__main__":
    sys.stdout.write(errors_page())
