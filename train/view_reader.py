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
from vlapipe.train.windows_of_memory import gather

__all__ = ["CameraReader"]


class CameraReader:
    """Fills (B, T, height, width, 3) with images that lie in open shards, as JPEG or as pixels."""

    def __init__(
        self,
        shards: OpenShards,
        camera: str,
        shape: tuple[int, int, int, int],
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        """``shape`` is (T, 3, height, width) of what is read."""
        self._shards, self._camera = shards, camera
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
        if self._shards.has(f"{self._camera}/pixels"):
            self._read_pixels(shard, row, flat, draws)
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
        gather(self._shards.addresses(f"{self._camera}/offset", shard, row, row + 1), spans.view(np.uint8))
        return [
            self._shards.array(f"{self._camera}/bytes", of)[start:stop]
            for of, (start, stop) in zip(shard.tolist(), spans.tolist(), strict=True)
        ]

    def _read_pixels(
        self,
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        out: NDArray[np.uint8],
        draws: NDArray[np.float64] | None,
    ) -> None:
        name = f"{self._camera}/pixels"
        stored = [self._shards.array(name, of) for of in shard.tolist()]
        if any(array.shape[1:] != out.shape[1:] for array in stored):
            self._reader.resize([array[i] for array, i in zip(stored, row.tolist(), strict=True)], out, draws)
            return
        gather(self._shards.addresses(name, shard, row), out.reshape(len(out), -1))
        if draws is not None:
            self._reader.resize(out, out, draws)
