"""Notices NPZ files that hold one time step each, of which an episode's are joined."""

from __future__ import annotations

from collections import defaultdict

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.infer.arrays.look import Array, Look, Shape, shapes_of

__all__ = ["one_step_a_file"]

_FEWEST = 10


def one_step_a_file(tree: WholeTree) -> Look | None:
    """Look into the numbered files of one folder whose arrays have no row in common; ``None`` if there are none.

    The arrays of a recording have as many rows as it has stamps. The arrays of a time step have the sizes of what they
    measure, which are the same in each file and differ from array to array. Each array of the result has a row a file.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        if suffix_of(path) == ".npz" and any(sign.isdigit() for sign in path.rpartition("/")[2]):
            folders[path.rpartition("/")[0]].append(path)
    for files in folders.values():
        if len(files) < _FEWEST:
            continue
        looks = [shapes_of(tree.root / files[i]) for i in (0, len(files) // 2, len(files) - 1)]
        if looks[0] and all(look == looks[0] for look in looks[1:]) and _is_one_step(looks[0]):
            joined = [Array(name, (len(files), *shape), dtype) for name, (shape, dtype) in looks[0].items()]
            return Look(files[0], "npz", tuple(joined))
    return None


def _is_one_step(shapes: dict[str, Shape]) -> bool:
    """Return True if the arrays of numbers differ in their first lengths, and none of them is a table with rows."""
    numbers = [shape for shape, dtype in shapes.values() if dtype.kind in "iufb"]
    lengths = [shape[0] for shape in numbers if shape]
    images = [shape for shape in numbers if len(shape) == 3 and shape[2] in (1, 3, 4)]
    tables = [shape for shape in numbers if len(shape) > 1 and shape not in images]
    has_values = any(len(shape) < 2 for shape in numbers)
    return has_values and not tables and len(lengths) > 1 and (len(set(lengths)) > 1 or len(lengths) < len(numbers))
