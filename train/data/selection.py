"""Selects the data to read: the datasets' frames of one split, with the window and image sizes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.train.data.arguments import parse_image_size, refuse_unknown_split
from vlapipe.train.data.batch_layout import SampleSpec, image_sizes, sample_spec
from vlapipe.train.data.dataset_comparison import require_alike
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.window_size import Window

__all__ = ["Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected data. ``window`` has every row count; ``spec`` holds the shapes and statistics of a sample."""

    sources: Sources
    window: Window
    spec: SampleSpec
    frames: FrameIndex

    @classmethod
    def parse(
        cls,
        what: str,
        dataset: Dataset | Sequence[Dataset],
        *,
        window: Window | None,
        split: str | None,
        image_size: tuple[int, int] | None,
    ) -> Selection:
        """Check the arguments, which ``Loader`` explains. ``what`` names the caller in error messages.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        sources = Sources([dataset] if isinstance(dataset, Dataset) else dataset)
        for each in sources.datasets:
            refuse_unknown_split(f"{what} split", split, each)
        require_alike(sources.datasets, window or Window())
        window = (window or Window()).resolve(sources.first.schema.sample)
        spec = sample_spec(sources, window, image_sizes(sources, parse_image_size(f"{what} image_size", image_size)))
        frames = FrameIndex(sources, split, window)
        return cls(sources=sources, window=window, spec=spec, frames=frames)
