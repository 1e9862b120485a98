"""What is read of which data: the datasets' frames of one split, with the window and the image sizes of a sample."""

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
    """``window`` has every row count; ``spec`` are the shapes that follow from it."""

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
        """From the arguments that ``Loader`` explains; ``what`` names whose they are, for messages.

        Raises:
            UsageError: one cannot be used with this data.
        """
        sources = Sources([dataset] if isinstance(dataset, Dataset) else dataset)
        for each in sources.datasets:
            refuse_unknown_split(f"{what} split", split, each)
        require_alike(sources.datasets, window or Window())
        window = (window or Window()).resolve(sources.first.schema.sample)
        spec = sample_spec(sources, window, image_sizes(sources, parse_image_size(f"{what} image_size", image_size)))
        frames = FrameIndex(sources, split, window)
        return cls(sources=sources, window=window, spec=spec, frames=frames)
