"""Normalizes by the statistics of the train split. Offset and scale are buffers, so a checkpoint contains them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number
from vlapipe.train.data.batch_layout import Moments, SampleSpec
from vlapipe.train.data.moments import FLICKER, Numbers, spread

__all__ = ["KINDS", "Kind", "Normalizer", "flickering", "with_normalization"]

Mask = NDArray[np.bool_]
Kind = Literal["mean_std", "quantiles", "min_max", "none"]
KINDS: tuple[Kind, ...] = ("mean_std", "quantiles", "min_max", "none")
_RELATIVE_FLOOR = 1e-6  # a float32 column with a smaller std, relative to its mean, varies only by rounding
_ABSOLUTE_FLOOR = 1e-10
_SPIKE_LIMIT = 10.0  # of a column whose statistics leave spikes out


class Normalizer(nn.Module):
    """Subtracts an offset from each column and divides by a scale.

    ``mean_std``: the mean becomes 0, the standard deviation 1. ``quantiles``: 98 % of the values, from ``q01`` to
    ``q99``, lie within -1 and 1. ``min_max``: all of them do. ``none``: values stay as they are. A few spikes change
    no scale (see ``moments.spread``), and a column with spikes is clipped.

    A constant column is only centred, and ``invert`` returns its constant. A column that only flickers counts as
    constant. Statistics of shape ``(1,)`` broadcast to any width. Without statistics, finite values stay unchanged. A
    value that is not finite becomes 0, so that it cannot spread to the weights.
    """

    mean: Tensor  # the offset
    std: Tensor  # the scale; 0 for a column that is constant
    varies: Tensor  # bool: True for a column that is not constant
    limits: Tensor | None  # of normalized values; not saved, because it follows from the spec

    of_robots = False  # whether the buffers have a first dimension, the robot

    def __init__(self, moments: Moments | None, kind: str = "mean_std", *, limit: float | None = None) -> None:
        """Compute offset and scale. ``limit`` clips normalized values to +-limit, so a sensor's spike cannot dominate.

        Raises:
            UsageError: the kind is unknown, or needs statistics that are unknown.
        """
        super().__init__()
        if kind not in KINDS:
            raise UsageError(f"normalize: {kind!r} is unknown", did_you_mean(kind, KINDS))
        is_spiked = np.zeros(1, dtype=np.bool_)
        if moments is None or kind == "none":
            mean, std, varies = torch.zeros(1), torch.ones(1), torch.ones(1, dtype=torch.bool)
            limit = None if kind == "none" else limit
        else:
            centre, deviation, is_spiked = spread(moments)
            varies = _varies(moments, centre, deviation)
            if kind != "mean_std":
                centre, deviation = _middle_and_half(moments, kind, centre, is_spiked)
            mean, std = (torch.as_tensor(values, dtype=torch.float32).clone() for values in (centre, deviation))
        self.limit = limit
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(varies, std, torch.zeros_like(std)))
        self.register_buffer("varies", varies)
        self.register_buffer("limits", _limits(limit, is_spiked), persistent=False)

    @classmethod
    def of(cls, spec: SampleSpec, key: str, *, limit: float | None = None) -> Normalizer:
        """Returns the normalizer of a batch key, of the kind that the user chose in ``[normalize]``."""
        kind = spec.normalize.get(key, "mean_std")
        robots = [robot.moments for robot in spec.embodiments.values() if key in robot.moments]
        try:
            if not robots:
                return cls(spec.moments.get(key), kind, limit=limit)
            return cls._of_robots(
                [cls(moments[key], kind, limit=limit) for moments in robots], len(robots[0][key].mean)
            )
        except UsageError as error:
            raise UsageError(f"{key}: {error.problem}", error.cure) from None

    @classmethod
    def _of_robots(cls, robots: Sequence[Normalizer], size: int) -> Normalizer:
        """Returns one normalizer for several robots: its buffers have a first dimension, the robot."""
        whole = cls(None)

        def stacked(name: str, missing: float = 0.0) -> Tensor:
            found = [getattr(robot, name) for robot in robots]
            filled = [torch.full((size,), missing) if values is None else values.expand(size) for values in found]
            return torch.stack(filled)

        for name in ("mean", "std", "varies"):
            setattr(whole, name, stacked(name))
        whole.limits = None if all(robot.limits is None for robot in robots) else stacked("limits", math.inf)
        whole.limit, whole.of_robots = robots[0].limit, True
        return whole

    def _at(self, buffer: Tensor, robot: Tensor | None) -> Tensor:
        """The numbers of each column, of each sample's robot if there are several: ``(B, 1, columns)``."""
        return buffer[robot].unsqueeze(1) if self.of_robots and robot is not None else buffer

    def varying(self, robot: Tensor | None = None) -> Tensor:
        """Returns which columns vary, to broadcast to the values."""
        return self._at(self.varies, robot)

    def forward(self, values: Tensor, robot: Tensor | None = None) -> Tensor:
        """Returns normalized values. All of them are finite.

        ``robot`` is the batch's ``embodiment`` ``(B,)``, if the spec has several; ``values`` are then ``(B, T, D)``.
        """
        mean, std, varies = (self._at(each, robot) for each in (self.mean, self.std, self.varies))
        scaled = (values - mean) / torch.where(varies, std, torch.ones_like(std))
        scaled = scaled.where(values.isfinite(), torch.zeros((), dtype=scaled.dtype, device=scaled.device))
        if self.limits is None:
            return scaled
        limits = self._at(self.limits, robot)
        return scaled.clamp(-limits, limits)

    def invert(self, scaled: Tensor, robot: Tensor | None = None) -> Tensor:
        """Returns values in the dataset's units. A constant column gets exactly its mean."""
        return scaled * self._at(self.std, robot) + self._at(self.mean, robot)


