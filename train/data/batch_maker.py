"""Makes batches: takes memory for a batch, opens shards, copies every entry's rows, and marks missing rows.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.surroundings import raise_if_stopped
from vlapipe.train.data.batch_layout import Batch, SampleSpec, batch_entries
from vlapipe.train.data.batch_memory import BatchBuffers
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.images.camera_reader import CameraReader
from vlapipe.train.data.instructions import DrawBy, Instructions
from vlapipe.train.data.joining.embodiments import EMBODIMENT, padding_masks
from vlapipe.train.data.rows.row_addresses import choose_reader
from vlapipe.train.data.rows.row_lookup import BatchRows, RowLookup
from vlapipe.train.data.rows.row_reader import AnyRows, RowReader
from vlapipe.train.data.rows.shard_table import ShardTable
from vlapipe.train.data.sample_steps import Steps

__all__ = ["BatchMaker", "fill"]


class BatchMaker:
    """Makes batches of any size, several at a time; thread-safe."""

    def __init__(
        self,
        sources: Sources,
        steps: Mapping[str, Steps],
        spec: SampleSpec,
        *,
        num_samples: int = 0,
        num_kept: int = 0,
        pinned: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        draw_by: DrawBy = None,
        most_open: int | None = None,
        may_unpack: Callable[[], bool] = lambda: True,
        transforms: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """Keep the memory of ``num_kept`` buffers of ``num_samples`` samples for reuse.

        ``seed`` is that of the augmentation and of the draws of paraphrases, see ``Instructions`` for ``draw_by``.
        ``most_open``: limit on idle open shards (least recently used are closed); ``None`` keeps all open.
        ``may_unpack()`` says whether a background thread may unpack shards. ``transforms`` is called with each batch.
        """
        self._transforms = transforms
        self._sources, self._form, self._newest = sources, spec.action_form, spec.newest
        self._masks = padding_masks([*spec.embodiments.values()], spec.state[1], spec.action[1])
        self._shards = ShardTable(sources, most_open, may_unpack)
        self._reader = choose_reader(self._shards)
        self._locator = RowLookup(sources, self._shards, self._reader, steps)
        self._cameras = {
            camera: CameraReader(
                self._shards,
                self._reader,
                camera,
                shape,
                augmentation,
                seed,
                sources.image_channels(camera),
                spec.image_resize,
                is_depth=camera in spec.depth,
                place_of=sources.image_place,
            )
            for camera, shape in spec.images.items()
        }
        self._buffers = BatchBuffers(batch_entries(spec), num_samples, num_kept, pinned=pinned)
        self.instructions = Instructions(sources, self._reader, draw_by, seed)

    @property
    def is_settled(self) -> bool:
        """Whether the time of a batch is representative: no shard is being unpacked in the background."""
        return not self._shards.is_unpacking

    def make(self, frames: BatchPlan, num_batches: int = 1) -> list[Batch]:
        """Read the samples and return them as ``num_batches`` batches of one size, which share one block of memory.

        Raises:
            DamageError: a shard is damaged, or an image cannot be decoded; the message names the shard or the image.
            StoppedError: memory ran out, or a limit of this process was reached.
        """
        try:
            arrays, tensors = self._buffers.lend(len(frames.index))
            with self._shards.lease(frames.shard):
                fill(arrays, self._locator.locate(frames), self._reader, self._cameras)
                tasks = self.instructions.of(frames)
            if EMBODIMENT in arrays:
                robots = arrays[EMBODIMENT][...] = self._sources.robot_of(frames.episode)
                for key, mask in self._masks.items():
                    arrays[key][...] = mask[robots]
        except (OSError, MemoryError) as error:
            raise_if_stopped(error, self._named(frames))
            raise
        for camera in self._cameras:
            key = f"observation.images.{camera}"
            tensors[key] = tensors[key].permute(0, 1, 4, 2, 3)
        if self._form is not None:
            state = tensors[STATE][:, self._newest]
            # An action that starts from a missing state says nothing.
            if self._form.needs_state and self._form.origin_may_lack:
                tensors["action_is_pad"] |= tensors[f"{STATE}_is_pad"][:, self._newest, None]
            tensors["action"] = self._form.encode(tensors["action"], state, tensors["action_is_pad"])
        batches = _split({**tensors, "task": tasks}, len(tasks) // num_batches)
        return batches if self._transforms is None else [self._transforms(batch) for batch in batches]

    def _named(self, frames: BatchPlan) -> str:
        episodes = sorted({self._sources.episode_id(episode) for episode in frames.episode.tolist()})
        named = ", ".join(episodes[:4]) + (f" and {len(episodes) - 4} more" if len(episodes) > 4 else "")
        return f"{self._sources.name()}: a batch of {named}"


def _split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into batches of ``size`` samples, which are views of its memory."""
    tasks = batch["task"]
    if size == len(tasks):
        return [batch]
    parts = {key: value.split(size) for key, value in batch.items() if key != "task"}
    parts["task"] = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def fill(
    out: dict[str, NDArray[Any]], places: BatchRows, reader: RowReader, cameras: Mapping[str, CameraReader]
) -> None:
    """Copy every entry of a batch into ``out``: C-contiguous arrays by key, images as (B, T, height, width, 3).

    Actions are zero if the episode has ended or the row has no action.

    Raises:
        DamageError: an image cannot be decoded; the message names it.
    """
    for key, rows in places.windows.items():
        entry, is_pad = out[key], out[f"{key}_is_pad"]
        if key not in places.present:
            _copy(rows, reader, entry, is_pad)
            continue
        entry[...], is_pad[...] = 0, True
        present = places.present[key]
        if len(present):
            found, found_pad = entry[present], is_pad[present]
            _copy(rows, reader, found, found_pad)
            entry[present], is_pad[present] = found, found_pad
    if places.state_is_missing is not None:
        missing = np.empty((*out[f"{STATE}_is_pad"].shape, 1), dtype=np.uint8)
        reader.read(places.state_is_missing, missing)
        out[f"{STATE}_is_pad"] |= missing[:, :, 0].astype(bool)
    _copy(places.actions, reader, out["action"], out["action_is_pad"])
    if places.no_action is not None:
        out["action_is_pad"] |= places.no_action
    if out["action_is_pad"].any():
        out["action"][out["action_is_pad"]] = 0
    for camera, images in places.images.items():
        key = f"observation.images.{camera}"
        if key not in places.present:
            out[f"{key}_is_pad"][...] = images.is_pad
            cameras[camera].read(images.frames, images, out[key])
            continue
        out[key][...], out[f"{key}_is_pad"][...] = 0, True
        present = places.present[key]
        if len(present):
            out[f"{key}_is_pad"][present] = images.is_pad
            found = out[key][present]
            cameras[camera].read(images.frames, images, found)
            out[key][present] = found
    out["episode_index"][...] = places.frames.episode
    out["frame_index"][...] = places.frames.row
    out["index"][...] = places.frames.index
    out["timestamp"][...] = places.time


def _copy(rows: AnyRows, reader: RowReader, out: NDArray[Any], is_pad: NDArray[np.bool_]) -> None:
    reader.read(rows, out)
    is_pad[...] = False
    is_pad[rows.apart] = rows.is_pad
