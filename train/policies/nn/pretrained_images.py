"""Encodes camera images by a pretrained network of Hugging Face, in place of the convolutions of ``images``.

Shape letters: B batch, T rows of the image window, N tokens of one image, K learned features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.named_object import one_line
from vlapipe.train.policies.nn.hugging_face import quiet_transformers, reading
from vlapipe.train.policies.nn.images import (
    MAX_TOKENS,
    NUM_POINTS,
    CameraEncoder,
    SpatialSoftArgmax,
    WholeMap,
    modulated,
    neutral_film,
)

__all__ = ["PretrainedImageEncoder"]

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class PretrainedImageEncoder(CameraEncoder):
    """The feature maps of a network, each read through a layer that the instruction modulates.

    The last map gives the tokens; with ``whole_map`` it is read whole, too. The places of K features come from the map
    of stride 8, which is finer, if the network has stages; otherwise from the last map. Colours are normalized as the
    network's own processor does, as those of ImageNet if it has none. The statistics of batch normalization stay as
    they are pretrained, because a robot's batches are small and alike.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, dim: int, image_size: tuple[int, int], num_rows: int, *, backbone: str, whole_map: bool = False
    ) -> None:
        """Load the network. ``backbone`` is a folder with its configuration and weights, or a name on the hub.

        Raises:
            UsageError: transformers is missing, or the network cannot be read or cannot take such images.
        """
        super().__init__()
        self.backbone, colours = _load(backbone)
        for name, key in (("mean", "image_mean"), ("std", "image_std")):
            value = torch.tensor(colours[key], dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, value * 255, persistent=False)
        try:
            with torch.no_grad():
                maps = self.backbone.eval()(torch.zeros(1, 3, *image_size)).feature_maps
        except (RuntimeError, ValueError) as error:
            problem = f"policy_args backbone {backbone!r}: cannot take images of {image_size[1]}x{image_size[0]}"
            raise UsageError(f"{problem}: {one_line(error)}", "give another image_resize, or another network") from None
        fine, last = maps[0], maps[-1]
        self.fine = _Reading(fine.shape[1], dim) if len(maps) > 1 else None
        self.last = _Reading(last.shape[1], dim)
        self.points = SpatialSoftArgmax(dim, NUM_POINTS)
        self.out = nn.Linear(dim, dim)
        grid = (last.shape[2], last.shape[3])
        self._pool = 1
        while -(-grid[0] // self._pool) * -(-grid[1] // self._pool) > MAX_TOKENS:
            self._pool *= 2
        grid = (-(-grid[0] // self._pool), -(-grid[1] // self._pool))
        self.whole = WholeMap(dim, grid, dim) if whole_map else None
        self._add_tokens(dim, grid, num_rows)

    def train(self, mode: bool = True) -> PretrainedImageEncoder:
        """Set the mode of all but batch normalization, whose statistics stay as they are."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor, is_pad: Tensor, instruction: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features ``(B, num_features)`` and tokens ``(B, T * N, dim)``, as ``ImageEncoder`` does.

        ``images`` is ``(B, T, 3, height, width)`` uint8; ``is_pad`` ``(B, T)`` bool; ``instruction`` ``(B, dim)``.
        """
        T = images.shape[1]
        said = instruction.repeat_interleave(T, dim=0) if T > 1 else instruction
        maps = self.backbone((images.flatten(0, 1).float() - self.mean) / self.std).feature_maps
        x = self.last(maps[-1], said)
        places = self.points(x if self.fine is None else self.fine(maps[0], said))
        x = F.avg_pool2d(x, self._pool, ceil_mode=True) if self._pool > 1 else x
        features = [places] if self.whole is None else [places, self.whole(x)]
        return self._given(features, self.out(x.flatten(2).transpose(1, 2)), is_pad)


class _Reading(nn.Module):
    """Reads a feature map at each of its places. The instruction modulates what is read (FiLM)."""

    def __init__(self, num_channels: int, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_channels, dim, 1)
        self.norm = nn.GroupNorm(8, dim)
        self.film = neutral_film(dim, dim)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        """Returns ``(B, dim, height, width)`` of ``x`` ``(B, C, height, width)`` and ``said`` ``(B, dim)``."""
        return modulated(self.norm(self.convolution(x)), self.film(said))


def _load(name: str) -> tuple[Any, dict[str, list[float]]]:
    """Returns the network with the feature maps that are read, and the mean and deviation of its colours."""
    where = f"policy_args backbone {name!r}"
    transformers = quiet_transformers("policy_args backbone")
    with reading(where, "config.json and weights"):
        from transformers.image_processing_base import ImageProcessingMixin
        from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

        config = transformers.AutoConfig.from_pretrained(name)
        if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
            cure = "a network with feature maps, such as ResNet, ConvNeXt, Swin or DINOv2"
            raise UsageError(f"{where}: {config.model_type} gives no feature maps", cure)
        # AutoBackbone itself asks the hub even of a folder.
        stages = ["stage2"] if hasattr(config, "depths") else []
        read = {"out_features": [*stages, config.stage_names[-1]]}
        model, found = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **read
        )
    missing = sorted(key for key in found["missing_keys"] if "norm" not in key)  # some networks norm each map read
    if missing:
        raise UsageError(f"{where}: {len(missing)} weights are missing, such as {missing[0]}", "give the whole model")
    try:
        said, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        said = {}
    return model, {key: said.get(key) or value for key, value in _IMAGENET.items()}
