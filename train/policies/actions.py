"""What is learned of a batch's actions, and what a policy's answer is in the units of the dataset.

Shape letters: B batch, H action horizon, A action size.
"""

from __future__ import annotations

from torch import Tensor

from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.policies.nn.normalize import Normalizer

__all__ = ["actions_of", "targets_of"]


def targets_of(normalizer: Normalizer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns normalized recorded actions ``(B, H, A)`` float32, and which of them count, bool.

    Padded actions, columns that are constant, and actions that are not finite do not count.
    """
    robot = batch.get(EMBODIMENT)
    counts = ~batch["action_is_pad"].unsqueeze(2) & normalizer.varying(robot)
    return normalizer(batch["action"], robot), counts & batch["action"].isfinite()


def actions_of(normalizer: Normalizer, spec: SampleSpec, predicted: Tensor, observation: Batch) -> Tensor:
    """Returns predicted normalized actions ``(B, H, A)`` in the units of the dataset, as actions were recorded."""
    actions: Tensor = normalizer.invert(predicted, observation.get(EMBODIMENT))
    if spec.action_form is not None:
        actions = spec.action_form.decode(actions, observation["observation.state"][:, spec.newest])
    return actions
