"""Puts images into a batch: decodes JPEG at the scale nearest the training size, resizes the rest of the way, varies.

What comes out depends on the image, the size and the draw alone, not on threads or on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.jpeg_decode import decode_rgb
from vlapipe.schemas.errors import ImageError
from vlapipe.train.augment import Draw
from vlapipe.train.augment_pixels import augment
from vlapipe.train.resize import resize
from vlapipe.train.scratch import Scratch

__all__ = ["ImageReader"]


class ImageReader:
    """Reads images of one view at the training size. Safe to call from several threads, which it lets run side by side.

    Images are ``(N, height, width, 3)`` uint8 RGB. ``draws`` ``(N, 7)`` has a row for each image, its sample's of what
    ``Augmentation.of`` gives; ``None`` leaves the images as they are.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Prepare for images of ``size`` (height, width)."""
        self.size = size
        self._scratch = Scratch()

    def read(self, jpegs: Sequence[Any], out: NDArray[np.uint8], draws: NDArray[np.float64] | None = None) -> None:
        """Decode ``jpegs``, each a buffer that holds one file, into their places in ``out``, which is C-contiguous.

        An image of the training size is decoded in place, the same as without a size. A larger one is decoded at the
        smallest of 1/8, 1/4, 1/2 and 1 that is not below the training size on either side.

        Raises:
            ImageError: an image cannot be decoded whole; ``index`` says which.
        """
        for i, draw in enumerate(self._draws(len(jpegs), out, draws)):
            place = out[i]
            try:
                image = self._decode(jpegs[i], place)
            except ValueError as error:
                problem = f"image {i} of {len(jpegs)} cannot be decoded: {error}"
                raise ImageError(problem, index=i) from None
            self._put(image, place, draw)

    def resize(
        self,
        images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        out: NDArray[np.uint8],
        draws: NDArray[np.float64] | None = None,
    ) -> None:
        """The same for images that are stored as pixels; ``out`` may be ``images`` itself."""
        for i, draw in enumerate(self._draws(len(images), out, draws)):
            self._put(images[i], out[i], draw)

    def _draws(self, count: int, out: NDArray[np.uint8], draws: NDArray[np.float64] | None) -> Sequence[Draw | None]:
        assert out.shape == (count, *self.size, 3), (out.shape, count, self.size)
        if draws is None:
            return [None] * count
        assert draws.shape == (count, len(Draw._fields)), draws.shape
        return [Draw(*row) for row in draws.tolist()]

    def _decode(self, jpeg: Any, place: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """At the scale nearest the training size; into ``place`` if that is its size."""

        def memory(height: int, width: int) -> NDArray[np.uint8]:
            fits = (height, width) == self.size
            return place if fits else self._scratch.array("decoded", (height, width, 3), np.uint8)

        return decode_rgb(jpeg, self.size, memory)

    def _put(self, image: NDArray[np.uint8], place: NDArray[np.uint8], draw: Draw | None) -> None:
        if draw is not None:
            augment(image, place, draw, self._scratch)
        elif image is not place:
            resize(image, place)
