"""Loads a vision-language model and takes it apart: image encoder, embeddings, and layers that the expert shares."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.policies.nn.hugging_face import quiet_transformers, reading
from vlapipe.train.policies.vla.expert import Rope
from vlapipe.train.policies.vla.families import Family, family_of
from vlapipe.train.policies.vla.inputs import IDS, PIXELS, PromptReader

__all__ = ["Backbone", "Heads", "Prefix", "load_backbone"]


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Sizes of the backbone that the expert has to fit."""

    dim: int
    num_heads: int
    num_key_heads: int
    head_size: int


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the backbone's layers begin with."""

    hidden: Tensor  # (B, L, dim)
    rope: Rope
    mask: Tensor | None
    deep: list[Tensor]  # (B, M, dim) each: added to the image tokens after the first layers


class Backbone(nn.Module):
    """A vision-language model without its layers of language, which ``load_backbone`` returns apart from it."""

    positions: Tensor  # (axes, L)
    image_index: Tensor  # (M,): where the image tokens are in a prompt

    def __init__(self, model: Any, family: Family, reader: PromptReader) -> None:
        super().__init__()
        self.model = model
        self._family = family
        positions = family.positions(model, reader.template, reader.of_images)
        more = positions[:, -1:] + torch.arange(1, reader.max_tokens + 1)
        is_image = reader.template[0] == model.config.image_token_id
        self.register_buffer("positions", torch.cat([positions, more], dim=1), persistent=False)
        self.register_buffer("image_index", is_image.nonzero()[:, 0], persistent=False)
        self._of_images = [*reader.of_images]
        for name, value in reader.of_images.items():
            self.register_buffer(f"of_images_{name}", value, persistent=False)

    @property
    def text(self) -> Any:
        """The model of language, without its layers."""
        return self._family.text(self.model)

    def vision_blocks(self) -> list[nn.Module]:
        """Returns the layers of the image encoder."""
        return [*self._family.vision_blocks(self.model)]

    def unread(self) -> list[nn.Parameter]:
        """Returns the parameters that no answer depends on: of what sums up an image for other uses."""
        return [parameter for part in self._family.unread(self.model) for parameter in part.parameters()]

    def forward(self, batch: Batch, is_pad: Tensor) -> Prefix:
        """Returns the tokens of images and instruction; ``is_pad`` ``(B, L)``."""
        embed, ids = self.text.get_input_embeddings(), batch[IDS]
        hidden = embed(ids.masked_fill(ids >= embed.num_embeddings, 0))  # PaliGemma's image token may have no row
        of_images = {name: getattr(self, f"of_images_{name}") for name in self._of_images}
        images, deep = self._family.features(self.model, batch[PIXELS], of_images)
        hidden = self.with_images(hidden, images)
        rope = self._family.rope(self.text, hidden, self.positions[:, None].expand(-1, len(ids), -1))
        # A token that sees only the tokens before it never sees the padding, which is last. So such a model needs no
        # mask, and its attention takes the fastest kernel.
        mask = None if self._family.is_causal else ~is_pad[:, None, None]
        return Prefix(hidden=hidden, rope=rope, mask=mask, deep=deep)

    def with_images(self, hidden: Tensor, images: Tensor, *, add: bool = False) -> Tensor:
        """Returns ``hidden`` with ``images`` ``(B, M, dim)`` in the place of the image tokens, or added to them."""
        images = images.to(hidden.dtype)
        change = hidden.index_add if add else hidden.index_copy
        return change(1, self.image_index, images)

    def suffix_rope(self, like: Tensor, is_pad: Tensor, num_tokens: int) -> Rope:
        """Returns the positions of ``num_tokens`` tokens that follow the prompt, as cosines and sines."""
        last = self.positions[0][(~is_pad).sum(dim=1) - 1]
        positions = last[:, None] + torch.arange(1, num_tokens + 1, device=last.device)
        return self._family.suffix_rope(self.text, like, positions)


def load_backbone(
    name: str, spec: SampleSpec, *, num_layers: int | None, max_tokens: int
) -> tuple[Backbone, list[nn.Module], Heads, PromptReader]:
    """Read a model and its processor from a folder, or from the hub by its name.

    Returns the backbone without its layers of language, the first ``num_layers`` of these, their sizes, and what reads
    images and instructions for it.

    Raises:
        UsageError: transformers is missing, or the model cannot be read or is of an unknown family.
    """
    where = f"policy_args backbone {name!r}"
    if not spec.images:
        raise UsageError("policy vla: expected a camera, the samples have none", "add cameras, or --policy regression")
    transformers = quiet_transformers("policy vla")
    with reading(where, "config.json, weights and processor"):
        config = transformers.AutoConfig.from_pretrained(name)
        family = family_of(config.model_type, where)
        attention = _attention(family)
        model = transformers.AutoModel.from_pretrained(name, dtype=torch.float32, attn_implementation=attention)
        processor = family.processor(name, model)
    text, sizes = family.text(model), config.get_text_config()
    layers = [*text.layers]
    if num_layers is not None and num_layers > len(layers):
        raise UsageError(f"policy_args num_layers: expected at most {len(layers)}, found {num_layers}")
    # What comes after the layers is never read: neither the norm nor what turns tokens into words.
    text.layers, text.norm = nn.ModuleList(), nn.Identity()
    reader = PromptReader(processor, family, spec, max_tokens=max_tokens)
    heads = Heads(
        dim=sizes.hidden_size,
        num_heads=sizes.num_attention_heads,
        num_key_heads=sizes.num_key_value_heads,
        head_size=getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads,
    )
    return Backbone(model, family, reader), layers[:num_layers], heads, reader


def _attention(family: Family) -> str:
    """Returns the name of the kernel: FlashAttention-2 if it can run here, else torch's own choice."""
    can_flash = family.has_flash and torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if can_flash else "sdpa"
