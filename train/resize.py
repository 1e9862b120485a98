"""Resizes single images with an antialiased bilinear filter.

torch's kernel for uint8 with channels last is six to ten times as fast as Pillow's filter of the same shape
and rounds within 1 of the same in float32. A single contiguous image stays on the calling thread.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray

__all__ = ["resize"]


def resize(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (H, W, 3) with ``image`` (h, w, 3); one of the same size passes through exactly."""
    if image.shape == out.shape:
        np.copyto(out, image)
        return
    # A part of an image is made contiguous here, because torch would do it with a team of threads; it also wants to be
    # able to write, which a map of a shard is not. The batch dimension is torch's and stands before the permutation:
    # any other way the image does not count as channels-last, and takes four times as long.
    writable = np.require(image, requirements=["C", "W"])
    tensor = torch.from_numpy(writable)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(tensor, size=out.shape[:2], mode="bilinear", antialias=True)
    np.copyto(out, resized[0].permute(1, 2, 0).numpy())
