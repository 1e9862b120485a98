"""Encodes camera images: a grid of tokens that keeps positions, the places of learned features, and a map read whole.

The instruction modulates the features.

Shape letters: B batch, T rows of the image window, N tokens of one image, K learned features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.policies.nn.positions import grid_positions

__all__ = [
    "MAX_TOKENS",
    "CameraEncoder",
    "ImageEncoder",
    "SpatialSoftArgmax",
    "WholeMap",
    "modulated",
    "neutral_film",
]

MAX_TOKENS = 96  # maximum number of tokens of one image; the grid is halved until it has no more
NUM_POINTS = 32  # learned features whose places in the image are computed
_MAX_CELLS = 256  # of the map that is read whole


class CameraEncoder(nn.Module):
    """What the encoders of a camera share: the tokens' positions, and what an image that is missing gives."""

    position: Tensor
    num_features: int
    whole: WholeMap | None

    def _add_tokens(self, dim: int, grid: tuple[int, int], num_rows: int) -> None:
        """Create what ``_given`` needs, for ``num_rows`` images with a grid (height, width) of tokens each."""
        self.num_features = num_rows * (2 * NUM_POINTS + (0 if self.whole is None else dim))
        self.register_buffer("position", grid_positions(*grid, dim), persistent=False)
        self.row = nn.Parameter(torch.randn(num_rows, 1, dim) * 0.02)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)

    def _given(self, features: list[Tensor], tokens: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features ``(B, num_features)`` and tokens ``(B, T * N, dim)`` of those of each image.

        The features of a padded image are 0, and its tokens a learned constant. ``features`` are places
        ``(B * T, 2 K)`` and, if the map is read whole, ``(B * T, dim)``; ``tokens`` ``(B * T, N, dim)``; ``is_pad``
        ``(B, T)`` bool.
        """
        B, T = is_pad.shape
        given = torch.cat(features, dim=1).view(B, T, -1).masked_fill(is_pad.unsqueeze(2), 0.0)
        tokens = tokens.view(B, T, *tokens.shape[1:]) + self.position + self.row
        is_absent = is_pad.repeat_interleave(tokens.shape[2], dim=1)
        tokens = torch.where(is_absent.unsqueeze(2), self.absent.to(tokens.dtype), tokens.flatten(1, 2))
        return given.flatten(1), tokens


def modulated(x: Tensor, film: Tensor) -> Tensor:
    """Returns ``x`` ``(B, C, height, width)`` scaled and shifted by ``film`` ``(B, 2 C)``, and then activated."""
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    return F.silu(torch.addcmul(shift, x, 1 + scale))


def neutral_film(dim: int, num_channels: int) -> nn.Linear:
    """Returns the layer that turns an instruction into scales and shifts; at first, it changes nothing."""
    film = nn.Linear(dim, 2 * num_channels)
    nn.init.zeros_(film.weight)
    nn.init.zeros_(film.bias)
    return film


class ImageEncoder(CameraEncoder):
    """Strided convolutions with GroupNorm. The instruction modulates every stage (FiLM, Perez et al. 2018).

    Colours from 0 to 255 become -1 to 1. Depth ``d`` in metres becomes ``2 d / (d + 1) - 1``: -1 at the lens, 0 at one
    metre, 1 far away, finest where a gripper works, the same for every dataset. A second channel says where the sensor
    had a reading.

    For each of K features, a softmax over the image gives its mean place (Levine et al. 2016, spatial soft-argmax): two
    numbers, which are finer than the grid.

    With ``whole_map``, a map of at most 256 cells is also read whole, by one linear layer. It finds small things in few
    steps, where a soft-argmax that has not learned what to look for gives the middle of every image. With few
    recordings it learns them by heart.

    With FiLM, an instruction such as "the red target" selects features where they are computed. A few thousand frames
    are enough to learn this. Attention alone needs far more frames.
    """

    def __init__(
        self,
        dim: int,
        image_size: tuple[int, int],
        num_rows: int,
        *,
        width: int = 32,
        num_channels: int = 3,
        depth_m: float | None = None,
        whole_map: bool = False,
    ) -> None:
        """Build for images of ``image_size`` (height, width). ``depth_m`` is the metres of one count of depth."""
        super().__init__()
        self._depth_m = depth_m
        channels, grids = _stages(image_size, width, dim)
        self.stages = nn.ModuleList()
        self.films = nn.ModuleList()
        before = num_channels if depth_m is None else 2
        for i, after in enumerate(channels):
            kernel, stride, padding = (4, 4, 0) if i == 0 else (3, 2, 1)
            convolution = nn.Conv2d(before, after, kernel, stride, padding)
            self.stages.append(nn.Sequential(convolution, nn.GroupNorm(8, after)))
            self.films.append(neutral_film(dim, after))
            before = after
        self.out = nn.Linear(before, dim)
        self.points = SpatialSoftArgmax(channels[1], NUM_POINTS)
        small = next(i for i, grid in enumerate(grids) if i and grid[0] * grid[1] <= _MAX_CELLS)
        self._whole_stage = small
        self.whole = WholeMap(channels[small], grids[small], dim) if whole_map else None
        self._add_tokens(dim, grids[-1], num_rows)

    def forward(self, images: Tensor, is_pad: Tensor, instruction: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features ``(B, num_features)`` and tokens ``(B, T * N, dim)``, as ``_given`` does.

        ``images`` is ``(B, T, 3, height, width)`` uint8, or ``(B, T, 1, height, width)`` uint16 depth; ``is_pad``
        ``(B, T)`` bool; ``instruction`` ``(B, dim)``.
        """
        T = images.shape[1]
        x = self._normalized(images.flatten(0, 1), instruction.dtype)
        said = instruction.repeat_interleave(T, dim=0) if T > 1 else instruction
        features = []
        for i, (stage, film) in enumerate(zip(self.stages, self.films, strict=True)):
            x = modulated(stage(x), film(said))
            if i == 1:
                features.append(self.points(x))
            if i == self._whole_stage and self.whole is not None:
                features.append(self.whole(x))
        return self._given(features, self.out(x.flatten(2).transpose(1, 2)), is_pad)

    def _normalized(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        if self._depth_m is None:
            return images.to(dtype).mul_(1 / 127.5).sub_(1.0)
        metres = images.to(torch.float32) * self._depth_m  # bfloat16 has too few digits for counts
        return torch.cat([2 * metres / (metres + 1) - 1, (metres > 0).to(torch.float32)], dim=1).to(dtype)


class SpatialSoftArgmax(nn.Module):
    """The mean place of each of K learned features: x and y from -1 to 1."""

    def __init__(self, num_channels: int, num_points: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(num_channels, num_points, 1, bias=False)  # a bias does not move a softmax

    def forward(self, features: Tensor) -> Tensor:
        """Returns places ``(B, 2 K)``, all x and then all y, of ``features`` ``(B, C, height, width)``."""
        maps = self.maps(features).float()
        share = maps.flatten(2).softmax(dim=2).view_as(maps)
        height, width = maps.shape[2:]
        x = torch.linspace(-1.0, 1.0, width, device=maps.device)
        y = torch.linspace(-1.0, 1.0, height, device=maps.device)
        return torch.cat([(share.sum(2) * x).sum(2), (share.sum(3) * y).sum(2)], dim=1).to(features.dtype)


class WholeMap(nn.Module):
    """Reads all cells of a feature map at once, each with its own weights."""

    def __init__(self, num_channels: int, grid: tuple[int, int], dim: int, *, kept: int = 16) -> None:
        """Build for a map of ``grid`` (height, width). ``kept`` is the number of channels that are read."""
        super().__init__()
        self.squeeze = nn.Conv2d(num_channels, kept, 1)
        self.read = nn.Linear(kept * grid[0] * grid[1], dim)

    def forward(self, features: Tensor) -> Tensor:
        """Returns ``(B, dim)`` of ``features`` ``(B, C, height, width)``."""
        read: Tensor = self.read(F.silu(self.squeeze(features)).flatten(1))
        return read


def _stages(image_size: tuple[int, int], width: int, dim: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns the number of channels and the grid (height, width) of the map of each stage."""
    height, image_width = max(1, image_size[0] // 4), max(1, image_size[1] // 4)
    channels, grids = [width], [(height, image_width)]
    while height * image_width > MAX_TOKENS or len(channels) < 2:
        height, image_width = -(-height // 2), -(-image_width // 2)
        channels.append(min(channels[-1] * 2, dim))
        grids.append((height, image_width))
    return channels, grids
