"""Reads one camera's images of a batch: decodes JPEG near the training size, resizes and varies the images.

The result depends on the image, the size and the draw alone, not on threads or on the other samples of the batch.
Shape letters: B batch, T images of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.jpeg_decode import decode_rgb
from vlapipe.schemas.errors import ImageError
from vlapipe.schemas.schema import Channels
from vlapipe.train.data.arguments import Fit
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.images.augment import Augmentation, Draw
from vlapipe.train.data.images.augment_pixels import augment
from vlapipe.train.data.images.resize import Scratch, fit_into, resize
from vlapipe.train.data.rows.row_lookup import Images
from vlapipe.train.data.rows.row_reader import RowReader, Rows
from vlapipe.train.data.rows.shard_table import ShardTable

__all__ = ["CameraReader", "ImageReader"]


class CameraReader:
    """Fills a batch's array (B, T, height, width, 3) with images of open shards, stored as JPEG or as pixels."""

    def __init__(
        self,
        shards: ShardTable,
        reader: RowReader,
        camera: str,
        shape: tuple[int, int, int, int],
        augmentation: Augmentation | None,
        seed: int,
        channels: Sequence[Channels],
        fit: Fit = "stretch",
    ) -> None:
        """Prepare to read images of ``shape`` (T, 3, height, width), to which they are brought as ``fit`` says.

        ``seed`` is the augmentation's. ``channels`` has the order of the colours in the JPEG files of each shard.
        """
        self._shards, self._rows, self._camera = shards, reader, camera
        self._augmentation, self._seed = augmentation, seed
        self._reader = ImageReader(shape[2:], fit)
        self._channels = channels

    def read(self, frames: BatchPlan, images: Images, out: NDArray[np.uint8]) -> None:
        """Read every image of the batch into ``out``, C-contiguous.

        Raises:
            ImageError: an image cannot be decoded; the error's ``index`` is the sample's number in the batch.
        """
        per_sample = images.row.shape[1]
        row, shard = images.row.reshape(-1), np.repeat(frames.shard, per_sample)
        flat = out.reshape(-1, *out.shape[2:])
        draws = self._draws(frames, per_sample)
        if f"{self._camera}/pixels" in self._shards.at(int(shard[0])):
            self._reader.resize(self._pixels(shard, row), flat, draws)
            return
        try:
            channels = [self._channels[of] for of in shard.tolist()]
            self._reader.read(self._jpegs(shard, row), flat, draws, channels)
        except ImageError as error:
            raise ImageError(error.problem, error.cure, error.index // per_sample) from None

    def _draws(self, frames: BatchPlan, per_sample: int) -> NDArray[np.float64] | None:
        if self._augmentation is None:
            return None
        draws = self._augmentation.of(frames.position, seed=self._seed, camera=self._camera)
        return np.repeat(draws, per_sample, axis=0)

    def _jpegs(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The JPEG bytes of each image, as views of the memory map if the shard is mapped."""
        spans = np.empty((len(row), 2), dtype=np.int64)
        self._rows.read(Rows.from_first(f"{self._camera}/offset", 2, shard, row), spans)
        return [
            self._shards.rows(f"{self._camera}/bytes", of, start, stop)
            for of, (start, stop) in zip(shard.tolist(), spans.tolist(), strict=True)
        ]

    def _pixels(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The pixels of each image, as views of the memory map if the shard is mapped."""
        name = f"{self._camera}/pixels"
        return [self._shards.rows(name, of, i, i + 1)[0] for of, i in zip(shard.tolist(), row.tolist(), strict=True)]


class ImageReader:
    """Reads images of one camera at the training size; thread-safe, and decoding releases the interpreter's lock.

    Images are ``(N, height, width, 3)`` uint8 RGB. ``draws`` ``(N, 7)`` has one row for each image: the row of its
    sample from ``Augmentation.of``. ``None`` leaves the images unvaried.
    """

    def __init__(self, size: tuple[int, int], fit: Fit = "stretch") -> None:
        """Prepare for images of ``size`` (height, width), to which others are brought as ``fit`` says."""
        self.size, self._fit = size, fit
        self._scratch = Scratch()

    def read(
        self,
        jpegs: Sequence[Any],
        out: NDArray[np.uint8],
        draws: NDArray[np.float64] | None = None,
        channels: Sequence[Channels] | None = None,
    ) -> None:
        """Decode ``jpegs``, each a buffer with one JPEG file, into the rows of ``out``, which is C-contiguous.

        ``channels`` has the order of the colours in each file; by default every file is RGB.

        An image is decoded at the smallest of the scales 1/8, 1/4, 1/2 and 1 that is not below the training size on
        either side, else at full size, and then resized. If the decoded image has the training size, it is decoded
        directly into ``out``.

        Raises:
            ImageError: an image cannot be decoded whole; the error's ``index`` is the image's number in ``jpegs``.
        """
        for i, draw in enumerate(self._draws(len(jpegs), out, draws)):
            place = out[i]
            try:
                image = self._decode(jpegs[i], place, channels[i] if channels else "rgb")
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
        """Resize and vary images that are stored as pixels; ``out`` may be ``images`` itself."""
        for i, draw in enumerate(self._draws(len(images), out, draws)):
            self._put(images[i], out[i], draw)

    def _draws(self, count: int, out: NDArray[np.uint8], draws: NDArray[np.float64] | None) -> Sequence[Draw | None]:
        assert out.shape == (count, *self.size, 3), (out.shape, count, self.size)
        if draws is None:
            return [None] * count
        assert draws.shape == (count, len(Draw._fields)), draws.shape
        return [Draw(*row) for row in draws.tolist()]

    def _decode(self, jpeg: Any, place: NDArray[np.uint8], channels: Channels) -> NDArray[np.uint8]:
        """Decode at the scale nearest the training size: into ``place`` if the size fits, else into scratch memory."""

        def memory(height: int, width: int) -> NDArray[np.uint8]:
            fits = (height, width) == self.size
            return place if fits else self._scratch.array("decoded", (height, width, 3), np.uint8)

        return decode_rgb(jpeg, self.size, memory, channels)

    def _put(self, image: NDArray[np.uint8], place: NDArray[np.uint8], draw: Draw | None) -> None:
        if image is not place:
            image, place = fit_into(image, place, self._fit)
        if draw is not None:
            augment(image, place, draw, self._scratch)
        elif image is not place:
            resize(image, place)
