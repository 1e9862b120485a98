"""Says how many rows of each stream a training sample holds; the schema gives the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from vlapipe.schemas.schema import SampleDefaults
from vlapipe.train.data.arguments import parse_whole_number

__all__ = ["Window"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Number of rows of each stream around a frame; ``None`` takes the schema's default.

    State, sensor and image windows end at the frame. The action chunk begins at the frame and takes every
    ``action_stride``-th anchor row.
    """

    state_rows: int | None = None
    sensor_rows: int | None = None
    image_rows: int | None = None
    action_rows: int | None = None
    action_stride: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, parse_whole_number(f"Window {field.name}", value, least=1))

    def resolve(self, defaults: SampleDefaults) -> Window:
        """Return this window with the defaults in place of every ``None``."""
        missing = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **missing)
