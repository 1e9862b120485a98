"""Turns the attributes of a group into metadata: plain values, and what a text of JSON says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["plain_attributes"]


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns numbers, texts, lists and tables as JSON has them; other values are left out.

    A text that is a JSON object or list becomes that, so that a template can name a key within it.
    """
    found = {str(name): _plain(value) for name, value in attributes.items()}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return None if any(item is None for item in items) else items[0] if len(items) == 1 else items
    if isinstance(value, str):
        return _of_json(value)
    return value if isinstance(value, bool | int | float | dict) else None


def _of_json(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
