"""Gives the loader's samples to other trainers, as datasets that a ``torch.utils.data.DataLoader`` reads.

When a dataset is sent to a worker process, only its arguments are pickled. The worker opens the data again. Its
memory-mapped files share the page cache with the other processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, Literal, overload

import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.batch_stream import BatchStream
from vlapipe.train.data.instructions import DrawBy
from vlapipe.train.data.selection import Selection
from vlapipe.train.data.transformed_spec import transformed_spec
from vlapipe.train.data.transforms import Transform, Transforms
from vlapipe.train.data.window_size import Window

__all__ = ["BatchStream", "FrameDataset", "Samples", "torch_dataset"]

Sample = dict[str, Any]
Datasets = Dataset | Sequence[Dataset]


class Samples(Sequence[Sample]):
    """Samples that were read together. ``batch`` holds all of them, and each sample's tensors are views of it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    @cached_property
    def _samples(self) -> list[Sample]:
        keys = list(self.batch)
        return [dict(zip(keys, values, strict=True)) for values in zip(*self.batch.values(), strict=True)]

    def __getitem__(self, which: Any) -> Any:
        return self._samples[which]

    def __len__(self) -> int:
        return len(self.batch["index"])


class FrameDataset(torch.utils.data.Dataset[Sample]):
    """A map-style dataset: sample ``i`` is frame ``i`` in recorded order. The caller's sampler decides the order.

    A sample has the entries of a batch (see ``Loader``) without their first dimension; ``task`` is a string.

    >>> frames = vlapipe.torch_dataset(dataset)
    >>> torch.utils.data.DataLoader(frames, batch_size=64, shuffle=True, collate_fn=frames.collate)
    """

    def __init__(
        self,
        dataset: Datasets,
        *,
        window: Window | None = None,
        split: str | None = "train",
        image_size: tuple[int, int] | str | None = None,
        image_resize: str = "stretch",
        where: str | None = None,
        embodiments: str = "same",
        transforms: Sequence[str | Transform] = (),
    ) -> None:
        """Prepare to read; the arguments are those of ``Loader``.

        Of an instruction's paraphrases, each frame of the train split always has the same one.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        arguments: dict[str, Any] = {"window": window, "split": split, "image_size": image_size, "where": where}
        arguments["image_resize"] = image_resize
        arguments["embodiments"] = embodiments
        self._again = partial(FrameDataset, dataset, **arguments, transforms=transforms)
        selection = Selection.parse("torch_dataset", dataset, **arguments)
        self.spec, self._frames = selection.spec, selection.frames
        draw_by: DrawBy = "index" if split == "train" else None
        chain = Transforms.parse("torch_dataset transforms", transforms) if transforms else None
        self._maker = BatchMaker(
            selection.sources,
            selection.steps,
            self.spec,
            draw_by=draw_by,
            may_unpack=_is_worker,
            transforms=chain,
        )
        if chain is not None:
            self.spec = transformed_spec(chain, selection.sources, selection.steps, self.spec)

    def __len__(self) -> int:
        return self._frames.num_frames

    def __getitem__(self, frame: int) -> Sample:
        """Read one sample.

        Raises:
            IndexError: there is no such frame.
        """
        sample: Sample = self.__getitems__([frame])[0]
        return sample

    def __getitems__(self, frames: Sequence[int]) -> Samples:
        """Read several samples at once, as a ``DataLoader`` asks for them; one call copies an entry's rows for all.

        Raises:
            IndexError: there is no such frame.
        """
        index = np.asarray(frames, dtype=np.int64)
        index = np.where(index < 0, index + len(self), index)
        if ((index < 0) | (index >= len(self))).any():
            raise IndexError(f"frames are numbered from 0 to {len(self) - 1}")
        return Samples(self._maker.make(self._frames.plan(index, np.zeros_like(index)))[0])

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Return the samples as one batch; samples from ``__getitems__`` are not copied, other samples are."""
        if isinstance(samples, Samples):
            return samples.batch
        batch: Batch = default_collate(list(samples))
        return batch

    def __reduce__(self) -> Any:
        return self._again, ()


def _is_worker() -> bool:
    """Whether this process is a ``DataLoader``'s worker. Other processes may fork, and a fork loses threads."""
    return get_worker_info() is not None


@overload
def torch_dataset(dataset: Datasets, *, iterable: Literal[False] = False, **arguments: Any) -> FrameDataset: ...
@overload
def torch_dataset(dataset: Datasets, *, iterable: Literal[True], **arguments: Any) -> BatchStream: ...
def torch_dataset(dataset: Datasets, *, iterable: bool = False, **arguments: Any) -> FrameDataset | BatchStream:
    """Make a dataset for ``torch.utils.data.DataLoader``, and so for Lightning, Accelerate or LeRobot.

    Args:
        dataset: from ``open_dataset``; or several.
        iterable: whole batches in the loader's own order (``BatchStream``) instead of single frames (``FrameDataset``).
        arguments: passed on to ``BatchStream`` or ``FrameDataset``.

    Raises:
        UsageError: an argument cannot be used with this data.
    """
    return BatchStream(dataset, **arguments) if iterable else FrameDataset(dataset, **arguments)
