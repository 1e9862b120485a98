"""The error of every reader of bags: which finding it becomes, what was expected, and what was found."""

from __future__ import annotations

__all__ = ["BagError"]


class BagError(ValueError):
    """A bag, a topic or a message that cannot be read. ``code`` is the code of the finding."""

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(code, expected, found)

    @property
    def code(self) -> str:
        """Returns the finding's code."""
        return str(self.args[0])

    @property
    def expected(self) -> str:
        """Returns what was expected."""
        return str(self.args[1])

    @property
    def found(self) -> str:
        """Returns what was found, with the place within the file."""
        return str(self.args[2])

    def __str__(self) -> str:
        return f"expected {self.expected}, found {self.found}" if self.expected else self.found
