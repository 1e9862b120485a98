"""Edits a dataset without touching a shard: leaves episodes out, brings them back, relabels them, moves their split."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlapipe.pipeline.change.commit import Said, commit
from vlapipe.pipeline.change.contents import Contents
from vlapipe.pipeline.change.work_folder import work_folder
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.pipeline.shards.stores.copies import one_look
from vlapipe.schemas.errors import UsageError

__all__ = ["Edit", "edit", "edit_of", "ids_where", "make_edit"]

SPLITS = ("train", "val")
_SET = re.compile(
    rf"(task|instruction|split|{PREFIX}[^=]+)=(.*?)(?=, (?:task|instruction|split|{PREFIX}[^=]+)=|\Z)", re.S
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What to do with some episodes. ``values`` go by ``task``, ``instruction``, ``split`` and ``metadata/<key>``."""

    drop: bool = False
    restore: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.drop + self.restore + bool(self.values) != 1:
            raise UsageError("say one of --drop, --restore, --set and --split", "vlapipe edit --help shows examples")
        for name, value in self.values.items():
            if name in ("task", "instruction") and not isinstance(value, str):
                raise UsageError(f"--set {name}: expected a text, got {value!r}")
            if name == "split" and value not in SPLITS:
                raise UsageError(f"--split {value}: unknown", f"choose from {', '.join(SPLITS)}")
            if name not in ("task", "instruction", "split") and not name.startswith(PREFIX):
                cure = f"choose from task, instruction and {PREFIX}KEY; a split is moved by --split"
                raise UsageError(f"--set {name}: cannot be set", cure)

    @property
    def what(self) -> str:
        """The name of the edit in the history."""
        if self.drop or self.restore:
            return "drop" if self.drop else "restore"
        told = [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in self.values.items()
        ]
        return f"set {', '.join(told)}"


def edit_of(what: str, episodes: Mapping[str, Sequence[str]]) -> tuple[Edit, list[str]] | None:
    """Return the edit that an entry of the history tells of, and its episodes; ``None`` if it tells of none."""
    for kind, asked in (("dropped", Edit(drop=True)), ("restored", Edit(restore=True))):
        if what == asked.what and kind in episodes:
            return asked, list(episodes[kind])
    if not what.startswith("set ") or "changed" not in episodes:
        return None
    values: dict[str, Any] = {}
    for name, text in _SET.findall(what.removeprefix("set ")):
        values[name] = text
        if name.startswith(PREFIX):
            with contextlib.suppress(ValueError):
                values[name] = json.loads(text)
    return (Edit(values=values), list(episodes["changed"])) if values else None


@one_look()
def edit(path: Path, episodes: Sequence[str], asked: Edit, *, note: str | None = None) -> Dataset | None:
    """Make an edit of these episodes, by id, the next generation. Returns ``None`` if nothing changes.

    Raises:
        UsageError: there is no such episode, or no episode would be left.
        DamageError: a file that the edit needs is damaged.
    """
    ids = list(dict.fromkeys(episodes))
    name = hashlib.sha256(json.dumps([asked.what, ids]).encode(errors="surrogateescape")).hexdigest()[:8]

    def change(contents: Contents) -> Said | None:
        changes = make_edit(contents, ids, asked)
        return Said(what=asked.what, note=note, changes=changes) if changes else None

    open_dataset(path)  # raises if there is none, before anything is made
    with work_folder(path, f"edit-{name}") as work:
        done = commit(path, work, change)
    return done[0] if done is not None else None


def make_edit(contents: Contents, ids: Sequence[str], asked: Edit) -> dict[str, list[str]]:
    """Make an edit of these episodes. Returns the names of those that changed, by what happened to them.

    Raises:
        UsageError: there is no such episode.
    """
    there, dropped = contents.present(ids), contents.dropped_ids
    for each in ids:
        if each not in there and each not in dropped:
            contents.base.index_of(each)  # raises, and names the nearest id
    if asked.drop:
        touched = [each for each in ids if each in there]
        contents.drop(touched)
    elif asked.restore:
        touched = [each for each in ids if each in dropped]
        if touched:
            contents.restore(touched)
    else:
        left_out = [each for each in ids if each not in there]
        if left_out:
            raise UsageError(f"{contents.base.place}: {left_out[0]} was dropped", "restore it first")
        touched = [each for each in ids if contents.differs(each, asked.values)]
        contents.edit(touched, asked.values)
    kind = "dropped" if asked.drop else "restored" if asked.restore else "changed"
    return {kind: touched} if touched else {}


def ids_where(dataset: Dataset, text: str) -> list[str]:
    """Return the ids of the episodes of which an expression is true.

    Raises:
        UsageError: the expression cannot be used, or fits no episode.
    """
    (mask,) = masks(Where.parse(text, "--where"), [dataset])
    ids: list[str] = dataset.column("id")[mask].tolist()
    return ids
