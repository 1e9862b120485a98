"""What the built-in policies share: encoders, the trunk, and actions in the dataset's units.

Shape letters: B batch, T rows of a window, H action horizon, A action size, N tokens.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_choice, parse_number, parse_whole_number
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.policies.actions import actions_of
from vlapipe.train.policies.base import ParameterGroup, Policy
from vlapipe.train.policies.flops import count_forward_flops
from vlapipe.train.policies.nn.images import ImageEncoder
from vlapipe.train.policies.nn.instruction import InstructionEncoder
from vlapipe.train.policies.nn.normalize import Normalizer
from vlapipe.train.policies.nn.pretrained_images import PretrainedImageEncoder
from vlapipe.train.policies.nn.series import SeriesEncoder
from vlapipe.train.policies.nn.trunk import Trunk, perceptron
from vlapipe.train.policies.observation import check_observation, observation_shapes

__all__ = ["SIZES", "BuiltInPolicy", "Sizes"]

# Argument -> (minimum, required factor).
_LEAST = {"dim": (8, 8), "depth": (1, 1), "num_heads": (1, 1), "mlp_ratio": (1, 1), "image_width": (8, 8)}
_LEAST |= {"num_word_buckets": (2, 1), "max_words": (1, 1)}
SIZES: dict[str, dict[str, int]] = {
    "small": {"dim": 128, "depth": 1, "num_heads": 4, "mlp_ratio": 2, "image_width": 16},
    "base": {"dim": 512, "depth": 4, "num_heads": 8, "mlp_ratio": 4, "image_width": 64},
    "large": {"dim": 1024, "depth": 8, "num_heads": 16, "mlp_ratio": 4, "image_width": 96},
}
_WORDS, _WHICH = "task.words", "task.which"  # see InstructionEncoder.ids
_LIMIT = 10.0  # of normalized values; an observation beyond this limit is a sensor fault
_IMAGES = "observation.images."
_STATE_NOISE = 0.1  # where there are images
_MANY_EPISODES = 400  # with images, these are too many to be learned by heart


class Sizes(TypedDict, total=False):
    """Arguments of every built-in policy, as in ``[policy_args]``. ``size`` gives a number that is absent or None."""

    size: str  # small, base or large
    dropout: float
    state_noise: float | None
    dim: int | None
    depth: int | None
    num_heads: int | None
    mlp_ratio: int | None
    image_width: int | None  # channels of the first convolution
    num_word_buckets: int
    max_words: int
    backbone: str | None  # a pretrained network in place of the convolutions
    backbone_lr: float
    whole_map: bool  # a map of each image is read whole, too: for small things and many recordings


class BuiltInPolicy(Policy):
    """Turns an observation into one vector, from which a subclass makes the actions.

    The newest rows, the instruction and the places of features in the images meet in a perceptron. Its result reads the
    tokens of images and of past rows by cross-attention, in each block of the trunk. Without images and past rows there
    is nothing to read, and the trunk is a residual perceptron. The policy sees no row that comes after the frame.

    If the spec has ``embodiments``, the robot is a part of the features, and each robot's state and actions are
    normalized by its own statistics. The columns that are padded for a robot are constant for it.
    """

    @classmethod
    def arguments_for(
        cls, spec: SampleSpec, num_episodes: int, given: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Returns ``whole_map`` and no ``state_noise`` from 400 episodes of images on (docs/decisions/0023).

        Fewer would be learned by heart. Weights to begin with have a map that is read whole, or they do not.
        """
        if not spec.images:
            return {}
        many = num_episodes >= _MANY_EPISODES
        reads_whole = many if before is None else before.get("whole_map", False)
        chosen: dict[str, Any] = {"whole_map": True} if reads_whole and given.get("backbone") is None else {}
        if many:
            chosen["state_noise"] = 0.0
        return {name: value for name, value in chosen.items() if name not in given}

    def __init__(self, spec: SampleSpec, **sizes: Unpack[Sizes]) -> None:
        """Build the layers.

        Raises:
            UsageError: an argument is out of range, or the window of the state goes beyond the frame.
        """
        super().__init__()
        numbers = _numbers(sizes)
        width, heads = numbers["dim"], numbers["num_heads"]
        dropout = parse_number("policy_args dropout", sizes.get("dropout", 0.0), least=0.0, most=0.99)
        noise = sizes.get("state_noise")
        noise = (_STATE_NOISE if spec.images else 0.0) if noise is None else noise
        self._state_noise = parse_number("policy_args state_noise", noise, least=0.0, most=10.0)
        _require_the_past(spec)
        self._spec, self.dim = spec, width
        self.action_normalizer = Normalizer.of(spec, "action")
        self.instruction = InstructionEncoder(
            width, num_buckets=numbers["num_word_buckets"], max_words=numbers["max_words"]
        )
        # The rows up to the frame, of each entry.
        windows = {key: (shape[0] - spec.ahead_rows, *shape[1:]) for key, shape in observation_shapes(spec).items()}
        self._num_rows = {key: shape[0] for key, shape in windows.items()}
        self._image_keys = [key for key in windows if key.startswith(_IMAGES)]
        self._series_keys = [key for key in windows if key not in self._image_keys]
        self.series_normalizers = nn.ModuleList(Normalizer.of(spec, key, limit=_LIMIT) for key in self._series_keys)
        self.series = nn.ModuleList(SeriesEncoder(width, windows[key]) for key in self._series_keys)
        self._backbone_lr = parse_number("policy_args backbone_lr", sizes.get("backbone_lr", 0.1), least=0)
        self.images = nn.ModuleList(
            _image_encoder(spec, camera, width, numbers["image_width"], sizes) for camera in spec.images
        )
        self.embodiment = nn.Embedding(len(spec.embodiments), width) if spec.embodiments else None
        encoders = [*self.series, *self.images]
        num_features = sum(encoder.num_features for encoder in encoders)
        num_features += width * (1 if self.embodiment is None else 2)
        self.features = perceptron(num_features, width, width)
        readable = [encoder for encoder in encoders if not isinstance(encoder, SeriesEncoder) or encoder.num_patches]
        self.source = nn.Parameter(torch.randn(len(readable), width) * 0.02) if readable else None
        self.trunk = Trunk(
            width,
            depth=numbers["depth"],
            num_heads=heads,
            mlp_ratio=numbers["mlp_ratio"],
            attends=bool(readable),
            dropout=dropout,
        )
        if self.embodiment is not None:
            nn.init.normal_(self.embodiment.weight, std=0.02)

    @abstractmethod
    def normalized_actions(self, batch: Batch) -> Tensor:
        """Returns normalized actions ``(B, H, A)`` of a batch, in any float dtype."""

    def prepare(self, batch: Batch) -> Batch:
        """Returns the batch with the numbers of the words of ``task``, in place of the texts."""
        if _WORDS in batch:
            return batch
        words, which = self.instruction.ids(batch["task"], self.features[0].weight.device)  # type: ignore[arg-type]
        return {key: value for key, value in batch.items() if key != "task"} | {_WORDS: words, _WHICH: which}

    def instruction_note(self, instructions: Sequence[str]) -> str:
        """Returns a sentence about the instructions that are longer than what the policy reads; empty if none is."""
        return self.instruction.cut_note(instructions)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Returns the pretrained networks, which learn slower, and the rest."""
        pretrained = {
            parameter
            for encoder in self.images
            if isinstance(encoder, PretrainedImageEncoder)
            for parameter in encoder.backbone.parameters()
        }
        rest = (parameter for parameter in self.parameters() if parameter not in pretrained)
        return [
            ParameterGroup(name="backbone", parameters=pretrained, learning_rate_factor=self._backbone_lr),
            ParameterGroup(name="all", parameters=rest),
        ]

    def blocks(self) -> list[nn.Module]:
        """Returns the encoders of the cameras, which have the largest activations, and the blocks of the trunk."""
        return [*self.images, *self.trunk.blocks]

    def flops_per_sample(self) -> float:
        """Returns the operations of the forward pass, counted for the shapes that the policy was built for."""
        return count_forward_flops(self, self._spec)

    def act(self, observation: Batch) -> Tensor:
        """Returns the action chunk ``(B, H, A)`` float32 in the dataset's units, as actions were recorded.

        Images are RGB, as in training. Columns that are padding for the observation's ``embodiment`` are 0.

        Raises:
            UsageError: the observation is not what the policy was trained on; see ``check_observation``.
        """
        check_observation(self._spec, observation)
        note = self.instruction.cut_note(observation.get("task", ()))
        if note:
            warnings.warn(f"act: {note}", stacklevel=2)
        with torch.no_grad():
            predicted = self.normalized_actions(observation).float()
            return actions_of(self.action_normalizer, self._spec, predicted, observation)

    def context(self, batch: Batch) -> Tensor:
        """Returns one vector for each observation, ``(B, dim)``: what the actions follow from."""
        batch = self.prepare(batch)
        said, robot = self.instruction(batch[_WORDS], batch[_WHICH]), batch.get(EMBODIMENT)
        features, tokens = [said], []
        if self.embodiment is not None:
            features.append(self.embodiment(robot))
        source = iter(()) if self.source is None else iter(self.source)
        for key, normalizer, encoder in zip(self._series_keys, self.series_normalizers, self.series, strict=True):
            values, is_pad = self._window(batch, key)
            newest, past = encoder(self._blurred(key, normalizer(values, robot)), is_pad)
            features.append(newest)
            tokens += [] if past is None else [past + next(source)]
        for key, encoder in zip(self._image_keys, self.images, strict=True):
            seen, grid = encoder(*self._window(batch, key), said)
            features.append(seen)
            tokens.append(grid + next(source))
        x = self.features(torch.cat([feature.to(said.dtype) for feature in features], dim=1)).unsqueeze(1)
        out: Tensor = self.trunk(x, torch.cat(tokens, dim=1) if tokens else None).squeeze(1)
        return out

    def _blurred(self, key: str, values: Tensor) -> Tensor:
        """Returns normalized ``values`` ``(B, T, ...)``. In training, the state is moved: all rows of a sample alike.

        Else a policy with images learns by heart which recording a state belongs to, and where that one went.
        """
        if key != STATE or not (self.training and self._state_noise):
            return values
        moved = torch.randn_like(values[:, :1]) * self._state_noise
        return values + moved

    def _window(self, batch: Batch, key: str) -> tuple[Tensor, Tensor]:
        """Returns the rows up to the frame, and which of them are padding."""
        num_rows = self._num_rows[key]
        return batch[key][:, :num_rows], batch[f"{key}_is_pad"][:, :num_rows]


def _numbers(given: Sizes) -> dict[str, int]:
    """Returns the numbers that build the layers: those given, and the others by the name of the size."""
    size = parse_choice("policy_args size", given.get("size", "small"), (*SIZES,))
    sizes = {"num_word_buckets": 2048, "max_words": 24} | SIZES[size]
    sizes |= {name: given[name] for name in sizes if given.get(name) is not None}  # type: ignore[literal-required]
    for name, number in sizes.items():
        least, factor = _LEAST[name]
        parse_whole_number(f"policy_args {name}", number, least=least, multiple_of=factor)
    if sizes["dim"] % sizes["num_heads"]:
        cure = "choose a dim that num_heads divides"
        raise UsageError(f"policy_args: dim {sizes['dim']} is not a multiple of num_heads {sizes['num_heads']}", cure)
    return sizes


def _image_encoder(spec: SampleSpec, camera: str, dim: int, width: int, given: Sizes) -> nn.Module:
    """Returns the encoder of a camera: ``backbone``, which takes colours, or convolutions of our own."""
    num_rows, num_channels, *size = spec.images[camera]
    num_rows, image_size = num_rows - spec.ahead_rows, (size[0], size[1])
    backbone, whole_map = given.get("backbone"), given.get("whole_map", False)
    if not isinstance(whole_map, bool):
        raise UsageError(f"policy_args whole_map: expected true or false, found {whole_map!r}")
    if backbone is not None and not isinstance(backbone, str):
        raise UsageError(f"policy_args backbone: expected a folder or a name, found {backbone!r}")
    if backbone is not None and camera not in spec.depth:
        return PretrainedImageEncoder(dim, image_size, num_rows, backbone=backbone, whole_map=whole_map)
    return ImageEncoder(
        dim,
        image_size,
        num_rows,
        width=width,
        num_channels=num_channels,
        depth_m=spec.depth.get(camera),
        whole_map=whole_map,
    )


def _require_the_past(spec: SampleSpec) -> None:
    """Refuse a window of the state whose newest row is not the frame's own: in training, it would tell the future."""
    newest = spec.state[0] - 1 - spec.ahead_rows
    if spec.newest not in (-1, newest):
        problem = f"row {spec.newest + 1} of the state's {spec.state[0]} is the frame's own"
        raise UsageError(
            f"policy: {problem}, and the rows after it are not known to a robot", "end delta_timestamps at 0"
        )
