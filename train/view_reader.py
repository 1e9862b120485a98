"""Reads one camera's images of a batch, however they are stored, and varies them by their samples' positions.

Shape letters: B batch, T images of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.errors import ImageError
from vlapipe.train.augment import Augmentation
from vlapipe.train.frames import BatchPlan
from vlapipe.train.images import ImageReader
from vlapipe.train.locate import Images
from vlapipe.train.open_shards import OpenShards
from vlapipe.train.row_reader import RowReader, Rows

__all__ = ["CameraReader"]


class CameraReader:
    """Fills (B, T, height, width, 3) with images that lie in open shards, as JPEG or as pixels."""

    def __init__(
        self,
        shards: OpenShards,
        reader: RowReader,
        camera: str,
        shape: tuple[int, int, int, int],
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        """``shape`` is (T, 3, height, width) of what is read."""
        self._shards, self._rows, self._camera = shards, reader, camera
        self._augmentation, self._seed = augmentation, seed
        self._reader = ImageReader(shape[2:])

    def read(self, frames: BatchPlan, images: Images, out: NDArray[np.uint8]) -> None:
        """Read every image of the batch into ``out``, C-contiguous.

        Raises:
            ImageError: an image cannot be decoded; ``index`` is its sample's.
        """
        per_sample = images.row.shape[1]
        row, shard = images.row.reshape(-1), np.repeat(frames.shard, per_sample)
        flat = out.reshape(-1, *out.shape[2:])
        draws = self._draws(frames, per_sample)
        if f"{self._camera}/pixels" in self._shards.at(int(shard[0])):
            self._reader.resize(self._pixels(shard, row), flat, draws)
            return
        try:
            self._reader.read(self._jpegs(shard, row), flat, draws)
        except ImageError as error:
            raise ImageError(error.problem, error.cure, error.index // per_sample) from None

    def _draws(self, frames: BatchPlan, per_sample: int) -> NDArray[np.float64] | None:
        if self._augmentation is None:
            return None
        draws = self._augmentation.of(frames.position, seed=self._seed, camera=self._camera)
        return np.repeat(draws, per_sample, axis=0)

    def _jpegs(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The bytes of each image, on the map."""
        spans = np.empty((len(row), 2), dtype=np.int64)
        self._rows.read(Rows.from_first(f"{self._camera}/offset", 2, shard, row), spans)
        return [
            self._shards.rows(f"{self._camera}/bytes", of, start, stop)
            for of, (start, stop) in zip(shard.tolist(), spans.tolist(), strict=True)
        ]

    def _pixels(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Each image, on the map."""
        name = f"{self._camera}/pixels"
        return [self._shards.rows(name, of, i, i + 1)[0] for of, i in zip(shard.tolist(), row.tolist(), strict=True)]
