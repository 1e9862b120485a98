"""Notices NPZ files that hold one time step each, and writes the lines of a schema that joins them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.file_tree import FileTree
from vlapipe.pipeline.infer.arrays.look import Shape, shapes_of
from vlapipe.pipeline.infer.columns.groups import identifier

__all__ = ["OneStepFiles", "one_step_a_file"]

_FEWEST = 10


@dataclass(frozen=True)
class OneStepFiles:
    """A schema that joins files of one time step each, and the reasons for it."""

    toml: str
    reasons: tuple[str, ...]


def one_step_a_file(tree: FileTree) -> OneStepFiles | None:
    """Return the numbered files of one folder whose arrays have no row in common; ``None`` if there are none.

    The arrays of a recording have as many rows as it has stamps. The arrays of a time step have the sizes of what they
    measure, which are the same in each file and differ from array to array.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        if suffix_of(path) == ".npz" and any(c.isdigit() for c in PurePosixPath(path).stem):
            folders[str(PurePosixPath(path).parent)].append(path)
    for files in folders.values():
        if len(files) < _FEWEST:
            continue
        looks = [shapes_of(tree.root / files[i]) for i in (0, len(files) // 2, len(files) - 1)]
        if looks[0] and all(look == looks[0] for look in looks[1:]) and _is_one_step(looks[0]):
            reasons = (
                f"each of {len(files)} files such as {files[0]} holds one time step: they are joined by their numbers",
                "each folder is taken for an episode; or say ranges = 'FILE.npy' under [episodes]",
            )
            return OneStepFiles(_toml(files[0], looks[0], reasons), reasons)
    return None


def _is_one_step(shapes: dict[str, Shape]) -> bool:
    """Return True if the arrays of numbers differ in their first lengths, and none of them is a table with rows."""
    numbers = [shape for shape, dtype in shapes.values() if dtype.kind in "iufb"]
    lengths = [shape[0] for shape in numbers if shape]
    images = [shape for shape in numbers if len(shape) == 3 and shape[2] in (1, 3, 4)]
    tables = [shape for shape in numbers if len(shape) > 1 and shape not in images]
    has_values = any(len(shape) < 2 for shape in numbers)
    return has_values and not tables and len(lengths) > 1 and (len(set(lengths)) > 1 or len(lengths) < len(numbers))


def _toml(first: str, shapes: dict[str, Shape], reasons: tuple[str, ...]) -> str:
    path = PurePosixPath(first)
    pattern = json.dumps(f"{path.stem.rstrip('0123456789')}*{path.suffix}")
    fields: dict[str, str] = {}
    cameras: list[str] = []
    for name, (shape, dtype) in shapes.items():
        if len(shape) == 3 and shape[2] == 3 and dtype == np.uint8:
            cameras.append(name)
        elif dtype.kind in "iuf" and len(shape) < 2:
            size = f", shape = {list(shape)}" if shape else ""
            fields[identifier(name)] = f"{{ array = {json.dumps(name)}{size} }}"
    action = next((name for name in fields if "action" in name), next(iter(fields)))
    state = [name for name in fields if "action" not in name] or [action]
    lines = [
        "# Guessed by `vlapipe schema infer`. Each comment says why; correct what is wrong.",
        *(f"# {reason}" for reason in reasons),
        "schema_version = 1",
        f"name = {json.dumps(identifier(path.parent.name or path.stem, 'recordings'))}",
        'anchor = "robot"',
        "",
        "[streams.robot]",
        'kind = "npz"',
        f"files = [{pattern}]",
        "one_row_a_file = true",
        "time = { rate_hz = 30 }  # correct this",
        *(f"fields.{name} = {value}" for name, value in fields.items()),
    ]
    for name in cameras:
        lines += ["", f"[streams.{identifier(name, 'camera')}]", 'kind = "images"', f"files = [{pattern}]"]
        lines += [f"array = {json.dumps(name)}", 'time = { rows_of = "robot" }']
    lines += ["", "[action]", 'kind = "column"', f'of = ["robot/{action}"]', "", "[sample]"]
    lines.append(f"state = {json.dumps([f'robot/{name}' for name in state])}")
    return "\n".join(lines) + "\n"
