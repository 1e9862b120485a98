"""Chooses how the episodes of a dataset are found: by the schema's patterns, or by the dataset's own metadata."""

from __future__ import annotations

from pathlib import Path

from vlapipe.pipeline.discover.discovery import Discovery, discover
from vlapipe.pipeline.discover.file_tree import FileTree
from vlapipe.pipeline.layouts.lerobot import discover_lerobot
from vlapipe.pipeline.layouts.lerobot_schema import lerobot_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

__all__ = ["SELF_DESCRIBED", "find_episodes", "schema_of"]

# Schemas that are written from the dataset itself, with what they describe.
SELF_DESCRIBED = {"lerobot": "LeRobot v2.0 to v3: features, cameras, tasks and episodes as its own metadata says"}


def schema_of(name_or_path: str, dataset: Path | None) -> Schema:
    """Returns a schema by name or path; ``lerobot`` is made from the metadata of ``dataset``.

    Raises:
        UsageError: there is no such schema, or the schema or the metadata has a mistake.
    """
    if name_or_path not in SELF_DESCRIBED:
        return load_schema(name_or_path)
    if dataset is None:
        cure = f"vlapipe schema show {name_or_path} --dataset DIR"
        raise UsageError(f"schema {name_or_path!r} is made from a dataset's own metadata: which dataset?", cure)
    if not dataset.is_dir():
        problem = "not a folder" if dataset.exists() else "no such folder"
        raise UsageError(f"{dataset}: {problem}", "give the folder that holds meta/ and data/")
    return parse_schema(lerobot_schema(dataset), name_or_path)


def find_episodes(root: Path, schema: Schema, *, single: bool = False, tree: FileTree | None = None) -> Discovery:
    """Finds the episodes of a dataset. With ``single``, ``root`` itself is the one episode.

    ``tree`` holds the files below ``root`` if they have been listed before.

    Raises:
        UsageError: there is no such folder, or no episode in it.
    """
    if schema.episodes.layout is None:
        return discover(root, schema, single=single, tree=tree)
    if single:
        raise UsageError(
            f"--dir {root}: a LeRobot dataset is no single episode", "say --dataset, with --where for some"
        )
    if not root.is_dir():
        raise UsageError(f"--dataset {root}: no such folder", "check the path")
    return discover_lerobot(root, schema)
