"""Fills in the templates of a schema: ``{parent}`` and so on, and ``{metadata.<key>}`` of an episode."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["fill_template", "metadata_keys"]

_METADATA = "metadata."


class _Filler(string.Formatter):
    """Looks a name up as a whole, so that a dot is a part of the name and never leads to an attribute."""

    def __init__(self, words: Mapping[str, str | None], value_of: Callable[[str], str]) -> None:
        self._words, self._value_of = words, value_of

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:  # noqa: ARG002
        if field_name.startswith(_METADATA):
            return self._value_of(field_name.removeprefix(_METADATA)), field_name
        return self._words[field_name], field_name


def fill_template(
    template: str, words: Mapping[str, str | None], value_of: Callable[[str], str] = lambda key: f"{{metadata.{key}}}"
) -> str:
    """Returns the template with ``words`` in it. ``value_of(key)`` gives the text of a metadata key.

    By default metadata keys stay as they are, to be filled in when the metadata is read.

    Raises:
        KeyError: the template has another name.
        ValueError: the template has a brace too many or too few.
    """
    return _Filler(words, value_of).vformat(template, (), {})


def metadata_keys(template: str) -> tuple[str, ...]:
    """Returns the metadata keys that a valid template names."""
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
    return tuple(name.removeprefix(_METADATA) for name in names if name.startswith(_METADATA))
