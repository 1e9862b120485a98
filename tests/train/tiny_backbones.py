"""Vision-language models of the real classes at tiny random sizes, saved in folders with their processors."""
# ruff: noqa: S106 - names of tokens are no passwords

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "smolvlm", "paligemma")
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
_SPECIAL = {
    "qwen": "<pad> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>",
    "smolvlm": "<pad> <|im_start|> <end_of_utterance> <image> <fake_token_around_image> <global-img> <video>",
    "paligemma": "<pad> <bos> <eos> <image>",
}
_WORDS = (
    "user assistant User Assistant : insert needle into red target grasp blue cup push green cube left right to the"
)


def save_backbone_of_size(folder: Path, *, text: dict[str, Any], vision: dict[str, Any], side: int) -> Path:
    """Save a Qwen2.5-VL of these sizes with random weights in bf16, whose images have ``side`` x ``side`` pixels."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model, *parts = _qwen("qwen2_5_vl", text=text, vision=vision, num_pixels=side * side)
    finally:
        torch.set_default_dtype(torch.float32)
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder


def save_tiny_backbone(family: str, folder: Path) -> Path:
    """Save a model with random weights, and its processor."""
    torch.manual_seed(0)
    model, *parts = {
        "qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "smolvlm": _smolvlm, "paligemma": _paligemma
    }[family](family)  # fmt: skip
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _tokenizer(kind: str, **named: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = [word for text in _WORDS.split() for word in (text, f"\u0120{text}")]
    words = list(dict.fromkeys([*sorted(alphabet), *(word for word in words if len(word) > 1)]))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in _SPECIAL[kind].split()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **named)


def _qwen(
    family: str,
    *,
    text: dict[str, Any] = _TEXT,
    vision: dict[str, Any] = _VISION,
    num_pixels: int = 4 * 28 * 28,
) -> tuple[Any, ...]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    tokenizer = _tokenizer("qwen")
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }.items()
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {"vocab_size": len(tokenizer), "rope_parameters": rope, **text}
    if family == "qwen2_5_vl":
        vision = {"patch_size": 14, "window_size": 28, "fullatt_block_indexes": [1], **vision}
        text.pop("head_dim", None)
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        images = Qwen2VLImageProcessor(patch_size=14, min_pixels=28 * 28, max_pixels=num_pixels)
        return Qwen2_5_VLForConditionalGeneration(config), images, tokenizer
    vision = vision | {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    images = Qwen2VLImageProcessor(patch_size=16, min_pixels=32 * 32, max_pixels=4 * 32 * 32)
    return Qwen3VLForConditionalGeneration(config), images, tokenizer


def _smolvlm(_: str) -> tuple[Any, ...]:
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
    )

    tokenizer = _tokenizer("smolvlm", eos_token="<end_of_utterance>")
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    text = {**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0}
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = SmolVLMConfig(text_config=text, vision_config=vision, image_token_id=image_id, scale_factor=2)
    sizes = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    return SmolVLMForConditionalGeneration(config), SmolVLMImageProcessor(**sizes), tokenizer


def _paligemma(_: str) -> tuple[Any, ...]:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = _tokenizer("paligemma", bos_token="<bos>", eos_token="<eos>")
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(images, tokenizer)  # adds its own tokens
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 32,
    }  # fmt: skip
    text = {**_TEXT, "model_type": "gemma", "num_key_value_heads": 1, "vocab_size": len(tokenizer), "pad_token_id": 0}
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = PaliGemmaConfig(text_config=text, vision_config=vision, image_token_id=image_id, projection_dim=32)
    return PaliGemmaForConditionalGeneration(config), processor
