"""The demo's task in closed loop: actions move the arm, and the cameras and sensors see what follows.

``DemoEnv`` has the methods of a Gymnasium environment, without needing Gymnasium. Its scenes are never those of a
recorded demo. Everything that happens follows from the seed of ``reset`` and the actions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.demo.camera import CAMERAS, HEIGHT, WIDTH, Camera
from vlapipe.pipeline.demo.drawing import Image
from vlapipe.pipeline.demo.episode import CAMERA_HZ, ENCODER_TICK_DEG, ROBOT_HZ, SENSOR_HZ, make_plan
from vlapipe.pipeline.demo.kinematics import euler_matrix, forward, inverse, is_reachable, tip_pose
from vlapipe.pipeline.demo.render import encode, render_arm, render_still
from vlapipe.pipeline.demo.scene import PAD_HEIGHT_MM
from vlapipe.pipeline.demo.sensors import alines, draw_stiffness, forces, surface_gap
from vlapipe.pipeline.demo.wordings import PARAPHRASES
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["DemoEnv"]

Floats = NDArray[np.float64]

SEED = 2**40  # of all scenes here; a demo is recorded with another seed
ACTION_S = 0.1  # an action is the pose's change over this time, as the schema meca500 derives it
ROWS = round(ACTION_S * ROBOT_HZ)
MAX_MM_S, MAX_DEG_S = 300.0, 90.0  # the operator's fastest motion has 210 mm/s and 35 deg/s
DEPTH_MM = 3.0  # how far below a pad's top the needle counts as inserted; the operator ends 4.8 to 7.4 mm below
IMAGES, INSTRUCTIONS = ("seen", "blank"), ("own", "swapped", "paraphrased")


class DemoEnv:
    """The arm, the pads and one instruction. An episode ends in success, in a failure that is named, or after a while.

    An observation is a dict. ``state`` has ``robot/joint_position`` and ``robot/tcp_pose``, each (N, 6) float32: the
    rows at 100 Hz since the observation before, the newest last. ``sensors`` has ``force`` (M,) and ``aline`` (M, 1025)
    likewise at 650 Hz. ``images`` has the newest image of each camera, (480, 640, 3) uint8 RGB, of its own clock of
    15 Hz. ``task`` is the instruction.

    ``info`` of each step has ``is_success``, ``outcome`` (a text once the episode has ended), and ``entered`` (the
    colour of the pad that the needle is in, or None), ``named`` (the colour of the scene's own pad), ``told`` (the
    colour in the instruction), and ``task``.
    """

    action_hz = 1 / ACTION_S

    def __init__(self, *, images: str = "seen", instructions: str = "own", time_limit_s: float = 8.0) -> None:
        """Choose how the task is varied, to see what a policy goes by.

        Args:
            images: ``seen``, or ``blank``: every image is black.
            instructions: ``own``; ``swapped``: another pad of the scene is named, while success is still the scene's
                own pad; ``paraphrased``: one of 20 wordings that no demo has.
            time_limit_s: how long an episode lasts at most. The operator takes 2.4 to 3.8 s.

        Raises:
            UsageError: a choice is unknown.
        """
        for name, choice, known in (("images", images, IMAGES), ("instructions", instructions, INSTRUCTIONS)):
            if choice not in known:
                raise UsageError(f"environment demo: {name} {choice!r}: unknown", did_you_mean(choice, known))
        self._images, self._instructions, self._time_limit_s = images, instructions, float(time_limit_s)
        self._ended = True

    def reset(self, *, seed: int = 0, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002
        """Begin the episode of a seed, and return its first observation and ``info``. Four seeds name four colours."""
        self.scene, self._motion = make_plan(SEED, seed)
        self._rng = np.random.default_rng([SEED, seed, 3])
        self.told, self.instruction = self._tell(seed)
        self._stiffness = draw_stiffness(self._rng)
        self._phase_s = -self._rng.uniform(0.2, 1.0, len(CAMERAS)) / CAMERA_HZ
        self._stills: dict[str, Image] = {}  # each camera's picture without the arm
        begin = np.zeros(1)
        self._pose = np.concatenate([self._motion.tip_mm(begin), self._motion.euler_deg(begin)], axis=1)  # (rows, 6)
        self._step, self._sensed, self._ended = 0, 0, False
        self._entered: int | None = None
        return self._observe(1), self._info(False, "")

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move for 0.1 s by ``action``: the pose's change (x, y, z in mm, a, b, r in degrees); a gripper is ignored.

        A change that is too fast is shortened, and the arm stays where it is rather than go where it cannot reach.

        Returns:
            Observation, reward (1 on success), whether the episode has ended, whether its time is up, and ``info``.
        """
        if self._ended:
            raise UsageError("environment demo: step: the episode has ended", "call reset first")
        change = np.asarray(action, dtype=np.float64).reshape(-1)
        if len(change) not in (6, 7) or not np.isfinite(change).all():
            found = f"{len(change)} numbers" if len(change) not in (6, 7) else "NaN or infinity"
            cure = "the pose's change over 0.1 s: x, y, z in mm, a, b, r in degrees, and a gripper that is ignored"
            raise UsageError(f"environment demo: step: expected 6 or 7 finite numbers, found {found}", cure)
        rows = self._moved(change[:6])
        self._pose = np.concatenate([self._pose, rows])
        self._step += 1
        outcome = ""
        for before, after in zip(self._pose[-ROWS - 1 : -1], rows, strict=True):
            outcome = outcome or self._touched(before, after)
        success = outcome == "success"
        is_late = not outcome and self._time_s >= self._time_limit_s - 1e-6
        self._ended = bool(outcome) or is_late
        info = self._info(success, "the time is up" if is_late else outcome)
        return self._observe(ROWS), float(success), bool(outcome), is_late, info

    def expert_action(self) -> NDArray[np.float32]:
        """Return the operator's next action, (7,): from where the arm is to where the operator would be 0.1 s later."""
        time_s = np.array([self._time_s + ACTION_S])
        wanted = np.concatenate([self._motion.tip_mm(time_s)[0], self._motion.euler_deg(time_s)[0]])
        return np.append(wanted - self._pose[-1], 1.0).astype(np.float32)

    def render(self) -> Image:
        """Return a picture of the scene from the second camera, (480, 640, 3) uint8 RGB, whatever the policy sees."""
        return self._drawn(CAMERAS[1], self._pose[-1:])

    @property
    def _time_s(self) -> float:
        return self._step * ACTION_S

    def _tell(self, seed: int) -> tuple[str, str]:
        """Return the colour that the policy is told, and the instruction."""
        named = self.scene.named
        if self._instructions == "swapped":
            named = (named + 1 + seed % (len(self.scene.colours) - 1)) % len(self.scene.colours)
        colour = self.scene.colours[named]
        if self._instructions == "paraphrased":
            return colour, PARAPHRASES[seed % len(PARAPHRASES)].format(colour=colour)
        return colour, self.scene.instruction.replace(self.scene.colours[self.scene.named], colour)

    def _moved(self, change: Floats) -> Floats:
        """Return the poses ``(10, 6)`` of the next 0.1 s."""
        of_mm = MAX_MM_S * ACTION_S / max(1e-9, float(np.linalg.norm(change[:3])))
        of_deg = MAX_DEG_S * ACTION_S / max(1e-9, float(np.abs(change[3:]).max()))
        share = np.arange(1, ROWS + 1)[:, None] / ROWS
        rows = self._pose[-1] + share * change * min(1.0, of_mm, of_deg)
        if not is_reachable(rows[:, :3], euler_matrix(rows[:, 3:])):
            return np.repeat(self._pose[-1:], ROWS, axis=0)
        return np.asarray(rows)

    def _touched(self, before: Floats, after: Floats) -> str:
        """Follow the tip over one row; return how the episode ends, or an empty text."""
        pad = int(self.scene.pad_at(after[None, :2])[0])
        is_inside = pad >= 0 and after[2] < PAD_HEIGHT_MM
        if not is_inside:
            self._entered = None
            return "the needle hit the table" if after[2] < 0 else ""
        if self._entered is None and before[2] < PAD_HEIGHT_MM:
            return f"the needle hit the side of the {self.scene.colours[pad]} pad"
        self._entered = pad
        if after[2] > PAD_HEIGHT_MM - DEPTH_MM:
            return ""
        return "success" if pad == self.scene.named else f"the needle entered the {self.scene.colours[pad]} pad"

    def _info(self, success: bool, outcome: str) -> dict[str, Any]:
        entered = None if self._entered is None else self.scene.colours[self._entered]
        named = self.scene.colours[self.scene.named]
        ended = {"is_success": success, "outcome": outcome, "entered": entered}
        return {**ended, "named": named, "told": self.told, "task": self.scene.instruction}

    def _observe(self, num_rows: int) -> dict[str, Any]:
        rows = self._pose[-num_rows:]
        joints = inverse(rows[:, :3], euler_matrix(rows[:, 3:]))
        joints = (np.rint(joints / ENCODER_TICK_DEG) * ENCODER_TICK_DEG).astype(np.float32)
        pose = tip_pose(joints.astype(np.float64)).astype(np.float32)
        return {
            "state": {"robot/joint_position": joints, "robot/tcp_pose": pose},
            "images": {camera.name: self._image(i, camera) for i, camera in enumerate(CAMERAS)},
            "sensors": self._sense(),
            "task": self.instruction,
        }

    def _sense(self) -> dict[str, NDArray[np.float32]]:
        """Return the sensors' rows since the last call, at least one."""
        until = int(self._time_s * SENSOR_HZ + 1e-6) + 1
        time_s = np.arange(self._sensed - 1, until) / SENSOR_HZ  # one more before, for the speed
        row = np.clip(time_s * ROBOT_HZ, 0, len(self._pose) - 1)
        pose = np.stack([np.interp(row, np.arange(len(self._pose)), column) for column in self._pose.T], axis=1)
        gap = surface_gap(self.scene, pose[:, :3], euler_matrix(pose[:, 3:])[:, :, 2])
        self._sensed = until
        return {
            "force": forces(gap, time_s, self._stiffness, self._rng)[1:],
            "aline": alines(gap[1:], self._rng),
        }

    def _image(self, number: int, camera: Camera) -> Image:
        """Return the camera's newest image, which was taken up to 1/15 s ago and went through its JPEG."""
        if self._images == "blank":
            return np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        phase_s = float(self._phase_s[number])
        taken_s = phase_s + np.floor((self._time_s - phase_s) * CAMERA_HZ + 1e-6) / CAMERA_HZ
        row = int(np.clip(round(taken_s * ROBOT_HZ), 0, len(self._pose) - 1))
        decoded: Image = simplejpeg.decode_jpeg(encode(self._drawn(camera, self._pose[row : row + 1])))
        return decoded

    def _drawn(self, camera: Camera, pose: Floats) -> Image:
        """Return what a camera sees of the arm in a pose ``(1, 6)``."""
        if camera.name not in self._stills:
            self._stills[camera.name] = render_still(self.scene, camera)
        points = forward(inverse(pose[:, :3], euler_matrix(pose[:, 3:])))[0][0]
        return render_arm(self._stills[camera.name], self.scene, camera, points)
