"""One adapter for each family of vision-language models: how it is prompted, and where its parts are.

Everything that differs between the families is here. Shape letters: B batch, K images of a sample, M image tokens of a
sample, L tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError

__all__ = ["FAMILIES", "Family", "family_of"]


class Family:
    """The adapter of a family. ``model`` is the family's class in transformers, without its head for language."""

    name = ""
    model_types: tuple[str, ...] = ()  # in config.json
    is_causal = True  # whether the prompt's tokens see only the tokens before them, as the model was trained
    has_flash = True  # whether FlashAttention-2 may compute its attention
    processor_options: Mapping[str, Any] = MappingProxyType({})

    def prompt(self, processor: Any, num_images: int, instruction: str) -> str:
        """Returns the text that the processor turns into tokens. All images come before the instruction."""
        raise NotImplementedError

    def processor(self, name: str, model: Any) -> Any:  # noqa: ARG002
        """Read the model's processor from the folder or hub name ``name``."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(name)

    def text(self, model: Any) -> Any:
        """Returns the model of language."""
        return model.language_model

    def vision_blocks(self, model: Any) -> Iterable[nn.Module]:
        """Returns the layers of the image encoder."""
        raise NotImplementedError

    def unread(self, model: Any) -> Iterable[nn.Module]:  # noqa: ARG002
        """Returns the parts that image tokens do not depend on."""
        return ()

    def features(self, model: Any, pixels: Tensor, of_images: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Returns the image tokens ``(B, M, dim)``, and what is added to them after each of the first layers.

        ``pixels`` ``(B, P, ...)`` are the processor's, P entries for each sample. ``of_images`` holds the processor's
        other entries, ``(K, ...)``, which are the same for each sample.
        """
        raise NotImplementedError

    def positions(self, model: Any, ids: Tensor, of_images: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Returns the positions of the tokens of a prompt ``ids`` ``(1, L)``: ``(1, L)``, or ``(3, L)`` in axes."""
        return torch.arange(ids.shape[1])[None]

    def rope(self, text: Any, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines for the backbone's layers, of positions ``(axes, B, L)``."""
        cos, sin = text.rotary_emb(like, positions[0])
        return cos, sin

    def suffix_rope(self, text: Any, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines ``(B, S, F)`` of positions ``(B, S)``, of tokens that are no image."""
        return self.rope(text, like, positions[None])


def _by_sample(tokens: Tensor, size: int) -> Tensor:
    """Returns image tokens ``(B * M, dim)`` as ``(B, M, dim)``."""
    return tokens.reshape(size, -1, tokens.shape[-1])


def _without_videos(class_name: str, name: str, **more: Any) -> Any:
    """Read a processor without its part for videos, which needs torchvision and is never used."""
    import transformers

    class OnlyImages(getattr(transformers, class_name)):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    images = transformers.AutoImageProcessor.from_pretrained(name)
    return OnlyImages(images, transformers.AutoTokenizer.from_pretrained(name), None, **more)


class _Qwen(Family):
    processor_class = ""

    def processor(self, name: str, model: Any) -> Any:  # noqa: ARG002
        return _without_videos(self.processor_class, name)

    def prompt(self, processor: Any, num_images: int, instruction: str) -> str:
        images = f"<|vision_start|>{processor.image_token}<|vision_end|>" * num_images
        return f"<|im_start|>user\n{images}{instruction}<|im_end|>\n<|im_start|>assistant\n"

    def vision_blocks(self, model: Any) -> Iterable[nn.Module]:
        blocks: Iterable[nn.Module] = model.visual.blocks
        return blocks

    def features(self, model: Any, pixels: Tensor, of_images: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        grid = of_images["image_grid_thw"].repeat(len(pixels), 1)
        found = model.visual(pixels.flatten(0, 1), grid_thw=grid)
        deep = getattr(found, "deepstack_features", None) or []
        tokens, *more = (_by_sample(each, len(pixels)) for each in (found.pooler_output, *deep))
        return tokens, more

    def positions(self, model: Any, ids: Tensor, of_images: Mapping[str, Tensor]) -> Tensor:
        is_image = (ids == model.config.image_token_id).int()
        found, _ = model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=of_images["image_grid_thw"])
        positions: Tensor = found[:, 0]
        return positions


class Qwen25VL(_Qwen):
    """Qwen2.5-VL. Its layers choose for each part of a head which of the three axes it follows."""

    name = "Qwen2.5-VL"
    model_types = ("qwen2_5_vl",)
    processor_class = "Qwen2_5_VLProcessor"

    def rope(self, text: Any, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns them for three axes."""
        cos, sin = text.rotary_emb(like, positions.expand(3, -1, -1))
        return cos, sin


class Qwen3VL(Qwen25VL):
    """Qwen3-VL. Features of earlier layers of its image encoder are added after its first layers (DeepStack)."""

    name = "Qwen3-VL"
    model_types = ("qwen3_vl",)
    processor_class = "Qwen3VLProcessor"


class SmolVLM2(Family):
    """SmolVLM2. Images are not cut into parts, as SmolVLA does (Shukor et al. 2025)."""

    name = "SmolVLM2"
    model_types = ("smolvlm",)
    processor_options = MappingProxyType({"do_image_splitting": False})

    def processor(self, name: str, model: Any) -> Any:
        return _without_videos("SmolVLMProcessor", name, image_seq_len=model.image_seq_len)

    def prompt(self, processor: Any, num_images: int, instruction: str) -> str:
        return f"<|im_start|>User:{processor.image_token * num_images}{instruction}<end_of_utterance>\nAssistant:"

    def text(self, model: Any) -> Any:
        return model.text_model

    def vision_blocks(self, model: Any) -> Iterable[nn.Module]:
        blocks: Iterable[nn.Module] = model.vision_model.encoder.layers
        return blocks

    def features(self, model: Any, pixels: Tensor, of_images: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        mask = of_images["pixel_attention_mask"].repeat(len(pixels), 1, 1, 1)
        found = model.get_image_features(pixels.squeeze(1), mask, return_dict=True).pooler_output
        return _by_sample(torch.cat([*found]), len(pixels)), []


class PaliGemma(Family):
    """PaliGemma and PaliGemma 2. Every token of the prompt sees every other, as the model was trained."""

    name = "PaliGemma"
    model_types = ("paligemma",)
    is_causal, has_flash = False, False

    def prompt(self, processor: Any, num_images: int, instruction: str) -> str:
        return f"{processor.image_token * num_images}{instruction}"  # the processor adds the rest

    def vision_blocks(self, model: Any) -> Iterable[nn.Module]:
        blocks: Iterable[nn.Module] = self._tower(model).encoder.layers
        return blocks

    def unread(self, model: Any) -> Iterable[nn.Module]:
        head = getattr(self._tower(model), "head", None)
        return () if head is None else (head,)

    def _tower(self, model: Any) -> Any:
        return getattr(model.vision_tower, "vision_model", model.vision_tower)

    def features(self, model: Any, pixels: Tensor, of_images: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:  # noqa: ARG002
        found = model.get_image_features(pixels.flatten(0, 1), return_dict=True).pooler_output
        return _by_sample(found.flatten(0, 1), len(pixels)), []

    def positions(self, model: Any, ids: Tensor, of_images: Mapping[str, Tensor]) -> Tensor:
        return super().positions(model, ids, of_images) + 1  # the first position is 1


FAMILIES: tuple[Family, ...] = (Qwen25VL(), Qwen3VL(), SmolVLM2(), PaliGemma())


def family_of(model_type: str, where: str) -> Family:
    """Returns the family of a model, by the ``model_type`` of its ``config.json``. ``where`` begins the message.

    Raises:
        UsageError: no adapter knows it.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise UsageError(f"{where}: a model of type {model_type!r} is not known", f"give a model of {known}")
