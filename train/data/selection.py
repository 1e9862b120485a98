"""Selects the data to read: the datasets' frames of one split, with the window and image sizes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.actions.action_statistics import with_measured_actions
from vlapipe.train.data.arguments import parse_fit, parse_image_size, refuse_unknown_split
from vlapipe.train.data.batch_layout import SampleSpec, image_sizes, sample_spec
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.joining.dataset_comparison import Comparison, compare_datasets
from vlapipe.train.data.sample_steps import Steps, sample_steps
from vlapipe.train.data.window_size import Window

__all__ = ["Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected data. ``steps`` lays out each entry's rows; ``spec`` holds a sample's shapes and statistics."""

    sources: Sources
    steps: dict[str, Steps]
    spec: SampleSpec
    frames: FrameIndex
    comparison: Comparison

    @classmethod
    def parse(
        cls,
        what: str,
        dataset: Dataset | Sequence[Dataset],
        *,
        window: Window | None,
        split: str | None,
        image_size: tuple[int, int] | str | None,
        image_resize: str = "stretch",
        where: str | None = None,
        embodiments: str = "same",
    ) -> Selection:
        """Check the arguments, which ``Loader`` explains. ``what`` names the caller in error messages.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        datasets = [dataset] if isinstance(dataset, Dataset) else [*dataset]
        for each in datasets:
            refuse_unknown_split(f"{what} split", split, each)
        window = window or Window()
        if not datasets:
            raise UsageError(f"{what}: expected a dataset, found none", "give what open_dataset returned")
        comparison = compare_datasets(datasets, window, embodiments=embodiments)
        sources = Sources(comparison.joined(), comparison.robots)
        steps = sample_steps(sources.first)
        spec = sample_spec(sources, steps, image_sizes(sources, parse_image_size(f"{what} image_size", image_size)))
        spec = replace(spec, image_resize=parse_fit(f"{what} image_resize", image_resize, image_size))
        if "action" not in spec.moments:
            spec = with_measured_actions(sources, steps, spec)
        of_where = None if where is None else masks(Where.parse(where, f"{what} where"), sources.datasets)
        frames = FrameIndex(sources, split, of_where)
        return cls(sources=sources, steps=steps, spec=spec, frames=frames, comparison=comparison)
