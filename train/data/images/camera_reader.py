"""Reads one camera's images of a batch: decodes them near the training size, resizes and varies the images.

The result depends on the image, the size and the draw alone, not on threads or on the other samples of the batch.
Shape letters: B batch, T images of a window, C channels: 3 colours, or 1 of depth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb, is_png
from vlapipe.pipeline.shards.format.png_decode import png_size
from vlapipe.schemas.errors import DamageError, ImageError
from vlapipe.schemas.schema import Channels
from vlapipe.train.data.arguments import Fit
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.images.augment import Augmentation, Draw
from vlapipe.train.data.images.augment_pixels import augment, augment_depth
from vlapipe.train.data.images.resize import Scratch, fit_into, resize, resize_depth
from vlapipe.train.data.rows.row_lookup import Images
from vlapipe.train.data.rows.row_reader import RowReader, Rows
from vlapipe.train.data.rows.shard_table import ShardTable

__all__ = ["CameraReader", "ImageReader"]

_CURE = "delete the image or leave it out with on_bad = 'drop' in the schema, and ingest again"
# (episode, camera, row in the shard) -> where the image was recorded
ImagePlace = Callable[[int, str, int], str]


class CameraReader:
    """Fills a batch's array (B, T, height, width, C) with images of open shards, stored as files or as pixels."""

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
        *,
        is_depth: bool = False,
        place_of: ImagePlace = lambda episode, camera, row: f"episode {episode}: {camera}: image {row}",
    ) -> None:
        """Prepare to read images of ``shape`` (T, C, height, width), to which they are brought as ``fit`` says.

        ``seed`` is the augmentation's. ``channels`` has the order of the colours in the files of each shard.
        ``place_of`` names an image in messages.
        """
        self._shards, self._rows, self._camera = shards, reader, camera
        self._augmentation, self._seed = augmentation, seed
        self._reader = ImageReader(shape[2:], fit, is_depth=is_depth)
        self._channels = channels
        self._place_of = place_of
        self._has_told = False

    def read(self, frames: BatchPlan, images: Images, out: NDArray[Any]) -> None:
        """Read every image of the batch into ``out``, C-contiguous.

        An image that a viewer shows although its file has a fault is decoded; a warning names the first one.

        Raises:
            DamageError: an image cannot be decoded; the message names it.
        """
        per_sample = images.row.shape[1]
        row = images.row.reshape(-1)
        episode, shard = (np.repeat(each, per_sample) for each in (frames.episode, frames.shard))
        flat = out.reshape(-1, *out.shape[2:])
        draws = self._draws(frames, per_sample)
        is_raw = np.repeat(
            [f"{self._camera}/pixels" in self._shards.at(of) for of in frames.shard.tolist()], per_sample
        )
        if is_raw.all():
            self._reader.resize(self._pixels(shard, row), flat, draws)
        elif not is_raw.any():
            self._read_files(episode, shard, row, flat, draws)
        else:  # some datasets or shards have files, and others pixels
            for which in (np.flatnonzero(is_raw), np.flatnonzero(~is_raw)):
                part = np.empty((len(which), *flat.shape[1:]), dtype=flat.dtype)
                some = None if draws is None else draws[which]
                if is_raw[which[0]]:
                    self._reader.resize(self._pixels(shard[which], row[which]), part, some)
                else:
                    self._read_files(episode[which], shard[which], row[which], part, some)
                flat[which] = part

    def _read_files(
        self,
        episode: NDArray[np.int64],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        out: NDArray[Any],
        draws: NDArray[np.float64] | None,
    ) -> None:
        def place(i: int) -> str:
            return self._place_of(int(episode[i]), self._camera, int(row[i]))

        def tell(i: int, complaint: str) -> None:
            if self._has_told:
                return
            self._has_told = True
            cure = 'the others are not told; to have damage named, say decode = "all" in the schema and ingest again'
            warnings.warn(f"{place(i)}: {complaint}: taken as viewers show it ({cure})", stacklevel=2)

        try:
            channels = [self._channels[of] for of in shard.tolist()]
            self._reader.read(self._files(shard, row), out, draws, channels, tell)
        except ImageError as error:
            raise DamageError(f"{place(error.index)} cannot be decoded: {error.problem}", _CURE) from None

    def _draws(self, frames: BatchPlan, per_sample: int) -> NDArray[np.float64] | None:
        if self._augmentation is None:
            return None
        draws = self._augmentation.of(frames.position, seed=self._seed, camera=self._camera)
        return np.repeat(draws, per_sample, axis=0)

    def _files(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The bytes of each image's file, as views of the memory map if the shard is mapped."""
        spans = np.empty((len(row), 2), dtype=np.int64)
        self._rows.read(Rows.from_first(f"{self._camera}/offset", 2, shard, row), spans)
        return [
            self._shards.rows(f"{self._camera}/bytes", of, start, stop)
            for of, (start, stop) in zip(shard.tolist(), spans.tolist(), strict=True)
        ]

    def _pixels(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> list[NDArray[Any]]:
        """The pixels of each image, as views of the memory map if the shard is mapped."""
        name = f"{self._camera}/pixels"
        return [self._shards.rows(name, of, i, i + 1)[0] for of, i in zip(shard.tolist(), row.tolist(), strict=True)]


def _ignore(_complaint: str) -> None:
    pass


class ImageReader:
    """Reads images of one camera at the training size; thread-safe, and decoding releases the interpreter's lock.

    Images are ``(N, height, width, 3)`` uint8 RGB, or ``(N, height, width, 1)`` uint16 depth. ``draws`` ``(N, 7)`` has
    one row for each image: the row of its sample from ``Augmentation.of``. ``None`` leaves the images unvaried. Depth
    is resized and turned by taking the nearest pixel, and its numbers are never varied.
    """

    def __init__(self, size: tuple[int, int], fit: Fit = "stretch", *, is_depth: bool = False) -> None:
        """Prepare for images of ``size`` (height, width), to which others are brought as ``fit`` says."""
        self.size, self._fit, self._is_depth = size, fit, is_depth
        self._num_channels = 1 if is_depth else 3
        self._scratch = Scratch()

    def read(
        self,
        files: Sequence[Any],
        out: NDArray[Any],
        draws: NDArray[np.float64] | None = None,
        channels: Sequence[Channels] | None = None,
        tell: Callable[[int, str], None] | None = None,
    ) -> None:
        """Decode ``files``, each a buffer with one JPEG or PNG, into the rows of ``out``, which is C-contiguous.

        ``channels`` has the order of the colours in each file; by default every file is RGB. ``tell`` is called with
        the number of a file that is decoded although the decoder complains of it, and with the complaint.

        A JPEG is decoded at the smallest of the scales 1/8, 1/4, 1/2 and 1 that is not below the training size on
        either side, else at full size, and then resized. If the decoded image has the training size, it is decoded
        directly into ``out``.

        Raises:
            ImageError: an image cannot be decoded; the error's ``index`` is the image's number in ``files``.
        """
        for i, draw in enumerate(self._draws(len(files), out, draws)):
            place = out[i]

            try:
                pass_over = partial(tell, i) if tell is not None else _ignore
                image = self._decode(files[i], place, channels[i] if channels else "rgb", pass_over)
            except ValueError as error:
                raise ImageError(str(error), index=i) from None
            self._put(image, place, draw)

    def resize(
        self,
        images: Sequence[NDArray[Any]] | NDArray[Any],
        out: NDArray[Any],
        draws: NDArray[np.float64] | None = None,
    ) -> None:
        """Resize and vary images that are stored as pixels; ``out`` may be ``images`` itself."""
        for i, draw in enumerate(self._draws(len(images), out, draws)):
            self._put(images[i], out[i], draw)

    def _draws(self, count: int, out: NDArray[Any], draws: NDArray[np.float64] | None) -> Sequence[Draw | None]:
        assert out.shape == (count, *self.size, self._num_channels), (out.shape, count, self.size)
        if draws is None:
            return [None] * count
        assert draws.shape == (count, len(Draw._fields)), draws.shape
        return [Draw(*row) for row in draws.tolist()]

    def _decode(
        self, file: Any, place: NDArray[Any], channels: Channels, pass_over: Callable[[str], None]
    ) -> NDArray[Any]:
        """Decode at the scale nearest the training size: into ``place`` if the size fits, else into scratch memory."""
        if self._is_depth:
            height, width = png_size(file) if is_png(file) else self.size
            image = (
                place if (height, width) == self.size else self._scratch.array("deep", (height, width, 1), np.uint16)
            )
            decode_depth(file, lambda *_: image[..., 0])
            return image

        def memory(height: int, width: int) -> NDArray[np.uint8]:
            fits = (height, width) == self.size
            return place if fits else self._scratch.array("decoded", (height, width, 3), np.uint8)

        return decode_rgb(file, self.size, memory, channels, pass_over)

    def _put(self, image: NDArray[Any], place: NDArray[Any], draw: Draw | None) -> None:
        if image is not place:
            image, place = fit_into(image, place, self._fit)
        if draw is not None and self._is_depth:
            augment_depth(image, place, draw)
        elif draw is not None:
            augment(image, place, draw, self._scratch)
        elif image is not place:
            (resize_depth if self._is_depth else resize)(image, place)