def with_normalization(spec: SampleSpec, table: Mapping[str, Any], floor: float = FLICKER) -> SampleSpec:
    """Returns the spec with the kinds of normalization that ``table`` gives by batch key, and another floor.

    ``floor`` is the share of the largest spread among columns of one unit up to which a column counts as constant.

    Raises:
        UsageError: a key or a kind is unknown.
    """
    chosen = _flat(table)
    for key, kind in chosen.items():
        if key not in spec.moments:
            cure = did_you_mean(key, spec.moments)
            if key.startswith("observation.images."):
                cure = "images are not normalized by statistics: a policy gets their pixels, from 0 to 255"
            raise UsageError(f"normalize: no key {key!r}", cure)
        if kind not in KINDS:
            raise UsageError(f"normalize: {key}: {kind!r} is unknown", did_you_mean(str(kind), KINDS))
    share = parse_number("normalize_floor", floor, least=0, most=1) / FLICKER

    def with_share(moments: Mapping[str, Moments]) -> dict[str, Moments]:
        return {
            key: m if m.floor is None or share == 1 else replace(m, floor=(m.floor * share).astype(np.float32))
            for key, m in moments.items()
        }

    robots = {name: replace(robot, moments=with_share(robot.moments)) for name, robot in spec.embodiments.items()}
    return replace(spec, normalize=chosen, moments=with_share(spec.moments), embodiments=robots)


def flickering(spec: SampleSpec) -> list[str]:
    """Returns a sentence for each batch key that has columns which count as constant, though their values differ."""
    found = []
    of_robots = [
        (f"{key} of {name}", m) for name, robot in spec.embodiments.items() for key, m in robot.moments.items()
    ]
    padded = {"observation.state", "action"} if of_robots else set()
    of_all = [(key, moments) for key, moments in spec.moments.items() if key not in padded]
    for key, moments in of_all + of_robots:
        centre, deviation, _ = spread(moments)
        is_held = ~_varies(moments, centre, deviation).numpy() & (moments.std > _rounding(centre))
        if is_held.any() and spec.normalize.get(key.partition(" of ")[0]) != "none":
            columns = ", ".join(str(i) for i in np.flatnonzero(is_held.reshape(-1)).tolist())
            found.append(f"{key}: columns counted as constant, since they only flicker: {columns} (normalize_floor)")
    return found


def _rounding(centre: Numbers) -> Any:
    return np.maximum(np.abs(centre) * _RELATIVE_FLOOR, _ABSOLUTE_FLOOR)


def _varies(moments: Moments, centre: Numbers, deviation: Numbers) -> Tensor:
    floor = _rounding(centre) if moments.floor is None else np.maximum(_rounding(centre), moments.floor)
    return torch.as_tensor(deviation > floor)


def _middle_and_half(moments: Moments, kind: str, centre: Numbers, is_spiked: Mask) -> tuple[Numbers, Numbers]:
    """Returns the middle and half the width of the values, without one in a hundred at each end for ``quantiles``.

    A column whose quantiles are the same has its width from its limits, because it has a rarer event. A column with
    spikes has its width from its quantiles.
    """
    if moments.min is None or moments.max is None or moments.q01 is None or moments.q99 is None:
        cure = "say mean_std, or ingest again" if kind == "quantiles" else "say mean_std"
        raise UsageError(f"normalize: {kind} needs limits and quantiles, and the statistics have none", cure)
    by_quantiles = is_spiked
    if kind == "quantiles":
        by_quantiles = is_spiked | (moments.q99 - moments.q01 > _rounding(centre))
    low = np.where(by_quantiles, moments.q01, moments.min)
    high = np.where(by_quantiles, moments.q99, moments.max)
    middle, half = (low / 2 + high / 2).astype(np.float32), (high / 2 - low / 2).astype(np.float32)
    return np.where(half > 0, middle, centre), half


def _limits(limit: float | None, is_spiked: Mask) -> Tensor | None:
    if limit is None and not is_spiked.any():
        return None
    most = math.inf if limit is None else limit
    return torch.as_tensor(np.where(is_spiked, min(most, _SPIKE_LIMIT), most), dtype=torch.float32)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the table by whole batch keys. TOML makes tables of a key that is written without quotes."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
