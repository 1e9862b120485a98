"""The policy ``flow``: draws a chunk of actions by flow matching, so of two good ways it takes one.

Shape letters: B batch, H action horizon, A action size.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.data.arguments import parse_choice, parse_whole_number
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.policies.actions import targets_of
from vlapipe.train.policies.base import LossOutput
from vlapipe.train.policies.built_in import BuiltInPolicy, Sizes
from vlapipe.train.policies.nn.flow_matching import METHODS, NOISE, TIME_KINDS, first_noise, integrate, sample_time
from vlapipe.train.policies.nn.positions import waves
from vlapipe.train.policies.nn.trunk import perceptron

__all__ = ["FlowPolicy"]

_TIME_SCALE = 1000.0  # times within 0 and 1 become places of the sines


class FlowPolicy(BuiltInPolicy):
    """Learns the velocity from noise to the normalized actions (see ``flow_matching``), given the observation.

    An observation is encoded once. ``act`` then follows the velocity in ``steps`` steps, each of which costs a small
    perceptron. The noise comes from torch's own generator: the trainer seeds it at every step, so a resumed run draws
    the same. To repeat an action, seed it before ``act``, or give the observation its ``noise`` ``(B, H, A)``.

    The loss is the mean squared error of the velocity. It does not compare with the loss of ``regression``.
    """

    def __init__(
        self,
        spec: SampleSpec,
        *,
        time: str = "beta",
        steps: int = 5,
        method: str = "heun",
        **sizes: Unpack[Sizes],
    ) -> None:
        """Build the layers.

        Args:
            spec: shapes and statistics of the samples.
            time: how training draws times: ``beta`` as pi0 does, or ``uniform``.
            steps: steps in which ``act`` follows the velocity.
            method: ``euler``, or ``heun``, which computes the velocity twice a step.
            sizes: see ``Sizes``.
        """
        super().__init__(spec, **sizes)
        self._time, self._method = (
            parse_choice("policy_args time", time, TIME_KINDS),
            parse_choice("policy_args method", method, METHODS),
        )
        self._steps = parse_whole_number("policy_args steps", steps, least=1)
        H, A = spec.action
        self.velocity = Velocity(H * A, self.dim, depth=len(self.trunk.blocks))

    def blocks(self) -> list[nn.Module]:
        """Returns the blocks of the encoders and the trunk, and the perceptron of the velocity."""
        return [*super().blocks(), self.velocity]

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of the noise that ``act`` begins with."""
        return {NOISE: self._spec.action}

    def loss(self, batch: Batch) -> LossOutput:
        """Returns the squared error of the velocity, without padded actions and constant columns."""
        context = self.context(batch)
        target, counts = targets_of(self.action_normalizer, batch)
        target = torch.where(counts, target, torch.zeros((), device=target.device))
        noise = torch.randn_like(target)
        time = sample_time(self._time, len(target), target.device)  # type: ignore[arg-type]
        t = time.view(-1, 1, 1)
        predicted = self.velocity(t * target + (1 - t) * noise, time, context)
        return LossOutput.masked((predicted.float() - (target - noise)).square(), counts)

    def normalized_actions(self, batch: Batch) -> Tensor:
        """Returns normalized actions ``(B, H, A)`` float32, drawn anew in each call if the batch has no noise."""
        context = self.context(batch)
        noise = first_noise(batch, (len(context), *self._spec.action), context.device)
        return integrate(
            lambda x, time: self.velocity(x, time, context).float(),
            noise,
            self._steps,
            self._method,  # type: ignore[arg-type]
        )


class Velocity(nn.Module):
    """A residual perceptron over the noisy chunk. Time and observation shift and scale every layer (AdaLN)."""

    def __init__(self, size: int, dim: int, *, depth: int) -> None:
        """Create the layers for chunks of ``size`` numbers."""
        super().__init__()
        self.dim = dim
        self.inputs = nn.Linear(size, dim)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim, elementwise_affine=False) for _ in range(depth + 1))
        self.conditions = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(depth + 1))
        self.layers = nn.ModuleList(perceptron(dim, 2 * dim, dim) for _ in range(depth))
        self.out = nn.Linear(dim, size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, chunk: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Returns the velocity ``(B, H, A)`` at the chunk ``(B, H, A)``, time ``(B,)`` and context ``(B, dim)``."""
        known = F.silu(context + self.time(waves(_TIME_SCALE * time, self.dim).to(context.dtype)))
        x = self.inputs(chunk.flatten(1).to(context.dtype)) + context
        for norm, condition, layer in zip(self.norms, self.conditions, self.layers, strict=False):
            x = x + layer(_modulated(norm(x), condition(known)))
        last = _modulated(self.norms[-1](x), self.conditions[-1](known))
        velocity: Tensor = self.out(last).unflatten(1, chunk.shape[1:])
        return velocity


def _modulated(x: Tensor, condition: Tensor) -> Tensor:
    scale, shift = condition.chunk(2, dim=1)
    return torch.addcmul(shift, x, 1 + scale)
