"""From messages to the observation that a policy was trained on: the same names, sizes, order and dtypes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from embodied.core.errors import UserError
from embodied.core.protocols import IMAGE_PREFIX, STATE
from embodied.datasets.files.image_files import square
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.images import pixels
from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.receiving import Heard, Receiver
from embodied.real_robot.policy.stages import Stages


class Observation(NamedTuple):
    """A policy's observation, a batch of one.

    Attributes:
        values: `observation.images.<camera>` uint8 [1, S, S, 3], `observation.state` float32 [1, P].
        observed_ns: moment on the monotonic clock of the oldest of what is in it.
        received_ns: when the newest of it came.
        numbers: of the messages in it, by camera or `joint_states`.
    """

    values: dict[str, np.ndarray]
    observed_ns: int
    received_ns: int
    numbers: dict[str, int]


class Observer:
    """Takes up the newest messages that the policy needs.

    A frame of the size in training passes as it is; another is resized so that it just covers that size and its centre
    is taken, as frames of datasets are (`datasets.loading.frame_size`): proportions stay.
    """

    def __init__(self, robot: RobotDescription, needs: Needs, receiver: Receiver, stages: Stages) -> None:
        self._needs, self._receiver, self._stages = needs, receiver, stages
        self._cameras = {camera.input: name for name, camera in robot.cameras.items() if camera.input in needs.keys}
        self._state = needs.reads_state
        self._trusted_ns = robot.timeouts.source_s * 1e9

    def fresh(self, seen: dict[str, int]) -> bool:
        """Whether all cameras (joint states, where there is none) have something newer than the numbers in `seen`."""
        if self._cameras:
            cameras = self._receiver.cameras()
            return all(name in cameras and cameras[name].number > seen.get(name, 0) for name in self._cameras.values())
        state = self._receiver.state()
        return state is not None and state[1].number > seen.get("joint_states", 0)

    def observe(self) -> Observation | None:
        """The newest of everything, or None while something was never heard."""
        cameras, state = self._receiver.cameras(), self._receiver.state()
        if any(name not in cameras for name in self._cameras.values()) or (self._state and state is None):
            return None
        used = {name: cameras[name] for name in self._cameras.values()}
        values = {key: self._frame(key, used[name])[None] for key, name in self._cameras.items()}
        if state is not None and self._state:
            values[STATE], used["joint_states"] = state[0][None], state[1]
        return Observation(
            values,
            observed_ns=min(map(self._moment, used.values())),
            received_ns=max(heard.received_ns for heard in used.values()),
            numbers={name: heard.number for name, heard in used.items()},
        )

    def _moment(self, heard: Heard) -> int:
        """When it was true: by its own stamp, as far as clocks are trusted to agree."""
        trusted = 0 < heard.delay_ns <= self._trusted_ns < float("inf")
        return heard.received_ns - heard.delay_ns if trusted else heard.received_ns

    def _frame(self, key: str, heard: Heard) -> np.ndarray:
        with self._stages.measure("decode"):
            frame = pixels(heard.message)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            camera = key.removeprefix(IMAGE_PREFIX)
            raise UserError(
                f"camera {camera} sends {frame.dtype} {list(frame.shape)}, the policy needs colour pictures"
            )
        size = self._needs.image_size
        with self._stages.measure("resize"):
            if frame.shape[:2] != (size, size):
                return square(Image.fromarray(np.ascontiguousarray(frame)), size)
            return np.ascontiguousarray(frame)
