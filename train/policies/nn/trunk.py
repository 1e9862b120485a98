"""A pre-norm transformer over tokens, without an attention mask. The encoders mark absent inputs in the tokens.

Without a mask, attention uses the fastest kernel of the hardware (Flash on a GPU).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

__all__ = ["Block", "Trunk"]


class Block(nn.Module):
    """Self-attention, then a two-layer perceptron. Each adds its result to its input."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: int = 4) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"expected dim to be a multiple of num_heads, found {dim} and {num_heads}")
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, mlp_ratio * dim)
        self.mlp_out = nn.Linear(mlp_ratio * dim, dim)

    def forward(self, tokens: Tensor, num_out: int | None = None) -> Tensor:
        """Returns ``(B, N, dim)``, or only the first ``num_out`` tokens. These still attend to all N tokens."""
        normed = self.attention_norm(tokens)
        kept, normed_kept = tokens[:, :num_out], normed[:, :num_out]
        key, value = self.key_value(normed).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            self._heads(self.query(normed_kept)), self._heads(key), self._heads(value)
        )
        kept = kept + self.attention_out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = kept + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(kept)), approximate="tanh"))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class Trunk(nn.Module):
    """A sequence of blocks. The last block computes only the tokens that are returned."""

    def __init__(self, dim: int, *, depth: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        for block in self.blocks:
            # Each block adds twice to the residual. The scale keeps its variance independent of depth (GPT-2).
            for linear in (block.attention_out, block.mlp_out):
                nn.init.normal_(linear.weight, std=0.02 / (2 * depth) ** 0.5)  # type: ignore[arg-type, union-attr]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type, union-attr]

    def forward(self, tokens: Tensor, num_out: int) -> Tensor:
        """Returns the first ``num_out`` tokens, ``(B, num_out, dim)``, of ``tokens`` ``(B, N, dim)``."""
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, num_out if i == last else None)
        normed: Tensor = self.norm(tokens[:, :num_out])
        return normed
