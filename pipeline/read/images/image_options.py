"""The options ``--image-size``, ``--image-storage`` and ``--image-quality``: how images are stored in the shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS
from vlapipe.pipeline.shards.format.jpeg_decode import SCALES
from vlapipe.schemas.errors import UsageError

__all__ = ["AS_RECORDED", "JPEG_QUALITY", "STORAGES", "ImageOptions", "ImageSize", "Stored"]

ImageSize = tuple[int, int]  # (width, height) in pixels
Stored = str  # "jpeg", "png" or "raw"

# docs/decisions/0008-frames-stored-small.md compares this quality with others, and with other colour resolutions.
JPEG_QUALITY = 95
STORAGES = ("recorded", "jpeg", "png", "raw")
_MAX_SIDE = 65_500  # libjpeg's limit


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """``size`` is the size of every stored image, ``None`` to keep sizes; ``quality`` is that of JPEGs that are made.

    ``storage`` is ``recorded`` (JPEG and PNG files untouched, arrays as pixels, videos as JPEG), ``jpeg``, ``png`` or
    ``raw`` (pixels). Depth is never stored as JPEG, which would destroy it: PNG takes the place of JPEG.

    ``camera_sizes`` applies to pixels without a ``size``: the one size of each camera over the dataset. The plan finds
    these sizes.
    """

    size: ImageSize | None = None
    storage: str = "recorded"
    quality: int = JPEG_QUALITY
    camera_sizes: tuple[tuple[str, ImageSize], ...] = ()

    def __post_init__(self) -> None:
        if self.storage not in STORAGES:
            raise UsageError(f"--image-storage {self.storage}: unknown", f"choose from {', '.join(STORAGES)}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--image-quality {self.quality}: expected 1 to 100", f"for example {JPEG_QUALITY}")
        width, height = self.size or (1, 1)
        if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE and width * height <= MAX_PIXELS):
            expected = f"sides from 1 to {_MAX_SIDE} and at most {MAX_PIXELS // 1_000_000} megapixels"
            raise UsageError(f"--image-size {width}x{height}: expected {expected}", "for example 224x224")

    @property
    def as_recorded(self) -> bool:
        """Returns whether every JPEG file is kept byte for byte."""
        return self.keeps("jpeg")

    def keeps(self, kind: Stored) -> bool:
        """Returns whether files of a kind, ``jpeg`` or ``png``, are kept byte for byte."""
        return self.size is None and self.storage in ("recorded", kind)

    def made_from(self, kind: Stored, *, is_depth: bool = False) -> Stored:
        """Returns what images of a kind are stored as: JPEG or PNG files, or pixels (``raw``)."""
        stored = kind if self.storage == "recorded" else self.storage
        return "png" if is_depth and stored == "jpeg" else stored

    def described(self) -> dict[str, Any]:
        """Returns the options that decide which bytes are stored, for the manifest and for the digests of shards."""
        is_made_again = self.size is not None and self.storage in ("recorded", "jpeg")
        return {
            "image_size": list(self.size) if self.size else None,
            "image_quality": self.quality if is_made_again or self.quality != JPEG_QUALITY else None,
            "image_colour": "as recorded" if is_made_again else None,
            "image_scales": list(SCALES) if self.size else None,
            "image_storage": self.storage,
        }


AS_RECORDED = ImageOptions()
