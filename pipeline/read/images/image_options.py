"""The options ``--image-size`` and ``--image-storage``: how a camera's images are stored in the shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS
from vlapipe.pipeline.shards.format.jpeg_decode import SCALES
from vlapipe.schemas.errors import UsageError

__all__ = ["AS_RECORDED", "JPEG_QUALITY", "ImageOptions", "ImageSize"]

ImageSize = tuple[int, int]  # (width, height) in pixels

# docs/decisions/0008-frames-stored-small.md compares this quality with others, and with other colour resolutions.
JPEG_QUALITY = 95
_STORAGES = ("jpeg", "raw")
_MAX_SIDE = 65_500  # libjpeg's limit


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """``size`` is the size of every stored image, ``None`` to keep sizes; ``storage`` is ``jpeg`` or ``raw`` (pixels).

    ``camera_sizes`` applies to pixels without a ``size``: the one size of each camera over the dataset. The plan finds
    these sizes.
    """

    size: ImageSize | None = None
    storage: str = "jpeg"
    camera_sizes: tuple[tuple[str, ImageSize], ...] = ()

    def __post_init__(self) -> None:
        if self.storage not in _STORAGES:
            raise UsageError(f"--image-storage {self.storage}: unknown", f"choose from {', '.join(_STORAGES)}")
        width, height = self.size or (1, 1)
        if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE and width * height <= MAX_PIXELS):
            expected = f"sides from 1 to {_MAX_SIDE} and at most {MAX_PIXELS // 1_000_000} megapixels"
            raise UsageError(f"--image-size {width}x{height}: expected {expected}", "for example 224x224")

    @property
    def as_recorded(self) -> bool:
        """Returns whether every file is kept byte for byte."""
        return self.size is None and self.storage == "jpeg"

    def described(self) -> dict[str, Any]:
        """Returns the options that decide which bytes are stored, for the manifest and for the digests of shards."""
        is_made_again = self.size is not None and self.storage == "jpeg"
        return {
            "image_size": list(self.size) if self.size else None,
            "image_quality": JPEG_QUALITY if is_made_again else None,
            "image_colour": "as recorded" if is_made_again else None,
            "image_scales": list(SCALES) if self.size else None,
            "image_storage": self.storage,
        }


AS_RECORDED = ImageOptions()
