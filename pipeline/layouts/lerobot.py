"""Finds the episodes of a LeRobot dataset by its metadata, and compares the metadata with the files that are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlapipe.pipeline.discover.discovery import (
    Discovery,
    MetadataSays,
    RawEpisode,
    links_outside,
    without_excluded,
)
from vlapipe.pipeline.discover.file_tree import WholeTree, match_end, walk
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.discover.unread import unread_of
from vlapipe.pipeline.layouts.lerobot_meta import INFO, LeRobotEpisode, LeRobotMeta, read_meta
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, Schema, Stream
from vlapipe.schemas.templates import fill_template

__all__ = ["discover_lerobot"]


def discover_lerobot(root: Path, schema: Schema) -> Discovery:
    """Finds the episodes of a LeRobot dataset. Data files and videos are not opened.

    Raises:
        UsageError: the metadata cannot be read, or names no episode that is left in.
    """
    root = root.resolve()
    meta, tree = read_meta(root), walk(root)
    if not meta.episodes:
        raise UsageError(f"{root}: the metadata has no episode", "download the dataset whole")
    files = _Files(tree, meta, schema)
    every = [files.episode(episode) for episode in meta.episodes]
    chosen, left_out = without_excluded([episode.id for episode in every], schema)
    if not chosen:
        problem = f"exclude in schema {schema.name!r} leaves out all {len(every)} episodes, such as {every[0].id}"
        raise UsageError(f"{root}: {problem}", "correct exclude, or the path")
    kept = set(chosen)
    read = {file.path for episode in every for file in episode.every_file}
    read |= {path for path in tree.files if path.startswith("meta/")}
    return Discovery(
        root=root,
        episodes=Packed(episode for episode in every if episode.id in kept),
        num_ignored=tree.num_ignored,
        beside=unread_of(path for path in tree.files if path not in read),
        misnamed=tree.misnamed,
        left_out=left_out,
        findings=(*_totals(meta, schema), *links_outside(root, tree.outside, schema)),
    )


class _Files:
    """The data files and videos that the metadata names, and which episodes each holds."""

    def __init__(self, tree: WholeTree, meta: LeRobotMeta, schema: Schema) -> None:
        self._tree, self._meta, self._schema = tree, meta, schema
        self._digits = max(6, len(str(meta.episodes[-1].index)))
        self._numbers = {text: number for number, text in meta.tasks.items()}
        self._starts: dict[str, int] = {}  # of a data file with several episodes: its first row in the dataset
        self._num_rows: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)
        for episode in meta.episodes:
            if episode.first_row is not None:
                start = self._starts.setdefault(episode.data_file, episode.first_row)
                self._starts[episode.data_file] = min(start, episode.first_row)
            self._num_rows[episode.data_file] += episode.length
            for span in episode.videos.values():
                self._seconds[span.file] += span.seconds[1] - span.seconds[0] if span.seconds else 0.0

    def episode(self, episode: LeRobotEpisode) -> RawEpisode:
        """Returns an episode with its files, by stream; a file that is not there is named in ``missing``."""
        files: dict[str, tuple[RawFile, ...]] = {}
        cameras: dict[str, tuple[str, ...]] = {}
        missing: dict[str, str] = {}
        times: dict[str, tuple[float, float]] = {}
        shares: dict[str, float] = {}
        rows = self._rows(episode)
        of_data = episode.length / self._num_rows[episode.data_file] if rows and episode.length else 1.0
        for stream in self._schema.streams:
            for name, path, key in _paths(stream, episode):
                file = self._tree.files.get(path)
                files[name] = () if file is None else (file,)
                if file is None and not stream.optional:
                    missing[name] = path
                shares[name] = of_data
                seconds = episode.videos[key].seconds if key is not None else None
                if seconds is not None:
                    times[name] = seconds
                    shares[name] = (seconds[1] - seconds[0]) / (self._seconds[path] or 1.0)
            if isinstance(stream, ImageStream) and stream.many_cameras:
                cameras[stream.name] = tuple(name for name, _, _ in _paths(stream, episode) if files[name])
            else:
                files.setdefault(stream.name, ())
        # LeRobot lists an episode's tasks in any order; their numbers are in the order of their first use.
        tasks = sorted(episode.tasks, key=lambda text: self._numbers.get(text, len(self._numbers)))
        first = tasks[0] if tasks else ""
        entry: dict[str, Any] = {"episode_index": episode.index, **episode.others, "instruction": first}
        entry |= {"tasks": tasks} if len(tasks) > 1 else {}
        words = {"folder": self._tree.root.name, "parent": self._tree.root.name, "dataset": self._tree.root.name}
        return RawEpisode(
            id=f"episode_{episode.index:0{self._digits}d}",
            task=printable(fill_template(self._schema.episodes.task, {**words, "stem": None})),
            folder=".",
            files=files,
            cameras=cameras,
            metadata=None,
            instruction_file=None,
            rows=rows,
            num_rows=self._num_rows[episode.data_file] if rows else None,
            entry=entry,
            reads_part=True,
            times=times,
            shares=shares,
            missing=missing,
            says=self._says(episode),
        )

    def _rows(self, episode: LeRobotEpisode) -> tuple[int, int] | None:
        """Returns the episode's rows in its data file, or ``None`` if it has a file of its own."""
        if episode.first_row is None:
            return None
        start = episode.first_row - self._starts[episode.data_file]
        return start, start + episode.length

    def _says(self, episode: LeRobotEpisode) -> MetadataSays:
        texts = set(episode.tasks)
        ours = {number: text for number, text in self._meta.tasks.items() if text in texts}
        return MetadataSays(
            episode_index=episode.index,
            length=episode.length,
            first_row=episode.first_row,
            rate_hz=self._meta.fps,
            tasks=tuple(sorted(ours.items())),
            dtypes=tuple((f.key, f.dtype) for f in self._meta.features if not f.is_camera),
        )


def _paths(stream: Stream, episode: LeRobotEpisode) -> Iterable[tuple[str, str, str | None]]:
    """Yields the name of a stream, or of each of its cameras, with its path, and with the feature if it is a video."""
    if not isinstance(stream, ImageStream) or stream.kind != "video":
        if _fits(episode.data_file, stream) is not None:
            yield stream.name, episode.data_file, None
        return
    for key, span in episode.videos.items():
        values = _fits(span.file, stream)
        if values is not None:
            yield values.get("camera", stream.name), span.file, key


def _fits(path: str, stream: Stream) -> Mapping[str, str] | None:
    for pattern in stream.files:
        values = match_end(path, pattern)
        if values is not None:
            return values
    return None


def _totals(meta: LeRobotMeta, schema: Schema) -> list[Finding]:
    """Returns a finding for each total of info.json that the list of episodes does not add up to."""
    findings = Findings(schema.checks.severity)
    there = {
        "total_episodes": len(meta.episodes),
        "total_frames": sum(episode.length for episode in meta.episodes),
        "total_tasks": len(meta.tasks),
    }
    for key, stated in meta.totals.items():
        if stated != there[key]:
            findings.add(
                "lerobot.totals", INFO, column=key, expected=f"{there[key]}, as the other files say", found=f"{stated}"
            )
    known = set(meta.tasks.values())
    unknown = [e for e in meta.episodes if not known.issuperset(e.tasks)]
    if unknown:
        text = next(text for text in unknown[0].tasks if text not in known)
        found = f"{text!r:.60} of episode {unknown[0].index}"
        findings.add(
            "lerobot.totals",
            "meta/tasks",
            expected="the tasks of all episodes",
            found=f"not {found}",
            count=len(unknown),
        )
    return list(findings)
