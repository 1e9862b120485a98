"""Guesses the cameras of an episode from the paths of its images alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock import ClockGuess, unit_of
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.columns.stamp_text import form_inside, stamp_in, strptime_form, text_clock
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.files.clock_files import StampTable
from vlapipe.pipeline.infer.files.image_names import before_number, judged_number, number_pattern, numbers_of
from vlapipe.pipeline.infer.files.layout import escape
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.pipeline.infer.text.cells import DATES_S
from vlapipe.schemas.schema import NANOSECONDS, TimeSpec, TimeUnit

__all__ = ["FEW_IMAGES", "Beside", "clock_answer", "guess_cameras"]

FEW_IMAGES = 3  # fewer in a folder of an episode are plots and previews, and no camera
_MAX_VIEWS = 16
_SMALLEST_STAMP = 1e6  # smaller whole numbers count images, unless they last as long as the recording
_UNITS: tuple[TimeUnit, ...] = ("ms", "us")
_ALIKE = 0.1  # by how much of the recording's time these may differ from it
_ALIKE_STEPS = 3  # least mean step of numbers that are times


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The other data of an episode with images: the anchor's name, clock and number of rows, and tables of stamps."""

    name: str
    clock: ClockGuess
    num_rows: int
    tables: tuple[StampTable, ...] = ()


def guess_cameras(
    episodes: list[list[str]], beside: Beside, choices: Choices, usual_name: str = "camera"
) -> list[StreamGuess]:
    """Guess the image streams of a dataset.

    Args:
        episodes: for each episode looked at, the paths of its images relative to the episode's folder.
        beside: the other data of the first of these episodes.
        choices: takes the choices of clocks.
        usual_name: the name of a stream whose images say none.
    """
    sorted_out = [_by_folder(images) for images in episodes]
    kept = {folder for each in sorted_out for folder, paths in each.items() if len(paths) >= FEW_IMAGES}
    folders = {folder: sorted({path for each in sorted_out for path in each.get(folder, ())}) for folder in kept}
    if not folders:
        return []
    first = next(each for each in sorted_out if kept & each.keys())
    first = {folder: paths for folder, paths in first.items() if folder in kept}
    suffix = _suffix([path for paths in folders.values() for path in paths])
    varying = _varying_part(sorted(folders))
    if varying is not None and len(folders) > 1:
        names = sorted(folders)[0].split("/")
        names[varying] = "{camera}"
        sample = max(first.values(), key=len)
        every = [path for paths in folders.values() for path in paths]
        pattern = "/".join([*names, f"*{suffix}"])
        reason = f"each of {len(folders)} folders is a camera: {', '.join(sorted(folders)[:_MAX_VIEWS])}"
        return [_camera(usual_name, (pattern,), sample, every, beside, choices, [reason])]
    streams = []
    for folder in sorted(folders)[:_MAX_VIEWS]:
        name = usual_name if len(folders) == 1 else identifier(PurePosixPath(folder).name, usual_name)
        paths = first.get(folder) or folders[folder]
        for part_name, (prefix, part) in _by_prefix(name, paths).items():
            inside = "" if folder == "." else f"{escape(folder)}/"
            every = [path for path in folders[folder] if PurePosixPath(path).name.startswith(prefix)]
            streams.append(
                _camera(part_name, (f"{inside}{escape(prefix)}*{suffix}",), part, every, beside, choices, [])
            )
    return streams


