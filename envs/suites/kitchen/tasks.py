"""What the tasks of the kitchen are: joints, goals, success rules, words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied.envs.simulation import Camera

LIBRARY_THRESHOLD = 0.3  # FrankaKitchen-v1 calls an object done when its joints are this near to the goal


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where an object shall be.

    Args:
        joints: indices into the model's `qpos`.
        target: of those joints, rad, m and quaternion elements.
        site: on the object, where the robot takes it.
        r3m: index into `qpos` and its target in R3M's evaluation; None: not one of its objects.
        horizon: steps of the task that has no other goal.
    """

    joints: tuple[int, ...]
    target: tuple[float, ...]
    site: str
    r3m: tuple[int, float] | None = None
    horizon: int = 100

    def distance(self, qpos: np.ndarray) -> float:
        """From `qpos` [30] to the goal, as FrankaKitchen-v1 measures it: rad, m and quaternion elements alike."""
        return float(np.linalg.norm(qpos[list(self.joints)] - np.asarray(self.target)))


# Joints and targets are those of FrankaKitchen-v1 where it has the object (LIBRARY_NAMES). The others, knobs 1 and 3
# and the left door, are objects of R3M and RoboHive; their targets are the mirror images of the library's.
GOALS = {
    "knob1_on": Goal(joints=(9, 10), target=(-0.88, -0.01), site="knob1_site", r3m=(9, -1.57)),
    "knob2_on": Goal(joints=(11, 12), target=(-0.88, -0.01), site="knob2_site"),
    "knob3_on": Goal(joints=(13, 14), target=(-0.92, -0.01), site="knob3_site"),
    "knob4_on": Goal(joints=(15, 16), target=(-0.92, -0.01), site="knob4_site"),
    "light_on": Goal(joints=(17, 18), target=(-0.69, -0.05), site="light_site", r3m=(17, -0.7)),
    "sdoor_open": Goal(joints=(19,), target=(0.37,), site="slide_site", r3m=(19, 0.44)),
    # As long as a sequence: its handle goes out of reach, so it is moved in two ways, the second more than once.
    "ldoor_open": Goal(joints=(20, 21), target=(-1.45, 0.0), site="hinge_site1", r3m=(20, -1.25), horizon=280),
    "rdoor_open": Goal(joints=(20, 21), target=(0.0, 1.45), site="hinge_site2"),
    "micro_open": Goal(joints=(22,), target=(-0.75,), site="microhandle_site", r3m=(22, -1.25)),
    "kettle_move": Goal(
        joints=(23, 24, 25, 26, 27, 28, 29), target=(-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06), site="kettle_site"
    ),
}
LIBRARY_NAMES = {
    "knob2_on": "bottom burner",
    "knob4_on": "top burner",
    "light_on": "light switch",
    "sdoor_open": "slide cabinet",
    "rdoor_open": "hinge cabinet",
    "micro_open": "microwave",
    "kettle_move": "kettle",
}
# D4RL's: kitchen-complete and -partial, and kitchen-mixed.
SEQUENCES = {
    "microwave_kettle_light_slide": ("micro_open", "kettle_move", "light_on", "sdoor_open"),
    "microwave_kettle_burner_light": ("micro_open", "kettle_move", "knob2_on", "light_on"),
}
INSTRUCTIONS = {
    "knob1_on": "turn the lower right knob of the oven",
    "knob2_on": "turn the lower left knob of the oven",
    "knob3_on": "turn the upper right knob of the oven",
    "knob4_on": "turn the upper left knob of the oven",
    "light_on": "switch the light on",
    "sdoor_open": "slide the cabinet door open",
    "ldoor_open": "open the left door of the hinge cabinet",
    "rdoor_open": "open the right door of the hinge cabinet",
    "micro_open": "open the microwave",
    "kettle_move": "move the kettle to the back burner",
    "microwave_kettle_light_slide": "open the microwave, move the kettle, switch the light on and slide the door open",
    "microwave_kettle_burner_light": "open the microwave, move the kettle, turn the burner on and switch the light on",
}
# `left_cap2` and `right_cap2` are R3M's: RoboHive (v0.0.5, relay_kitchen/assets/franka_kitchen.xml) has these two that
# look at a body. The library's own `left_cap` and `right_cap` look past everything there is to do.
CAMERAS = {
    "front": Camera(position=(-0.9, -1.25, 2.9), target="lightblock_hinge"),
    "left_cap2": Camera(position=(-1.4, -1.0, 1.8), target="knob 1"),
    "right_cap2": Camera(position=(1.3, -0.7, 3.4), target="microwave"),
}
R3M_JOINTS = (9, 11, 13, 15, 17, 19, 20, 21, 22)  # of the knobs, the light, the doors and the microwave
R3M_TASKS = tuple(name for name, goal in GOALS.items() if goal.r3m is not None)


def goals_of(task: str) -> tuple[str, ...]:
    """The objects' goals that make up a task."""
    return SEQUENCES.get(task, (task,))
