"""Decodes JPEG bytes into a batch, at the scale nearest the training size, and resizes the rest of the way."""

from __future__ import annotations

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray

__all__ = ["decode_images"]


def decode_images(jpegs: list[NDArray[np.uint8]], size: tuple[int, int]) -> torch.Tensor:
    """Decode images to ``(N, 3, height, width)`` uint8 RGB.

    The decoder scales by a power of a half while the image stays at least as large as ``size``; an antialiased
    bilinear resize does the rest. Images already of that size pass through exactly.

    Raises:
        ValueError: an image cannot be decoded.
    """
    height, width = size
    decoded = [
        simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB", min_height=height, min_width=width, min_factor=1)
        for jpeg in jpegs
    ]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(decoded):
        by_shape.setdefault(image.shape, []).append(i)
    out = torch.empty((len(jpegs), 3, height, width), dtype=torch.uint8)
    for shape, indices in by_shape.items():
        images = torch.from_numpy(np.stack([decoded[i] for i in indices])).permute(0, 3, 1, 2)
        if shape[:2] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        out[indices] = images
    return out