def _by_folder(images: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in images:
        found[path.rpartition("/")[0] or "."].append(path)
    return found


def _suffix(paths: list[str]) -> str:
    suffixes = {PurePosixPath(path).suffix for path in paths}
    if len(suffixes) == 1:
        return suffixes.pop()
    lower = {suffix.lower() for suffix in suffixes}
    if lower <= {".jpg", ".jpeg"}:
        return ".[jJ][pP]*[gG]"
    if lower <= {".jpg", ".jpeg", ".png"}:  # of one camera
        return ".[jp][pn]g" if suffixes <= {".jpg", ".png"} else ".[jJpP]*[gG]"
    letters = min(lower, key=len).removeprefix(".")  # one kind, in capitals or not; or .tif and .tiff
    return "." + "".join(f"[{letter}{letter.upper()}]" for letter in letters) + ("" if len(lower) == 1 else "*")


def _varying_part(folders: list[str]) -> int | None:
    """Return the index of the one path part in which the folders differ, or ``None`` if there is not exactly one."""
    parts = [folder.split("/") for folder in folders]
    if len({len(names) for names in parts}) != 1:
        return None
    varying = [i for i, names in enumerate(zip(*parts, strict=True)) if len(set(names)) > 1]
    return varying[0] if len(varying) == 1 else None


def _prefixes(paths: list[str]) -> dict[str, str]:
    """Return for each path the part of its name before the time, or else before the number that tells images apart."""
    names = {path: PurePosixPath(path).name for path in paths}
    times = {path: stamp_in(name) for path, name in names.items()}
    if all(times.values()):
        return {path: names[path][: found.start()] for path, found in times.items() if found}
    judged = judged_number(list(names.values()))
    return {path: before_number(name, judged) if judged is not None else "" for path, name in names.items()}


def _by_prefix(name: str, paths: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Split the images of one folder by camera, with its prefix: cam0_0001.jpg and cam1_0001.jpg are two cameras."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, prefix in _prefixes(paths).items():
        groups[prefix].append(path)
    if not 1 < len(groups) <= _MAX_VIEWS or min(map(len, groups.values())) < 3 or "" in groups:
        return {name: ("", paths)}
    return {
        identifier(prefix, f"camera_{i}"): (prefix, found) for i, (prefix, found) in enumerate(sorted(groups.items()))
    }


def _camera(
    name: str,
    files: tuple[str, ...],
    paths: list[str],
    every: list[str],
    beside: Beside,
    choices: Choices,
    reasons: list[str],
) -> StreamGuess:
    """Describe one camera by one episode's images in one folder. ``every`` has those of all episodes and folders."""
    names = sorted({PurePosixPath(path).name for path in paths})
    every = sorted({PurePosixPath(path).name for path in every})
    time, time_reasons = _time_of(name, names, every, files[0], beside, choices)
    return StreamGuess(
        name=name,
        kind="images",
        files=files,
        time=time,
        time_reasons=time_reasons,
        reasons=tuple(reasons),
    )


_Answer = Option[TimeSpec]


def _time_of(
    camera: str, names: list[str], every: list[str], files: str, beside: Beside, choices: Choices
) -> tuple[TimeSpec, tuple[str, ...]]:
    """Guess the clock of a camera: times in the names, a table of stamps, the anchor's rows, or a rate."""
    answers = list(_times_in_names(names, every, beside))
    answers += _tables_of_times(names, files, beside, is_timed=bool(answers))
    judged = judged_number(names)
    pattern = None if judged is None else number_pattern(every, judged)
    if judged is not None and pattern is not None:
        texts = numbers_of(names, judged)
        answers += _by_number(texts, pattern or None, beside) if max(map(float, texts)) < _SMALLEST_STAMP else ()
    elif not answers:
        rate = beside.clock.rate_hz or 10.0
        seen = Evidence("in_order", 1.0, "no number in the names: their order is taken; correct rate_hz")
        answers = [
            clock_answer(TimeSpec(index_rate_hz=rate, starts_with=beside.name), seen, "a constant rate", "rate_hz")
        ]
    best = max(answers, key=lambda answer: answer.score)
    # A rate is only a way out; two sources of stamps are a choice.
    taken = choices.pick(f"{camera}: clock", [a for a in answers if a is best or not a.value.index_rate_hz])
    if taken.value.index_rate_hz:
        rate_hz = f"{taken.value.index_rate_hz:.4g}"
        about = f"{camera}: how many images a second, which nothing states"
        choices.ask(about, rate_hz, f"rate_hz = {rate_hz}", "another rate", "rate_hz = ...")
    return taken.value, taken.reasons


def clock_answer(time: TimeSpec, seen: Evidence, says: str, line: str, also: Sequence[str] = ()) -> _Answer:
    """Make an option of one clock that images or frames may have, by what was seen of it."""
    reasons = (*said("camera_clock", [seen]), *also)
    return Option(value=time, score=log_odds("camera_clock", [seen]), says=says, line=line, reasons=reasons)


def _times_in_names(names: list[str], every: list[str], beside: Beside) -> Iterator[_Answer]:
    """Yield the clock that dates or large numbers in the names make."""
    form, inside = strptime_form(names[0]), form_inside(every)
    if form is not None and text_clock(every) is not None:
        seen = Evidence("date_in_name", 1.0, f"the name is a time: {names[0]}")
        yield clock_answer(TimeSpec(format=form), seen, "times in their names", f"format = {form!r}")
        return
    if inside is not None:
        seen = Evidence("date_in_name", 1.0, f"a time stands in the name: {names[0]}")
        time = TimeSpec(pattern=inside[0], format=inside[1])
        yield clock_answer(time, seen, "times in their names", f"format = {inside[1]!r}")
        return
    judged = judged_number(names)
    pattern = None if judged is None else number_pattern(every, judged)
    if judged is None or pattern is None:
        return
    texts = numbers_of(names, judged)
    values = np.sort(np.array([float(text) for text in texts]))
    whole = all(text.isdigit() for text in texts)
    if whole and values.max() < _SMALLEST_STAMP:
        return
    unit, why = unit_of(sorted(texts, key=float))
    reasons = [*why]
    seconds = float(values[0]) * NANOSECONDS[unit] / 1e9
    exact = not whole and any(len(text.replace(".", "")) > 17 for text in texts)
    time = TimeSpec(pattern=pattern or None, unit=unit, integer=whole, exact=exact)
    if len(beside.clock.stamps_s) and (seconds > DATES_S[0]) != beside.clock.epoch:
        time = replace(time, starts_with=beside.name)
        reasons = [*reasons, f"its clock is not that of {beside.name}: both are taken to start together"]
    seen = Evidence("time_in_name", 1.0, "the name is a time")
    yield clock_answer(time, seen, "times in their names", f'unit = "{time.unit}"', reasons)


def _tables_of_times(names: list[str], files: str, beside: Beside, *, is_timed: bool) -> Iterator[_Answer]:
    """Yield the clock that a table beside the images makes: one that names them, else one with a stamp for each.

    ``is_timed`` says that times stand in the names.
    """
    folder = PurePosixPath(files).parent.name
    # The table of these images alone comes before a list that holds other ones too, and perhaps not all of these.
    for table in sorted(beside.tables, key=lambda table: (-table.share_of(names, folder), len(table.columns))):
        time = table.time_of_images(names, folder)
        if time is not None:
            time = replace(time, file=_of_each_camera(table.pattern, files))
            seen = Evidence("named_by_table", 1.0, f"{time.file} names the images and their times")
            yield clock_answer(time, seen, "the table that names them", f'file = "{time.file}"')
            return
    fitting = [table for table in beside.tables if table.alone and table.num_rows == len(names)]
    if fitting and not is_timed:  # the table nearest to the images in the folder tree
        table = max(fitting, key=lambda table: _num_shared(table.pattern, files.rpartition("/")[0]))
        time = replace(table.time, file=_of_each_camera(table.pattern, files))
        seen = Evidence("stamp_an_image", 1.0, f"{time.file} has a stamp for each image, in the order of their numbers")
        yield clock_answer(time, seen, "a stamp for each image", f'file = "{time.file}"')


def _by_number(texts: list[str], pattern: str | None, beside: Beside) -> Iterator[_Answer]:
    """Yield the clocks that small numbers in the names can make."""
    if not all(text.isdigit() for text in texts):
        return
    numbers = sorted(map(int, texts))
    count, span, rows = len(numbers), numbers[-1] - numbers[0], beside.num_rows
    why = None
    if rows - count in (0, 1):
        many = "as many as" if count == rows else "one fewer than"
        why = f"numbered, {many} {beside.name} has rows: image i belongs to row i, a lost one moves no other"
    elif rows - span - 1 in (0, 1) and numbers[0] in (0, 1):
        why = f"their numbers are those of the rows of {beside.name}: some rows have no image"
    if why is not None:
        seen = Evidence("image_a_row", 1.0, why)
        yield clock_answer(TimeSpec(rows_of=beside.name), seen, "one a row", f'rows_of = "{beside.name}"')
        return
    lasts = rows / (beside.clock.rate_hz or 10.0)
    for unit in _UNITS if not beside.clock.assumed and span > _ALIKE_STEPS * count else ():
        if abs(span * NANOSECONDS[unit] / 1e9 - lasts) < _ALIKE * lasts:
            seen = Evidence("lasts_as_long", 1.0, f"the numbers in {unit} last as long as {beside.name}")
            time = TimeSpec(pattern=pattern, unit=unit, integer=True, starts_with=beside.name)
            yield clock_answer(time, seen, f"times in {unit}", f'unit = "{unit}"')
    rate = (beside.clock.rate_hz or 10.0) * count / max(1, rows)
    why = f"numbered: {count} images over the time of {beside.name} are {rate:.4g} a second; correct rate_hz"
    also = [f"taken to start with {beside.name}"] if beside.clock.time.index_rate_hz is None else []
    time = TimeSpec(pattern=pattern, index_rate_hz=rate, starts_with=beside.name)
    yield clock_answer(time, Evidence("numbered", 1.0, why), "a constant rate", f"rate_hz = {rate:.4g}", also)


def _of_each_camera(table: str, files: str) -> str:
    """Return the path of any camera's table of stamps from that of one camera, if the tables lie beside the images."""
    parts, folders = table.split("/"), files.split("/")[:-1]
    at = folders.index("{camera}") if "{camera}" in folders else len(parts)
    if len(parts) > at + 1 and parts[:at] == folders[:at]:
        parts[at] = "{camera}"
    return "/".join(parts)


def _num_shared(one: str, other: str) -> int:
    shared = 0
    for a, b in zip(one.split("/")[:-1], other.split("/"), strict=False):
        if a != b and b != "{camera}":
            break
        shared += 1
    return shared
