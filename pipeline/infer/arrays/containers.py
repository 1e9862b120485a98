"""Guesses the streams of a container of any kind, and which part of it is an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vlapipe.pipeline.infer.arrays.contents import Contents, column_of, plain_name, sort_arrays
from vlapipe.pipeline.infer.arrays.look import Array, Look
from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock import ASSUMED_HZ, ClockGuess, clock_options, looks_like_time, pick_clock
from vlapipe.pipeline.infer.guess import SourceGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.schemas.schema import EpisodeLayout, InstructionSpec, TimeSpec

__all__ = ["guess_container"]

_FASTEST_HZ = 100_000
_FEW_ROWS = 10
_EVEN = 0.3  # of a step, by which stamps may be off those of a rate
_MAX_LISTED = 12


def guess_container(
    name: str, files: tuple[str, ...], looks: Sequence[Look], choices: Choices, *, may_split: bool
) -> SourceGuess | None:
    """Guess the streams of a container, of which several files were looked into.

    Returns ``None`` if it has no array with rows, or holds several episodes and ``may_split`` is not set.
    """
    look = looks[0]
    episodes, reasons, stop = _episodes_in(look)
    several = stop is not None or episodes.group is not None
    if not look.num_rows or (several and not may_split):
        return None
    everywhere = set(look.names).intersection(*(other.names for other in looks[1:]))
    arrays = [each for each in look.arrays if each.name not in (episodes.ends, episodes.split_column)]
    rows = stop or look.num_rows
    clock = _clock([each for each in arrays if each.shape[0] == look.num_rows], rows, look.attributes, name, choices)
    stream = StreamGuess(
        name=name,
        kind=look.kind,
        files=files,
        time=clock.time,
        time_reasons=clock.reasons,
        rate_hz=clock.rate_hz,
        assumed=clock.assumed,
    )
    left = [each for each in arrays if each.name not in clock.columns]
    others, left = ([], left) if several else _other_streams(left, look, stream, choices)
    if may_split and not look.num_numbers:
        axes = " x ".join(map(str, max((each.shape for each in left), key=len)[1:]))
        about = f"{name}: what {axes} counts in each row"
        choices.ask(about, "numbers of one row", "shape = [...]", "several recordings", "a file for each")
    optional = frozenset(set(look.names) - everywhere)
    contents = sort_arrays(left, look.num_rows, stream, {name, "timestamp"}, optional)
    if not (contents.fields or contents.cameras):
        return None
    stream = replace(stream, fields=tuple(contents.fields))
    not_read = contents.not_read[:_MAX_LISTED]
    if len(contents.not_read) > len(not_read):
        not_read.append(f"{len(contents.not_read) - len(not_read)} more arrays")
    return SourceGuess(
        stream=stream,
        clock=clock,
        num_rows=rows,
        beside=(*_between(stream, contents), *contents.cameras, *others),
        not_read=tuple(not_read),
        episodes=episodes,
        episode_reasons=reasons,
        instruction=_instruction(stream, look.attributes),
    )


def _episodes_in(look: Look) -> tuple[EpisodeLayout, tuple[str, ...], int | None]:
    """Tell which part of a container is an episode, why, and the number of rows of the first of several end to end."""
    layout = EpisodeLayout(per_file=True, metadata=None, task="{parent}")
    if look.groups is not None:
        groups = look.groups
        reason = f"{groups.count} groups like {groups.first!r} with the same arrays: each is taken for an episode"
        return replace(layout, group=groups.pattern), (reason,), None
    lengths = {each.shape[0] for each in look.arrays}
    for each in look.arrays:
        values = each.line
        if values is None or each.kind not in "iu" or not len(values):
            continue
        says_ends = lexicon().likeness(each.last, "arrays", "ends") == 1
        if says_ends and np.all(np.diff(values) > 0) and int(values[-1]) in lengths:
            reason = f"{each.name!r} has the row past each episode's end"
            return replace(layout, ends=each.name), (reason,), int(values[0])
    for each in look.arrays if look.kind == "parquet" else ():
        first = each.texts or each.line
        if lexicon().likeness(each.name, "arrays", "cuts") == 1 and each.kind in "iuO" and first is not None:
            rows = next((i for i, value in enumerate(first) if value != first[0]), len(first))
            return replace(layout, split_column=each.name), (f"an episode is the rows with one {each.name!r}",), rows
    return layout, (), None


def _clock(
    arrays: Sequence[Array], rows: int, attributes: Mapping[str, Any], name: str, choices: Choices
) -> ClockGuess:
    """Guess the clock: an array that is one in the first episode, else the rate that an attribute states."""
    flat = [each for each in arrays if each.kind in "iuf" and each.line is not None]
    stated = _stated_rate(attributes)
    columns = [column_of(each, rows, i) for i, each in enumerate(flat)]
    options = clock_options(columns, stated_hz=None if stated.assumed else stated.rate_hz)
    # The stamps of an array are numbers, and rows without stamps are counted.
    plain = [option for option in options[:-1] if not _is_text_clock(option.value.time)]
    narrow = {each.name for each in flat if each.kind == "f" and each.dtype is not None and each.dtype.itemsize < 8}
    plain = [_at_its_rate(option) if option.value.columns[0] in narrow else option for option in plain]
    none = options[-1] if not options[-1].value.assumed else replace(options[-1], value=stated, reasons=stated.reasons)
    return pick_clock(name, [*plain, none], choices)


def _at_its_rate(option: Option[ClockGuess]) -> Option[ClockGuess]:
    """Replace a clock in float32, which the reader refuses, by its rate.

    The rate says as much as the stamps if these begin at 0 and rise evenly; otherwise it is only assumed.
    """
    guess = option.value
    hz = float(f"{guess.rate_hz or ASSUMED_HZ:.4g}")
    off = np.abs(guess.stamps_s - np.arange(len(guess.stamps_s)) / hz)
    found = f"{guess.columns[0]!r} is in float32, and stamps must be float64 or whole numbers"
    reason = f"{found}: its steps say {hz:g} rows a second"
    uneven = len(off) < 2 or bool(off.max() > _EVEN / hz)
    time = TimeSpec(index_rate_hz=hz)
    value = replace(guess, time=time, rate_hz=hz, reasons=(reason,), assumed=uneven)
    return replace(option, value=value, says=f"rows at {hz:g} a second", line=f"rate_hz = {hz:g}", reasons=(reason,))


def _is_text_clock(time: TimeSpec) -> bool:
    return bool(time.plus or time.parts or time.format or time.exact)


def _stated_rate(attributes: Mapping[str, Any]) -> ClockGuess:
    """Return the rate that an attribute states, or an assumed one."""
    for key in lexicon().phrases("arrays", "rate"):
        for attribute, value in attributes.items():
            is_rate = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _FASTEST_HZ
            if is_rate and " ".join(words_in(attribute.rpartition(".")[2])) == key:
                said = (f"no array is a clock; the attribute {attribute} says {value:g} rows a second",)
                return ClockGuess(time=TimeSpec(index_rate_hz=float(value)), rate_hz=float(value), reasons=said)
    reason = f"no array is a clock; {ASSUMED_HZ:g} rows a second is only assumed: correct rate_hz"
    return ClockGuess(time=TimeSpec(index_rate_hz=ASSUMED_HZ), rate_hz=ASSUMED_HZ, reasons=(reason,), assumed=True)


def _other_streams(
    arrays: list[Array], look: Look, like: StreamGuess, choices: Choices
) -> tuple[list[StreamGuess], list[Array]]:
    """Make a stream of the arrays of each other length among which one is a clock. Returns the other arrays too."""
    streams: list[StreamGuess] = []
    left = [each for each in arrays if each.shape[0] in (look.num_rows, look.num_rows - 1)]
    for length in sorted({each.shape[0] for each in arrays} - {look.num_rows, look.num_rows - 1}):
        ours = [each for each in arrays if each.shape[0] == length]
        is_timed = any(each.numeric and looks_like_time(column_of(each)) is not None for each in ours)
        clock = (
            _clock(ours, length, {}, f"{like.name} of {length} rows", choices)
            if is_timed and length >= _FEW_ROWS
            else None
        )
        if clock is None or clock.assumed:
            left += ours
            continue
        group = clock.columns[0].rpartition("/")[0].rpartition("/")[2]
        stream = replace(
            like,
            name=plain_name(group or ours[0].last, "sensor"),
            time=clock.time,
            time_reasons=clock.reasons,
            rate_hz=clock.rate_hz,
            reasons=(f"{length} rows with a clock of their own",),
        )
        contents = sort_arrays(
            [each for each in ours if each.name not in clock.columns], length, stream, {stream.name, "timestamp"}
        )
        if contents.fields:
            streams.append(replace(stream, fields=tuple(contents.fields)))
        streams += contents.cameras
    return streams, left


def _between(anchor: StreamGuess, contents: Contents) -> list[StreamGuess]:
    if not contents.between:
        return []
    reason = f"one row fewer: they lie between two rows of {anchor.name}, and belong to the first of them"
    return [
        StreamGuess(
            name="between",
            kind=anchor.kind,
            files=anchor.files,
            time=TimeSpec(rows_of=anchor.name),
            reasons=(reason,),
            fields=tuple(contents.between),
        )
    ]


def _instruction(stream: StreamGuess, attributes: Mapping[str, Any]) -> InstructionSpec:
    """Find the text that says what the robot was told to do: an attribute, or a text in each row."""
    texts = [name for name, value in attributes.items() if isinstance(value, str) and value]
    keys = lexicon().phrases("arrays", "instruction")
    wanted = [name for key in keys for name in texts if " ".join(words_in(name.rpartition(".")[2])) == key]
    rows = [f for f in stream.fields if not f.numeric and lexicon().likeness(f.name, "arrays", "instruction")]
    column = f"{stream.name}/{rows[0].name}" if rows and not wanted else None
    return InstructionSpec(metadata_key=wanted[0] if wanted else None, file=None, column=column)
