"""Compares the samples of several datasets: what is the same, what is converted, and what cannot be joined.

All differences that cannot be joined are one error. Every comparison is with the first dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.conversion import Conversion, converted_schema
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.dataset_group import row_shapes
from vlapipe.train.data.joining.dataset_meaning import MISSING, NOT_SAID, Done, Fact, Row, meaning, of_robot
from vlapipe.train.data.joining.dataset_names import short_names
from vlapipe.train.data.joining.dataset_suspicions import COLOURS, compare_colours, compare_magnitudes
from vlapipe.train.data.joining.field_conversions import field_conversions
from vlapipe.train.data.window_size import Window

__all__ = ["EMBODIMENTS", "Comparison", "Row", "compare_datasets"]

_MOST_SHOWN = 20
EMBODIMENTS = ("same", "pad")
_WEIGHT = ("same", "converted", "refused")  # the last one of the datasets' is what is done


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of comparing datasets. ``str`` gives the rows that differ as a table.

    ``datasets`` have the sample that was compared: the window's, with as many rows as in the first dataset.
    ``conversions`` has one entry a dataset: how fields ``<stream>/<field>`` become those of the first dataset.
    ``robots`` has each dataset's robot, if robots of other sizes are padded to one. ``warnings`` are differences that
    are suspected and nothing is done about.
    """

    datasets: tuple[Dataset, ...]
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    conversions: tuple[Mapping[str, Conversion], ...]
    robots: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: UsageError | None = None

    def joined(self) -> list[Dataset]:
        """Returns the datasets with their fields converted to those of the first, and padded to the largest robot.

        Raises:
            UsageError: the samples differ; the message names each difference (the first 20) and the two datasets.
        """
        if self.refusal is not None:
            raise self.refusal
        joined = [_converted(dataset, by) for dataset, by in zip(self.datasets, self.conversions, strict=True)]
        return _padded(joined) if self.robots else joined

    @property
    def differences(self) -> tuple[Row, ...]:
        """The rows in which datasets differ."""
        return tuple(row for row in self.rows if row.done != "same")

    def __str__(self) -> str:
        named = ", ".join(self.names)
        if not self.differences:
            return f"datasets {named} mean the same: nothing is converted"
        cells = [("", *self.names, ""), *((row.what, *row.found, row.done) for row in self.differences)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(line.rstrip() for line in (f"datasets {named} differ:", *(f"  {line}" for line in lines)))


def compare_datasets(
    datasets: Sequence[Dataset], window: Window | None = None, *, embodiments: str = "same"
) -> Comparison:
    """Compare each dataset with the first. Nothing is read but manifests and episodes tables.

    Args:
        datasets: at least one, from ``open_dataset``.
        window: what a sample holds; what it leaves open, the schemas must agree on.
        embodiments: ``"same"`` if all are of one robot; ``"pad"`` if state and action are padded to those of the
            largest robot. Only datasets of the same robot must then agree in state and action.

    Raises:
        UsageError: a dataset does not have what the window chooses, or ``embodiments`` is an unknown word.
    """
    if embodiments not in EMBODIMENTS:
        raise UsageError(f"embodiments {embodiments!r}: unknown", did_you_mean(str(embodiments), EMBODIMENTS))
    window = window or Window()
    chosen = window.choose(datasets[0])
    counts = window.counted(chosen) if window.is_by_time else window
    datasets = [chosen, *(counts.choose(each) for each in datasets[1:])]
    names = tuple(short_names([dataset.path for dataset in datasets]))
    robots = tuple(dataset.schema.robot for dataset in datasets) if embodiments == "pad" else ()
    if len(datasets) == 1:
        return Comparison(datasets=tuple(datasets), names=names, rows=(), conversions=({},), robots=robots)
    for dataset in datasets:
        dataset.read_columns(_columns(dataset))
    alike = [datasets[robots.index(robot)] for robot in robots] or [datasets[0]] * len(datasets)
    conversions = [field_conversions(first.schema, other.schema) for first, other in zip(alike, datasets, strict=True)]

    def facts_of(schemas: Sequence[Schema]) -> list[tuple[dict[str, Fact], dict[str, Fact]]]:
        found = [meaning(dataset, schema, window) for dataset, schema in zip(datasets, schemas, strict=True)]
        return [of_robot(*facts, robot) for facts, robot in zip(found, robots, strict=True)] if robots else found

    as_is = facts_of([dataset.schema for dataset in datasets])
    after = facts_of([converted_schema(d.schema, by) for d, by in zip(datasets, conversions, strict=True)])
    rows, refused = [], []
    for kind, missing in enumerate((MISSING, NOT_SAID)):
        for what in dict.fromkeys(what for facts in as_is for what in facts[kind]):
            found = [facts[kind].get(what, missing) for facts in as_is]
            results = [facts[kind].get(what, missing) for facts in after]
            first = next(i for i, fact in enumerate(found) if fact is not NOT_SAID)
            done = [_done(found[first], *each) for each in zip(found, results, strict=True)]
            rows.append(Row(what=what, found=tuple(fact.text for fact in found), done=max(done, key=_WEIGHT.index)))
            expected = f"{what}: expected {found[first].text} as in {datasets[first].place}"
            refused += [
                _Refused(f"{other.place}: {expected}, found {fact.text}", fact.cure or found[first].cure)
                for other, fact, each in zip(datasets, found, done, strict=True)
                if each == "refused"
            ]
    colours, warnings = compare_colours(datasets, names)
    refusal = _refusal(refused)
    if refusal is None:
        joined = [_converted(dataset, by) for dataset, by in zip(datasets, conversions, strict=True)]
        firsts = [robots.index(robot) for robot in robots] or [0] * len(datasets)
        for other, first in enumerate(firsts):
            found_unlike, told = compare_magnitudes(joined, first, other, names)
            rows, warnings = rows + found_unlike, warnings + told
    return Comparison(
        datasets=tuple(datasets),
        names=names,
        rows=(*rows, *_compare_robots(datasets, robots), *_compare_channels(datasets), *colours),
        conversions=tuple(conversions),
        robots=robots,
        warnings=tuple(warnings),
        refusal=refusal,
    )


def _columns(dataset: Dataset) -> list[str]:
    """The columns of the episodes table that are compared: of rates and colours, those that the dataset has."""
    kinds = ("rows", "first_s", "last_s", *COLOURS)
    wanted = {f"{stream}/{kind}" for stream in dataset.manifest.streams for kind in kinds}
    return [name for name in dataset.column_names if name in wanted]


def _converted(dataset: Dataset, conversions: Mapping[str, Conversion]) -> Dataset:
    if not conversions:
        return dataset
    schema = converted_schema(dataset.schema, conversions)
    return dataset.choose(schema.sample, schema.action, conversions)


def _sizes(dataset: Dataset) -> dict[str, int]:
    """The numbers of columns of state and action."""
    shapes = row_shapes(dataset.schema)
    return {entry: shapes[entry][0] for entry in (STATE, "action")}


def _padded(datasets: Sequence[Dataset]) -> list[Dataset]:
    most = {entry: max(_sizes(dataset)[entry] for dataset in datasets) for entry in (STATE, "action")}

    def pad(dataset: Dataset) -> Dataset:
        padded = {entry: most[entry] for entry, size in _sizes(dataset).items() if size < most[entry]}
        return dataset.choose(dataset.schema.sample, dataset.schema.action, padded=padded) if padded else dataset

    return [pad(dataset) for dataset in datasets]


def _compare_robots(datasets: Sequence[Dataset], robots: Sequence[str]) -> list[Row]:
    """Each dataset's robot and its sizes, if robots are padded to one size."""
    if len(set(robots)) < 2:
        return []
    sizes = [_sizes(dataset) for dataset in datasets]
    rows = [Row(what="embodiment", found=tuple(robots), done="padded")]
    for entry in (STATE, "action"):
        found = tuple(str(each[entry]) for each in sizes)
        rows.append(Row(what=f"{entry}: columns", found=found, done="padded" if len(set(found)) > 1 else "same"))
    return rows


@dataclass(frozen=True)
class _Refused:
    problem: str
    cure: str


def _done(ours: Fact, theirs: Fact, converted: Fact) -> Done:
    if NOT_SAID in (ours, theirs) or not ours.differs(theirs):
        return "same"
    return "refused" if ours.differs(converted) else "converted"


def _refusal(refused: Sequence[_Refused]) -> UsageError | None:
    if not refused:
        return None
    more = f"; and {len(refused) - _MOST_SHOWN} more" if len(refused) > _MOST_SHOWN else ""
    cures = dict.fromkeys(each.cure for each in refused if each.cure)
    problem = "; ".join(each.problem for each in refused[:_MOST_SHOWN]) + more
    return UsageError(problem, "; ".join((*cures, "or train on each alone")))


def _compare_channels(datasets: Sequence[Dataset]) -> list[Row]:
    """The order of colours in each camera's files, which a schema declares. Decoding gives red, green, blue."""
    rows = []
    for camera in datasets[0].cameras:
        found = tuple(str(d.manifest.streams.get(camera, {}).get("channels", "rgb")) for d in datasets)
        done: Done = "converted" if len(set(found)) > 1 else "same"
        rows.append(Row(what=f"observation.images.{camera}: channels", found=found, done=done))
    return rows
