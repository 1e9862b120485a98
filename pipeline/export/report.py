"""What an export did: counts, what the one rate changed in each stream, and what encoding changed in each camera."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlapipe.pipeline.export.one_rate import Change, add_changes
from vlapipe.pipeline.export.sample_rows import ExportedEpisode
from vlapipe.pipeline.export.video_files import Loss

__all__ = ["ExportReport", "Tally"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What the export of some episodes did."""

    frames: int = 0
    no_action: int = 0  # frames without an action
    no_state: int = 0  # frames without a value of another stream
    changes: dict[str, Change] = field(default_factory=dict)
    remade: dict[str, int] = field(default_factory=dict)  # by camera, images that are stored as another file
    losses: dict[str, Loss] = field(default_factory=dict)  # by camera, of those that are video

    def plus(self, other: Tally) -> Tally:
        """Returns both together."""
        return Tally(
            frames=self.frames + other.frames,
            no_action=self.no_action + other.no_action,
            no_state=self.no_state + other.no_state,
            changes=add_changes(self.changes, other.changes),
            remade={k: self.remade.get(k, 0) + other.remade.get(k, 0) for k in self.remade | other.remade},
            losses={
                k: self.losses.get(k, Loss()).plus(other.losses.get(k, Loss())) for k in self.losses | other.losses
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the tally as JSON values."""
        return {
            **vars(self),
            "changes": {name: vars(change) for name, change in self.changes.items()},
            "losses": {name: vars(loss) for name, loss in self.losses.items()},
        }

    @classmethod
    def of(cls, episode: ExportedEpisode, *, remade: dict[str, int], losses: dict[str, Loss]) -> Tally:
        """Returns the tally of one episode."""
        return cls(
            frames=len(episode),
            no_action=int(episode.has_no_action.sum()),
            no_state=int(episode.has_no_state.sum()),
            changes=episode.frames.changes,
            remade=remade,
            losses=losses,
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Tally:
        """Returns the tally that ``to_json`` gave."""
        changes = {name: Change(**change) for name, change in values["changes"].items()}
        losses = {name: Loss(**loss) for name, loss in values["losses"].items()}
        return cls(**{**values, "changes": changes, "losses": losses})


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Result of an export. ``was_finished`` says that an earlier one had made the same, and nothing was done."""

    out: Path
    to: str
    fps: float
    episodes: int
    of_episodes: int  # of the dataset, with those that ``where`` leaves out
    num_files: int
    num_bytes: int
    left_out: tuple[str, ...] = ()  # sensors that some episodes lack
    tally: Tally
    num_resumed: int = 0  # episodes from a killed run
    was_finished: bool = False
    elapsed_s: float = 0.0

    def to_json(self) -> str:
        """Returns the report as JSON text."""
        losses = {
            name: {"frames": loss.frames, "psnr_db": loss.psnr_db, "worst_psnr_db": loss.worst_psnr_db}
            for name, loss in self.tally.losses.items()
        }
        tally = {**self.tally.to_json(), "losses": losses}
        return json.dumps({**vars(self), "out": str(self.out), "tally": tally}, indent=1) + "\n"
