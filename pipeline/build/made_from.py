"""Records what a dataset was made from, so that a later ``vlapipe ingest`` into the same folder can compare.

The sizes and dates of files stand for their content. The record is a file beside the manifest and not part of it,
because dates and file paths depend on when and where the dataset is made, and the manifest does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.read.images.image_options import JPEG_QUALITY
from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.format.sealed_json import Seal, sealed_json
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM
from vlapipe.pipeline.shards.stores.copies import copy_at
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["MadeFrom"]

_LARGE, _FEW = 1 << 22, 100  # bytes of a record that is not read whole if fewer episodes are asked for
_EPISODES = b'"episodes": {\n'
_QUALITY = "--image-quality"


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """The options and files of one ingest.

    ``options`` holds texts by flag, as messages show them. ``episodes`` holds, by episode id, one digest over the task,
    the episode's entry in a table of metadata, and the paths, sizes and dates of the episode's files.

    Episodes are counted as they were discovered: a file that is later cut into several episodes is one entry here.
    """

    options: dict[str, str]
    episodes: dict[str, str]
    generation: int = 1  # of the dataset that the record describes; the history has what later ingests have read
    num_others: int = 0  # episodes that the record has and that were not asked for

    @classmethod
    def of(cls, discovery: Discovery, schema: Schema, options: dict[str, Any]) -> MadeFrom:
        """Describe an ingest of these episodes. No file is opened."""
        digest = hashlib.sha256(schema.toml.encode()).hexdigest()[:16]
        texts = {name: "not given" if value is None else str(value) for name, value in options.items()}
        return cls(
            options={**texts, "--schema": f"{schema.name} ({digest})"},
            episodes={episode.id: _digest(episode) for episode in discovery.episodes},
        )

    @classmethod
    def read(cls, dataset: Path, only: Collection[str] | None = None) -> MadeFrom | None:
        """Return what the dataset was made from, or ``None`` if its record is missing, unreadable or altered.

        With ``only``, other episodes are counted and not kept.
        """
        try:
            copy = copy_at(dataset)
            if copy:
                copy.take([MADE_FROM], fresh=True)
            data = (dataset / MADE_FROM).read_bytes()
            if Seal.of(data).is_broken:
                return None
            lines, num_others = data, 0
            if only is not None and len(data) > _LARGE and len(only) < _FEW:
                lines, num_others = _lines_of(data, only)
            document = json.loads(lines)
            options = dict(document["options"])
            if _QUALITY not in options:  # an older vlapipe, which kept JPEG files as recorded and called that "jpeg"
                options[_QUALITY] = str(JPEG_QUALITY)
                was = options.get("--image-storage")
                options["--image-storage"] = "recorded" if was == "jpeg" else str(was)
            generation = int(document.get("generation", 1))
            episodes = dict(document["episodes"])
            if only is not None:
                num_others += sum(name not in only for name in episodes)
                episodes = {name: digest for name, digest in episodes.items() if name in only}
            return cls(options=options, episodes=episodes, generation=generation, num_others=num_others)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise_if_stopped(error, dataset / MADE_FROM)
            return None

    def write(self, dataset: Path) -> None:
        """Write the record into the dataset's folder."""
        write_bytes(dataset / MADE_FROM, self.to_json())

    def to_json(self) -> bytes:
        """Return the record as JSON that ends with its own digest."""
        document: dict[str, Any] = {} if self.generation == 1 else {"generation": self.generation}
        document |= {name: dict(sorted(vars(self)[name].items())) for name in ("episodes", "options")}
        return sealed_json(document, indent=0)

    def has_same(self, episode: RawEpisode, digest: str) -> bool:
        """Return whether the files of an episode have this digest, also as vlapipe 0.1.0 wrote it.

        For an older digest, or one of other files, the names of all files are listed again.
        """
        return digest == self.episodes[episode.id] or digest == _digest_by_names(episode)

    def changes(self, before: MadeFrom) -> str:
        """Describe in words how ``self`` differs from ``before``. The text is empty if nothing differs."""
        said = [
            f"{name} was {before.options.get(name, 'not given')} and is {self.options.get(name, 'not given')}"
            for name in sorted(self.options.keys() | before.options.keys())
            if self.options.get(name) != before.options.get(name)
        ]
        was, now = before.episodes, self.episodes
        new, gone = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
        other = sorted(name for name in now.keys() & was.keys() if now[name] != was[name])
        said += [_count(new, "new"), _count(gone, "gone"), _count(other, "changed")]
        return "; ".join(part for part in said if part)


def _lines_of(data: bytes, only: Collection[str]) -> tuple[bytes, int]:
    """Return the record without the lines of other episodes, and their number. Each episode has a line of its own."""
    start = data.index(_EPISODES) + len(_EPISODES)
    stop = data.index(b"\n}", start)
    kept: list[bytes] = []
    for name in only:
        place = data.find(b"\n" + json.dumps(name).encode() + b': "', start - 1, stop)
        if place >= 0:
            end = data.find(b"\n", place + 1, stop + 1)
            kept.append(data[place + 1 : end].removesuffix(b","))
    num_others = data.count(b"\n", start, stop) + 1 - len(kept)
    return data[:start] + b",\n".join(kept) + data[stop:], num_others


def _digest(episode: RawEpisode) -> str:
    return _described(episode, episode.files_digest)


def _digest_by_names(episode: RawEpisode) -> str:
    return _described(episode, sorted((file.path, file.num_bytes, file.mtime_ns) for file in episode.every_file))


def _described(episode: RawEpisode, files: Any) -> str:
    described: list[Any] = [episode.task, files, *([episode.entry] if episode.entry else [])]
    if episode.says is not None:  # rows and times come from the metadata, and not from the files that are named above
        described += [episode.rows, episode.times, astuple(episode.says)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _count(names: Collection[str], what: str) -> str:
    if not names:
        return ""
    first = next(iter(names))
    return f"{len(names)} episode{'' if len(names) == 1 else 's'} {what}, such as {first}"
