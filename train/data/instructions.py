"""Gives each sample its text: the row's own instruction, else the episode's, of whose paraphrases one is drawn.

A draw is a pure function of the seed and the sample's position in the global sequence, as in augmentation. So it is the
same for any number of ranks and threads, and a frame that comes again may be told in other words.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.train.data.dataset_group import ANCHOR, ROW_TEXT, Sources
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.ordering.permutation import hash_of
from vlapipe.train.data.rows.row_reader import RowReader, Rows

__all__ = ["DrawBy", "Instructions"]

DrawBy = Literal["position", "index"] | None  # None: the first one is taken
_KEY = int.from_bytes(hashlib.blake2b(b"vlapipe instruction", digest_size=7).digest(), "big")


class Instructions:
    """The texts of all episodes; thread-safe."""

    def __init__(self, sources: Sources, reader: RowReader, draw_by: DrawBy, seed: int) -> None:
        """Read the columns of the episodes tables.

        Args:
            sources: the datasets.
            reader: copies the rows of open shards.
            draw_by: what a paraphrase is drawn by: the sample's position, the frame's number, or none is drawn.
            seed: the run's seed.
        """
        self._reader, self._draw_by, self._seed = reader, draw_by, seed
        self._first = sources.column("instruction")
        self._paraphrases = _paraphrases(sources) if draw_by is not None else None
        self._width = _text_widths(sources)
        self._start = sources.stream_column(ANCHOR, "start") if self._width.any() else None

    def of(self, frames: BatchPlan) -> list[str]:
        """Returns the text of each frame. The caller holds a lease of the shards."""
        texts = self._of_episodes(frames)
        if self._start is not None:
            self._take_rows(frames, texts, self._start)
        listed: list[str] = texts.tolist()
        return listed

    def _of_episodes(self, frames: BatchPlan) -> NDArray[np.object_]:
        texts: NDArray[np.object_]
        if self._paraphrases is None:
            texts = self._first[frames.episode]
            return texts
        every, first, count = self._paraphrases
        number = frames.position if self._draw_by == "position" else frames.index
        drawn = hash_of(_KEY, self._seed, number) % count[frames.episode].astype(np.uint64)
        texts = every[first[frames.episode] + drawn.astype(np.int64)]
        return texts

    def _take_rows(self, frames: BatchPlan, texts: NDArray[np.object_], start: NDArray[np.int64]) -> None:
        """Replace texts by those of the rows; a row without a text keeps its episode's."""
        widths = self._width[frames.episode]
        for width in set(widths.tolist()) - {0}:
            of_width = np.flatnonzero(widths == width)
            row = frames.row[of_width] + start[frames.episode[of_width]]
            found = np.empty((len(of_width), 1, width), dtype=np.uint8)
            self._reader.read(Rows.from_first(ROW_TEXT, 1, frames.shard[of_width], row), found)
            for place, text in zip(of_width.tolist(), found.view(f"S{width}")[:, 0, 0].tolist(), strict=True):
                texts[place] = _decoded(text) or texts[place]

    def distinct(self, episodes: NDArray[np.int64]) -> list[str]:
        """Returns the texts of these episodes, each once; not those of single rows."""
        texts = self._first[episodes].tolist()
        if self._paraphrases is not None:
            every, first, count = self._paraphrases
            several = episodes[count[episodes] > 1]
            texts += [text for i in several.tolist() for text in every[first[i] : first[i] + count[i]]]
        return list(dict.fromkeys(texts))


@lru_cache(maxsize=65_536)
def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace").strip()


def _paraphrases(
    sources: Sources,
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64]] | None:
    """Returns all texts end to end, and the first text and the number of texts of each episode.

    Returns ``None`` if no dataset has paraphrases.
    """
    texts, counts = [], []
    for dataset in sources.datasets:
        if "instructions" in dataset.episode_fields.names:
            lists = dataset.episode_column("instructions")
            texts.append(as_numpy(pc.list_flatten(lists)))
            counts.append(as_numpy(pc.list_value_length(lists)).astype(np.int64))
        else:
            texts.append(dataset.column("instruction"))
            counts.append(np.ones(len(dataset), dtype=np.int64))
    count = np.concatenate(counts)
    if not (count > 1).any():
        return None
    return np.concatenate(texts), np.cumsum(count) - count, count


def _text_widths(sources: Sources) -> NDArray[np.int64]:
    """Returns the bytes of a row's instruction in each episode; 0 if rows have no instruction of their own."""
    widths = []
    for dataset in sources.datasets:
        column = dataset.schema.instruction.column
        widths.append(dataset.schema.field(column).shape[0] if column is not None else 0)
    return np.repeat(np.array(widths, dtype=np.int64), np.diff(sources.first_episode))
