"""The built-in policy: predicts the next H actions from images, state, sensors and the instruction in one forward pass.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_whole_number
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.policies.base import LossOutput, Policy
from vlapipe.train.policies.flops import count_forward_flops
from vlapipe.train.policies.nn.images import ImageEncoder
from vlapipe.train.policies.nn.instruction import InstructionEncoder
from vlapipe.train.policies.nn.normalize import Normalizer
from vlapipe.train.policies.nn.series import SeriesEncoder
from vlapipe.train.policies.nn.trunk import Trunk
from vlapipe.train.policies.observation import check_observation, observation_shapes

__all__ = ["RegressionPolicy"]

# Size -> (minimum, required factor).
_SIZES = {"dim": (8, 8), "depth": (1, 1), "num_heads": (1, 1), "image_width": (8, 8), "num_word_buckets": (2, 1)}
_SIZES["max_words"] = (1, 1)
_WORDS = "task.words"  # (B, words, 2) int64; see InstructionEncoder.ids
_LIMIT = 10.0  # of normalized values; an observation beyond this limit is a sensor fault


class RegressionPolicy(Policy):
    """Encoders turn each input into tokens, and a transformer reads all tokens and one learned query for each action.

    The loss is the mean absolute error of normalized actions, in standard deviations of each column unless the run
    normalizes them in another way. A policy that always predicts the mean then has a loss of about 0.8. The loss leaves
    out columns that are constant in the training data, or that only flicker. For these columns the policy returns the
    constant. The policy sees no row that comes after the frame.

    If the spec has ``embodiments``, the robot is one more token, and each robot's state and actions are normalized by
    its own statistics. The columns that are padded for a robot are constant for it.
    """

    def __init__(
        self,
        spec: SampleSpec,
        *,
        dim: int = 128,
        depth: int = 3,
        num_heads: int = 4,
        image_width: int = 32,
        num_word_buckets: int = 2048,
        max_words: int = 24,
    ) -> None:
        super().__init__()
        _check_sizes(
            dim=dim, depth=depth, num_heads=num_heads, image_width=image_width, num_word_buckets=num_word_buckets
        )
        _check_sizes(max_words=max_words)
        self._spec = spec
        H, A = spec.action
        self.action_normalizer = Normalizer.of(spec, "action")
        self.instruction = InstructionEncoder(
            dim, num_buckets=num_word_buckets, max_words=max_words, num_heads=num_heads
        )
        _require_the_past(spec)
        # The rows up to the frame, of each entry.
        windows = {key: (shape[0] - spec.ahead_rows, *shape[1:]) for key, shape in observation_shapes(spec).items()}
        self._num_rows = {key: shape[0] for key, shape in windows.items()}
        self._image_keys = [key for key in windows if key.startswith("observation.images.")]
        self._series_keys = [key for key in windows if key not in self._image_keys]
        self.series_normalizers = nn.ModuleList(Normalizer.of(spec, key, limit=_LIMIT) for key in self._series_keys)
        self.series = nn.ModuleList(SeriesEncoder(dim, windows[key]) for key in self._series_keys)
        self.images = nn.ModuleList(
            ImageEncoder(
                dim,
                shape[2:],
                shape[0] - spec.ahead_rows,
                width=image_width,
                num_channels=shape[1],
                depth_m=spec.depth.get(camera),
            )
            for camera, shape in spec.images.items()
        )
        self.source = nn.Parameter(torch.randn(len(windows), dim) * 0.02)
        self.embodiment = nn.Embedding(len(spec.embodiments), dim) if spec.embodiments else None
        self.query = nn.Parameter(torch.randn(H, dim) * 0.02)
        self.trunk = Trunk(dim, depth=depth, num_heads=num_heads)
        self.head = nn.Linear(dim, A)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if self.embodiment is not None:
            nn.init.normal_(self.embodiment.weight, std=0.02)

    def prepare(self, batch: Batch) -> Batch:
        """Returns the batch with the numbers of the words of ``task``, in place of the texts."""
        if _WORDS in batch:
            return batch
        words = self.instruction.ids(batch["task"], self.query.device)
        return {key: value for key, value in batch.items() if key != "task"} | {_WORDS: words}

    def loss(self, batch: Batch) -> LossOutput:
        """Returns the absolute error of normalized actions, without padded actions and constant columns.

        Targets that are not finite are left out too.
        """
        predicted, robot = self._predict(batch).float(), batch.get(EMBODIMENT)
        target = self.action_normalizer(batch["action"], robot)
        varies = self.action_normalizer.varying(robot)
        counts = ~batch["action_is_pad"].unsqueeze(2) & varies & batch["action"].isfinite()
        return LossOutput.masked((predicted - target).abs(), counts)

    def instruction_note(self, instructions: Sequence[str]) -> str:
        """Returns a sentence about the instructions that are longer than what the policy reads; empty if none is."""
        return self.instruction.cut_note(instructions)

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
            predicted = self._predict(observation).float()
            actions: Tensor = self.action_normalizer.invert(predicted, observation.get(EMBODIMENT))
            if self._spec.action_form is not None:
                newest = observation["observation.state"][:, self._spec.newest]
                actions = self._spec.action_form.decode(actions, newest)
        return actions

    def _predict(self, batch: Batch) -> Tensor:
        """Returns normalized actions ``(B, H, A)``."""
        ids = self.prepare(batch)[_WORDS]
        said, robot = self.instruction(ids), batch.get(EMBODIMENT)
        tokens = [self.query.expand(len(ids), -1, -1), said.unsqueeze(1)]
        if self.embodiment is not None:
            tokens.append(self.embodiment(robot).unsqueeze(1))
        source = iter(self.source)
        for key, normalizer, encoder in zip(self._series_keys, self.series_normalizers, self.series, strict=True):
            values, is_pad = (batch[name][:, : self._num_rows[key]] for name in (key, f"{key}_is_pad"))
            tokens.append(encoder(normalizer(values, robot), is_pad) + next(source))
        for key, images in zip(self._image_keys, self.images, strict=True):
            values, is_pad = (batch[name][:, : self._num_rows[key]] for name in (key, f"{key}_is_pad"))
            tokens.append(images(values, is_pad, said) + next(source))
        actions: Tensor = self.head(self.trunk(torch.cat(tokens, dim=1), self.query.shape[0]))
        return actions


def _require_the_past(spec: SampleSpec) -> None:
    """Refuse a window of the state whose newest row is not the frame's own: in training, it would tell the future."""
    newest = spec.state[0] - 1 - spec.ahead_rows
    if spec.newest not in (-1, newest):
        problem = f"policy regression: row {spec.newest + 1} of the state's {spec.state[0]} is the frame's own"
        raise UsageError(f"{problem}, and the rows after it are not known to a robot", "end delta_timestamps at 0")


def _check_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        least, factor = _SIZES[name]
        parse_whole_number(f"policy_args {name}", size, least=least, multiple_of=factor)
