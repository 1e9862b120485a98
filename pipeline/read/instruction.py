"""Finds what an episode's robot was told to do: one text, or several paraphrases of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.read.metadata import metadata_value
from vlapipe.pipeline.read.text import read_small
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_text
from vlapipe.schemas.errors import is_text, printable
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import InstructionSpec, Schema
from vlapipe.schemas.surroundings import raise_if_stopped
from vlapipe.schemas.templates import fill_template, metadata_keys

__all__ = ["read_instructions", "require_keys"]

_MAX_SHOWN = 60  # characters of a value that a finding shows


def read_instructions(
    root: Path, raw: RawEpisode, schema: Schema, metadata: Mapping[str, Any], findings: Findings
) -> tuple[str, ...]:
    """Returns the instruction and its paraphrases from the first source that has one.

    The sources are the metadata key, the instruction file and the template. The result has at least one text, which is
    empty only if the template is, or lacks a metadata key.
    """
    spec = schema.instruction
    if spec.metadata_key:
        place = raw.metadata.path if raw.metadata else raw.folder
        told = metadata_value(metadata, spec.metadata_key)
        texts = _texts(told, "metadata.unreadable", place, f"text as {spec.metadata_key}", findings)
        if texts:
            return texts
        if told is None and spec.metadata_key != InstructionSpec.metadata_key:  # the schema names a key of its own
            findings.add("instruction.no_key", place, expected=f"text as {spec.metadata_key}", found="none")
    if raw.instruction_file:
        texts = _read_file(root, raw.instruction_file, schema, findings)
        if texts:
            return texts
    words = raw.task.replace("_", " ").replace("-", " ").strip()
    require_keys(spec.template, raw, metadata, findings)

    def value_of(key: str) -> str:
        value = metadata_value(metadata, key)
        return "" if value is None else printable(metadata_text(value))

    return (fill_template(spec.template, {"task": raw.task, "task_words": words}, value_of),)


def require_keys(template: str, raw: RawEpisode, metadata: Mapping[str, Any], findings: Findings) -> None:
    """Reports each metadata key of a template that the episode lacks."""
    for key in metadata_keys(template):
        if metadata_value(metadata, key) is None:
            place = raw.metadata.path if raw.metadata else raw.folder
            findings.add("metadata.missing_key", place, expected=f"a value as {key}", found="none")


def _texts(told: Any, code: str, place: str, expected: str, findings: Findings) -> tuple[str, ...]:
    """Returns a text, or the texts of a list, without blanks at the ends and without repetition; anything else is none.

    An empty text, an empty list and ``None`` are no instruction. Other values are faults.
    """
    listed = told if isinstance(told, list) else [] if told is None else [told]
    wrong = next((each for each in listed if not isinstance(each, str)), None)
    if wrong is not None or any(not is_text(text) for text in listed):
        half = next((text for text in listed if isinstance(text, str) and not is_text(text)), "")
        found = f"half a character in {printable(half)!r}" if wrong is None else repr(told)
        findings.add(code, place, expected=expected, found=found[:_MAX_SHOWN])
        return ()
    texts = tuple(dict.fromkeys(text.strip() for text in listed if text.strip()))
    if len(texts) > 1:
        findings.add("instruction.several", place, found=f"{len(texts)} texts, the first {texts[0]!r:.60}")
    return texts


def _is_ignored(line: str, spec: InstructionSpec) -> bool:
    return any(fnmatchcase(line.strip(), pattern) for pattern in spec.ignore)


def _read_file(root: Path, file: RawFile, schema: Schema, findings: Findings) -> tuple[str, ...]:
    code = "instruction.unreadable"
    try:
        text = read_small(root / file.path).decode("utf-8-sig")
        if not file.path.lower().endswith(".json"):
            lines = [line for line in text.splitlines() if not _is_ignored(line, schema.instruction)]
            kept: Any = (
                lines if schema.instruction.paraphrases else "\n".join(lines) if schema.instruction.ignore else text
            )
            return _texts(kept, code, file.path, "text", findings)
        told = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise_if_stopped(error, root / file.path)
        findings.add(code, file.path, found=str(error))
        return ()
    key = schema.instruction.metadata_key or "instruction"
    told = metadata_value(told, key) if isinstance(told, dict) else told
    return _texts(told, code, file.path, f"a text or a list of texts, or {key} with one", findings)
