"""Blocks of attention and perceptrons, without an attention mask. The encoders mark absent inputs in the tokens.

Without a mask, attention uses the fastest kernel of the hardware (Flash on a GPU).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

__all__ = ["Block", "Trunk", "perceptron"]


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Returns two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, outputs))


class Block(nn.Module):
    """Attention to other tokens, if ``attends``, then a two-layer perceptron. Each adds its result to its input."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: int = 4,
        attends: bool = True,
        attention_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Create the layers. ``attention_dim`` is the width of queries, keys and values of all heads; None: ``dim``."""
        super().__init__()
        width = dim if attention_dim is None else attention_dim
        if width % num_heads:
            raise ValueError(f"expected a width that is a multiple of num_heads, found {width} and {num_heads}")
        self.num_heads, self.attends = num_heads, attends
        if attends:
            self.attention_norm = nn.LayerNorm(dim)
            self.token_norm = nn.LayerNorm(dim)
            self.query = nn.Linear(dim, width)
            self.key_value = nn.Linear(dim, 2 * width)
            self.attention_out = nn.Linear(width, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, mlp_ratio * dim)
        self.mlp_out = nn.Linear(mlp_ratio * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Returns ``x`` ``(B, Q, dim)``, which has read ``tokens`` ``(B, N, dim)``: its own, if they are None."""
        if self.attends:
            key, value = self.key_value(self.token_norm(x if tokens is None else tokens)).chunk(2, dim=-1)
            mixed = F.scaled_dot_product_attention(
                self._heads(self.query(self.attention_norm(x))), self._heads(key), self._heads(value)
            )
            x = x + self.dropout(self.attention_out(mixed.transpose(1, 2).flatten(2)))
        hidden = F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")
        out: Tensor = x + self.dropout(self.mlp_out(self.dropout(hidden)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class Trunk(nn.Module):
    """A sequence of blocks in which few tokens read many, which costs little: what is read is not changed.

    Keys and values are narrow, because they are computed for every token in every block.
    """

    def __init__(
        self,
        dim: int,
        *,
        depth: int,
        num_heads: int,
        mlp_ratio: int = 4,
        attends: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                attends=attends,
                attention_dim=num_heads * max(8, dim // (4 * num_heads)),
                dropout=dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        for block in self.blocks:
            # Each block adds twice to the residual. The scale keeps its variance independent of depth (GPT-2).
            for linear in (block.attention_out, block.mlp_out) if attends else (block.mlp_out,):
                nn.init.normal_(linear.weight, std=0.02 / (2 * depth) ** 0.5)  # type: ignore[arg-type, union-attr]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type, union-attr]

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """Returns ``x`` ``(B, Q, dim)`` after it has read ``tokens`` ``(B, N, dim)`` in each block."""
        for block in self.blocks:
            x = block(x, tokens)
        normed: Tensor = self.norm(x)
        return normed
