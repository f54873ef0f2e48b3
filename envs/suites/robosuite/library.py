"""robosuite, imported and built without its messages, its observations and its changes to the process."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from embodied.core.errors import MissingExtraError
from embodied.envs.suites.robosuite.tasks import Task

_LOGGER = "robosuite_logs"
# The first it sets to `egl` whatever the user wants; the second it refuses unless CUDA_VISIBLE_DEVICES has it too.
_VARIABLES = ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID")


def import_robosuite() -> Any:
    """The package. The first controller of a fresh installation is compiled by numba, which takes some ten seconds.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with _kept_environment(), _silent_logger():
            import robosuite
    except ImportError as error:
        raise MissingExtraError("robosuite", "robosuite") from error
    # It tells of every configuration file that it loads, and at each step of every joint that is near its limit.
    logging.getLogger(_LOGGER).setLevel(logging.ERROR)
    return robosuite


def make_library_environment(task: str, found: Task, robot: str, controller: str, *, robomimic: bool) -> Any:
    """The library's environment of a task.

    Args:
        task: its name.
        found: what is known of it.
        robot, controller: names.
        robomimic: its protocol: see `simulation.RobosuiteSimulation`.

    Raises:
        MissingExtraError: robosuite is not installed.
    """
    robosuite = import_robosuite()
    if task == "TwoArmHandover":
        _mend_handover()
    arm = robosuite.load_part_controller_config(default_controller=controller)
    if robomimic:
        arm["input_ref_frame"] = "world"
    config = {"type": "BASIC", "body_parts": {"right": {**arm, "gripper": {"type": "GRIP"}}}}
    environment = robosuite.make(
        task,
        robots=[robot] * found.arms,
        controller_configs=[copy.deepcopy(config) for _ in range(found.arms)],
        reward_shaping=found.dense and not robomimic,
        horizon=found.horizon,
        ignore_done=True,
        hard_reset=False,
        lite_physics=not robomimic,
        use_camera_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        renderer="mujoco",  # this one opens no window
        seed=0,
    )
    # Its observations, which it would look after at each physics step, are never looked at.
    environment._observables = {}
    environment.nut_id_to_sensors = environment.object_id_to_sensors = {}
    return environment


def empty(environment: Any) -> None:
    """Make the library's environment hold nothing.

    It is part of cycles, and Python, which does not see the 240 MB that hang on it, may leave them lying for long.
    """
    parts = vars(environment)
    if "sim" in parts:
        vars(parts["sim"]).clear()  # robots and their controllers are cycles that hold it, too
    parts.clear()


def _mend_handover() -> None:
    """Make the library's TwoArmHandover know the angle of every hammer, in this process; other angles stay as they are.

    It takes the arccosine of a cosine that is rounded to single precision: beyond -1 for some hammers whose head hangs
    straight down. Heights are nan then, the reward is that of a hammer on the table, and there is no success.
    """
    from robosuite.environments.manipulation.two_arm_handover import TwoArmHandover
    from robosuite.utils.transform_utils import quat2mat

    def hammer_angle(environment: Any) -> float:
        upwards = quat2mat(environment._hammer_quat)[2, 2]
        return float(np.pi / 2 - np.arccos(np.clip(upwards, -1.0, 1.0)))

    TwoArmHandover._hammer_angle = property(hammer_angle)


@contextmanager
def _kept_environment() -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.pop("MUJOCO_EGL_DEVICE_ID", None)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent_logger() -> Iterator[None]:
    """Its level is set by the import itself, so only a filter holds back what is said during it."""
    logger = logging.getLogger(_LOGGER)

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
