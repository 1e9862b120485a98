"""A case of a hostile dataset: how it is made, how the command is called, and what the command must say.

The cases register themselves; each file ``*_cases.py`` holds those of one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CASES", "MARKER", "Case", "Lab", "case"]

MARKER = b"7c0ffee-not-of-this-dataset"  # in every file beside the dataset

Make = Callable[["Lab"], None]


@dataclass
class Lab:
    """Where one case lies: the dataset, the folder beside it that nobody may read, and a file that code would make."""

    root: Path
    port: int  # on which nobody may knock

    @property
    def raw(self) -> Path:
        """Return the dataset's folder."""
        return self.root / "raw"

    @property
    def outside(self) -> Path:
        """Return the folder that nobody may read."""
        return self.root / "outside"

    @property
    def executed(self) -> Path:
        """Return the file that exists if a payload was executed."""
        return self.root / "executed"

    @property
    def code(self) -> str:
        """Return the payload as Python."""
        return f"open({str(self.executed)!r}, 'w')"

    def file(self, name: str, content: bytes | str = b"") -> Path:
        """Write a file of the dataset."""
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, lab: Lab) -> None:
        self._code = lab.code

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Return a call that makes the file."""
        return exec, (self._code,)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile dataset. ``says`` are texts that must stand together in one line of what the command says.

    With ``kept`` the command may keep the episode: what is hostile in it is passed over.
    """

    kind: str
    name: str
    make: Make
    schema: str
    says: tuple[str, ...] = ()
    kept: bool = False
    slow: bool = False
    limit_s: float = 20.0
    arguments: tuple[str, ...] = field(default=())


CASES: list[Case] = []


def case(
    kind: str,
    name: str,
    *says: str,
    schema: str | None = None,
    kept: bool = False,
    slow: bool = False,
    limit_s: float = 20.0,
    arguments: tuple[str, ...] = (),
) -> Callable[[Make], Make]:
    """Register a function that makes a dataset."""

    def register(make: Make) -> Make:
        CASES.append(
            Case(
                kind=kind,
                name=name,
                make=make,
                schema=schema or kind,
                says=says,
                kept=kept,
                slow=slow,
                limit_s=limit_s,
                arguments=arguments,
            )
        )
        return make

    return register
