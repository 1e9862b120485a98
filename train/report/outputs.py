"""Where the lines of a run go: metrics.jsonl always, W&B and TensorBoard if enabled. Only rank 0 writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlapipe.train.report.metrics import MetricsLog
from vlapipe.train.report.sinks import MetricsSink
from vlapipe.train.report.step_profile import PROFILE_FOLDER
from vlapipe.train.report.system import BusyMeter, system_values
from vlapipe.train.report.tensorboard_run import TENSORBOARD_FOLDER, open_tensorboard
from vlapipe.train.report.wandb_run import WANDB_FOLDER, WANDB_ID_FILE, open_wandb
from vlapipe.train.run_files import METRICS_FILE, RESULT_FILE, VALIDATION_FILE
from vlapipe.train.stopping import explain_surroundings

__all__ = ["REPORT_NAMES", "VALIDATION_FILE", "Outputs", "open_outputs"]

# Files and folders that reports make in a run's folder.
REPORT_NAMES = frozenset(
    {METRICS_FILE, VALIDATION_FILE, RESULT_FILE, WANDB_FOLDER, WANDB_ID_FILE, TENSORBOARD_FOLDER, PROFILE_FOLDER}
)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The destinations of a run's lines."""

    file: MetricsLog
    sinks: Sequence[MetricsSink]
    device: torch.device
    busy: BusyMeter

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the line of a step, and what the machine does beside it.

        Raises:
            StoppedError: the disk is full, or a quota is used up.
        """
        line = {**values, **system_values(self.device, self.busy)}
        with explain_surroundings(self.file.path):
            self.file.write(step, line)
        for sink in self.sinks:
            sink.write(step, line)


@contextlib.contextmanager
def open_outputs(
    out: Path,
    *,
    config: Mapping[str, Any],
    resumed_step: int,
    device: torch.device,
    datasets: Sequence[tuple[Path, Path]],
    dataset_digest: str,
    say: Callable[[str], None],
) -> Iterator[Outputs]:
    """Open the destinations that the table ``log`` of ``config`` names, for the duration of the block.

    ``datasets`` are folders and their manifests.
    """
    with contextlib.ExitStack() as stack:
        with explain_surroundings(out):
            file = stack.enter_context(MetricsLog(out, resumed_step=resumed_step))
        wanted = config["log"]
        sinks = [
            open_wandb(wanted["wandb"], out, config, datasets, dataset_digest, say)
            if wanted["wandb"] != "disabled"
            else None,
            open_tensorboard(out, resumed_step=resumed_step, say=say) if wanted["tensorboard"] else None,
        ]
        opened = [sink for sink in sinks if sink is not None]
        for sink in opened:
            stack.callback(sink.close)
        busy = stack.enter_context(BusyMeter(device))
        yield Outputs(file=file, sinks=opened, device=device, busy=busy)
