"""Encodes an instruction in any language. Words are hashed, so there is no vocabulary to store.

Python's own ``hash`` differs between processes. This module uses BLAKE2b, which gives the same result everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlapipe.train.policies.nn.trunk import Block

__all__ = ["InstructionEncoder", "num_words", "word_ids"]

# A word is a sequence of letters and digits. In scripts without spaces (Thai, Lao, Khmer, kana, Han) a word is one
# character.
_WORD = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]|[^\W_]+")
_SHOWN = 200  # characters of an instruction that a message shows
_WIDTH, _NUM_HEADS = 64, 4  # of the block
_HASHES = 2  # a word is the sum of two rows, so two words are confused only if both hashes collide


@functools.lru_cache(maxsize=65_536)
def word_ids(text: str, num_buckets: int, max_words: int) -> tuple[tuple[int, ...], ...]:
    """Returns the table rows of the first ``max_words`` words: ``(words, 2)``, each from 1 to ``num_buckets - 1``."""
    return tuple(_rows(word, num_buckets) for word in _words(text)[:max_words])


@functools.lru_cache(maxsize=65_536)
def num_words(text: str) -> int:
    """Returns the number of words of an instruction."""
    return len(_words(text))


def _words(text: str) -> list[str]:
    words: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return words


def _rows(word: str, num_buckets: int) -> tuple[int, ...]:
    digest = hashlib.blake2b(word.encode(), digest_size=8 * _HASHES).digest()
    parts = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_HASHES)]
    return tuple(1 + part % (num_buckets - 1) for part in parts)


class InstructionEncoder(nn.Module):
    """Encodes an instruction as one vector: one transformer block over the words in order, then their mean.

    Row 0 of the table stands for an absent word and stays zero. The block is narrow, because instructions of robots
    have few words, and works once on each different instruction of a batch.
    """

    def __init__(self, dim: int, *, num_buckets: int = 2048, max_words: int = 24) -> None:
        super().__init__()
        self.num_buckets, self.max_words = num_buckets, max_words
        self.table = nn.Embedding(num_buckets, _WIDTH, padding_idx=0)
        self.position = nn.Parameter(torch.randn(max_words, _WIDTH) * 0.02)
        self.block = Block(_WIDTH, _NUM_HEADS)
        self.norm = nn.LayerNorm(_WIDTH)
        self.out = nn.Linear(_WIDTH, dim)

    def ids(self, task: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns table rows ``(U, max_words, 2)`` int64 of the different instructions, and which ``(B,)`` is whose.

        Rows are 0 after the end of an instruction. U is rounded up to a power of two, because torch.compile compiles
        again for each number.
        """
        place = {text: i for i, text in enumerate(dict.fromkeys(task))}
        out = torch.zeros(1 << (len(place) - 1).bit_length(), self.max_words, _HASHES, dtype=torch.int64)
        for text, i in place.items():
            found = word_ids(text, self.num_buckets, self.max_words)
            if found:
                out[i, : len(found)] = torch.tensor(found)
        which = torch.tensor([place[text] for text in task])
        return out.to(device, non_blocking=True), which.to(device, non_blocking=True)

    def cut_note(self, instructions: Sequence[str]) -> str:
        """Returns a sentence about the instructions that have more than ``max_words`` words; empty if none has."""
        cut = [text for text in instructions if num_words(text) > self.max_words]
        if not cut:
            return ""
        longest = max(cut, key=num_words)
        shown = longest if len(longest) <= _SHOWN else f"{longest[:_SHOWN]}..."
        return (
            f"{len(cut)} of {len(instructions)} instructions are longer than the {self.max_words} words that are read "
            f"(in scripts without spaces, characters); the longest has {num_words(longest)}: {shown!r} "
            f"(say max_words = {num_words(longest)} in policy_args)"
        )

    def forward(self, ids: Tensor, which: Tensor) -> Tensor:
        """Returns one vector for each sample, ``(B, dim)``, from what ``ids`` gave."""
        present = (ids[..., :1] > 0).to(self.position.dtype)
        words = (self.table(ids).sum(dim=2) + self.position) * present
        words = self.norm(self.block(words))
        weight = present.expand_as(words)
        said: Tensor = self.out((words * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0))
        return said[which]
