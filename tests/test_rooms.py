"""Import layers of the rooms: a room imports only from layers below its own, and no imports form a cycle."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("schemas", "pipeline", "train")

# From the ground up. A name stands for a folder and all that is in it, or for one file of a staircase.
FLOORS = [
    ["schemas"],
    ["pipeline.shards.arrow_numpy", "pipeline.shards.ordered_map", "pipeline.shards.progress_bar"],
    ["pipeline.shards.derive"],
    ["pipeline.shards.format"],
    ["pipeline.shards.stores", "pipeline.long_images"],
    ["pipeline.shards.manifest", "pipeline.stream_rows"],
    ["pipeline.shards.mapped", "pipeline.shards.verify"],
    ["pipeline.shards.dataset"],
    ["pipeline.discover", "train.data", "train.background_work", "train.run_files", "train.stopping"],
    ["pipeline.check", "pipeline.layouts", "train.option_values", "train.policies", "train.weight_names"],
    ["pipeline.read", "train.config", "train.parallel", "train.optim", "train.report", "train.robot"],
    ["pipeline.plan", "train.run", "train.run_loader", "train.batch_size"],
    ["pipeline.build", "train.checkpoint"],
    ["pipeline.change"],
    ["pipeline.ingest", "pipeline.export", "train.faults", "train.result"],
    ["train.evaluation"],
    ["pipeline.show", "pipeline.infer", "pipeline.demo", "pipeline.repair", "train.build"],
    ["train.loop", "pipeline.report"],
    ["train.bench"],
]
STAIRCASES = {"pipeline", "pipeline.shards", "train"}  # their own files stand on floors of their own
# Inside the room that reads recordings.
SHELVES_OF_READ = [
    ["pipeline.read.archives"],
    ["pipeline.read.convert", "pipeline.read.text"],
    ["pipeline.read.clocks"],
    ["pipeline.read.bags"],
    ["pipeline.read.containers", "pipeline.read.csv"],
    [
        "pipeline.read.clock_file",
        "pipeline.read.container_parts",
        "pipeline.read.metadata",
        "pipeline.read.metadata_says",
        "pipeline.read.moved_clocks",
    ],
    ["pipeline.read.array_clock"],
    ["pipeline.read.images", "pipeline.read.npz"],
    ["pipeline.read.video"],
    ["pipeline.read.streams"],
    ["pipeline.read.segments"],
    ["pipeline.read.file_parts"],
    ["pipeline.read.instruction"],
    ["pipeline.read.episode"],
]


def modules() -> Iterator[tuple[str, Path]]:
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Modules of ours that a file imports, anywhere in it, without the package's name."""
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vlapipe."):
            yield node.module.removeprefix("vlapipe.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("vlapipe.") for a in node.names if a.name.startswith("vlapipe."))


def arrows() -> list[tuple[str, str]]:
    return [(module, other) for module, path in modules() for other in imports_of(path)]


def floor_of(module: str, floors: list[list[str]]) -> tuple[int, str] | None:
    """The number and the name of the room that a module belongs to."""
    for number, names in enumerate(floors):
        for name in names:
            if module == name or module.startswith(f"{name}."):
                return number, name
    return None


def upward(floors: list[list[str]], within: str = "") -> list[str]:
    found = []
    for module, other in arrows():
        here, there = floor_of(module, floors), floor_of(other, floors)
        if here is None or there is None:
            outside = next(name for name, floor in ((module, here), (other, there)) if floor is None)
            if outside.startswith(within) and outside.count(".") > within.count("."):
                found.append(f"{outside} stands on no floor")
        elif here[1] != there[1] and here[0] <= there[0]:
            found.append(f"{module} imports {other}, which does not stand below it")
    return sorted(set(found))


def test_every_module_stands_on_a_floor() -> None:
    homeless = [name for name, _ in modules() if floor_of(name, FLOORS) is None and name not in STAIRCASES]
    assert not homeless


def test_no_arrow_goes_upward() -> None:
    assert not [line for line in upward(FLOORS) if "stands on no floor" not in line]


def test_no_arrow_goes_upward_within_the_room_that_reads() -> None:
    assert not [line for line in upward(SHELVES_OF_READ, "pipeline.read") if "stands on no floor" not in line]


def test_no_modules_import_each_other_however_far_round() -> None:
    below: dict[str, set[str]] = {name: set() for name, _ in modules()}
    for module, other in arrows():
        below[module].add(other if other in below else other.rpartition(".")[0])
    left = set(below)
    while ready := {name for name in left if not below[name] & left - {name}}:
        left -= ready
    assert not left, f"these import each other: {sorted(left)}"


def test_data_imports_nothing_else_of_train() -> None:
    foreign = [f"{a} imports {b}" for a, b in arrows() if a.startswith("train.data") and b.startswith("train.")]
    assert not [line for line in foreign if " imports train.data" not in line]


def test_pipeline_and_train_meet_in_shards_and_schemas_alone() -> None:
    crossing = [
        f"{a} imports {b}" for a, b in arrows() if {a.partition(".")[0], b.partition(".")[0]} == {"train", "pipeline"}
    ]
    assert not [line for line in crossing if " imports pipeline.shards" not in line]


def test_no_file_is_called_as_a_drawer_for_everything() -> None:
    names = {path.stem for _, path in modules()}
    assert not names & {"utils", "util", "common", "helpers", "misc", "base_utils", "types", "io", "queue", "inspect"}
