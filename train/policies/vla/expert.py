"""The action expert: a small transformer whose layers attend to the keys and values of the backbone's layers.

The backbone reads images and instruction (the prefix) and never sees the expert's tokens (the suffix), as in pi0 (Black
et al. 2024). So the prefix's keys and values may be kept while the suffix changes.

Shape letters: B batch, N prefix tokens, S suffix tokens, F features of a head.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

__all__ = ["ExpertLayer", "Kept", "Rope", "Shared", "SharedLayer"]

Rope = tuple[Tensor, Tensor]  # cosines and sines of each token's position
Kept = tuple[Tensor, Tensor]  # keys and values of the prefix, each (B, heads, N, F), keys with their positions


class Shared(NamedTuple):
    """What all layers of a pass share; an entry is None if the pass has no such tokens, or needs no such mask."""

    prefix_rope: Rope | None
    prefix_mask: Tensor | None
    suffix_rope: Rope | None
    suffix_mask: Tensor | None  # (B, 1, 1, N + S) bool: which tokens the suffix sees


class _Capture:
    """Takes the place of the cache that a layer of the backbone writes to, and remembers keys and values."""

    kept: Kept | None = None

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Kept:
        self.kept = key, value
        return self.kept


class SharedLayer(nn.Module):
    """One layer of the backbone, and the layer of the expert that reads its keys and values."""

    def __init__(self, backbone: nn.Module, expert: ExpertLayer) -> None:
        super().__init__()
        self.backbone, self.expert = backbone, expert
        named = inspect.signature(backbone.forward).parameters
        self._cache = "cache" if "cache" in named else "past_key_values"

    def forward(
        self, prefix: Tensor | None, suffix: Tensor | None, shared: Shared, kept: Kept | None = None
    ) -> tuple[Tensor | None, Tensor | None, Kept]:
        """Returns prefix, suffix, and the prefix's keys and values.

        Without a ``prefix``, these must be given as ``kept``. Without a ``suffix``, the expert computes nothing.
        """
        if prefix is not None:
            capture = _Capture()
            prefix = self.backbone(
                prefix,
                attention_mask=shared.prefix_mask,
                position_embeddings=shared.prefix_rope,
                use_cache=True,
                **{self._cache: capture},
            )
            kept = capture.kept
        assert kept is not None, "neither a prefix nor its keys and values"
        if suffix is not None:
            assert shared.suffix_rope is not None
            suffix = self.expert(suffix, kept, shared.suffix_rope, shared.suffix_mask)
        return prefix, suffix, kept


class ExpertLayer(nn.Module):
    """Attention over prefix and suffix with the backbone's heads, then a gated perceptron; narrower."""

    def __init__(self, dim: int, *, num_heads: int, num_key_heads: int, head_size: int, depth: int) -> None:
        super().__init__()
        self._head_size, self._is_grouped = head_size, num_heads != num_key_heads
        self.attention_norm = nn.RMSNorm(dim, eps=1e-6)
        self.query = nn.Linear(dim, num_heads * head_size, bias=False)
        self.key_value = nn.Linear(dim, 2 * num_key_heads * head_size, bias=False)
        self.attention_out = nn.Linear(num_heads * head_size, dim, bias=False)
        self.mlp_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mlp_in = nn.Linear(dim, 2 * 3 * dim, bias=False)
        self.mlp_out = nn.Linear(3 * dim, dim, bias=False)
        for linear in (self.attention_out, self.mlp_out):
            # Each layer adds twice to the residual. The scale keeps its variance independent of depth (GPT-2).
            nn.init.normal_(linear.weight, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, tokens: Tensor, kept: Kept, rope: Rope, mask: Tensor | None) -> Tensor:
        """Returns ``(B, S, dim)``."""
        normed = self.attention_norm(tokens)
        key, value = self.key_value(normed).chunk(2, dim=-1)
        query, key = (_rotated(self._heads(x), rope) for x in (self.query(normed), key))
        key = torch.cat([kept[0], key.to(kept[0].dtype)], dim=2)
        value = torch.cat([kept[1], self._heads(value).to(kept[1].dtype)], dim=2)
        mixed = F.scaled_dot_product_attention(
            query.to(value.dtype), key.to(value.dtype), value, attn_mask=mask, enable_gqa=self._is_grouped
        )
        tokens = tokens + self.attention_out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.mlp_in(self.mlp_norm(tokens)).chunk(2, dim=-1)
        out: Tensor = tokens + self.mlp_out(F.silu(gate) * up)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self._head_size).transpose(1, 2)


def _rotated(x: Tensor, rope: Rope) -> Tensor:
    """Rotary position embedding (Su et al. 2021), with the two halves of a head as pairs, as in all the backbones."""
    cos, sin = (part.unsqueeze(1) for part in rope)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
