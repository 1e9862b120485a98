"""The policy ``vla``: the layers of a vision-language model, each shared with a layer of an action expert.

Shape letters: B batch, T rows of a window, H action horizon, A action size, L tokens of the prompt, S of the expert.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_choice, parse_number, parse_whole_number
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.policies.actions import actions_of, targets_of
from vlapipe.train.policies.base import LossOutput, ParameterGroup, Policy
from vlapipe.train.policies.flops import count_forward_flops
from vlapipe.train.policies.nn.flow_matching import METHODS, NOISE, TIME_KINDS, first_noise, integrate, sample_time
from vlapipe.train.policies.nn.normalize import Normalizer
from vlapipe.train.policies.nn.series import SeriesEncoder
from vlapipe.train.policies.observation import observation_shapes
from vlapipe.train.policies.vla.backbone import load_backbone
from vlapipe.train.policies.vla.expert import ExpertLayer, Kept, Shared, SharedLayer
from vlapipe.train.policies.vla.inputs import IS_PAD

__all__ = ["VLAPolicy"]

_HEADS = ("flow", "regression")
_LIMIT = 10.0  # of normalized values; an observation beyond this limit is a sensor fault


class VLAPolicy(Policy):
    """Images and instruction go through the backbone; state, sensors and actions are tokens of the expert.

    With the head ``flow``, the expert learns the velocity from noise to actions, and ``act`` follows it in a few steps.
    With ``regression``, it answers with the actions at once. The loss of ``flow`` is the squared error of the velocity,
    that of ``regression`` the absolute error of normalized actions.
    """

    def __init__(
        self,
        spec: SampleSpec,
        *,
        backbone: str,
        head: str = "flow",
        num_layers: int | None = None,
        expert_dim: int | None = None,
        backbone_lr: float = 0.1,
        max_tokens: int = 48,
        flow_time: str = "beta",
        flow_method: str = "euler",
        flow_steps: int = 10,
    ) -> None:
        super().__init__()
        self._is_flow = parse_choice("policy_args head", head, _HEADS) == "flow"
        self._time: Any = parse_choice("policy_args flow_time", flow_time, TIME_KINDS)
        self._method: Any = parse_choice("policy_args flow_method", flow_method, METHODS)
        self._steps = parse_whole_number("policy_args flow_steps", flow_steps, least=1)
        self._backbone_lr = parse_number("policy_args backbone_lr", backbone_lr, least=0)
        max_tokens = parse_whole_number("policy_args max_tokens", max_tokens, least=2)
        if num_layers is not None:
            num_layers = parse_whole_number("policy_args num_layers", num_layers, least=1)
        if not isinstance(backbone, str):
            raise UsageError(f"policy_args backbone: expected a folder or a name, found {backbone!r}")
        self.backbone, layers, heads, self._reader = load_backbone(
            backbone, spec, num_layers=num_layers, max_tokens=max_tokens
        )
        dim = 8 * max(1, heads.dim // 16) if expert_dim is None else expert_dim
        dim = parse_whole_number("policy_args expert_dim", dim, least=8, multiple_of=8)
        self._spec = spec
        H, A = spec.action
        self.layers = nn.ModuleList(
            SharedLayer(
                layer,
                ExpertLayer(
                    dim,
                    num_heads=heads.num_heads,
                    num_key_heads=heads.num_key_heads,
                    head_size=heads.head_size,
                    depth=len(layers),
                ),
            )
            for layer in layers
        )
        self.action_normalizer = Normalizer.of(spec, "action")
        # The rows up to the frame, of each entry that is no image.
        windows = {key: (shape[0] - spec.ahead_rows, *shape[1:]) for key, shape in observation_shapes(spec).items()}
        self._num_rows = {key: shape[0] for key, shape in windows.items() if not key.startswith("observation.images.")}
        self.series_normalizers = nn.ModuleList(Normalizer.of(spec, key, limit=_LIMIT) for key in self._num_rows)
        series = [SeriesEncoder(dim, windows[key]) for key in self._num_rows]
        self.series = nn.ModuleList(series)
        self.newest = nn.ModuleList(
            nn.Sequential(nn.Linear(each.num_features, dim), nn.SiLU(), nn.Linear(dim, dim)) for each in series
        )
        self.source = nn.Parameter(torch.randn(len(self._num_rows), dim) * 0.02)
        self.embodiment = nn.Embedding(len(spec.embodiments), dim) if spec.embodiments else None
        self.query = nn.Parameter(torch.randn(H, dim) * 0.02)
        if self._is_flow:
            self.noisy = nn.Linear(A, dim)
            self.time = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, A)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def preprocessor(self) -> Callable[[Batch], Batch]:
        """Returns the model's own processor of images and instructions, which the loader's threads run."""
        return self._reader

    def prepare(self, batch: Batch) -> Batch:
        """Returns the batch with what the model's processor makes of images and ``task``, in place of the texts."""
        return {key: value for key, value in self._reader(batch).items() if key != "task"}

    def instruction_note(self, instructions: Sequence[str]) -> str:
        """Returns a sentence about the instructions that are longer than what the policy reads; empty if none is."""
        return self._reader.cut_note(instructions)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Returns the backbone, which learns slower, what of it is never read, and the rest."""
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "unread": [], "expert": []}
        unread = {*self.backbone.unread(), *self._unread_of_last()}
        for name, parameter in self.named_parameters():
            is_backbone = name.startswith("backbone.") or ".backbone." in name
            group = "unread" if parameter in unread else "backbone" if is_backbone else "expert"
            groups[group].append(parameter)
        return [
            ParameterGroup(name="backbone", parameters=groups["backbone"], learning_rate_factor=self._backbone_lr),
            ParameterGroup(name="unread", parameters=groups["unread"], frozen=True),
            ParameterGroup(name="expert", parameters=groups["expert"]),
        ]

    def _unread_of_last(self) -> list[nn.Parameter]:
        """Returns the parameters of the backbone's last layer that make no keys and values."""
        last: Any = self.layers[-1].backbone
        read = {*last.input_layernorm.parameters()}
        for name, part in last.self_attn.named_children():
            read |= {*part.parameters()} if name.startswith(("k_", "v_")) else set()
        return [parameter for parameter in last.parameters() if parameter not in read]

    def blocks(self) -> Iterable[nn.Module]:
        """Returns the layers of the image encoder, and those of language with the expert's."""
        return [*self.backbone.vision_blocks(), *self.layers]

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of the noise that ``act`` begins with, if the head is ``flow``."""
        return {NOISE: self._spec.action} if self._is_flow else {}

    def flops_per_sample(self) -> float:
        """Returns the operations of the forward pass, counted for the shapes that the policy was built for."""
        return count_forward_flops(self, self._spec)

    def loss(self, batch: Batch) -> LossOutput:
        """Returns the error over actions that are finite and not padded, without constant columns."""
        batch = self.prepare(batch)
        target, counts = targets_of(self.action_normalizer, batch)
        if not self._is_flow:
            return LossOutput.masked((self._predict(batch, self._queries(batch)) - target).abs(), counts)
        noise, t = torch.randn_like(target), sample_time(self._time, len(target), target.device)
        x = t[:, None, None] * target + (1 - t[:, None, None]) * noise
        velocity = self._predict(batch, self._noisy(x, t))
        return LossOutput.masked((velocity - (target - noise)).square(), counts)

    def act(self, observation: Batch, *, cached: bool = True) -> Tensor:
        """Returns the action chunk ``(B, H, A)`` float32 in the dataset's units, as actions were recorded.

        The backbone runs once, and each step of the flow reads its keys and values; without ``cached``, it runs in each
        step, which is slower and gives the same.
        """
        note = self._reader.cut_note(observation.get("task", ()))
        if note:
            warnings.warn(f"act: {note}", stacklevel=2)
        with torch.no_grad():
            batch = self.prepare(observation)
            kept = self._keep(batch) if cached else None
            if self._is_flow:
                state = batch["observation.state"]
                noise = first_noise(batch, (len(state), *self._spec.action), state.device)
                steps, method = self._steps, self._method
                predicted = integrate(lambda x, t: self._predict(batch, self._noisy(x, t), kept), noise, steps, method)
            else:
                predicted = self._predict(batch, self._queries(batch), kept)
            return actions_of(self.action_normalizer, self._spec, predicted, batch)

    def _queries(self, batch: Batch) -> Tensor:
        return self.query.expand(len(batch["observation.state"]), -1, -1)

    def _noisy(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns a token for each action ``(B, H, dim)`` at a point of the path and its time."""
        tokens = self.noisy(x)
        times = _waves(t, tokens.shape[2]).to(tokens.dtype).unsqueeze(1).expand_as(tokens)
        placed: Tensor = self.time(torch.cat([tokens, times], dim=2)) + self.query
        return placed

    def _keep(self, batch: Batch) -> list[Kept]:
        """Returns the keys and values of each layer of the backbone."""
        prefix = self.backbone(batch, batch[IS_PAD])
        hidden, found = prefix.hidden, list[Kept]()
        for i, layer in enumerate(self.layers):
            hidden, _, kept = layer(hidden, None, Shared(prefix.rope, prefix.mask, None, None))
            hidden = self.backbone.with_images(hidden, prefix.deep[i], add=True) if i < len(prefix.deep) else hidden
            found.append(kept)
        return found

    def _predict(self, batch: Batch, actions: Tensor, kept: list[Kept] | None = None) -> Tensor:
        """Returns ``(B, H, A)`` float32 from a token for each action. With ``kept``, the backbone does not run."""
        is_pad = batch[IS_PAD]
        tokens = torch.cat([*self._state(batch), actions], dim=1).float()
        seen = torch.cat([~is_pad, is_pad.new_ones(tokens.shape[:2])], dim=1)[:, None, None]
        prefix = self.backbone(batch, is_pad) if kept is None else None
        rope = self.backbone.suffix_rope(tokens, is_pad, tokens.shape[1])
        shared = Shared(prefix.rope if prefix else None, prefix.mask if prefix else None, rope, seen)
        hidden = prefix.hidden if prefix else None
        for i, layer in enumerate(self.layers):
            hidden, tokens, _ = layer(hidden, tokens, shared, kept[i] if kept else None)
            if prefix and i < len(prefix.deep):
                hidden = self.backbone.with_images(hidden, prefix.deep[i], add=True)
        predicted: Tensor = self.head(self.norm(tokens[:, -self._spec.action[0] :]))
        return predicted.float()

    def _state(self, batch: Batch) -> list[Tensor]:
        """Returns the tokens of state, sensors and robot."""
        robot = batch.get(EMBODIMENT)
        tokens = [] if self.embodiment is None else [self.embodiment(robot).unsqueeze(1)]
        encoders = zip(
            self._num_rows.items(), self.series_normalizers, self.series, self.newest, self.source, strict=True
        )
        for (key, num_rows), normalizer, encoder, newest, source in encoders:
            values, is_pad = (batch[name][:, :num_rows] for name in (key, f"{key}_is_pad"))
            features, past = encoder(normalizer(values, robot), is_pad)
            tokens.append(newest(features).unsqueeze(1) + source)
            tokens += [] if past is None else [past + source]
        return tokens


def _waves(t: Tensor, dim: int) -> Tensor:
    """Returns sines and cosines of times ``(B,)``, ``(B, dim)``, with periods from 4 to 1/250 as in pi0."""
    steps = torch.linspace(0, 1, dim // 2, device=t.device)
    angles = 2 * math.pi * t[:, None] / (4e-3 * 1000**steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
