"""Runs the model's own processor on images and instructions, in the loader's threads.

All samples of a run have the same cameras, so their prompts differ in the instruction alone, which comes last. What the
processor says about the images besides their pixels is therefore found once, from a prompt without an instruction.

Shape letters: B batch, T rows of a camera's window, K images of a sample, L tokens of a prompt, M of them image tokens.
"""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.policies.vla.families import Family

__all__ = ["IDS", "IS_PAD", "PIXELS", "PromptReader"]

IDS, IS_PAD, PIXELS = "task.ids", "task.ids_is_pad", "task.pixels"
_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}
_SHOWN = 200  # characters of an instruction that a message shows


class PromptReader:
    """Makes ``task.ids`` and ``task.ids_is_pad`` (B, L) and ``task.pixels`` (B, P, ...) of images and instructions.

    Each prompt is padded at its end to one length. An image that is padding is black. Several threads may call it.
    """

    def __init__(self, processor: Any, family: Family, spec: SampleSpec, *, max_tokens: int) -> None:
        self._processor, self._family, self._spec = processor, family, spec
        self._idle: deque[Any] = deque()  # copies of the processor
        self.max_tokens = max_tokens
        self._cameras = {f"observation.images.{camera}": shape for camera, shape in spec.images.items()}
        self._num_rows = {key: shape[0] - spec.ahead_rows for key, shape in self._cameras.items()}
        self.num_images = sum(self._num_rows.values())
        images = [torch.zeros(3, *self._cameras[key][2:], dtype=torch.uint8) for key in self._rows()]
        found = self._processed([""], [images], {})
        self.template: Tensor = found["input_ids"]  # (1, L) of a prompt without an instruction
        self.length = self.template.shape[1] + max_tokens
        self.of_images = {
            name: value.squeeze(0) if value.shape[0] == 1 and value.dim() > 2 else value
            for name, value in found.items()
            if name not in _TEXT and name != "pixel_values"
        }
        self._cut: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": deque()}

    def _rows(self) -> list[str]:
        return [key for key in self._cameras for _ in range(self._num_rows[key])]

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with what the model reads, on the CPU or where the batch is."""
        if IDS in batch:
            return batch
        device = batch["observation.state"].device
        by_camera = [self._images(batch, key) for key in self._cameras]
        images = [[image for rows in sample for image in rows.unbind()] for sample in zip(*by_camera, strict=True)]
        texts = [self._text(text) for text in batch["task"]]
        found = self._processed(texts, images, {"padding": "max_length", "max_length": self.length})
        ids = found["input_ids"]
        if ids.shape[1] != self.length:
            problem = f"policy vla: expected prompts of {self.length} tokens, the processor made {ids.shape[1]}"
            raise UsageError(problem, "say a larger max_tokens in policy_args")
        pixels = found["pixel_values"]
        pixels = pixels.reshape(len(ids), -1, *pixels.shape[1:])
        read = {IDS: ids, IS_PAD: found["attention_mask"] == 0, PIXELS: pixels}
        return batch | {key: value.to(device) for key, value in read.items()}

    def _images(self, batch: Batch, key: str) -> Tensor:
        """Returns a camera's images ``(B, T, 3, height, width)`` uint8 on the CPU."""
        rows = self._num_rows[key]
        images, is_pad = batch[key][:, :rows].cpu(), batch[f"{key}_is_pad"][:, :rows].cpu()
        unit = self._spec.depth.get(key.removeprefix("observation.images."))
        if unit is not None:
            metres = images.to(torch.float32) * unit
            images = (255 * metres / (metres + 1)).round().to(torch.uint8).expand(-1, -1, 3, -1, -1)
        black: Tensor = images.masked_fill(is_pad[:, :, None, None, None], 0)
        return black

    def _processed(self, texts: list[str], images: list[list[Tensor]], options: dict[str, Any]) -> dict[str, Tensor]:
        with self._borrowed() as processor:
            prompts = [self._family.prompt(processor, self.num_images, text) for text in texts]
            options = {**options, "padding_side": "right", **self._family.processor_options}
            return dict(processor(text=prompts, images=images, return_tensors="pt", **options))

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """Give a processor that no other thread uses: a tokenizer cannot be used by two at once."""
        try:
            processor = self._idle.pop()
        except IndexError:
            processor = copy.deepcopy(self._processor)
        try:
            yield processor
        finally:
            self._idle.append(processor)

    def num_tokens(self, text: str) -> int:
        """Returns the number of tokens of an instruction."""
        with self._borrowed() as processor:
            return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, text: str) -> str:
        """Returns an instruction without what stands for an image, cut after a word if it is too long."""
        if text not in self._cut:
            words = text.replace(self._processor.image_token, " ").split()
            while words and self.num_tokens(" ".join(words)) >= self.max_tokens:  # one token less: it may join others
                words.pop()
            self._cut[text] = " ".join(words)
        return self._cut[text]

    def cut_note(self, instructions: Sequence[str]) -> str:
        """Returns a sentence about the instructions that are not read to their end; empty if there are none."""
        cut = [text for text in instructions if self.num_tokens(text) >= self.max_tokens]
        if not cut:
            return ""
        longest = max(cut, key=self.num_tokens)
        shown = longest if len(longest) <= _SHOWN else f"{longest[:_SHOWN]}..."
        most = self.num_tokens(longest)
        return (
            f"{len(cut)} of {len(instructions)} instructions are longer than the {self.max_tokens - 1} tokens that are "
            f"read; the longest has {most}: {shown!r} (say max_tokens = {most + 1} in policy_args)"
        )
