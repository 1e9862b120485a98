"""Converts rotations between quaternions, Euler angles, 6D and axis-angle; every number is float64.

A rotation is a unit quaternion xyzw here, ``(..., 4)``. ``q`` and ``-q`` are the same rotation. Angles are in radians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "compose",
    "inverse",
    "of_6d",
    "of_axis_angle",
    "of_euler",
    "of_quaternion",
    "shorter",
    "to_6d",
    "to_axis_angle",
    "to_euler",
]

_TINY = 1e-12  # shorter vectors have no direction


def of_quaternion(values: Tensor) -> Tensor:
    """Returns quaternions of length 1, with the sign that they have. A quaternion of zeros is no rotation."""
    length = values.norm(dim=-1, keepdim=True)
    return torch.where(length > _TINY, values / length.clamp_min(_TINY), _identity(values))


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Returns the product ``first * then``: ``then`` is a turn about the axes that ``first`` has turned."""
    u, a, v, b = first[..., :3], first[..., 3:], then[..., :3], then[..., 3:]
    scalar = a * b - (u * v).sum(-1, keepdim=True)
    return torch.cat([a * v + b * u + torch.cross(u.expand_as(v), v, dim=-1), scalar], dim=-1)


def inverse(rotation: Tensor) -> Tensor:
    """Returns the opposite rotations."""
    return torch.cat([-rotation[..., :3], rotation[..., 3:]], dim=-1)


def shorter(rotation: Tensor) -> Tensor:
    """Returns the same rotations as the quaternions whose last number is not negative: turns of at most 180 degrees."""
    return torch.where(rotation[..., 3:] < 0, -rotation, rotation)


def of_euler(angles: Tensor, convention: str) -> Tensor:
    """Returns the rotations of angles ``(..., 3)``. ``XYZ``: about the moving axes; ``xyz``: about the fixed axes."""
    turns = []
    for axis, half in zip(convention.upper(), (angles / 2).unbind(-1), strict=True):
        turn = half.new_zeros((*half.shape, 4))
        turn[..., "XYZ".index(axis)], turn[..., 3] = half.sin(), half.cos()
        turns.append(turn)
    first, second, third = turns if convention.isupper() else reversed(turns)
    return compose(compose(first, second), third)


def to_euler(rotation: Tensor, convention: str) -> Tensor:
    """Returns the angles ``(..., 3)``. The first and third lie within +-180 degrees.

    The second lies within +-90 degrees if the convention has three axes, else between 0 and 180. At the ends of that
    interval (gimbal lock) only the sum or the difference of the first and the third is determined.

    Bernardes and Viollet 2022, "Quaternion to Euler angles conversion: a direct, general and computationally efficient
    method".
    """
    i, j, k = ("xyz".index(axis) for axis in (convention if convention.islower() else convention.lower()[::-1]))
    is_proper = i == k  # the first axis comes again
    if is_proper:
        k = 3 - i - j
    sign = (i - j) * (j - k) * (k - i) / 2
    x, y, z, w = rotation[..., i], rotation[..., j], rotation[..., k] * sign, rotation[..., 3]
    a, b, c, d = (w, x, y, z) if is_proper else (w - y, x + z, y + w, z - x)
    second = 2 * torch.atan2(torch.hypot(c, d), torch.hypot(a, b))
    half_sum = torch.where(torch.hypot(a, b) < _TINY, 0.0, torch.atan2(b, a))
    half_difference = torch.where(torch.hypot(c, d) < _TINY, 0.0, torch.atan2(d, c))
    first, third = half_sum - half_difference, half_sum + half_difference
    if not is_proper:
        third, second = third * sign, second - math.pi / 2
    angles = (first, second, third) if convention.islower() else (third, second, first)
    return torch.stack([angle - 2 * math.pi * (angle / (2 * math.pi)).round() for angle in angles], dim=-1)


def to_6d(rotation: Tensor) -> Tensor:
    """Returns the first two columns of the rotation matrices, ``(..., 6)``: ``r00 r10 r20 r01 r11 r21``."""
    x, y, z, w = rotation.unbind(-1)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return torch.stack([*first, *second], dim=-1)


def of_6d(values: Tensor) -> Tensor:
    """Returns the rotations of six numbers, which a policy may predict: they are made orthonormal (Gram-Schmidt)."""
    first, second = values[..., :3], values[..., 3:]
    x_axis = _direction(first, (1.0, 0.0, 0.0))
    y_axis = second - (x_axis * second).sum(-1, keepdim=True) * x_axis
    # Without a second direction, take any that is at right angles to the first: the axis that it has least of.
    spare = torch.nn.functional.one_hot(x_axis.abs().argmin(-1), 3).to(values)
    spare = spare - (x_axis * spare).sum(-1, keepdim=True) * x_axis
    is_missing = y_axis.norm(dim=-1, keepdim=True) <= _TINY
    y_axis = _direction(torch.where(is_missing, spare, y_axis), (0.0, 1.0, 0.0))
    return _of_matrix(torch.stack([x_axis, y_axis, torch.cross(x_axis, y_axis, dim=-1)], dim=-1))


def to_axis_angle(rotation: Tensor) -> Tensor:
    """Returns axis times angle, ``(..., 3)``; the angle is at most 180 degrees."""
    rotation = shorter(rotation)
    sine = rotation[..., :3].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, rotation[..., 3:])
    return rotation[..., :3] * torch.where(sine > _TINY, angle / sine.clamp_min(_TINY), 2.0)


def of_axis_angle(values: Tensor) -> Tensor:
    """Returns the rotations about ``values`` ``(..., 3)`` by the angle of its length."""
    half = values.norm(dim=-1, keepdim=True) / 2
    factor = torch.where(half > _TINY, half.sin() / (2 * half).clamp_min(_TINY), 0.5)
    return torch.cat([values * factor, half.cos()], dim=-1)


def _of_matrix(matrix: Tensor) -> Tensor:
    """Returns the quaternions of rotation matrices ``(..., 3, 3)``, by the largest of their four numbers (Shepperd)."""
    m = matrix
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    squares = torch.cat([2 * m.diagonal(dim1=-2, dim2=-1) - trace.unsqueeze(-1), trace.unsqueeze(-1)], dim=-1) + 1
    sums = [[m[..., i, j] + m[..., j, i] for j in range(3)] for i in range(3)]
    x, y, z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    # Row r is the quaternion times four of its own r-th number.
    rows = [
        [squares[..., 0], sums[0][1], sums[0][2], x],
        [sums[0][1], squares[..., 1], sums[1][2], y],
        [sums[0][2], sums[1][2], squares[..., 2], z],
        [x, y, z, squares[..., 3]],
    ]
    table = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return shorter(of_quaternion(table.gather(-2, best).squeeze(-2)))


def _direction(values: Tensor, otherwise: tuple[float, float, float]) -> Tensor:
    length = values.norm(dim=-1, keepdim=True)
    return torch.where(length > _TINY, values / length.clamp_min(_TINY), values.new_tensor(otherwise))


def _identity(like: Tensor) -> Tensor:
    return like.new_tensor((0.0, 0.0, 0.0, 1.0)).expand_as(like)
